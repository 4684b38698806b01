//! The guard before a sudden loss of most of what a source lists.
//!
//! When many leases end together it is more likely that their sidecars can not reach the control plane than that they are
//! all gone, and whoever takes them away makes an outage of a cut wire. So when more than half of what was listed would go
//! within a window, nothing goes: it stays listed, while breakers and health checks of the callers do their work. It goes
//! after all when a complete round confirms it, in which the others have renewed theirs and these have not; or when an
//! operator says so. Where nobody renews there is no such round: it is the control plane that is cut off.
//!
//! Leases are renewed at different times, and of many whose sidecars fell silent together the first ends long before the
//! last. Were only those counted that have ended, half of them would be gone before it was seen. So who has missed a
//! renewal counts as soon as any lease ends, though his own runs on.
//!
//! What somebody takes away himself is no loss, and does not come here.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Below so many there is no guard: of three instances two may well end together.
pub(crate) const FLOOR: usize = 10;

/// The guard of one source.
#[derive(Debug)]
pub(crate) struct Shrink {
    /// Losses within so long count together. It is also how long a complete round takes.
    window: Duration,
    /// What went lately, by when.
    gone: VecDeque<(Instant, usize)>,
    held: Option<Held>,
    /// So many an operator has given up.
    confirmed: usize,
}

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// So many are listed.
    pub(crate) listed: usize,
    /// The leases of so many have ended.
    pub(crate) overdue: usize,
    /// So many have missed a renewal, those that are overdue among them.
    pub(crate) silent: usize,
    /// When somebody last was heard of.
    pub(crate) renewed: Option<Instant>,
}

/// A loss that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Since when.
    pub(crate) since: Instant,
    /// How much would go now.
    pub(crate) overdue: usize,
    /// That, and what will be overdue unless it is heard of again.
    pub(crate) silent: usize,
    /// Of how much.
    pub(crate) listed: usize,
}

/// What is to become of what is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes.
    Goes,
    /// It stays. The first time that is news.
    Stays(Held, News),
}

/// Whether something is told for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It is.
    First,
    /// It is known.
    Known,
}

impl Shrink {
    /// A guard over leases that last for `window`.
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, gone: VecDeque::new(), held: None, confirmed: 0 }
    }

    /// Judges what is overdue. What goes counts as gone.
    pub(crate) fn judge(&mut self, now: Instant, seen: Seen) -> Verdict {
        let Seen { listed, overdue, silent, .. } = seen;
        while self.gone.front().is_some_and(|(at, _)| now.duration_since(*at) > self.window) {
            self.gone.pop_front();
        }
        let gone: usize = self.gone.iter().map(|(_, count)| count).sum();
        let (lost, before) = (gone + silent.max(overdue), listed + gone);
        let is_sudden = before >= FLOOR && lost * 2 > before;
        if !is_sudden {
            // Those who were given up have gone, or were heard of again.
            self.confirmed = 0;
        }
        if overdue == 0 || !is_sudden {
            self.held = None;
        } else if !self.is_confirmed(now, seen.renewed) {
            let news = if self.held.is_some() { News::Known } else { News::First };
            let since = self.held.map_or(now, |held| held.since);
            let held = Held { since, overdue, silent: silent.max(overdue), listed: before };
            self.held = Some(held);
            return Verdict::Stays(held, news);
        }
        if overdue > 0 {
            self.gone.push_back((now, overdue));
            if is_sudden {
                // From here on the rest is all there is.
                self.gone.clear();
                self.held = None;
                self.confirmed = self.confirmed.saturating_sub(overdue);
            }
        }
        Verdict::Goes
    }

    /// A whole round has passed since, at the end of which others were still heard of; or an operator has said so.
    fn is_confirmed(&self, now: Instant, renewed: Option<Instant>) -> bool {
        let round = self.held.map(|held| held.since + self.window);
        self.confirmed > 0
            || round.is_some_and(|end| now >= end && renewed.is_some_and(|at| at + self.window >= now))
    }

    /// An operator says that what is held back is lost. False when nothing is.
    pub(crate) fn confirm(&mut self) -> bool {
        // Of those who are silent the last are overdue later than the first.
        self.confirmed = self.held.map_or(0, |held| held.silent);
        self.held.is_some()
    }

    /// What is held back.
    pub(crate) fn held(&self) -> Option<Held> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn goes(verdict: Verdict) -> bool {
        verdict == Verdict::Goes
    }

    /// All who are silent are overdue.
    fn seen(listed: usize, overdue: usize, renewed: Option<Instant>) -> Seen {
        Seen { listed, overdue, silent: overdue, renewed }
    }

    #[test]
    fn a_few_that_end_are_taken_away_and_most_of_them_together_are_held_back() {
        let now = Instant::now();
        let mut guard = Shrink::new(LEASE);
        assert!(goes(guard.judge(now, seen(100, 20, Some(now)))));
        assert!(goes(guard.judge(now, seen(80, 30, Some(now)))), "half of a hundred by now");
        let told = guard.judge(now, seen(50, 1, Some(now)));
        assert_eq!(
            told,
            Verdict::Stays(Held { since: now, overdue: 1, silent: 1, listed: 100 }, News::First)
        );
        let later = now + LEASE + Duration::from_secs(1);
        assert!(goes(guard.judge(later, seen(50, 1, Some(later)))), "the others went long ago");
    }

    #[test]
    fn small_meshes_are_not_hampered() {
        let now = Instant::now();
        assert!(goes(Shrink::new(LEASE).judge(now, seen(FLOOR - 1, FLOOR - 1, None))));
        assert!(!goes(Shrink::new(LEASE).judge(now, seen(FLOOR, FLOOR, None))));
    }

    #[test]
    fn a_round_in_which_the_others_renewed_confirms_it() {
        let now = Instant::now();
        let mut guard = Shrink::new(LEASE);
        assert!(!goes(guard.judge(now, seen(100, 60, Some(now)))));
        let almost = now + LEASE - Duration::from_secs(1);
        assert!(!goes(guard.judge(almost, seen(100, 60, Some(almost)))));
        let then = now + LEASE;
        assert!(goes(guard.judge(then, seen(100, 60, Some(then)))));
        assert_eq!(guard.held(), None);
        assert!(goes(guard.judge(then, seen(40, 20, Some(then)))), "what is left is judged by itself");
    }

    #[test]
    fn where_nobody_renews_only_an_operator_confirms_it() {
        let now = Instant::now();
        let mut guard = Shrink::new(LEASE);
        assert!(!guard.confirm(), "nothing is held back");
        assert!(!goes(guard.judge(now, seen(100, 100, Some(now)))));
        let hours = now + Duration::from_secs(7200);
        assert!(!goes(guard.judge(hours, seen(100, 100, Some(now)))));
        assert!(guard.confirm());
        assert!(goes(guard.judge(hours, seen(100, 100, Some(now)))));
        assert!(!goes(guard.judge(hours, seen(100, 100, None))), "said once, it holds once");
    }

    #[test]
    fn those_who_come_back_are_not_lost() {
        let now = Instant::now();
        let mut guard = Shrink::new(LEASE);
        assert!(!goes(guard.judge(now, seen(100, 60, Some(now)))));
        assert!(goes(guard.judge(now, seen(100, 10, Some(now)))), "fifty have come back");
        assert_eq!(guard.held(), None);
    }

    #[test]
    fn of_many_who_are_silent_the_first_is_held_back_already() {
        let now = Instant::now();
        let mut guard = Shrink::new(LEASE);
        let first = Seen { listed: 100, overdue: 1, silent: 90, renewed: Some(now) };
        assert!(!goes(guard.judge(now, first)));
        assert!(goes(guard.judge(now, Seen { silent: 20, ..first })), "the others were late, and are back");
    }

    #[test]
    fn whom_an_operator_gives_up_goes_when_his_lease_ends_and_who_comes_back_is_not_given_up_any_more() {
        let now = Instant::now();
        let mut guard = Shrink::new(LEASE);
        let first = Seen { listed: 100, overdue: 10, silent: 90, renewed: None };
        assert!(!goes(guard.judge(now, first)));
        assert!(guard.confirm());
        assert!(goes(guard.judge(now, first)));
        assert!(
            goes(guard.judge(now, Seen { listed: 90, overdue: 0, silent: 80, ..first })),
            "nothing to take"
        );
        assert!(goes(guard.judge(now, Seen { listed: 90, overdue: 30, silent: 80, ..first })));
        assert!(
            goes(guard.judge(now, Seen { listed: 60, overdue: 0, silent: 0, ..first })),
            "fifty came back"
        );
        assert!(!goes(guard.judge(now, Seen { listed: 60, overdue: 5, silent: 50, ..first })));
    }
}
