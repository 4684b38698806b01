//! From the mesh to the application, without looking at the bytes.

use std::rc::Rc;
use std::time::{Duration, Instant};

use outrigger_certs::Peer;
use outrigger_mesh::{Hop, Reason, Side, Timeouts, TrafficKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attempt::connect;
use crate::error::Error;
use crate::http::connections::Guard;
use crate::live::Millis;
use crate::policy::access::Asks;
use crate::tcp::greeting::Greeting;
use crate::tcp::outbound::InFlight;
use crate::tcp::relay::{Ahead, End, Limits, relay};
use crate::tcp::{IDLE, cut_on_close, end_on_close};
use crate::telemetry::observe::{Direction, Note};
use crate::telemetry::ports::Ended;
use crate::worker::{Application, Worker};

/// Carries a connection of another sidecar to the application. `permitted` says whether the port takes such ones.
pub async fn from_mesh<IO>(
    worker: &Worker,
    mut caller: IO,
    guard: Guard,
    (application, port): (&Application, u16),
    peer: &Peer,
    permitted: bool,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let asks = Asks::new(&worker.shared.live.access, application, Some(peer.id()));
    let note = noted(worker, application, Some(peer));
    let note = note.as_deref();
    let carried = async {
        let connected = match (permitted, guard.is_ending()) {
            (false, _) => Err(Error::refused(
                Reason::NoRoute,
                "the port is for HTTP: it is declared so, or its service wants tokens",
            )),
            (true, true) => Err(Error::refused(Reason::Draining, "the instance is ending")),
            (true, false) => Box::pin(to_application(worker, application, Some(peer), &asks, note)).await,
        };
        let said = match &connected {
            Ok(_) => Greeting::Ready,
            Err(error) => Greeting::refusing(error.reason),
        };
        let told = timeout(TELLING, said.say(&mut caller)).await.is_ok_and(|said| said.is_ok());
        match connected {
            Ok(connected) if told => {
                // The caller's sidecar knows how long the service allows silence; there is no second opinion.
                let limits = Limits::idle(Duration::MAX);
                carry(worker, &mut caller, connected, (application, port), limits, (&asks, note)).await;
            }
            Ok(_) => {}
            Err(error) => refuse(worker, application, port, &error, (&asks, note)),
        }
    };
    guard.opaque();
    tokio::select! {
        biased;
        () = guard.cut() => {}
        () = carried => {}
    }
}

/// Carries a connection in plaintext, where those are allowed.
pub async fn from_anybody(
    worker: &Worker,
    mut caller: TcpStream,
    guard: Guard,
    (application, port): (&Application, u16),
) {
    cut_on_close(&caller);
    guard.opaque();
    let asks = Asks::new(&worker.shared.live.access, application, None);
    let note = noted(worker, application, None);
    let note = note.as_deref();
    let carried = async {
        match Box::pin(to_application(worker, application, None, &asks, note)).await {
            Ok(connected) => {
                let limits = Limits::idle(IDLE);
                if carry(worker, &mut caller, connected, (application, port), limits, (&asks, note)).await {
                    end_on_close(&caller);
                }
            }
            Err(error) => refuse(worker, application, port, &error, (&asks, note)),
        }
    };
    tokio::select! {
        biased;
        () = guard.cut() => {}
        () = carried => {}
    }
}

/// A note of an opaque connection, where there is an access log.
fn noted(worker: &Worker, application: &Application, peer: Option<&Peer>) -> Option<Rc<Note>> {
    let note = worker.shared.live.observe.note(Direction::Inbound)?;
    note.is_opaque();
    note.of(peer.map(Peer::id));
    note.to(&application.service, application.version.as_ref());
    Some(note)
}

fn refuse(
    worker: &Worker,
    application: &Application,
    port: u16,
    error: &Error,
    (asks, note): (&Asks, Option<&Note>),
) {
    note.inspect(|note| note.failed(error));
    worker.shared.live.ports.handle(Side::Server, &application.service, port).refused(error.reason);
    worker.shared.live.counters.refused(error.reason, Hop::Server);
    worker.shared.live.refusals.by_service(&application.service, asks.caller(), error.reason);
    tracing::info!(%error, service = %application.service, port, "opaque connection refused");
}

/// A connection to the application, and its place in the application's load.
async fn to_application(
    worker: &Worker,
    application: &Application,
    peer: Option<&Peer>,
    asks: &Asks,
    note: Option<&Note>,
) -> Result<(TcpStream, InFlight), Error> {
    let (live, began) = (&worker.shared.live, Instant::now());
    live.overload.check()?;
    asks.check_connection(live, worker.shared.registry.inbound().as_ref(), note)?;
    let address = application.address;
    let made = if worker.shared.own_ports.contains(address) {
        Err(Error::refused(Reason::LoopDetected, "the application's address is this sidecar's own"))
    } else {
        let late =
            |_| Err(Error::not_sent(Reason::ConnectFailed, format!("{address} did not answer in time")));
        timeout(Timeouts::CONNECT, connect::tcp(address)).await.unwrap_or_else(late)
    };
    let traffic = live.traffic.handle(&TrafficKey {
        side: Side::Server,
        service: application.service.clone(),
        version: application.version.clone(),
        caller: peer.map(|p| p.id().clone()),
    });
    traffic.record(made.is_ok(), began.elapsed());
    let stream = made.inspect_err(|_| application.live.load.failed(Millis::now(), fastrand::u64(..)))?;
    cut_on_close(&stream);
    Ok((stream, InFlight::new(&application.live)))
}

/// Whether the connection ended as it should.
async fn carry<IO>(
    worker: &Worker,
    caller: &mut IO,
    (mut stream, _load): (TcpStream, InFlight),
    (application, port): (&Application, u16),
    limits: Limits,
    (asks, note): (&Asks, Option<&Note>),
) -> bool
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let stats = worker.shared.live.ports.handle(Side::Server, &application.service, port);
    let opened = stats.opened();
    let (live, registry, ahead) = (&worker.shared.live, &worker.shared.registry, Ahead::default());
    let outcome = tokio::select! {
        biased;
        // Not before it was let in: whoever is refused at the door is told so.
        error = asks.denied_later(live, || registry.inbound(), note) => {
            refuse(worker, application, port, &error, (asks, note));
            return false;
        }
        outcome = relay(caller, &mut stream, ahead, limits, &stats.flow) => outcome,
    };
    opened.end(Ended::of(&outcome));
    note.inspect(|note| note.ended(Ended::of(&outcome), outcome.a_to_b, outcome.b_to_a));
    let finished = matches!(outcome.end, End::Finished);
    if finished {
        end_on_close(&stream);
    } else {
        tracing::debug!(service = %application.service, ?outcome, "opaque connection cut");
    }
    finished
}

/// A caller that does not even take one byte is not waited for.
const TELLING: Duration = Duration::from_secs(5);
