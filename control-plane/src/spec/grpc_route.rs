//! `GRPCRoute`, exactly as the Gateway API (v1) writes it. What it shares with `HTTPRoute` stands there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::http_route::{
    BackendRef, DEFAULT_GATEWAYS, Filter, GRPC_BACKEND, GRPC_FILTER, HEADER, PARENT, ParentRef, SESSION,
    SessionPersistence, ValueMatch,
};
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes of a route for gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRoute {
    /// The services whose calls it routes, or the gateways.
    pub parent_refs: Vec<ParentRef>,
    /// At a gateway: the host names it is for. None: all of the listener's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Its rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<GrpcRule>,
}

/// A rule: any of its matches sends a call to its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcRule {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What a call must look like. None: every call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcMatch>,
    /// What is done to calls and answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where it goes, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// Whether callers stay where they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// A conjunction of conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcMatch {
    /// On what is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodMatch>,
    /// On metadata.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
}

/// A condition on what is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MethodMatch {
    /// How it is compared.
    #[serde(rename = "type")]
    pub kind: MethodMatchType,
    /// The service with its package: `shop.Cart`. None: every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The method. None: every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// How what is called is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum MethodMatchType {
    #[default]
    Exact,
    RegularExpression,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("parentRefs", &Shape::List(&PARENT, 32)),
    Field::new("hostnames", &Shape::List(&rules::HOST_PATTERN, 16)),
    Field::new("useDefaultGateways", &DEFAULT_GATEWAYS),
    Field::required("rules", &Shape::List(&RULE, 16)),
]);

const RULE: Shape = Shape::Object(&[
    Field::new("name", &forms::OBJECT_NAME),
    Field::new("matches", &Shape::List(&MATCH, 64)),
    Field::new("filters", &Shape::List(&GRPC_FILTER, 16)),
    Field::new("backendRefs", &Shape::List(&GRPC_BACKEND, 16)),
    Field::new("sessionPersistence", &SESSION),
]);

const MATCH: Shape =
    Shape::Object(&[Field::new("method", &METHOD), Field::new("headers", &Shape::List(&HEADER, 16))]);

const METHOD: Shape = Shape::Object(&[
    Field::new("type", &Shape::Word(&["Exact", "RegularExpression"])),
    Field::new("service", &forms::WORDS),
    Field::new("method", &forms::WORDS),
]);
