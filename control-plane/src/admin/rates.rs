//! How much one caller may ask: so many requests at once, then so many a second. Nobody's program that asks in a circle keeps
//! others from being served.
//!
//! It is counted by who he proved to be, whatever his address; whoever proves nothing is slowed down elsewhere (`refusals`), and
//! what needs no proof costs next to nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};

/// The budgets of all callers.
#[derive(Debug)]
pub(super) struct Rates {
    rate: Rate,
    callers: Mutex<HashMap<String, Bucket>>,
    refused: AtomicU64,
}

impl Rates {
    /// So many requests a second for each.
    pub(super) fn new(a_second: u32) -> Self {
        let a_second = f64::from(a_second.max(1));
        let rate = Rate { most: a_second * BURST, one_in: Duration::from_secs_f64(1.0 / a_second) };
        Self { rate, callers: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// Takes one request of `who`, or tells in how many seconds there is one again.
    pub(super) fn take(&self, who: &str, now: Instant) -> Result<(), u64> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= MOST_CALLERS && !callers.contains_key(who) {
            callers.retain(|_, bucket| !bucket.is_full(self.rate, now));
        }
        // More than anybody has tokens for: those who are too many share one.
        let who = if callers.len() >= MOST_CALLERS && !callers.contains_key(who) { "" } else { who };
        let bucket = match callers.get_mut(who) {
            Some(bucket) => bucket,
            None => callers.entry(who.to_owned()).or_insert_with(|| Bucket::full(self.rate, now)),
        };
        if bucket.take(self.rate, now) {
            return Ok(());
        }
        self.refused.fetch_add(1, Relaxed);
        Err(bucket.wait(self.rate, now).as_secs() + 1)
    }

    /// As text for Prometheus.
    pub(super) fn metrics(&self) -> String {
        let name = "outrigger_control_admin_limited_total";
        let help = "Requests to the admin API beyond what one caller may ask.";
        format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {}\n", self.refused.load(Relaxed))
    }
}

/// Requests a second of one caller, unless said.
pub(crate) const A_SECOND: u32 = 500;
/// So many seconds' worth may come at once.
const BURST: f64 = 4.0;
const MOST_CALLERS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rates: &Rates, who: &str, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| rates.take(who, now).is_ok()).count()
    }

    #[test]
    fn one_may_ask_a_burst_and_then_at_its_rate_and_others_are_not_touched() {
        let (rates, now) = (Rates::new(10), Instant::now());
        assert_eq!(taken(&rates, "token ci (01)", 100, now), 40);
        assert_eq!(rates.take("token ci (01)", now), Err(1));
        assert_eq!(taken(&rates, "token ada (02)", 100, now), 40);
        let later = now + Duration::from_secs(2);
        assert_eq!(taken(&rates, "token ci (01)", 100, later), 20);
        assert!(
            rates.metrics().ends_with("outrigger_control_admin_limited_total 201\n"),
            "{}",
            rates.metrics()
        );
    }

    #[test]
    fn the_wait_that_is_told_is_long_enough() {
        let (rates, now) = (Rates::new(1), Instant::now());
        taken(&rates, "x", 4, now);
        let wait = rates.take("x", now).unwrap_err();
        assert!(rates.take("x", now + Duration::from_secs(wait)).is_ok());
    }

    #[test]
    fn very_many_callers_take_no_more_memory_than_some() {
        let (rates, now) = (Rates::new(1), Instant::now());
        for n in 0..20_000 {
            let _either = rates.take(&format!("token {n}"), now);
        }
        assert!(rates.callers.lock().unwrap().len() <= MOST_CALLERS + 1);
        assert_eq!(taken(&rates, "token 0", 9, now), 3, "who was there has what is his");
    }
}
