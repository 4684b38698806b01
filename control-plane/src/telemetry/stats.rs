//! Traffic as the receiving sidecars count it: the last ten seconds and everything since the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrigger_mesh::{Histogram, Report, ServiceName, Side, TrafficKey, TrafficStats, Version};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

/// The window has so many slots of this length.
const SLOTS: u64 = 5;
const SLOT: Duration = Duration::from_secs(2);
/// Traffic beyond so many pairs of services is not told apart any more: keys come from outside.
const MAX_KEYS: usize = 4_096;

/// Adds up reports.
#[derive(Debug)]
pub(super) struct Stats {
    started: Instant,
    traffic: Mutex<HashMap<TrafficKey, Series>>,
}

#[derive(Debug, Default)]
struct Series {
    /// By slot number; the oldest are overwritten.
    recent: BTreeMap<u64, TrafficStats>,
    total: TrafficStats,
}

impl Default for Stats {
    fn default() -> Self {
        Self { started: Instant::now(), traffic: Mutex::default() }
    }
}

impl Stats {
    pub(super) fn take(&self, report: Report) {
        let slot = self.slot();
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, stats) in report.traffic.into_iter().filter(|(key, _)| key.side == Side::Server) {
            if traffic.len() >= MAX_KEYS && !traffic.contains_key(&key) {
                continue;
            }
            let series = traffic.entry(key).or_default();
            series.recent.entry(slot).or_default().merge(&stats);
            series.total.merge(&stats);
            series.recent.retain(|at, _| at + SLOTS >= slot);
        }
    }

    /// Traffic by service and version as the receiving sidecars count it, with their callers.
    pub(super) fn rows(&self) -> Vec<Json> {
        let slot = self.slot();
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: BTreeMap<(ServiceName, Option<Version>), Row> = BTreeMap::new();
        for (key, series) in traffic.iter() {
            let row = rows.entry((key.service.clone(), key.version.clone())).or_default();
            let recent = series.recent(slot);
            row.recent.merge(&recent);
            row.total.merge(&series.total);
            let caller = key.caller.as_ref().map_or_else(|| "unauthenticated".into(), ToString::to_string);
            row.callers.push((caller, recent, series.total.clone()));
        }
        rows.into_iter().map(|((service, version), row)| row.to_json(&service, version.as_ref())).collect()
    }

    fn slot(&self) -> u64 {
        self.started.elapsed().as_secs() / SLOT.as_secs()
    }
}

impl Series {
    fn recent(&self, slot: u64) -> TrafficStats {
        let mut sum = TrafficStats::default();
        self.recent.iter().filter(|(at, _)| **at + SLOTS > slot).for_each(|(_, stats)| sum.merge(stats));
        sum
    }
}

/// One service and version.
#[derive(Default)]
struct Row {
    recent: TrafficStats,
    total: TrafficStats,
    callers: Vec<(String, TrafficStats, TrafficStats)>,
}

impl Row {
    fn to_json(&self, service: &ServiceName, version: Option<&Version>) -> Json {
        let mut row = figures(&self.recent, &self.total);
        let callers = self.callers.iter().map(|(caller, recent, total)| {
            let mut one = figures(recent, total);
            one["caller"] = caller.as_str().into();
            one
        });
        row["callers"] = callers.collect();
        row["service"] = service.name().as_str().into();
        row["namespace"] = service.namespace().as_str().into();
        row["version"] = version.map(Version::as_str).into();
        row
    }
}

fn figures(recent: &TrafficStats, total: &TrafficStats) -> Json {
    let window = SLOT.as_secs_f64() * SLOTS as f64;
    json!({
        "rps": recent.requests as f64 / window,
        "success": share(recent),
        "p50Ms": millis(&recent.latency, 0.5),
        "p99Ms": millis(&recent.latency, 0.99),
        "requests": total.requests,
        "failed": total.requests.saturating_sub(total.success),
    })
}

fn share(stats: &TrafficStats) -> f64 {
    if stats.requests == 0 { 1.0 } else { stats.success as f64 / stats.requests as f64 }
}

fn millis(latency: &Histogram, q: f64) -> Option<f64> {
    latency.quantile(q).map(|d| d.as_secs_f64() * 1_000.0)
}
