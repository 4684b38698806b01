//! Traffic by whom it was between, as the control plane is told of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use outrigger_mesh::{BUCKETS, Histogram, Report, TrafficKey, TrafficStats, bucket_of};

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
#[cfg(test)]
mod tests {
    use outrigger_mesh::Side;

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
}
