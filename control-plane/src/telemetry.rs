//! What the sidecars report of their traffic, added up: the last ten seconds and everything since the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrigger_certs::Peer;
use outrigger_mesh::{Histogram, Report, ServiceName, Side, SpiffeId, TrafficKey, TrafficStats, Version};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

/// The window has so many slots of this length.
const SLOTS: u64 = 5;
const SLOT: Duration = Duration::from_secs(2);
/// Traffic beyond so many pairs of services is not told apart any more: keys come from outside.
const MAX_KEYS: usize = 4_096;

/// Adds up reports.
#[derive(Debug)]
pub struct Telemetry {
    started: Instant,
    traffic: Mutex<HashMap<TrafficKey, Series>>,
}

#[derive(Debug, Default)]
struct Series {
    /// By slot number; the oldest are overwritten.
    recent: BTreeMap<u64, TrafficStats>,
    total: TrafficStats,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { started: Instant::now(), traffic: Mutex::default() }
    }
}

impl Telemetry {
    /// Takes a report. What a sidecar says of itself is held to its own identity: as client it is the caller.
    pub fn take(&self, peer: &Peer, report: Report) {
        self.add(peer.id(), report);
    }

    fn add(&self, reporter: &SpiffeId, report: Report) {
        let slot = self.slot();
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        for (mut key, stats) in report.traffic.into_iter().take(Report::MAX_ENTRIES) {
            if key.side == Side::Client {
                key.caller = Some(reporter.clone());
            }
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
    pub fn stats(&self) -> Vec<Json> {
        let slot = self.slot();
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: BTreeMap<(ServiceName, Option<Version>), Row> = BTreeMap::new();
        for (key, series) in traffic.iter().filter(|(key, _)| key.side == Side::Server) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(side: Side, requests: u64) -> Report {
        let mut latency = Histogram::default();
        (0..requests).for_each(|_| latency.record(Duration::from_millis(3)));
        let key = TrafficKey {
            side,
            service: "shop/cart".parse().unwrap(),
            version: Version::new("v1").ok(),
            caller: Some("spiffe://mesh.local/ns/shop/sa/forged".parse().unwrap()),
        };
        Report {
            traffic: vec![(key, TrafficStats { requests, success: requests, latency, unanswered: 0 })],
            ..Report::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ten_seconds_are_told_apart_from_the_total() {
        let telemetry = Telemetry::default();
        let cart: SpiffeId = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
        telemetry.add(&cart, report(Side::Server, 100));
        assert_eq!(telemetry.stats()[0]["rps"], 10.0);
        assert!(telemetry.stats()[0]["p50Ms"].as_f64().unwrap() >= 3.0);
        tokio::time::advance(Duration::from_secs(13)).await;
        assert_eq!(
            (&telemetry.stats()[0]["rps"], &telemetry.stats()[0]["requests"]),
            (&json!(0.0), &json!(100))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_speaks_for_itself_only() {
        let telemetry = Telemetry::default();
        let web: SpiffeId = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        telemetry.add(&web, report(Side::Client, 1));
        let traffic = telemetry.traffic.lock().unwrap();
        assert_eq!(traffic.keys().next().unwrap().caller.as_ref(), Some(&web));
    }
}
