//! Dividing the traffic of a route by weight.

/// A weighted choice among the backends of a route. Chance comes from outside, so that a test decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Running totals of the weights.
    upper: Vec<u64>,
}

impl Split {
    /// A split by `weights`, in the order of the backends.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut total = 0;
        let upper = weights
            .into_iter()
            .map(|w| {
                total += u64::from(w);
                total
            })
            .collect();
        Self { upper }
    }

    /// The sum of all weights.
    pub fn total(&self) -> u64 {
        self.upper.last().copied().unwrap_or(0)
    }

    /// Whether a backend has a share at all.
    pub fn takes(&self, backend: usize) -> bool {
        let before = backend.checked_sub(1).map_or(0, |before| self.upper.get(before).copied().unwrap_or(0));
        self.upper.get(backend).is_some_and(|upper| *upper > before)
    }

    /// The backend for the random number `chance`; `None` when all weights are 0.
    pub fn pick(&self, chance: u64) -> Option<usize> {
        self.pick_where(chance, |_| true)
    }

    /// The same among the backends for which `available` holds: one that can not take traffic does not take it away
    /// from the others. `None` when none is left.
    pub fn pick_where(&self, chance: u64, available: impl Fn(usize) -> bool) -> Option<usize> {
        let weight = |i: usize| self.upper[i] - if i == 0 { 0 } else { self.upper[i - 1] };
        // The usual case reads the running totals; only a backend that is away makes a second pass.
        let total = self.total();
        if total == 0 {
            return None;
        }
        let at = scale(chance, total);
        let first = self.upper.partition_point(|upper| *upper <= at);
        if available(first) {
            return Some(first);
        }
        let open = |i: &usize| weight(*i) > 0 && available(*i);
        let rest: u64 = (0..self.upper.len()).filter(open).map(weight).sum();
        if rest == 0 {
            return None;
        }
        let mut at = scale(chance.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15, rest);
        (0..self.upper.len()).filter(open).find(|i| {
            let here = at < weight(*i);
            at = at.saturating_sub(weight(*i));
            here
        })
    }
}

/// Maps the whole range of `chance` evenly onto `0..total`, without a division.
fn scale(chance: u64, total: u64) -> u64 {
    let product = u128::from(chance) * u128::from(total);
    u64::try_from(product >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Equidistant numbers stand for chance: the shares come out exactly.
    fn shares(split: &Split, available: impl Fn(usize) -> bool + Copy) -> Vec<usize> {
        const STEP: u64 = u64::MAX / 10_000;
        let mut counts = vec![0; split.upper.len()];
        for i in 0..10_000_u64 {
            if let Some(picked) = split.pick_where(i * STEP + STEP / 2, available) {
                counts[picked] += 1;
            }
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        assert_eq!(shares(&Split::new([90, 10]), |_| true), [9_000, 1_000]);
        assert_eq!(shares(&Split::new([0, 1, 0]), |_| true), [0, 10_000, 0]);
    }

    #[test]
    fn what_is_away_takes_nothing_from_the_others() {
        assert_eq!(shares(&Split::new([90, 10]), |i| i == 0), [10_000, 0]);
        let three = shares(&Split::new([50, 25, 25]), |i| i != 0);
        assert_eq!(three.iter().sum::<usize>(), 10_000);
        assert!(three[1].abs_diff(three[2]) < 200, "{three:?}");
    }

    #[test]
    fn weights_of_zero_send_nothing() {
        assert_eq!(Split::new([0, 0]).pick(7), None);
        assert_eq!(Split::new([]).pick(7), None);
        assert_eq!(Split::new([0, 5]).pick_where(7, |i| i == 0), None);
    }

    proptest! {
        #[test]
        fn a_pick_has_weight_and_is_available(
            weights in proptest::collection::vec(0_u32..5, 0..6), away in any::<u8>(), chance in any::<u64>(),
        ) {
            let split = Split::new(weights.iter().copied());
            let available = |i: usize| away & (1 << i) == 0;
            match split.pick_where(chance, available) {
                Some(i) => prop_assert!(weights[i] > 0 && available(i)),
                None => prop_assert!(weights.iter().enumerate().all(|(i, w)| *w == 0 || !available(i))),
            }
        }
    }
}
