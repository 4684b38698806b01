//! Active health checks: endpoints are asked whether they are well.

use std::sync::Arc;
use std::time::Duration;

use super::{InvalidPolicy, counted, positive};
use crate::name::PortNumber;

/// How endpoints are asked whether they are well, by every sidecar that uses the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// The service's port that is asked. None: its first.
    pub port: Option<PortNumber>,
    /// From one question to the next, jittered by a tenth. Default 10 s.
    pub interval: Duration,
    /// How long an answer may take; shorter than the interval. Default 1 s.
    pub timeout: Duration,
    /// Good answers in a row after which it counts as well again. Default 2.
    pub healthy: u32,
    /// Bad ones in a row after which it counts as unwell. Default 3.
    pub unhealthy: u32,
}

impl HealthCheck {
    /// The default of `interval`.
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// The default of `timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// The default of `healthy`.
    pub const HEALTHY: u32 = 2;
    /// The default of `unhealthy`.
    pub const UNHEALTHY: u32 = 3;
    /// No sidecar asks more often.
    pub const LEAST_INTERVAL: Duration = Duration::from_millis(100);

    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        positive("healthCheck.timeout", self.timeout)?;
        counted("healthCheck.healthy", self.healthy)?;
        counted("healthCheck.unhealthy", self.unhealthy)?;
        if self.interval < Self::LEAST_INTERVAL {
            let what = format!("is at least {:?}, not {:?}", Self::LEAST_INTERVAL, self.interval);
            return Err(InvalidPolicy::new("healthCheck.interval", what));
        }
        if self.timeout >= self.interval {
            let what = format!("{:?} must be shorter than interval ({:?})", self.timeout, self.interval);
            return Err(InvalidPolicy::new("healthCheck.timeout", what));
        }
        match &self.probe {
            Probe::Http { path, expect } => {
                let ends = (expect.0, expect.1);
                if !path.starts_with('/') {
                    return Err(InvalidPolicy::new("healthCheck.http.path", "must begin with '/'"));
                }
                if !(100 <= ends.0 && ends.0 <= ends.1 && ends.1 <= 599) {
                    return Err(InvalidPolicy::new(
                        "healthCheck.http.expect",
                        "is a range within 100 to 599",
                    ));
                }
                Ok(())
            }
            Probe::Grpc { .. } | Probe::Tcp => Ok(()),
        }
    }
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A GET.
    Http {
        /// Of this path.
        path: Arc<str>,
        /// The lowest and the highest status that mean well. Default 200 to 299.
        expect: (u16, u16),
    },
    /// `grpc.health.v1.Health/Check`; SERVING means well.
    Grpc {
        /// Of this service; empty: of the server as a whole.
        service: Arc<str>,
    },
    /// Whether a connection can be made, mutual TLS included.
    Tcp,
}
