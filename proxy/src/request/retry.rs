//! Whether an outcome is worth another attempt. No waiting and no counting here: what, when and how often are three
//! questions (here, [`backoff`], and `budget`).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Response, StatusCode, header};
use outrigger_mesh::{Reason, RetryPolicy};

use crate::error::Error;
use crate::http::glance::Glance;
use crate::http::headers;
use crate::request::counted::Cause;

/// What to do about an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the answer.
    Keep,
    /// Another attempt may do better. The server may have said when.
    Again {
        /// What makes it worth another.
        cause: Cause,
        /// The least time to wait.
        after: Option<Duration>,
    },
}

/// What kind of request is judged.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    /// Whether doing it twice is the same as doing it once.
    pub idempotent: bool,
    /// Whether it is gRPC.
    pub grpc: bool,
}

impl Nature {
    /// The nature of a request. `by_route` is what the route says.
    pub fn of(method: &Method, headers: &HeaderMap, seen: Glance, by_route: bool) -> Self {
        let by_method =
            [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
        let idempotent = by_route || by_method.contains(method) || seen.saw(Glance::IDEMPOTENCY_KEY);
        Self { idempotent, grpc: seen.saw(Glance::CONTENT_TYPE) && headers::is_grpc(headers) }
    }
}

/// Judges an answer. Only a mesh peer's word counts on whether the request was processed. `codes` are tried again beside
/// those that always are.
pub fn judge_answer<B>(answer: &Response<B>, nature: Nature, codes: &[u16], from_mesh: bool) -> Verdict {
    let all = answer.headers();
    let unprocessed = from_mesh && all.contains_key(headers::UNPROCESSED);
    let transient = if nature.grpc {
        all.get("grpc-status").is_some_and(|s| s == "14")
    } else {
        let status = answer.status();
        matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) || codes.contains(&status.as_u16())
    };
    if unprocessed {
        // A sidecar that took nothing speaks for its own instance; another may have room now.
        return Verdict::Again { cause: Cause::Refused, after: None };
    }
    if !transient || !nature.idempotent || (from_mesh && was_retried(all)) {
        return Verdict::Keep;
    }
    match wished_pause(all) {
        Some(pause) if pause > LONGEST_WISH => Verdict::Keep,
        after => Verdict::Again { cause: Cause::Answer, after },
    }
}

/// Judges the refusal by a rate limit where every instance has been asked: it holds until it says that it does not.
pub fn judge_last<B>(answer: &Response<B>) -> Verdict {
    match wished_pause(answer.headers()) {
        Some(pause) if pause <= LONGEST_WISH => Verdict::Again { cause: Cause::Refused, after: Some(pause) },
        _ => Verdict::Keep,
    }
}

/// Whether a sidecar refused for a rate limit.
pub fn is_rate_limited<B>(answer: &Response<B>) -> bool {
    let all = answer.headers();
    let limited = Reason::RateLimited.as_str();
    all.contains_key(headers::UNPROCESSED) && all.get(headers::REASON).is_some_and(|r| r == limited)
}

/// Whether an answer of a mesh peer was tried for more than once further down: one layer retries.
pub fn was_retried(answer: &HeaderMap) -> bool {
    answer.contains_key(headers::ATTEMPT)
}

/// Judges a failure.
pub fn judge_error(error: &Error, nature: Nature) -> Verdict {
    let maybe_processed = matches!(error.reason, Reason::UpstreamReset | Reason::TimeoutTry);
    let cause = match error.reason {
        Reason::ConnectFailed | Reason::TlsFailed => Cause::Connect,
        Reason::TimeoutTry => Cause::Timeout,
        Reason::UpstreamReset => Cause::Reset,
        _ => Cause::Refused,
    };
    if error.unprocessed || (maybe_processed && nature.idempotent) {
        Verdict::Again { cause, after: None }
    } else {
        Verdict::Keep
    }
}

/// How long to wait before retry number `retry` (from 1): full jitter above the shortest pause, so that those who failed
/// together do not come back together.
pub fn backoff(policy: &RetryPolicy, retry: u32, chance: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(retry.saturating_sub(1).min(16));
    let ceiling = policy.backoff.saturating_mul(doubled).min(policy.max_backoff);
    let above = ceiling.saturating_sub(policy.min_backoff);
    policy.min_backoff + above.mul_f64(chance.clamp(0.0, 1.0))
}

fn wished_pause(all: &HeaderMap) -> Option<Duration> {
    let number = |value: &http::HeaderValue| value.to_str().ok()?.trim().parse::<u64>().ok();
    if let Some(pushback) = all.get("grpc-retry-pushback-ms") {
        // A pushback that is no number, or negative, says: do not retry at all.
        return Some(number(pushback).map_or(Duration::MAX, Duration::from_millis));
    }
    let wish = all.get(header::RETRY_AFTER)?;
    let until = |date: &str| {
        let date = httpdate::parse_http_date(date.trim()).ok()?;
        // One that has passed says: now.
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    };
    number(wish).map(Duration::from_secs).or_else(|| until(wish.to_str().ok()?))
}

const LONGEST_WISH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Verdict = again(Cause::Answer);

    const fn again(cause: Cause) -> Verdict {
        Verdict::Again { cause, after: None }
    }

    fn nature(method: &str) -> Nature {
        Nature::of(&method.parse().unwrap(), &HeaderMap::new(), Glance::at(&HeaderMap::new()), false)
    }

    fn answer(status: u16, extra: &[(&'static str, &str)]) -> Response<()> {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer
            .headers_mut()
            .extend(extra.iter().map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())));
        answer
    }

    #[test]
    fn a_post_that_may_have_been_processed_is_never_repeated() {
        let post = nature("POST");
        let reset = Error::upstream(Reason::UpstreamReset, "");
        assert_eq!(judge_error(&reset, post), Verdict::Keep);
        assert_eq!(judge_error(&reset, nature("GET")), again(Cause::Reset));
        for status in [500, 502, 503, 504] {
            assert_eq!(judge_answer(&answer(status, &[]), post, &[], true), Verdict::Keep);
        }
    }

    #[test]
    fn what_was_certainly_not_processed_is_repeated_for_every_method() {
        let post = nature("POST");
        let connect = Error::not_sent(Reason::ConnectFailed, "");
        assert_eq!(judge_error(&connect, post), again(Cause::Connect));
        let marked = answer(503, &[("x-outrigger-unprocessed", "1")]);
        assert_eq!(judge_answer(&marked, post, &[], true), again(Cause::Refused));
        assert_eq!(judge_answer(&marked, post, &[], false), Verdict::Keep, "an application can not claim it");
    }

    #[test]
    fn a_get_is_repeated_after_what_may_pass_and_only_then() {
        for (status, expected) in [
            (200, Verdict::Keep),
            (404, Verdict::Keep),
            (500, Verdict::Keep),
            (502, AGAIN),
            (503, AGAIN),
            (504, AGAIN),
        ] {
            assert_eq!(judge_answer(&answer(status, &[]), nature("GET"), &[], false), expected, "{status}");
        }
    }

    #[test]
    fn a_server_that_wants_a_long_pause_is_not_asked_again() {
        let wait = |seconds: &'static str| {
            judge_answer(&answer(503, &[("retry-after", seconds)]), nature("GET"), &[], false)
        };
        let after =
            |seconds| Verdict::Again { cause: Cause::Answer, after: Some(Duration::from_secs(seconds)) };
        assert_eq!(wait("1"), after(1));
        assert_eq!(wait("2"), Verdict::Keep);
        let date = |at: SystemTime| {
            judge_answer(
                &answer(503, &[("retry-after", &httpdate::fmt_http_date(at))]),
                nature("GET"),
                &[],
                false,
            )
        };
        assert_eq!(date(SystemTime::now() + Duration::from_secs(60)), Verdict::Keep);
        assert_eq!(date(SystemTime::now() - Duration::from_secs(60)), after(0));
        assert_eq!(wait("soon"), AGAIN, "what can not be read was not said");
        let pushback = |ms| {
            let answer = answer(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", ms)]);
            judge_answer(&answer, Nature { idempotent: true, grpc: true }, &[], false)
        };
        let cause = Cause::Answer;
        assert_eq!(pushback("900"), Verdict::Again { cause, after: Some(Duration::from_millis(900)) });
        assert_eq!((pushback("-1"), pushback("1001")), (Verdict::Keep, Verdict::Keep));
    }

    #[test]
    fn what_was_retried_further_down_is_not_retried_again() {
        let marked = answer(503, &[("x-outrigger-attempt", "3")]);
        assert_eq!(judge_answer(&marked, nature("GET"), &[], true), Verdict::Keep);
        assert_eq!(
            judge_answer(&marked, nature("GET"), &[], false),
            AGAIN,
            "an application can not claim it"
        );
    }

    #[test]
    fn a_sidecar_that_took_nothing_does_not_make_another_instance_wait() {
        let full = answer(503, &[("x-outrigger-unprocessed", "1"), ("retry-after", "5")]);
        assert_eq!(judge_answer(&full, nature("POST"), &[], true), again(Cause::Refused));
    }

    #[test]
    fn a_grpc_call_is_not_idempotent_unless_somebody_says_so() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/grpc".parse().unwrap())]);
        let unavailable = answer(200, &[("grpc-status", "14")]);
        let call = Nature::of(&Method::POST, &headers, Glance::at(&headers), false);
        assert_eq!(judge_answer(&unavailable, call, &[], true), Verdict::Keep);
        assert_eq!(judge_answer(&unavailable, Nature { idempotent: true, ..call }, &[], true), AGAIN);
    }

    #[test]
    fn the_pause_grows_and_is_bounded() {
        let policy = RetryPolicy::default();
        assert_eq!(backoff(&policy, 1, 1.0), Duration::from_millis(25));
        assert_eq!(backoff(&policy, 2, 1.0), Duration::from_millis(50));
        assert_eq!(backoff(&policy, 30, 1.0), Duration::from_millis(250));
        assert_eq!(backoff(&policy, 3, 0.0), Duration::ZERO);
        let least = Duration::from_millis(20);
        let patient = RetryPolicy { min_backoff: least, ..policy.clone() };
        for retry in 1..9 {
            assert_eq!(backoff(&patient, retry, 0.0), least);
            assert_eq!(backoff(&patient, retry, 1.0), backoff(&policy, retry, 1.0));
        }
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let slow = RetryPolicy { backoff: first, max_backoff: longest, ..policy };
        assert_eq!((backoff(&slow, 1, 1.0), backoff(&slow, 9, 1.0)), (first, longest));
    }
}
