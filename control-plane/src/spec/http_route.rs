//! `HTTPRoute`, exactly as the Gateway API (v1) writes it, with a Service or MeshService as its parent (GAMMA).
//!
//! What the Gateway API has and the mesh can not do yet is named here and refused; nothing is ignored.

use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    /// The services whose requests it routes, or the gateways.
    pub parent_refs: Vec<ParentRef>,
    /// At a gateway: the host names it is for. None: all of the listener's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Its rules. None: everything goes nowhere, which is never meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// A service whose requests a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// The group of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace. None: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The listener of a gateway. None: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// The port of a gateway. None: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A rule: any of its matches sends a request to its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What a request must look like. None: everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// Where it goes, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// How long it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeouts>,
}

/// A conjunction of conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// On the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// On headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// On query parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<ValueMatch>,
    /// On the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A condition on the path. The defaults of the Gateway API are written out when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// With what.
    #[serde(default = "root")]
    pub value: String,
}

fn root() -> String {
    "/".into()
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the written words")]
pub enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
}

/// A header or query parameter that must have exactly this value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Its name.
    pub name: String,
    /// The value wanted.
    pub value: String,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the written words")]
pub enum ValueMatchType {
    #[default]
    Exact,
}

/// A share of a rule's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// The group of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind: Service, MeshService or ServiceVersion. None: Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace. None: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name; of a ServiceVersion `service.version`.
    pub name: String,
    /// A port of it. The mesh keeps the port the caller meant, so it is only checked to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share. None: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// How long a request along a rule may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// The whole request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("parentRefs", &Shape::List(&PARENT, 32)),
    Field::new("hostnames", &Shape::List(&rules::HOST_PATTERN, 16)),
    Field::new("useDefaultGateways", &Shape::Later("gateways are not supported yet")),
    Field::required("rules", &Shape::List(&RULE, 16)),
]);

const PARENT: Shape = Shape::Object(&[
    Field::new("group", &Shape::Word(&["", "outrigger.dev", "gateway.networking.k8s.io"])),
    Field::new("kind", &Shape::Word(&["Service", "MeshService", "Gateway"])),
    Field::new("namespace", &Shape::Text(rules::label)),
    Field::required("name", &Shape::Text(rules::label)),
    Field::new("sectionName", &Shape::Text(rules::label)),
    Field::new("port", &Shape::Integer(1, 65_535)),
]);

const RULE: Shape = Shape::Object(&[
    Field::new("name", &Shape::Text(rules::object_name)),
    Field::new("matches", &Shape::List(&MATCH, 64)),
    Field::new("backendRefs", &Shape::List(&BACKEND, 16)),
    Field::new("timeouts", &TIMEOUTS),
    Field::new("filters", &Shape::Later("filters are not supported yet")),
    Field::new(
        "retry",
        &Shape::Later("retry rules of a route are not supported yet; a MeshService has them"),
    ),
    Field::new("sessionPersistence", &Shape::Later("session persistence is not supported yet")),
]);

pub(super) const MATCH: Shape = Shape::Object(&[
    Field::new("path", &PATH),
    Field::new("headers", &Shape::List(&HEADER, 16)),
    Field::new("queryParams", &Shape::List(&QUERY, 16)),
    Field::new("method", &Shape::Word(METHODS)),
]);

pub(super) const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

const PATH: Shape = Shape::Object(&[
    Field::new("type", &Shape::WordSoFar(&["Exact", "PathPrefix"], &["RegularExpression"])),
    Field::new("value", &Shape::Text(rules::path)),
]);

pub(super) const HEADER: Shape = Shape::Object(&[
    Field::new("type", &Shape::WordSoFar(&["Exact"], &["RegularExpression"])),
    Field::required("name", &Shape::Text(rules::header_name)),
    Field::required("value", &Shape::Text(rules::header_value)),
]);

const QUERY: Shape = Shape::Object(&[
    Field::new("type", &Shape::WordSoFar(&["Exact"], &["RegularExpression"])),
    Field::required("name", &Shape::Text(rules::header_name)),
    Field::required("value", &Shape::Text(rules::words)),
]);

const BACKEND: Shape = Shape::Object(&[
    Field::new("group", &Shape::Word(&["", "outrigger.dev"])),
    Field::new("kind", &Shape::Word(&["Service", "MeshService", "ServiceVersion"])),
    Field::new("namespace", &Shape::Text(rules::label)),
    Field::required("name", &Shape::Text(rules::backend_name)),
    Field::new("port", &Shape::Integer(1, 65_535)),
    Field::new("weight", &Shape::Integer(0, 1_000_000)),
    Field::new("filters", &Shape::Later("filters of a backend are not supported yet")),
]);

const TIMEOUTS: Shape = Shape::Object(&[
    Field::new("request", &Shape::Text(rules::duration)),
    Field::new("backendRequest", &Shape::Text(rules::duration)),
]);
