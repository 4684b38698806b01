//! The states of a breaker and how they follow each other. Pure: time, chance and settings come from the caller.
//!
//! closed -> open -> half-open -> ramping -> closed, and back to open from all but the first two. Every state but closed
//! after ramping has a generation of its own: a result decides only in the generation in which its request began. What is
//! counted while closed stands in [`super::window`].

use std::time::Duration;

use outrigger_mesh::Recovery;

use crate::live::Millis;

/// The states of a breaker.
#[derive(Debug)]
pub struct Machine {
    state: State,
    generation: u32,
    /// How often it has opened since it was last closed.
    trips: u32,
    /// The number of the last probe.
    probes: u32,
}

/// A state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open {
        /// Until then.
        until: Millis,
    },
    /// One request at a time passes, to see how it goes.
    HalfOpen {
        /// How many went well.
        successes: u32,
        /// The one that is under way.
        probe: Option<Running>,
    },
    /// A share passes, which grows.
    Ramping {
        /// Since then.
        since: Millis,
    },
}

/// A probe that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    id: u32,
    /// From then on it is not waited for.
    pub until: Millis,
}

/// Which probe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId {
    /// The generation of the state that admitted it.
    pub generation: u32,
    id: u32,
}

impl Default for Machine {
    fn default() -> Self {
        Self { state: State::Closed, generation: FIRST, trips: 0, probes: 0 }
    }
}

impl Machine {
    /// The state it is in.
    pub fn state(&self) -> State {
        self.state
    }

    /// The generation whose results decide.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Opens it. The time doubles with each trip in a row and is jittered by half, so that what broke together is not
    /// tried together; a server that says when to come back makes it longer.
    pub fn open(&mut self, recovery: &Recovery, wish: Option<Duration>, chance: u64, now: Millis) {
        let doubled = millis(recovery.open).saturating_mul(1 << self.trips.min(20));
        let full = doubled.min(millis(recovery.max_open)).max(1);
        let jittered = full / 2 + chance % (full / 2 + 1);
        let wished = wish.map_or(0, |w| millis(w.min(LONGEST_WISH)));
        self.trips = self.trips.saturating_add(1);
        self.enter(State::Open { until: Millis(now.0.saturating_add(jittered.max(wished))) });
    }

    /// Admits a probe, if it is time for one and none is under way. One that has been under way for too long is not
    /// waited for: its answer counts all the same when it comes.
    pub fn probe(&mut self, now: Millis) -> Option<ProbeId> {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.enter(State::HalfOpen { successes: 0, probe: None });
        }
        let State::HalfOpen { probe, .. } = &mut self.state else { return None };
        if probe.is_some_and(|running| now < running.until) {
            return None;
        }
        self.probes = self.probes.wrapping_add(1);
        let id = self.probes;
        *probe = Some(Running { id, until: Millis(now.0.saturating_add(PROBE_TIMEOUT_MS)) });
        Some(ProbeId { generation: self.generation, id })
    }

    /// A probe ended, however it ended: the next may come.
    pub fn give_back(&mut self, probe: ProbeId) {
        if probe.generation == self.generation
            && let State::HalfOpen { probe: running, .. } = &mut self.state
            && running.is_some_and(|r| r.id == probe.id)
        {
            *running = None;
        }
    }

    /// A probe went well. Whether that ends the state.
    pub fn probe_succeeded(&mut self, probe: ProbeId, recovery: &Recovery, now: Millis) -> bool {
        if probe.generation != self.generation {
            return false;
        }
        self.give_back(probe);
        let State::HalfOpen { successes, .. } = &mut self.state else { return false };
        *successes += 1;
        let enough = *successes >= recovery.successes;
        if enough {
            self.ramp(recovery, now);
        }
        enough
    }

    /// Lets a share pass that grows, as after an outage.
    pub fn ramp(&mut self, recovery: &Recovery, now: Millis) {
        self.enter(State::Ramping { since: now });
        self.settle(recovery, now);
    }

    /// Ends ramping when its time is over.
    pub fn settle(&mut self, recovery: &Recovery, now: Millis) {
        if let State::Ramping { since } = self.state
            && now.0.saturating_sub(since.0) >= millis(recovery.ramp)
        {
            // The same generation: nothing changes for what is under way.
            self.state = State::Closed;
            self.trips = 0;
        }
    }

    /// Closes it whatever was.
    pub fn close(&mut self) {
        self.trips = 0;
        self.enter(State::Closed);
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation = self.generation.wrapping_add(1).max(FIRST);
    }
}

/// The share in percent that passes `elapsed` milliseconds into a ramp of `ramp`.
pub fn ramped(elapsed: u64, ramp: u64) -> u32 {
    if elapsed >= ramp {
        return 100;
    }
    let grown = LEAST_SHARE + (100 - LEAST_SHARE) * elapsed / ramp;
    u32::try_from(grown).unwrap_or(100)
}

/// Milliseconds of a setting.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The first generation; 0 is none.
const FIRST: u32 = 1;
/// Where a ramp begins, in percent.
const LEAST_SHARE: u64 = 10;
/// How long a probe is waited for.
pub const PROBE_TIMEOUT_MS: u64 = 5_000;
/// How far a server's `Retry-After` is followed.
const LONGEST_WISH: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_times_double_are_jittered_by_half_and_end_at_the_longest() {
        let (mut machine, recovery) = (Machine::default(), Recovery::default());
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            for chance in [0, 1, 12_345, u64::MAX] {
                let mut copy = Machine { trips: machine.trips, ..Machine::default() };
                copy.open(&recovery, None, chance, Millis(0));
                let State::Open { until } = copy.state() else { panic!("open") };
                assert!((expected / 2..=expected).contains(&until.0), "{until:?} of {expected}");
            }
            machine.open(&recovery, None, 0, Millis(0));
        }
    }

    #[test]
    fn a_server_that_says_when_makes_it_longer_up_to_a_minute() {
        for (wish, expected) in [(5, 5_000), (600, 60_000)] {
            let mut machine = Machine::default();
            machine.open(&Recovery::default(), Some(Duration::from_secs(wish)), 0, Millis(0));
            assert_eq!(machine.state(), State::Open { until: Millis(expected) });
        }
    }

    #[test]
    fn the_share_grows_from_a_tenth_to_all() {
        assert_eq!([0, 5_000, 9_999, 10_000].map(|t| ramped(t, 10_000)), [10, 55, 99, 100]);
        assert_eq!(ramped(0, 0), 100);
    }
}
