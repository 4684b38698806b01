//! What a service wants of its traffic: timeouts, retries, breakers, bulkheads, balancing, health checks and rate limits.
//! The values, their defaults and their checks. What a sidecar does with them stands in `proxy/src`; what a person writes,
//! and how the mesh, a service, a route and a caller override each other, in `control-plane/src`: by the time a policy has
//! become one of these, it is whole.

mod access;
mod balance;
mod breaker;
mod bulkhead;
mod health;
mod rate;
mod retry;
mod timeouts;
mod trace;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use access::{
    Access, AccessAction, AccessDefault, AccessHeader, AccessIndex, AccessPath, AccessPolicy,
    AccessPolicyName, AccessRule, AskedBy, Because, CallerMatch, Decision, RuleName,
};
pub use balance::{
    Algorithm, Balance, HashKey, Locality, SessionEnd, SigningKey, Sticky, StickyBy, StickyTo,
};
pub use breaker::{
    BreakerMode, BreakerOverride, EndpointBreaker, FailureRatio, Fallback, Recovery, ServiceBreaker,
    SlowCalls, Trip,
};
pub use bulkhead::{Bulkhead, Bulkheads, ConnectionLimits, Protection};
pub use health::{HealthCheck, Probe};
pub use rate::{RateKey, RateLimit};
pub use retry::RetryPolicy;
pub use timeouts::{Longest, Timeouts};
pub use trace::TraceShare;

use crate::identity::SpiffeId;

/// What holds for the requests to a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retry: RetryPolicy,
    /// When an endpoint is left alone for a while.
    pub endpoint_breaker: EndpointBreaker,
    /// When the whole service is.
    pub service_breaker: ServiceBreaker,
    /// How many requests may be under way.
    pub bulkheads: Bulkheads,
    /// How many connections may be open.
    pub connections: ConnectionLimits,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// How endpoints are asked whether they are well. Default: they are not, only their answers count.
    pub health: Option<HealthCheck>,
    /// How much of what begins a trace on its way there is kept. Default: what the sidecar was started with.
    pub traced: Option<TraceShare>,
}

impl TrafficPolicy {
    /// Refuses values that contradict each other.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that contradicts itself, at most one fault of each part.
    pub fn faults(&self) -> Vec<InvalidPolicy> {
        let parts = [
            self.timeouts.check(),
            self.retry.check(),
            self.endpoint_breaker.check(),
            self.service_breaker.check(),
            self.bulkheads.check(),
            self.connections.check(),
            self.balance.check(),
            self.health.as_ref().map_or(Ok(()), HealthCheck::check),
        ];
        parts.into_iter().filter_map(Result::err).collect()
    }
}

/// The policy of a service for some of its callers, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct CallerPolicy {
    /// Whose requests it holds for. A caller is in at most one such policy of a service.
    pub callers: Vec<SpiffeId>,
    /// What holds for them.
    pub policy: TrafficPolicy,
}

/// What a route wants besides timeouts and retries, which stand in the route itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutePolicy {
    /// A breaker of its own, in front of the service's.
    pub breaker: Option<ServiceBreaker>,
    /// A bulkhead of its own, in front of the service's.
    pub bulkhead: Option<Bulkhead>,
    /// How much of what begins a trace and takes it is kept, where that differs from the service's.
    pub traced: Option<TraceShare>,
}

impl RoutePolicy {
    /// Refuses values that contradict each other.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that contradicts itself, at most one fault of each part.
    pub fn faults(&self) -> Vec<InvalidPolicy> {
        let breaker = self.breaker.as_ref().map_or(Ok(()), ServiceBreaker::check);
        let bulkhead = self.bulkhead.as_ref().map_or(Ok(()), |b| b.check("bulkhead"));
        [breaker, bulkhead].into_iter().filter_map(Result::err).collect()
    }
}

/// Values of a policy that contradict each other or can not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPolicy {
    /// The setting, by the name it has in a written policy: `timeouts.perTry`.
    pub field: Cow<'static, str>,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl InvalidPolicy {
    pub(crate) fn new(field: &'static str, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }

    /// The same fault, of a setting that stands below `part`.
    fn below(self, part: impl fmt::Display) -> Self {
        Self { field: format!("{part}.{}", self.field).into(), ..self }
    }
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

impl std::error::Error for InvalidPolicy {}

/// A time that must be longer than zero.
fn positive(field: &'static str, time: Duration) -> Result<(), InvalidPolicy> {
    if time.is_zero() {
        return Err(InvalidPolicy::new(field, "must be longer than zero; leave it out for the default"));
    }
    Ok(())
}

/// A share in percent, at least `least`.
fn percent(field: &'static str, value: u32, least: u32) -> Result<(), InvalidPolicy> {
    if !(least..=100).contains(&value) {
        return Err(InvalidPolicy::new(field, format!("is a share in percent, {least} to 100, not {value}")));
    }
    Ok(())
}

/// A number that must not be 0.
fn counted(field: &'static str, value: u32) -> Result<(), InvalidPolicy> {
    if value == 0 {
        return Err(InvalidPolicy::new(field, "must be at least 1; leave it out for the default"));
    }
    Ok(())
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
        assert_eq!(timeouts(0, 1).check().unwrap_err().field, "timeouts.request");
        assert!(RetryPolicy { retries: 11, ..RetryPolicy::default() }.check().is_err());
        assert!(RetryPolicy { budget_percent: 101, ..RetryPolicy::default() }.check().is_err());
    }

    #[test]
    fn a_fault_names_the_setting_as_it_is_written() {
        let none = Trip { consecutive: Some(0), ..Trip::default() };
        let policy = TrafficPolicy {
            endpoint_breaker: EndpointBreaker { trip: Some(none.clone()), ..EndpointBreaker::default() },
            service_breaker: ServiceBreaker { trip: none, ..ServiceBreaker::default() },
            bulkheads: Bulkheads {
                service: Bulkhead { max_queue: u32::MAX, ..Bulkhead::default() },
                ..Bulkheads::default()
            },
            ..TrafficPolicy::default()
        };
        let fields: Vec<_> = policy.faults().into_iter().map(|e| e.field).collect();
        let expected = [
            "endpointBreaker.consecutiveFailures",
            "serviceBreaker.consecutiveFailures",
            "bulkhead.maxQueue",
        ];
        assert_eq!(fields, expected, "all parts at once");
    }
}
