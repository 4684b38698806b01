//! The connections of one worker, kept by endpoint.
//!
//! HTTP/1.1: a stack of idle connections, the latest used first. HTTP/2: few connections with many streams, a new one
//! when all are full. Everything is bounded: connections, streams on each, waiters, the time a connection may idle, and
//! its age: one that is old takes nothing new and is closed when what it has is done.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use outrigger_certs::{MeshConnector, Peer, TrustStore};
use outrigger_mesh::{Reason, ServiceName};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::attempt::connect::{self, Proven, SendH1, SendH2, Tls};
use crate::attempt::opaque::OpaqueStream;
use crate::attempt::place::{Place, Proof, Secured};
use crate::attempt::share::{self, Group};
use crate::attempt::tether::Tethers;
use crate::error::{Error, Who};
use crate::http::edges::jittered;
use crate::live::{EndpointLive, Live};
use crate::quick::BuildQuick;

/// The connections of one worker.
pub struct Pool {
    live: Arc<Live>,
    connector: Option<MeshConnector>,
    entries: RefCell<HashMap<Key, Rc<Entry>, BuildQuick>>,
    limits: Limits,
    /// The number of the worker.
    worker: usize,
    groups: RefCell<HashMap<ServiceName, Rc<Group>>>,
    tethers: Tethers,
}

/// How much a pool may hold for one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// HTTP/1.1 connections, in use and idle.
    pub http1: usize,
    /// HTTP/1.1 connections kept while idle.
    pub idle: usize,
    /// HTTP/2 connections.
    pub http2: usize,
    /// Streams on an HTTP/2 connection.
    pub streams: usize,
    /// Requests waiting for a connection.
    pub waiters: usize,
    /// How long a connection may idle.
    pub idle_for: Duration,
    /// How long a connection takes requests, a tenth more or less.
    pub age: Duration,
}

impl Limits {
    /// Towards other sidecars, which keep idle connections for longer than we do.
    pub const MESH: Self = Self {
        http1: 256,
        idle: 128,
        http2: 8,
        // Fewer than a sidecar allows, so that none has to be refused.
        streams: 100,
        waiters: 1_024,
        idle_for: Duration::from_secs(60),
        age: Duration::from_hours(1),
    };
    /// Towards the application. Many servers close what idles for 5 s: we must be the first to let go.
    pub const APPLICATION: Self = Self { http1: 1_024, idle_for: Duration::from_secs(4), ..Self::MESH };
}

/// The endpoint's id stands for its uid and everything that was pushed of its address; the port tells the ports of one
/// endpoint apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    endpoint: u64,
    port: u16,
    secured: std::mem::Discriminant<Secured>,
}

impl Pool {
    /// An empty pool. Without a `connector` only plaintext can be reached.
    pub fn new(live: Arc<Live>, connector: Option<MeshConnector>, limits: Limits) -> Self {
        let (entries, groups) = (RefCell::default(), RefCell::default());
        Self { live, connector, entries, limits, worker: 0, groups, tethers: Tethers::default() }
    }

    /// The pool of worker number `worker`, which has its share of what is limited.
    #[must_use]
    pub fn of_worker(self, worker: usize) -> Self {
        Self { worker, ..self }
    }

    /// How many HTTP/1.1 connections to `place` are in use by this worker.
    pub fn in_use(&self, place: &Place) -> usize {
        self.entries
            .borrow()
            .get(&key(place))
            .map_or(0, |e| e.open.get().saturating_sub(e.idle.borrow().len()))
    }

    /// A connection over HTTP/1.1, idle or new.
    pub async fn http1(&self, place: &Place) -> Result<Lease, Error> {
        let entry = self.entry(place);
        loop {
            if let Some(conn) = entry.pop_idle(place) {
                return Ok(Lease { kind: Kind::H1(entry, conn), reused: true });
            }
            if entry.open.get() >= self.limits.http1 {
                entry.h1_waiters.wait(self.limits.waiters).await?;
                continue;
            }
            let Err(group) = self.room(place, &entry) else { break };
            group.waiters.wait(self.limits.waiters).await?;
        }
        let open = OpenGuard::new(&entry);
        // Boxed: a handshake is rare and large, and would weigh on the future of every request.
        let made = Box::pin(connect::http1(place, self.tls(place)?)).await;
        let (sender, proven) = self.counted(made)?;
        let (idle_since, old_at) = (Instant::now(), self.old_at(proven.as_ref()));
        let conn =
            H1 { sender, proof: Proof::of(place, proven.map(|p| p.peer)), idle_since, old_at, _open: open };
        Ok(Lease { kind: Kind::H1(entry, Box::new(conn)), reused: false })
    }

    /// A stream's place on a connection over HTTP/2, which may be shared.
    pub async fn http2(&self, place: &Place) -> Result<Lease, Error> {
        let entry = self.entry(place);
        loop {
            if let Some(conn) = entry.shared(place, self.limits.streams) {
                return Ok(Lease { kind: Kind::H2(StreamGuard::new(&entry, &conn)), reused: true });
            }
            if entry.dialing.get() || entry.h2.borrow().len() >= self.limits.http2 {
                entry.h2_waiters.wait(self.limits.waiters).await?;
                continue;
            }
            let Err(group) = self.room(place, &entry) else { break };
            group.waiters.wait(self.limits.waiters).await?;
        }
        let dialing = DialGuard::new(&entry);
        let made = Box::pin(connect::http2(place, self.tls(place)?)).await;
        let (sender, proven) = self.counted(made).inspect_err(|e| dialing.failed(e))?;
        let (idle_since, old_at) = (Cell::new(Instant::now()), self.old_at(proven.as_ref()));
        let (proof, streams) = (Proof::of(place, proven.map(|p| p.peer)), Cell::new(0));
        let conn = Rc::new(H2 { sender, proof, streams, idle_since, old_at });
        entry.h2.borrow_mut().push(Rc::clone(&conn));
        Ok(Lease { kind: Kind::H2(StreamGuard::new(&entry, &conn)), reused: false })
    }

    /// A connection of its own, for bytes that nobody looks into.
    /// It counts as open for as long as the guard lives. At a limit it is refused: nobody can tell for how long.
    pub async fn opaque(&self, place: &Place) -> Result<(OpaqueStream, Option<OpaqueGuard>), Error> {
        let open = match &place.limited {
            None => None,
            Some(of) => {
                let entry = self.entry(place);
                self.room(place, &entry).map_err(|_| {
                    let why = format!("{} has as many connections as it may have", of.service.name);
                    Error::refused(Reason::BulkheadFull, why)
                })?;
                Some(OpaqueGuard::new(&entry))
            }
        };
        let made = connect::opaque(place, self.tls(place)?).await;
        Ok((self.counted(made)?, open))
    }

    /// Whether another connection may be made; where not, with whom to wait for the end of one.
    fn room(&self, place: &Place, entry: &Rc<Entry>) -> Result<(), Rc<Group>> {
        let Some(of) = &place.limited else { return Ok(()) };
        let (name, limits) = (&of.service.name, of.connections);
        let known = self.groups.borrow().get(name).map(Rc::clone);
        let group = known.unwrap_or_else(|| {
            let group = Group::new(name, limits, &self.live, self.worker);
            self.groups.borrow_mut().insert(name.clone(), Rc::clone(&group));
            group
        });
        entry.group.replace(Some(Rc::clone(&group)));
        let all = self.entries.borrow();
        let at_endpoint = all.values().filter(|e| Arc::ptr_eq(&e.endpoint, &entry.endpoint));
        let of_service = all.values().filter(|e| e.is_of(&group));
        let room = |limit: Option<u32>, entries: &mut dyn FnMut(usize) -> bool| {
            limit.is_none_or(|limit| entries(share::of_worker(limit, &self.live, self.worker)))
        };
        let endpoint = room(limits.per_endpoint, &mut |most| share::make_room(at_endpoint.clone(), most));
        if endpoint && room(limits.per_service, &mut |most| share::make_room(of_service.clone(), most)) {
            return Ok(());
        }
        drop(all);
        Err(group)
    }

    /// Lets go of what idled for too long, of endpoints that are gone, and of peers whose certificate has run out.
    /// Called once in a while.
    pub fn sweep(&self) {
        self.tethers.sweep();
        let (now, wall) = (Instant::now(), SystemTime::now());
        // Those who wait look again, whatever may have ended unseen.
        self.groups.borrow().values().for_each(|group| group.waiters.wake_all(|| Woken::Look));
        self.groups.borrow_mut().retain(|_, group| Rc::strong_count(group) > 1);
        self.entries.borrow_mut().retain(|_, entry| {
            let gone = entry.endpoint.removed.load(Relaxed);
            let limit = if gone { Duration::ZERO } else { self.limits.idle_for };
            let stale = |since: Instant, proof: &Proof| now - since >= limit || proof.has_expired(wall);
            entry
                .idle
                .borrow_mut()
                .retain(|c| !stale(c.idle_since, &c.proof) && !c.sender.is_closed() && now < c.old_at);
            entry.h2.borrow_mut().retain(|c| {
                let idle = c.streams.get() == 0 && stale(c.idle_since.get(), &c.proof);
                // One that is closed or old, or whose peer's certificate has run out, takes no new stream. It is closed
                // when its last stream is over.
                !idle && !c.sender.is_closed() && !c.proof.has_expired(wall) && now < c.old_at
            });
            Rc::strong_count(entry) > 1 || entry.open.get() > 0 || !entry.h2.borrow().is_empty()
        });
    }

    /// Cuts every connection whose peer `trust` does not believe any more.
    pub fn judge(&self, trust: &TrustStore) {
        self.tethers.judge(trust);
    }

    /// When a connection takes nothing new: at its age, or for the sake of a certificate.
    fn old_at(&self, proven: Option<&Proven>) -> Instant {
        let aged = Instant::now() + jittered(self.limits.age);
        proven.map_or(aged, |proven| aged.min(proven.ends_at))
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.entries.borrow().values().map(|e| e.open.get() + e.h2.borrow().len()).sum()
    }

    fn entry(&self, place: &Place) -> Rc<Entry> {
        let key = key(place);
        if let Some(entry) = self.entries.borrow().get(&key) {
            return Rc::clone(entry);
        }
        let entry = Rc::new(Entry::new(Arc::clone(&place.endpoint), self.limits.idle));
        self.entries.borrow_mut().insert(key, Rc::clone(&entry));
        entry
    }

    fn tls<'a>(&'a self, place: &'a Place) -> Result<Option<Tls<'a>>, Error> {
        let nobody = |why| Err(Error::not_sent(Reason::TlsFailed, why));
        match (&place.secured, &self.connector, &place.resolved) {
            (Secured::No, _, _) => Ok(None),
            (Secured::Mesh(service), Some(connector), _) => {
                let (tether, expected) = (self.tethers.tie(), &service.service.identities[..]);
                Ok(Some(Tls::Mesh { connector, expected, tether }))
            }
            (Secured::Mesh(_), None, _) => nobody("this sidecar has no identity"),
            (Secured::Outside(outside), _, Some(resolved)) => {
                let name = outside.name.as_ref().unwrap_or(&resolved.name);
                Ok(Some(Tls::Outside { connector: &outside.connector, name }))
            }
            (Secured::Outside(_), _, None) => nobody("nobody knows what the server should prove to be"),
        }
    }

    fn counted<T>(&self, made: Result<T, Error>) -> Result<T, Error> {
        let counters = &self.live.counters;
        let counter = if made.is_ok() { &counters.connects } else { &counters.connect_failures };
        counter.fetch_add(1, Relaxed);
        if made.as_ref().is_err_and(|e| e.reason == Reason::Overloaded) {
            // Another attempt may have the descriptor of what only idles.
            self.entries.borrow().values().for_each(|entry| entry.idle.borrow_mut().clear());
        }
        made
    }
}

fn key(place: &Place) -> Key {
    Key {
        endpoint: place.endpoint.id,
        port: place.address.port(),
        secured: std::mem::discriminant(&place.secured),
    }
}

/// Those who wait for a connection, in order.
#[derive(Debug, Default)]
pub(super) struct Waiters(RefCell<VecDeque<oneshot::Sender<Woken>>>);

/// What a waiter is told.
#[derive(Debug)]
enum Woken {
    /// Something was given back, which is no promise that it is still there.
    Look,
    /// The connection that was being made could not be made.
    Failed(Reason, Who, String),
}

impl Waiters {
    async fn wait(&self, limit: usize) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiters = self.0.borrow_mut();
            if waiters.len() >= limit {
                waiters.retain(|w| !w.is_closed());
            }
            if waiters.len() >= limit {
                return Err(Error::refused(Reason::BulkheadFull, "too many requests wait for a connection"));
            }
            waiters.push_back(sender);
        }
        match receiver.await {
            Ok(Woken::Failed(reason, who, detail)) => Err(Error { who, ..Error::not_sent(reason, detail) }),
            Ok(Woken::Look) | Err(_) => Ok(()),
        }
    }

    fn wake_one(&self) {
        if self.0.borrow().is_empty() {
            return;
        }
        let mut waiters = self.0.borrow_mut();
        // Those who gave up waiting are passed over.
        while waiters.pop_front().is_some_and(|w| w.send(Woken::Look).is_err()) {}
    }

    fn wake_all(&self, with: impl Fn() -> Woken) {
        for waiter in self.0.borrow_mut().drain(..) {
            let _gave_up = waiter.send(with());
        }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    endpoint: Arc<EndpointLive>,
    keep: usize,
    #[allow(clippy::vec_box, reason = "they go with each request and come back, and would be copied")]
    idle: RefCell<Vec<Box<H1>>>,
    open: Cell<usize>,
    h2: RefCell<Vec<Rc<H2>>>,
    dialing: Cell<bool>,
    /// Opaque connections, where their number is limited.
    opaque: Cell<usize>,
    /// With whom it shares a limit.
    group: RefCell<Option<Rc<Group>>>,
    h1_waiters: Waiters,
    h2_waiters: Waiters,
}

impl Entry {
    fn new(endpoint: Arc<EndpointLive>, keep: usize) -> Self {
        Self {
            endpoint,
            keep,
            idle: RefCell::default(),
            open: Cell::new(0),
            h2: RefCell::default(),
            dialing: Cell::new(false),
            opaque: Cell::new(0),
            group: RefCell::default(),
            h1_waiters: Waiters::default(),
            h2_waiters: Waiters::default(),
        }
    }

    /// How many connections there are, those that are being made included.
    pub(super) fn connections(&self) -> usize {
        self.h2.borrow_mut().retain(|c| !c.sender.is_closed());
        self.open.get() + self.opaque.get() + self.h2.borrow().len() + usize::from(self.dialing.get())
    }

    /// Closes a connection that nobody uses, if there is one.
    pub(super) fn close_idle(&self) -> bool {
        let h1 = if self.idle.borrow().is_empty() { None } else { Some(self.idle.borrow_mut().remove(0)) };
        if h1.is_some() {
            return true;
        }
        let mut all = self.h2.borrow_mut();
        let unused = all.iter().position(|c| c.streams.get() == 0);
        unused.map(|at| all.remove(at)).is_some()
    }

    fn is_of(&self, group: &Rc<Group>) -> bool {
        self.group.borrow().as_ref().is_some_and(|own| Rc::ptr_eq(own, group))
    }

    /// A connection has ended, or is free: those who wait for a share look again.
    fn wake_group(&self) {
        if let Some(group) = &*self.group.borrow() {
            group.waiters.wake_all(|| Woken::Look);
        }
    }

    fn pop_idle(&self, place: &Place) -> Option<Box<H1>> {
        loop {
            let conn = self.idle.borrow_mut().pop()?;
            if !conn.sender.is_closed() && conn.proof.holds(place) {
                return Some(conn);
            }
        }
    }

    fn shared(&self, place: &Place, streams: usize) -> Option<Rc<H2>> {
        let mut all = self.h2.borrow_mut();
        if all.iter().any(|c| c.sender.is_closed() || !c.proof.holds(place)) {
            all.retain(|c| !c.sender.is_closed() && c.proof.holds(place));
        }
        all.iter().find(|c| c.streams.get() < streams).map(Rc::clone)
    }
}

#[derive(Debug)]
struct H1 {
    sender: SendH1,
    proof: Proof,
    idle_since: Instant,
    old_at: Instant,
    _open: OpenGuard,
}

#[derive(Debug)]
struct H2 {
    sender: SendH2,
    proof: Proof,
    streams: Cell<usize>,
    idle_since: Cell<Instant>,
    old_at: Instant,
}

/// A connection while a request uses it. Dropped without [`Lease::give_back`] it is closed.
#[derive(Debug)]
pub struct Lease {
    kind: Kind,
    reused: bool,
}

#[derive(Debug)]
enum Kind {
    /// The whole of an HTTP/1.1 connection, and where it goes back to.
    H1(Rc<Entry>, Box<H1>),
    /// A stream of an HTTP/2 connection.
    H2(StreamGuard),
}

impl Lease {
    /// Whether an earlier request used the connection: it may have died since.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// What sends.
    pub fn sender(&mut self) -> Sender<'_> {
        match &mut self.kind {
            Kind::H1(_, conn) => Sender::H1(&mut conn.sender),
            Kind::H2(stream) => Sender::H2(stream.conn.sender.clone()),
        }
    }

    /// Who is at the other end, where it proved that.
    pub fn peer(&self) -> Option<&Peer> {
        match &self.kind {
            Kind::H1(_, conn) => conn.proof.peer(),
            Kind::H2(stream) => stream.conn.proof.peer(),
        }
    }

    /// The exchange is over on both sides: the connection can serve another.
    pub fn give_back(self) {
        let Kind::H1(entry, mut conn) = self.kind else { return };
        let gone = entry.endpoint.removed.load(Relaxed);
        let now = Instant::now();
        let old = now >= conn.old_at;
        if !gone && !old && !conn.sender.is_closed() && entry.idle.borrow().len() < entry.keep {
            conn.idle_since = now;
            entry.idle.borrow_mut().push(conn);
            entry.h1_waiters.wake_one();
            entry.wake_group();
        }
    }
}

/// What sends a request.
pub enum Sender<'a> {
    /// Over HTTP/1.1.
    H1(&'a mut SendH1),
    /// Over HTTP/2.
    H2(SendH2),
}

/// Counts an open HTTP/1.1 connection.
#[derive(Debug)]
struct OpenGuard(std::rc::Weak<Entry>);

impl OpenGuard {
    fn new(entry: &Rc<Entry>) -> Self {
        entry.open.set(entry.open.get() + 1);
        Self(Rc::downgrade(entry))
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        // Weak, since idle connections lie in the entry itself.
        if let Some(entry) = self.0.upgrade() {
            entry.open.set(entry.open.get() - 1);
            entry.h1_waiters.wake_one();
            entry.wake_group();
        }
    }
}

/// Counts an open connection whose bytes nobody looks into.
#[derive(Debug)]
pub struct OpaqueGuard(Rc<Entry>);

impl OpaqueGuard {
    fn new(entry: &Rc<Entry>) -> Self {
        entry.opaque.set(entry.opaque.get() + 1);
        Self(Rc::clone(entry))
    }
}

impl Drop for OpaqueGuard {
    fn drop(&mut self) {
        self.0.opaque.set(self.0.opaque.get() - 1);
        self.0.wake_group();
    }
}

/// Counts a stream of an HTTP/2 connection.
#[derive(Debug)]
struct StreamGuard {
    entry: Rc<Entry>,
    conn: Rc<H2>,
}

impl StreamGuard {
    fn new(entry: &Rc<Entry>, conn: &Rc<H2>) -> Self {
        conn.streams.set(conn.streams.get() + 1);
        Self { entry: Rc::clone(entry), conn: Rc::clone(conn) }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let left = self.conn.streams.get() - 1;
        self.conn.streams.set(left);
        if left == 0 {
            self.conn.idle_since.set(Instant::now());
            self.entry.wake_group();
        }
        self.entry.h2_waiters.wake_one();
    }
}

/// Says that an HTTP/2 connection is being made. Whatever comes of it, those who wait are told.
struct DialGuard(Rc<Entry>);

impl DialGuard {
    fn new(entry: &Rc<Entry>) -> Self {
        entry.dialing.set(true);
        Self(Rc::clone(entry))
    }

    /// Everybody who waited for this connection fails with it, instead of trying one after the other.
    fn failed(&self, error: &Error) {
        self.0.h2_waiters.wake_all(|| Woken::Failed(error.reason, error.who, error.detail.to_string()));
    }
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        self.0.dialing.set(false);
        self.0.wake_group();
        self.0.h2_waiters.wake_all(|| Woken::Look);
    }
}

#[cfg(test)]
mod tests;
