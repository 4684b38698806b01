//! From the application into the mesh, without looking at the bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_mesh::{Hop, Port, Reason, Side};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::attempt::endpoint_breaker::{self, of_error};
use crate::attempt::opaque::OpaqueStream;
use crate::attempt::pool::OpaqueGuard;
use crate::breaker::Outcome;
use crate::error::{Error, Who};
use crate::http::connections::Guard;
use crate::listen::own_calls::OwnCall;
use crate::live::{EndpointLive, LiveService, Millis};
use crate::request::affinity::Affinity;
use crate::request::choose::{Aim, choose};
use crate::request::decided::Decided;
use crate::request::retry;
use crate::request::service_breaker::Shut;
use crate::request::told::{awaits, told};
use crate::tcp::relay::{Ahead, End, Limits, relay};
use crate::tcp::{IDLE, cut_on_close, end_on_close};
use crate::telemetry::metrics::Traffic;
use crate::telemetry::observe::{Direction, Note};
use crate::telemetry::ports::{Ended, PortStats};
use crate::worker::Worker;

/// What a connection is for.
#[derive(Clone, Debug)]
pub struct Called {
    /// The service.
    pub service: Arc<LiveService>,
    /// Its port.
    pub port: Port,
    /// The one instance that is meant, if it was called by the address of one: it or nobody.
    pub instance: Option<SocketAddr>,
}

/// Carries a connection of the application to an endpoint of what it calls, to its end.
pub async fn serve(worker: &Worker, mut client: TcpStream, guard: Guard, called: &Called) {
    cut_on_close(&client);
    guard.opaque();
    let Called { service, port, .. } = called;
    let stats = worker.shared.live.ports.handle(Side::Client, &service.name, port.number.get());
    let note = worker.shared.live.observe.note(Direction::Outbound);
    let note = note.as_deref();
    note.inspect(|note| note.is_opaque());
    let carried = async {
        // Boxed: what it takes to connect would stay part of the connection for its whole life.
        match Box::pin(dial(worker, called, note)).await {
            Ok(upstream) => {
                if upstream.carry(&mut client, Bytes::new(), &stats, note).await {
                    end_on_close(&client);
                }
            }
            Err(error) => {
                note.inspect(|note| note.failed(&error));
                worker.shared.live.refusals.by_caller(&service.name, error.reason);
                refuse(worker, &stats, &error);
            }
        }
    };
    tokio::select! {
        biased;
        () = guard.cut() => {}
        () = carried => {}
    }
}

/// Counts and tells a refusal. The client is told by a reset: there is no other word that every protocol knows.
pub fn refuse(worker: &Worker, stats: &PortStats, error: &Error) {
    stats.refused(error.reason);
    worker.shared.live.counters.refused(error.reason, Hop::Client);
    tracing::info!(%error, "opaque connection refused");
}

/// A connection to an endpoint, which counts as its load for as long as it lives, or to a place outside.
#[derive(Debug)]
pub struct Upstream {
    stream: OpaqueStream,
    /// How long it may be silent.
    idle: Duration,
    /// How long it may go on in all.
    stream_limit: Option<Duration>,
    _held: Held,
}

/// What ends with a connection.
#[derive(Debug)]
#[allow(dead_code, reason = "held, and dropped")]
enum Held {
    Load(InFlight, Option<OpaqueGuard>),
    OwnCall(OwnCall),
}

impl Upstream {
    /// A connection to a place outside the mesh.
    pub(super) fn outside(stream: TcpStream, call: OwnCall, idle: Duration) -> Self {
        cut_on_close(&stream);
        Self { stream: OpaqueStream::Plain(stream), idle, stream_limit: None, _held: Held::OwnCall(call) }
    }

    /// Passes bytes between it and `caller`, of which `ahead` was already read, to the end. Says whether both have ended
    /// as they should; else the caller must not see an end.
    pub async fn carry<A>(
        mut self,
        caller: &mut A,
        ahead: Bytes,
        stats: &Arc<PortStats>,
        note: Option<&Note>,
    ) -> bool
    where
        A: AsyncRead + AsyncWrite + Unpin,
    {
        let opened = stats.opened();
        let until = self.stream_limit.and_then(|limit| Instant::now().checked_add(limit));
        let (limits, ahead) =
            (Limits { idle: self.idle, until }, Ahead { from_a: ahead, from_b: Bytes::new() });
        let outcome = relay(caller, &mut self.stream, ahead, limits, &stats.flow).await;
        opened.end(Ended::of(&outcome));
        note.inspect(|note| note.ended(Ended::of(&outcome), outcome.a_to_b, outcome.b_to_a));
        let finished = matches!(outcome.end, End::Finished);
        if finished {
            self.stream.end_on_close();
        } else {
            tracing::debug!(?outcome, "opaque connection cut");
        }
        finished
    }
}

/// Connects to an endpoint. Nothing has been sent while this fails, so that another endpoint is tried for
/// as long as the service's retry rule and its budget allow.
pub async fn dial(worker: &Worker, called: &Called, note: Option<&Note>) -> Result<Upstream, Error> {
    let began = Instant::now();
    let service = &called.service;
    note.inspect(|note| note.to(&service.name, None));
    let passes = service.breakers.enter(&service.name, None, None, Millis::now()).map_err(Shut::refuse)?;
    match attempts(worker, called, note).await {
        Ok(upstream) => {
            service.breakers.leave(passes, Outcome::Success(began.elapsed()), Millis::now());
            Ok(upstream)
        }
        Err(Lost { error, at }) => {
            service.breakers.leave_failed(passes, &error);
            at.as_ref().unwrap_or(&service.traffic).record(false, began.elapsed());
            Err(error)
        }
    }
}

/// Why there is no connection.
struct Lost {
    error: Error,
    /// Where it is counted, if the endpoint of the last attempt failed.
    at: Option<Arc<Traffic>>,
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self { error, at: None }
    }
}

async fn attempts(worker: &Worker, called: &Called, note: Option<&Note>) -> Result<Upstream, Lost> {
    let &Called { ref service, port, instance } = called;
    worker.shared.live.overload.check()?;
    let unknown = || Error::refused(Reason::UnknownService, format!("{} is not known", service.name));
    let snapshot = service.snapshot.load_full().ok_or_else(unknown)?;
    let caller = worker.shared.live.identity();
    let plan = snapshot.opaque(port.number, caller.as_deref()).ok_or_else(|| {
        Error::refused(Reason::NoRoute, format!("no route of {} is for such a connection", service.name))
    })?;
    if awaits(plan) {
        told(worker, plan).await?;
    }
    let affinity = &Affinity::of_connection(&snapshot.service.policy, caller.as_deref());
    let decided = &Decided::of_connection(plan, &snapshot, caller.as_deref());
    let aim = Aim { service, snapshot: &snapshot, plan, port, instance, decided, affinity };
    service.budget.deposit(Millis::now());
    let (chance, mut tried, mut attempt) = (fastrand::u64(..), Vec::new(), 1);
    loop {
        let chosen = choose(worker, aim, chance, &tried).await?;
        note.inspect(|note| note.tries(attempt, &chosen.view.endpoint, chosen.place.address));
        let load = InFlight::new(&chosen.place.endpoint);
        let (mut pass, began) = (chosen.pass.take(), Instant::now());
        let error = match worker.mesh.opaque(&chosen.place).await {
            Ok((stream, open)) => {
                let outcome = Outcome::Success(began.elapsed());
                endpoint_breaker::note(&chosen.place.endpoint, &mut pass, outcome);
                chosen.view.live.traffic.record(true, began.elapsed());
                let idle = plan.timeouts.idle.unwrap_or(IDLE);
                let stream_limit = plan.timeouts.stream;
                return Ok(Upstream { stream, idle, stream_limit, _held: Held::Load(load, open) });
            }
            Err(error) => error,
        };
        note.inspect(|note| note.attempt_failed(&error));
        endpoint_breaker::note(&chosen.place.endpoint, &mut pass, of_error(&error, false));
        drop(load);
        tried.push(chosen.place.endpoint.id);
        let counters = &worker.shared.live.counters;
        let at = error.is_upstream().then(|| Arc::clone(&chosen.view.live.traffic));
        if !error.unprocessed || error.who == Who::Us || attempt > plan.retry.retries {
            return Err(Lost { error, at });
        }
        if !service.budget.withdraw(&plan.retry, Millis::now()) {
            counters.retries_over_budget.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Err(Lost { error, at });
        }
        at.inspect(|at| at.unanswered());
        counters.retries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        sleep(retry::backoff(&plan.retry, attempt, fastrand::f64())).await;
        attempt += 1;
    }
}

/// One connection more at an endpoint.
#[derive(Debug)]
pub(super) struct InFlight(Arc<EndpointLive>);

impl InFlight {
    pub(super) fn new(endpoint: &Arc<EndpointLive>) -> Self {
        endpoint.load.begin();
        Self(Arc::clone(endpoint))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.load.end();
    }
}
