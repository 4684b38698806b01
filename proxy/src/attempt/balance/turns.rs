//! Round robin: whose turn it is. One count of turns for all workers, so that shares are exact whoever takes them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The turns of a set of endpoints.
#[derive(Debug)]
pub struct Turns {
    /// The order by weight; empty where all weigh the same, whose order is theirs.
    order: Box<[u16]>,
    members: usize,
    next: AtomicUsize,
}

impl Turns {
    /// The turns of members of these weights. `first` spreads the beginning, so that not everybody begins at the same one.
    pub fn new(weights: &[u16], first: usize) -> Self {
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let order = if even { Vec::new() } else { smooth(weights) };
        Self { order: order.into(), members: weights.len(), next: AtomicUsize::new(first) }
    }

    /// Who is next. Each call is a turn: where the one cannot take it, the next call's does, so that the turns of one that
    /// is left out fall to the others by their weight.
    pub fn take(&self) -> usize {
        let turn = self.next.fetch_add(1, Relaxed);
        if self.order.is_empty() {
            return turn.checked_rem(self.members).unwrap_or(0);
        }
        usize::from(self.order[turn % self.order.len()])
    }
}

/// An order in which each comes by its weight, as evenly spread as can be: always the one whose next turn is due first.
fn smooth(weights: &[u16]) -> Vec<u16> {
    let divisor = weights.iter().fold(0, |a, b| common_divisor(a, *b)).max(1);
    let mut turns: Vec<u64> = weights.iter().map(|w| u64::from(w / divisor)).collect();
    let total: u64 = turns.iter().sum();
    if total > MOST {
        for turn in &mut turns {
            *turn = (*turn * MOST / total).max(1);
        }
    }
    // A member with `t` turns is due at 1/2t, 3/2t, 5/2t … of a round. Compared without fractions.
    let due = |at: usize, taken: u64| Due { numerator: 2 * taken + 1, turns: turns[at], at };
    let mut heap: BinaryHeap<Reverse<Due>> = (0..turns.len()).map(|at| Reverse(due(at, 0))).collect();
    let mut order = Vec::with_capacity(usize::try_from(turns.iter().sum::<u64>()).unwrap_or(0));
    while let Some(Reverse(next)) = heap.pop() {
        order.push(u16::try_from(next.at).unwrap_or(0));
        let taken = next.numerator.div_ceil(2);
        if taken < next.turns {
            heap.push(Reverse(due(next.at, taken)));
        }
    }
    order
}

#[derive(PartialEq, Eq)]
struct Due {
    numerator: u64,
    turns: u64,
    at: usize,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let here = self.numerator * other.turns;
        here.cmp(&(other.numerator * self.turns)).then(self.at.cmp(&other.at))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Turns in a round. Weights that need more are rounded to fit.
const MOST: u64 = 65_536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn turns_are_spread_and_those_of_equal_weight_go_round() {
        let turns = Turns::new(&[500, 100, 100], 0);
        let seven: Vec<usize> = (0..7).map(|_| turns.take()).collect();
        assert_eq!(seven, [0, 0, 0, 1, 2, 0, 0]);
        let turns = Turns::new(&[100, 100, 100], 4);
        assert_eq!([turns.take(), turns.take(), turns.take(), turns.take()], [1, 2, 0, 1]);
        assert_eq!(Turns::new(&[7], 3).take(), 0);
    }

    #[test]
    fn rounds_that_would_be_too_long_are_rounded() {
        let weights = vec![u16::MAX, u16::MAX - 1, 1];
        let order = smooth(&weights);
        assert!(order.len() <= 65_540, "{}", order.len());
        assert!(order.contains(&2), "nobody is rounded away");
    }

    proptest! {
        /// A round gives each exactly its weight, and at no moment of it is anybody more than one turn from it for each
        /// of the others.
        #[test]
        fn shares_are_exact_over_a_round(weights in proptest::collection::vec(1_u16..=9, 1..8)) {
            let order = smooth(&weights);
            let divisor = weights.iter().fold(0, |a, b| common_divisor(a, *b));
            let mut counts = vec![0_usize; weights.len()];
            for (turn, at) in order.iter().enumerate() {
                counts[usize::from(*at)] += 1;
                let due = (turn + 1) as f64 * f64::from(weights[usize::from(*at)] / divisor) / order.len() as f64;
                let apart = (counts[usize::from(*at)] as f64 - due).abs();
                prop_assert!(apart <= weights.len() as f64, "{apart}");
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(*count, usize::from(*weight / divisor));
            }
        }
    }
}
