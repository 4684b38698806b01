//! `HTTPRoute`, exactly as the Gateway API (v1) writes it, with a Service, MeshService or Gateway as its parent (GAMMA).
//!
//! What the Gateway API has and the mesh can not do yet is named here and refused; nothing is ignored. The parts that
//! other kinds have too stand in files of their own.

mod backends;
mod filters;
mod matches;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use backends::BackendRef;
pub(super) use backends::{GRPC as GRPC_BACKEND, WEIGHTED as TCP_BACKEND};
pub(super) use filters::GRPC as GRPC_FILTER;
pub use filters::{
    CorsFilter, ExtensionRef, Filter, FilterType, FractionOf, HeaderFilter, HeaderValue, MirrorFilter,
    PathModifier, PathModifierType, RedirectFilter, RewriteFilter, Scheme,
};
pub(super) use matches::{HEADER, MATCH, METHOD, METHODS, PATH, QUERY};
pub use matches::{Match, PathMatch, PathMatchType, ValueMatch, ValueMatchType};

use super::duration::Duration;
use super::forms;
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The listener of a gateway, the port of a service by its name. None: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// The port of a gateway or a service. None: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A rule: any of its matches sends a request to its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What is done to requests and answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// How long it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeouts>,
    /// What is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RouteRetry>,
    /// Whether callers stay where they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// How long a request along a rule may take. Zero: as long as it likes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// The whole request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// What is tried again along a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteRetry {
    /// Statuses that are tried again, beside those that always are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// Attempts after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The pause before the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}

/// Keeps callers at the backend and the endpoint where they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SessionPersistence {
    /// The name of the cookie or header. None: one of the rule's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// When a session ends whatever happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// When it ends because nobody asked any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// What names the session. None: a cookie.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<SessionType>,
    /// More of the cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// What names a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum SessionType {
    Cookie,
    Header,
}

/// More of the cookie of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CookieConfig {
    /// How long it lives. None: as long as the browser's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_type: Option<CookieLifetime>,
}

/// How long a cookie lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum CookieLifetime {
    Session,
    Permanent,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("parentRefs", &Shape::List(&PARENT, 32)),
    Field::new("hostnames", &Shape::List(&rules::HOST_PATTERN, 16)),
    Field::new("useDefaultGateways", &DEFAULT_GATEWAYS),
    Field::required("rules", &Shape::List(&RULE, 16)),
]);

pub(super) const DEFAULT_GATEWAYS: Shape = Shape::Later("no gateway is a default; name it in parentRefs");

pub(super) const PARENT: Shape = Shape::Object(&[
    Field::new("group", &Shape::Word(&["", "outrigger.dev", "gateway.networking.k8s.io"])),
    Field::new("kind", &Shape::Word(&["Service", "MeshService", "Gateway"])),
    Field::new("namespace", &forms::LABEL),
    Field::required("name", &forms::LABEL),
    Field::new("sectionName", &forms::LABEL),
    Field::new("port", &Shape::Integer(1, 65_535)),
]);

const RULE: Shape = Shape::Object(&[
    Field::new("name", &forms::OBJECT_NAME),
    Field::new("matches", &Shape::List(&MATCH, 64)),
    Field::new("filters", &Shape::List(&filters::HTTP, 16)),
    Field::new("backendRefs", &Shape::List(&backends::WITH_FILTERS, 16)),
    Field::new("timeouts", &TIMEOUTS),
    Field::new("retry", &RETRY),
    Field::new("sessionPersistence", &SESSION),
]);

const TIMEOUTS: Shape = Shape::Object(&[
    Field::new("request", &forms::ANY_DURATION),
    Field::new("backendRequest", &forms::ANY_DURATION),
]);

const RETRY: Shape = Shape::Object(&[
    Field::new("codes", &Shape::List(&Shape::Integer(400, 599), 16)),
    Field::new("attempts", &Shape::Integer(1, 10)),
    Field::new("backoff", &forms::ANY_DURATION),
]);

pub(super) const SESSION: Shape = Shape::Object(&[
    Field::new("sessionName", &forms::HEADER_NAME),
    Field::new("absoluteTimeout", &forms::DURATION),
    Field::new("idleTimeout", &forms::DURATION),
    Field::new("type", &Shape::Word(&["Cookie", "Header"])),
    Field::new(
        "cookieConfig",
        &Shape::Object(&[Field::new("lifetimeType", &Shape::Word(&["Session", "Permanent"]))]),
    ),
]);
