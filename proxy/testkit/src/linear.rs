//! Whether what clients saw of one register could have come of one register: the search of Wing and Gong, with the memory
//! of Lowe.
//!
//! Each call takes effect at one moment between its beginning and its end, if the register is linearizable. An order of
//! calls is looked for in which each says what a register in that place would say. A call whose outcome nobody knows may
//! have taken effect at any later moment, or never.

use std::collections::HashSet;

/// One call of one client, with the moments at which it began and ended by one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whose it is, for people.
    pub client: usize,
    /// When it began.
    pub began: u64,
    /// When it ended; `None` where its outcome is not known.
    pub ended: Option<u64>,
    /// What was asked and answered.
    pub did: Did,
}

/// What a call did. Every value is written once at most, so that it names the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// It saw this value; `None`: there was none.
    Saw(Option<u64>),
    /// It wrote this, in the place of whatever was there.
    Wrote(u64),
    /// It wrote `new` in the place of `old`; where the outcome is not known, only if that was there.
    Swapped {
        /// What had to be there.
        old: Option<u64>,
        /// What is there since.
        new: u64,
    },
    /// It was refused, because something else than this was there.
    Refused {
        /// What had to be there.
        old: Option<u64>,
    },
}

/// What is there, if anything.
type Held = Option<u64>;

impl Did {
    /// What is there afterwards, if it could happen where `value` is there.
    fn on(self, value: Held) -> Option<Held> {
        match self {
            Self::Saw(seen) => (seen == value).then_some(value),
            Self::Wrote(new) => Some(Some(new)),
            Self::Swapped { old, new } => (old == value).then_some(Some(new)),
            Self::Refused { old } => (old != value).then_some(value),
        }
    }
}

/// Whether there is an order of these calls in which each says what it said. The error tells the calls around the one that
/// fits nowhere.
pub fn linearizable(calls: &[Call]) -> Result<(), String> {
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| call.began);
    let mut search = Search { done: Set::of(calls.len()), value: None, left: 0, seen: HashSet::new() };
    search.left = calls.iter().filter(|call| call.ended.is_some()).count();
    // What was tried at each step: the call that was put there, what was there before, and whom to try next.
    let mut taken: Vec<(usize, Option<u64>)> = vec![];
    let (mut next, mut best) = (0, 0);
    while search.left > 0 {
        let deadline = search.deadline(&calls);
        let fits = (next..calls.len()).take_while(|at| calls[*at].began <= deadline).find_map(|at| {
            let value = (!search.done.has(at)).then(|| calls[at].did.on(search.value)).flatten()?;
            search.is_new(at, value).then_some((at, value))
        });
        if let Some((at, value)) = fits {
            taken.push((at, search.value));
            search.put(&calls, at, value);
            best = best.max(taken.len());
            next = 0;
        } else {
            // Nobody fits here: the last one was put in the wrong place.
            let Some((at, before)) = taken.pop() else { return Err(told(&calls, best)) };
            search.take_back(&calls, at, before);
            next = at + 1;
        }
    }
    Ok(())
}

struct Search {
    done: Set,
    value: Option<u64>,
    /// Calls of a known outcome that have no place yet.
    left: usize,
    /// Which calls had a place, with what was there then: it does not matter in which order they came there.
    seen: HashSet<(Set, Option<u64>)>,
}

impl Search {
    /// Whoever began later than this comes after somebody who has no place yet.
    fn deadline(&self, calls: &[Call]) -> u64 {
        let open = calls.iter().enumerate().filter(|(at, _)| !self.done.has(*at));
        open.filter_map(|(_, call)| call.ended).min().unwrap_or(u64::MAX)
    }

    fn is_new(&mut self, at: usize, value: Option<u64>) -> bool {
        let mut with = self.done.clone();
        with.set(at, true);
        self.seen.insert((with, value))
    }

    fn put(&mut self, calls: &[Call], at: usize, value: Option<u64>) {
        self.done.set(at, true);
        self.value = value;
        self.left -= usize::from(calls[at].ended.is_some());
    }

    fn take_back(&mut self, calls: &[Call], at: usize, before: Option<u64>) {
        self.done.set(at, false);
        self.value = before;
        self.left += usize::from(calls[at].ended.is_some());
    }
}

fn told(calls: &[Call], best: usize) -> String {
    let around = calls.iter().skip(best.saturating_sub(8)).take(16);
    let lines: Vec<_> = around.map(|call| format!("  {call:?}")).collect();
    format!(
        "no order of the calls fits; at most {best} of {} have a place:\n{}",
        calls.len(),
        lines.join("\n")
    )
}

/// Numbers below a bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn of(bound: usize) -> Self {
        Self(vec![0; bound.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn set(&mut self, at: usize, on: bool) {
        let bit = 1 << (at % 64);
        if on { self.0[at / 64] |= bit } else { self.0[at / 64] &= !bit }
    }
}

#[cfg(test)]
mod tests {
    use super::Did::{Refused, Saw, Swapped, Wrote};
    use super::*;

    fn call(began: u64, ended: impl Into<Option<u64>>, did: Did) -> Call {
        Call { client: 0, began, ended: ended.into(), did }
    }

    fn fits(calls: &[Call]) -> bool {
        linearizable(calls).is_ok()
    }

    #[test]
    fn what_comes_one_after_the_other_has_that_order() {
        let swap = Swapped { old: Some(1), new: 2 };
        assert!(fits(&[]));
        assert!(fits(&[call(0, 1, Saw(None)), call(2, 3, Wrote(1)), call(4, 5, Saw(Some(1)))]));
        assert!(fits(&[call(0, 1, Wrote(1)), call(2, 3, swap), call(4, 5, Saw(Some(2)))]));
        assert!(!fits(&[call(0, 1, Wrote(1)), call(2, 3, Saw(None))]), "a lost write");
        assert!(!fits(&[call(0, 1, Wrote(1)), call(2, 3, swap), call(4, 5, Saw(Some(1)))]), "a stale read");
        assert!(!fits(&[call(0, 1, Saw(Some(7)))]), "nobody wrote that");
    }

    #[test]
    fn of_what_happens_at_the_same_time_either_may_be_first() {
        for seen in [None, Some(1)] {
            assert!(fits(&[call(0, 10, Wrote(1)), call(2, 3, Saw(seen))]));
        }
        // But who saw it has seen it.
        let back = [call(0, 10, Wrote(1)), call(2, 3, Saw(Some(1))), call(4, 5, Saw(None))];
        assert!(!fits(&back), "a read goes back");
    }

    #[test]
    fn of_two_who_swap_the_same_one_does_and_the_other_is_refused() {
        let (one, two) = (Swapped { old: None, new: 1 }, Swapped { old: None, new: 2 });
        assert!(!fits(&[call(0, 10, one), call(1, 9, two)]), "a lost update");
        assert!(fits(&[call(0, 10, one), call(1, 9, Refused { old: None })]));
        assert!(!fits(&[call(0, 10, Refused { old: None })]), "refused for nothing");
    }

    #[test]
    fn what_nobody_knows_may_have_happened_later_or_never_but_not_before() {
        let lost = call(5, None, Wrote(9));
        assert!(fits(&[lost.clone(), call(6, 7, Saw(None))]));
        assert!(fits(&[lost.clone(), call(6, 7, Saw(None)), call(20, 21, Saw(Some(9)))]));
        assert!(!fits(&[call(0, 1, Saw(Some(9))), lost.clone()]), "seen before it began");
        let twice = [lost, call(6, 7, Saw(Some(9))), call(8, 9, Wrote(1)), call(10, 11, Saw(Some(9)))];
        assert!(!fits(&twice), "made twice");
    }

    /// Histories of a real register, and the same with one answer planted that it never gave.
    #[test]
    fn a_long_history_of_many_clients_fits_and_with_one_wrong_answer_it_does_not() {
        for seed in 1..30_u64 {
            let mut state = seed;
            let mut random = move |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            };
            let (mut value, mut written, mut calls) = (None, 0, vec![]);
            for at in 0..400_u64 {
                // It takes effect at `100 * at`, somewhere within the call.
                let (began, ended) = (100 * at + 1000 - random(300), 100 * at + 1000 + random(300));
                let did = match random(4) {
                    0 | 1 => Saw(value),
                    2 => {
                        written += 1;
                        let did = Swapped { old: value, new: written };
                        value = Some(written);
                        did
                    }
                    _ => Refused { old: Some(1_000_000) },
                };
                let known = !matches!(did, Swapped { .. }) || random(10) > 0;
                calls.push(call(began, known.then_some(ended), did));
            }
            linearizable(&calls).unwrap();
            let at = 200 + calls[200..].iter().position(|c| matches!(c.did, Saw(Some(_)))).unwrap();
            let Saw(Some(seen)) = calls[at].did else { unreachable!() };
            calls[at].did = Saw(Some(seen.saturating_sub(20)));
            assert!(!fits(&calls), "{seed}: a read of long ago is not noticed");
        }
    }
}
