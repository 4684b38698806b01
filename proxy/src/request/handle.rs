//! The request handle: by it a call of the application is recognised as made for the sake of a request that it is serving.
//!
//! Every request that arrives for the application gets a random handle into its trace context. An application that passes
//! trace context on returns it with its own calls, which then continue the deadline and the count of attempts. Nothing
//! else selects: callers choose their trace ids, but never see a handle, and one that comes in from outside is removed.
//! How it is written in a message is in [`trace_context`].

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use outrigger_mesh::{Longest, Reason};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::http::glance::Glance;
use crate::http::headers;
use crate::request::{deadline, trace_context};
use crate::token::Verified;

/// The requests that the application is serving, by their handles. One for the process: a call may come back through
/// another worker.
#[derive(Debug)]
pub struct Handles {
    shards: Box<[Shard]>,
    found: AtomicU64,
    unknown: AtomicU64,
    full: AtomicU64,
}

/// What is known of a request that the application serves.
#[derive(Clone, Debug)]
struct Entry {
    /// When its caller gives up, whatever happens before.
    end: Option<Instant>,
    /// When its caller gives up unless the head of the answer is there.
    head: Option<Instant>,
    answered: bool,
    /// Which attempt of its caller it is.
    attempt: u32,
    /// As how many attempts a call for its sake was made, where that was more than one.
    made: u32,
    /// Its verified token, which is gone from here with the request.
    token: Option<Arc<Verified>>,
}

impl Default for Handles {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        let (found, unknown, full) = Default::default();
        Self { shards, found, unknown, full }
    }
}

impl Handles {
    /// Gives a request that arrived a handle and writes it into `headers`. What came in there is removed in any case. `None`
    /// where there are too many requests already: then nothing is known of it later.
    pub fn introduce(
        self: &Arc<Self>,
        headers: &mut HeaderMap,
        arrival: &Arrival,
        token: Option<Arc<Verified>>,
    ) -> Option<Held> {
        let made = random::handle().filter(|handle| self.insert(*handle, arrival, token));
        let Some(handle) = made else {
            trace_context::take(headers);
            trace_context::ensure(headers);
            self.full.fetch_add(1, Relaxed);
            return None;
        };
        trace_context::put(headers, handle);
        Some(Held { table: Arc::clone(self), handle })
    }

    /// Notes that a call for the sake of `handle` was tried more than once, or would have been if it could: whoever waits
    /// for the answer is not to try the whole again.
    pub fn tried_again(&self, handle: u128, attempts: u32) {
        self.change(handle, |entry| entry.made = entry.made.max(attempts));
    }

    /// The metrics as text for Prometheus.
    pub fn write(&self, out: &mut String) {
        let held: usize = self.shards.iter().map(|s| s.lock().len()).sum();
        let _ = writeln!(
            out,
            "# HELP outrigger_request_handles Requests that the application is serving.\n\
             # TYPE outrigger_request_handles gauge\noutrigger_request_handles {held}\n\
             # HELP outrigger_request_handle_uses_total Calls of the application that named a handle, and requests for \
             which there was no room.\n# TYPE outrigger_request_handle_uses_total counter"
        );
        for (outcome, count) in [("found", &self.found), ("unknown", &self.unknown), ("full", &self.full)] {
            let count = count.load(Relaxed);
            let _ = writeln!(out, "outrigger_request_handle_uses_total{{outcome=\"{outcome}\"}} {count}");
        }
    }

    fn insert(&self, handle: u128, arrival: &Arrival, token: Option<Arc<Verified>>) -> bool {
        let mut shard = self.shard(handle).lock();
        let room = shard.len() < MOST_IN_SHARD;
        if room {
            let head = arrival.limit.filter(|_| !arrival.body);
            let entry = Entry {
                end: arrival.end,
                head: head.and_then(|limit| arrival.at.checked_add(limit)),
                answered: false,
                attempt: arrival.attempt,
                made: 1,
                token,
            };
            shard.insert(handle, entry);
        }
        room
    }

    fn find(&self, handle: u128) -> Option<Entry> {
        self.shard(handle).lock().get(&handle).cloned()
    }

    fn change(&self, handle: u128, change: impl FnOnce(&mut Entry)) -> Option<Entry> {
        let mut shard = self.shard(handle).lock();
        let entry = shard.get_mut(&handle)?;
        change(entry);
        Some(entry.clone())
    }

    fn shard(&self, handle: u128) -> &Shard {
        #[allow(clippy::cast_possible_truncation, reason = "any bits do")]
        &self.shards[handle as usize % SHARDS]
    }
}

/// What a request brings along that the application's calls for its sake are to continue.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When it came.
    pub at: Instant,
    /// When its caller gives up whatever happens: its `grpc-timeout`.
    pub end: Option<Instant>,
    /// What a peer leaves from the end of the request to the head of the answer.
    pub limit: Option<Duration>,
    /// Whether there is a body, whose end is awaited before `limit` begins to run.
    pub body: bool,
    /// Which attempt of its caller it is, from 1.
    pub attempt: u32,
    /// What it means when `limit` is over: it may be the service's own.
    pub over: Reason,
}

impl Arrival {
    /// Reads what came with a request. Only of a peer that has proven its identity the mesh's own headers count.
    pub fn of(headers: &HeaderMap, seen: Glance, proven: bool, body: bool) -> Self {
        let at = Instant::now();
        let grpc = seen.saw(Glance::CONTENT_TYPE) && headers::is_grpc(headers);
        let grpc = if grpc { deadline::of_grpc_caller(headers) } else { None };
        let proven = proven && seen.saw(Glance::OURS);
        let limit = if proven { deadline::of_mesh_peer(headers) } else { None };
        let attempt = if proven { attempt_of(headers) } else { 1 };
        let over = Reason::Deadline;
        Self { at, end: grpc.and_then(|left| at.checked_add(left)), limit, body, attempt, over }
    }

    /// The same, held to what the service lets anybody have: no caller gets more by saying so, or by saying nothing.
    #[must_use]
    pub fn at_most(self, longest: &Longest, grpc: bool) -> Self {
        let most = if grpc { longest.grpc } else { Some(longest.request) };
        match (self.limit, most) {
            (limit, Some(most)) if limit.is_none_or(|limit| limit > most) => {
                Self { limit: Some(most), over: Reason::TimeoutRequest, ..self }
            }
            _ => self,
        }
    }
}

impl Arrival {
    /// When its caller gives up at the latest, as far as that is known by now.
    pub fn latest(&self) -> Option<Instant> {
        let limit = self.limit.filter(|_| !self.body).and_then(|limit| self.at.checked_add(limit));
        [self.end, limit].into_iter().flatten().min()
    }
}

/// The number of the attempt that a message of a peer names.
pub fn attempt_of(headers: &HeaderMap) -> u32 {
    let named = headers.get(headers::ATTEMPT).and_then(|v| v.to_str().ok()?.parse().ok());
    named.map_or(1, |n: u32| n.clamp(1, MOST_ATTEMPTS))
}

/// A handle while its request lasts. Dropped, it means nothing any more.
pub struct Held {
    table: Arc<Handles>,
    handle: u128,
}

impl Held {
    /// To be told when the body has ended, from when on the caller's `limit` runs.
    pub fn at_body_end(&self, limit: Duration) -> BodyEnd {
        BodyEnd { table: Arc::clone(&self.table), handle: self.handle, limit }
    }

    /// The head of the answer is there, and with it the limit over it is met. As how many attempts calls were made for its
    /// sake, where that was more than one.
    pub fn answered(&self) -> Option<u32> {
        let entry = self.table.change(self.handle, |entry| entry.answered = true)?;
        (entry.made > 1).then_some(entry.made)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.table.shard(self.handle).lock().remove(&self.handle);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(..)")
    }
}

/// Waits for the end of a request's body.
pub struct BodyEnd {
    table: Arc<Handles>,
    handle: u128,
    limit: Duration,
}

impl BodyEnd {
    /// It came at `at`.
    pub fn came(self, at: Instant) {
        self.table.change(self.handle, |entry| entry.head = at.checked_add(self.limit));
    }
}

impl fmt::Debug for BodyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyEnd").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// For whose sake the application makes a call: the request it is serving, or nobody that is known.
#[derive(Clone)]
pub struct Sake {
    /// When the call came.
    pub since: Instant,
    /// When its caller gives up.
    pub end: Option<Instant>,
    /// Which attempt the request that is served was.
    pub attempt: u32,
    /// The verified token of that request.
    pub token: Option<Arc<Verified>>,
    /// That request.
    handle: Option<u128>,
}

impl Sake {
    /// Takes the handle out of the `headers` of a call that came at `since`: it leaves the process only towards the application.
    pub fn of(handles: &Handles, headers: &mut HeaderMap, (seen, since): (Glance, Instant)) -> Self {
        let grpc = seen.saw(Glance::CONTENT_TYPE) && headers::is_grpc(headers);
        let grpc = if grpc { deadline::of_grpc_caller(headers) } else { None };
        let mut sake = Self {
            since,
            end: grpc.and_then(|left| since.checked_add(left)),
            attempt: 1,
            token: None,
            handle: None,
        };
        let handle = if seen.saw(Glance::TRACE) { trace_context::take(headers) } else { None };
        let Some(handle) = handle else { return sake };
        let Some(entry) = handles.find(handle) else {
            handles.unknown.fetch_add(1, Relaxed);
            return sake;
        };
        handles.found.fetch_add(1, Relaxed);
        let head = entry.head.filter(|_| !entry.answered);
        sake.end = [sake.end, entry.end, head].into_iter().flatten().min();
        (sake.attempt, sake.handle, sake.token) = (entry.attempt, Some(handle), entry.token);
        sake
    }

    /// A call that is made for nobody's sake.
    pub fn nobodys() -> Self {
        Self { since: Instant::now(), end: None, attempt: 1, token: None, handle: None }
    }

    /// Whether there is anybody to tell of what comes of it.
    pub fn is_somebodys(&self) -> bool {
        self.handle.is_some()
    }

    /// Tells the request that is served that a call for its sake was tried as often as that.
    pub fn tried_again(&self, handles: &Handles, attempts: u32) {
        if let Some(handle) = self.handle {
            handles.tried_again(handle, attempts);
        }
    }

    /// Something that has to be waited for before the call is on its way, within its time.
    pub async fn wait<T>(
        &self,
        awaited: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        match self.end {
            None => awaited.await,
            Some(end) => timeout_at(end, awaited)
                .await
                .unwrap_or_else(|_| Err(Error::refused(Reason::Deadline, "the caller's deadline is over"))),
        }
    }
}

impl fmt::Debug for Sake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Sake");
        told.field("since", &self.since).field("end", &self.end).field("attempt", &self.attempt);
        told.field("known", &self.handle.is_some()).finish_non_exhaustive()
    }
}

/// Its own line of the cache: a busy neighbour costs it nothing.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<HashMap<u128, Entry, BuildHasherDefault<AsItIs>>>);

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("handles", &self.lock().len()).finish_non_exhaustive()
    }
}

impl Shard {
    /// Held for one look-up, never across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Entry, BuildHasherDefault<AsItIs>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles are random: they are their own hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "takes the upper half")]
    fn write_u128(&mut self, number: u128) {
        self.0 = (number >> 64) as u64;
    }
}

/// Numbers that nobody guesses, drawn from the system some at a time.
mod random {
    use std::cell::RefCell;

    use rustix::rand::{GetRandomFlags, getrandom};

    struct Drawn {
        bytes: [u8; 256],
        used: usize,
    }

    thread_local! {
        static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; 256], used: 256 }) };
    }

    /// A new handle; `None` where the system has no randomness.
    pub(super) fn handle() -> Option<u128> {
        DRAWN.with_borrow_mut(|drawn| {
            if drawn.used == drawn.bytes.len() {
                // Up to 256 bytes come at once or not at all.
                let all = getrandom(&mut drawn.bytes, GetRandomFlags::empty()).ok()?;
                drawn.used = drawn.bytes.len().saturating_sub(all / 16 * 16);
                if all < drawn.bytes.len() {
                    drawn.bytes.copy_within(..all / 16 * 16, drawn.used);
                }
            }
            let next = drawn.bytes.get_mut(drawn.used..drawn.used + 16)?;
            let handle = u128::from_ne_bytes(next.try_into().ok()?);
            // What is in use stands in the table alone.
            next.fill(0);
            drawn.used += 16;
            Some(handle)
        })
    }
}

const SHARDS: usize = 64;
/// 65,536 in all: more than a sidecar has connections.
const MOST_IN_SHARD: usize = 1_024;
/// No policy allows more.
const MOST_ATTEMPTS: u32 = 99;

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(limit: Option<u64>, body: bool) -> Arrival {
        let limit = limit.map(Duration::from_secs);
        Arrival { at: Instant::now(), end: None, limit, body, attempt: 2, over: Reason::Deadline }
    }

    /// What the application's call finds that returns the trace context of `headers`.
    fn call(handles: &Handles, headers: &HeaderMap) -> Sake {
        Sake::of(handles, &mut headers.clone(), (Glance::at(headers), Instant::now()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_continues_the_deadline_and_the_attempt_until_the_request_has_ended() {
        let (handles, mut headers) = (Arc::new(Handles::default()), HeaderMap::new());
        let held = handles.introduce(&mut headers, &arrival(Some(3), false), None).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let found = call(&handles, &headers);
        assert_eq!((found.end, found.attempt), (Some(Instant::now() + Duration::from_secs(2)), 2));
        found.tried_again(&handles, 3);
        assert_eq!(held.answered(), Some(3), "the answer is marked");
        assert_eq!((call(&handles, &headers).end, call(&handles, &headers).attempt), (None, 2));
        drop(held);
        let after = call(&handles, &headers);
        assert_eq!((after.end, after.attempt, after.handle), (None, 1, None));
        assert!(handles.shards.iter().all(|s| s.lock().is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_runs_from_the_end_of_the_body() {
        let (handles, mut headers) = (Arc::new(Handles::default()), HeaderMap::new());
        let held = handles.introduce(&mut headers, &arrival(Some(3), true), None).unwrap();
        let end = held.at_body_end(Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(call(&handles, &headers).end, None);
        end.came(Instant::now());
        assert_eq!(call(&handles, &headers).end, Some(Instant::now() + Duration::from_secs(3)));
    }

    #[tokio::test]
    async fn what_was_guessed_or_came_from_outside_gives_nothing() {
        let (handles, mut victim) = (Arc::new(Handles::default()), HeaderMap::new());
        let _victim = handles.introduce(&mut victim, &arrival(Some(3), false), None).unwrap();
        // Another caller sends the victim's whole trace context: it gets a handle of its own.
        let mut other = victim.clone();
        let own = Arrival { attempt: 1, limit: None, ..arrival(None, false) };
        let _other = handles.introduce(&mut other, &own, None).unwrap();
        assert_eq!(other["traceparent"], victim["traceparent"]);
        assert_ne!(other["tracestate"], victim["tracestate"]);
        let found = call(&handles, &other);
        assert_eq!((found.end, found.attempt), (None, 1));
        for guess in 0..10_000_u128 {
            let mut headers = HeaderMap::new();
            trace_context::put(&mut headers, guess);
            assert!(call(&handles, &headers).handle.is_none());
        }
    }

    #[tokio::test]
    async fn a_handle_is_printed_nowhere() {
        let (handles, mut headers) = (Arc::new(Handles::default()), HeaderMap::new());
        let held = handles.introduce(&mut headers, &arrival(Some(3), false), None).unwrap();
        let end = held.at_body_end(Duration::from_secs(3));
        let sake = call(&handles, &headers);
        let handle = sake.handle.unwrap();
        let all = format!("{held:?} {end:?} {sake:?} {handles:?}");
        assert!(!all.contains(&handle.to_string()) && !all.contains(&format!("{handle:x}")), "{all}");
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_what_finds_no_room_carries_no_handle() {
        let handles = Arc::new(Handles::default());
        let mut held = Vec::new();
        for _ in 0..SHARDS * MOST_IN_SHARD * 2 {
            let mut headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("tracestate"),
                http::HeaderValue::from_static("or=1"),
            )]);
            if let Some(handle) = handles.introduce(&mut headers, &arrival(None, false), None) {
                held.push(handle);
                continue;
            }
            let parent = headers.remove("traceparent").unwrap();
            assert!(parent.to_str().unwrap().ends_with("-00"), "no trace begins in the middle: {parent:?}");
            assert!(headers.is_empty());
        }
        assert_eq!(held.len(), SHARDS * MOST_IN_SHARD);
        held.clear();
        assert!(handles.introduce(&mut HeaderMap::new(), &arrival(None, false), None).is_some());
    }
}
