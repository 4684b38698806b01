//! `MeshService`: a service and what holds for all requests to it.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::forms;
use super::rules;
use super::schema::{Field, Shape};
use super::size::Size;

/// What a person writes of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What callers may ask of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Where its instances are learnt from. None: they register themselves, or are written as Instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// What to look up, with `discovery: dns`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// A virtual address of its own choice, `240.0.x.y`. None: one is chosen, and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
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
    /// Its API, for people to read and to try. None: nobody is shown it, and it is not asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ServiceApi>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Its number.
    pub port: u16,
    /// Its name, by which routes may mean it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the application speaks there. None: detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Whether callers of this port must prove who they are. None: as for the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
}

/// What an application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    Tcp,
    Tls,
}

/// What callers may ask of HTTP; what is left out has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Http {
    /// The protocols to which connections may be upgraded. None: websocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrades: Option<Vec<String>>,
    /// Whether CONNECT opens a tunnel. None: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<bool>,
    /// The longest body of a request. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Size>,
}

/// Where instances are learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Discovery {
    Registered,
    Static,
    Dns,
    Kubernetes,
}

/// One thing to look up: exactly one of host, srv and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// A host name, for its A and AAAA records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The name of an SRV record, which has hosts, ports and weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srv: Option<String>,
    /// An address that needs no looking up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port there. None: the port the caller meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Whether callers must prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Mtls {
    Strict,
    Permissive,
    Off,
}

/// What two sidecars speak between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Between {
    Auto,
    Http1,
    Http2,
}

/// How long things may take; what is left out has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// An answer after its head, whatever passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Duration>,
}

/// What is tried again; what is left out has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The longest pause before the first retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// The longest pause of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Duration>,
}

/// Where to read on about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// What is there.
    pub title: String,
    /// The address.
    pub url: String,
}

/// The API of a service, as it describes it itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceApi {
    /// Where its OpenAPI document is, in JSON: a path of the service.
    pub path: String,
    /// At which of its ports. None: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::new("hostnames", &Shape::List(&forms::HOSTNAME, 64)),
    Field::new("ports", &Shape::List(&PORT, 64)),
    Field::new("identities", &Shape::List(&forms::IDENTITY, 64)),
    Field::new("mtls", &Shape::Word(&["strict", "permissive", "off"])),
    Field::new("between", &Shape::Word(&["auto", "http1", "http2"])),
    Field::new("http", &HTTP),
    Field::new("discovery", &Shape::Word(&["registered", "static", "dns", "kubernetes"])),
    Field::new("targets", &TARGETS),
    Field::new("address", &Shape::Text(rules::virtual_address)),
    Field::new("timeouts", &TIMEOUTS),
    Field::new("retry", &RETRY),
    Field::new("owner", &forms::WORDS),
    Field::new("description", &forms::WORDS),
    Field::new("links", &Shape::List(&LINK, 32)),
    Field::new("api", &API),
]);

const API: Shape =
    Shape::Object(&[Field::required("path", &forms::PATH), Field::new("port", &Shape::Integer(1, 65_535))]);

const HTTP: Shape = Shape::Object(&[
    Field::new("upgrades", &Shape::List(&Shape::Text(rules::upgrade), 16)),
    Field::new("connect", &Shape::Bool),
    Field::new("maxBody", &forms::SIZE),
]);

pub(super) const TARGETS: Shape = Shape::List(
    &Shape::Object(&[
        Field::new("host", &forms::HOSTNAME),
        Field::new("srv", &Shape::Text(rules::srv)),
        Field::new("address", &Shape::Text(rules::ip)),
        Field::new("port", &Shape::Integer(1, 65_535)),
    ]),
    64,
);

pub(super) const PORT: Shape = Shape::Object(&[
    Field::required("port", &Shape::Integer(1, 65_535)),
    Field::new("name", &forms::LABEL),
    Field::new("protocol", &Shape::Word(&["http", "http2", "grpc", "tcp", "tls"])),
    Field::new("mtls", &Shape::Word(&["strict", "permissive", "off"])),
]);

pub(super) const TIMEOUTS: Shape = Shape::Object(&[
    Field::new("request", &forms::DURATION),
    Field::new("perTry", &forms::DURATION),
    Field::new("idle", &forms::DURATION),
    Field::new("connect", &forms::DURATION),
    Field::new("stream", &forms::DURATION),
]);

pub(super) const RETRY: Shape = Shape::Object(&[
    Field::new("retries", &Shape::Integer(0, 10)),
    Field::new("idempotent", &Shape::Bool),
    Field::new("budgetPercent", &Shape::Integer(0, 100)),
    Field::new("budgetFloor", &Shape::Integer(0, 1_000_000)),
    Field::new("replayBytes", &Shape::Integer(0, 16 << 20)),
    Field::new("backoff", &forms::ANY_DURATION),
    Field::new("maxBackoff", &forms::ANY_DURATION),
]);

const LINK: Shape = Shape::Object(&[
    Field::required("title", &forms::WORDS),
    Field::required("url", &Shape::Text(rules::link)),
]);
