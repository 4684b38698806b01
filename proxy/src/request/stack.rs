//! The order of what happens around the attempts of a request, on one page.
//!
//! deposit -> (choose -> send within the deadline -> judge -> budget -> pause)* -> answer

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use outrigger_certs::Peer;
use outrigger_mesh::{Between, Port, Protocol, Reason, Timeouts, TokenTravel};
use tokio::time::{Instant, sleep};

use crate::attempt::endpoint_breaker::{self, of_answer, of_error};
use crate::attempt::exchange::{Exchange, grpc_failure};
use crate::attempt::send::{Answer, Outgoing, Ready, Speak, send};
use crate::breaker::Pass;
use crate::config::routes::RoutePlan;
use crate::config::snapshot::ServiceSnapshot;
use crate::error::Error;
use crate::http::body::{Replay, RequestBody, ResponseBody, UpstreamBody};
use crate::http::patience::Patience;
use crate::http::upgrade::Asked;
use crate::http::{expect, headers, reply};
use crate::live::{Live, LiveService, Millis};
use crate::request::affinity::Affinity;
use crate::request::bulkhead::Permit;
use crate::request::choose::{Aim, Chosen, choose, choose_now};
use crate::request::counted::Denied;
use crate::request::deadline::Deadline;
use crate::request::decided::Decided;
use crate::request::handle::Sake;
use crate::request::places::{self, Places};
use crate::request::retry::{self, Nature, Verdict};
use crate::telemetry::metrics::requests::{Ended, Parties, Series, Timed};
use crate::telemetry::observe::Note;
use crate::token::carry;
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
    /// What was decided of it.
    pub decided: Decided,
    /// What it is known by.
    pub affinity: Affinity,
    /// What kind of request it is.
    pub nature: Nature,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// For whose sake it is made.
    pub sake: Sake,
    /// Its limits.
    pub deadline: Deadline,
    /// Whether its caller waits for a word before it sends the body.
    pub expects: bool,
    /// Its body, if it has one.
    pub body: Option<Replay>,
    /// What its caller's connection shall become, where it is an upgrade.
    pub asked: Option<Asked>,
    /// When and how it came.
    pub arrival: Timed,
    /// Of the access log.
    pub note: Option<Rc<Note>>,
}

/// Runs the request: as many attempts as it takes and the rules allow.
///
/// No async fn, as [`dispatch`](super::dispatch) says.
#[allow(
    clippy::manual_async_fn,
    clippy::inline_always,
    reason = "an async fn keeps what it is given twice; not inlined, it is copied twice"
)]
#[inline(always)]
pub fn run(
    worker: &Worker,
    call: &mut Call,
    mut head: Outgoing,
) -> impl Future<Output = Result<Response<ResponseBody>, Error>> {
    async move {
        let began = call.arrival.began;
        let live = &worker.shared.live;
        call.service.budget.deposit(Millis::at(began.into_std()));
        let chance = fastrand::u64(..);
        let mut tried: Vec<u64> = Vec::new();
        let mut attempt = 1;
        let mut retried_for = None;
        let mut spent = Duration::ZERO;
        loop {
            let aim = Aim {
                service: &call.service,
                snapshot: &call.snapshot,
                plan: &call.plan,
                port: call.port,
                instance: call.instance,
                decided: &call.decided,
                affinity: &call.affinity,
            };
            let (chosen, room) = match choose_with_room(worker, call, aim, chance, &tried).await {
                Ok(chosen) => chosen,
                Err(error) => return Err(gave_up(live, call, None, began, error)),
            };
            if let Some(note) = &call.note {
                note.tries(attempt, &chosen.view.endpoint, chosen.place.address);
            }
            let kept = may_follow(call, attempt).then(|| head.keep());
            let sent = Instant::now();
            let mut outcome = try_once(worker, call, &chosen, (attempt, sent), head).await;
            if let Some(note) = &call.note {
                match &outcome {
                    Ok((answer, exchange)) => note.attempt_answered(answer, exchange.peer().map(Peer::id)),
                    Err(error) => note.attempt_failed(error),
                }
            }
            match &mut outcome {
                Ok((_, exchange)) => exchange.hold_places(Places::at_endpoint(room)),
                Err(_) => drop(room),
            }
            let verdict = match &outcome {
                Ok((answer, _)) => retry::judge_answer(
                    answer,
                    call.nature,
                    &call.plan.retry.codes,
                    chosen.place.secured.is_mesh(),
                ),
                Err(error) => retry::judge_error(error, call.nature),
            };
            let verdict = match &outcome {
                Ok((answer, _)) if verdict != Verdict::Keep && retry::is_rate_limited(answer) => {
                    let tried = [&tried[..], &[chosen.place.endpoint.id]].concat();
                    if chosen.alone(&tried) { retry::judge_last(answer) } else { verdict }
                }
                _ => verdict,
            };
            if let Some(cause) = retried_for {
                live.counted.retried(cause, outcome.is_ok() && verdict == Verdict::Keep);
            }
            let pause = match verdict {
                Verdict::Again { cause, after } => {
                    retried_for = Some(cause);
                    let pause = next_pause(call, attempt, after);
                    if let (Some(note), Ok(_)) = (&call.note, &pause) {
                        note.again(cause.as_str());
                    }
                    pause.map_err(|why| {
                        live.counted.denied(why);
                        Some(why)
                    })
                }
                Verdict::Keep => Err(None),
            };
            let endpoint = chosen.place.endpoint.id;
            match (outcome, pause, kept) {
                (failed, Ok(pause), Some(kept)) => {
                    tried.push(endpoint);
                    spent += sent.elapsed();
                    if failed.as_ref().is_err_and(Error::is_upstream) {
                        chosen.view.live.traffic.unanswered();
                    }
                    // Before the pause: its place in the endpoint's load and its connection go with it.
                    drop(failed);
                    live.counters.retries.fetch_add(1, Relaxed);
                    attempt += 1;
                    head = kept.again();
                    sleep(pause).await;
                }
                (outcome, pause, _) => {
                    let over_budget = pause == Err(Some(Denied::Budget));
                    if over_budget {
                        live.counters.retries_over_budget.fetch_add(1, Relaxed);
                    }
                    pass_up(live, call, attempt, over_budget, outcome.as_ref().ok());
                    return match outcome {
                        Ok(answer) => {
                            Ok(finish(live, call, &chosen, (began, sent, spent), answer, over_budget))
                        }
                        Err(mut error) => {
                            tried.push(endpoint);
                            if chosen.panic {
                                error.detail = format!(
                                    "{} (too few endpoints are well, all are chosen from)",
                                    error.detail
                                )
                                .into();
                            }
                            error.everywhere = error.reason == Reason::ConnectFailed
                                && chosen.is_nowhere_else(&call.service, &tried);
                            if over_budget {
                                // Its own reason says more than that the budget is spent.
                                error.detail = format!("{} (the retry budget is spent)", error.detail).into();
                            }
                            Err(gave_up(live, call, Some(&chosen), began, error))
                        }
                    };
                }
            }
        }
    }
}

/// Chooses an endpoint and takes a place there. Another worker may have had the last one in between: then it is chosen
/// anew, until it is clear that there is none.
async fn choose_with_room(
    worker: &Worker,
    call: &Call,
    aim: Aim<'_>,
    chance: u64,
    tried: &[u64],
) -> Result<(Chosen, Permit), Error> {
    for last in [false, false, false, true] {
        let chosen = choose_in_time(worker, call, aim, chance, tried).await?;
        if let Some(room) = places::at_endpoint(&chosen.place.endpoint) {
            return Ok((chosen, room));
        }
        if last {
            chosen.place.endpoint.bulkhead.count_rejected();
        }
    }
    Err(places::endpoints_full(aim.service))
}

/// An endpoint, unless there is no time left to ask it.
async fn choose_in_time(
    worker: &Worker,
    call: &Call,
    aim: Aim<'_>,
    chance: u64,
    tried: &[u64],
) -> Result<Chosen, Error> {
    let (whole, body) = (call.deadline.of_all_attempts(), call.body.as_ref());
    let late = |reason| Error::refused(reason, "too little time is left to ask anybody");
    whole.leaves_room(Duration::ZERO, body).map_err(late)?;
    if let Some(chosen) = choose_now(worker, aim, chance, tried)? {
        return Ok(chosen);
    }
    let chosen = pin!(choose(worker, aim, chance, tried));
    let chosen = whole.within(&worker.alarms, Instant::now(), body, Duration::ZERO, chosen).await?;
    whole.leaves_room(Duration::ZERO, body).map_err(late)?;
    Ok(chosen)
}

/// Whether anything could lead to another attempt after number `attempt`.
fn may_follow(call: &Call, attempt: u32) -> bool {
    attempt <= call.plan.retry.retries && call.sake.attempt <= 1
}

/// The pause before another attempt, if there may be one.
fn next_pause(call: &Call, attempt: u32, wish: Option<Duration>) -> Result<Duration, Denied> {
    let policy = &call.plan.retry;
    if attempt > policy.retries {
        return Err(Denied::Attempts);
    }
    if call.sake.attempt > 1 {
        // Whoever tries that request again would multiply each of our retries.
        return Err(Denied::Layer);
    }
    if !call.body.as_ref().is_none_or(Replay::can_repeat) {
        return Err(Denied::Body);
    }
    let pause =
        wish.unwrap_or_else(|| retry::backoff(policy, attempt, fastrand::f64())).max(policy.min_backoff);
    call.deadline.leaves_room(pause, call.body.as_ref()).map_err(|_| Denied::Time)?;
    let granted = call.service.budget.withdraw(policy, Millis::now());
    granted.then_some(pause).ok_or(Denied::Budget)
}

/// Tells the request for whose sake the call was made that trying is over: whoever sent it is not to begin anew.
fn pass_up(live: &Live, call: &Call, attempts: u32, over_budget: bool, answer: Option<&Answer>) {
    if !call.sake.is_somebodys() {
        return;
    }
    let further_down = answer.is_some_and(|(answer, _)| retry::was_retried(answer.headers()));
    if attempts > 1 || over_budget || further_down {
        call.sake.tried_again(&live.handles, attempts.max(2));
    }
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
    let auto = auto && !call.expects;
    match chosen.between {
        Between::Http2 => Speak::Http2,
        Between::Auto if auto => Speak::Http2,
        Between::Http1 | Between::Auto => Speak::Http1,
    }
}

/// One attempt, within what is left of the time.
#[allow(
    clippy::manual_async_fn,
    clippy::inline_always,
    reason = "an async fn keeps what it is given twice; not inlined, it is copied twice"
)]
#[inline(always)]
fn try_once(
    worker: &Worker,
    call: &Call,
    chosen: &Chosen,
    (attempt, began): (u32, Instant),
    mut head: Outgoing,
) -> impl Future<Output = Result<Answer, Error>> {
    async move {
        if let Some(filters) = &call.plan.filters {
            filters.change_for(chosen.backend, &mut head);
        }
        let (known, mesh) = (&worker.shared.live.tokens, chosen.place.secured.is_mesh());
        let exchanged = match chosen.travel {
            // Boxed: only the calls that want it pay for it.
            TokenTravel::Exchange { or_original } if mesh && call.sake.token.is_some() => {
                Box::pin(exchange(worker, call, chosen, or_original, &mut head.headers)).await
            }
            travel => {
                carry::outgoing(known, travel, mesh, call.sake.token.as_ref(), &mut head.headers);
                Ok(())
            }
        };
        if chosen.place.secured.is_mesh() {
            call.deadline.tell_mesh(&mut head.headers, &call.plan.deadline_header, call.body.as_ref());
            let attempt = call.sake.attempt.max(attempt);
            if attempt > 1 {
                head.headers.insert(headers::ATTEMPT, attempt.into());
            }
        }
        if let Some(note) = &call.note {
            note.write_trace(&mut head.headers);
        }
        if call.nature.grpc {
            call.deadline.tell_grpc(&mut head.headers, call.body.as_ref());
        }
        let body = call.body.as_ref().map_or(RequestBody::Empty, Replay::attempt);
        let pass = chosen.pass.take();
        let speak = speak(worker, call, chosen);
        let ready = match exchanged.and_then(|()| Ready::new(&chosen.place, speak, head, body)) {
            Ok(ready) => ready,
            Err(error) => return Err(failed(call, chosen, pass, error)),
        };
        let (alarms, sent) = (&worker.alarms, call.body.as_ref());
        let outcome = {
            let sending = pin!(send(&worker.mesh, &chosen.place, speak, ready));
            call.deadline.within(alarms, began, sent, Duration::ZERO, sending).await
        };
        match outcome {
            Ok(answer) => Ok(answered(call, chosen, pass, began, answer)),
            Err(error) => Err(failed(call, chosen, pass, error)),
        }
    }
}

/// Tells the breakers what an attempt was answered.
fn answered(
    call: &Call,
    chosen: &Chosen,
    pass: Pass,
    began: Instant,
    (answer, mut exchange): Answer,
) -> Answer {
    let callers = || matches!(call.deadline.next(began, call.body.as_ref()), Some((_, Reason::Deadline)));
    let (grpc, from_mesh) = (call.nature.grpc, chosen.place.secured.is_mesh());
    exchange.under(pass);
    let found = of_answer(&answer, grpc, from_mesh, exchange.latency(), callers);
    exchange.answered(found);
    match (chosen.watched.take(), found) {
        (Some(mut watched), Some(found)) => watched.note(found),
        (Some(watched), None) => exchange.watch(vec![watched]),
        (None, _) => {}
    }
    (answer, exchange)
}

/// Tells the breakers that an attempt failed.
fn failed(call: &Call, chosen: &Chosen, mut pass: Pass, error: Error) -> Error {
    let caller_gone = call.body.as_ref().is_some_and(Replay::is_broken);
    let found = of_error(&error, caller_gone);
    endpoint_breaker::note(&chosen.place.endpoint, &mut pass, found);
    if let Some(mut watched) = chosen.watched.take() {
        watched.note(found);
    }
    error
}

/// Puts a token of the mesh for the called service in place of the one that came in.
async fn exchange(
    worker: &Worker,
    call: &Call,
    chosen: &Chosen,
    or_original: bool,
    headers: &mut HeaderMap,
) -> Result<(), Error> {
    let live = &worker.shared.live;
    let Some(served) = carry::to_exchange(&live.tokens, call.sake.token.as_ref(), headers) else {
        return Ok(());
    };
    let service = &chosen.view.endpoint.service;
    let answer = match live.exchanges.find(served, service) {
        Ok(answer) => answer,
        Err(awaited) => {
            let (body, awaited) = (call.body.as_ref(), pin!(async { Ok(awaited.answer().await) }));
            call.deadline.within(&worker.alarms, Instant::now(), body, Duration::ZERO, awaited).await?
        }
    };
    carry::exchanged(answer, or_original, service, served, headers)
}

/// The answer as the application gets it.
fn finish(
    live: &Live,
    call: &mut Call,
    chosen: &Chosen,
    times: Times,
    (answer, mut exchange): Answer,
    over_budget: bool,
) -> Response<ResponseBody> {
    count(live, call, chosen, times, &answer, &mut exchange);
    let (mut head, incoming) = answer.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    if chosen.place.secured.is_mesh() {
        headers::remove_meant_for_us(&mut head.headers);
    } else {
        headers::remove_ours(&mut head.headers);
    }
    if !head.status.is_server_error() {
        call.affinity.tell(&call.plan, &call.snapshot, &chosen.view, chosen.stayed, &mut head.headers);
    }
    if over_budget {
        reply::mark_budget_spent(&mut head.headers);
    }
    if let Some(filters) = &call.plan.filters {
        filters.change_answer(chosen.backend, &mut head.headers);
    }
    expect::end_unless_sent(call.expects && !call.http2, call.body.as_ref(), &mut head.headers);
    let idle = call.plan.timeouts.idle.unwrap_or(Timeouts::IDLE);
    let patience = call.deadline.patience(idle);
    let limits = patience.tunnel();
    let body = |exchange| upstream_body(incoming, exchange, patience);
    match call.asked.take() {
        None => Response::from_parts(head, body(exchange)),
        Some(asked) => asked.answer(head, exchange, limits, false, body),
    }
}

/// The body of an answer; one that is empty ends its exchange here.
pub fn upstream_body(incoming: Incoming, mut exchange: Exchange, patience: Patience) -> ResponseBody {
    if http_body::Body::is_end_stream(&incoming) {
        exchange.finish();
        return ResponseBody::Empty;
    }
    ResponseBody::Upstream(UpstreamBody::new(incoming, exchange, patience))
}

/// When it began, when its last attempt did, and how long those before took.
type Times = (Instant, Instant, Duration);

fn count(
    live: &Live,
    call: &Call,
    chosen: &Chosen,
    (began, sent, spent): Times,
    answer: &Response<Incoming>,
    exchange: &mut Exchange,
) {
    let now = Instant::now();
    let (latency, traffic) = (now.saturating_duration_since(began), &chosen.view.live.traffic);
    let upstream = spent + now.saturating_duration_since(sent);
    let told = (call.nature.grpc, chosen.place.secured.is_mesh());
    let counts = counts(live, call, Some(chosen));
    let mut arrival = call.arrival;
    if let Some(trace) = call.note.as_ref().and_then(|note| note.kept_trace()) {
        arrival.traced(trace);
    }
    let timing = arrival.answered(counts, answer, (upstream, now), told);
    // What it becomes may last for days, and is no request.
    if call.asked.is_some()
        && (answer.status() == StatusCode::SWITCHING_PROTOCOLS || answer.status().is_success())
    {
        timing.end(Ended::Whole);
    } else {
        exchange.time(timing);
    }
    if !call.nature.grpc {
        traffic.record(!answer.status().is_server_error(), latency);
    } else if let Some(failed) = grpc_failure(answer.headers()) {
        traffic.record(!failed, latency);
    } else {
        exchange.count_at_end(Arc::clone(traffic), latency);
    }
}

/// Counts a request that has no answer: to where the last attempt went, if that was what failed.
fn gave_up(live: &Live, call: &Call, last: Option<&Chosen>, began: Instant, mut error: Error) -> Error {
    live.counted.ended(error.reason);
    let ours = error.reason.status().is_server_error();
    error.counts = Some(counts(live, call, last.filter(|_| error.is_upstream())));
    let last = last.filter(|_| error.is_upstream()).map(|chosen| &chosen.view.live.traffic);
    last.unwrap_or(&call.service.traffic).record(!ours, began.elapsed());
    error
}

/// Where it is counted: by the version that it came to, if it came to one.
fn counts(live: &Live, call: &Call, chosen: Option<&Chosen>) -> Arc<Series> {
    let endpoint = chosen.map(|chosen| &chosen.view.endpoint);
    let service = endpoint.map_or(&call.service.name, |endpoint| &endpoint.service);
    let version = endpoint.and_then(|endpoint| endpoint.version.as_ref());
    let plan = &call.plan;
    plan.requests.known(Some(service), version).unwrap_or_else(|| {
        let find = |who: Parties<'_>| plan.requests.to(&live.requests, who);
        live.client_requests(Some(service), version, plan.name.as_ref(), find)
    })
}

/// HTTP/1.1 connections in use to one endpoint beyond which HTTP/2 takes over.
const FEW: usize = 8;
