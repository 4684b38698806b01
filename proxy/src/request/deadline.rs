//! How long a request may take: one deadline, everything else is derived from it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use outrigger_mesh::{Reason, Timeouts};
use tokio::time::Instant;

use crate::http::body::Replay;
use crate::http::headers;

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    started: Instant,
    /// From the end of the request's body to the head of the answer.
    request: Option<Duration>,
    per_try: Option<Duration>,
    /// When the caller itself gives up.
    caller: Option<Instant>,
}

impl Deadline {
    /// The limits of a request that begins now. gRPC has no default: a unary and a streaming call look alike.
    pub fn new(timeouts: &Timeouts, grpc: bool, caller: Option<Duration>) -> Self {
        let started = Instant::now();
        let request = timeouts.request.or((!grpc).then_some(Timeouts::REQUEST));
        // A deadline centuries away is none.
        let caller = caller.and_then(|left| started.checked_add(left));
        Self { started, request, per_try: timeouts.per_try, caller }
    }

    /// When the attempt that began at `attempt` is to be looked at again, and what it means if time is up then. While
    /// the caller still sends its body, the request's own limit has not begun to run.
    pub fn next(&self, attempt: Instant, body: Option<&Replay>) -> Option<(Instant, Reason)> {
        let ended = match body {
            None => self.started,
            Some(body) => body.ended_at().unwrap_or_else(Instant::now),
        };
        let request =
            self.request.and_then(|limit| Some((ended.checked_add(limit)?, Reason::TimeoutRequest)));
        let since = ended.max(attempt);
        let per_try = self.per_try.and_then(|limit| Some((since.checked_add(limit)?, Reason::TimeoutTry)));
        let caller = self.caller.map(|at| (at, Reason::Deadline));
        [request, per_try, caller].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When the request as a whole is over, whatever its attempts may take.
    pub fn whole(&self, body: Option<&Replay>) -> Option<(Instant, Reason)> {
        Self { per_try: None, ..*self }.next(Instant::now(), body)
    }

    /// Whether the time is really up, and not only the moment to look again.
    pub fn is_over(&self, attempt: Instant, body: Option<&Replay>) -> bool {
        self.next(attempt, body).is_some_and(|(at, _)| at <= Instant::now())
    }

    /// Whether an attempt that began after `wait` could still be of use.
    pub fn leaves_room(&self, wait: Duration, body: Option<&Replay>) -> bool {
        let then = Instant::now() + wait;
        let whole = Self { per_try: None, ..*self };
        whole.next(then, body).is_none_or(|(at, _)| at > then + LEAST)
    }

    /// What is left for whoever is asked next; `None` when nothing limits it.
    pub fn left(&self) -> Option<Duration> {
        let request = self.request.map(|limit| limit.saturating_sub(self.started.elapsed()));
        let caller = self.caller.map(|at| at.saturating_duration_since(Instant::now()));
        [request, caller].into_iter().flatten().min()
    }

    /// Tells the next hop what is left. `whole` stands for the route's limit while next to nothing of it was spent.
    pub fn tell_mesh(&self, headers: &mut HeaderMap, whole: &HeaderValue) {
        let fresh = self.caller.is_none() && self.started.elapsed() < Duration::from_millis(1);
        let value = match (self.request, self.left()) {
            (_, None) => return,
            (Some(_), Some(_)) if fresh => whole.clone(),
            (_, Some(left)) => HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        };
        headers.insert(headers::DEADLINE, value);
    }

    /// Rewrites `grpc-timeout` to what is left, where there is a limit.
    pub fn tell_grpc(&self, headers: &mut HeaderMap) {
        if let Some(left) = self.left()
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

    #[tokio::test(start_paused = true)]
    async fn the_earliest_limit_counts_and_says_which_it_was() {
        let timeouts = Timeouts { per_try: Some(Duration::from_secs(2)), ..Timeouts::default() };
        let deadline = Deadline::new(&timeouts, false, Some(Duration::from_secs(3)));
        let attempt = Instant::now();
        assert_eq!(deadline.next(attempt, None).unwrap().1, Reason::TimeoutTry);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(deadline.is_over(attempt, None));
        assert_eq!(deadline.next(Instant::now(), None).unwrap().1, Reason::Deadline);
        assert!(!deadline.leaves_room(Duration::from_millis(996), None));
        assert_eq!(deadline.left(), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn grpc_has_no_limit_unless_somebody_set_one() {
        assert!(Deadline::new(&Timeouts::default(), true, None).next(Instant::now(), None).is_none());
        assert!(Deadline::new(&Timeouts::default(), false, None).next(Instant::now(), None).is_some());
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
