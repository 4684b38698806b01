//! Circuit breakers: failure-driven state machines, shared by all workers.
//!
//! [`machine`] has the states, [`window`] what is counted while closed; here both are put together so that a success
//! costs a few atomics and only failures and changes of state take a lock. What counts as a failure, and whose breaker it
//! is, is decided elsewhere: `attempt::endpoint_breaker` and `request::service_breaker`. Limits of concurrency are
//! bulkheads and have nothing to do with this.

pub mod group;
pub mod machine;
pub mod metrics;
pub mod window;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use group::{Group, Limit, Settings};
use machine::{Machine, ProbeId, State, millis, ramped};
use window::{Tally, Totals};

use crate::live::Millis;

/// A breaker: whether something may be sent, learnt from what came of it before.
#[derive(Debug)]
pub struct Breaker {
    /// Generation and phase, for those who only look.
    word: AtomicU64,
    /// When it stops being open, when its probe is overdue, or since when it ramps.
    at: AtomicU64,
    /// Refusals while it was not closed.
    rejected: AtomicU64,
    /// How often it opened.
    opened: AtomicU32,
    tally: Tally,
    /// Whether the last that was heard is that no connection could be made.
    unreachable: AtomicBool,
    inner: Mutex<Inner>,
    group: Arc<Group>,
}

#[derive(Debug, Default)]
struct Inner {
    machine: Machine,
    /// Until then it does not try to open, unless others have joined: it was not allowed to.
    held: Option<(Millis, u64)>,
}

/// How much of what comes may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Everything.
    Full,
    /// So many percent.
    Part(u32),
    /// One request, which has to ask for it by [`Breaker::try_probe`].
    Probe,
    /// Nothing.
    Shut,
}

/// What a breaker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything passes.
    Closed,
    /// Nothing does.
    Open,
    /// Probes do.
    HalfOpen,
    /// A share does.
    Ramping,
}

impl Phase {
    /// Every phase, for metrics.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::HalfOpen, Self::Ramping];

    /// The word for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramping => "ramping",
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered after so long.
    Success(Duration),
    /// It failed.
    Failure {
        /// Whether no connection could be made.
        connect: bool,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It says nothing of who was asked.
    Neutral,
    /// It was turned away for want of room: as [`Outcome::Neutral`] to a breaker, and others are asked first.
    Busy,
}

/// A request that passed, and in which generation. Dropped, it gives its probe back.
#[derive(Debug, Default)]
pub struct Pass {
    /// 0: passed in spite of the breaker, and decides nothing.
    generation: u32,
    probe: Option<Permit>,
}

/// The right to be the one probe of a breaker. Dropped, it is given back.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    id: ProbeId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.breaker.inner();
        inner.machine.give_back(self.id);
        self.breaker.publish(&inner.machine);
    }
}

impl Pass {
    /// A request that passes in spite of the breaker: it is no evidence.
    pub fn regardless() -> Self {
        Self::default()
    }

    /// Whether it is a probe.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

impl From<Permit> for Pass {
    fn from(permit: Permit) -> Self {
        Self { generation: permit.id.generation, probe: Some(permit) }
    }
}

impl Breaker {
    /// A closed breaker under the settings of `group`.
    pub fn new(group: Arc<Group>) -> Self {
        let inner = Inner::default();
        let breaker = Self {
            word: AtomicU64::new(packed(inner.machine.generation(), CLOSED)),
            at: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            opened: AtomicU32::new(0),
            tally: Tally::default(),
            unreachable: AtomicBool::new(false),
            inner: Mutex::new(inner),
            group,
        };
        breaker.group.moved(Phase::Closed, Phase::Closed);
        breaker
    }

    /// The group it belongs to.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// What may pass now.
    pub fn share(&self, now: Millis) -> Share {
        let word = self.word.load(Relaxed);
        match word & PHASE {
            CLOSED => Share::Full,
            OPEN if now.0 >= self.at.load(Relaxed) => Share::Probe,
            OPEN => Share::Shut,
            HALF_OPEN if word & PROBING != 0 && now.0 < self.at.load(Relaxed) => Share::Shut,
            HALF_OPEN => Share::Probe,
            _ => {
                let elapsed = now.0.saturating_sub(self.at.load(Relaxed));
                let part = ramped(elapsed, self.group.ramp_ms());
                if part < 100 {
                    return Share::Part(part);
                }
                let mut inner = self.inner();
                inner.machine.settle(&self.group.settings().recovery, now);
                self.publish(&inner.machine);
                Share::Full
            }
        }
    }

    /// Asks to be the probe. `None` where it is not the time for one, or one is under way.
    pub fn try_probe(self: &Arc<Self>, now: Millis) -> Option<Permit> {
        let mut inner = self.inner();
        let id = inner.machine.probe(now);
        self.publish(&inner.machine);
        drop(inner);
        id.map(|id| Permit { breaker: Arc::clone(self), id })
    }

    /// Lets a request pass that was chosen for it, as a probe if it is time for one. Where somebody else was quicker, or
    /// it is chosen for want of a better one, what comes of it decides nothing.
    pub fn take(self: &Arc<Self>, now: Millis) -> Pass {
        match self.share(now) {
            Share::Probe => self.try_probe(now).map_or_else(Pass::regardless, Pass::from),
            Share::Full | Share::Part(_) | Share::Shut => self.pass(),
        }
    }

    /// A request that passes while the breaker is closed or ramps.
    pub fn pass(&self) -> Pass {
        let word = self.word.load(Relaxed);
        let probes_only = matches!(word & PHASE, OPEN | HALF_OPEN);
        Pass { generation: if probes_only { 0 } else { generation_of(word) }, probe: None }
    }

    /// What may pass a breaker that nobody can go around: a request, or how long it had better wait. `chance` decides
    /// while a share passes.
    pub fn admit(self: &Arc<Self>, now: Millis, chance: u64) -> Result<Pass, Duration> {
        let passes = match self.share(now) {
            Share::Full => Some(self.pass()),
            Share::Part(percent) => (chance % 100 < u64::from(percent)).then(|| self.pass()),
            Share::Probe => self.try_probe(now).map(Pass::from),
            Share::Shut => None,
        };
        passes.ok_or_else(|| {
            self.rejected.fetch_add(1, Relaxed);
            self.wait(now)
        })
    }

    /// Notes what came of a request. The first success and every failure of one count; results of requests that began
    /// in another state do not.
    pub fn note(&self, pass: &mut Pass, outcome: Outcome, now: Millis, chance: u64) {
        let word = self.word.load(Relaxed);
        let stale = pass.generation != generation_of(word);
        let unreachable = matches!(outcome, Outcome::Failure { connect: true, .. });
        // Reading first keeps the line shared between workers while all is well.
        if !matches!(outcome, Outcome::Neutral | Outcome::Busy)
            && self.unreachable.load(Relaxed) != unreachable
        {
            self.unreachable.store(unreachable, Relaxed);
        }
        match outcome {
            Outcome::Neutral | Outcome::Busy => pass.probe = None,
            _ if stale => pass.probe = None,
            Outcome::Success(latency) => match pass.probe.take() {
                Some(permit) => self.probe_succeeded(permit, now),
                None if matches!(word & PHASE, CLOSED | RAMPING) => self.succeeded(latency, now, chance),
                None => {}
            },
            Outcome::Failure { connect, retry_after } => {
                self.failed(pass, connect, retry_after, now, chance);
                pass.probe = None;
            }
        }
    }

    /// Opens from here on with a share that grows: it is new, and shall not be asked everything at once.
    pub fn start_slowly(&self, now: Millis) {
        let mut inner = self.inner();
        inner.machine.ramp(&self.group.settings().recovery, now);
        self.publish(&inner.machine);
    }

    /// Closes it and forgets what it has learnt.
    pub fn reset(&self) {
        let mut inner = self.inner();
        inner.machine.close();
        inner.held = None;
        self.tally.clear();
        self.publish(&inner.machine);
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        phase_of(self.word.load(Relaxed))
    }

    /// How long it is until it may be worth asking again. At least a second where it is not known.
    pub fn wait(&self, now: Millis) -> Duration {
        let left = match self.phase() {
            Phase::Open => self.at.load(Relaxed).saturating_sub(now.0),
            Phase::Closed | Phase::HalfOpen | Phase::Ramping => 1_000,
        };
        Duration::from_millis(left)
    }

    /// How often it has opened.
    pub fn opened(&self) -> u32 {
        self.opened.load(Relaxed)
    }

    /// How many requests it has refused.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// What it has counted within its window.
    pub fn totals(&self, now: Millis) -> Totals {
        self.tally.totals(self.group.width_ms(), now)
    }

    /// Whether the last that was heard is that no connection could be made.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable.load(Relaxed)
    }

    /// Failures in a row.
    pub fn in_a_row(&self) -> u32 {
        self.tally.in_a_row()
    }

    /// Counts a refusal that somebody else decided.
    pub fn count_rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    fn succeeded(&self, latency: Duration, now: Millis, chance: u64) {
        let slow = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX) > self.group.slow_micros();
        self.tally.succeeded(slow, self.group.width_ms(), now);
        if slow {
            self.trip(None, now, chance);
        }
    }

    fn probe_succeeded(&self, permit: Permit, now: Millis) {
        let mut inner = self.inner();
        if inner.machine.probe_succeeded(permit.id, &self.group.settings().recovery, now) {
            self.tally.clear();
        }
        self.publish(&inner.machine);
        drop(inner);
        drop(permit); // After the lock: it takes it, too.
    }

    fn failed(&self, pass: &Pass, connect: bool, wish: Option<Duration>, now: Millis, chance: u64) {
        let mut inner = self.inner();
        if pass.generation != inner.machine.generation() {
            return;
        }
        match inner.machine.state() {
            State::Open { .. } => {}
            // Whatever a probe was asked: who fails once while it is looked at is not well.
            State::HalfOpen { .. } => self.open(&mut inner, wish, now, chance),
            State::Closed | State::Ramping { .. } => {
                self.tally.failed(connect, self.group.width_ms(), now);
                drop(inner);
                self.trip(wish, now, chance);
            }
        }
    }

    /// Opens, if what was counted says so and the group lets it.
    fn trip(&self, wish: Option<Duration>, now: Millis, chance: u64) {
        let settings = self.group.settings();
        let Some(trip) = &settings.trip else { return };
        let mut inner = self.inner();
        let counting = matches!(inner.machine.state(), State::Closed | State::Ramping { .. });
        if !counting || inner.held.is_some_and(|(until, among)| now < until && among == self.group.changes())
        {
            return;
        }
        if self.tally.trips(trip, self.group.width_ms(), now) {
            self.open(&mut inner, wish, now, chance);
        }
    }

    fn open(&self, inner: &mut Inner, wish: Option<Duration>, now: Millis, chance: u64) {
        let settings = self.group.settings();
        let recovery = &settings.recovery;
        if self.group.only_watches() {
            self.group.would_have_opened();
            self.tally.clear();
            inner.held = Some((Millis(now.0.saturating_add(millis(recovery.open))), self.group.changes()));
            return;
        }
        let opened = self.group.open_unless_too_many(self, || {
            inner.machine.open(recovery, wish, chance, now);
            self.publish(&inner.machine);
        });
        if opened {
            inner.held = None;
            self.tally.clear();
            self.opened.fetch_add(1, Relaxed);
        } else {
            // Better a bad endpoint than none. The limit is looked at again soon, not for every failure.
            inner.held = Some((Millis(now.0.saturating_add(HELD_MS)), self.group.changes()));
            if matches!(inner.machine.state(), State::HalfOpen { .. }) {
                inner.machine.close();
                self.publish(&inner.machine);
            }
        }
    }

    /// Shows the state to those who only look.
    fn publish(&self, machine: &Machine) {
        let (phase, at) = match machine.state() {
            State::Closed => (CLOSED, 0),
            State::Open { until } => (OPEN, until.0),
            State::HalfOpen { probe: None, .. } => (HALF_OPEN, 0),
            State::HalfOpen { probe: Some(running), .. } => (HALF_OPEN | PROBING, running.until.0),
            State::Ramping { since } => (RAMPING, since.0),
        };
        let word = packed(machine.generation(), phase);
        // Whoever reads the one before the other sees a moment too much or too little pass, no more: what counts is
        // decided under the lock.
        self.at.store(at, Relaxed);
        let before = self.word.swap(word, Relaxed);
        self.group.moved(phase_of(before), phase_of(word));
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.group.moved(self.phase(), Phase::Closed);
    }
}

fn packed(generation: u32, phase: u64) -> u64 {
    u64::from(generation) << 8 | phase
}

#[allow(clippy::cast_possible_truncation, reason = "takes what was put in")]
fn generation_of(word: u64) -> u32 {
    (word >> 8) as u32
}

fn phase_of(word: u64) -> Phase {
    match word & PHASE {
        CLOSED => Phase::Closed,
        OPEN => Phase::Open,
        HALF_OPEN => Phase::HalfOpen,
        _ => Phase::Ramping,
    }
}

const PHASE: u64 = 0b11;
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const RAMPING: u64 = 3;
const PROBING: u64 = 0b100;
/// How long a breaker that was not allowed to open waits before it tries again.
const HELD_MS: u64 = 100;
