//! Circuit breakers: failure-driven state machines. What counts as a failure is fixed (docs/resilience.md); here is when
//! they open, for how long, and how they close.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};

use super::{InvalidPolicy, counted, percent, positive};
use crate::name::{ServiceName, Version};
use crate::route::RouteName;

/// The breaker of each endpoint: passive health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointBreaker {
    /// What opens it; `None`: nothing ever does.
    pub trip: Option<Trip>,
    /// How long it stays open and how it closes.
    pub recovery: Recovery,
    /// Whether an endpoint that is new gets its share over [`Recovery::ramp`], too. Default: no.
    pub slow_start: bool,
    /// The most endpoints of a service that may be open at once, in percent; at least one may always be. Default 50.
    pub max_open_percent: u32,
    /// Whether all of them may be open at once, so that requests are refused at once. Default: no, the last one never is.
    pub allow_all_open: bool,
}

impl Default for EndpointBreaker {
    fn default() -> Self {
        Self {
            trip: Some(Trip::default()),
            recovery: Recovery::default(),
            slow_start: false,
            max_open_percent: 50,
            allow_all_open: false,
        }
    }
}

impl EndpointBreaker {
    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        let parts = self.trip.as_ref().map_or(Ok(()), Trip::check);
        let parts = parts.and_then(|()| self.recovery.check());
        let parts = parts.and_then(|()| percent("maxOpenPercent", self.max_open_percent, 1));
        parts.map_err(|e| e.below("endpointBreaker"))
    }
}

/// The breaker over all requests of a service, subset or route, for a total outage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBreaker {
    /// Whether it acts. Default: it observes.
    pub mode: BreakerMode,
    /// What opens it.
    pub trip: Trip,
    /// How long it stays open and how it closes.
    pub recovery: Recovery,
    /// What is answered while it is open, in place of 503.
    pub fallback: Option<Fallback>,
}

impl Default for ServiceBreaker {
    fn default() -> Self {
        Self {
            mode: BreakerMode::Observe,
            trip: Trip { connect_failures: None, ..Trip::default() },
            recovery: Recovery::default(),
            fallback: None,
        }
    }
}

impl ServiceBreaker {
    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        let parts = self.trip.check().and_then(|()| self.recovery.check());
        let parts = parts.and_then(|()| self.fallback.as_ref().map_or(Ok(()), Fallback::check));
        parts.map_err(|e| e.below("serviceBreaker"))
    }
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BreakerMode {
    /// It counts, and shows what it would do.
    #[default]
    Observe,
    /// It opens and closes by itself.
    Auto,
    /// It is open: nothing passes. For planned maintenance.
    ForceOpen,
    /// It is closed: everything passes.
    ForceClosed,
}

impl BreakerMode {
    /// The written form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Auto => "auto",
            Self::ForceOpen => "forceOpen",
            Self::ForceClosed => "forceClosed",
        }
    }
}

/// What opens a breaker: any of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Failures in a row. Default 5.
    pub consecutive: Option<u32>,
    /// Connections in a row that could not be made. Default 3.
    pub connect_failures: Option<u32>,
    /// A share of failures. Default: half of at least 10.
    pub ratio: Option<FailureRatio>,
    /// A share of slow answers. Default: none.
    pub slow: Option<SlowCalls>,
    /// The sliding time over which shares are counted, in ten buckets. Default 10 s.
    pub window: Duration,
}

impl Default for Trip {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            connect_failures: Some(3),
            ratio: Some(FailureRatio::default()),
            slow: None,
            window: Duration::from_secs(10),
        }
    }
}

impl Trip {
    fn check(&self) -> Result<(), InvalidPolicy> {
        self.consecutive.map_or(Ok(()), |n| counted("consecutiveFailures", n))?;
        self.connect_failures.map_or(Ok(()), |n| counted("connectFailures", n))?;
        if let Some(FailureRatio { percent: share, min_requests }) = self.ratio {
            percent("failureRatio.percent", share, 1)?;
            counted("failureRatio.minRequests", min_requests)?;
        }
        if let Some(SlowCalls { over, percent: share, min_requests }) = self.slow {
            positive("slowCalls.over", over)?;
            percent("slowCalls.percent", share, 1)?;
            counted("slowCalls.minRequests", min_requests)?;
        }
        if !(Duration::from_secs(1)..=Duration::from_mins(10)).contains(&self.window) {
            return Err(InvalidPolicy::new("window", format!("is 1 s to 10 min, not {:?}", self.window)));
        }
        if self.consecutive.is_none()
            && self.connect_failures.is_none()
            && self.ratio.is_none()
            && self.slow.is_none()
        {
            return Err(InvalidPolicy::new("trip", "nothing opens this breaker; turn it off instead"));
        }
        Ok(())
    }
}

/// A share of failures that opens a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRatio {
    /// The share. Default 50.
    pub percent: u32,
    /// Of at least so many requests. Default 10.
    pub min_requests: u32,
}

impl Default for FailureRatio {
    fn default() -> Self {
        Self { percent: 50, min_requests: 10 }
    }
}

/// A share of slow answers that opens a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCalls {
    /// What is slow, from the start of an attempt to the head of its answer.
    pub over: Duration,
    /// The share. Default 80.
    pub percent: u32,
    /// Of at least so many requests. Default 10.
    pub min_requests: u32,
}

/// How long a breaker stays open and how it closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How long it is open the first time; doubled with each trip in a row, jittered by half. Default 1 s.
    pub open: Duration,
    /// The longest it is open. Default 60 s.
    pub max_open: Duration,
    /// Probes in a row that must succeed, one at a time. Default 2.
    pub successes: u32,
    /// The time over which its share then grows from 10 % to all of it. Zero: at once. Default 10 s.
    pub ramp: Duration,
}

impl Default for Recovery {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { open: secs(1), max_open: secs(60), successes: 2, ramp: secs(10) }
    }
}

impl Recovery {
    fn check(&self) -> Result<(), InvalidPolicy> {
        positive("open", self.open)?;
        counted("successes", self.successes)?;
        if self.max_open < self.open {
            let what = format!("{:?} is shorter than open ({:?})", self.max_open, self.open);
            return Err(InvalidPolicy::new("maxOpen", what));
        }
        Ok(())
    }
}

/// What is answered while a service breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This.
    Response {
        /// The status, 200 to 599.
        status: u16,
        /// Headers besides those of every answer.
        headers: Vec<(HeaderName, HeaderValue)>,
        /// The body.
        body: Arc<str>,
    },
    /// What another service answers. Its own breaker holds; its own fallback is not followed.
    Service(ServiceName),
}

impl Fallback {
    /// The longest body, in bytes.
    pub const MAX_BODY: usize = 16 * 1024;

    fn check(&self) -> Result<(), InvalidPolicy> {
        let Self::Response { status, headers, body } = self else { return Ok(()) };
        if !(200..=599).contains(status) {
            return Err(InvalidPolicy::new("fallback.status", format!("is 200 to 599, not {status}")));
        }
        if body.len() > Self::MAX_BODY {
            let what = format!("has {} bytes, at most {} are allowed", body.len(), Self::MAX_BODY);
            return Err(InvalidPolicy::new("fallback.body", what));
        }
        if headers.len() > 32 {
            return Err(InvalidPolicy::new("fallback.headers", "has more than 32 headers"));
        }
        Ok(())
    }
}

/// What an operator has said of a service breaker. It holds over what the policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerOverride {
    /// Which route's breaker; `None`: not that of a route.
    pub route: Option<RouteName>,
    /// Which subset's breaker; `None`: that of the whole service.
    pub version: Option<Version>,
    /// What it does.
    pub mode: BreakerMode,
    /// Until when; `None`: until it is taken back. Sidecars end it by their own clocks, so that it ends while the control
    /// plane is away.
    pub until: Option<SystemTime>,
}

impl BreakerOverride {
    /// Whether it still holds.
    pub fn holds(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
