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
    /// Those answered from the mesh.
    pub answered: AtomicU64,
    /// Names of the mesh that nobody has.
    pub unknown: AtomicU64,
    /// Those passed on to the name servers behind.
    pub passed_on: AtomicU64,
    /// Those that could not be answered.
    pub failed: AtomicU64,
    /// Those that were none.
    pub malformed: AtomicU64,
    /// Those given up since too many were waiting.
    pub dropped: AtomicU64,
    /// Those of our own that came back.
    pub loops: AtomicU64,
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
        let _ = writeln!(
            out,
            "# HELP outrigger_dns_questions_total Questions of applications, by what became of them."
        );
        let _ = writeln!(out, "# TYPE outrigger_dns_questions_total counter");
        for (became, count) in [
            ("answered", &self.answered),
            ("unknown", &self.unknown),
            ("passed_on", &self.passed_on),
            ("failed", &self.failed),
            ("malformed", &self.malformed),
            ("dropped", &self.dropped),
            ("loop", &self.loops),
        ] {
            let _ =
                writeln!(out, "outrigger_dns_questions_total{{became=\"{became}\"}} {}", count.load(Relaxed));
        }
        for (name, kind, help, count) in all {
            let _ =
                writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", count.load(Relaxed));
        }
    }
}
