//! Circuit breakers, as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::duration::Duration;
use crate::spec::forms;

use crate::spec::schema::{Field, Shape};

/// The breaker of each endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EndpointBreaker {
    /// False: nothing opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Failures in a row that open it; 0: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// Connections in a row that could not be made; 0: they do not open it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_failures: Option<u32>,
    /// A share of failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<FailureRatio>,
    /// A share of slow answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<SlowCalls>,
    /// The sliding time over which shares are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// How long it is open the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<Duration>,
    /// The longest it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open: Option<Duration>,
    /// Probes in a row that must succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successes: Option<u32>,
    /// The time over which its share then grows to all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Duration>,
    /// The most endpoints of a service that may be open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_percent: Option<u32>,
    /// Whether all of them may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_all_open: Option<bool>,
}

/// The breaker over all requests of a service or a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceBreaker {
    /// Whether it acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<BreakerMode>,
    /// Failures in a row that open it; 0: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// Connections in a row that could not be made; 0: they do not open it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_failures: Option<u32>,
    /// A share of failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<FailureRatio>,
    /// A share of slow answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<SlowCalls>,
    /// The sliding time over which shares are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// How long it is open the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<Duration>,
    /// The longest it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open: Option<Duration>,
    /// Probes in a row that must succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successes: Option<u32>,
    /// The time over which its share then grows to all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Duration>,
    /// What is answered while it is open, in place of 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum BreakerMode {
    Observe,
    Auto,
    ForceOpen,
    ForceClosed,
}

impl From<BreakerMode> for outrigger_mesh::BreakerMode {
    fn from(mode: BreakerMode) -> Self {
        match mode {
            BreakerMode::Observe => Self::Observe,
            BreakerMode::Auto => Self::Auto,
            BreakerMode::ForceOpen => Self::ForceOpen,
            BreakerMode::ForceClosed => Self::ForceClosed,
        }
    }
}

/// A share of failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FailureRatio {
    /// The share; 0: it opens nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Of at least so many requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u32>,
}

/// A share of slow answers. Without `over` it opens nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SlowCalls {
    /// What is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over: Option<Duration>,
    /// The share; 0: it opens nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Of at least so many requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u32>,
}

/// What is answered while a breaker is open: an answer, or that of another service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fallback {
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers besides those of every answer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Another service of the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

macro_rules! trip_fields {
    ($($other:expr),* $(,)?) => {
        &[
            $($other,)*
            Field::new("consecutiveFailures", &Shape::Integer(0, 1_000_000)),
            Field::new("connectFailures", &Shape::Integer(0, 1_000_000)),
            Field::new("failureRatio", &RATIO),
            Field::new("slowCalls", &SLOW),
            Field::new("window", &forms::DURATION),
            Field::new("open", &forms::DURATION),
            Field::new("maxOpen", &forms::DURATION),
            Field::new("successes", &Shape::Integer(1, 1_000)),
            Field::new("ramp", &forms::ANY_DURATION),
        ]
    };
}

pub(super) const ENDPOINT: Shape = Shape::Object(trip_fields![
    Field::new("enabled", &Shape::Bool),
    Field::new("maxOpenPercent", &Shape::Integer(1, 100)),
    Field::new("allowAllOpen", &Shape::Bool),
]);

pub(super) const SERVICE: Shape =
    Shape::Object(trip_fields![Field::new("mode", &MODE), Field::new("fallback", &FALLBACK),]);

pub(in crate::spec) const MODE: Shape = Shape::Word(&["observe", "auto", "forceOpen", "forceClosed"]);

const RATIO: Shape = Shape::Object(&[
    Field::new("percent", &Shape::Integer(0, 100)),
    Field::new("minRequests", &Shape::Integer(1, 1_000_000)),
]);

const SLOW: Shape = Shape::Object(&[
    Field::new("over", &forms::DURATION),
    Field::new("percent", &Shape::Integer(0, 100)),
    Field::new("minRequests", &Shape::Integer(1, 1_000_000)),
]);

const FALLBACK: Shape = Shape::Object(&[
    Field::new("status", &Shape::Integer(200, 599)),
    Field::new("headers", &Shape::Labels),
    Field::new("body", &Shape::Text(any_text)),
    Field::new("service", &forms::LABEL),
]);

fn any_text(text: &str) -> Result<(), String> {
    let most = outrigger_mesh::Fallback::MAX_BODY;
    if text.len() > most {
        Err(format!("it has {} bytes, at most {most} are allowed", text.len()))
    } else {
        Ok(())
    }
}
