//! A request before the breakers of its route and its service: it goes on, something else is answered in its place, or it
//! is refused.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use outrigger_mesh::{Fallback, Hop, Reason};
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::endpoint_breaker::of_answer;
use crate::config::routes::Taken;
use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::http::headers;
use crate::live::{Live, LiveService, Millis};
use crate::request::dispatch::{Arrived, Routed, answered_here};
use crate::request::service_breaker::{Passes, Shut};

/// What becomes of a request.
pub enum Entered {
    /// It goes on.
    Goes(Routed, Watch),
    /// It goes on to the service that stands in, along a route of that one, whose filters it has not met yet.
    Elsewhere(Routed, Watch),
    /// This is the answer.
    Answered(Box<Response<ResponseBody>>),
}

/// A request under the breakers of its service, until it is answered.
pub struct Watch {
    service: Arc<LiveService>,
    passes: Passes,
    began: Millis,
}

/// Brings a request before the breakers.
pub fn enter(routed: Routed, arrived: &mut Arrived, live: &Live) -> Result<Entered, Error> {
    let shut = match watch(&routed) {
        Ok(watch) => return Ok(Entered::Goes(routed, watch)),
        Err(shut) => shut,
    };
    match shut.fallback() {
        // A gRPC client could not read it.
        Some((Fallback::Response { status, headers, body }, _))
            if !headers::is_grpc(&arrived.parts.headers) =>
        {
            shut.took_fallback();
            let answer = Box::new(fixed(status, &headers, &body));
            answered_here(live, arrived, Some(&routed.service.name), &routed.plan, &answer);
            Ok(Entered::Answered(answer))
        }
        Some((Fallback::Service(_), Some(other))) => {
            let Some(instead) = elsewhere(other, &routed, arrived, live) else {
                return Err(refused(&routed, shut));
            };
            // Its own breaker holds. Its own fallback is not followed: two could lead to each other.
            let watch = watch(&instead).map_err(|shut| refused(&routed, shut))?;
            shut.took_fallback();
            Ok(Entered::Elsewhere(instead, watch))
        }
        _ => Err(refused(&routed, shut)),
    }
}

/// A request that is refused is one of the caller's requests, which failed.
fn refused(routed: &Routed, shut: Shut) -> Error {
    routed.service.traffic.record(false, Duration::ZERO);
    shut.refuse()
}

impl Watch {
    /// Notes what came of the request. Where only the end of the answer tells, that is waited for.
    pub fn leave(self, grpc: bool, outcome: &mut Result<Response<ResponseBody>, Error>) {
        let Self { service, passes, began } = self;
        match outcome {
            Err(error) => service.breakers.leave_failed(passes, error),
            Ok(answer) => {
                let now = Millis::now();
                let latency = Duration::from_millis(now.0.saturating_sub(began.0));
                // That the budget was spent explains an answer; the answer itself says how the service is.
                let reason = answer.headers().get(headers::REASON);
                let by_mesh = reason.is_some_and(|r| r != Reason::RetryBudget.as_str());
                match of_answer(answer, grpc, by_mesh, latency, || true) {
                    Some(outcome) => service.breakers.leave(passes, outcome, now),
                    None => {
                        if let ResponseBody::Upstream(body) = answer.body_mut() {
                            body.watch(service.breakers.later(passes));
                        }
                    }
                }
            }
        }
    }
}

fn watch(routed: &Routed) -> Result<Watch, Shut> {
    let service = Arc::clone(&routed.service);
    if let Some(shut) = versions_shut(routed) {
        return Err(shut);
    }
    let plan = &routed.plan;
    let began = Millis::now();
    let passes = service.breakers.enter(&service.name, plan.name.as_ref(), plan.breaker.as_ref(), began)?;
    Ok(Watch { service, passes, began })
}

/// The breaker that keeps a request out where those over all the versions it could go to do.
fn versions_shut(routed: &Routed) -> Option<Shut> {
    let mut last = None;
    for (at, target) in routed.plan.targets.iter().enumerate() {
        let version = target.version.as_ref()?;
        if routed.plan.split.takes(at) {
            let service = target.service.as_ref().unwrap_or(&routed.service);
            service.breakers.is_shut(version).then_some(())?;
            last = Some((service, version));
        }
    }
    let (service, version) = last?;
    service.breakers.shut_version(&service.name, version)
}

/// The request at the service that stands in; `None` where it can not be served there.
fn elsewhere(
    service: Arc<LiveService>,
    routed: &Routed,
    arrived: &mut Arrived,
    live: &Live,
) -> Option<Routed> {
    let snapshot = service.snapshot.load_full()?;
    let named = snapshot.service.port(Some(routed.port.number));
    let port = *named.or_else(|| snapshot.service.port(None))?;
    if port.protocol.is_opaque() {
        return None;
    }
    arrived.learn(live, snapshot.asks);
    let Taken { plan, prefix } = snapshot.route(port.number, &arrived.head(live))?;
    Some(Routed { service, snapshot, plan, prefix, port, instance: None })
}

fn fixed(status: u16, all: &[(HeaderName, HeaderValue)], body: &str) -> Response<ResponseBody> {
    let body = if body.is_empty() {
        ResponseBody::Empty
    } else {
        ResponseBody::Text(Bytes::copy_from_slice(body.as_bytes()))
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = answer.headers_mut();
    for (name, value) in all {
        headers.append(name, value.clone());
    }
    headers.insert(headers::REASON, HeaderValue::from_static(Reason::BreakerOpen.as_str()));
    headers.insert(headers::HOP, HeaderValue::from_static(Hop::Client.as_str()));
    answer
}
