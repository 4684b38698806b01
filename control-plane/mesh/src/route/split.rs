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

impl Split {
    /// The backend for a key, by weight: the same key always meets the same one. `names` tells the backends apart, with
    /// what stays the same over changes of weights and of their order.
    ///
    /// Weighted rendezvous hashing: each backend draws a number from the key and its name, and the best by weight wins.
    /// When one weight grows relative to the others, keys come to that backend and none goes elsewhere.
    pub fn pick_by_key(
        &self,
        key: u64,
        names: impl Fn(usize) -> u64,
        available: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let weight = |i: usize| self.upper[i] - if i == 0 { 0 } else { self.upper[i - 1] };
        let open = (0..self.upper.len()).filter(|i| weight(*i) > 0 && available(*i));
        let score = |i: usize| {
            // Evenly over (0, 1]: the 53 bits that a float holds, and never 0, whose logarithm is none.
            let drawn = ((mix(key ^ names(i)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            -drawn.ln() / weight(i) as f64
        };
        open.map(|i| (i, score(i))).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
    }
}

/// The hash of a key or a name for [`Split::pick_by_key`]: the same in every process and on every machine (FNV-1a, mixed).
pub fn key_hash(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    mix(folded)
}

/// The finisher of SplitMix64: every bit of the input moves half of the output's.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
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

    #[test]
    fn a_key_stays_while_the_weight_of_its_backend_grows() {
        let names = [key_hash(b"shop/cart v1"), key_hash(b"shop/cart v2")];
        let of = |share: u32, user: u32| {
            let split = Split::new([10_000 - share, share]);
            split.pick_by_key(key_hash(format!("user-{user}").as_bytes()), |i| names[i], |_| true)
        };
        let mut before = 0;
        for share in [100, 1_000, 5_000, 10_000] {
            let on_candidate = (0..10_000).filter(|user| of(share, *user) == Some(1));
            let now =
                on_candidate.inspect(|user| assert!(share >= 100 && of(10_000, *user) == Some(1))).count();
            let sigma = (10_000.0 * f64::from(share) / 10_000.0 * (1.0 - f64::from(share) / 10_000.0)).sqrt();
            let off = (now as f64 - f64::from(share)).abs();
            assert!(off <= 4.0 * sigma, "{share}: {now}");
            assert!(now >= before);
            before = now;
        }
        for user in 0..10_000 {
            let seen: Vec<_> = [100, 1_000, 5_000, 10_000].iter().map(|share| of(*share, user)).collect();
            assert!(seen.is_sorted(), "user {user} went back: {seen:?}");
        }
    }

    proptest! {
        /// With any number of backends: when one weight grows, a key either stays or goes to that one.
        #[test]
        fn a_growing_weight_only_draws_keys_to_itself(
            weights in proptest::collection::vec(0_u32..50, 2..6), grows in 0_usize..6, by in 1_u32..50, key in any::<u64>(),
        ) {
            let grows = grows % weights.len();
            let names = |i: usize| key_hash(&[u8::try_from(i).unwrap()]);
            let mut more = weights.clone();
            more[grows] += by;
            let before = Split::new(weights).pick_by_key(key, names, |_| true);
            let after = Split::new(more).pick_by_key(key, names, |_| true);
            prop_assert!(after == before || after == Some(grows), "{before:?} {after:?}");
        }

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
