//! A bulkhead: how many requests may be under way at once, how many may wait for a place, and for how long.
//!
//! The numbers are exact over all workers. A place is taken and given back by one atomic step while nobody waits; the
//! queue has a lock, which is held for no longer than it takes to put somebody in or take somebody out. What a bulkhead
//! stands before, and what becomes of those it refuses, is in `places`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_mesh::Bulkhead as Settings;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Places for requests that are under way, and for streams that have become long-lived.
#[derive(Debug)]
pub struct Bulkhead {
    /// Those in flight in the lower half, those waiting in the upper: whoever gives a place back sees in the same step
    /// whether somebody waits for it, so that nobody is forgotten.
    state: AtomicU64,
    limit: AtomicU32,
    max_queue: AtomicU32,
    queue_timeout_ms: AtomicU64,
    streams: AtomicU32,
    max_streams: AtomicU32,
    rejected: AtomicU64,
    queue: Mutex<Queue>,
}

impl Bulkhead {
    /// An empty one.
    pub fn new(settings: Settings, max_streams: u32) -> Arc<Self> {
        let bulkhead = Self {
            state: AtomicU64::new(0),
            limit: AtomicU32::new(0),
            max_queue: AtomicU32::new(0),
            queue_timeout_ms: AtomicU64::new(0),
            streams: AtomicU32::new(0),
            max_streams: AtomicU32::new(0),
            rejected: AtomicU64::new(0),
            queue: Mutex::default(),
        };
        let bulkhead = Arc::new(bulkhead);
        bulkhead.configure(settings, max_streams);
        bulkhead
    }

    /// The settings of one in which nobody waits.
    pub fn no_queue(limit: u32) -> Settings {
        Settings { max_in_flight: limit, max_queue: 0, ..Settings::default() }
    }

    /// Changes the limits. Whoever is inside stays inside, whoever waits goes on waiting, and those for whom there is
    /// room now come in.
    pub fn configure(self: &Arc<Self>, settings: Settings, max_streams: u32) {
        let ms = u64::try_from(settings.queue_timeout.as_millis()).unwrap_or(u64::MAX);
        self.max_queue.store(settings.max_queue, Relaxed);
        self.queue_timeout_ms.store(ms, Relaxed);
        self.max_streams.store(max_streams, Relaxed);
        if self.limit.swap(settings.max_in_flight, AcqRel) < settings.max_in_flight {
            while let Some(next) = self.admit_one() {
                self.hand_over(next);
            }
        }
    }

    /// Whether these limits hold already. Cheap enough to ask at each request.
    pub fn is_configured(&self, settings: &Settings) -> bool {
        self.limit.load(Relaxed) == settings.max_in_flight
            && self.max_queue.load(Relaxed) == settings.max_queue
            && u128::from(self.queue_timeout_ms.load(Relaxed)) == settings.queue_timeout.as_millis()
    }

    /// A place, if there is one now and nobody waits for it. Being refused here is not counted.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let limit = self.limit.load(Relaxed);
        let taken = self.state.fetch_update(AcqRel, Relaxed, |state| {
            let (in_flight, queued) = halves(state);
            (in_flight < limit && queued == 0).then_some(state + 1)
        });
        taken.is_ok().then(|| Permit { bulkhead: Arc::clone(self), stream: false })
    }

    /// A place, waited for no longer than the queue allows, nor past `deadline`.
    pub async fn enter(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Permit, Full> {
        match self.try_enter() {
            Some(permit) => Ok(permit),
            // Boxed: rare, and no part of every other request's future.
            None => Box::pin(self.wait(deadline)).await.inspect_err(|_| {
                self.rejected.fetch_add(1, Relaxed);
            }),
        }
    }

    /// A place for what is long-lived from its beginning.
    pub fn enter_stream(self: &Arc<Self>) -> Result<Permit, Full> {
        if self.take_stream() {
            return Ok(Permit { bulkhead: Arc::clone(self), stream: true });
        }
        self.rejected.fetch_add(1, Relaxed);
        Err(Full::Streams { limit: self.max_streams.load(Relaxed) })
    }

    /// Whether another request would find a place.
    pub fn has_room(&self) -> bool {
        halves(self.state.load(Relaxed)).0 < self.limit.load(Relaxed)
    }

    /// Counts somebody who was turned away without having asked here.
    pub fn count_rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    /// What is going on.
    pub fn gauges(&self) -> Gauges {
        let (in_flight, queued) = halves(self.state.load(Acquire));
        Gauges {
            in_flight,
            queued,
            limit: self.limit.load(Relaxed),
            streams: self.streams.load(Relaxed),
            max_streams: self.max_streams.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
        }
    }

    async fn wait(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Permit, Full> {
        let began = Instant::now();
        let mut ticket = match self.queue_up(began)? {
            Queued::Inside(permit) => return Ok(permit),
            Queued::Waits(ticket) => ticket,
        };
        let patience = Duration::from_millis(self.queue_timeout_ms.load(Relaxed));
        let end = began.checked_add(patience);
        let until = [end, deadline].into_iter().flatten().min();
        let came = match until {
            Some(until) => timeout_at(until, &mut ticket.place).await,
            None => Ok((&mut ticket.place).await),
        };
        match came {
            Ok(Ok(permit)) => Ok(permit),
            // The other end is gone: somebody newer has taken the place in the queue.
            Ok(Err(_)) => Err(Full::Displaced { waited: began.elapsed() }),
            Err(_) if deadline.is_some_and(|d| d <= Instant::now()) => {
                Err(Full::Deadline { waited: began.elapsed() })
            }
            Err(_) => Err(Full::TimedOut { waited: began.elapsed() }),
        }
    }

    /// A place in the queue, or one inside after all.
    fn queue_up(self: &Arc<Self>, now: Instant) -> Result<Queued, Full> {
        let (sender, place) = oneshot::channel();
        let mut queue = self.queue();
        let waits = |id| Ok(Queued::Waits(Ticket { bulkhead: Arc::clone(self), id, place }));
        // Read under the lock: whoever raises it takes the lock afterwards.
        let limit = self.limit.load(Relaxed);
        let full = queue.waiting.len() >= self.max_queue.load(Relaxed) as usize;
        if full && queue.is_overloaded(now, self.target()) {
            // What is oldest is given up for what is new. As many wait as before.
            let (displaced, id) = queue.displace(sender, now);
            drop(queue);
            // Not under the lock: it wakes somebody.
            drop(displaced);
            return waits(id);
        }
        let mut state = self.state.load(Acquire);
        loop {
            let (in_flight, queued) = halves(state);
            let next = match (in_flight < limit && queued == 0, full) {
                (true, _) => state + 1,
                (false, false) => state + WAITING,
                (false, true) => return Err(Full::Queue { limit, waiting: queue.waiting.len() }),
            };
            match self.state.compare_exchange_weak(state, next, AcqRel, Acquire) {
                Err(now) => state = now,
                Ok(_) if next == state + 1 => {
                    return Ok(Queued::Inside(Permit { bulkhead: Arc::clone(self), stream: false }));
                }
                Ok(_) => break,
            }
        }
        waits(queue.push(sender, now))
    }

    /// Gives a place back, or over to somebody who waits.
    fn leave(self: &Arc<Self>) {
        let given = self
            .state
            .fetch_update(AcqRel, Acquire, |state| (halves(state).1 == 0).then_some(state.wrapping_sub(1)));
        if given.is_ok() {
            return;
        }
        let next = {
            let mut queue = self.queue();
            let room = halves(self.state.load(Acquire)).0 <= self.limit.load(Relaxed);
            let next = if room { queue.pop(Instant::now(), self.target()) } else { None };
            // Whoever comes in takes over the place; else it is free.
            self.state.fetch_sub(if next.is_some() { WAITING } else { 1 }, AcqRel);
            next
        };
        if let Some(next) = next {
            self.hand_over(next);
        }
    }

    /// Lets in one who waits, if there is room.
    fn admit_one(self: &Arc<Self>) -> Option<oneshot::Sender<Permit>> {
        let mut queue = self.queue();
        let limit = self.limit.load(Relaxed);
        if queue.waiting.is_empty() || halves(self.state.load(Acquire)).0 >= limit {
            return None;
        }
        let next = queue.pop(Instant::now(), self.target())?;
        // While somebody waits, places are given back and taken under this lock only.
        self.state.fetch_add(1, AcqRel);
        self.state.fetch_sub(WAITING, AcqRel);
        Some(next)
    }

    /// Gives a place that is counted already to whoever waits at `next`. Where he has gone in this very moment the
    /// permit comes back and is dropped, which gives the place to the one after him.
    fn hand_over(self: &Arc<Self>, next: oneshot::Sender<Permit>) {
        drop(next.send(Permit { bulkhead: Arc::clone(self), stream: false }));
    }

    fn take_stream(&self) -> bool {
        let max = self.max_streams.load(Relaxed);
        let taken = self.streams.fetch_update(AcqRel, Relaxed, |n| (n < max).then_some(n + 1));
        taken.is_ok()
    }

    /// How long the queue may be non-empty before that is an overload.
    fn target(&self) -> Duration {
        Duration::from_millis((self.queue_timeout_ms.load(Relaxed) / 10).max(1))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a bulkhead: given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    bulkhead: Arc<Bulkhead>,
    stream: bool,
}

impl Permit {
    /// From now on it is a long-lived stream, if there is a place for one.
    pub fn become_stream(&mut self) -> Result<(), Full> {
        if !self.stream {
            if !self.bulkhead.take_stream() {
                return Err(Full::Streams { limit: self.bulkhead.max_streams.load(Relaxed) });
            }
            self.stream = true;
            self.bulkhead.leave();
        }
        Ok(())
    }

    /// Whether it is that of a long-lived stream.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Where the place is.
    pub fn bulkhead(&self) -> &Arc<Bulkhead> {
        &self.bulkhead
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.stream {
            self.bulkhead.streams.fetch_sub(1, AcqRel);
        } else {
            self.bulkhead.leave();
        }
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Nobody more may wait.
    Queue {
        /// How many may be in flight.
        limit: u32,
        /// How many wait.
        waiting: usize,
    },
    /// The longest time in the queue is over.
    TimedOut {
        /// How long that was.
        waited: Duration,
    },
    /// The request's own time is over.
    Deadline {
        /// How long it has waited.
        waited: Duration,
    },
    /// In an overload a newer request got the place in the queue.
    Displaced {
        /// How long it has waited.
        waited: Duration,
    },
    /// There are as many long-lived streams as there may be.
    Streams {
        /// How many there may be.
        limit: u32,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue { limit, waiting: 0 } => write!(f, "{limit} requests are in flight"),
            Self::Queue { limit, waiting } => write!(f, "{limit} requests are in flight and {waiting} wait"),
            Self::TimedOut { waited } => write!(f, "no place in {} ms", waited.as_millis()),
            Self::Deadline { waited } => {
                write!(f, "no place in {} ms, and the request's time is over", waited.as_millis())
            }
            Self::Displaced { waited } => {
                write!(f, "no place in {} ms, and newer requests go first", waited.as_millis())
            }
            Self::Streams { limit } => write!(f, "{limit} long-lived streams are open"),
        }
    }
}

/// What is going on in a bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is its own word")]
pub struct Gauges {
    pub in_flight: u32,
    pub queued: u32,
    pub limit: u32,
    pub streams: u32,
    pub max_streams: u32,
    pub rejected: u64,
}

enum Queued {
    Inside(Permit),
    Waits(Ticket),
}

/// A place in the queue: given up when it is dropped.
#[derive(Debug)]
struct Ticket {
    bulkhead: Arc<Bulkhead>,
    id: u64,
    place: oneshot::Receiver<Permit>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.bulkhead.queue();
        let gone = queue.remove(self.id);
        if gone.is_some() {
            self.bulkhead.state.fetch_sub(WAITING, AcqRel);
        }
        drop(queue);
        // Where it was let in meanwhile, the receiver drops the permit, or its sender gets it back.
    }
}

/// Those who wait, the oldest first.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
    next: u64,
    /// Since when somebody waits without a break.
    since: Option<Instant>,
}

impl Queue {
    fn push(&mut self, sender: oneshot::Sender<Permit>, now: Instant) -> u64 {
        self.since.get_or_insert(now);
        self.next += 1;
        self.waiting.push_back((self.next, sender));
        self.next
    }

    /// Puts one in where the oldest was.
    fn displace(
        &mut self,
        sender: oneshot::Sender<Permit>,
        now: Instant,
    ) -> (Option<oneshot::Sender<Permit>>, u64) {
        let oldest = self.waiting.pop_front().map(|(_, sender)| sender);
        (oldest, self.push(sender, now))
    }

    /// The oldest; in an overload the newest, since the others have most of their time behind them.
    fn pop(&mut self, now: Instant, target: Duration) -> Option<oneshot::Sender<Permit>> {
        let overloaded = self.is_overloaded(now, target);
        let next = if overloaded { self.waiting.pop_back() } else { self.waiting.pop_front() };
        self.settle();
        next.map(|(_, sender)| sender)
    }

    fn remove(&mut self, id: u64) -> Option<oneshot::Sender<Permit>> {
        let at = self.waiting.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let gone = self.waiting.remove(at);
        self.settle();
        gone.map(|(_, sender)| sender)
    }

    fn is_overloaded(&self, now: Instant, target: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) > target)
    }

    fn settle(&mut self) {
        if self.waiting.is_empty() {
            self.since = None;
        }
    }
}

/// In flight, and waiting.
#[allow(clippy::cast_possible_truncation, reason = "takes the halves apart")]
fn halves(state: u64) -> (u32, u32) {
    (state as u32, (state >> 32) as u32)
}

/// One who waits, in the state.
const WAITING: u64 = 1 << 32;

#[cfg(test)]
mod tests;
