//! The retry budget of a service: retries are at most a share of the requests of the last ten seconds. Where there are so
//! few requests that the share is next to nothing, a floor of some retries a second stands in for it.
//!
//! Exact over all workers: a retry is counted first and taken back when it was one too many, so two that race for the
//! last one may both be refused, never both be granted. Each bucket is one word, so nothing is lost when it turns.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use outrigger_mesh::RetryPolicy;

use crate::live::Millis;

/// Requests and retries of a sliding window of ten buckets of one second.
#[derive(Debug, Default)]
pub struct Budget {
    requests: [Bucket; SECONDS],
    retries: [Bucket; SECONDS],
}

impl Budget {
    /// Counts a request.
    pub fn deposit(&self, now: Millis) {
        let second = second(now);
        at(&self.requests, second).add(second);
    }

    /// Takes a retry out of the budget; false when it is spent.
    pub fn withdraw(&self, policy: &RetryPolicy, now: Millis) -> bool {
        let second = second(now);
        let bucket = at(&self.retries, second);
        let of_this_second = bucket.add(second);
        let (requests, retries) = (total(&self.requests, second), total(&self.retries, second));
        // The floor is per second: unspent seconds do not add up to a burst.
        let floor = u64::from(policy.budget_floor);
        let by_floor = of_this_second <= floor && retries <= floor * SECONDS as u64;
        let within = retries <= share(requests, policy) || by_floor;
        if !within {
            bucket.take_back(second);
        }
        within
    }

    /// How many retries would be granted at this moment.
    pub fn left(&self, policy: &RetryPolicy, now: Millis) -> u64 {
        let second = second(now);
        let (requests, retries) = (total(&self.requests, second), total(&self.retries, second));
        let floor = u64::from(policy.budget_floor);
        let of_floor = floor
            .saturating_sub(at(&self.retries, second).count(second))
            .min((floor * SECONDS as u64).saturating_sub(retries));
        share(requests, policy).saturating_sub(retries).max(of_floor)
    }
}

fn share(requests: u64, policy: &RetryPolicy) -> u64 {
    requests * u64::from(policy.budget_percent) / 100
}

/// The second that is counted in the upper half, plus one since zero means none yet; the count in the lower.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Counts one; the number it is of its second.
    fn add(&self, second: u64) -> u64 {
        let mut old = self.0.load(Relaxed);
        loop {
            let new = if old >> 32 < second { second << 32 | 1 } else { old + 1 };
            match self.0.compare_exchange_weak(old, new, SeqCst, Relaxed) {
                Ok(_) => return new & LOWER,
                Err(now) => old = now,
            }
        }
    }

    fn take_back(&self, second: u64) {
        let same = |old: u64| (old >> 32 == second && old & LOWER > 0).then(|| old - 1);
        let _turned = self.0.fetch_update(SeqCst, Relaxed, same);
    }

    fn count(&self, second: u64) -> u64 {
        let all = self.0.load(SeqCst);
        if all >> 32 == second { all & LOWER } else { 0 }
    }
}

fn at(buckets: &[Bucket; SECONDS], second: u64) -> &Bucket {
    #[allow(clippy::cast_possible_truncation, reason = "below ten")]
    &buckets[(second % SECONDS as u64) as usize]
}

fn total(buckets: &[Bucket; SECONDS], newest: u64) -> u64 {
    let oldest = newest.saturating_sub(SECONDS as u64 - 1);
    buckets
        .iter()
        .map(|b| b.0.load(SeqCst))
        .filter(|all| (oldest..=newest).contains(&(all >> 32)))
        .map(|all| all & LOWER)
        .sum()
}

fn second(now: Millis) -> u64 {
    now.0 / 1000 + 1
}

const SECONDS: usize = 10;
const LOWER: u64 = u32::MAX as u64;

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

    #[test]
    fn workers_that_race_for_the_last_ones_never_get_more() {
        for _ in 0..20 {
            let budget = Budget::default();
            (0..1000).for_each(|_| budget.deposit(Millis(0)));
            let granted: usize = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| withdraw(&budget, 200, 500))).collect();
                all.into_iter().map(|t| t.join().unwrap()).sum()
            });
            assert!((150..=200).contains(&granted), "{granted}");
        }
    }

    proptest! {
        #[test]
        fn a_retry_is_granted_only_within_the_share_or_the_floor_of_the_window(
            steps in proptest::collection::vec((0_u64..3_000, 0_u32..50, 0_u32..50), 1..60),
        ) {
            let budget = Budget::default();
            let (mut now, mut log) = (0, Vec::new());
            for (pause, requests, tries) in steps {
                now += pause;
                (0..requests).for_each(|_| budget.deposit(Millis(now)));
                let left = budget.left(&RetryPolicy::default(), Millis(now));
                let granted = withdraw(&budget, tries as usize, now) as u64;
                prop_assert_eq!(granted, left.min(u64::from(tries)), "what is told to be left is what is granted");
                log.push((now / 1000, u64::from(requests), granted));
                let window = log.iter().filter(|(s, ..)| s + 9 >= now / 1000);
                let (q, t) = window.fold((0, 0), |(q, t), (_, r, g)| (q + r, t + g));
                prop_assert!(granted == 0 || t <= (q / 5).max(30), "{t} retries of {q} requests");
            }
        }
    }
}
