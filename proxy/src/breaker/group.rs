//! Breakers that share settings and a limit on how many of them may be open: those of the endpoints of a service. A
//! breaker that stands by itself is a group of one without a limit.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};
use outrigger_mesh::{EndpointBreaker, Recovery, ServiceBreaker, Trip};

use super::machine::millis;
use super::window::BUCKETS;
use super::{Breaker, Phase};

/// What breakers share.
#[derive(Debug)]
pub struct Group {
    settings: ArcSwap<Settings>,
    /// What the way of a request needs of the settings.
    width_ms: AtomicU64,
    slow_micros: AtomicU64,
    ramp_ms: AtomicU64,
    /// Whether they only count what they would do.
    watches: AtomicBool,
    /// How many are not closed; while it is 0 nobody need look at any of them.
    unwell: AtomicUsize,
    members: Mutex<Vec<Weak<Breaker>>>,
    /// How often the members changed.
    changes: AtomicU64,
    counts: Counts,
}

/// How often they changed.
#[derive(Debug, Default)]
struct Counts {
    entered: [AtomicU64; 4],
    would_have_opened: AtomicU64,
    held_closed: AtomicU64,
}

/// When breakers open and close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What opens one; `None`: nothing.
    pub trip: Option<Trip>,
    /// How long it is open, and how it closes.
    pub recovery: Recovery,
    /// How many may be open at once; `None`: all.
    pub limit: Option<Limit>,
    /// Whether a new one begins with a share that grows.
    pub slow_start: bool,
}

/// How many breakers of a group may be open at once; at least one, and never the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of all members.
    pub percent: u32,
}

impl Settings {
    /// Nothing ever opens.
    pub fn off() -> Self {
        Self { trip: None, recovery: Recovery::default(), limit: None, slow_start: false }
    }
}

impl From<&EndpointBreaker> for Settings {
    fn from(policy: &EndpointBreaker) -> Self {
        Self {
            trip: policy.trip.clone(),
            recovery: policy.recovery.clone(),
            limit: (!policy.allow_all_open).then_some(Limit { percent: policy.max_open_percent }),
            slow_start: policy.slow_start,
        }
    }
}

impl From<&ServiceBreaker> for Settings {
    fn from(policy: &ServiceBreaker) -> Self {
        let trip = Some(policy.trip.clone());
        Self { trip, recovery: policy.recovery.clone(), limit: None, slow_start: false }
    }
}

impl Group {
    /// A group without members.
    pub fn new(settings: Settings) -> Self {
        let group = Self {
            settings: ArcSwap::from_pointee(Settings::off()),
            width_ms: AtomicU64::new(0),
            slow_micros: AtomicU64::new(0),
            ramp_ms: AtomicU64::new(0),
            watches: AtomicBool::new(false),
            unwell: AtomicUsize::new(0),
            members: Mutex::default(),
            changes: AtomicU64::new(0),
            counts: Counts::default(),
        };
        group.configure(settings);
        group
    }

    /// Puts settings in force. What was learnt stays, unless nothing shall open any more.
    pub fn configure(&self, settings: Settings) {
        if **self.settings.load() == settings && self.width_ms.load(Relaxed) != 0 {
            return;
        }
        let trip = settings.trip.clone().unwrap_or_default();
        let slow = trip.slow.map_or(u64::MAX, |s| u64::try_from(s.over.as_micros()).unwrap_or(u64::MAX));
        self.width_ms.store((millis(trip.window) / BUCKETS as u64).max(1), Relaxed);
        self.slow_micros.store(slow, Relaxed);
        self.ramp_ms.store(millis(settings.recovery.ramp), Relaxed);
        let off = settings.trip.is_none();
        self.settings.store(Arc::new(settings));
        if off {
            let members: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
            for member in members {
                member.reset();
            }
        }
    }

    /// Says whether they only count what they would do.
    pub fn watch_only(&self, watches: bool) {
        self.watches.store(watches, Relaxed);
    }

    /// Who belongs to it now.
    pub fn set_members<'a>(&self, members: impl Iterator<Item = &'a Arc<Breaker>>) {
        *self.lock() = members.map(Arc::downgrade).collect();
        self.changes.fetch_add(1, Relaxed);
    }

    /// Whether there are members.
    pub fn has_members(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Whether none of them keeps anything away.
    pub fn is_well(&self) -> bool {
        self.unwell.load(Relaxed) == 0
    }

    /// Whether all of them may be open.
    pub fn may_all_open(&self) -> bool {
        self.settings.load().limit.is_none()
    }

    /// The settings in force.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// How often a breaker came into `phase`.
    pub fn entered(&self, phase: Phase) -> u64 {
        self.counts.entered[phase as usize].load(Relaxed)
    }

    /// How often one would have opened that only watches.
    pub fn would_open(&self) -> u64 {
        self.counts.would_have_opened.load(Relaxed)
    }

    /// How often one stayed closed since too many were open.
    pub fn held_closed(&self) -> u64 {
        self.counts.held_closed.load(Relaxed)
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    pub(super) fn width_ms(&self) -> u64 {
        self.width_ms.load(Relaxed)
    }

    pub(super) fn slow_micros(&self) -> u64 {
        self.slow_micros.load(Relaxed)
    }

    pub(super) fn ramp_ms(&self) -> u64 {
        self.ramp_ms.load(Relaxed)
    }

    pub(super) fn only_watches(&self) -> bool {
        self.watches.load(Relaxed)
    }

    pub(super) fn would_have_opened(&self) {
        self.counts.would_have_opened.fetch_add(1, Relaxed);
    }

    pub(super) fn moved(&self, from: Phase, to: Phase) {
        if from == to {
            return;
        }
        self.counts.entered[to as usize].fetch_add(1, Relaxed);
        match (from, to) {
            (Phase::Closed, _) => _ = self.unwell.fetch_add(1, Relaxed),
            (_, Phase::Closed) => _ = self.unwell.fetch_sub(1, Relaxed),
            _ => {}
        }
    }

    /// Runs `open` where one more may be open. The lock makes it exact: two do not take the last place together.
    pub(super) fn open_unless_too_many(&self, which: &Breaker, open: impl FnOnce()) -> bool {
        let Some(limit) = self.settings.load().limit else {
            open();
            return true;
        };
        let members = self.lock();
        let is_open = |b: &Breaker| matches!(b.phase(), Phase::Open | Phase::HalfOpen);
        let others =
            members.iter().filter(|m| !std::ptr::eq(m.as_ptr(), which) && m.strong_count() > 0).count();
        // Upgraded one by one and dropped: were this the last handle of one, its end would take no lock of ours.
        let open_now = members
            .iter()
            .filter(|m| !std::ptr::eq(m.as_ptr(), which))
            .filter(|m| m.upgrade().is_some_and(|b| is_open(&b)))
            .count();
        let all = others + 1;
        let most = (all * limit.percent as usize / 100).max(1);
        let may = open_now < most && open_now + 1 < all;
        if may {
            open();
        } else {
            self.counts.held_closed.fetch_add(1, Relaxed);
        }
        may
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Breaker>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
