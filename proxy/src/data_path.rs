//! The data path as a whole: ports, worker threads, and their end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use outrigger_mesh::{Hop, Host, Reason};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::attempt::health;
use crate::drain::Phase;
use crate::gateway::{self, ports::PortChange};
use crate::listen::bind::Taking;
use crate::listen::callers::Callers;
use crate::listen::{accept, bind, intercepted};
use crate::live::Live;
use crate::settings::Transparent;
use crate::telemetry::metrics::Counters;
use crate::worker::{Shared, Worker};
use crate::{inbound, outbound};
use outrigger_process::panics;

/// The ports to listen at.
#[derive(Clone, Debug)]
pub struct Ports {
    /// For the application's calls.
    pub outbound: SocketAddr,
    /// For calls from the mesh; `None` for a client only.
    pub inbound: Option<SocketAddr>,
    /// For calls from the mesh to further ports of the application.
    pub mapped: Vec<SocketAddr>,
    /// Services with a port of their own, on the outbound address. Port 0 is the system's choice.
    pub upstreams: Vec<(Host, u16)>,
    /// Whether redirected connections come to `outbound` and `inbound`, and how.
    pub transparent: Transparent,
}

/// Ports that are bound, with nobody accepting yet.
#[derive(Debug)]
pub struct Listening {
    /// Where the application calls.
    pub outbound: SocketAddr,
    /// Where the application's redirected calls of the other family of addresses arrive.
    outbound_too: Option<SocketAddr>,
    /// Where the mesh calls.
    pub inbound: Option<SocketAddr>,
    /// Where the mesh calls further ports of the application.
    pub mapped: Vec<SocketAddr>,
    /// Where services with a port of their own are called.
    pub upstreams: Vec<(Host, SocketAddr)>,
    workers: Vec<Sockets>,
}

/// The sockets of one worker.
#[derive(Debug, Default)]
struct Sockets {
    outbound: Vec<(std::net::TcpListener, Option<Host>)>,
    /// Each with its place in [`Shared::applications`].
    inbound: Vec<(std::net::TcpListener, usize)>,
    /// Whose calls of the outbound side are taken, if not everybody's.
    callers: Option<Arc<Callers>>,
    /// Redirected connections come to the listeners that stand for no service of their own, and to the first inbound ones.
    intercepting: bool,
    /// The ports of a gateway, which come and go with what is pushed.
    gateway: Option<mpsc::Receiver<PortChange>>,
}

impl Listening {
    /// Binds every port once for each of `workers`. An error names the address.
    pub fn bind(ports: &Ports, workers: usize) -> Result<Self, BindError> {
        let intercepting = ports.transparent != Transparent::Off;
        let mut all: Vec<Sockets> = Vec::new();
        all.resize_with(workers.max(1), || Sockets { intercepting, ..Sockets::default() });
        let mut add_taking =
            |address: SocketAddr, taking: Taking, put: &dyn Fn(&mut Sockets, std::net::TcpListener)| {
                let bound = bind::bind_taking(address, taking, workers)
                    .map_err(|source| BindError { address, source })?;
                for (sockets, listener) in all.iter_mut().zip(bound.listeners) {
                    put(sockets, listener);
                }
                Ok(bound.address)
            };
        let arriving = Taking { any_address: ports.transparent == Transparent::Tproxy, only_v6: false };
        let outbound = add_taking(ports.outbound, Taking::default(), &|s, l| s.outbound.push((l, None)))?;
        let inbound = match ports.inbound {
            None => None,
            Some(address) => Some(add_taking(address, arriving, &|s, l| s.inbound.push((l, 0)))?),
        };
        let mut outbound_too = None;
        if intercepting {
            // The kernel redirects within a family.
            if let Some(other) = other_family(outbound) {
                outbound_too = Some(other);
                add_taking(other, Taking::default(), &|s, l| s.outbound.push((l, None)))?;
            }
            if let Some(other) = inbound.and_then(other_family) {
                let taking = Taking { only_v6: true, ..arriving };
                add_taking(other, taking, &|s, l| s.inbound.push((l, 0)))?;
            }
        }
        let mut add = |address, put: &dyn Fn(&mut Sockets, std::net::TcpListener)| {
            add_taking(address, Taking::default(), put)
        };
        let mut mapped = Vec::new();
        for (place, address) in ports.mapped.iter().enumerate() {
            mapped.push(add(*address, &|s, l| s.inbound.push((l, place + 1)))?);
        }
        let ip: IpAddr = ports.outbound.ip();
        let mut upstreams = Vec::new();
        for (host, port) in &ports.upstreams {
            let bound = add((ip, *port).into(), &|s, l| s.outbound.push((l, Some(host.clone()))))?;
            upstreams.push((host.clone(), bound));
        }
        Ok(Self { outbound, outbound_too, inbound, mapped, upstreams, workers: all })
    }

    /// Every address at which applications are served: nothing is ever sent there.
    pub fn own_ports(&self) -> Vec<SocketAddr> {
        [self.outbound]
            .into_iter()
            .chain(self.outbound_too)
            .chain(self.upstreams.iter().map(|(_, a)| *a))
            .collect()
    }

    /// Takes calls of the application from nobody else.
    pub fn take_only(&mut self, callers: Callers) {
        let callers = Arc::new(callers);
        self.workers.iter_mut().for_each(|sockets| sockets.callers = Some(Arc::clone(&callers)));
    }

    /// The way to tell each worker of a gateway's ports.
    pub fn gateway(&mut self) -> Vec<mpsc::Sender<PortChange>> {
        let tell = |sockets: &mut Sockets| {
            let (sender, receiver) = mpsc::channel(PORT_CHANGES);
            sockets.gateway = Some(receiver);
            sender
        };
        self.workers.iter_mut().map(tell).collect()
    }

    /// Starts the workers. They end with [`Phase::Ended`], or when the sender of `phases` is gone.
    pub fn start(self, shared: &Arc<Shared>, phases: &watch::Receiver<Phase>) -> io::Result<DataPath> {
        let accepting = Arc::new(Accepting::default());
        let mut threads = vec![health::start(shared, phases)?];
        for (number, sockets) in self.workers.into_iter().enumerate() {
            let (shared, phases, accepting) = (Arc::clone(shared), phases.clone(), Arc::clone(&accepting));
            let name = format!("worker-{number}");
            let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
                let runtime =
                    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
                shared.live.runtimes.run(name, runtime.handle());
                let life = AssertUnwindSafe(|| runtime.block_on(run(sockets, shared, phases, accepting)));
                catch_unwind(life).unwrap_or_else(|_| {
                    panics::fell("worker");
                    Err(io::Error::other("a worker panicked"))
                })
            })?;
            threads.push(thread);
        }
        Ok(DataPath { shared: Arc::clone(shared), accepting, threads })
    }
}

/// The address at which redirected connections of the other family arrive: loopback beside loopback, all beside all.
/// `None` where there is none, or where the host has no IPv6.
fn other_family(address: SocketAddr) -> Option<SocketAddr> {
    let other: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED.into(),
        IpAddr::V4(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_loopback() => return Some((Ipv4Addr::LOCALHOST, address.port()).into()),
        // A listener at all addresses of IPv6 takes IPv4, too.
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    std::net::UdpSocket::bind((other, 0)).is_ok().then_some((other, address.port()).into())
}

/// A port that can not be had.
#[derive(Debug, thiserror::Error)]
#[error("can not listen at {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// What the system said.
    pub fn reason(&self) -> &io::Error {
        &self.source
    }
}

/// The running workers.
pub struct DataPath {
    shared: Arc<Shared>,
    accepting: Arc<Accepting>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl DataPath {
    /// What tells when a side has become idle.
    pub fn idle(&self) -> Idle {
        Idle { shared: Arc::clone(&self.shared), accepting: Arc::clone(&self.accepting) }
    }

    /// Waits for the workers to end. Blocks: not for a runtime's thread.
    pub fn join(self) -> io::Result<()> {
        self.threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(ended) => ended,
            Err(_) => Err(io::Error::other("a worker panicked")),
        })
    }
}

/// Tells when a side has become idle.
#[derive(Clone)]
pub struct Idle {
    shared: Arc<Shared>,
    accepting: Arc<Accepting>,
}

impl Idle {
    /// Returns once the inbound ports are closed and no connection from the mesh is open.
    pub async fn inbound(&self) {
        let counters = &self.shared.live.counters;
        until(|| self.accepting.inbound.load(SeqCst) == 0 && counters.inbound_connections.load(SeqCst) == 0)
            .await;
    }

    /// Returns once the application has gone: no connection of it is open and none has come for a moment. The ports stay
    /// open until then, as it may need another service for its last answer.
    pub async fn outbound(&self) {
        let counters = &self.shared.live.counters;
        let quiet = || counters.outbound_connections.load(SeqCst) == 0;
        loop {
            until(quiet).await;
            let spoke_again = timeout(QUIET, until(|| !quiet())).await.is_ok();
            if !spoke_again {
                return;
            }
        }
    }
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many loops still accept from the mesh, or from the public at a gateway.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    inbound: AtomicUsize,
}

impl Accepting {
    /// Counts a loop for as long as the answer lives.
    pub(crate) fn begins(self: &Arc<Self>) -> AcceptLoop {
        self.inbound.fetch_add(1, SeqCst);
        AcceptLoop(Arc::clone(self))
    }
}

/// A loop that accepts.
#[derive(Debug)]
pub(crate) struct AcceptLoop(Arc<Accepting>);

impl Drop for AcceptLoop {
    fn drop(&mut self) {
        self.0.inbound.fetch_sub(1, SeqCst);
    }
}

const QUIET: Duration = Duration::from_millis(200);

/// The life of a worker.
async fn run(
    sockets: Sockets,
    shared: Arc<Shared>,
    phases: watch::Receiver<Phase>,
    accepting: Arc<Accepting>,
) -> io::Result<()> {
    let worker = Worker::new(shared);
    let intercepting = sockets.intercepting;
    for (listener, place) in sockets.inbound {
        let Some(application) = worker.shared.applications.get(place).cloned() else { continue };
        let listener = TcpListener::from_std(listener)?;
        let listening = (intercepting && place == 0).then(|| listener.local_addr()).transpose()?;
        let (worker, phases, accepts) = (Rc::clone(&worker), phases.clone(), accepting.begins());
        tokio::task::spawn_local(async move {
            let live = Arc::clone(&worker.shared.live);
            let take = |stream, guard| {
                let (worker, open) = (Rc::clone(&worker), Gauge::new(&live, |c| &c.inbound_connections));
                let application = match listening {
                    None => Some(Arc::clone(&application)),
                    Some(listening) => intercepted::application(&worker, &stream, listening, &application),
                };
                tokio::task::spawn_local(async move {
                    let (_open, Some(application)) = (open, application) else { return };
                    inbound::serve(worker, stream, guard, application).await;
                });
            };
            let closing = reached(phases, Phase::InboundClosing);
            accept::accept(listener, &worker.inbound, live.inbound_side(), closing, take).await;
            drop(accepts);
        });
    }
    for (listener, fixed) in sockets.outbound {
        let listener = TcpListener::from_std(listener)?;
        let at = listener.local_addr()?;
        let listening = (intercepting && fixed.is_none()).then_some(at);
        let (worker, phases, callers) = (Rc::clone(&worker), phases.clone(), sockets.callers.clone());
        tokio::task::spawn_local(async move {
            let (live, fixed) = (Arc::clone(&worker.shared.live), fixed.map(Rc::new));
            let take = |stream, guard| {
                if let Some(Err(why)) = callers.as_ref().map(|callers| callers.admit(&stream, at)) {
                    live.counters.refused(Reason::AuthzDenied, Hop::Client);
                    tracing::info!(why, "refused a connection at the outbound side");
                    return;
                }
                let (worker, fixed) = (Rc::clone(&worker), fixed.clone());
                let open = Gauge::new(&live, |c| &c.outbound_connections);
                tokio::task::spawn_local(async move {
                    let _open = open;
                    match listening {
                        None => outbound::serve(worker, stream, guard, fixed).await,
                        Some(listening) => intercepted::serve(worker, stream, guard, listening).await,
                    }
                });
            };
            let closing = reached(phases, Phase::Ended);
            accept::accept(listener, &worker.outbound, live.outbound_side(), closing, take).await;
        });
    }
    if let (Some(changes), Some(edge)) = (sockets.gateway, worker.shared.edge.clone()) {
        tokio::task::spawn_local(gateway::serve::run(
            Rc::clone(&worker),
            edge,
            changes,
            phases.clone(),
            accepting,
        ));
    }
    tokio::task::spawn_local(Rc::clone(&worker).housekeeping());
    // Dropping the runtime afterwards drops every task, and with them whatever was left open.
    follow(&worker, phases).await;
    Ok(())
}

/// Passes each phase on to the open connections, until the last.
async fn follow(worker: &Worker, mut phases: watch::Receiver<Phase>) {
    loop {
        let phase = *phases.borrow_and_update();
        if phase >= Phase::InboundClosing {
            worker.inbound.part();
        }
        if phase >= Phase::InboundClosed {
            worker.inbound.cut();
        }
        if phase >= Phase::OutboundClosing {
            worker.outbound.part();
        }
        if phase >= Phase::Ended {
            return;
        }
        let changed = tokio::select! {
            changed = phases.changed() => changed,
            () = tokio::time::sleep(PARTING), if parting(phase) => {
                // Whoever has not sent anything since is not about to.
                let side = if phase == Phase::InboundClosing { &worker.inbound } else { &worker.outbound };
                side.end();
                phases.changed().await
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

fn parting(phase: Phase) -> bool {
    matches!(phase, Phase::InboundClosing | Phase::OutboundClosing)
}

/// How long a connection that idles gets to notice that it should go. A peer that has chosen it just now sends within
/// that time, and does not lose what it sends.
const PARTING: Duration = Duration::from_millis(500);

/// Done when `phase` has been reached, or there is nobody left to say so.
async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    let _gone = phases.wait_for(|now| *now >= phase).await;
}

/// Counts an open connection.
pub(crate) struct Gauge {
    live: Arc<Live>,
    of: fn(&Counters) -> &AtomicU64,
}

impl Gauge {
    /// One from outside of this workload: of the mesh, or of the public at a gateway.
    pub(crate) fn inbound(live: &Arc<Live>) -> Self {
        Self::new(live, |c| &c.inbound_connections)
    }

    fn new(live: &Arc<Live>, of: fn(&Counters) -> &AtomicU64) -> Self {
        of(&live.counters).fetch_add(1, SeqCst);
        Self { live: Arc::clone(live), of }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        (self.of)(&self.live.counters).fetch_sub(1, SeqCst);
    }
}

/// Changes of ports that a worker has not looked at yet.
const PORT_CHANGES: usize = 64;
