//! The order of what happens around the attempts of a request, on one page.
//!
//! deposit -> (choose -> send within the deadline -> judge -> budget -> pause)* -> answer

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Response, header};
use hyper::body::Incoming;
use outrigger_mesh::{Between, Port, Protocol, Reason, Timeouts};
use tokio::time::{Instant, sleep, timeout_at};

use crate::attempt::endpoint_breaker::{self, of_answer, of_error};
use crate::attempt::exchange::{Exchange, grpc_failure};
use crate::attempt::send::{Answer, Outgoing, Speak, send};
use crate::config::snapshot::{RoutePlan, ServiceSnapshot};
use crate::error::Error;
use crate::http::body::{Replay, RequestBody, ResponseBody, UpstreamBody};
use crate::http::upgrade::Asked;
use crate::http::{expect, headers, reply};
use crate::live::{LiveService, Millis};
use crate::request::affinity::Affinity;
use crate::request::bulkhead::Permit;
use crate::request::choose::{Aim, Chosen, choose};
use crate::request::deadline::Deadline;
use crate::request::places::{self, Places};
use crate::request::retry::{self, Nature, Verdict};
use crate::telemetry::metrics::Counters;
use crate::worker::Worker;

/// A request that knows where it goes.
pub struct Call {
    /// The service it names.
    pub service: Arc<LiveService>,
    /// The service as it was when the request was routed; held to the end.
    pub snapshot: Arc<ServiceSnapshot>,
    /// Its route.
    pub plan: Arc<RoutePlan>,
    /// The port it means.
    pub port: Port,
    /// The one instance it is for, if it was sent to the address of one.
    pub instance: Option<SocketAddr>,
    /// What it is known by.
    pub affinity: Affinity,
    /// What kind of request it is.
    pub nature: Nature,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// Its limits.
    pub deadline: Deadline,
    /// Its head, cleaned.
    pub head: Outgoing,
    /// Its body, if it has one.
    pub body: Option<Replay>,
    /// What its caller's connection shall become, where it is an upgrade.
    pub asked: Option<Asked>,
}

/// Runs the request: as many attempts as it takes and the rules allow.
pub async fn run(worker: &Worker, mut call: Call) -> Result<Response<ResponseBody>, Error> {
    let began = Instant::now();
    let counters = &worker.shared.live.counters;
    call.service.budget.deposit(Millis::at(began.into_std()));
    let chance = fastrand::u64(..);
    let mut tried: Vec<u64> = Vec::new();
    let mut attempt = 1;
    loop {
        let aim = Aim {
            service: &call.service,
            snapshot: &call.snapshot,
            plan: &call.plan,
            port: call.port,
            instance: call.instance,
            affinity: &call.affinity,
        };
        let (chosen, room) = match choose_with_room(worker, aim, chance, &tried).await {
            Ok(chosen) => chosen,
            Err(error) => return Err(gave_up(&call, began, error)),
        };
        let mut outcome = try_once(worker, &call, &chosen, attempt).await;
        match &mut outcome {
            Ok((_, exchange)) => exchange.hold_places(Places::at_endpoint(room)),
            Err(_) => drop(room),
        }
        let verdict = match &outcome {
            Ok((answer, _)) => retry::judge_answer(answer, call.nature, chosen.place.secured.is_mesh()),
            Err(error) => retry::judge_error(error, call.nature),
        };
        let verdict = match &outcome {
            Ok((answer, _)) if verdict != Verdict::Keep && retry::is_rate_limited(answer) => {
                let tried = [&tried[..], &[chosen.place.endpoint.id]].concat();
                if chosen.alone(&tried) { retry::judge_last(answer) } else { verdict }
            }
            _ => verdict,
        };
        let pause = match verdict {
            Verdict::Again { after } => next_pause(&call, attempt, after, counters),
            Verdict::Keep => Err(Spent::Nothing),
        };
        let endpoint = chosen.place.endpoint.id;
        match (outcome, pause) {
            (failed, Ok(pause)) => {
                tried.push(endpoint);
                // Before the pause: its place in the endpoint's load and its connection go with it.
                drop(failed);
                counters.retries.fetch_add(1, Relaxed);
                attempt += 1;
                sleep(pause).await;
            }
            (Ok(answer), Err(spent)) => return Ok(finish(&mut call, &chosen, began, answer, spent)),
            (Err(mut error), Err(_)) => {
                tried.push(endpoint);
                if chosen.panic {
                    error.detail =
                        format!("{} (too few endpoints are well, all are chosen from)", error.detail).into();
                }
                error.everywhere = error.reason == Reason::ConnectFailed && chosen.alone(&tried);
                return Err(gave_up(&call, began, error));
            }
        }
    }
}

/// Chooses an endpoint and takes a place there. Another worker may have had the last one in between: then it is chosen
/// anew, until it is clear that there is none.
async fn choose_with_room(
    worker: &Worker,
    aim: Aim<'_>,
    chance: u64,
    tried: &[u64],
) -> Result<(Chosen, Permit), Error> {
    for last in [false, false, false, true] {
        let chosen = choose(worker, aim, chance, tried).await?;
        if let Some(room) = places::at_endpoint(&chosen.place.endpoint) {
            return Ok((chosen, room));
        }
        if last {
            chosen.place.endpoint.bulkhead.count_rejected();
        }
    }
    Err(places::endpoints_full(aim.service))
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spent {
    Nothing,
    Budget,
}

/// The pause before another attempt, if there may be one.
fn next_pause(
    call: &Call,
    attempt: u32,
    wish: Option<Duration>,
    counters: &Counters,
) -> Result<Duration, Spent> {
    let policy = &call.plan.retry;
    let repeatable = call.body.as_ref().is_none_or(Replay::can_repeat);
    if attempt > policy.retries || !repeatable {
        return Err(Spent::Nothing);
    }
    let pause = wish.unwrap_or_else(|| retry::backoff(attempt, fastrand::f64()));
    if !call.deadline.leaves_room(pause, call.body.as_ref()) {
        return Err(Spent::Nothing);
    }
    if !call.service.budget.withdraw(policy, Millis::now()) {
        counters.retries_over_budget.fetch_add(1, Relaxed);
        return Err(Spent::Budget);
    }
    Ok(pause)
}

/// What to speak to an endpoint. Between sidecars, unless the service says: HTTP/2 for what came as HTTP/2; for the rest
/// HTTP/1.1 while few requests are under way there, which is quicker, and HTTP/2 under load, which is cheaper.
fn speak(worker: &Worker, call: &Call, chosen: &Chosen) -> Speak {
    let Chosen { place, port, .. } = chosen;
    if call.nature.grpc {
        return Speak::Http2;
    }
    if !place.secured.is_mesh() {
        return match port.protocol {
            Protocol::Http2 | Protocol::Grpc => Speak::Http2,
            Protocol::Http | Protocol::Detect | Protocol::Tcp | Protocol::Tls => Speak::Http1,
        };
    }
    let auto = call.http2 || worker.mesh.in_use(place) >= FEW;
    // An upgraded connection is one caller's for long: among streams it would take the place of many requests.
    let auto = auto && call.asked.is_none();
    // Only HTTP/1 as we speak it passes on that a body is wanted.
    let auto = auto && (call.body.is_none() || !call.head.headers.contains_key(header::EXPECT));
    match chosen.between {
        Between::Http2 => Speak::Http2,
        Between::Auto if auto => Speak::Http2,
        Between::Http1 | Between::Auto => Speak::Http1,
    }
}

/// One attempt, within what is left of the time.
async fn try_once(worker: &Worker, call: &Call, chosen: &Chosen, attempt: u32) -> Result<Answer, Error> {
    let mut head = call.head.clone();
    if chosen.place.secured.is_mesh() {
        call.deadline.tell_mesh(&mut head.headers, &call.plan.deadline_header);
        if attempt > 1 {
            head.headers.insert(headers::ATTEMPT, attempt.into());
        }
    }
    if call.nature.grpc {
        call.deadline.tell_grpc(&mut head.headers);
    }
    let body = call.body.as_ref().map_or(RequestBody::Empty, Replay::attempt);
    let began = Instant::now();
    let mut pass = chosen.pass.take();
    let mut outcome = {
        let mut sending = pin!(send(&worker.mesh, &chosen.place, speak(worker, call, chosen), head, body));
        loop {
            let Some((at, reason)) = call.deadline.next(began, call.body.as_ref()) else {
                break sending.as_mut().await;
            };
            match timeout_at(at, sending.as_mut()).await {
                Ok(outcome) => break outcome,
                Err(_) if call.deadline.is_over(began, call.body.as_ref()) => break Err(late(reason)),
                Err(_) => {}
            }
        }
    };
    match &mut outcome {
        Ok((answer, exchange)) => {
            let callers =
                || matches!(call.deadline.next(began, call.body.as_ref()), Some((_, Reason::Deadline)));
            let (grpc, from_mesh) = (call.nature.grpc, chosen.place.secured.is_mesh());
            exchange.under(pass);
            let found = of_answer(answer, grpc, from_mesh, exchange.latency(), callers);
            exchange.answered(found);
            match (chosen.watched.take(), found) {
                (Some(mut watched), Some(found)) => watched.note(found),
                (Some(watched), None) => exchange.watch(vec![watched]),
                (None, _) => {}
            }
        }
        Err(error) => {
            let caller_gone = call.body.as_ref().is_some_and(Replay::is_broken);
            let found = of_error(error, caller_gone);
            endpoint_breaker::note(&chosen.place.endpoint, &mut pass, found);
            if let Some(mut watched) = chosen.watched.take() {
                watched.note(found);
            }
        }
    }
    outcome
}

fn late(reason: Reason) -> Error {
    Error::upstream(reason, "no answer in time")
}

/// The answer as the application gets it.
fn finish(
    call: &mut Call,
    chosen: &Chosen,
    began: Instant,
    (answer, mut exchange): Answer,
    spent: Spent,
) -> Response<ResponseBody> {
    count(call, chosen, began, &answer, &mut exchange);
    let (mut head, incoming) = answer.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    if chosen.place.secured.is_mesh() {
        headers::remove_meant_for_us(&mut head.headers);
    } else {
        headers::remove_ours(&mut head.headers);
    }
    if !head.status.is_server_error() {
        call.affinity.tell(&call.snapshot, &chosen.view, chosen.stayed, &mut head.headers);
    }
    if spent == Spent::Budget {
        reply::mark_budget_spent(&mut head.headers);
    }
    let expects = call.body.is_some() && !call.http2 && call.head.headers.contains_key(header::EXPECT);
    expect::end_unless_sent(expects, call.body.as_ref(), &mut head.headers);
    let idle = call.plan.timeouts.idle.unwrap_or(Timeouts::IDLE);
    let body = |exchange| upstream_body(incoming, exchange, idle);
    match call.asked.take() {
        None => Response::from_parts(head, body(exchange)),
        Some(asked) => asked.answer(head, exchange, idle, false, body),
    }
}

/// The body of an answer; one that is empty ends its exchange here.
pub fn upstream_body(incoming: Incoming, mut exchange: Exchange, idle: Duration) -> ResponseBody {
    if http_body::Body::is_end_stream(&incoming) {
        exchange.finish();
        return ResponseBody::Empty;
    }
    ResponseBody::Upstream(UpstreamBody::new(incoming, exchange, idle))
}

fn count(call: &Call, chosen: &Chosen, began: Instant, answer: &Response<Incoming>, exchange: &mut Exchange) {
    let (latency, traffic) = (began.elapsed(), &chosen.view.live.traffic);
    if !call.nature.grpc {
        traffic.record(!answer.status().is_server_error(), latency);
    } else if let Some(failed) = grpc_failure(answer.headers()) {
        traffic.record(!failed, latency);
    } else {
        exchange.count_at_end(Arc::clone(traffic), latency);
    }
}

fn gave_up(call: &Call, began: Instant, error: Error) -> Error {
    let ours = error.reason.status().is_server_error();
    call.service.traffic.record(!ours, began.elapsed());
    error
}

/// HTTP/1.1 connections in use to one endpoint beyond which HTTP/2 takes over.
const FEW: usize = 8;
