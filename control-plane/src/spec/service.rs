//! `MeshService`: a service and what holds for all requests to it.

use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshService {
    /// Host names beside those every service has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Its ports; the first is meant where a caller names none. None: port 80.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Who may serve it: service accounts of its namespace, or whole SPIFFE ids. None: the account of its own name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Whether callers must prove who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
    /// What two sidecars speak between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between: Option<Between>,
    /// How long things may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ServiceTimeouts>,
    /// What is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whom to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where to read on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Its number.
    pub port: u16,
    /// What the application speaks there. None: detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// What an application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
}

/// Whether callers must prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Mtls {
    Strict,
    Permissive,
    Off,
}

/// What two sidecars speak between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Between {
    Auto,
    Http1,
    Http2,
}

/// How long things may take; what is left out has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceTimeouts {
    /// The whole request, all attempts included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Duration>,
    /// Silence of a stream in both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// Making a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
}

/// What is tried again; what is left out has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Whether requests are idempotent whatever their method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// Retries as a share of requests, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_percent: Option<u32>,
    /// Retries a second that are always allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_floor: Option<u32>,
    /// How much of a body is kept to be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_bytes: Option<u32>,
}

/// Where to read on about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// What is there.
    pub title: String,
    /// The address.
    pub url: String,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::new("hostnames", &Shape::List(&Shape::Text(rules::hostname), 64)),
    Field::new("ports", &Shape::List(&PORT, 64)),
    Field::new("identities", &Shape::List(&Shape::Text(rules::identity), 64)),
    Field::new("mtls", &Shape::Word(&["strict", "permissive", "off"])),
    Field::new("between", &Shape::Word(&["auto", "http1", "http2"])),
    Field::new("timeouts", &TIMEOUTS),
    Field::new("retry", &RETRY),
    Field::new("owner", &Shape::Text(rules::words)),
    Field::new("description", &Shape::Text(rules::words)),
    Field::new("links", &Shape::List(&LINK, 32)),
]);

const PORT: Shape = Shape::Object(&[
    Field::required("port", &Shape::Integer(1, 65_535)),
    Field::new("protocol", &Shape::WordSoFar(&["http", "http2", "grpc"], &["tcp", "tls"])),
]);

const TIMEOUTS: Shape = Shape::Object(&[
    Field::new("request", &Shape::Text(rules::duration)),
    Field::new("perTry", &Shape::Text(rules::duration)),
    Field::new("idle", &Shape::Text(rules::duration)),
    Field::new("connect", &Shape::Text(rules::duration)),
]);

const RETRY: Shape = Shape::Object(&[
    Field::new("retries", &Shape::Integer(0, 10)),
    Field::new("idempotent", &Shape::Bool),
    Field::new("budgetPercent", &Shape::Integer(0, 100)),
    Field::new("budgetFloor", &Shape::Integer(0, 1_000_000)),
    Field::new("replayBytes", &Shape::Integer(0, 16 << 20)),
]);

const LINK: Shape = Shape::Object(&[
    Field::required("title", &Shape::Text(rules::words)),
    Field::required("url", &Shape::Text(rules::link)),
]);
