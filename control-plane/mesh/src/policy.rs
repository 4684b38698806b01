//! Timeouts and retry rules: the values and their checks. What a sidecar does with them stands in `proxy/src/request`.

use std::time::Duration;

/// What holds for the requests to a service or along a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retry: RetryPolicy,
}

impl TrafficPolicy {
    /// Refuses values that contradict each other.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        self.timeouts.check()?;
        self.retry.check()
    }
}

/// Values of a policy that contradict each other or can not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// An attempt would be given at least as long as the whole request.
    #[error("perTry ({per_try:?}) must be shorter than request ({request:?}), else no second attempt fits")]
    PerTryNotBelowRequest {
        /// The limit of one attempt.
        per_try: Duration,
        /// The limit of the request.
        request: Duration,
    },
    /// A limit of nothing.
    #[error("{0} must be longer than zero; leave it out for the default")]
    Zero(&'static str),
    /// More than the mesh ever repeats.
    #[error("at most {max} retries are allowed, {given} were asked for")]
    TooManyRetries {
        /// What was asked for.
        given: u32,
        /// The bound.
        max: u32,
    },
    /// A share beyond the whole.
    #[error("the retry budget is a share of requests in percent, 0 to 100, not {0}")]
    BudgetBeyondWhole(u32),
}

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
}

impl Timeouts {
    /// The default of `request`.
    pub const REQUEST: Duration = Duration::from_secs(15);
    /// The default of `idle`.
    pub const IDLE: Duration = Duration::from_mins(5);
    /// The default of `connect`.
    pub const CONNECT: Duration = Duration::from_secs(1);

    fn check(&self) -> Result<(), InvalidPolicy> {
        let all = [
            ("request", self.request),
            ("perTry", self.per_try),
            ("idle", self.idle),
            ("connect", self.connect),
        ];
        if let Some((name, _)) = all.into_iter().find(|(_, d)| *d == Some(Duration::ZERO)) {
            return Err(InvalidPolicy::Zero(name));
        }
        match (self.per_try, self.request) {
            (Some(per_try), Some(request)) if per_try >= request => {
                Err(InvalidPolicy::PerTryNotBelowRequest { per_try, request })
            }
            _ => Ok(()),
        }
    }

    /// These, with what is not said here taken from `base`.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        Self {
            request: self.request.or(base.request),
            per_try: self.per_try.or(base.per_try),
            idle: self.idle.or(base.idle),
            connect: self.connect.or(base.connect),
        }
    }
}

/// What is tried again. What was certainly not processed is always retried within these bounds, for every method;
/// what may have been processed only for idempotent requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first. Default 2.
    pub retries: u32,
    /// Whether the route's requests are idempotent whatever their method.
    pub idempotent: bool,
    /// Retries allowed as a share of the requests of the last 10 s, in percent. Default 20.
    pub budget_percent: u32,
    /// Retries a second that are allowed whatever the share. Default 3.
    pub budget_floor: u32,
    /// How much of a body is kept to be sent again. A larger one is sent once. Default 64 KiB.
    pub replay_bytes: u32,
}

impl RetryPolicy {
    /// No policy may ask for more.
    pub const MAX_RETRIES: u32 = 10;

    fn check(&self) -> Result<(), InvalidPolicy> {
        if self.retries > Self::MAX_RETRIES {
            return Err(InvalidPolicy::TooManyRetries { given: self.retries, max: Self::MAX_RETRIES });
        }
        if self.budget_percent > 100 {
            return Err(InvalidPolicy::BudgetBeyondWhole(self.budget_percent));
        }
        Ok(())
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 2, idempotent: false, budget_percent: 20, budget_floor: 3, replay_bytes: 64 * 1024 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let timeouts = |request, per_try| Timeouts {
            request: Some(Duration::from_secs(request)),
            per_try: Some(Duration::from_secs(per_try)),
            ..Timeouts::default()
        };
        assert!(timeouts(2, 1).check().is_ok());
        assert!(timeouts(2, 2).check().is_err());
        assert_eq!(timeouts(0, 1).check(), Err(InvalidPolicy::Zero("request")));
        assert!(RetryPolicy { retries: 11, ..RetryPolicy::default() }.check().is_err());
        assert!(RetryPolicy { budget_percent: 101, ..RetryPolicy::default() }.check().is_err());
    }
}
