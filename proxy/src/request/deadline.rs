//! How long a request may take: one deadline, everything else is derived from it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use outrigger_mesh::{Reason, Timeouts};
use tokio::time::Instant;

use crate::error::Error;
use crate::http::body::Replay;
use crate::http::headers;
use crate::http::patience::{Late, Patience};
use crate::request::alarms::Alarms;
use crate::request::handle::{Arrival, Sake};

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    started: Instant,
    /// From the end of the request's body to the head of the answer.
    request: Option<Duration>,
    per_try: Option<Duration>,
    /// From the head of the answer to its end.
    stream: Option<Duration>,
    /// When the caller itself gives up.
    caller: Option<Instant>,
    /// What it means when `request` is over.
    over: Reason,
    /// Whether `caller` is over the whole of the answer.
    grpc: bool,
}

/// A request's body, as far as it concerns the time: while the caller still sends it, the request's own limit has not
/// begun to run.
pub trait Sent {
    /// When its last byte came; `None` before.
    fn ended_at(&self) -> Option<Instant>;
}

impl Sent for Replay {
    fn ended_at(&self) -> Option<Instant> {
        Self::ended_at(self)
    }
}

impl Deadline {
    /// The limits of a request of the application. gRPC has no default: a unary and a streaming call look alike.
    pub fn new(timeouts: &Timeouts, grpc: bool, sake: &Sake) -> Self {
        let request = timeouts.request.or((!grpc).then_some(Timeouts::REQUEST));
        let (per_try, stream) = (timeouts.per_try, timeouts.stream);
        let (started, caller, over) = (sake.since, sake.end, Reason::TimeoutRequest);
        Self { started, request, per_try, stream, caller, over, grpc }
    }

    /// The limits of a request that came from a sidecar, which keeps to them itself. Here they see to it that the
    /// application is let go, too, and that nobody gets more than the service gives.
    pub fn of_arrival(arrival: &Arrival, stream: Option<Duration>, grpc: bool) -> Self {
        let (request, caller) = (arrival.limit, arrival.end);
        let (per_try, over) = (None, arrival.over);
        Self { started: arrival.at, request, per_try, stream, caller, over, grpc }
    }

    /// When the attempt that began at `attempt` is to be looked at again, and what it means if time is up then. While
    /// the caller still sends its body, the request's own limit has not begun to run.
    pub fn next(&self, attempt: Instant, body: Option<&impl Sent>) -> Option<(Instant, Reason)> {
        let ended = match body {
            None => self.started,
            Some(body) => body.ended_at().unwrap_or_else(Instant::now),
        };
        let request = self.request.and_then(|limit| Some((ended.checked_add(limit)?, self.over)));
        let since = ended.max(attempt);
        let per_try = self.per_try.and_then(|limit| Some((since.checked_add(limit)?, Reason::TimeoutTry)));
        let caller = self.caller.map(|at| (at, Reason::Deadline));
        [request, per_try, caller].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When the request as a whole is over, whatever its attempts may take.
    pub fn whole(&self, body: Option<&impl Sent>) -> Option<(Instant, Reason)> {
        self.of_all_attempts().next(Instant::now(), body)
    }

    /// What is awaited within an attempt that began at `attempt`, if it is there in time. `grace` is left beyond. It lies
    /// with whoever asks: moved in here, it would be copied for each request.
    pub async fn within<T>(
        &self,
        alarms: &Alarms,
        attempt: Instant,
        body: Option<&impl Sent>,
        grace: Duration,
        mut awaited: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        let (mut alarm, mut look_at) = (alarms.unset(), None);
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = awaited.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            loop {
                let next = look_at.or_else(|| self.next(attempt, body).map(|(at, _)| at + grace));
                look_at = next;
                let Some(at) = next else { return Poll::Pending };
                ready!(alarm.poll(at, cx));
                // It may only have been the moment to look again: the body has ended since, or has not.
                match self.next(attempt, body) {
                    Some((at, reason)) if at + grace <= Instant::now() => {
                        return Poll::Ready(Err(Error::upstream(reason, "no answer in time")));
                    }
                    next => look_at = next.map(|(at, _)| at + grace),
                }
            }
        })
        .await
    }

    /// The same limits without that of a single attempt.
    #[must_use]
    pub fn of_all_attempts(&self) -> Self {
        Self { per_try: None, ..*self }
    }

    /// Whether an attempt that began after `wait` could still be of use; else which limit is too near.
    pub fn leaves_room(&self, wait: Duration, body: Option<&impl Sent>) -> Result<(), Reason> {
        let then = Instant::now() + wait;
        match self.of_all_attempts().next(then, body) {
            Some((at, reason)) if at <= then + LEAST => Err(reason),
            _ => Ok(()),
        }
    }

    /// How long the answer may take whose head is there now.
    pub fn patience(&self, idle: Duration) -> Patience {
        let stream = self.stream.and_then(|limit| Some((Instant::now().checked_add(limit)?, Late::Stream)));
        let caller = self.caller.filter(|_| self.grpc).map(|at| (at, Late::Deadline));
        let until = [stream, caller].into_iter().flatten().min_by_key(|(at, _)| *at);
        Patience::new(idle, until, self.grpc)
    }

    /// What is left for whoever is asked next; `None` when nothing limits it.
    pub fn left(&self, body: Option<&impl Sent>) -> Option<Duration> {
        let since = body.map_or(Some(self.started), Sent::ended_at);
        let spent = since.map_or(Duration::ZERO, |since| since.elapsed());
        let request = self.request.map(|limit| limit.saturating_sub(spent));
        let caller = self.caller.map(|at| at.saturating_duration_since(Instant::now()));
        [request, caller].into_iter().flatten().min()
    }

    /// Tells the next hop what is left. `whole` stands for the route's limit while next to nothing of it was spent.
    pub fn tell_mesh(&self, headers: &mut HeaderMap, whole: &HeaderValue, body: Option<&impl Sent>) {
        let left = self.left(body);
        let nearly = |limit: Duration| left.is_some_and(|left| left + Duration::from_millis(1) > limit);
        let fresh = self.caller.is_none() && self.request.is_some_and(nearly);
        let value = match (self.request, left) {
            (_, None) => return,
            (Some(_), Some(_)) if fresh => whole.clone(),
            (_, Some(left)) => HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        };
        headers.insert(headers::DEADLINE, value);
    }

    /// Rewrites `grpc-timeout` to what is left, where there is a limit.
    pub fn tell_grpc(&self, headers: &mut HeaderMap, body: Option<&impl Sent>) {
        if let Some(left) = self.left(body)
            && let Ok(value) = HeaderValue::try_from(grpc_timeout(left))
        {
            headers.insert(headers::GRPC_TIMEOUT, value);
        }
    }
}

/// What the caller allows, by its `grpc-timeout`.
pub fn of_grpc_caller(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(headers::GRPC_TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What an authenticated peer says is left.
pub fn of_mesh_peer(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(headers::DEADLINE)?.to_str().ok()?;
    let all_digits = !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten().map(Duration::from_millis)
}

/// At most 8 digits, in the finest unit that holds them.
fn grpc_timeout(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    match left.as_micros() {
        micros if micros <= MOST => format!("{micros}u"),
        micros if micros / 1_000 <= MOST => format!("{}m", micros / 1_000),
        _ => format!("{}S", u128::from(left.as_secs()).min(MOST)),
    }
}

/// No attempt begins with less than this left.
const LEAST: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grpc(text: &str) -> Option<Duration> {
        of_grpc_caller(&HeaderMap::from_iter([(headers::GRPC_TIMEOUT, text.parse().unwrap())]))
    }

    #[test]
    fn a_grpc_timeout_is_read_by_its_rules() {
        assert_eq!(grpc("100m"), Some(Duration::from_millis(100)));
        assert_eq!(grpc("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "1", "-1m", "+1m", "123456789m", "1x", "1 m"] {
            assert_eq!(grpc(bad), None, "{bad}");
        }
    }

    const NONE: Option<&Replay> = None;

    fn sake(left: Option<Duration>) -> Sake {
        let mut sake = Sake::nobodys();
        sake.end = left.map(|left| sake.since + left);
        sake
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_limit_counts_and_says_which_it_was() {
        let timeouts = Timeouts { per_try: Some(Duration::from_secs(2)), ..Timeouts::default() };
        let deadline = Deadline::new(&timeouts, false, &sake(Some(Duration::from_secs(3))));
        let attempt = Instant::now();
        assert_eq!(deadline.next(attempt, NONE).unwrap().1, Reason::TimeoutTry);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(deadline.next(Instant::now(), NONE).unwrap().1, Reason::Deadline);
        assert_eq!(deadline.leaves_room(Duration::from_millis(994), NONE), Ok(()));
        assert_eq!(deadline.leaves_room(Duration::from_millis(995), NONE), Err(Reason::Deadline));
        assert_eq!(deadline.left(NONE), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn grpc_has_no_limit_unless_somebody_set_one() {
        let next = |grpc| Deadline::new(&Timeouts::default(), grpc, &sake(None)).next(Instant::now(), NONE);
        assert!(next(true).is_none());
        assert!(next(false).is_some());
    }

    /// A body that ends at a moment that is fixed beforehand.
    struct Ends(Instant);

    impl Sent for Ends {
        fn ended_at(&self) -> Option<Instant> {
            (self.0 <= Instant::now()).then_some(self.0)
        }
    }

    fn paused<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test)
    }

    proptest! {
        #[test]
        fn nothing_is_awaited_beyond_the_deadline(
            (request, per_try, caller) in (
                proptest::option::of(1_u64..3_000),
                proptest::option::of(1_u64..3_000),
                proptest::option::of(1_u64..5_000),
            ),
            body in proptest::option::of(0_u64..6_000),
            before in 0_u64..1_000,
            answer in 0_u64..9_000,
        ) {
            let ms = Duration::from_millis;
            paused(async {
                let began = Instant::now();
                let timeouts =
                    Timeouts { request: request.map(ms), per_try: per_try.map(ms), ..Timeouts::default() };
                let deadline = Deadline::new(&timeouts, true, &sake(caller.map(ms)));
                let body = body.map(|after| Ends(began + ms(after)));
                tokio::time::sleep(ms(before)).await;
                let attempt = Instant::now();
                let awaited = std::pin::pin!(async {
                    tokio::time::sleep(ms(answer)).await;
                    Ok(())
                });
                let outcome = deadline.within(&Alarms::default(), attempt, body.as_ref(), Duration::ZERO, awaited).await;
                // The limits again, as they stand in the documentation.
                let sent = body.as_ref().map_or(began, |b| b.0);
                let limits = [
                    request.map(|limit| sent + ms(limit)),
                    per_try.map(|limit| sent.max(attempt) + ms(limit)),
                    caller.map(|limit| began + ms(limit)),
                ];
                let end = limits.into_iter().flatten().min();
                let took = Instant::now();
                match (outcome, end) {
                    (Ok(()), _) => prop_assert_eq!(took, attempt + ms(answer)),
                    (Err(_), Some(end)) => {
                        prop_assert!(took >= end && end <= attempt + ms(answer), "cut before its time");
                    }
                    (Err(_), None) => prop_assert!(false, "cut without a limit"),
                }
                if let Some(end) = end {
                    prop_assert!(took <= end.max(attempt) + LEAST, "{:?} too late", took - end);
                }
                Ok(())
            })?;
        }
    }

    proptest! {
        #[test]
        fn what_we_write_we_read_and_it_never_grows(nanos in 0_u64..99_999_999_000_000_000) {
            let left = Duration::from_nanos(nanos);
            let read = grpc(&grpc_timeout(left)).unwrap();
            prop_assert!(read <= left && left.saturating_sub(read) < Duration::from_secs(1));
        }
    }
}
