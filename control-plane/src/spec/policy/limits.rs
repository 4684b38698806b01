//! Bulkheads, connections, health checks and rate limits, as they are written.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::duration::Duration;
use crate::spec::forms;
use crate::spec::header::HeaderName;
use crate::spec::http_route::{MATCH, Match};
use crate::spec::rules;
use crate::spec::schema::{Field, Shape};
use crate::spec::written::as_text;

/// How many requests may be under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bulkheads {
    /// The most that are under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The most that wait for a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u32>,
    /// The longest one waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
    /// At one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointBulkhead>,
    /// Of each caller, at the sidecar of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Bulkhead>,
    /// The most long-lived streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<u32>,
}

/// How many requests may be under way at one endpoint. Nothing waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EndpointBulkhead {
    /// The most that are under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
}

/// A bulkhead with a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bulkhead {
    /// False takes back what a wider layer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The most that are under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The most that wait for a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u32>,
    /// The longest one waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
}

/// How many connections may be open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Connections {
    /// To each endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_endpoint: Option<u32>,
    /// To all endpoints of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_service: Option<u32>,
}

/// How endpoints are asked whether they are well: by one of `http`, `grpc` and `tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthCheck {
    /// False takes back what a wider layer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// A GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// `grpc.health.v1.Health/Check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// A connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// The service's port that is asked. None: its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// From one question to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long an answer may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Good answers in a row after which an endpoint is well again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<u32>,
    /// Bad ones in a row after which it is unwell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<u32>,
}

impl HealthCheck {
    /// Whether it says what is asked.
    pub fn has_probe(&self) -> bool {
        self.http.is_some() || self.grpc.is_some() || self.tcp.is_some()
    }
}

/// A GET.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// Of this path.
    pub path: String,
    /// The statuses that mean well. None: 200 to 299.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<StatusRange>,
}

/// A question to a gRPC server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcProbe {
    /// Of this service. None: of the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Whether a connection can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {}

/// Statuses from one to another: `200-399`, or one alone: `204`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(u16, u16);

impl StatusRange {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let read =
            |part: &str| part.parse::<u16>().ok().filter(|n| part.len() == 3 && (100..600).contains(n));
        match (read(low), read(high)) {
            (Some(low), Some(high)) if low <= high => Ok(Self(low, high)),
            _ => Err(format!("{:?} is not a range of statuses", text.chars().take(40).collect::<String>())),
        }
    }

    /// The lowest and the highest.
    pub fn ends(self) -> (u16, u16) {
        (self.0, self.1)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

as_text!(StatusRange);

/// How often something may be asked of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Its name, in metrics and answers.
    pub name: String,
    /// Which requests it counts. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// What has a bucket of its own. None: the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<RateBy>,
    /// With `by: header`, which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// With `by: claim`, which claim of the verified token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// So many requests...
    pub requests: u32,
    /// ...in this time.
    pub per: Duration,
    /// How many may come at once. None: as many as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// What has a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum RateBy {
    Service,
    Caller,
    Header,
    Claim,
}

const MOST: i64 = outrigger_mesh::Bulkhead::MOST as i64;

macro_rules! bulkhead_fields {
    ($($other:expr),* $(,)?) => {
        &[
            $($other,)*
            Field::new("maxInFlight", &Shape::Integer(1, MOST)),
            Field::new("maxQueue", &Shape::Integer(0, MOST)),
            Field::new("queueTimeout", &forms::DURATION),
        ]
    };
}

pub(super) const BULKHEADS: Shape = Shape::Object(bulkhead_fields![
    Field::new("endpoint", &Shape::Object(&[Field::new("maxInFlight", &Shape::Integer(1, MOST))])),
    Field::new("caller", &Shape::Object(bulkhead_fields![Field::new("enabled", &Shape::Bool)])),
    Field::new("maxStreams", &Shape::Integer(1, MOST)),
]);

pub(super) const CONNECTIONS: Shape = Shape::Object(&[
    Field::new("perEndpoint", &Shape::Integer(1, 1_000_000)),
    Field::new("perService", &Shape::Integer(1, 1_000_000)),
]);

pub(super) const HEALTH_CHECK: Shape = Shape::Object(&[
    Field::new("enabled", &Shape::Bool),
    Field::new("http", &HTTP),
    Field::new("grpc", &Shape::Object(&[Field::new("service", &forms::WORDS)])),
    Field::new("tcp", &Shape::Object(&[])),
    Field::new("port", &Shape::Integer(1, 65_535)),
    Field::new("interval", &forms::DURATION),
    Field::new("timeout", &forms::DURATION),
    Field::new("healthy", &Shape::Integer(1, 1_000)),
    Field::new("unhealthy", &Shape::Integer(1, 1_000)),
]);

const HTTP: Shape = Shape::Object(&[
    Field::required("path", &forms::PATH),
    Field::new("expect", &Shape::Like(statuses, "write two statuses in quotes, like \"200-399\"")),
]);

fn statuses(text: &str) -> Result<(), String> {
    StatusRange::parse(text).map(drop)
}

pub(super) const RATE_LIMITS: Shape = Shape::List(&RATE_LIMIT, outrigger_mesh::Protection::MAX_RATE_LIMITS);

const RATE_LIMIT: Shape = Shape::Object(&[
    Field::required("name", &forms::LABEL),
    Field::new("matches", &Shape::List(&MATCH, 64)),
    Field::new("by", &Shape::Word(&["service", "caller", "header", "claim"])),
    Field::new("header", &forms::HEADER_NAME),
    Field::new("claim", &Shape::Text(rules::claim)),
    Field::required("requests", &Shape::Integer(1, 1_000_000_000)),
    Field::required("per", &forms::DURATION),
    Field::new("burst", &Shape::Integer(1, 1_000_000_000)),
]);
