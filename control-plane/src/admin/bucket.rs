//! A budget that fills up again.

use std::time::{Duration, Instant};

/// What is left of one.
#[derive(Debug)]
pub(super) struct Bucket {
    left: f64,
    at: Instant,
}

/// How much there can be, and how fast it comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) most: f64,
    pub(super) one_in: Duration,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { left: rate.most, at: now }
    }

    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed / rate.one_in.as_secs_f64()).min(rate.most)
    }

    pub(super) fn is_full(&self, rate: Rate, now: Instant) -> bool {
        self.level(rate, now) >= rate.most
    }

    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        (self.left, self.at) = (self.level(rate, now), now);
        let there = self.left >= 1.0;
        if there {
            self.left -= 1.0;
        }
        there
    }

    /// How long it is until there is one to take.
    pub(super) fn wait(&self, rate: Rate, now: Instant) -> Duration {
        rate.one_in.mul_f64((1.0 - self.level(rate, now)).max(0.0))
    }
}
