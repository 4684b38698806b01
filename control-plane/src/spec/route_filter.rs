//! `RouteFilter`: what a rule of a route does that the Gateway API has no word for. A rule names it by an `ExtensionRef`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_policy::{CALLER, CLAIM, Caller, Claim};
use super::duration::Duration;
use super::forms;
use super::http_route::{HEADER, HEADER as COOKIE, METHOD, Match, PATH, PathMatch, QUERY, ValueMatch};
use super::policy::{HASH, HashOn, RATE_LIMITS, RateLimit};
use super::rules;
use super::schema::{Field, Shape};
use super::size::Size;

/// What a person writes of it. Every part may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteFilter {
    /// Conditions that every match of the rule has besides its own.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub conditions: Option<OwnMatch>,
    /// A fault that is put in on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// The answer, without asking anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,
    /// How much may be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// By which key requests are divided among the backends, so that one key stays with one backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_by: Option<HashOn>,
    /// By which ranges of a key they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
}

/// Conditions that the Gateway API does not know; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OwnMatch {
    /// On claims of the verified token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// On who sends it: it is enough that one of them does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<Caller>,
    /// On cookies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<ValueMatch>,
    /// On labels of the instance that sends it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub source_labels: BTreeMap<String, String>,
}

/// A fault that is put in on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// How long a request waits first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// What it gets then instead of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// How many of a hundred requests. None: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Which requests. None: all of the rule.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub conditions: Option<FaultMatch>,
}

/// Conditions on the requests that meet a fault: those of an HTTPRoute, and our own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultMatch {
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
    /// On claims of the verified token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// On who sends it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<Caller>,
    /// On cookies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<ValueMatch>,
    /// On labels of the instance that sends it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub source_labels: BTreeMap<String, String>,
}

impl FaultMatch {
    /// The conditions of an HTTPRoute among them, and our own.
    pub fn parts(&self) -> (Match, OwnMatch) {
        let Self { path, headers, query_params, method, claims, callers, cookies, source_labels } =
            self.clone();
        (Match { path, headers, query_params, method }, OwnMatch { claims, callers, cookies, source_labels })
    }
}

/// What a request gets instead of an answer: one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Abort {
    /// This status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// This status of gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    /// A connection that is reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<bool>,
}

/// The answer of a rule that asks nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectResponse {
    /// Its status.
    pub status: u16,
    /// Its headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// How much may be asked along a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// The longest body of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Size>,
    /// How often each sidecar of a caller may ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RateLimit>,
}

/// Requests go by ranges of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Partition {
    /// The key.
    pub by: HashOn,
    /// The ranges; the first that holds a key counts.
    pub ranges: Vec<Range>,
}

/// A range of keys, with both its ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Range {
    /// Where it begins. None: with the first key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where it ends; whatever begins so belongs to it. None: with the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The backend, by its name in the rule's backendRefs.
    pub backend: String,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::new("match", &Shape::Object(&[CLAIMS, CALLERS, COOKIES, LABELS])),
    Field::new("fault", &FAULT),
    Field::new("directResponse", &DIRECT),
    Field::new("limits", &LIMITS),
    Field::new("splitBy", &HASH),
    Field::new("partition", &PARTITION),
]);

const CLAIMS: Field = Field::new("claims", &Shape::List(&CLAIM, 16));
const CALLERS: Field = Field::new("callers", &Shape::List(&CALLER, 64));
const COOKIES: Field = Field::new("cookies", &Shape::List(&COOKIE, 16));
const LABELS: Field = Field::new("sourceLabels", &Shape::Labels);

const FAULT: Shape = Shape::Object(&[
    Field::new("delay", &forms::DURATION),
    Field::new("abort", &ABORT),
    Field::new("percent", &Shape::Integer(0, 100)),
    Field::new(
        "match",
        &Shape::Object(&[
            Field::new("path", &PATH),
            Field::new("headers", &Shape::List(&HEADER, 16)),
            Field::new("queryParams", &Shape::List(&QUERY, 16)),
            Field::new("method", &METHOD),
            CLAIMS,
            CALLERS,
            COOKIES,
            LABELS,
        ]),
    ),
]);

const ABORT: Shape = Shape::Object(&[
    Field::new("httpStatus", &Shape::Integer(200, 599)),
    Field::new("grpcStatus", &Shape::Integer(0, 16)),
    Field::new("reset", &Shape::Bool),
]);

const DIRECT: Shape = Shape::Object(&[
    Field::required("status", &Shape::Integer(200, 599)),
    Field::new("headers", &Shape::Labels),
    Field::new("body", &Shape::Text(body)),
]);

fn body(text: &str) -> Result<(), String> {
    let most = outrigger_mesh::DirectResponse::LONGEST;
    if text.len() > most {
        Err(format!("a body has at most {most} bytes, this has {}", text.len()))
    } else {
        Ok(())
    }
}

const LIMITS: Shape =
    Shape::Object(&[Field::new("maxBody", &forms::SIZE), Field::new("requests", &RATE_LIMITS)]);

const PARTITION: Shape = Shape::Object(&[
    Field::required("by", &HASH),
    Field::required("ranges", &Shape::List(&RANGE, outrigger_mesh::Partition::MAX_RANGES)),
]);

const RANGE: Shape = Shape::Object(&[
    Field::new("from", &forms::WORDS),
    Field::new("to", &forms::WORDS),
    Field::required("backend", &Shape::Text(rules::backend_name)),
]);
