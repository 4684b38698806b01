//! The written form: what a person writes, as YAML, JSON or the body of a request, and how it is read.
//!
//! Reading goes through a located tree (`tree`), a walk against the kind's table (`schema`), and only then serde, so
//! that every mistake is told at once, each with its line. Whether references resolve and values agree is not judged
//! here but in `check`, which knows the world.

pub mod access_policy;
mod breaker_override;
mod closed;
mod defaults;
#[cfg(test)]
mod definition;
mod denylist;
mod duration;
mod egress;
mod forms;
mod gateway;
pub mod grpc_route;
mod header;
mod hint;
mod hundredths;
mod http_route;
mod instance;
mod metadata;
mod object;
pub mod policy;
mod problem;
pub(crate) mod published;
mod reference_grant;
pub mod rollout;
pub mod route_filter;
mod rules;
mod schema;
mod service;
mod size;
pub mod tcp_route;
mod moment;
mod traffic_policy;
mod token_policy;
mod tree;
mod written;

use std::sync::Arc;

pub use access_policy::AccessPolicy;
pub use breaker_override::{BreakerOverride, OverrideRoute};
pub(crate) use closed::closed;
pub use defaults::{HostnameGrant, MeshDefaults, OutboundMode, TrustedDomain};
pub use denylist::{DeniedToken, Denylist};
pub use duration::Duration;
pub use egress::{EgressService, EgressTls, EgressTlsMode, EgressTokens};
pub(crate) use gateway::GATEWAY_CLASS;
pub use gateway::{
    AllowedRoutes, CertificateRef, From, Gateway, Listener, ListenerProtocol, ListenerTls, RouteNamespaces,
};
pub use grpc_route::GrpcRoute;
pub use header::HeaderName;
pub(crate) use hint::nearest;
pub use http_route::{
    BackendRef, CookieConfig, CookieLifetime, CorsFilter, ExtensionRef, Filter, FilterType, FractionOf,
    HeaderFilter, HeaderValue, HttpRoute, Match, MirrorFilter, ParentRef, PathMatch, PathMatchType,
    PathModifier, PathModifierType, RedirectFilter, RewriteFilter, RouteRetry, RouteTimeouts, Rule, Scheme,
    SessionPersistence, SessionType, ValueMatch, ValueMatchType,
};
pub use hundredths::Hundredths;
pub use instance::{Instance, InstancePort, InstanceState, Transport};
pub use metadata::{Metadata, ObjectName};
pub use moment::Time;
pub use object::{Key, Kind, Object, Spec};
pub use policy::PolicySettings;
pub use problem::{Code, Problem, Severity};
pub use reference_grant::{GrantFrom, GrantTo, ReferenceGrant};
pub use rollout::Rollout;
pub use route_filter::RouteFilter;
pub(crate) use rules::{is_of_connection, path};
pub use service::{
    Between, Discovery, Http, Link, MeshService, Mtls, Protocol, Retry, ServiceApi, ServicePort,
    ServiceTimeouts, Target,
};
pub use size::Size;
pub use tcp_route::TcpRoute;
pub use token_policy::{
    ClaimHeader, Exchange, Given, Jwks, Propagation, Requirement, ToApplication, TokenIssuer, TokenPolicy,
    TokenRule, Unavailable,
};
pub use traffic_policy::{TargetKind, TargetRef, TrafficPolicy};
pub use tree::{MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, Place};

use tree::{Located, Node};

/// One object that was read, with the memory of where each part of it stood.
#[derive(Clone, Debug)]
pub struct Document {
    /// What was read.
    pub object: Object,
    source: Source,
    /// Where the object is in the text, when that is more than the object.
    prefix: String,
}

impl Document {
    /// Adds file, line and column to a problem whose pointer is one within this object.
    #[must_use]
    pub fn located(&self, problem: Problem) -> Problem {
        self.source.located(problem).below(&self.prefix)
    }

    /// An object that was not read from a text.
    pub fn made(object: Object) -> Self {
        let place = Place { line: 1, column: 1 };
        let node = Arc::new(Node { place, value: tree::Value::Null });
        Self { object, source: Source { file: "".into(), node }, prefix: String::new() }
    }
}

/// Reads every object of `text`, YAML or JSON, one or many documents. On any mistake nothing is returned but all the
/// mistakes, each with its place. `file` is what the problems call the text.
pub fn read(text: &str, file: &str) -> Result<Vec<Document>, Vec<Problem>> {
    let file: Arc<str> = file.into();
    let documents = tree::parse(text).map_err(|fault| vec![in_file(fault, &file)])?;
    let sources = documents.into_iter().map(|node| Source { file: file.clone(), node: Arc::new(node) });
    read_all(sources, |_| String::new())
}

/// Reads the body of one request: a single object, in strict JSON.
pub fn read_one(body: &str) -> Result<Document, Vec<Problem>> {
    let source = json(body)?;
    read_object(source, "").map_err(limited)
}

/// Reads the body of `POST /v1/apply`: `{"items": [...]}`, in strict JSON. Pointers begin at the body.
pub fn read_items(body: &str) -> Result<Vec<Document>, Vec<Problem>> {
    let source = json(body)?;
    let mut problems = vec![];
    schema::walk(&source.node, &ITEMS, &mut String::new(), &mut problems);
    if !problems.is_empty() {
        return Err(problems.into_iter().map(|p| source.located(p)).collect());
    }
    let items = match source.node.get("items").map(|n| &n.value) {
        Some(tree::Value::List(items)) => items.clone(),
        _ => vec![],
    };
    let sources = items.into_iter().map(|node| Source { file: source.file.clone(), node: Arc::new(node) });
    read_all(sources, |i| format!("/items/{i}"))
}

const ITEMS: schema::Shape = schema::Shape::Object(&[schema::Field::required(
    "items",
    &schema::Shape::List(&schema::Shape::Anything, MAX_DOCUMENTS),
)]);

/// No more problems than this are told at once.
const MAX_PROBLEMS: usize = 200;

fn read_all(
    sources: impl Iterator<Item = Source>,
    prefix: impl Fn(usize) -> String,
) -> Result<Vec<Document>, Vec<Problem>> {
    let (mut read, mut problems) = (Vec::<Document>::new(), vec![]);
    let mut seen = std::collections::HashMap::new();
    for (i, source) in sources.enumerate() {
        match read_object(source, &prefix(i)) {
            Ok(document) => {
                if let Some(first) = seen.insert(document.object.key(), i) {
                    let line = read.get(first).map_or(1, |d: &Document| d.source.node.place.line);
                    let message = format!("{} is there twice, first in line {line}", document.object.key());
                    let twice = Problem::error("/metadata/name", Code::Duplicate, message);
                    problems.push(document.located(twice));
                }
                read.push(document);
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(read) } else { Err(limited(problems)) }
}

fn limited(mut problems: Vec<Problem>) -> Vec<Problem> {
    if problems.len() > MAX_PROBLEMS {
        let more = problems.len() - MAX_PROBLEMS;
        problems.truncate(MAX_PROBLEMS);
        problems.push(Problem::error("", Code::TooLarge, format!("{more} more problems are not shown")));
    }
    problems
}

fn read_object(source: Source, prefix: &str) -> Result<Document, Vec<Problem>> {
    match object::read(&source.node) {
        Ok(object) => Ok(Document { object, source, prefix: prefix.to_owned() }),
        Err(problems) => Err(problems.into_iter().map(|p| source.located(p).below(prefix)).collect()),
    }
}

/// A body says it is JSON, so it is held to JSON before the more generous parser sees it.
fn json(body: &str) -> Result<Source, Vec<Problem>> {
    let file: Arc<str> = "".into();
    if body.len() <= MAX_BYTES
        && let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(body)
    {
        let narrow = |n: usize| u32::try_from(n).ok();
        let message = format!("the body is not JSON: {e}");
        let problem = Problem::error("", Code::Syntax, message);
        return Err(vec![Problem { line: narrow(e.line()), column: narrow(e.column()), ..problem }]);
    }
    let mut documents = tree::parse(body).map_err(|fault| vec![in_file(fault, &file)])?;
    match documents.pop() {
        Some(node) => Ok(Source { file, node: Arc::new(node) }),
        None => Err(vec![Problem::error("", Code::WrongType, "expected an object, found nothing")]),
    }
}

/// Where an object was read from.
#[derive(Clone, Debug)]
struct Source {
    file: Arc<str>,
    node: Arc<Node>,
}

impl Source {
    fn located(&self, problem: Problem) -> Problem {
        let place = self.node.locate(&problem.pointer);
        in_file(Located { place, problem: Box::new(problem) }, &self.file)
    }
}

fn in_file(fault: Located, file: &str) -> Problem {
    Problem {
        file: (!file.is_empty()).then(|| file.to_owned()),
        line: Some(fault.place.line),
        column: Some(fault.place.column),
        ..*fault.problem
    }
}

#[cfg(test)]
mod tests;
