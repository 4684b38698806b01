//! `Denylist`: tokens and identities that are no longer believed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::moment::Time;

use super::schema::{Field, Shape};

/// What a person writes of what is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Denylist {
    /// Tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<DeniedToken>,
    /// Workloads: service accounts of its namespace, or whole SPIFFE ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Tokens of which all of this is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeniedToken {
    /// Of this `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Of this `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Of this `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Issued before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<Time>,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::new("tokens", &Shape::List(&TOKEN, outrigger_mesh::Denylist::MAX_ENTRIES)),
    Field::new("identities", &Shape::List(&forms::IDENTITY, outrigger_mesh::Denylist::MAX_ENTRIES)),
    Field::new("why", &forms::WORDS),
]);

const TOKEN: Shape = Shape::Object(&[
    Field::new("issuer", &forms::WORDS),
    Field::new("jti", &forms::WORDS),
    Field::new("sub", &forms::WORDS),
    Field::new("issuedBefore", &Shape::Text(moment)),
]);

fn moment(text: &str) -> Result<(), String> {
    Time::parse(text).map(drop)
}
