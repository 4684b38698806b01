//! `ReferenceGrant`, exactly as the Gateway API writes it: who of other namespaces may refer to what is in this one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes of a grant. Any of `from` may refer to any of `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceGrant {
    /// Who may.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// The objects of a kind in another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantFrom {
    /// The group of their kind.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// The objects of a kind in the grant's own namespace, or one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantTo {
    /// The group of its kind.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name. None: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("from", &Shape::List(&FROM, 16)),
    Field::required("to", &Shape::List(&TO, 16)),
]);

const FROM: Shape = Shape::Object(&[
    Field::required("group", &Shape::Text(rules::group)),
    Field::required("kind", &forms::KIND),
    Field::required("namespace", &forms::LABEL),
]);

const TO: Shape = Shape::Object(&[
    Field::required("group", &Shape::Text(rules::group)),
    Field::required("kind", &forms::KIND),
    Field::new("name", &forms::OBJECT_NAME),
]);
