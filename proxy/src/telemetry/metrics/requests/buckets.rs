//! Counts by how long something took.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::exemplar::Exemplar;

/// The least times of the buckets but the first, in microseconds: those that the conventions advise, and two more below
/// them, since what a mesh carries is often quicker.
pub(super) const WHOLE: [u64; 16] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000,
];
/// The same for the time in a proxy, which is a small part of it.
pub(super) const ADDED: [u64; 16] = [
    50, 100, 150, 200, 250, 500, 750, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000,
    10_000_000,
];

/// Counts by how long something took. What took exactly as long as a bound is below it.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    counts: [AtomicU64; 17],
    micros: AtomicU64,
}

impl Buckets {
    pub(super) fn record(&self, bounds: &[u64; 16], took: Duration) -> usize {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = bounds.partition_point(|bound| *bound < micros);
        self.counts[at].fetch_add(1, Relaxed);
        // A time that is no time must not turn the sum around.
        self.micros.fetch_add(micros.min(LONGEST), Relaxed);
        at
    }

    /// What was counted, bucket by bucket.
    pub(super) fn counts(&self) -> [u64; 17] {
        std::array::from_fn(|at| self.counts[at].load(Relaxed))
    }

    /// The lines of a histogram `name` of which something was counted.
    pub(super) fn write(
        &self,
        out: &mut String,
        name: &str,
        (labels, bounds): (&str, &[u64; 16]),
        exemplar: Option<&Exemplar>,
    ) {
        let counts = self.counts();
        if counts.iter().all(|count| *count == 0) {
            return;
        }
        let exemplar = exemplar.and_then(Exemplar::read);
        let mut sum = 0;
        for (at, count) in counts.iter().enumerate() {
            sum += count;
            let _never = write!(out, "{name}_bucket{{{labels},le=\"");
            let _never = match bounds.get(at) {
                Some(bound) if bound % 1_000_000 == 0 => write!(out, "{}.0", bound / 1_000_000),
                Some(bound) => write!(out, "{}", Duration::from_micros(*bound).as_secs_f64()),
                None => write!(out, "+Inf"),
            };
            let _never = write!(out, "\"}} {sum}");
            if let Some(seen) = exemplar.filter(|seen| seen.bucket == at) {
                let _never = write!(out, " # {seen}");
            }
            out.push('\n');
        }
        let seconds = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        let _never = writeln!(out, "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {sum}");
    }
}

/// A day: nothing that is measured here takes longer.
const LONGEST: u64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_as_long_as_a_bound_is_below_it() {
        let buckets = Buckets::default();
        let mut out = String::new();
        buckets.write(&mut out, "h", ("a=\"b\"", &WHOLE), None);
        assert_eq!(out, "");
        for micros in [0, 1_000, 1_001, 10_000_000, 10_000_001] {
            buckets.record(&WHOLE, Duration::from_micros(micros));
        }
        buckets.write(&mut out, "h", ("a=\"b\"", &WHOLE), None);
        for line in [
            "h_bucket{a=\"b\",le=\"0.001\"} 2\n",
            "h_bucket{a=\"b\",le=\"0.0025\"} 3\n",
            "h_bucket{a=\"b\",le=\"10.0\"} 4\n",
            "h_bucket{a=\"b\",le=\"+Inf\"} 5\n",
            "h_sum{a=\"b\"} 20.002002\n",
            "h_count{a=\"b\"} 5\n",
        ] {
            assert!(out.contains(line), "{line}{out}");
        }
    }
}
