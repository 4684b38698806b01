//! How long a session waits for more before it sends.

use std::time::Duration;

use tokio::time::Instant;

/// A single change goes out after 10 ms. While the next one comes sooner than half of the wait after the last was sent, the wait
/// doubles, up to a second, so that a storm costs a sidecar one message a second and not one for each change. When they come
/// more slowly it halves, and after a rest it is 10 ms again: a few changes a second after a storm are not held up for its sake.
#[derive(Debug)]
pub(super) struct Pace {
    wait: Duration,
    last: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { wait: MIN, last: None }
    }

    /// When to send a change that came `now`.
    pub(super) fn send_at(&mut self, now: Instant) -> Instant {
        let quiet = self.last.map(|last| now.saturating_duration_since(last));
        self.wait = match quiet {
            Some(quiet) if quiet < self.wait / 2 => (self.wait * 2).min(MAX),
            Some(quiet) if quiet < self.wait * 4 => (self.wait / 2).max(MIN),
            _ => MIN,
        };
        let at = now + self.wait;
        self.last = Some(at);
        at
    }
}

const MIN: Duration = Duration::from_millis(10);
const MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_change_goes_out_soon_and_a_storm_is_gathered() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        assert_eq!(pace.send_at(now) - now, MIN);
        for _ in 0..20 {
            now = pace.send_at(now) + Duration::from_millis(1);
        }
        assert_eq!(pace.send_at(now) - now, MAX);
        now += Duration::from_secs(10);
        assert_eq!(pace.send_at(now) - now, MIN);
        now += Duration::from_millis(500);
        assert_eq!(pace.send_at(now) - now, MIN);
    }

    #[test]
    fn changes_that_come_more_slowly_after_a_storm_are_held_up_less_and_less() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        for _ in 0..20 {
            now = pace.send_at(now) + Duration::from_millis(1);
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            let at = pace.send_at(now);
            waits.push(at - now);
            now = at + Duration::from_millis(600);
        }
        assert!(waits.is_sorted_by(|one, next| one >= next), "{waits:?}");
        assert_eq!((waits[0], waits[7]), (MAX, MIN));
    }
}
