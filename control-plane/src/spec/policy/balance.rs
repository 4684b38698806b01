//! How an endpoint is chosen, as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::duration::Duration;
use crate::spec::forms;
use crate::spec::header::HeaderName;
use crate::spec::rules;
use crate::spec::schema::{Field, Shape};

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Balance {
    /// Among those that may be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<BalanceAlgorithm>,
    /// What is hashed, with `algorithm: maglev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashOn>,
    /// Whether the own zone comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// When fewer endpoints than this share are well, all of them are chosen from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_percent: Option<u32>,
    /// Whether callers stay where they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
}

/// Among the endpoints that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum BalanceAlgorithm {
    PeakEwma,
    RoundRobin,
    LeastRequest,
    Random,
    Maglev,
}

/// What is hashed: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HashOn {
    /// A header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// A cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// A query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// A claim of the verified token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Where the request comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<HashSource>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum HashSource {
    Identity,
    Address,
}

/// Whether the own zone comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Locality {
    PreferZone,
    Off,
}

/// Keeps callers where they were: by a cookie or a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sticky {
    /// False takes back what a wider layer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The cookie that names the place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<StickyCookie>,
    /// The header that names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// What the place is. None: an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<StickyTo>,
}

/// A cookie that names a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StickyCookie {
    /// Its name.
    pub name: String,
    /// How long it lives. None: as long as the browser's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
}

/// Where a caller stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum StickyTo {
    Endpoint,
    Subset,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::new("algorithm", &Shape::Word(&["peakEwma", "roundRobin", "leastRequest", "random", "maglev"])),
    Field::new("hash", &HASH),
    Field::new("locality", &Shape::Word(&["preferZone", "off"])),
    Field::new("panicPercent", &Shape::Integer(0, 100)),
    Field::new("sticky", &STICKY),
]);

pub(super) const HASH: Shape = Shape::Object(&[
    Field::new("header", &forms::HEADER_NAME),
    Field::new("cookie", &forms::HEADER_NAME),
    Field::new("claim", &Shape::Text(rules::claim)),
    Field::new("query", &forms::WORDS),
    Field::new("source", &Shape::Word(&["identity", "address"])),
]);

const STICKY: Shape = Shape::Object(&[
    Field::new("enabled", &Shape::Bool),
    Field::new("cookie", &COOKIE),
    Field::new("header", &forms::HEADER_NAME),
    Field::new("to", &Shape::Word(&["endpoint", "subset"])),
]);

const COOKIE: Shape =
    Shape::Object(&[Field::required("name", &forms::HEADER_NAME), Field::new("ttl", &forms::DURATION)]);
