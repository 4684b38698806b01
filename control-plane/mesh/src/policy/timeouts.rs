//! How long things may take.

use std::time::Duration;

use super::{InvalidPolicy, positive};

/// How long things may take. `None` means the default named at each field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request's body to the head of the response, all attempts included. Default 15 s; none by
    /// default for gRPC, where only the caller's `grpc-timeout` counts.
    pub request: Option<Duration>,
    /// The same of a single attempt. Default: what is left of the request.
    pub per_try: Option<Duration>,
    /// How long a stream may be silent in both directions. Default 300 s.
    pub idle: Option<Duration>,
    /// How long a connection may take to be made, TLS included. Default 1 s.
    pub connect: Option<Duration>,
    /// How long an answer may take after its head, whatever passes. Default: no limit, so that no download and no event
    /// stream is cut by a default.
    pub stream: Option<Duration>,
}

impl Timeouts {
    /// The default of `request`.
    pub const REQUEST: Duration = Duration::from_secs(15);
    /// The default of `idle`.
    pub const IDLE: Duration = Duration::from_mins(5);
    /// The default of `connect`.
    pub const CONNECT: Duration = Duration::from_secs(1);
    /// The longest that can be said of `request` and `per_try`, which is as good as no limit.
    pub const UNBOUNDED: Duration = Duration::from_hours(99_999);

    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        let all = [
            ("timeouts.request", self.request),
            ("timeouts.perTry", self.per_try),
            ("timeouts.idle", self.idle),
            ("timeouts.connect", self.connect),
            ("timeouts.stream", self.stream),
        ];
        all.into_iter()
            .filter_map(|(name, d)| Some((name, d?)))
            .try_for_each(|(name, d)| positive(name, d))?;
        match (self.per_try, self.request) {
            (Some(per_try), Some(request)) if per_try >= request => Err(InvalidPolicy::new(
                "timeouts.perTry",
                format!(
                    "{per_try:?} must be shorter than request ({request:?}), else no second attempt fits"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The same without a limit of an attempt that is none: routes may let an attempt take as long as the request.
    #[must_use]
    pub fn of_route(&self) -> Self {
        let limits = |per_try: &Duration| Some(*per_try) != self.request && *per_try != Self::UNBOUNDED;
        Self { per_try: self.per_try.filter(limits), ..self.clone() }
    }

    /// These, with what is not said here taken from `base`.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        Self {
            request: self.request.or(base.request),
            per_try: self.per_try.or(base.per_try),
            idle: self.idle.or(base.idle),
            connect: self.connect.or(base.connect),
            stream: self.stream.or(base.stream),
        }
    }
}

/// The longest that requests to a service may take, whoever makes them and along whatever route. The sidecar of the
/// service holds its callers to that: what a caller's own policy allows can only be less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Longest {
    /// From the end of the request's body to the head of the response.
    pub request: Duration,
    /// The same of gRPC; `None`: there is no limit.
    pub grpc: Option<Duration>,
    /// How long a body may be silent.
    pub idle: Duration,
    /// How long an answer may take after its head; `None`: there is no limit.
    pub stream: Option<Duration>,
}

impl Default for Longest {
    fn default() -> Self {
        Self::of(&Timeouts::default())
    }
}

impl Longest {
    /// What `timeouts` allow.
    pub fn of(timeouts: &Timeouts) -> Self {
        Self {
            request: timeouts.request.unwrap_or(Timeouts::REQUEST),
            grpc: timeouts.request,
            idle: timeouts.idle.unwrap_or(Timeouts::IDLE),
            stream: timeouts.stream,
        }
    }

    /// What is allowed by this or by `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let longer = |a: Option<Duration>, b: Option<Duration>| a.zip(b).map(|(a, b)| a.max(b));
        Self {
            request: self.request.max(other.request),
            grpc: longer(self.grpc, other.grpc),
            idle: self.idle.max(other.idle),
            stream: longer(self.stream, other.stream),
        }
    }

    /// Refuses what nothing could ever meet.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let some = [Some(self.request), self.grpc, Some(self.idle), self.stream];
        some.into_iter().flatten().try_for_each(|limit| positive("longest", limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_take_longest_says_how_long_it_may_take() {
        let seconds = Duration::from_secs;
        let short = Timeouts { request: Some(seconds(2)), stream: Some(seconds(9)), ..Timeouts::default() };
        let long = Timeouts { request: Some(seconds(60)), idle: Some(seconds(900)), ..Timeouts::default() };
        let both = Longest::of(&short).or(Longest::of(&long));
        assert_eq!((both.request, both.grpc), (seconds(60), Some(seconds(60))));
        assert_eq!((both.idle, both.stream), (seconds(900), None));
        let unsaid = Longest::of(&short).or(Longest::default());
        assert_eq!((unsaid.request, unsaid.grpc), (Timeouts::REQUEST, None));
    }
}
