//! What sidecars report of the versions that a rollout compares, over the last while.
//!
//! Only services that are being rolled out are counted here; everything else is the matter of `telemetry`. What is counted
//! outlives the process by way of `keeping`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrigger_mesh::{Report, ServiceName, Side, TrafficStats, Version};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::gates::Traffic;
use super::kept::{Kept, KeptSlot, KeptVersion};
use super::sight::Sight;

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
    /// How many of these the longest window has.
    most: u32,
    /// By the number of the slot. What an earlier process counted has numbers below 0.
    versions: HashMap<Version, VecDeque<(i64, Traffic)>>,
    /// How often something was added.
    counted: u64,
    /// What callers find of the endpoints of its versions. It is of this moment and not kept.
    sights: HashMap<Version, Sight>,
}

impl Counted {
    /// From now on these services are counted, each version of theirs for as long as told; others no longer are. What is
    /// known of those that were counted already stays.
    pub(super) fn only(&self, wanted: &HashMap<ServiceName, ([Version; 2], Windows)>) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service, _| wanted.contains_key(service));
        for (service, (versions, windows)) in wanted {
            let slot = windows.slot();
            let same =
                |book: &Book| book.slot == slot && versions.iter().all(|v| book.versions.contains_key(v));
            if !services.get(service).is_some_and(same) {
                let versions = versions.iter().map(|v| (v.clone(), VecDeque::new())).collect();
                let (began, sights) = (Instant::now(), HashMap::new());
                let most = windows.slots();
                services.insert(service.clone(), Book { began, slot, most, versions, counted: 0, sights });
            }
        }
    }

    /// Takes what a sidecar says of its traffic, as far as it is believed of that service on that side. The sight of
    /// endpoints is a caller's.
    pub fn take(&self, report: &Report, believed: impl Fn(&ServiceName, Side) -> bool) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.is_empty() {
            return;
        }
        for (key, stats) in report.traffic.iter().take(Report::MAX_ENTRIES) {
            let (Some(book), Some(version)) = (services.get_mut(&key.service), &key.version) else {
                continue;
            };
            if believed(&key.service, key.side) {
                book.add(version, key.side, stats);
            }
        }
        for seen in report.seen.iter().take(Report::MAX_ENTRIES) {
            if let Some(book) = services.get_mut(&seen.service)
                && book.versions.contains_key(&seen.version)
                && believed(&seen.service, Side::Client)
            {
                book.sights.entry(seen.version.clone()).or_default().take(seen);
            }
        }
    }

    /// For how long nobody who told anything has found an endpoint of a version well.
    pub(super) fn unwell_for(&self, service: &ServiceName, version: &Version) -> Option<Duration> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.get(service)?.sights.get(version)?.unwell_for()
    }

    /// What a version did within the last `window`.
    pub fn of(&self, service: &ServiceName, version: &Version, window: Duration) -> Traffic {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.get(service).map(|book| book.of(version, window)).unwrap_or_default()
    }

    /// What is to be kept of a service, and how often something was added to it; `None` when that was `before`.
    pub(super) fn kept(&self, service: &ServiceName, before: u64, at: OffsetDateTime) -> Option<(u64, Kept)> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let book = services.get(service).filter(|book| book.counted != before)?;
        Some((book.counted, book.kept(at)))
    }

    /// Puts in what was kept `since` so long, where the same is counted still.
    pub(super) fn restore(&self, service: &ServiceName, kept: &Kept, since: Duration) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = services.get_mut(service) {
            book.restore(kept, since);
        }
    }
}

/// The shortest and the longest window of the steps of one rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
}

impl Windows {
    /// What is added up together: little enough that a few fit into the shortest window, since one that began before the
    /// window, or before the step, does not count.
    fn slot(self) -> Duration {
        let fine = (self.shortest / 4).min(self.longest / SLOTS);
        fine.max(self.longest / MOST_SLOTS).max(SHORTEST)
    }

    fn slots(self) -> u32 {
        let slots = self.longest.as_nanos().div_ceil(self.slot().as_nanos().max(1));
        u32::try_from(slots).unwrap_or(MOST_SLOTS).min(MOST_SLOTS)
    }
}

/// The longest window is cut into so many slots,
const SLOTS: u32 = 240;
/// or into so many where another is much shorter.
const MOST_SLOTS: u32 = 720;
/// None is shorter.
const SHORTEST: Duration = Duration::from_millis(250);

impl Book {
    fn add(&mut self, version: &Version, side: Side, stats: &TrafficStats) {
        let now = self.number(Instant::now(), 0);
        let Some(slots) = self.versions.get_mut(version) else { return };
        if slots.back().is_none_or(|(number, _)| *number != now) {
            slots.push_back((now, Traffic::default()));
        }
        // One more than there are, for the slot that a window begins in.
        while slots.front().is_some_and(|(number, _)| number + i64::from(self.most) < now) {
            slots.pop_front();
        }
        let Some((_, traffic)) = slots.back_mut() else { return };
        let (callers, own) = match side {
            Side::Client => (stats.clone(), TrafficStats::default()),
            Side::Server => (TrafficStats::default(), stats.clone()),
        };
        traffic.merge(&Traffic { callers, own });
        self.counted += 1;
    }

    fn of(&self, version: &Version, window: Duration) -> Traffic {
        // A slot that began before the window has what is not of it.
        let first = self.number(Instant::now(), signed(window) - signed(self.slot) + 1);
        let mut sum = Traffic::default();
        let slots = self.versions.get(version).into_iter().flatten();
        slots.filter(|(number, _)| *number >= first).for_each(|(_, traffic)| sum.merge(traffic));
        sum
    }

    /// The number of the slot of the moment so many nanoseconds before `at`.
    fn number(&self, at: Instant, ago: i128) -> i64 {
        let slots = signed(at - self.began).saturating_sub(ago).div_euclid(signed(self.slot));
        i64::try_from(slots).unwrap_or(i64::MIN)
    }

    fn kept(&self, at: OffsetDateTime) -> Kept {
        let now = self.began.elapsed();
        let age = |number: i64| {
            let begun = self.slot.saturating_mul(u32::try_from(number.unsigned_abs()).unwrap_or(u32::MAX));
            if number < 0 { now + begun } else { now.saturating_sub(begun) }
        };
        let of = |(version, slots): (&Version, &VecDeque<(i64, Traffic)>)| KeptVersion {
            version: version.as_str().to_owned(),
            slots: slots.iter().map(|(number, traffic)| KeptSlot::new(age(*number), traffic)).collect(),
        };
        Kept { at, slot_millis: self.slot_millis(), versions: self.versions.iter().map(of).collect() }
    }

    fn restore(&mut self, kept: &Kept, since: Duration) {
        if kept.slot_millis != self.slot_millis() {
            return;
        }
        let now = Instant::now();
        let number = |slot: &KeptSlot| self.number(now, signed(slot.age().saturating_add(since)));
        let least = self.number(now, 0) - i64::from(self.most);
        let of = |version: &Version| {
            let all = kept.of(version).iter().map(|slot| (number(slot), slot.traffic()));
            all.filter(|(number, _)| *number >= least).collect::<VecDeque<_>>()
        };
        let restored: Vec<_> = self.versions.keys().map(|version| (version.clone(), of(version))).collect();
        for (version, mut slots) in restored {
            let Some(there) = self.versions.get_mut(&version) else { continue };
            while slots.len() > self.most as usize {
                slots.pop_front();
            }
            slots.append(there);
            *there = slots;
        }
    }

    fn slot_millis(&self) -> u64 {
        u64::try_from(self.slot.as_millis()).unwrap_or(u64::MAX)
    }
}

fn signed(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use outrigger_mesh::TrafficKey;

    use super::*;

    fn report(side: Side, version: &str, requests: u64) -> Report {
        let version = Version::new(version).ok();
        let key = TrafficKey { side, service: "shop/cart".parse().unwrap(), version, caller: None };
        let stats = TrafficStats { requests, success: requests, ..TrafficStats::default() };
        Report { traffic: vec![(key, stats)], ..Report::default() }
    }

    impl Counted {
        fn take_all(&self, report: &Report) {
            self.take(report, |_, _| true);
        }
    }

    fn windows(shortest: u64, longest: u64) -> Windows {
        Windows { shortest: Duration::from_secs(shortest), longest: Duration::from_secs(longest) }
    }

    fn counted() -> Counted {
        let counted = Counted::default();
        counted.only(&wanted());
        counted
    }

    fn wanted() -> HashMap<ServiceName, ([Version; 2], Windows)> {
        let versions = ["v1", "v2"].map(|v| Version::new(v).unwrap());
        [("shop/cart".parse().unwrap(), (versions, windows(60, 60)))].into()
    }

    fn requests(counted: &Counted, version: &str, window: u64) -> (u64, u64) {
        let version = Version::new(version).unwrap();
        let of = counted.of(&"shop/cart".parse().unwrap(), &version, Duration::from_secs(window));
        (of.callers.requests, of.own.requests)
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_within_the_window_counts_and_both_sides_are_told_apart() {
        let counted = counted();
        counted.take_all(&report(Side::Client, "v1", 10));
        tokio::time::advance(Duration::from_secs(30)).await;
        counted.take_all(&report(Side::Client, "v1", 5));
        counted.take_all(&report(Side::Server, "v1", 3));
        counted.take_all(&report(Side::Client, "v9", 7));
        assert_eq!(requests(&counted, "v1", 60), (15, 3));
        assert_eq!(requests(&counted, "v1", 10), (5, 3));
        assert_eq!(requests(&counted, "v2", 60), (0, 0));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(requests(&counted, "v1", 60), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_already_stays_and_what_is_no_longer_wanted_goes() {
        let counted = counted();
        counted.take_all(&report(Side::Client, "v1", 10));
        counted.only(&wanted());
        assert_eq!(requests(&counted, "v1", 60), (10, 0));
        counted.only(&HashMap::new());
        counted.only(&wanted());
        assert_eq!(requests(&counted, "v1", 60), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_process_counted_is_of_the_window_for_as_long_as_if_it_had_gone_on() {
        let before = counted();
        before.take_all(&report(Side::Client, "v1", 10));
        tokio::time::advance(Duration::from_secs(20)).await;
        before.take_all(&report(Side::Server, "v1", 3));
        let (service, at) = ("shop/cart".parse().unwrap(), OffsetDateTime::UNIX_EPOCH);
        let (much, kept) = before.kept(&service, 0, at).unwrap();
        assert!(before.kept(&service, much, at).is_none(), "nothing is new");
        let kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();

        let after = counted();
        after.take_all(&report(Side::Client, "v1", 1));
        after.restore(&service, &kept, Duration::from_secs(5));
        assert_eq!(requests(&after, "v1", 60), (11, 3));
        assert_eq!(requests(&after, "v1", 20), (1, 3));
        assert_eq!(requests(&after, "v2", 60), (0, 0));
        tokio::time::advance(Duration::from_secs(36)).await;
        assert_eq!(requests(&after, "v1", 60), (1, 3), "61 seconds");
        // And once more, with what is older than the process.
        let (_, kept) = after.kept(&service, 0, at).unwrap();
        let third = counted();
        third.restore(&service, &kept, Duration::from_secs(15));
        assert_eq!(requests(&third, "v1", 60), (1, 3));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(requests(&third, "v1", 60), (1, 0), "61 seconds");
        let late = counted();
        late.restore(&service, &kept, Duration::from_secs(3_600));
        assert_eq!(requests(&late, "v1", 60), (0, 0));
        // Cut in other pieces they say nothing.
        let other = Counted::default();
        let versions = ["v1", "v2"].map(|v| Version::new(v).unwrap());
        other.only(&[(service.clone(), (versions, windows(600, 600)))].into());
        other.restore(&service, &kept, Duration::ZERO);
        assert_eq!(requests(&other, "v1", 600), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_however_long_it_goes_on() {
        let counted = counted();
        for _ in 0..1_000 {
            counted.take_all(&report(Side::Client, "v1", 1));
            tokio::time::advance(Duration::from_millis(700)).await;
        }
        let services = counted.services.lock().unwrap();
        let slots = services.values().flat_map(|b| b.versions.values()).map(VecDeque::len).max().unwrap();
        assert!(slots <= 241, "{slots}");
    }

    /// A step's window of 10 s beside another's of an hour was seen for ten of every sixty seconds.
    #[tokio::test(start_paused = true)]
    async fn a_short_window_beside_a_long_one_is_seen_at_any_moment() {
        let counted = Counted::default();
        let versions = ["v1", "v2"].map(|v| Version::new(v).unwrap());
        counted.only(&[("shop/cart".parse().unwrap(), (versions, windows(10, 3_600)))].into());
        for second in 0..120_u64 {
            counted.take_all(&report(Side::Client, "v1", 1));
            tokio::time::advance(Duration::from_secs(1)).await;
            let (seen, _) = requests(&counted, "v1", 10);
            assert!(second < 10 || (4..=10).contains(&seen), "{seen} at {second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_believed_of_whoever_tells_it_is_not_counted() {
        let counted = counted();
        counted.take(&report(Side::Server, "v1", 10), |_, side| side == Side::Client);
        counted.take(&report(Side::Client, "v1", 10), |service, _| service.to_string() != "shop/cart");
        assert_eq!(requests(&counted, "v1", 60), (0, 0));
    }
}
