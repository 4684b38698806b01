//! Bulkheads: how many requests may be under way, so that what is slow or greedy sinks alone.

use std::time::Duration;

use super::rate::RateLimit;
use super::{InvalidPolicy, counted, positive};

/// A bound on the requests that are under way: from their start to the end of the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bulkhead {
    /// The most that are under way. Default 1,024 of a service.
    pub max_in_flight: u32,
    /// The most that wait for a place. 0: nobody waits. Default 256.
    pub max_queue: u32,
    /// The longest one waits, within its deadline. Default 1 s.
    pub queue_timeout: Duration,
}

impl Default for Bulkhead {
    fn default() -> Self {
        Self { max_in_flight: 1_024, max_queue: 256, queue_timeout: Duration::from_secs(1) }
    }
}

impl Bulkhead {
    /// No bulkhead holds or queues more.
    pub const MOST: u32 = 1_000_000;

    pub(super) fn check(&self, part: &'static str) -> Result<(), InvalidPolicy> {
        let most = |field, value| {
            let what = || format!("is at most {}, not {value}", Self::MOST);
            if value > Self::MOST { Err(InvalidPolicy::new(field, what())) } else { Ok(()) }
        };
        counted("maxInFlight", self.max_in_flight)
            .and_then(|()| positive("queueTimeout", self.queue_timeout))
            .and_then(|()| most("maxInFlight", self.max_in_flight))
            .and_then(|()| most("maxQueue", self.max_queue))
            .map_err(|e| e.below(part))
    }
}

/// The bulkheads of a service at its callers' sidecars. Each sidecar counts for itself, exactly over its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bulkheads {
    /// Over the whole service.
    pub service: Bulkhead,
    /// The most requests under way at one endpoint. One that is full is not chosen; nothing waits for it. Default 256.
    pub endpoint: u32,
    /// The most long-lived streams: upgraded connections, event streams, gRPC calls older than 30 s. They do not count
    /// as requests under way. Default 1,024.
    pub max_streams: u32,
}

impl Default for Bulkheads {
    fn default() -> Self {
        Self { service: Bulkhead::default(), endpoint: 256, max_streams: 1_024 }
    }
}

impl Bulkheads {
    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        self.service.check("bulkhead")?;
        counted("bulkhead.endpoint.maxInFlight", self.endpoint)?;
        counted("bulkhead.maxStreams", self.max_streams)
    }
}

/// Bounds on open connections from one sidecar. Each of its workers has its part, at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionLimits {
    /// To each endpoint. Default: none but that of the requests under way.
    pub per_endpoint: Option<u32>,
    /// To all endpoints of the service. Default: none.
    pub per_service: Option<u32>,
}

impl ConnectionLimits {
    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        self.per_endpoint.map_or(Ok(()), |n| counted("connections.perEndpoint", n))?;
        self.per_service.map_or(Ok(()), |n| counted("connections.perService", n))?;
        match (self.per_endpoint, self.per_service) {
            (Some(endpoint), Some(service)) if endpoint > service => {
                let what = format!("{endpoint} is more than connections.perService ({service})");
                Err(InvalidPolicy::new("connections.perEndpoint", what))
            }
            _ => Ok(()),
        }
    }
}

/// What protects an instance of a service at its own sidecar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Protection {
    /// Over each caller by itself, so that a noisy one can not take the whole. Default: none.
    pub caller: Option<Bulkhead>,
    /// How often something may be asked.
    pub rate_limits: Vec<RateLimit>,
}

impl Protection {
    /// How many rate limits a service may have.
    pub const MAX_RATE_LIMITS: usize = 32;

    /// Refuses values that contradict each other.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        self.caller.as_ref().map_or(Ok(()), |b| b.check("bulkhead.caller"))?;
        if self.rate_limits.len() > Self::MAX_RATE_LIMITS {
            let what = format!("there are more than {}", Self::MAX_RATE_LIMITS);
            return Err(InvalidPolicy::new("rateLimits", what));
        }
        let mut limits = self.rate_limits.iter().enumerate();
        limits.try_for_each(|(i, limit)| limit.check().map_err(|e| e.below(format_args!("rateLimits.{i}"))))
    }
}
