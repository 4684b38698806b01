//! What the sidecars report of their traffic: the last moments and everything since the start (`stats`), and the last hour
//! in steps (`hour`), of which is told who calls whom (`flows`).
//!
//! All of it is this control plane's own: it has what the sidecars said that are connected here.

mod cell;
mod flows;
mod hour;
mod stats;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrigger_certs::Peer;
use outrigger_mesh::{Report, ServiceName, Side, SpiffeId};
use serde_json::Value as Json;

pub use cell::Counts;
pub use flows::{Flow, Flows, Pair, Told};
pub use hour::{FlowKey, STEP, STEPS, Stretch, Whose};

use hour::Hour;
use stats::Stats;

/// Adds up reports.
#[derive(Debug, Default)]
pub struct Telemetry {
    stats: Stats,
    hour: Mutex<Hour>,
}

impl Telemetry {
    /// Takes a report, as far as the sidecar is believed of that service on that side. What it says of itself is held to
    /// its own identity: as client it is the caller.
    pub fn take(&self, peer: &Peer, report: Report, believed: impl Fn(&ServiceName, Side) -> bool) {
        self.add(peer.id(), report, believed);
    }

    fn add(&self, reporter: &SpiffeId, mut report: Report, believed: impl Fn(&ServiceName, Side) -> bool) {
        report.traffic.truncate(Report::MAX_ENTRIES);
        report.refusals.truncate(Report::MAX_ENTRIES);
        report.traffic.retain(|(key, _)| believed(&key.service, key.side));
        report.refusals.retain(|(key, _)| believed(&key.service, key.side));
        for (key, _) in &mut report.traffic {
            if key.side == Side::Client {
                key.caller = Some(reporter.clone());
            }
        }
        for (key, _) in &mut report.refusals {
            if key.side == Side::Client {
                key.caller = Some(reporter.clone());
            }
        }
        self.hour.lock().unwrap_or_else(PoisonError::into_inner).take(&report);
        self.stats.take(report);
    }

    /// Traffic by service and version as the receiving sidecars count it, with their callers.
    pub fn stats(&self) -> Vec<Json> {
        self.stats.rows()
    }

    /// What was reported within the last `window`, and of the step that has begun: at most an hour. What is made of it is
    /// made without holding up reports.
    pub fn stretch(&self, window: Duration) -> Stretch {
        self.hour.lock().unwrap_or_else(PoisonError::into_inner).stretch(window)
    }

    /// As text for Prometheus.
    pub fn metrics(&self) -> String {
        self.hour.lock().unwrap_or_else(PoisonError::into_inner).metrics()
    }
}
