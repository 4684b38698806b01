//! `TCPRoute`, exactly as the Gateway API (v1alpha2) writes it: where the connections to opaque ports go.
//!
//! The kind has no conditions. Whose connections it takes stands in the annotation [`CALLERS`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::http_route::{BackendRef, DEFAULT_GATEWAYS, PARENT, ParentRef, TCP_BACKEND};

use super::schema::{Field, Shape};

/// The annotation that says whose connections a route takes: `web, bank/batch`.
pub const CALLERS: &str = "outrigger.dev/callers";

/// What a person writes of a route for connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRoute {
    /// The services whose connections it takes.
    pub parent_refs: Vec<ParentRef>,
    /// Its rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<TcpRule>,
}

/// Where connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpRule {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where they go, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("parentRefs", &Shape::List(&PARENT, 32)),
    Field::new("useDefaultGateways", &DEFAULT_GATEWAYS),
    // Nothing would tell a second one from the first.
    Field::required("rules", &Shape::List(&RULE, 1)),
]);

const RULE: Shape = Shape::Object(&[
    Field::new("name", &forms::OBJECT_NAME),
    Field::required("backendRefs", &Shape::List(&TCP_BACKEND, 16)),
]);
