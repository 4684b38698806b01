//! One request of those that were counted, by its trace.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last request with a sampled trace. Written without waiting: who finds somebody else writing leaves it.
#[derive(Debug, Default)]
pub(super) struct Exemplar {
    /// Odd while somebody writes.
    turn: AtomicU64,
    trace: [AtomicU64; 2],
    bucket: AtomicU64,
    took_micros: AtomicU64,
    at_millis: AtomicU64,
}

/// What was read of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) bucket: usize,
    trace: u128,
    took: Duration,
    at: Duration,
}

impl Exemplar {
    pub(super) fn put(&self, trace: u128, bucket: usize, took: Duration) {
        let turn = self.turn.load(Ordering::Relaxed);
        let taken = turn % 2 == 1
            || self.turn.compare_exchange(turn, turn + 1, Ordering::SeqCst, Ordering::Relaxed).is_err();
        if taken {
            return;
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let small = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        let halves = [small(trace >> 64), small(trace & u128::from(u64::MAX))];
        for (slot, half) in self.trace.iter().zip(halves) {
            slot.store(half, Ordering::SeqCst);
        }
        self.bucket.store(bucket as u64, Ordering::SeqCst);
        self.took_micros.store(small(took.as_micros()), Ordering::SeqCst);
        self.at_millis.store(small(at.as_millis()), Ordering::SeqCst);
        self.turn.store(turn + 2, Ordering::SeqCst);
    }

    /// The last one that was written whole, if there is one.
    pub(super) fn read(&self) -> Option<Seen> {
        let before = self.turn.load(Ordering::SeqCst);
        let load = |slot: &AtomicU64| slot.load(Ordering::SeqCst);
        let [high, low] = [load(&self.trace[0]), load(&self.trace[1])];
        let seen = Seen {
            bucket: usize::try_from(load(&self.bucket)).unwrap_or(usize::MAX),
            trace: u128::from(high) << 64 | u128::from(low),
            took: Duration::from_micros(load(&self.took_micros)),
            at: Duration::from_millis(load(&self.at_millis)),
        };
        (before > 0 && before.is_multiple_of(2) && load(&self.turn) == before).then_some(seen)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, at) = (self.took.as_secs_f64(), self.at.as_secs_f64());
        write!(f, "{{trace_id=\"{:032x}\"}} {took} {at:.3}", self.trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_read_and_nothing_half_written_is() {
        let exemplar = Exemplar::default();
        assert_eq!(exemplar.read(), None);
        exemplar.put(7, 1, Duration::from_millis(2));
        exemplar.put(u128::MAX - 1, 3, Duration::from_millis(250));
        let seen = exemplar.read().unwrap();
        assert_eq!(seen.bucket, 3);
        assert!(
            seen.to_string().starts_with("{trace_id=\"fffffffffffffffffffffffffffffffe\"} 0.25 1"),
            "{seen}"
        );
        exemplar.turn.fetch_add(1, Ordering::SeqCst);
        assert_eq!(exemplar.read(), None);
        exemplar.put(9, 1, Duration::ZERO);
        assert_eq!(exemplar.trace[1].load(Ordering::SeqCst), u64::MAX - 1);
    }
}
