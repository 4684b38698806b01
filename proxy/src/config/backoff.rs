//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double from `first` to `longest`, each shortened by a random part of up to a half: sidecars that lost the
/// same control plane must not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with about `first`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// Begins anew, after something worked.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait();
            assert!(wait >= ms(expected) / 2 && wait <= ms(expected), "{wait:?} for {expected}");
        }
        backoff.reset();
        assert!(backoff.wait() <= ms(100));
    }
}
