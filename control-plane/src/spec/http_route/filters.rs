//! What is done to requests and answers, as the Gateway API writes it: a type, and beside it the part of that name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backends::{self, BackendRef};
use crate::spec::forms;
use crate::spec::rules;
use crate::spec::schema::{Field, Shape};

/// A filter of a rule or a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Which of the following it is.
    #[serde(rename = "type")]
    pub kind: FilterType,
    /// Changes to the request's headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderFilter>,
    /// Changes to the answer's headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderFilter>,
    /// A copy to somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<MirrorFilter>,
    /// The answer is to ask elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RedirectFilter>,
    /// The request asks for something else there than here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<RewriteFilter>,
    /// Which origins of browsers may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsFilter>,
    /// What is ours: a RouteFilter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<ExtensionRef>,
}

/// The kinds of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    #[serde(rename = "CORS")]
    Cors,
    ExtensionRef,
}

impl FilterType {
    /// The written word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestHeaderModifier => "RequestHeaderModifier",
            Self::ResponseHeaderModifier => "ResponseHeaderModifier",
            Self::RequestMirror => "RequestMirror",
            Self::RequestRedirect => "RequestRedirect",
            Self::UrlRewrite => "URLRewrite",
            Self::Cors => "CORS",
            Self::ExtensionRef => "ExtensionRef",
        }
    }

    /// The field that says more of it.
    pub fn field(self) -> &'static str {
        match self {
            Self::RequestHeaderModifier => "requestHeaderModifier",
            Self::ResponseHeaderModifier => "responseHeaderModifier",
            Self::RequestMirror => "requestMirror",
            Self::RequestRedirect => "requestRedirect",
            Self::UrlRewrite => "urlRewrite",
            Self::Cors => "cors",
            Self::ExtensionRef => "extensionRef",
        }
    }
}

/// Changes to headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderFilter {
    /// In place of whatever is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HeaderValue>,
    /// Beside whatever is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HeaderValue>,
    /// Taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A header and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A copy to somebody whose answer nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorFilter {
    /// Who gets it.
    pub backend_ref: BackendRef,
    /// How many of a hundred requests. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// The same as a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<FractionOf>,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FractionOf {
    /// So many...
    pub numerator: u32,
    /// ...of so many. None: of a hundred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denominator: Option<u32>,
}

/// The answer is to ask elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RedirectFilter {
    /// By which scheme. None: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Which host. None: the one asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// For which path. None: the one asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// At which port. None: that of the scheme, where one is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// With which status. None: 302.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
}

/// The schemes of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Scheme {
    Http,
    Https,
}

/// The request asks for something else there than here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RewriteFilter {
    /// The host it names there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path it asks for there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// A change to a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifier {
    /// Which of the two it is.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// The whole path becomes this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// The prefix that was matched becomes this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

/// How a path is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the written words")]
pub enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// Which origins of browsers may ask, and what they are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorsFilter {
    /// Origins that may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<String>,
    /// Whether cookies and the like may go along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Headers that a request may have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Headers of the answer that scripts may see.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// How long a browser believes it, in seconds. None: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u32>,
}

/// Another object that says what is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtensionRef {
    /// The group of its kind.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name, in the route's namespace.
    pub name: String,
}

macro_rules! filter_fields {
    ($types:expr; $($other:expr),* $(,)?) => {
        &[
            Field::required("type", &Shape::WordSoFar($types, &["ExternalAuth"])),
            Field::new("requestHeaderModifier", &HEADERS),
            Field::new("responseHeaderModifier", &HEADERS),
            Field::new("requestMirror", &MIRROR),
            Field::new("extensionRef", &EXTENSION),
            Field::new("externalAuth", &Shape::Later("asking somebody outside for leave is not supported yet")),
            $($other,)*
        ]
    };
}

/// Of an HTTPRoute.
pub(in crate::spec) const HTTP: Shape = Shape::Object(filter_fields![
    &[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "CORS",
        "ExtensionRef",
    ];
    Field::new("requestRedirect", &REDIRECT),
    Field::new("urlRewrite", &REWRITE),
    Field::new("cors", &CORS),
]);

/// Of a GRPCRoute.
pub(in crate::spec) const GRPC: Shape = Shape::Object(filter_fields![
    &["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"];
]);

const HEADERS: Shape = Shape::Object(&[
    Field::new("set", &Shape::List(&HEADER, 16)),
    Field::new("add", &Shape::List(&HEADER, 16)),
    Field::new("remove", &Shape::List(&forms::HEADER_NAME, 16)),
]);

const HEADER: Shape = Shape::Object(&[
    Field::required("name", &forms::HEADER_NAME),
    Field::required("value", &Shape::Text(rules::header_value)),
]);

const MIRROR: Shape = Shape::Object(&[
    Field::required("backendRef", &backends::ALONE),
    Field::new("percent", &Shape::Integer(0, 100)),
    Field::new(
        "fraction",
        &Shape::Object(&[
            Field::required("numerator", &Shape::Integer(0, i32::MAX as i64)),
            Field::new("denominator", &Shape::Integer(1, i32::MAX as i64)),
        ]),
    ),
]);

const REDIRECT: Shape = Shape::Object(&[
    Field::new("scheme", &Shape::Word(&["http", "https"])),
    Field::new("hostname", &forms::HOSTNAME),
    Field::new("path", &PATH),
    Field::new("port", &Shape::Integer(1, 65_535)),
    Field::new("statusCode", &Shape::Integer(301, 308)),
]);

const REWRITE: Shape = Shape::Object(&[Field::new("hostname", &forms::HOSTNAME), Field::new("path", &PATH)]);

const PATH: Shape = Shape::Object(&[
    Field::required("type", &Shape::Word(&["ReplaceFullPath", "ReplacePrefixMatch"])),
    Field::new("replaceFullPath", &Shape::Text(rules::path_or_none)),
    Field::new("replacePrefixMatch", &Shape::Text(rules::path_or_none)),
]);

const CORS: Shape = Shape::Object(&[
    Field::new(
        "allowOrigins",
        &Shape::List(
            &Shape::Like(rules::origin, "write https://www.example.com, https://*.example.com or *"),
            64,
        ),
    ),
    Field::new("allowCredentials", &Shape::Bool),
    Field::new("allowMethods", &Shape::List(&Shape::Word(METHODS), 9)),
    Field::new("allowHeaders", &Shape::List(&Shape::Text(rules::header_or_all), 64)),
    Field::new("exposeHeaders", &Shape::List(&Shape::Text(rules::header_or_all), 64)),
    Field::new("maxAge", &Shape::Integer(1, i32::MAX as i64)),
]);

const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];

const EXTENSION: Shape = Shape::Object(&[
    Field::required("group", &Shape::Text(rules::group)),
    Field::required("kind", &forms::KIND),
    Field::required("name", &forms::OBJECT_NAME),
]);
