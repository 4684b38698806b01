//! What a closed breaker counts: results of a sliding time in ten buckets, and failures in a row.
//!
//! Counting a success touches a few atomics and never waits. It is exact over all workers but for the instant in which a
//! bucket turns: what is lost there is one result of a window's worth.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use outrigger_mesh::Trip;

use crate::live::Millis;

/// Results of a sliding time, and failures in a row.
#[derive(Debug, Default)]
pub struct Tally {
    buckets: [Bucket; BUCKETS],
    in_a_row: AtomicU32,
    connects_in_a_row: AtomicU32,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Which stretch of time it counts, plus one: zero means none yet.
    slot: AtomicU64,
    all: AtomicU32,
    failed: AtomicU32,
    slow: AtomicU32,
}

/// What was counted within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Every result.
    pub all: u32,
    /// Failures among them.
    pub failed: u32,
    /// Slow successes among them.
    pub slow: u32,
}

impl Tally {
    /// Counts a success. `width` is the length of a bucket in milliseconds.
    pub fn succeeded(&self, slow: bool, width: u64, now: Millis) {
        let bucket = self.bucket(width, now);
        bucket.all.fetch_add(1, Relaxed);
        if slow {
            bucket.slow.fetch_add(1, Relaxed);
        }
        // Reading first keeps the line shared between workers while all is well.
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
        if self.connects_in_a_row.load(Relaxed) != 0 {
            self.connects_in_a_row.store(0, Relaxed);
        }
    }

    /// Counts a failure; `connect` where no connection could be made.
    pub fn failed(&self, connect: bool, width: u64, now: Millis) {
        let bucket = self.bucket(width, now);
        bucket.all.fetch_add(1, Relaxed);
        bucket.failed.fetch_add(1, Relaxed);
        self.in_a_row.fetch_add(1, Relaxed);
        if connect {
            self.connects_in_a_row.fetch_add(1, Relaxed);
        } else {
            self.connects_in_a_row.store(0, Relaxed);
        }
    }

    /// Whether what was counted opens the breaker.
    pub fn trips(&self, trip: &Trip, width: u64, now: Millis) -> bool {
        let reached = |count: &AtomicU32, limit: Option<u32>| limit.is_some_and(|n| count.load(Relaxed) >= n);
        if reached(&self.in_a_row, trip.consecutive) {
            return true;
        }
        if reached(&self.connects_in_a_row, trip.connect_failures) {
            return true;
        }
        if trip.ratio.is_none() && trip.slow.is_none() {
            return false;
        }
        let totals = self.totals(width, now);
        let share = |part: u32, percent: u32, least: u32| {
            totals.all >= least && u64::from(part) * 100 >= u64::from(totals.all) * u64::from(percent)
        };
        trip.ratio.is_some_and(|r| share(totals.failed, r.percent, r.min_requests))
            || trip.slow.is_some_and(|s| share(totals.slow, s.percent, s.min_requests))
    }

    /// Failures in a row.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row.load(Relaxed)
    }

    /// What was counted within the window.
    pub fn totals(&self, width: u64, now: Millis) -> Totals {
        let newest = slot(width, now);
        let oldest = newest.saturating_sub(BUCKETS as u64 - 1);
        let inside = self.buckets.iter().filter(|b| (oldest..=newest).contains(&b.slot.load(Relaxed)));
        inside.fold(Totals::default(), |sum, b| Totals {
            all: sum.all.saturating_add(b.all.load(Relaxed)),
            failed: sum.failed.saturating_add(b.failed.load(Relaxed)),
            slow: sum.slow.saturating_add(b.slow.load(Relaxed)),
        })
    }

    /// Forgets everything: what came before a change of state says nothing about what comes after it.
    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.slot.store(0, Relaxed);
        }
        self.in_a_row.store(0, Relaxed);
        self.connects_in_a_row.store(0, Relaxed);
    }

    fn bucket(&self, width: u64, now: Millis) -> &Bucket {
        let slot = slot(width, now);
        #[allow(clippy::cast_possible_truncation, reason = "below ten")]
        let bucket = &self.buckets[(slot % BUCKETS as u64) as usize];
        let old = bucket.slot.load(Relaxed);
        // Not only older ones: when the window's length is changed, the numbers of the slots change with it.
        if old != slot && bucket.slot.compare_exchange(old, slot, Relaxed, Relaxed).is_ok() {
            bucket.all.store(0, Relaxed);
            bucket.failed.store(0, Relaxed);
            bucket.slow.store(0, Relaxed);
        }
        bucket
    }
}

fn slot(width: u64, now: Millis) -> u64 {
    now.0 / width.max(1) + 1
}

/// Buckets of a window.
pub const BUCKETS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDTH: u64 = 1_000;

    #[test]
    fn any_of_the_rules_trips_and_a_success_breaks_a_row() {
        let trip = Trip::default();
        let tally = Tally::default();
        (0..4).for_each(|_| tally.failed(false, WIDTH, Millis(0)));
        assert!(!tally.trips(&trip, WIDTH, Millis(0)));
        tally.failed(false, WIDTH, Millis(0));
        assert!(tally.trips(&trip, WIDTH, Millis(0)), "five in a row");

        let tally = Tally::default();
        (0..3).for_each(|_| tally.failed(true, WIDTH, Millis(0)));
        assert!(tally.trips(&trip, WIDTH, Millis(0)), "three connections in a row");
        tally.succeeded(false, WIDTH, Millis(0));
        assert!(!tally.trips(&trip, WIDTH, Millis(0)));

        let tally = Tally::default();
        for _ in 0..5 {
            assert!(!tally.trips(&trip, WIDTH, Millis(0)));
            tally.succeeded(false, WIDTH, Millis(0));
            tally.failed(false, WIDTH, Millis(0));
        }
        assert!(tally.trips(&trip, WIDTH, Millis(0)), "half of ten");
        assert!(!tally.trips(&trip, WIDTH, Millis(10_000)), "ten seconds later they are forgotten");
    }

    proptest! {
        #[test]
        fn the_window_holds_the_last_ten_buckets_and_nothing_else(
            steps in proptest::collection::vec((0_u64..2_500, any::<bool>()), 1..100),
        ) {
            let (tally, mut now, mut log) = (Tally::default(), 0, Vec::new());
            for (pause, failed) in steps {
                now += pause;
                if failed { tally.failed(false, WIDTH, Millis(now)) } else { tally.succeeded(false, WIDTH, Millis(now)) }
                log.push((now / WIDTH, failed));
                let inside: Vec<_> = log.iter().filter(|(s, _)| s + 9 >= now / WIDTH).collect();
                let totals = tally.totals(WIDTH, Millis(now));
                prop_assert_eq!(totals.all as usize, inside.len());
                prop_assert_eq!(totals.failed as usize, inside.iter().filter(|(_, f)| *f).count());
            }
        }
    }
}
