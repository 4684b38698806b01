//! What is counted of names.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted of names.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions asked for services found by name.
    pub lookups: AtomicU64,
    /// Those that nobody could answer.
    pub lookup_failures: AtomicU64,
    /// Services whose endpoints are older than their time to live.
    pub stale_services: AtomicU64,
}

impl Counters {
    /// The text form of Prometheus.
    pub fn write(&self, out: &mut String) {
        let all = [
            ("outrigger_dns_lookups_total", "counter", "Questions to name servers.", &self.lookups),
            (
                "outrigger_dns_lookup_failures_total",
                "counter",
                "Questions to name servers without an answer.",
                &self.lookup_failures,
            ),
            (
                "outrigger_dns_stale_services",
                "gauge",
                "Services whose addresses are older than their time to live.",
                &self.stale_services,
            ),
        ];
        for (name, kind, help, count) in all {
            let _ =
                writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", count.load(Relaxed));
        }
    }
}
