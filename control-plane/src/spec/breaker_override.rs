//! `BreakerOverride`: what an operator says of a service breaker, for a while and with a reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::forms;
use super::moment::Time;
use super::policy::{BREAKER_MODE, BreakerMode};

use super::schema::{Field, Shape};

/// What a person writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerOverride {
    /// The service of the same namespace whose breaker it is.
    pub service: String,
    /// The breaker of this route. None: not that of a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Its kind. None: whichever of an HTTPRoute and a GRPCRoute takes the requests to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_kind: Option<OverrideRoute>,
    /// The breaker of this version. None: that of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it does.
    pub mode: BreakerMode,
    /// Until when. None: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// For how long; becomes `expiresAt` when it is written.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Duration>,
    /// Why.
    pub why: String,
}

/// The kinds of routes that have breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum OverrideRoute {
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("service", &forms::LABEL),
    Field::new("route", &forms::OBJECT_NAME),
    Field::new("routeKind", &Shape::Word(&["HTTPRoute", "GRPCRoute"])),
    Field::new("version", &forms::VERSION),
    Field::required("mode", &BREAKER_MODE),
    Field::new("expiresAt", &Shape::Text(moment)),
    Field::new("for", &forms::DURATION),
    Field::required("why", &forms::WORDS),
]);

fn moment(text: &str) -> Result<(), String> {
    Time::parse(text).map(drop)
}
