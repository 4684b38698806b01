//! What an attempt says about the endpoint it went to: its failure, its success, or nothing.
//!
//! A failure is a connection or handshake that failed, a reset, an attempt that took too long, a 5xx other than 501, and
//! of gRPC's codes UNAVAILABLE, INTERNAL, DATA_LOSS and DEADLINE_EXCEEDED. Nothing is said by what the mesh refused on its
//! own, by a caller that went away, by a deadline that the caller itself set too short, and by a 429; any other 4xx is an
//! answer like any. That our own headers are taken off what an application answers is what makes the word of a mesh peer
//! believable.

use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, header};
use outrigger_mesh::Reason;
use serde_json::{Value, json};

use crate::attempt::exchange::grpc_failure;
use crate::breaker::{Breaker, Outcome, Pass};
use crate::error::{Error, Who};
use crate::http::headers;
use crate::live::{EndpointLive, Millis};

/// A failure about which nothing else is known.
pub const FAILURE: Outcome = Outcome::Failure { connect: false, retry_after: None };

/// What an answer says. `None` where its trailers will tell. `callers_deadline` says whether it is the caller's own deadline
/// that ends the attempt first.
pub fn of_answer<B>(
    answer: &Response<B>,
    grpc: bool,
    from_mesh: bool,
    latency: Duration,
    callers_deadline: impl FnOnce() -> bool,
) -> Option<Outcome> {
    let all = answer.headers();
    let reason = if from_mesh { all.get(headers::REASON) } else { None };
    if let Some(reason) = reason {
        let is = |r: &Reason| reason == r.as_str();
        if BUSY.iter().any(is) {
            return Some(Outcome::Busy);
        }
        if NEUTRAL.iter().any(is) || (is(&Reason::Deadline) && callers_deadline()) {
            return Some(Outcome::Neutral);
        }
    }
    let status = answer.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Some(Outcome::Busy);
    }
    let by_status = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    let failed = match (by_status, grpc) {
        (true, _) => true,
        (false, false) => false,
        (false, true) => grpc_failure(all)?,
    };
    Some(if failed {
        // Its sidecar is there, its application is not.
        let connect = reason.is_some_and(|r| r == Reason::ConnectFailed.as_str());
        Outcome::Failure { connect, retry_after: retry_after(all) }
    } else {
        Outcome::Success(latency)
    })
}

/// What a failure on the way says. `caller_gone`: the caller broke off.
pub fn of_error(error: &Error, caller_gone: bool) -> Outcome {
    if caller_gone || error.who != Who::Upstream || error.reason == Reason::Deadline {
        return Outcome::Neutral;
    }
    let connect = matches!(error.reason, Reason::ConnectFailed | Reason::TlsFailed);
    Outcome::Failure { connect, retry_after: None }
}

/// Tells the endpoint's breaker and its load.
pub fn note(endpoint: &EndpointLive, pass: &mut Pass, outcome: Outcome) {
    let now = Millis::now();
    match outcome {
        Outcome::Success(latency) => endpoint.load.succeeded(latency, now),
        // What refuses is quick because it does nothing: taken for fast, or for unknown, it would draw more than its share.
        Outcome::Failure { .. } | Outcome::Busy => endpoint.load.failed(now, fastrand::u64(..)),
        Outcome::Neutral => {}
    }
    let chance = if matches!(outcome, Outcome::Failure { .. }) { fastrand::u64(..) } else { u64::MAX };
    endpoint.breaker.note(pass, outcome, now, chance);
}

/// An endpoint that joins others begins with a share that grows, where its service wants that.
pub fn begin(endpoint: &EndpointLive) {
    let group = endpoint.breaker.group();
    if group.settings().slow_start && group.has_members() {
        endpoint.breaker.start_slowly(Millis::now());
    }
}

/// A breaker, for people.
pub fn dump(breaker: &Breaker, now: Millis) -> Value {
    let totals = breaker.totals(now);
    let wait = (breaker.phase() == crate::breaker::Phase::Open).then(|| breaker.wait(now).as_millis());
    json!({
        "state": breaker.phase().as_str(),
        "openForMillis": wait,
        "failuresInARow": breaker.in_a_row(),
        "window": {"requests": totals.all, "failures": totals.failed, "slow": totals.slow},
        "opened": breaker.opened(),
    })
}

/// When the server wants to be asked again.
fn retry_after(all: &HeaderMap) -> Option<Duration> {
    let number = all.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(number))
}

/// What a sidecar refuses on its own: that says nothing of the application behind it.
const NEUTRAL: [Reason; 11] = [
    Reason::RetryBudget,
    Reason::AuthzDenied,
    Reason::PeerUnauthenticated,
    Reason::NoRoute,
    Reason::UnknownService,
    Reason::BadRequest,
    Reason::HeaderTooLarge,
    Reason::PayloadTooLarge,
    Reason::UriTooLong,
    Reason::LoopDetected,
    Reason::UpgradeDenied,
];

/// Also that, and others may have room.
const BUSY: [Reason; 4] = [Reason::BulkheadFull, Reason::RateLimited, Reason::Overloaded, Reason::Draining];

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, extra: &[(&'static str, &'static str)]) -> Response<()> {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().extend(
            extra.iter().map(|(n, v)| (http::HeaderName::from_static(n), http::HeaderValue::from_static(v))),
        );
        answer
    }

    fn judged(answer: &Response<()>, grpc: bool, from_mesh: bool) -> Option<Outcome> {
        of_answer(answer, grpc, from_mesh, Duration::ZERO, || true)
    }

    const SUCCESS: Option<Outcome> = Some(Outcome::Success(Duration::ZERO));

    #[test]
    fn a_5xx_but_501_is_a_failure_and_a_4xx_is_not() {
        for (status, expected) in [
            (500, Some(FAILURE)),
            (501, SUCCESS),
            (503, Some(FAILURE)),
            (404, SUCCESS),
            (429, Some(Outcome::Busy)),
            (200, SUCCESS),
        ] {
            assert_eq!(judged(&answer(status, &[]), false, false), expected, "{status}");
        }
    }

    #[test]
    fn of_grpc_four_codes_are_failures_and_the_trailers_may_tell() {
        for (code, failed) in
            [("0", false), ("2", false), ("4", true), ("8", false), ("13", true), ("14", true), ("15", true)]
        {
            let answer = answer(200, &[("grpc-status", code)]);
            assert_eq!(judged(&answer, true, false), if failed { Some(FAILURE) } else { SUCCESS }, "{code}");
        }
        assert_eq!(judged(&answer(200, &[]), true, false), None);
    }

    #[test]
    fn what_the_mesh_refused_says_nothing_and_an_application_can_not_forge_it() {
        for (reason, expected) in [
            ("bulkhead_full", Outcome::Busy),
            ("overloaded", Outcome::Busy),
            ("draining", Outcome::Busy),
            ("authz_denied", Outcome::Neutral),
            ("deadline", Outcome::Neutral),
            ("retry_budget", Outcome::Neutral),
        ] {
            let refused = answer(503, &[("x-outrigger-reason", reason)]);
            assert_eq!(judged(&refused, false, true), Some(expected), "{reason}");
            assert_eq!(judged(&refused, false, false), Some(FAILURE), "{reason}");
        }
        let down = answer(502, &[("x-outrigger-reason", "connect_failed")]);
        let away = Outcome::Failure { connect: true, retry_after: None };
        assert_eq!(judged(&down, false, true), Some(away), "its application is away");
        let late = answer(504, &[("x-outrigger-reason", "deadline")]);
        assert_eq!(of_answer(&late, false, true, Duration::ZERO, || false), Some(FAILURE), "our own limit");
    }

    #[test]
    fn a_caller_that_went_away_or_was_in_a_hurry_says_nothing() {
        let error = |reason| Error::upstream(reason, "");
        assert_eq!(of_error(&error(Reason::Deadline), false), Outcome::Neutral);
        assert_eq!(of_error(&error(Reason::UpstreamReset), true), Outcome::Neutral);
        assert_eq!(of_error(&Error::refused(Reason::BulkheadFull, ""), false), Outcome::Neutral);
        for reason in [Reason::TimeoutTry, Reason::TimeoutRequest, Reason::UpstreamReset] {
            assert_eq!(of_error(&error(reason), false), FAILURE);
        }
        let connect = Outcome::Failure { connect: true, retry_after: None };
        assert_eq!(of_error(&Error::not_sent(Reason::ConnectFailed, ""), false), connect);
    }

    #[test]
    fn a_server_says_when_to_come_back() {
        let expected = Outcome::Failure { connect: false, retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(judged(&answer(503, &[("retry-after", "7")]), false, false), Some(expected));
    }
}
