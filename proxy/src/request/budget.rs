//! The retry budget of a service: retries are a share of the requests of the last ten seconds, plus a floor.
//!
//! Exact over all workers but for the instant in which a bucket turns: a lost count there is one request in ten
//! seconds' worth.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use outrigger_mesh::RetryPolicy;

use crate::live::Millis;

/// Requests and retries of a sliding window of ten buckets of one second.
#[derive(Debug, Default)]
pub struct Budget {
    buckets: [Bucket; SECONDS],
}

#[derive(Debug, Default)]
struct Bucket {
    /// Which second it counts, plus one: zero means none yet.
    second: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
}

impl Budget {
    /// Counts a request.
    pub fn deposit(&self, now: Millis) {
        self.bucket(now).requests.fetch_add(1, Relaxed);
    }

    /// Takes a retry out of the budget; false when it is spent.
    pub fn withdraw(&self, policy: &RetryPolicy, now: Millis) -> bool {
        let bucket = self.bucket(now);
        let (requests, retries) = self.totals(now);
        let floor = u64::from(policy.budget_floor) * SECONDS as u64;
        let allowed = floor + requests * u64::from(policy.budget_percent) / 100;
        // The floor is per second: unspent seconds do not add up to a burst of all ten.
        let this_second = bucket.retries.load(Relaxed);
        let by_share = requests * u64::from(policy.budget_percent) / 100;
        let within =
            retries < allowed && (retries < by_share || this_second < u64::from(policy.budget_floor));
        if within {
            bucket.retries.fetch_add(1, Relaxed);
        }
        within
    }

    fn totals(&self, now: Millis) -> (u64, u64) {
        let newest = second(now);
        let oldest = newest.saturating_sub(SECONDS as u64 - 1);
        self.buckets
            .iter()
            .filter(|b| (oldest..=newest).contains(&b.second.load(Relaxed)))
            .fold((0, 0), |(q, t), b| (q + b.requests.load(Relaxed), t + b.retries.load(Relaxed)))
    }

    fn bucket(&self, now: Millis) -> &Bucket {
        let second = second(now);
        #[allow(clippy::cast_possible_truncation, reason = "below ten")]
        let bucket = &self.buckets[(second % SECONDS as u64) as usize];
        let old = bucket.second.load(Relaxed);
        if old < second && bucket.second.compare_exchange(old, second, Relaxed, Relaxed).is_ok() {
            bucket.requests.store(0, Relaxed);
            bucket.retries.store(0, Relaxed);
        }
        bucket
    }
}

fn second(now: Millis) -> u64 {
    now.0 / 1000 + 1
}

const SECONDS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn withdraw(budget: &Budget, times: usize, now: u64) -> usize {
        (0..times).filter(|_| budget.withdraw(&RetryPolicy::default(), Millis(now))).count()
    }

    #[test]
    fn a_quiet_service_has_the_floor_and_no_more() {
        let budget = Budget::default();
        assert_eq!(withdraw(&budget, 10, 0), 3);
        assert_eq!(withdraw(&budget, 10, 1_000), 3);
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let budget = Budget::default();
        (0..1000).for_each(|_| budget.deposit(Millis(0)));
        assert_eq!(withdraw(&budget, 1000, 100), 200);
        assert_eq!(withdraw(&budget, 10, 500), 0);
        assert_eq!(withdraw(&budget, 10, 11_000), 3, "after the window only the floor is left");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_share_and_floor_of_the_window(
            steps in proptest::collection::vec((0_u64..3_000, 0_u32..50, 0_u32..50), 1..60),
        ) {
            let budget = Budget::default();
            let (mut now, mut log) = (0, Vec::new());
            for (pause, requests, tries) in steps {
                now += pause;
                (0..requests).for_each(|_| budget.deposit(Millis(now)));
                let granted = withdraw(&budget, tries as usize, now) as u64;
                log.push((now / 1000, u64::from(requests), granted));
                let window = log.iter().filter(|(s, ..)| s + 9 >= now / 1000);
                let (q, t) = window.fold((0, 0), |(q, t), (_, r, g)| (q + r, t + g));
                prop_assert!(t <= 30 + q / 5 + 10, "{t} retries of {q} requests");
            }
        }
    }
}
