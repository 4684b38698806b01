//! What sidecars report of the versions that a rollout compares, over the last while.
//!
//! Only services that are being rolled out are counted here; everything else is the matter of `telemetry`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrigger_mesh::{Report, ServiceName, Side, TrafficStats, Version};
use tokio::time::Instant;

use super::gates::Traffic;

/// The figures of the services that are being rolled out.
#[derive(Debug, Default)]
pub struct Counted {
    services: Mutex<HashMap<ServiceName, Book>>,
}

/// The figures of one service.
#[derive(Debug)]
struct Book {
    began: Instant,
    /// What is added up together.
    slot: Duration,
    versions: HashMap<Version, VecDeque<(u64, Traffic)>>,
}

impl Counted {
    /// From now on these services are counted, each version of theirs for as long as told; others no longer are. What is
    /// known of those that were counted already stays.
    pub fn only(&self, wanted: &HashMap<ServiceName, ([Version; 2], Duration)>) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service, _| wanted.contains_key(service));
        for (service, (versions, window)) in wanted {
            let slot = (*window / SLOTS).max(SHORTEST);
            let same =
                |book: &Book| book.slot == slot && versions.iter().all(|v| book.versions.contains_key(v));
            if !services.get(service).is_some_and(same) {
                let versions = versions.iter().map(|v| (v.clone(), VecDeque::new())).collect();
                services.insert(service.clone(), Book { began: Instant::now(), slot, versions });
            }
        }
    }

    /// Takes what a sidecar says of its traffic.
    pub fn take(&self, report: &Report) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.is_empty() {
            return;
        }
        for (key, stats) in report.traffic.iter().take(Report::MAX_ENTRIES) {
            let (Some(book), Some(version)) = (services.get_mut(&key.service), &key.version) else {
                continue;
            };
            book.add(version, key.side, stats);
        }
    }

    /// What a version did within the last `window`.
    pub fn of(&self, service: &ServiceName, version: &Version, window: Duration) -> Traffic {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.get(service).map(|book| book.of(version, window)).unwrap_or_default()
    }
}

/// A window is cut into so many slots.
const SLOTS: u32 = 60;
/// None is shorter.
const SHORTEST: Duration = Duration::from_millis(250);

impl Book {
    fn add(&mut self, version: &Version, side: Side, stats: &TrafficStats) {
        let now = self.number(Instant::now());
        let Some(slots) = self.versions.get_mut(version) else { return };
        if slots.back().is_none_or(|(number, _)| *number != now) {
            slots.push_back((now, Traffic::default()));
        }
        // One more than there are, for the slot that a window begins in.
        while slots.front().is_some_and(|(number, _)| number + u64::from(SLOTS) < now) {
            slots.pop_front();
        }
        let Some((_, traffic)) = slots.back_mut() else { return };
        let (callers, own) = match side {
            Side::Client => (stats.clone(), TrafficStats::default()),
            Side::Server => (TrafficStats::default(), stats.clone()),
        };
        traffic.merge(&Traffic { callers, own });
    }

    fn of(&self, version: &Version, window: Duration) -> Traffic {
        let first = Instant::now().checked_sub(window).unwrap_or(self.began).max(self.began);
        // A slot that began before the window has what is not of it.
        let first = self.number(first + self.slot - Duration::from_nanos(1));
        let mut sum = Traffic::default();
        let slots = self.versions.get(version).into_iter().flatten();
        slots.filter(|(number, _)| *number >= first).for_each(|(_, traffic)| sum.merge(traffic));
        sum
    }

    fn number(&self, at: Instant) -> u64 {
        let slots = (at - self.began).as_nanos() / self.slot.as_nanos();
        u64::try_from(slots).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use outrigger_mesh::TrafficKey;

    use super::*;

    fn report(side: Side, version: &str, requests: u64) -> Report {
        let version = Version::new(version).ok();
        let key = TrafficKey { side, service: "shop/cart".parse().unwrap(), version, caller: None };
        let stats = TrafficStats { requests, success: requests, ..TrafficStats::default() };
        Report { traffic: vec![(key, stats)], wanted_keys: vec![] }
    }

    fn counted() -> Counted {
        let counted = Counted::default();
        counted.only(&wanted());
        counted
    }

    fn wanted() -> HashMap<ServiceName, ([Version; 2], Duration)> {
        let versions = ["v1", "v2"].map(|v| Version::new(v).unwrap());
        [("shop/cart".parse().unwrap(), (versions, Duration::from_secs(60)))].into()
    }

    fn requests(counted: &Counted, version: &str, window: u64) -> (u64, u64) {
        let version = Version::new(version).unwrap();
        let of = counted.of(&"shop/cart".parse().unwrap(), &version, Duration::from_secs(window));
        (of.callers.requests, of.own.requests)
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_within_the_window_counts_and_both_sides_are_told_apart() {
        let counted = counted();
        counted.take(&report(Side::Client, "v1", 10));
        tokio::time::advance(Duration::from_secs(30)).await;
        counted.take(&report(Side::Client, "v1", 5));
        counted.take(&report(Side::Server, "v1", 3));
        counted.take(&report(Side::Client, "v9", 7));
        assert_eq!(requests(&counted, "v1", 60), (15, 3));
        assert_eq!(requests(&counted, "v1", 10), (5, 3));
        assert_eq!(requests(&counted, "v2", 60), (0, 0));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(requests(&counted, "v1", 60), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_already_stays_and_what_is_no_longer_wanted_goes() {
        let counted = counted();
        counted.take(&report(Side::Client, "v1", 10));
        counted.only(&wanted());
        assert_eq!(requests(&counted, "v1", 60), (10, 0));
        counted.only(&HashMap::new());
        counted.only(&wanted());
        assert_eq!(requests(&counted, "v1", 60), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_however_long_it_goes_on() {
        let counted = counted();
        for _ in 0..1_000 {
            counted.take(&report(Side::Client, "v1", 1));
            tokio::time::advance(Duration::from_millis(700)).await;
        }
        let services = counted.services.lock().unwrap();
        let slots = services.values().flat_map(|b| b.versions.values()).map(VecDeque::len).max().unwrap();
        assert!(slots <= 61, "{slots}");
    }
}
