//! Counters and latency histograms.
//!
//! A handle is looked up once (per route, endpoint or connection) and kept; recording touches atomics only. Keys come
//! partly from outside, so their number is bounded: beyond it everything falls into entries that take what is left.

mod counters; // what is counted beside traffic
pub mod push; // to a collector
pub mod requests; // requests by who, what and outcome
mod traffic; // what the control plane is told

use std::fmt::Write as _;

use outrigger_mesh::{Side, TrafficKey};

pub use counters::Counters;
pub use traffic::{Traffic, TrafficTable};

/// The text form of Prometheus (0.0.4). Label values are names of the mesh, which need no escaping.
pub fn prometheus(traffic: &TrafficTable, counters: &Counters) -> String {
    let mut out = String::new();
    counters.write(&mut out);
    let totals = traffic.totals();
    header(&mut out, "outrigger_requests_total", "counter", "Requests, by whom they were between.");
    for (key, stats) in &totals {
        let labels = labels(key);
        let _ = writeln!(out, "outrigger_requests_total{{{labels},success=\"true\"}} {}", stats.success);
        let failed = stats.requests.saturating_sub(stats.success);
        let _ = writeln!(out, "outrigger_requests_total{{{labels},success=\"false\"}} {failed}");
    }
    let help = "Attempts that brought no answer and were followed by another.";
    header(&mut out, "outrigger_attempts_unanswered_total", "counter", help);
    for (key, stats) in totals.iter().filter(|(_, stats)| stats.unanswered > 0) {
        let _ = writeln!(out, "outrigger_attempts_unanswered_total{{{}}} {}", labels(key), stats.unanswered);
    }
    out
}

fn labels(key: &TrafficKey) -> String {
    let side = match key.side {
        Side::Client => "client",
        Side::Server => "server",
    };
    let version = key.version.as_ref().map_or("", |v| v.as_str());
    let caller = key.caller.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("side=\"{side}\",service=\"{}\",version=\"{version}\",caller=\"{caller}\"", key.service)
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
