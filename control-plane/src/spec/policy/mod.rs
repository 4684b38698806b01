//! The settings of a traffic policy as a person writes them: every one may be left out, and is then what a wider layer
//! says (docs/resilience.md). How the layers become one is in `crate::policy`.

mod balance;
mod breaker;
mod limits;
mod tracing;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use balance::{Balance, BalanceAlgorithm, HashOn, HashSource, Locality, Sticky, StickyCookie, StickyTo};
pub use breaker::{BreakerMode, EndpointBreaker, FailureRatio, Fallback, ServiceBreaker, SlowCalls};
pub use limits::{
    Bulkhead, Bulkheads, Connections, EndpointBulkhead, GrpcProbe, HealthCheck, HttpProbe, RateBy, RateLimit,
    StatusRange, TcpProbe,
};
pub use tracing::{Sample, Tracing};

use super::schema::{Field, Shape};
use super::service::{RETRY, Retry, ServiceTimeouts, TIMEOUTS};

/// Every setting of a traffic policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySettings {
    /// How long things may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ServiceTimeouts>,
    /// What is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How an endpoint is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// When an endpoint is left alone for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_breaker: Option<EndpointBreaker>,
    /// Whether new endpoints get their share little by little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<bool>,
    /// When the whole is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_breaker: Option<ServiceBreaker>,
    /// How many requests may be under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulkhead: Option<Bulkheads>,
    /// How many connections may be open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// How endpoints are asked whether they are well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// How often something may be asked. They replace those of a wider layer as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<Vec<RateLimit>>,
    /// Which requests are traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
}

/// The fields of [`PolicySettings`], in an object of their own or among others.
macro_rules! settings_fields {
    ($($other:expr),* $(,)?) => {
        &[
            $($other,)*
            Field::new("timeouts", &TIMEOUTS),
            Field::new("retry", &RETRY),
            Field::new("balance", &$crate::spec::policy::BALANCE),
            Field::new("endpointBreaker", &$crate::spec::policy::ENDPOINT_BREAKER),
            Field::new("slowStart", &Shape::Bool),
            Field::new("serviceBreaker", &$crate::spec::policy::SERVICE_BREAKER),
            Field::new("bulkhead", &$crate::spec::policy::BULKHEADS),
            Field::new("connections", &$crate::spec::policy::CONNECTIONS),
            Field::new("healthCheck", &$crate::spec::policy::HEALTH_CHECK),
            Field::new("rateLimits", &$crate::spec::policy::RATE_LIMITS),
            Field::new("tracing", &$crate::spec::policy::TRACING),
        ]
    };
}

pub(super) use settings_fields;

pub(super) const BREAKER_MODE: Shape = breaker::MODE;
pub(super) const BALANCE: Shape = balance::SHAPE;
pub(super) const HASH: Shape = balance::HASH;
pub(super) const ENDPOINT_BREAKER: Shape = breaker::ENDPOINT;
pub(super) const SERVICE_BREAKER: Shape = breaker::SERVICE;
pub(super) const BULKHEADS: Shape = limits::BULKHEADS;
pub(super) const CONNECTIONS: Shape = limits::CONNECTIONS;
pub(super) const HEALTH_CHECK: Shape = limits::HEALTH_CHECK;
pub(super) const RATE_LIMITS: Shape = limits::RATE_LIMITS;
pub(super) const TRACING: Shape = tracing::SHAPE;

/// The settings by themselves.
pub(super) const SHAPE: Shape = Shape::Object(settings_fields![]);
