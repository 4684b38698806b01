//! From the mesh to the application: the whole way of a request on one page.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use outrigger_certs::{MeshAlpn, Peer};
use outrigger_mesh::{
    Between, Hop, HttpRules, Inbound, Longest, MtlsMode, Port, PortNumber, Protocol, Reason, RequestHead,
    RetryPolicy, Side, Source, Timeouts, TokenRules, TrafficKey,
};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::attempt::endpoint_breaker::of_answer;
use crate::attempt::exchange::grpc_failure;
use crate::attempt::place::{Place, Secured};
use crate::attempt::send::{Answer, Outgoing, Ready, Speak, send};
use crate::error::{Error, Who};
use crate::http::body::{Replay, RequestBody, ResponseBody};
use crate::http::connections::Guard;
use crate::http::glance::Glance;
use crate::http::patience::Patience;
use crate::http::reply::{self, Asker};
use crate::http::serve::{self, Spoken};
use crate::http::strict::Limits;
use crate::http::upgrade::{self, Asked};
use crate::http::{canonical, headers};
use crate::listen::detect::{self, First, Speaks};
use crate::live::Millis;
use crate::policy::access::Asks;
use crate::policy::protection::{Protection, Requester};
use crate::request::deadline::Deadline;
use crate::request::handle::{Arrival, Held};
use crate::request::stack::upstream_body;
use crate::tcp;
use crate::telemetry::metrics::Traffic;
use crate::telemetry::metrics::requests::{Ended, Parties, Series, Timed};
use crate::telemetry::observe::{Direction, Note};
use crate::token::{Verified, carry, gate};
use crate::worker::{Application, Worker};

/// Serves a connection from the mesh: who is there is settled before a byte of it is read as HTTP.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, guard: Guard, application: Arc<Application>) {
    let (mode, port) = rules(&worker, &application);
    let counters = &worker.shared.live.counters;
    let refuse = |why: &str| {
        counters.handshakes_refused.fetch_add(1, Relaxed);
        let from = stream.peer_addr().map_or_else(|_| "somebody".into(), |a| a.to_string());
        warn_sometimes(&from, why);
    };
    let mesh = match (mode, worker.shared.tls.is_some()) {
        (MtlsMode::Strict, true) => match detect::sniff(&stream, &guard).await {
            Ok(First::Tls) => true,
            Ok(First::Plain(_)) => return refuse("plaintext, and this workload wants mutual TLS"),
            Err(_) => return,
        },
        (MtlsMode::Strict, false) => return refuse("this workload wants mutual TLS, and has no identity"),
        (MtlsMode::Permissive, true) => detect::is_mesh(&stream, &guard).await,
        (MtlsMode::Off, _) | (MtlsMode::Permissive, false) => false,
    };
    match &worker.shared.tls {
        Some(tls) if mesh => {
            let from = stream.peer_addr();
            // Boxed: the handshake's state would stay part of the connection's future for its whole life.
            let accepted = match Box::pin(tls.acceptor.accept(stream)).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    counters.handshakes_refused.fetch_add(1, Relaxed);
                    let from = from.map_or_else(|_| "somebody".into(), |a| a.to_string());
                    return warn_sometimes(&from, &error.to_string());
                }
            };
            counters.handshakes.fetch_add(1, Relaxed);
            guard.proven_by(&accepted.peer, accepted.until);
            let spoken = match accepted.alpn {
                MeshAlpn::H2 => Spoken::Http2,
                MeshAlpn::Http1 => Spoken::Http1,
                MeshAlpn::Tcp => {
                    let (stream, peer) = (accepted.stream, accepted.peer);
                    tcp::keep_alive(stream.get_ref().0);
                    let permitted = takes_opaque(&worker, &application, port);
                    let to = (&*application, port.number.get());
                    let carried = tcp::inbound::from_mesh(&worker, stream, guard, to, &peer, permitted);
                    return Box::pin(carried).await;
                }
            };
            let caller = Caller::new(&worker, &application, Some(&accepted.peer));
            let caller = Caller { foreign: accepted.foreign, ..caller };
            requests(Rc::clone(&worker), accepted.stream, spoken, guard, caller).await;
        }
        _ => plaintext(worker, stream, guard, &application, port).await,
    }
}

/// Serves a connection of somebody who proves nothing, where that is allowed.
async fn plaintext(
    worker: Rc<Worker>,
    stream: TcpStream,
    guard: Guard,
    application: &Arc<Application>,
    port: Port,
) {
    let Ok(verdict) = detect::of_anybody(&stream, &guard, port).await else { return };
    let live = &worker.shared.live;
    live.counters.plaintext_accepted.fetch_add(1, Relaxed);
    live.ports.handle(Side::Server, &application.service, port.number.get()).decided(verdict.decision);
    match (verdict.speaks, port.protocol) {
        (Speaks::Http(spoken), _) => {
            let caller = Caller::new(&worker, application, None);
            requests(Rc::clone(&worker), stream, spoken, guard, caller).await;
        }
        (Speaks::Tls, Protocol::Http | Protocol::Http2 | Protocol::Grpc) => {
            live.counters.handshakes_refused.fetch_add(1, Relaxed);
            let from = stream.peer_addr().map_or_else(|_| "somebody".into(), |a| a.to_string());
            warn_sometimes(&from, "TLS at a port for HTTP in plaintext");
        }
        (Speaks::Tls | Speaks::Opaque, _) if !takes_opaque(&worker, application, port) => {
            live.counters.handshakes_refused.fetch_add(1, Relaxed);
            let from = stream.peer_addr().map_or_else(|_| "somebody".into(), |a| a.to_string());
            warn_sometimes(&from, "not HTTP, at a port where tokens are wanted");
        }
        (Speaks::Tls | Speaks::Opaque, _) => {
            let to = (&**application, port.number.get());
            Box::pin(tcp::inbound::from_anybody(&worker, stream, guard, to)).await;
        }
    }
}

async fn requests<IO>(worker: Rc<Worker>, io: IO, spoken: Spoken, guard: Guard, caller: Caller)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    if caller.keep_case {
        guard.keep_header_case();
    }
    if caller.proven.is_some() {
        guard.is_of_the_mesh();
    }
    let caller = Rc::new(caller);
    let (refusing, refused) = (Rc::clone(&worker), Rc::clone(&caller));
    let refuse = move |error: &Error, asker| {
        let asker = Asker { trusted: refused.proven.is_some(), ..asker };
        let mut response = refusal(&refusing, &refused, error, asker, Timed::unread());
        if let Some(note) = refused.note(&refusing) {
            note.failed(error);
            note.answered(&mut response);
        }
        response
    };
    let answer = async move |request| answer(&worker, &caller, request).await;
    serve::connection(io, spoken, guard, answer, refuse).await;
}

/// Who is at the other end of a connection, and what of it every request needs.
struct Caller {
    /// The value of `x-forwarded-client-cert`; `None` for a plaintext caller, who proved nothing.
    proven: Option<HeaderValue>,
    who: Requester,
    asks: Asks,
    protection: Arc<Protection>,
    traffic: Arc<Traffic>,
    requests: Arc<Series>,
    application: Arc<Application>,
    /// Whether HTTP/1 runs all the way and keeps the case of headers.
    keep_case: bool,
    /// Whether it is of the mesh without being a sidecar: its application writes what headers it likes.
    foreign: bool,
}

impl Caller {
    fn new(worker: &Worker, application: &Arc<Application>, peer: Option<&Peer>) -> Self {
        let proven = peer.and_then(|peer| {
            let value = format!("Hash={};URI={}", peer.certificate_sha256(), peer.id());
            HeaderValue::try_from(value).ok()
        });
        let traffic = worker.shared.live.traffic.handle(&TrafficKey {
            side: Side::Server,
            service: application.service.clone(),
            version: application.version.clone(),
            caller: peer.map(|p| p.id().clone()),
        });
        let requests = worker.shared.live.requests.of(Parties {
            side: Side::Server,
            service: Some(&application.service),
            version: application.version.as_ref(),
            caller: peer.map(Peer::id),
            route: None,
        });
        let inbound = worker.shared.registry.inbound();
        let service = inbound.as_ref().and_then(|i| i.service(&application.service));
        let keep_case = service.is_some_and(|s| s.between == Between::Http1);
        let who = Requester::new(peer.map(|p| p.id().clone()));
        let asks = Asks::new(&worker.shared.live.access, application, peer.map(Peer::id));
        let protection = worker.shared.live.protections.of(&application.service);
        Self {
            proven,
            who,
            asks,
            protection,
            traffic,
            requests,
            application: Arc::clone(application),
            keep_case,
            foreign: false,
        }
    }

    /// A note of something that never became a request of it, where anybody takes it.
    fn note(&self, worker: &Worker) -> Option<Rc<Note>> {
        worker.shared.live.observe.note(Direction::Inbound).inspect(|note| self.sign(note))
    }

    /// A note of its request, which has come just now, where anybody takes it.
    fn note_of(
        &self,
        worker: &Worker,
        request: &mut Request<Incoming>,
        mut seen: Glance,
    ) -> Option<Rc<Note>> {
        let (observe, trusted) = (&worker.shared.live.observe, self.proven.is_some());
        if self.foreign {
            // What only sidecars say to each other is no word of its.
            seen = seen.without(Glance::OURS);
        }
        let note = observe.request(Direction::Inbound, request.headers_mut(), &mut seen, trusted);
        note.inspect(|note| self.sign(note))
    }

    fn sign(&self, note: &Note) {
        note.of(self.who.id());
        note.to(&self.application.service, self.application.version.as_ref());
    }

    /// Another sidecar has added to what it was sent.
    fn limits(&self) -> &'static Limits {
        if self.proven.is_some() { &Limits::MESH } else { &Limits::EDGE }
    }
}

/// Answers a request. The lines stand in the order in which it meets them.
async fn answer(worker: &Worker, caller: &Caller, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let version = reply::version(request.version());
    let seen = Glance::at(request.headers());
    let of_trace = worker.shared.live.observe.of_trace(seen);
    let arrival = Timed::now(request.method(), request.headers(), of_trace);
    let asker = Asker::seen(&request, seen, caller.proven.is_some());
    let note = caller.note_of(worker, &mut request, seen);
    let arrival = arrival.noted(note.as_deref());
    if let Some(note) = &note {
        note.began(request.method());
    }
    let mut response = match forward(worker, caller, request, (seen, arrival), note.as_deref()).await {
        Ok(response) => response,
        Err(error) => {
            if let Some(note) = &note {
                note.failed(&error);
            }
            refusal(worker, caller, &error, asker, arrival)
        }
    };
    if let Some(note) = note {
        note.answered(&mut response);
    }
    *response.version_mut() = version;
    response
}

fn refusal(
    worker: &Worker,
    caller: &Caller,
    error: &Error,
    asker: Asker,
    arrival: Timed,
) -> Response<ResponseBody> {
    caller.traffic.record(!error.reason.status().is_server_error(), arrival.began.elapsed());
    let live = &worker.shared.live;
    live.counters.refused(error.reason, Hop::Server);
    live.refusals.by_service(&caller.application.service, caller.who.id(), error.reason);
    tracing::debug!(%error, "refused");
    let service = caller.application.service.to_string();
    let refusal = reply::refusal(error, Hop::Server, asker, Some(&service));
    arrival.refused(&caller.requests, &refusal);
    refusal
}

async fn forward(
    worker: &Worker,
    caller: &Caller,
    request: Request<Incoming>,
    (seen, arrived): (Glance, Timed),
    note: Option<&Note>,
) -> Result<Response<ResponseBody>, Error> {
    worker.shared.live.overload.check()?;
    let application = &*caller.application;
    let (mut parts, incoming) = request.into_parts();
    if caller.foreign {
        headers::remove_ours(&mut parts.headers);
    }
    let wish = upgrade::wish(&mut parts, seen, incoming.is_end_stream(), caller.proven.is_some());
    let target = canonical::target(&parts)?;
    canonical::check_within(&parts, seen, caller.limits())?;
    let host = canonical::authority(&parts)?;
    if let Some(note) = note {
        note.asked(&parts, host, Some(target.path()));
    }

    let inbound = worker.shared.registry.inbound();
    let longest = longest(inbound.as_deref(), application);
    let arrival = Arrival::of(&parts.headers, seen, caller.proven.is_some(), !incoming.is_end_stream());
    let upgrade = match wish {
        None => None,
        Some(wish) => wish.allowed(&http_rules(worker, application), &mut parts)?,
    };
    headers::remove_hop_by_hop(&mut parts.headers);
    if seen.saw(Glance::OURS) {
        headers::remove_ours(&mut parts.headers);
    }
    if let Some(proven) = &caller.proven {
        parts.headers.insert(headers::CLIENT_CERT, proven.clone());
    }
    let grpc = seen.saw(Glance::CONTENT_TYPE) && headers::is_grpc(&parts.headers);
    let token = admit_token(worker, application, &mut parts, &target)?;
    let arrival = arrival.at_most(&longest, grpc);
    let deadline = Deadline::of_arrival(&arrival, longest.stream, grpc);
    let mut places = {
        let (path, query) = (target.path(), target.query());
        let head = RequestHead {
            method: &parts.method,
            path,
            query,
            headers: &parts.headers,
            claims: carry::of(token.as_ref()),
            source: Source::default(),
        };
        caller.asks.check(&worker.shared.live, inbound.as_ref(), head, note)?;
        let (table, stream) = (&worker.shared.live.bulkheads, upgrade.is_some());
        caller.protection.admit(inbound, &caller.who, head, arrival.latest(), stream, table).await?
    };
    let handle = worker.shared.live.handles.introduce(&mut parts.headers, &arrival, token);
    let speak = match rules(worker, application).1.protocol {
        Protocol::Http2 | Protocol::Grpc => Speak::Http2,
        // At an opaque port, too: a caller that was not told so has seen what it is.
        Protocol::Detect | Protocol::Tcp if grpc => Speak::Http2,
        Protocol::Http | Protocol::Detect | Protocol::Tcp | Protocol::Tls => Speak::Http1,
    };
    let once = RetryPolicy { retries: 0, ..RetryPolicy::default() };
    let body = (!incoming.is_end_stream()).then(|| Replay::new(incoming, &once, false, longest.idle));
    let body = body.map(|b| b.within(max_body(worker, application))).transpose()?;
    if let (Some(body), Some(handle), Some(limit)) = (&body, &handle, arrival.limit) {
        body.tell(handle.at_body_end(limit));
    }
    if grpc {
        deadline.tell_grpc(&mut parts.headers, body.as_ref());
    }
    let authority = std::mem::take(&mut parts.uri).into_parts().authority;
    let (method, headers) = (parts.method, parts.headers);
    let (asked, upgrade) = upgrade.unzip();
    let spelling = if caller.keep_case { parts.extensions } else { Extensions::new() };
    let head = Outgoing { method, target, authority, headers, seen, upgrade, spelling };

    let place = Place {
        endpoint: Arc::clone(&application.live),
        address: application.address,
        secured: Secured::No,
        resolved: None,
        connect: Timeouts::CONNECT,
        keep_case: caller.keep_case,
        limited: None,
    };
    let upload = body.as_ref().map_or(RequestBody::Empty, Replay::attempt);
    let sending = Ready::new(&place, speak, head, upload)
        .map_err(|e| Replay::explain(body.as_ref(), of_application(e, application)))?;
    let answer = {
        let sending = pin!(send(&worker.application, &place, speak, sending));
        let sending = pin!(places.around(grpc, sending));
        // The caller's own limit runs out first; this one only sees to it that the application is let go, too.
        deadline.within(&worker.alarms, arrival.at, body.as_ref(), GRACE, sending).await
    };
    let (answer, mut exchange) =
        answer.map_err(|e| Replay::explain(body.as_ref(), of_application(e, application)))?;
    let tried_again = handle.as_ref().and_then(Held::answered);
    exchange.hold_handle(handle);
    let patience = deadline.patience(longest.idle);
    let mut answer = places.go_with(finish(caller, grpc, arrived, (answer, exchange), asked, patience))?;
    if let Some(attempts) = tried_again.filter(|_| caller.proven.is_some()) {
        answer.headers_mut().insert(headers::ATTEMPT, attempts.into());
    }
    Ok(answer)
}

fn finish(
    caller: &Caller,
    grpc: bool,
    arrived: Timed,
    (answer, mut exchange): Answer,
    asked: Option<Asked>,
    patience: Patience,
) -> Response<ResponseBody> {
    let now = Instant::now();
    let latency = now.saturating_duration_since(arrived.began);
    let upstream = now.into_std().saturating_duration_since(exchange.started());
    let timing = arrived.answered(Arc::clone(&caller.requests), &answer, (upstream, now), (grpc, false));
    if asked.is_some() && (answer.status() == StatusCode::SWITCHING_PROTOCOLS || answer.status().is_success())
    {
        timing.end(Ended::Whole);
    } else {
        exchange.time(timing);
    }
    exchange.answered(of_answer(&answer, grpc, false, latency, || false));
    if !grpc {
        caller.traffic.record(!answer.status().is_server_error(), latency);
    } else if let Some(failed) = grpc_failure(answer.headers()) {
        caller.traffic.record(!failed, latency);
    } else {
        exchange.count_at_end(Arc::clone(&caller.traffic), latency);
    }
    let (mut head, incoming) = answer.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    headers::remove_ours(&mut head.headers);
    let limits = patience.tunnel();
    let body = |exchange| upstream_body(incoming, exchange, patience);
    match asked {
        None => Response::from_parts(head, body(exchange)),
        Some(asked) => asked.answer(head, exchange, limits, caller.proven.is_some(), body),
    }
}

/// An application that can not be connected to has processed nothing: the caller's sidecar tries another instance.
fn of_application(mut error: Error, application: &Application) -> Error {
    error.everywhere = error.reason == Reason::ConnectFailed;
    if error.unprocessed && error.who == Who::Upstream {
        application.live.load.failed(Millis::now(), fastrand::u64(..));
    }
    error
}

/// Who must prove what, and the service's port that the application's is. Strict until the control plane has said
/// otherwise.
fn rules(worker: &Worker, application: &Application) -> (MtlsMode, Port) {
    let inbound = worker.shared.registry.inbound();
    let named = application.service_port;
    let unknown = Port { number: named.unwrap_or(PortNumber::HTTP), protocol: Protocol::Detect };
    let Some(service) = inbound.as_ref().and_then(|i| i.service(&application.service)) else {
        return (MtlsMode::Strict, told(worker, application, unknown));
    };
    let wanted = |port: &&(PortNumber, Protocol)| named.is_none_or(|p| p == port.0);
    let found = service.ports.iter().find(wanted);
    let port = found.map_or(unknown, |p| Port { number: p.0, protocol: p.1 });
    (service.mtls.at(port.number), told(worker, application, port))
}

/// The port as this sidecar was told of it: what the mesh declares wins.
fn told(worker: &Worker, application: &Application, port: Port) -> Port {
    let opaque = worker.shared.live.is_opaque(application.address.port());
    match port.protocol {
        Protocol::Detect if opaque => Port { protocol: Protocol::Tcp, ..port },
        _ => port,
    }
}

/// The verified token of a request, where its service wants one. The application has got then what it is to get of it.
fn admit_token(
    worker: &Worker,
    application: &Application,
    parts: &mut Parts,
    target: &PathAndQuery,
) -> Result<Option<Arc<Verified>>, Error> {
    let inbound = worker.shared.registry.inbound();
    let service = inbound.as_ref().and_then(|i| i.service(&application.service));
    let Some(rules) = service.and_then(|s| s.tokens.as_ref()) else { return Ok(None) };
    let token = gate::admit(&worker.shared.live.tokens, rules, parts, target)?;
    gate::hand_over(rules, token.as_deref(), &mut parts.headers);
    Ok(token)
}

/// How long requests may take here at most. The sidecars of the callers keep to their own limits, which are none longer:
/// what is left beyond lets them be the first to end what took too long, and to say why.
fn longest(inbound: Option<&Inbound>, application: &Application) -> Longest {
    let service = inbound.and_then(|i| i.service(&application.service));
    let longest = service.map_or_else(Longest::default, |s| s.longest);
    let behind = |limit: Duration| limit.min(FOR_EVER) + BEHIND;
    Longest { idle: behind(longest.idle), stream: longest.stream.map(behind), ..longest }
}

/// The longest body that the service takes. Looked up only for requests that have one.
fn max_body(worker: &Worker, application: &Application) -> Option<u64> {
    let inbound = worker.shared.registry.inbound();
    inbound.as_ref().and_then(|i| i.service(&application.service)).and_then(|s| s.http.max_body)
}

/// Whether connections whose bytes nobody looks into are taken. At a port that may be one for HTTP they would lead around
/// the tokens that its service wants.
fn takes_opaque(worker: &Worker, application: &Application, port: Port) -> bool {
    let detected = port.protocol == Protocol::Detect;
    if port.protocol.is_opaque() || (detected && detect::speaks_first(port.number.get())) {
        return true;
    }
    let inbound = worker.shared.registry.inbound();
    let service = inbound.as_ref().and_then(|i| i.service(&application.service));
    let tokens = service.and_then(|s| s.tokens.as_ref()).is_some_and(TokenRules::look_at_tokens);
    (detected || http_rules(worker, application).connect) && !tokens
}

/// What callers may ask of HTTP here. Read by the few requests that ask for more than an answer.
fn http_rules(worker: &Worker, application: &Application) -> HttpRules {
    let inbound = worker.shared.registry.inbound();
    inbound.as_ref().and_then(|i| i.service(&application.service)).map(|s| s.http.clone()).unwrap_or_default()
}

/// A flood of refused connections does not flood the log.
fn warn_sometimes(from: &str, why: &str) {
    thread_local! {
        static WINDOW: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    }
    let second = Millis::now().0 / 1000;
    let (window, count) = WINDOW.get();
    let count = if window == second { count + 1 } else { 1 };
    WINDOW.set((second, count));
    if count <= WARNINGS {
        tracing::warn!(from, why, "inbound connection refused");
    }
}

const WARNINGS: u32 = 10;
const GRACE: Duration = Duration::from_millis(5);
const BEHIND: Duration = Duration::from_secs(1);
/// As good as no limit, and no number that clocks can not count to.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);
