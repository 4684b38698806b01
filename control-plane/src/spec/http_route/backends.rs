//! Where requests go, as the Gateway API writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::filters::{self, Filter};
use crate::spec::forms;
use crate::spec::rules;
use crate::spec::schema::{Field, Shape};

/// A share of a rule's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendRef {
    /// The group of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind: Service, MeshService or ServiceVersion. None: Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace. None: the route's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name; of a ServiceVersion `service.version`.
    pub name: String,
    /// Its port. None: the one that the caller meant, and at a gateway its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share. None: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// What is done to the requests that go there and to their answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

macro_rules! backend_fields {
    ($($other:expr),* $(,)?) => {
        &[
            Field::new("group", &Shape::Text(rules::group)),
            Field::new("kind", &forms::KIND),
            Field::new("namespace", &forms::LABEL),
            Field::required("name", &Shape::Text(rules::backend_name)),
            Field::new("port", &Shape::Integer(1, 65_535)),
            $($other,)*
        ]
    };
}

/// Without a share: who gets a copy.
pub(in crate::spec) const ALONE: Shape = Shape::Object(backend_fields![]);

/// With a share and filters.
pub(in crate::spec) const WITH_FILTERS: Shape = Shape::Object(backend_fields![
    Field::new("weight", &Shape::Integer(0, 1_000_000)),
    Field::new("filters", &Shape::List(&filters::HTTP, 16)),
]);

/// With a share, of calls of gRPC.
pub(in crate::spec) const GRPC: Shape = Shape::Object(backend_fields![
    Field::new("weight", &Shape::Integer(0, 1_000_000)),
    Field::new("filters", &Shape::List(&filters::GRPC, 16)),
]);

/// With a share and nothing else.
pub(in crate::spec) const WEIGHTED: Shape =
    Shape::Object(backend_fields![Field::new("weight", &Shape::Integer(0, 1_000_000))]);
