//! Counters and latency histograms.
//!
//! A handle is looked up once (per service, endpoint or connection) and kept; recording touches atomics only. Keys
//! come partly from outside, so their number is bounded: beyond it everything falls into one entry a service.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use outrigger_mesh::{
    BUCKETS, Histogram, Hop, Reason, Report, Side, TrafficKey, TrafficStats, bucket_bounds, bucket_of,
};

use crate::http::edges::Cut;
use crate::telemetry::by_reason::ByReason;

/// Traffic by whom it was between.
#[derive(Debug, Default)]
pub struct TrafficTable {
    entries: RwLock<HashMap<TrafficKey, Arc<Traffic>>>,
    /// What the last delta had already told.
    told: Mutex<HashMap<TrafficKey, TrafficStats>>,
}

impl TrafficTable {
    /// The handle of `key`, to be kept by whoever records often.
    pub fn handle(&self, key: &TrafficKey) -> Arc<Traffic> {
        if let Some(found) = read(&self.entries).get(key) {
            return Arc::clone(found);
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let full = entries.len() >= Report::MAX_ENTRIES - RESERVE;
        let key = if full && !entries.contains_key(key) {
            TrafficKey { version: None, caller: None, ..key.clone() }
        } else {
            key.clone()
        };
        if entries.len() >= Report::MAX_ENTRIES && !entries.contains_key(&key) {
            // Even the services alone are too many: counted by whoever holds the handle, told to nobody.
            return Arc::default();
        }
        Arc::clone(entries.entry(key).or_default())
    }

    /// All counts since the start.
    pub fn totals(&self) -> Vec<(TrafficKey, TrafficStats)> {
        let entries = read(&self.entries);
        let mut totals: Vec<_> = entries.iter().map(|(key, t)| (key.clone(), t.stats())).collect();
        totals.sort_by(|a, b| a.0.cmp(&b.0));
        totals
    }

    /// What passed since the last call. The caller keeps it until it has been delivered.
    pub fn delta(&self) -> Report {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut traffic = Vec::new();
        for (key, now) in self.totals() {
            let before = told.entry(key.clone()).or_default();
            if now.requests > before.requests || now.unanswered > before.unanswered {
                traffic.push((key, difference(&now, before)));
                *before = now;
            }
        }
        Report { traffic, ..Report::default() }
    }
}

fn difference(now: &TrafficStats, before: &TrafficStats) -> TrafficStats {
    let old: HashMap<usize, u64> = before.latency.non_zero().collect();
    let mut latency = Histogram::default();
    for (bucket, count) in now.latency.non_zero() {
        let new = count.saturating_sub(old.get(&bucket).copied().unwrap_or(0));
        if new > 0 {
            latency.add(bucket, new);
        }
    }
    TrafficStats {
        requests: now.requests.saturating_sub(before.requests),
        success: now.success.saturating_sub(before.success),
        latency,
        unanswered: now.unanswered.saturating_sub(before.unanswered),
    }
}

/// Room kept for the entries that take what no longer fits.
const RESERVE: usize = 512;

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// The counts of one key.
#[derive(Debug)]
pub struct Traffic {
    requests: AtomicU64,
    success: AtomicU64,
    unanswered: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            success: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Traffic {
    /// Counts one request that was answered or given up.
    pub fn record(&self, success: bool, latency: Duration) {
        self.buckets[bucket_of(latency)].fetch_add(1, Relaxed);
        self.success.fetch_add(u64::from(success), Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }

    /// Counts one attempt that brought no answer and is followed by another.
    pub fn unanswered(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }

    fn stats(&self) -> TrafficStats {
        let mut latency = Histogram::default();
        for (bucket, count) in self.buckets.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                latency.add(bucket, count);
            }
        }
        let requests = self.requests.load(Relaxed);
        let (success, unanswered) = (self.success.load(Relaxed).min(requests), self.unanswered.load(Relaxed));
        TrafficStats { requests, success, latency, unanswered }
    }
}

/// Everything that is counted beside traffic.
#[derive(Debug, Default)]
pub struct Counters {
    refusals: ByReason<[AtomicU64; 2]>,
    /// Attempts after the first.
    pub retries: AtomicU64,
    /// Retries that the budget did not allow.
    pub retries_over_budget: AtomicU64,
    /// Connections that were passed on to places outside the mesh.
    pub passed_on: AtomicU64,
    /// Connections made to endpoints and to the application.
    pub connects: AtomicU64,
    /// Connections that could not be made.
    pub connect_failures: AtomicU64,
    /// Handshakes of mesh peers that succeeded at the inbound port.
    pub handshakes: AtomicU64,
    /// Connections refused at the inbound port: plaintext where TLS is required, foreign or no certificate.
    pub handshakes_refused: AtomicU64,
    /// Plaintext connections accepted at the inbound port.
    pub plaintext_accepted: AtomicU64,
    /// Open connections of callers in the mesh.
    pub inbound_connections: AtomicU64,
    /// Open connections of the application.
    pub outbound_connections: AtomicU64,
    cuts: [AtomicU64; Cut::ALL.len()],
    /// Streams that were given up since nobody took their answer.
    pub stalled_streams: AtomicU64,
    /// Times that accepting had to pause because the system was out of descriptors or memory.
    pub accept_pauses: AtomicU64,
    /// Times that the inbound side reached its limit of connections.
    pub inbound_limited: AtomicU64,
    /// Times that the outbound side did.
    pub outbound_limited: AtomicU64,
}

impl Counters {
    /// Counts a refusal.
    pub fn refused(&self, reason: Reason, hop: Hop) {
        let hop = usize::from(hop == Hop::Server);
        self.refusals[reason as usize][hop].fetch_add(1, Relaxed);
    }

    /// How often `reason` was given by this process at `hop`.
    pub fn refusals(&self, reason: Reason, hop: Hop) -> u64 {
        self.refusals[reason as usize][usize::from(hop == Hop::Server)].load(Relaxed)
    }

    /// Counts a connection of a caller that ended before its time.
    pub fn cut(&self, why: Cut) {
        self.cuts[why as usize].fetch_add(1, Relaxed);
    }

    /// How many connections ended before their time because of `why`.
    pub fn cuts(&self, why: Cut) -> u64 {
        self.cuts[why as usize].load(Relaxed)
    }

    fn write(&self, out: &mut String) {
        let single = [
            ("outrigger_retries_total", "Attempts after the first.", &self.retries),
            ("outrigger_retries_over_budget_total", "Retries the budget refused.", &self.retries_over_budget),
            ("outrigger_connects_total", "Connections made upstream.", &self.connects),
            (
                "outrigger_passed_on_total",
                "Connections passed on to places outside the mesh.",
                &self.passed_on,
            ),
            (
                "outrigger_connect_failures_total",
                "Connections that could not be made.",
                &self.connect_failures,
            ),
            ("outrigger_handshakes_total", "Handshakes of mesh peers.", &self.handshakes),
            ("outrigger_handshakes_refused_total", "Inbound connections refused.", &self.handshakes_refused),
            (
                "outrigger_plaintext_accepted_total",
                "Plaintext connections inbound.",
                &self.plaintext_accepted,
            ),
            (
                "outrigger_stalled_streams_total",
                "Streams given up because nobody took their answer.",
                &self.stalled_streams,
            ),
            ("outrigger_accept_pauses_total", "Pauses of accepting.", &self.accept_pauses),
        ];
        for (name, help, counter) in single {
            header(out, name, "counter", help);
            let _ = writeln!(out, "{name} {}", counter.load(Relaxed));
        }
        header(out, "outrigger_connections", "gauge", "Open connections.");
        for (side, gauge) in
            [("inbound", &self.inbound_connections), ("outbound", &self.outbound_connections)]
        {
            let _ = writeln!(out, "outrigger_connections{{side=\"{side}\"}} {}", gauge.load(Relaxed));
        }
        let help = "Times that a side reached its limit of connections.";
        header(out, "outrigger_connections_limited_total", "counter", help);
        for (side, count) in [("inbound", &self.inbound_limited), ("outbound", &self.outbound_limited)] {
            let name = "outrigger_connections_limited_total";
            let _ = writeln!(out, "{name}{{side=\"{side}\"}} {}", count.load(Relaxed));
        }
        header(out, "outrigger_connections_cut_total", "counter", "Connections cut before their time.");
        for why in Cut::ALL {
            let count = self.cuts(why);
            if count > 0 {
                let reason = why.as_str();
                let _ = writeln!(out, "outrigger_connections_cut_total{{reason=\"{reason}\"}} {count}");
            }
        }
        header(out, "outrigger_refusals_total", "counter", "Requests this proxy refused, by reason.");
        for reason in Reason::ALL {
            for hop in [Hop::Client, Hop::Server] {
                let count = self.refusals(reason, hop);
                if count > 0 {
                    let hop = hop.as_str();
                    let _ = writeln!(
                        out,
                        "outrigger_refusals_total{{reason=\"{reason}\",hop=\"{hop}\"}} {count}"
                    );
                }
            }
        }
    }
}

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
    header(&mut out, "outrigger_request_seconds", "histogram", "Time to the head of the response.");
    for (key, stats) in &totals {
        write_histogram(&mut out, &labels(key), &stats.latency);
    }
    out
}

/// One line for each power of two that matters; the finer buckets stay for the reports.
fn write_histogram(out: &mut String, labels: &str, latency: &Histogram) {
    let mut buckets = latency.non_zero().peekable();
    let (mut count, mut sum) = (0_u64, 0.0);
    for power in 8..25 {
        let bound = Duration::from_micros(1 << power);
        while let Some((bucket, n)) = buckets.next_if(|(b, _)| bucket_bounds(*b).1 <= bound) {
            count += n;
            let (low, high) = bucket_bounds(bucket);
            sum += (low + high).as_secs_f64() / 2.0 * n as f64;
        }
        let le = bound.as_secs_f64();
        let _ = writeln!(out, "outrigger_request_seconds_bucket{{{labels},le=\"{le}\"}} {count}");
    }
    for (bucket, n) in buckets {
        count += n;
        sum += bucket_bounds(bucket).0.as_secs_f64() * n as f64;
    }
    let _ = writeln!(out, "outrigger_request_seconds_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "outrigger_request_seconds_sum{{{labels}}} {sum}");
    let _ = writeln!(out, "outrigger_request_seconds_count{{{labels}}} {count}");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str, version: Option<&str>) -> TrafficKey {
        TrafficKey {
            side: Side::Client,
            service: service.parse().unwrap(),
            version: version.map(|v| v.parse().unwrap()),
            caller: None,
        }
    }

    #[test]
    fn a_delta_tells_each_request_once() {
        let table = TrafficTable::default();
        let handle = table.handle(&key("shop/cart", Some("v1")));
        handle.record(true, Duration::from_millis(3));
        handle.record(false, Duration::from_millis(3));
        let first = table.delta();
        assert_eq!((first.traffic[0].1.requests, first.traffic[0].1.success), (2, 1));
        assert_eq!(table.delta().traffic, []);
        handle.record(true, Duration::from_millis(3));
        let second = table.delta();
        assert_eq!((second.traffic[0].1.requests, second.traffic[0].1.latency.count()), (1, 1));
        handle.unanswered();
        let third = table.delta();
        assert_eq!((third.traffic[0].1.requests, third.traffic[0].1.unanswered), (0, 1));
        assert_eq!(table.delta().traffic, []);
    }

    #[test]
    fn keys_are_bounded_and_nothing_is_lost_when_they_run_out() {
        let table = TrafficTable::default();
        for i in 0..Report::MAX_ENTRIES * 2 {
            table.handle(&key("shop/cart", Some(&format!("v{i}")))).record(true, Duration::ZERO);
        }
        let report = table.delta();
        assert!(report.traffic.len() <= Report::MAX_ENTRIES);
        assert_eq!(
            report.traffic.iter().map(|(_, s)| s.requests).sum::<u64>(),
            2 * Report::MAX_ENTRIES as u64
        );
    }

    #[test]
    fn the_histogram_counts_up_to_its_total() {
        let table = TrafficTable::default();
        table.handle(&key("shop/cart", None)).record(true, Duration::from_millis(3));
        let text = prometheus(&table, &Counters::default());
        assert!(text.contains("le=\"0.004096\"} 1\n"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 1\n"), "{text}");
    }
}
