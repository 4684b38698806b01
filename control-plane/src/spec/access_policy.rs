//! `AccessPolicy`: who may ask what of services.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use super::rules;
use super::schema::{Field, Shape};

/// What a person writes of who may ask what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessPolicy {
    /// The services it is for, of its own namespace. None: all of them; in the namespace `outrigger`, all of the mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<AccessTarget>,
    /// What becomes of requests for which one of the rules holds.
    pub action: AccessAction,
    /// The rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<AccessRule>,
}

/// A service that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessTarget {
    /// The group of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What becomes of requests for which a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum AccessAction {
    Allow,
    Deny,
    Audit,
}

/// A conjunction; within a list it is enough that one entry holds, but of headers all must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessRule {
    /// Its name. None: its place, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Caller>,
    /// At which ports of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// By which method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// For which path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Path>,
    /// With which headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// With which claims of a verified token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
}

/// Who asks, in one of several ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Caller {
    /// A whole SPIFFE id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// A service account of the mesh: of the policy's namespace, or `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// All of a namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// All of a trust domain; with `namespace`, all of that namespace there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// Everybody who has proven an identity, or who has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<Proof>,
}

/// Whether a caller has proven an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Proof {
    Authenticated,
    Unauthenticated,
}

/// A path, in one of three ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Path {
    /// The whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Its first segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The whole path, `{name}` being one segment of any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// The values of which it must have one. None: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// A claim of a verified token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claim {
    /// Its name; of a claim within a claim, the names joined by dots.
    pub claim: String,
    /// The values of which it must have one; of a list, one of its values must be. None: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What holds in the whole mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshAccess {
    /// What becomes of requests of which no policy says anything. None: they pass.
    #[serde(rename = "default", skip_serializing_if = "Option::is_none")]
    pub by_default: Option<ByDefault>,
}

/// What becomes of requests of which no policy says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum ByDefault {
    Allow,
    Deny,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::new("targetRefs", &Shape::List(&TARGET, 64)),
    Field::required("action", &Shape::Word(&["allow", "deny", "audit"])),
    Field::new("rules", &Shape::List(&RULE, 256)),
]);

pub(super) const MESH: Shape = Shape::Object(&[Field::new("default", &Shape::Word(&["allow", "deny"]))]);

const TARGET: Shape = Shape::Object(&[
    Field::new("group", &Shape::Word(&["", "outrigger.dev"])),
    Field::required(
        "kind",
        &Shape::WordSoFar(&["Service", "MeshService"], &["EgressService", "Gateway", "HTTPRoute"]),
    ),
    Field::required("name", &forms::LABEL),
    Field::new("namespace", &Shape::Later("a policy is for services of its own namespace")),
]);

const RULE: Shape = Shape::Object(&[
    Field::new("name", &forms::LABEL),
    Field::new("from", &Shape::List(&CALLER, 256)),
    Field::new("ports", &Shape::List(&Shape::Integer(1, 65_535), 64)),
    Field::new("methods", &Shape::List(&Shape::Like(method, "write it as it is sent, like GET"), 64)),
    Field::new("paths", &Shape::List(&PATH, 64)),
    Field::new("headers", &Shape::List(&HEADER, 64)),
    Field::new("claims", &Shape::List(&CLAIM, 64)),
]);

pub(super) const CALLER: Shape = Shape::Object(&[
    Field::new(
        "identity",
        &Shape::Like(whole_identity, "write spiffe://<trust domain>/ns/<namespace>/sa/<account>"),
    ),
    Field::new(
        "serviceAccount",
        &Shape::Like(account, "write the name of a service account, or namespace/name"),
    ),
    Field::new("namespace", &forms::LABEL),
    Field::new("trustDomain", &Shape::Text(trust_domain)),
    Field::new("is", &Shape::Word(&["authenticated", "unauthenticated"])),
]);

const PATH: Shape = Shape::Object(&[
    Field::new("exact", &forms::PATH),
    Field::new("prefix", &forms::PATH),
    Field::new("template", &forms::PATH),
]);

const HEADER: Shape = Shape::Object(&[
    Field::required("name", &forms::HEADER_NAME),
    Field::new("values", &Shape::List(&Shape::Text(rules::header_value), 64)),
]);

pub(super) const CLAIM: Shape = Shape::Object(&[
    Field::required("claim", &Shape::Text(claim)),
    Field::new("values", &Shape::List(&forms::WORDS, 64)),
]);

fn claim(text: &str) -> Result<(), String> {
    outrigger_mesh::ClaimPath::new(text).map(drop).map_err(|e| e.to_string())
}

fn method(text: &str) -> Result<(), String> {
    let known = http::Method::from_bytes(text.as_bytes());
    match known {
        Ok(_) if text.bytes().any(|b| b.is_ascii_lowercase()) => {
            Err(format!("{text:?} has lower case, and methods are told apart by case"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{text:?} is not a method")),
    }
}

fn whole_identity(text: &str) -> Result<(), String> {
    text.parse::<outrigger_mesh::SpiffeId>().map(drop).map_err(|e| e.to_string())
}

fn account(text: &str) -> Result<(), String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    rules::label(namespace).and_then(|()| rules::label(name))
}

pub(super) fn trust_domain(text: &str) -> Result<(), String> {
    outrigger_mesh::TrustDomain::new(text).map(drop).map_err(|e| e.to_string())
}
