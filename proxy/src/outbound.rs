//! From the application into the mesh: the whole way of a request on one page.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use outrigger_mesh::{Hop, Host, PortNumber, Reason};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config::registry::{Discovery, Found};
use crate::config::routes::Taken;
use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::http::connections::Guard;
use crate::http::glance::Glance;
use crate::http::reply::{self, Asker};
use crate::http::serve;
use crate::http::{canonical, headers, upgrade};
use crate::listen::way::{self, Way};
use crate::live::LiveService;
use crate::request::dispatch::{self, Arrived, Routed};
use crate::request::handle::Sake;
use crate::request::told::LOOKUP_PATIENCE;
use crate::tcp::{self, outbound::Called};
use crate::telemetry::metrics::requests::Timed;
use crate::telemetry::observe::{Direction, Note};
use crate::worker::{Named, Worker};

/// Serves a connection of the application. `fixed` is the service that the port stands for, if it does.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, guard: Guard, fixed: Option<Rc<Host>>) {
    let way = match fixed.as_deref() {
        None => way::of_shared(&worker, &stream, &guard).await,
        Some(host) => way::of_fixed(&worker, &stream, &guard, host).await,
    };
    let spoken = match way {
        Way::Http(spoken) => spoken,
        // Boxed: the state of the one would be part of every connection of the other.
        Way::Opaque(service, port) => {
            let called = Called { service, port, instance: instance(fixed.as_deref()) };
            return Box::pin(tcp::outbound::serve(&worker, stream, guard, &called)).await;
        }
        Way::Nowhere => return,
    };
    if worker.shared.registry.keeps_case() {
        guard.keep_header_case();
    }
    let refusing = Rc::clone(&worker);
    let refuse = move |error: &Error, asker| refused_early(&refusing, error, asker);
    let answer = async move |request| answer(&worker, request, fixed.as_deref()).await;
    serve::connection(stream, spoken, guard, answer, refuse).await;
}

/// Answers a request. The lines stand in the order in which it meets them.
pub(crate) async fn answer(
    worker: &Worker,
    mut request: Request<Incoming>,
    fixed: Option<&Host>,
) -> Response<ResponseBody> {
    let version = reply::version(request.version());
    let mut seen = Glance::at(request.headers());
    let of_trace = worker.shared.live.observe.of_trace(seen);
    let arrival = Timed::now(request.method(), request.headers(), of_trace);
    let (asker, closes) = (Asker::seen(&request, seen, true), tcp::connect::closes(&request));
    let note =
        worker.shared.live.observe.request(Direction::Outbound, request.headers_mut(), &mut seen, true);
    let arrival = arrival.noted(note.as_deref());
    if let Some(note) = &note {
        note.began(request.method());
    }
    let mut response = match forward(worker, request, (seen, arrival), fixed, note.as_ref()).await {
        Ok(response) => response,
        Err((error, service)) => {
            if let Some(note) = &note {
                note.failed(&error);
            }
            let mut refusal = refusal(worker, &error, asker, service.as_deref());
            count(worker, arrival, &error, service.as_deref(), &refusal);
            closes.map(|close| refusal.headers_mut().insert(header::CONNECTION, close));
            refusal
        }
    };
    if let Some(note) = note {
        note.answered(&mut response);
    }
    *response.version_mut() = version;
    response
}

/// Refuses what never became a request.
pub(crate) fn refused_early(worker: &Worker, error: &Error, asker: Asker) -> Response<ResponseBody> {
    let mut response = refusal(worker, error, Asker { trusted: true, ..asker }, None);
    count(worker, Timed::unread(), error, None, &response);
    if let Some(note) = worker.shared.live.observe.note(Direction::Outbound) {
        note.failed(error);
        note.answered(&mut response);
    }
    response
}

/// Refuses a request before anything is known of it.
pub(crate) fn refused(worker: &Worker, request: &Request<Incoming>, error: &Error) -> Response<ResponseBody> {
    let mut response = refusal(worker, error, Asker::of(request, true), None);
    let arrival = Timed::now(request.method(), request.headers(), Glance::at(request.headers()));
    count(worker, arrival, error, None, &response);
    let closes = tcp::connect::closes(request);
    closes.map(|close| response.headers_mut().insert(header::CONNECTION, close));
    if let Some(note) = worker.shared.live.observe.note(Direction::Outbound) {
        note.began(request.method());
        note.failed(error);
        note.answered(&mut response);
    }
    *response.version_mut() = request.version();
    response
}

pub(crate) fn refusal(
    worker: &Worker,
    error: &Error,
    asker: Asker,
    service: Option<&LiveService>,
) -> Response<ResponseBody> {
    let live = &worker.shared.live;
    live.counters.refused(error.reason, Hop::Client);
    service.inspect(|service| live.refusals.by_caller(&service.name, error.reason));
    tracing::debug!(%error, "refused");
    let service = service.map(|s| s.name.to_string());
    reply::refusal(error, Hop::Client, asker, service.as_deref())
}

/// Counts a refused request, as close to where it went as that is known.
pub(crate) fn count(
    worker: &Worker,
    arrival: Timed,
    error: &Error,
    service: Option<&LiveService>,
    answer: &Response<ResponseBody>,
) {
    let live = &worker.shared.live;
    let known = error.counts.as_deref().or_else(|| service.map(|service| service.refused(live)));
    arrival.refused(known.unwrap_or_else(|| live.refused()), answer);
}

type Refused = (Error, Option<Arc<LiveService>>);

async fn forward(
    worker: &Worker,
    request: Request<Incoming>,
    (seen, arrival): (Glance, Timed),
    fixed: Option<&Host>,
    note: Option<&Rc<Note>>,
) -> Result<Response<ResponseBody>, Refused> {
    let nobody = |error| (error, None);
    worker.shared.live.overload.check().map_err(nobody)?;
    let (mut parts, incoming) = request.into_parts();
    if tcp::connect::is_meant(&parts) {
        return Box::pin(tcp::connect::answer(worker, parts, fixed.is_some(), note.map(Rc::as_ref))).await;
    }
    let wish = upgrade::wish(&mut parts, seen, incoming.is_end_stream(), false);
    let target = canonical::target(&parts).map_err(nobody)?;
    canonical::check(&parts, seen).map_err(nobody)?;
    if let Some(note) = note {
        note.asked(&parts, canonical::authority(&parts).map_err(nobody)?, Some(target.path()));
    }
    // First of all: nothing that only the mesh may say decides on a route.
    if seen.saw(Glance::OURS) {
        headers::remove_ours(&mut parts.headers);
    }
    let sake = Sake::of(&worker.shared.live.handles, &mut parts.headers, (seen, arrival.began));
    let named = sake.wait(pin!(resolve(worker, &parts, fixed))).await.map_err(nobody)?;
    let service = named.service;
    note.inspect(|note| note.to(&service.name, None));
    let of_service = |error| (error, Some(Arc::clone(&service)));

    let snapshot = service.snapshot.load_full().ok_or_else(|| of_service(unknown(&service.name)))?;
    let port = *snapshot.service.port(named.port).ok_or_else(|| {
        of_service(Error::refused(Reason::NoRoute, format!("{} does not have that port", service.name)))
    })?;
    if port.protocol.is_opaque() {
        let why = format!("port {} of {} is opaque ({})", port.number, service.name, port.protocol);
        return Err(of_service(Error::refused(Reason::NoRoute, why)));
    }
    let (from, tls, token, who) = (None, false, None, None);
    let (live, note) = (&worker.shared.live, note.cloned());
    let no_route = || Error::refused(Reason::NoRoute, format!("no route of {} matches", service.name));
    // In a block: what is borrowed outside of one is kept to the end, moved or not.
    let (arrived, taken) = {
        let mut arrived =
            Arrived { parts, seen, incoming, target, wish, from, tls, sake, token, who, arrival, note };
        arrived.learn(live, snapshot.asks);
        let taken = snapshot.route(port.number, &arrived.head(live));
        (arrived, taken.ok_or_else(|| of_service(no_route()))?)
    };

    let (instance, called) = (instance(fixed), Arc::clone(&service));
    let find = async |_: &mut Arrived, Taken { plan, prefix }: Taken| {
        Ok(Routed { service: called, snapshot, plan, prefix, port, instance })
    };
    dispatch::send(worker, arrived, taken, port.number, Some(&service.name), find).await.map_err(of_service)
}

/// The one instance that a port of its own stands for, if it is not a service as a whole.
fn instance(fixed: Option<&Host>) -> Option<SocketAddr> {
    fixed.and_then(|host| host.name.socket())
}

/// The service a request means: that of the port it came to, else that of its host.
pub(crate) async fn resolve(worker: &Worker, parts: &Parts, fixed: Option<&Host>) -> Result<Named, Error> {
    let text = canonical::authority(parts)?;
    if let Some(host) = fixed {
        return resolve_fixed(worker, host).await;
    }
    resolve_host(worker, text.as_bytes(), || canonical::mesh_host(text)).await
}

/// The service that a port of its own stands for.
pub(crate) async fn resolve_fixed(worker: &Worker, host: &Host) -> Result<Named, Error> {
    // A name that no Host can be: fixed ports share the memory of names with everything else.
    let key = format!("\0{}:{}", host.name, host.port.map_or(0, PortNumber::get));
    resolve_host(worker, key.as_bytes(), || Ok(host.clone())).await
}

/// The service that a name leads to, which may have to be asked for.
pub(crate) async fn resolve_host(
    worker: &Worker,
    text: &[u8],
    host: impl FnOnce() -> Result<Host, Error>,
) -> Result<Named, Error> {
    if let Some(named) = worker.remembered(text) {
        return Ok(named);
    }
    let host = host()?;
    let registry = &worker.shared.registry;
    let mut changed = registry.changed();
    let patience = if registry.discovery() == Discovery::Away { AWAY_PATIENCE } else { LOOKUP_PATIENCE };
    let end = Instant::now() + patience;
    loop {
        changed.borrow_and_update();
        match registry.find(&host.name) {
            Found::Known(service) => {
                worker.remember(text, &host, &service);
                return Ok(Named { service, port: host.port });
            }
            Found::Unknown => return Err(unknown(&host.name)),
            Found::Asked => {}
        }
        if !matches!(timeout_at(end, changed.changed()).await, Ok(Ok(()))) {
            let why = format!("{} can not be looked up: the control plane does not answer", host.name);
            return Err(Error::refused(Reason::DiscoveryUnavailable, why));
        }
    }
}

fn unknown(name: &impl std::fmt::Display) -> Error {
    Error::refused(Reason::UnknownService, format!("{name} is not a service of the mesh"))
}

/// A control plane that is away may come back in an instant; longer is not worth a caller's time.
const AWAY_PATIENCE: std::time::Duration = std::time::Duration::from_millis(250);
