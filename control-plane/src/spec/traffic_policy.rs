//! `TrafficPolicy`: what holds for the requests to a service, along a route, or of some callers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::forms;
use super::policy::{PolicySettings, settings_fields};

use super::schema::{Field, Shape};
use super::service::{RETRY, TIMEOUTS};

/// What a person writes of a policy. The settings stand beside its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// What it holds for.
    pub target_ref: TargetRef,
    /// Of a service: only the requests of these callers, service accounts of its namespace or whole SPIFFE ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// What it says.
    #[serde(flatten)]
    pub settings: PolicySettings,
}

/// What a policy holds for, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// The group of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// The rule of a route, by its name. None: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// The kinds a policy can hold for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum TargetKind {
    Service,
    MeshService,
    EgressService,
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
}

impl TargetKind {
    /// The kind of route that it is, if it is one.
    pub fn route(self) -> Option<Kind> {
        match self {
            Self::Service | Self::MeshService | Self::EgressService => None,
            Self::HttpRoute => Some(Kind::HttpRoute),
            Self::GrpcRoute => Some(Kind::GrpcRoute),
        }
    }

    /// The group it is in.
    pub fn group(self) -> &'static str {
        match self {
            Self::Service => "",
            Self::MeshService | Self::EgressService => "outrigger.dev",
            Self::HttpRoute | Self::GrpcRoute => "gateway.networking.k8s.io",
        }
    }
}

pub(super) const SHAPE: Shape = Shape::Object(settings_fields![
    Field::required("targetRef", &TARGET),
    Field::new("callers", &Shape::List(&forms::IDENTITY, 256)),
]);

const TARGET: Shape = Shape::Object(&[
    Field::new("group", &Shape::Word(&["", "outrigger.dev", "gateway.networking.k8s.io"])),
    Field::required(
        "kind",
        &Shape::WordSoFar(
            &["Service", "MeshService", "EgressService", "HTTPRoute", "GRPCRoute"],
            &["Gateway"],
        ),
    ),
    Field::required("name", &forms::OBJECT_NAME),
    Field::new("sectionName", &forms::OBJECT_NAME),
    Field::new("namespace", &Shape::Later("a policy holds for what is in its own namespace")),
]);
