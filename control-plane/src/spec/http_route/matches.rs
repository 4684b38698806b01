//! What a request must look like, as the Gateway API writes it. Rate limits and rules for tokens write it so, too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::forms;
use crate::spec::rules;
use crate::spec::schema::{Field, Shape};

/// A conjunction of conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

/// A header, query parameter or cookie that must have such a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum ValueMatchType {
    #[default]
    Exact,
    RegularExpression,
}

pub(in crate::spec) const MATCH: Shape = Shape::Object(&[
    Field::new("path", &PATH),
    Field::new("headers", &Shape::List(&HEADER, 16)),
    Field::new("queryParams", &Shape::List(&QUERY, 16)),
    Field::new("method", &METHOD),
]);

pub(in crate::spec) const METHOD: Shape = Shape::Word(METHODS);

pub(in crate::spec) const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// What the value may be hangs on the type; the check of the route knows both.
pub(in crate::spec) const PATH: Shape = Shape::Object(&[
    Field::new("type", &Shape::Word(&["Exact", "PathPrefix", "RegularExpression"])),
    Field::new("value", &forms::WORDS),
]);

const TYPE: Shape = Shape::Word(&["Exact", "RegularExpression"]);

pub(in crate::spec) const HEADER: Shape = Shape::Object(&[
    Field::new("type", &TYPE),
    Field::required("name", &forms::HEADER_NAME),
    Field::required("value", &Shape::Text(rules::header_value)),
]);

pub(in crate::spec) const QUERY: Shape = Shape::Object(&[
    Field::new("type", &TYPE),
    Field::required("name", &forms::HEADER_NAME),
    Field::required("value", &forms::WORDS),
]);
