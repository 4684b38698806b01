//! All open connections of one side of a worker: how they are told to end, and what cuts those that are slow or idle.
//!
//! One task of the worker looks at all of them once a second, so that nothing here costs a timer a request. Deliberately
//! elsewhere: the protocol itself and the loop that obeys ([`crate::http::serve`]), floods ([`crate::http::h2_guard`]) and
//! single streams that stand still ([`crate::http::answering`]).

mod standing;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::edges::{Cut, Edges, jittered};
use crate::http::strict::Limits;
use crate::http::upgrade::Tunnel;
use crate::live::Live;

/// The open connections of one side of a worker.
#[derive(Debug, Default)]
pub struct Connections {
    open: Rc<RefCell<HashMap<u64, Rc<Control>>>>,
    next: Cell<u64>,
    state: Cell<State>,
    side: Rc<Side>,
}

/// What all connections of one side have in common.
#[derive(Debug, Default)]
struct Side {
    edges: Edges,
    live: Arc<Live>,
}

impl Connections {
    /// None yet; each will be held to `edges`.
    pub fn new(edges: Edges, live: &Arc<Live>) -> Self {
        Self { side: Rc::new(Side { edges, live: Arc::clone(live) }), ..Self::default() }
    }

    /// Registers a connection for as long as the guard lives.
    pub fn enter(&self) -> Guard {
        let id = self.next.replace(self.next.get() + 1);
        let control = Rc::new(Control::new(self.state.get(), Rc::clone(&self.side)));
        self.open.borrow_mut().insert(id, Rc::clone(&control));
        Guard { id, open: Rc::clone(&self.open), control }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says goodbye on every connection, present and future, and still takes what is under way: the next answer over
    /// HTTP/1.1 is the last, HTTP/2 gets its GOAWAY. Nobody is cut off who has just begun to send.
    pub fn part(&self) {
        self.set(State::Parting);
    }

    /// Lets every connection, present and future, finish what it has and close.
    pub fn end(&self) {
        self.set(State::Ending);
    }

    /// Closes every connection at once.
    pub fn cut(&self) {
        self.set(State::Cut);
    }

    fn set(&self, state: State) {
        self.state.set(state);
        self.open.borrow().values().for_each(|c| c.set(state));
    }

    /// Cuts what is slow, and ends what idles for too long or has lived for long enough. Called once a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.open.borrow().values().for_each(|c| c.look(now));
    }

    /// Makes room where there is none: lets go of what has idled longest, a few at a time.
    pub fn make_room(&self) {
        let now = Instant::now();
        let open = self.open.borrow();
        let idle = |c: &&Rc<Control>| c.busy.get() == 0 && now - c.idle_since.get() > IDLE_UNDER_PRESSURE;
        let mut longest: Vec<_> = open.values().filter(idle).collect();
        longest.sort_unstable_by_key(|c| c.idle_since.get());
        for control in longest.into_iter().take(AT_ONCE) {
            // Whoever has not even sent a head is owed no goodbye.
            let silent = control.head_since.get().is_some();
            control.set(if silent { State::Cut } else { State::Ending });
        }
    }
}

/// An open connection. Dropping it says that it is gone.
#[derive(Debug)]
pub struct Guard {
    id: u64,
    open: Rc<RefCell<HashMap<u64, Rc<Control>>>>,
    /// What the connection itself reads and writes of its state.
    pub(super) control: Rc<Control>,
}

impl Guard {
    /// Says that bytes are passed on and nobody looks for requests in them: there is no head to come, and the connection
    /// is busy for as long as the value lives.
    pub(crate) fn passes_on(&self) -> Passing {
        self.control.http1.set(true);
        Passing(Busy::new(&self.control))
    }

    /// Says that whoever calls has proven to be a sidecar, which has added to what it was sent.
    pub fn is_of_the_mesh(&self) {
        self.control.limits.set(&Limits::MESH);
    }

    /// Keeps the case of HTTP/1 headers. It costs an entry a header, so only those who asked for it pay.
    pub fn keep_header_case(&self) {
        self.control.keep_case.set(true);
    }
}

/// A connection whose bytes are passed on.
#[derive(Debug)]
pub(crate) struct Passing(Busy);

impl Passing {
    /// Done when the connection is to be closed at once.
    pub(crate) async fn cut(&self) {
        std::future::poll_fn(|cx| match self.0.control().poll(cx) {
            State::Cut => Poll::Ready(()),
            _not_yet => Poll::Pending,
        })
        .await;
    }
}

impl Guard {
    /// The connection is opaque from now on: it lives until its side is cut, and whoever serves it watches the time.
    pub fn opaque(&self) {
        self.control.opaque.set(true);
        self.control.busy.set(self.control.busy.get() + 1);
    }

    /// Whether nothing new should be begun on the connection.
    pub fn is_ending(&self) -> bool {
        self.control.state.get() > State::Open
    }

    /// Returns when the connection has to be closed at once.
    pub async fn cut(&self) {
        self.reached(State::Cut).await;
    }

    /// How long the beginning of a request may take to come.
    pub fn head_limit(&self) -> Duration {
        self.control.edges().head
    }

    /// What `work` comes to, unless the connection's side ends before. What was sent in that very moment still counts.
    pub async fn unless_ending<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let ending = async {
            self.reached(State::Ending).await;
            tokio::time::sleep(SILENT_GRACE).await;
        };
        tokio::select! {
            biased;
            worked = work => Some(worked),
            () = ending => None,
        }
    }

    async fn reached(&self, state: State) {
        std::future::poll_fn(|cx| match self.control.poll(cx) {
            now if now >= state => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.borrow_mut().remove(&self.id);
    }
}

/// How far a connection is from its end. It only ever comes closer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It serves.
    #[default]
    Open,
    /// It takes one request more over HTTP/1.1; over HTTP/2 it ends.
    Parting,
    /// It finishes what it has and takes nothing new.
    Ending,
    /// It is closed at once.
    Cut,
}

/// What is known of a connection, and the way to reach the task that serves it.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) state: Cell<State>,
    side: Rc<Side>,
    waker: RefCell<Option<Waker>>,
    pub(super) http1: Cell<bool>,
    /// Its bytes are nobody's to judge: it has limits of its own.
    opaque: Cell<bool>,
    pub(super) busy: Cell<u32>,
    used: Cell<bool>,
    /// Since when a head is coming, and not there.
    pub(super) head_since: Cell<Option<Instant>>,
    idle_since: Cell<Instant>,
    /// When it has lived for long enough.
    old_at: Instant,
    ending_since: Cell<Option<Instant>>,
    /// Since when the peer takes nothing of what is written, and of what is flushed.
    unwritten_since: Cell<Option<Instant>>,
    unflushed_since: Cell<Option<Instant>>,
    /// The longest that an answer on it may stand still.
    patience: Cell<Duration>,
    tails: Tails,
    /// What its heads are held to.
    pub(super) limits: Cell<&'static Limits>,
    /// Whether HTTP/1 headers keep the case they were sent in.
    pub(super) keep_case: Cell<bool>,
    /// Upgraded requests, whose end is nobody's to hurry but the drain's.
    tunnels: Cell<u32>,
    /// Who proved to be at the other end.
    proven: RefCell<Option<standing::Proven>>,
    /// What the connection becomes once its HTTP has ended.
    tunnel: RefCell<Option<Box<Tunnel>>>,
}

/// The last pieces of answers that are finished and wait for the peer's window.
#[derive(Debug, Default)]
pub(super) struct Tails {
    pieces: Cell<u32>,
    moved: Cell<bool>,
    since: Cell<Option<Instant>>,
}

impl Control {
    fn new(state: State, side: Rc<Side>) -> Self {
        let now = Instant::now();
        Self {
            state: Cell::new(state),
            waker: RefCell::default(),
            http1: Cell::new(true),
            opaque: Cell::new(false),
            busy: Cell::new(0),
            used: Cell::new(false),
            // The first head has to come in time, too.
            head_since: Cell::new(Some(now)),
            idle_since: Cell::new(now),
            old_at: now + jittered(side.edges.age),
            ending_since: Cell::new((state > State::Open).then_some(now)),
            unwritten_since: Cell::default(),
            unflushed_since: Cell::default(),
            patience: Cell::new(side.edges.stalled),
            tails: Tails::default(),
            limits: Cell::new(&Limits::EDGE),
            keep_case: Cell::default(),
            tunnels: Cell::default(),
            proven: RefCell::default(),
            tunnel: RefCell::default(),
            side,
        }
    }

    /// What it is held to.
    pub(super) fn edges(&self) -> &Edges {
        &self.side.edges
    }

    pub(super) fn set(&self, state: State) {
        if state > self.state.get() {
            self.state.set(state);
            self.ending_since.set(Some(Instant::now()));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Closes the connection at once and says why.
    pub(super) fn cut(&self, why: Cut) {
        if self.state.get() < State::Cut {
            self.note(why);
            self.set(State::Cut);
        }
    }

    /// Counts a connection that ends before its time.
    pub(super) fn note(&self, why: Cut) {
        self.side.live.counters.cut(why);
        tracing::debug!(reason = why.as_str(), "connection cut");
    }

    /// Notes that the beginning of a head waits for its end, however long ago its bytes came.
    pub(super) fn note_part(&self, waits: bool) {
        if waits && self.busy.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// A stream whose answer stood still is given up.
    pub(super) fn gave_up_stream(&self) {
        self.side.live.counters.stalled_streams.fetch_add(1, Relaxed);
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> State {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.state.get()
    }

    /// Leaves a tunnel for when the connection's HTTP has ended.
    pub(super) fn leave_tunnel(&self, tunnel: Box<Tunnel>) {
        *self.tunnel.borrow_mut() = Some(tunnel);
    }

    /// The tunnel that was left.
    pub(super) fn tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.take()
    }

    /// What came of writing to the peer.
    pub(super) fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        note_blocked(&self.unwritten_since, polled.is_pending());
    }

    /// What came of flushing.
    pub(super) fn flushed(&self, polled: &Poll<io::Result<()>>) {
        note_blocked(&self.unflushed_since, polled.is_pending());
    }

    /// An answer on it may stand still for `limit`.
    pub(super) fn bear(&self, limit: Duration) {
        self.patience.set(self.patience.get().max(limit));
    }

    /// A finished answer has left `pieces` that wait for the peer.
    pub(super) fn leaves(&self, pieces: u32) {
        self.tails.pieces.set(self.tails.pieces.get() + pieces);
        self.tails.moved.set(true);
    }

    /// One of these is written.
    pub(super) fn left(&self) {
        self.tails.pieces.set(self.tails.pieces.get() - 1);
        self.tails.moved.set(true);
    }

    fn look(&self, now: Instant) {
        if self.opaque.get() {
            return;
        }
        let edges = &self.side.edges;
        let over = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| now - since > limit);
        let (busy, http1) = (self.busy.get() > 0, self.http1.get());
        // Over HTTP/2 half a head holds up every other stream.
        if over(self.head_since.get(), edges.head) && !(http1 && busy) {
            return self.cut(Cut::SlowHead);
        }
        let (unwritten, unflushed) = (self.unwritten_since.get(), self.unflushed_since.get());
        let patience = self.patience.get();
        // A stream that stands still is given up first; what is left of finished ones can only go with the connection.
        if over(unwritten, patience) || over(unflushed, patience) || over(self.tails.still(now), patience * 2)
        {
            return self.cut(Cut::SlowReader);
        }
        match self.state.get() {
            State::Open => {
                let idle = if self.used.get() || http1 { edges.idle } else { edges.unused };
                let idles = !busy && over(Some(self.idle_since.get()), idle);
                if idles || (!http1 && now > self.old_at) || self.runs_out(now) {
                    self.set(State::Ending);
                }
            }
            State::Ending if self.tunnels.get() > 0 => {}
            State::Ending => {
                // Counted from when it became idle: what it had in flight has had its own time.
                let since = self.ending_since.get().max((!busy).then_some(self.idle_since.get()));
                if over(since, if busy { edges.finish } else { edges.closing }) {
                    self.cut(Cut::Lingering);
                }
            }
            // Parting lasts a moment only, and the worker ends it.
            State::Parting | State::Cut => {}
        }
    }
}

fn note_blocked(since: &Cell<Option<Instant>>, blocked: bool) {
    if !blocked {
        since.set(None);
    } else if since.get().is_none() {
        since.set(Some(Instant::now()));
    }
}

impl Tails {
    /// Since when none of them moved.
    fn still(&self, now: Instant) -> Option<Instant> {
        if self.pieces.get() == 0 {
            self.since.set(None);
        } else if self.moved.take() || self.since.get().is_none() {
            self.since.set(Some(now));
        }
        self.since.get()
    }
}

/// A request that is being answered, until the end of the answer's body.
#[derive(Debug)]
pub(super) struct Busy(Rc<Control>);

impl Busy {
    pub(super) fn new(control: &Rc<Control>) -> Self {
        control.busy.set(control.busy.get() + 1);
        control.used.set(true);
        if control.http1.get() {
            control.head_since.set(None);
        }
        Self(Rc::clone(control))
    }

    /// The connection it keeps busy.
    pub(super) fn control(&self) -> &Rc<Control> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.0.busy.get() - 1;
        self.0.busy.set(left);
        if left == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// An upgraded request. Its connection waits for it as long as the process does.
#[derive(Debug)]
pub(super) struct TunnelBusy(Busy);

impl TunnelBusy {
    pub(super) fn new(control: &Rc<Control>) -> Self {
        control.tunnels.set(control.tunnels.get() + 1);
        Self(Busy::new(control))
    }
}

impl Drop for TunnelBusy {
    fn drop(&mut self) {
        let tunnels = &self.0.control().tunnels;
        tunnels.set(tunnels.get() - 1);
    }
}

/// How long a connection may idle while others wait for its place.
const IDLE_UNDER_PRESSURE: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 64;

/// How long a connection that was never used is kept when its side ends.
const SILENT_GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
