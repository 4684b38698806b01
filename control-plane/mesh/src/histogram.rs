//! Latency histograms that every part of the mesh adds up alike.
//!
//! Buckets are log-linear: 8 to each power of two of microseconds, so that a quantile is off by at most an eighth,
//! and histograms of many sidecars merge by adding counts.

use std::time::Duration;

/// How many buckets there are. The last one takes everything beyond about 70 minutes.
pub const BUCKETS: usize = 240;

const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;

/// The bucket of a latency.
pub fn bucket_of(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if micros < SUB {
        return usize::try_from(micros).unwrap_or(0);
    }
    let power = micros.ilog2();
    let sub = (micros >> (power - SUB_BITS)) & (SUB - 1);
    let bucket = u64::from(power - SUB_BITS + 1) * SUB + sub;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The least latency of a bucket and the least of the next.
pub fn bucket_bounds(bucket: usize) -> (Duration, Duration) {
    (Duration::from_micros(lower_micros(bucket)), Duration::from_micros(lower_micros(bucket + 1)))
}

fn lower_micros(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let (octave, sub) = (bucket / SUB - 1, bucket % SUB);
    (SUB + sub) << octave
}

/// Counts of latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Empty until the first is recorded; then one count a bucket.
    counts: Vec<u64>,
}

impl Histogram {
    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        self.add(bucket_of(latency), 1);
    }

    /// Adds `count` to a bucket. A bucket out of range counts as the last.
    pub fn add(&mut self, bucket: usize, count: u64) {
        self.counts.resize(BUCKETS, 0);
        let slot = &mut self.counts[bucket.min(BUCKETS - 1)];
        *slot = slot.saturating_add(count);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.non_zero() {
            self.add(bucket, count);
        }
    }

    /// The buckets that have counts, in order.
    pub fn non_zero(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// How many latencies were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, c| sum.saturating_add(*c))
    }

    /// The latency below which the share `q` (0 to 1) of all lie, as the upper bound of its bucket. `None` when
    /// nothing was recorded.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to total, checked below"
        )]
        let rank = ((total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        self.non_zero().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| bucket_bounds(bucket).1)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantile_is_off_by_at_most_an_eighth() {
        let mut h = Histogram::default();
        for ms in 1..=1000 {
            h.record(Duration::from_millis(ms));
        }
        let p99 = h.quantile(0.99).unwrap().as_secs_f64();
        assert!((0.990..=0.990 * 1.126).contains(&p99), "{p99}");
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn a_latency_lies_within_its_bucket(micros in 0_u64..4_000_000_000) {
            let latency = Duration::from_micros(micros);
            let (low, high) = bucket_bounds(bucket_of(latency));
            prop_assert!(low <= latency && latency < high, "{low:?} {latency:?} {high:?}");
        }
    }
}
