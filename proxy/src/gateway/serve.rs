//! The way of a connection from outside, and of a request on it.

use std::cell::Cell;
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{Request, Response};
use hyper::body::Incoming;
use outrigger_mesh::{Hop, Hostname, PortNumber, Reason};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::config::routes::Taken;
use crate::data_path::Accepting;
use crate::drain::Phase;
use crate::error::Error;
use crate::gateway::Edge;
use crate::gateway::forwarded::{self, From};
use crate::gateway::ports::PortChange;
use crate::gateway::table::{EdgeRoute, PortTable};
use crate::http::body::ResponseBody;
use crate::http::canonical;
use crate::http::connections::Guard;
use crate::http::glance::Glance;
use crate::http::reply::{self, Asker};
use crate::http::serve::{self, Spoken};
use crate::http::upgrade;
use crate::listen::accept;
use crate::listen::detect::{self, First};
use crate::live::{Live, LiveService};
use crate::outbound;
use crate::request::choose::nowhere;
use crate::request::dispatch::{self, Arrived, Routed};
use crate::request::handle::Sake;
use crate::request::told::{LOOKUP_PATIENCE, told_of};
use crate::telemetry::metrics::requests::Timed;
use crate::telemetry::observe::{Direction, Note};
use crate::worker::Worker;

/// Accepts at the gateway's ports as they come and go, until the process ends.
pub(crate) async fn run(
    worker: Rc<Worker>,
    edge: Arc<Edge>,
    mut changes: mpsc::Receiver<PortChange>,
    phases: watch::Receiver<Phase>,
    loops: Arc<Accepting>,
) {
    let mut open: HashMap<PortNumber, oneshot::Sender<()>> = HashMap::new();
    while let Some(change) = changes.recv().await {
        match change {
            PortChange::Close(number) => drop(open.remove(&number)),
            PortChange::Open(number, listener) => {
                let Ok(listener) = TcpListener::from_std(listener) else { continue };
                let (stop, stopped) = oneshot::channel();
                open.insert(number, stop);
                let (worker, edge, phases) = (Rc::clone(&worker), Arc::clone(&edge), phases.clone());
                // A connection that waits to be accepted when the process is to end is served, too.
                let counted = loops.begins();
                tokio::task::spawn_local(async move {
                    accepting(worker, edge, number, listener, phases, stopped).await;
                    drop(counted);
                });
            }
        }
    }
}

async fn accepting(
    worker: Rc<Worker>,
    edge: Arc<Edge>,
    number: PortNumber,
    listener: TcpListener,
    mut phases: watch::Receiver<Phase>,
    stopped: oneshot::Receiver<()>,
) {
    let live = Arc::clone(&worker.shared.live);
    let closing = async {
        tokio::select! {
            _ = phases.wait_for(|now| *now >= Phase::InboundClosing) => {}
            _ = stopped => {}
        }
    };
    let take = |stream, guard| {
        let (worker, edge) = (Rc::clone(&worker), Arc::clone(&edge));
        let open = crate::data_path::Gauge::inbound(&live);
        tokio::task::spawn_local(async move {
            let _open = open;
            connection(worker, edge, number, stream, guard).await;
        });
    };
    accept::accept(listener, &worker.inbound, live.inbound_side(), closing, take).await;
}

/// Serves one connection.
async fn connection(
    worker: Rc<Worker>,
    edge: Arc<Edge>,
    number: PortNumber,
    stream: TcpStream,
    guard: Guard,
) {
    let Ok(peer) = stream.peer_addr() else { return };
    let Some(table) = edge.table.load().port(number).map(Arc::clone) else { return };
    let from = From { peer: peer.ip(), tls: table.tls.is_some(), port: number.get() };
    let client = |asked_for| Client { edge: Arc::clone(&edge), number, from, asked_for };
    match &table.tls {
        None => match detect::sniff(&stream, &guard).await {
            Ok(First::Plain(spoken)) => requests(worker, stream, spoken, guard, client(None)).await,
            Ok(First::Tls) => tracing::debug!(port = number.get(), "TLS at a port of plaintext"),
            Err(_) => {}
        },
        Some(Err(why)) => tracing::debug!(port = number.get(), why, "nobody can be served here"),
        Some(Ok(acceptor)) => {
            let counters = &worker.shared.live.counters;
            match Box::pin(acceptor.accept(stream)).await {
                Err(error) => {
                    counters.handshakes_refused.fetch_add(1, Relaxed);
                    tracing::debug!(%peer, %error, "no handshake");
                }
                Ok(accepted) => {
                    counters.handshakes.fetch_add(1, Relaxed);
                    let spoken = if accepted.http2 { Spoken::Http2 } else { Spoken::Http1 };
                    requests(worker, accepted.stream, spoken, guard, client(accepted.asked_for)).await;
                }
            }
        }
    }
}

/// Who is at the other end of a connection.
struct Client {
    edge: Arc<Edge>,
    number: PortNumber,
    from: From,
    /// The name that the handshake asked for.
    asked_for: Option<Hostname>,
}

async fn requests<IO>(worker: Rc<Worker>, io: IO, spoken: Spoken, guard: Guard, client: Client)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let refusing = Rc::clone(&worker);
    let refuse = move |error: &Error, asker| {
        let mut response = refusal(&refusing, error, Asker { trusted: false, ..asker });
        outbound::count(&refusing, Timed::unread(), error, None, &response);
        if let Some(note) = refusing.shared.live.observe.note(Direction::Gateway) {
            note.failed(error);
            note.answered(&mut response);
        }
        response
    };
    let answer = async move |request| answer(&worker, &client, request).await;
    serve::connection(io, spoken, guard, answer, refuse).await;
}

async fn answer(worker: &Worker, client: &Client, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let version = request.version();
    let asker = Asker::of(&request, false);
    let mut seen = Glance::at(request.headers());
    let observe = &worker.shared.live.observe;
    let arrival = Timed::now(request.method(), request.headers(), observe.of_trace(seen));
    let note = observe.request(Direction::Gateway, request.headers_mut(), &mut seen, false);
    let arrival = arrival.noted(note.as_deref());
    if let Some(note) = &note {
        note.began(request.method());
    }
    let mut response = match forward(worker, client, (request, arrival), note.as_ref()).await {
        Ok(response) => response,
        Err(error) => {
            if let Some(note) = &note {
                note.failed(&error);
            }
            let refusal = refusal(worker, &error, asker);
            outbound::count(worker, arrival, &error, None, &refusal);
            refusal
        }
    };
    if let Some(note) = note {
        note.answered(&mut response);
    }
    *response.version_mut() = version;
    response
}

fn refusal(worker: &Worker, error: &Error, asker: Asker) -> Response<ResponseBody> {
    worker.shared.live.counters.refused(error.reason, Hop::Client);
    tracing::debug!(%error, "refused");
    reply::refusal(error, Hop::Client, asker, None)
}

/// The lines stand in the order in which a request meets them.
async fn forward(
    worker: &Worker,
    client: &Client,
    (request, arrival): (Request<Incoming>, Timed),
    note: Option<&Rc<Note>>,
) -> Result<Response<ResponseBody>, Error> {
    worker.shared.live.overload.check()?;
    let (mut parts, incoming) = request.into_parts();
    let seen = Glance::at(&parts.headers);
    let wish = upgrade::wish(&mut parts, seen, http_body::Body::is_end_stream(&incoming), false);
    let target = canonical::target(&parts)?;
    canonical::check(&parts, seen)?;
    let named = canonical::authority(&parts)?.to_owned();
    note.inspect(|note| note.asked(&parts, &named, Some(target.path())));
    let host = canonical::mesh_host(&named)?.name;
    // Before anything is decided by a header: what a stranger may not say decides nothing.
    forwarded::rewrite(&mut parts.headers, client.from, &named, &client.edge.settings.trusted);

    let seen = Glance::at(&parts.headers);
    let sake = Sake::of(&worker.shared.live.handles, &mut parts.headers, (seen, arrival.began));
    let (from, tls, token, who) = (Some(client.from.peer), client.from.tls, None, None);
    let note = note.cloned();
    let mut arrived =
        Arrived { parts, seen, incoming, target, wish, from, tls, sake, token, who, arrival, note };
    let live = &worker.shared.live;
    let (mut route, mut taken) = route_of(client, &host, &mut arrived, live)?;
    if route.is_provisional {
        arrived.sake.wait(Box::pin(made_whole(worker, &route)).as_mut()).await?;
        (route, taken) = route_of(client, &host, &mut arrived, live)?;
    }
    let asked = Cell::new(None);
    let find = async |arrived: &mut Arrived, taken: Taken| {
        let routed =
            Routed { prefix: taken.prefix, ..arrived.sake.wait(pin!(routed(worker, &route))).await? };
        if let Some(note) = &arrived.note {
            note.to(&routed.service.name, None);
        }
        asked.set(Some(Arc::clone(&routed.service)));
        arrived.learn(live, routed.snapshot.asks);
        Ok(routed)
    };
    let service = route.service.as_ref().map(|service| &service.name);
    let outcome = dispatch::send(worker, arrived, taken, client.number, service, find).await;
    outcome.inspect_err(|error| {
        if let Some(service) = asked.take() {
            live.refusals.by_caller(&service.name, error.reason);
        }
    })
}

/// The listener that a host name means. A connection that was made for one listener's certificate does not reach
/// another's routes: its client is asked to make its own.
fn listener(table: &PortTable, client: &Client, host: &Hostname) -> Result<usize, Error> {
    let unknown = || Error::refused(Reason::NoRoute, format!("no listener of the gateway is for {host}"));
    let meant = table.listener(host).ok_or_else(unknown)?;
    let made_for = client.asked_for.as_ref().and_then(|name| table.listener(name));
    if made_for.is_some_and(|made_for| made_for != meant) {
        let why = format!("the connection was made for another name than {host}");
        return Err(Error::refused(Reason::Misdirected, why));
    }
    Ok(meant)
}

/// The route of a request by what is served now, and how it was matched.
fn route_of(
    client: &Client,
    host: &Hostname,
    arrived: &mut Arrived,
    live: &Live,
) -> Result<(Arc<EdgeRoute>, Taken), Error> {
    let table = client.edge.table.load();
    let table =
        table.port(client.number).ok_or_else(|| Error::refused(Reason::NoRoute, "the port is closing"))?;
    let listener = listener(table, client, host)?;
    arrived.learn(live, table.asks);
    let no_route = || Error::refused(Reason::NoRoute, format!("no route at the gateway for {host}"));
    let (route, taken) = table.route(listener, host, &arrived.head(live)).ok_or_else(no_route)?;
    Ok((Arc::clone(route), taken))
}

/// Waits a little until the service of a route is told, and routes are made of what holds for its requests.
async fn made_whole(worker: &Worker, route: &EdgeRoute) -> Result<(), Error> {
    let registry = &worker.shared.registry;
    let Some(service) = &route.service else { return Ok(()) };
    told_of(worker, service).await;
    if service.snapshot.load().is_none() {
        return Err(not_known(service));
    }
    registry.obeyed.until(registry.changes()).await;
    Ok(())
}

fn not_known(service: &LiveService) -> Error {
    Error::refused(Reason::DiscoveryUnavailable, format!("{} is not known here", service.name))
}

/// The route with its service as it is now; one that is being asked for is waited for a little.
async fn routed(worker: &Worker, route: &Arc<EdgeRoute>) -> Result<Routed, Error> {
    let none = || nowhere(&route.plan, "it has no backend");
    let service = Arc::clone(route.service.as_ref().ok_or_else(none)?);
    let mut changed = worker.shared.registry.changed();
    let end = Instant::now() + LOOKUP_PATIENCE;
    loop {
        changed.borrow_and_update();
        if let Some(snapshot) = service.snapshot.load_full() {
            let port = snapshot.service.port(None).copied().ok_or_else(none)?;
            let plan = Arc::clone(&route.plan);
            return Ok(Routed { service, snapshot, plan, prefix: None, port, instance: None });
        }
        if !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
            return Err(not_known(&service));
        }
    }
}
