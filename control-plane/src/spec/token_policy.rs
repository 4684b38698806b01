//! `TokenPolicy`: whose tokens services take, what they want of them, and how they go on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::forms;
use super::header::HeaderName;
use super::http_route::{MATCH, Match};
use super::rules;
use super::schema::{Field, Shape};
use super::size::Size;
use super::traffic_policy::TargetRef;

/// What a person writes of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenPolicy {
    /// The services it holds for, in its own namespace.
    pub target_refs: Vec<TargetRef>,
    /// Whose tokens are taken. With `propagation: exchange` those of the mesh itself are, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<TokenIssuer>,
    /// Whether a token must be there, where no rule says otherwise. None: required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirement: Option<Requirement>,
    /// Requests for which something else holds; the first that is for a request decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<TokenRule>,
    /// What the application gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_application: Option<ToApplication>,
    /// No token is longer. None: 8Ki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
    /// What goes along on calls to these services. None: what the application sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// What goes on when tokens are exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
}

/// Who issues tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenIssuer {
    /// Its name, by which rules mean it.
    pub name: String,
    /// The value of `iss`, exactly.
    pub issuer: String,
    /// One of these must be an audience of its tokens.
    pub audiences: Vec<String>,
    /// How long its tokens may live. None: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<Duration>,
    /// Its keys.
    pub jwks: Jwks,
}

/// Where the keys of an issuer are: one of three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwks {
    /// The set of keys itself, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    /// A file of the control plane's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Who vouches for the server, as certificates in PEM. None: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Whether the server may have a private address, and speak plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_private: Option<bool>,
    /// After how long it is asked again. None: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Duration>,
}

/// Whether a token must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Requirement {
    Required,
    Optional,
    None,
}

/// What some requests need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRule {
    /// Which requests.
    pub matches: Vec<Match>,
    /// Whether a token must be there.
    pub requirement: Requirement,
    /// Whose, by name. None: anybody's that the policy names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
}

/// What the application gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToApplication {
    /// What becomes of the token. None: it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Given>,
    /// With `token: replace`: the header that gets what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// Claims as headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimHeader>,
}

/// What becomes of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Given {
    Keep,
    Strip,
    Replace,
}

/// A claim as a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimHeader {
    /// The claim.
    pub claim: String,
    /// The header.
    pub header: HeaderName,
}

/// What goes along on calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    /// What the application sends.
    None,
    /// The token of the request for whose sake the call is made, where the application sends none.
    Attach,
    /// A token of the mesh for the called service alone, in its place.
    Exchange,
}

/// What goes on when tokens are exchanged, besides `sub`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exchange {
    /// The words of the scope. None: all there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Other claims, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<String>,
    /// What goes along while the control plane is away. None: refuse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Unavailable>,
}

/// What becomes of a call whose token can not be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Unavailable {
    /// It is refused with 503.
    Refuse,
    /// It carries the token that came in.
    Original,
}

pub(super) const SHAPE: Shape = Shape::Object(&[
    Field::required("targetRefs", &Shape::List(&TARGET, 64)),
    Field::new("issuers", &Shape::List(&ISSUER, 15)),
    Field::new("requirement", &REQUIREMENT),
    Field::new("rules", &Shape::List(&RULE, 63)),
    Field::new("toApplication", &TO_APPLICATION),
    Field::new("maxSize", &forms::SIZE),
    Field::new("propagation", &Shape::Word(&["none", "attach", "exchange"])),
    Field::new("exchange", &EXCHANGE),
]);

const EXCHANGE: Shape = Shape::Object(&[
    Field::new("scopes", &Shape::List(&Shape::Text(scope), 64)),
    Field::new("claims", &Shape::List(&forms::WORDS, 32)),
    Field::new("unavailable", &Shape::Word(&["refuse", "original"])),
]);

const TARGET: Shape = Shape::Object(&[
    Field::new("group", &Shape::Word(&["", "outrigger.dev"])),
    Field::required("kind", &Shape::Word(&["Service", "MeshService"])),
    Field::required("name", &forms::LABEL),
    Field::new("sectionName", &Shape::Later("a policy for one port is not supported yet")),
]);

const REQUIREMENT: Shape = Shape::Word(&["required", "optional", "none"]);

const ISSUER: Shape = Shape::Object(&[
    Field::required("name", &forms::LABEL),
    Field::required("issuer", &forms::WORDS),
    Field::required("audiences", &Shape::List(&forms::WORDS, 64)),
    Field::new("maxLifetime", &forms::DURATION),
    Field::required("jwks", &JWKS),
]);

const JWKS: Shape = Shape::Object(&[
    Field::new("inline", &Shape::Text(any_text)),
    Field::new("file", &forms::WORDS),
    Field::new("uri", &Shape::Text(rules::link)),
    Field::new("caBundle", &rules::PEM),
    Field::new("allowPrivate", &Shape::Bool),
    Field::new("refresh", &forms::DURATION),
]);

const RULE: Shape = Shape::Object(&[
    Field::required("matches", &Shape::List(&MATCH, 64)),
    Field::required("requirement", &REQUIREMENT),
    Field::new("issuers", &Shape::List(&forms::LABEL, 16)),
]);

const TO_APPLICATION: Shape = Shape::Object(&[
    Field::new("token", &Shape::Word(&["keep", "strip", "replace"])),
    Field::new("header", &forms::HEADER_NAME),
    Field::new("claims", &Shape::List(&CLAIM, 31)),
]);

const CLAIM: Shape = Shape::Object(&[
    Field::required(
        "claim",
        &Shape::Like(rules::claim, "write a.b for a claim within another, and a\\.b for one of that name"),
    ),
    Field::required("header", &forms::HEADER_NAME),
]);

/// One word of a scope (RFC 6749, section 3.3).
fn scope(text: &str) -> Result<(), String> {
    let fits = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if (1..=256).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(());
    }
    Err("it is one word, without blanks, quotes and backslashes".into())
}

/// What is read by rules of its own.
#[allow(clippy::unnecessary_wraps, reason = "the form of a rule")]
fn any_text(_: &str) -> Result<(), String> {
    Ok(())
}
