//! `Rollout`: how one version of a service takes the place of another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ValueMatch;
use super::access_policy::{CALLER, CLAIM, Caller, Claim};
use super::duration::Duration;
use super::forms;
use super::header::HeaderName;
use super::http_route::{HEADER, METHODS};
use super::hundredths::Hundredths;
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// The service of the same namespace.
    pub service: String,
    /// By steps, or at once.
    pub strategy: Strategy,
    /// The version that has the traffic.
    pub stable: String,
    /// The version that shall have it.
    pub candidate: String,
    /// Of a canary: what the candidate gets, step by step. None: 1, 10, 50 and 100 percent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Of blue-green: how long only what matches sees the candidate before all does. None: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Duration>,
    /// Requests that see the candidate whatever its share is: any of these.
    #[serde(rename = "match", default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Preview>,
    /// By what a caller stays on its side while the share grows. None: by chance, each request anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyKey>,
    /// What the candidate must do to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<Gates>,
    /// What becomes of it when a gate fails. None: it goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Of blue-green: how long the old version is kept warm after the switch. None: 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_drain: Option<Duration>,
    /// How long the sidecars may take to acknowledge a step. None: 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout: Option<Duration>,
    /// How long the candidate may have no endpoint. None: 10 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout: Option<Duration>,
}

/// How one version takes the place of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Strategy {
    Canary,
    BlueGreen,
}

impl Strategy {
    /// The written word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::BlueGreen => "blueGreen",
        }
    }
}

/// What becomes of a rollout when a gate fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum OnFailure {
    #[default]
    Rollback,
    Pause,
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// What the candidate gets, in percent, with at most two decimals.
    pub weight: Hundredths,
    /// How long it gets that at least. None: 5 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
    /// What differs from the gates of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<Gates>,
}

/// Requests that see the candidate: all that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Preview {
    /// On headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// On claims of the verified token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// On cookies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<Cookie>,
    /// On who calls: any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<Caller>,
    /// On the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A cookie that must have this value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// The value wanted.
    pub value: String,
}

/// By what a caller stays on its side: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StickyKey {
    /// A header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// A cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// A claim of the verified token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// True: who the calling workload is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<bool>,
}

/// What the candidate must do to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gates {
    /// How many of its requests must succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessGate>,
    /// How fast it must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyGate>,
    /// Fewer requests than these say nothing. None: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u64>,
    /// What of the past counts. None: a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
}

/// How many requests must succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SuccessGate {
    /// At least so many percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Hundredths>,
    /// By how many points it may lie below that of the stable version: -0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with_stable: Option<Hundredths>,
}

/// How fast answers must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LatencyGate {
    /// Half of them within this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<Duration>,
    /// 99 of 100 within this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<Duration>,
    /// At most so many times those of the stable version: 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with_stable: Option<Hundredths>,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("service", &forms::LABEL),
    Field::required("strategy", &Shape::Word(&["canary", "blueGreen"])),
    Field::required("stable", &forms::VERSION),
    Field::required("candidate", &forms::VERSION),
    Field::new("steps", &Shape::List(&STEP, 32)),
    Field::new("preview", &forms::DURATION),
    Field::new("match", &Shape::List(&PREVIEW, 16)),
    Field::new("sticky", &STICKY),
    Field::new("gates", &GATES),
    Field::new("onFailure", &Shape::Word(&["rollback", "pause"])),
    Field::new("maxDrain", &forms::ANY_DURATION),
    Field::new("ackTimeout", &forms::DURATION),
    Field::new("readyTimeout", &forms::DURATION),
]);

const STEP: Shape = Shape::Object(&[
    Field::required("weight", &Shape::Decimal(1, 10_000)),
    Field::new("hold", &forms::ANY_DURATION),
    Field::new("gates", &GATES),
]);

const PREVIEW: Shape = Shape::Object(&[
    Field::new("headers", &Shape::List(&HEADER, 16)),
    Field::new("claims", &Shape::List(&CLAIM, 16)),
    Field::new("method", &Shape::Word(METHODS)),
    Field::new("cookies", &Shape::List(&COOKIE, 16)),
    Field::new("callers", &Shape::List(&CALLER, 64)),
]);

const COOKIE: Shape = Shape::Object(&[
    Field::required("name", &forms::HEADER_NAME),
    Field::required("value", &Shape::Text(rules::header_value)),
]);

const STICKY: Shape = Shape::Object(&[
    Field::new("header", &forms::HEADER_NAME),
    Field::new("cookie", &forms::HEADER_NAME),
    Field::new("claim", &Shape::Text(rules::claim)),
    Field::new("identity", &Shape::Bool),
]);

const GATES: Shape = Shape::Object(&[
    Field::new("successRate", &SUCCESS),
    Field::new("latency", &LATENCY),
    Field::new("minRequests", &Shape::Integer(1, 1_000_000)),
    Field::new("window", &forms::DURATION),
]);

const SUCCESS: Shape = Shape::Object(&[
    Field::new("min", &Shape::Decimal(0, 10_000)),
    Field::new("comparedWithStable", &Shape::Decimal(-10_000, 10_000)),
]);

const LATENCY: Shape = Shape::Object(&[
    Field::new("p50", &forms::DURATION),
    Field::new("p99", &forms::DURATION),
    Field::new("comparedWithStable", &Shape::Decimal(0, 100_000)),
]);
