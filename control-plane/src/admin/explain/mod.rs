//! What would become of a request that is described: its canonical path, its route, where it would go (`way`), and what
//! access policies say of it, by the same decisions that sidecars make.

mod arriving;
mod way;

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_mesh::{
    AccessIndex, Backend, Because, ClaimValue, Claims, Decision, Host, IssuerName, Label, MtlsMode, Port,
    RequestHead, Resource, ResourceName, Route, RouteIndex, RuleName, Service, ServiceName, Source, SpiffeId,
    canonical_path,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use self::arriving::Arriving;
use self::way::Sight;
use super::{Api, ApiError, Caller};
use crate::compile;
use crate::policy;
use crate::spec::Kind;
use crate::users::permission::{Verb, What};
use crate::world::World;

/// A request as it is described.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Described {
    /// Who asks: a whole SPIFFE id, or `namespace/account` of the mesh. None: somebody who proves nothing.
    from: Option<String>,
    /// The host it names; a port may stand behind it.
    host: String,
    #[serde(default = "get")]
    method: String,
    /// As it is sent, a query may stand behind it.
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// What its verified token says.
    claims: Option<serde_json::Map<String, Json>>,
}

fn get() -> String {
    "GET".into()
}

fn root() -> String {
    "/".into()
}

pub(super) async fn explain(
    State(api): State<Api>,
    caller: Caller,
    body: String,
) -> Result<JsonBody<Json>, ApiError> {
    let described: Described = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
    let world = api.state.world();
    let request = Request::read(&described, &world)?;
    Ok(JsonBody(request.explained(&world, &caller)?))
}

/// A request whose parts were read.
struct Request {
    caller: Option<SpiffeId>,
    host: Host,
    method: Method,
    /// Canonical, or why it has no canonical spelling.
    path: Result<String, &'static str>,
    query: Option<String>,
    headers: HeaderMap,
    claims: Option<Claims>,
}

impl Request {
    fn read(described: &Described, world: &World) -> Result<Self, ApiError> {
        let caller = described.from.as_deref().map(|text| caller(text, world)).transpose()?;
        let host: Host =
            described.host.parse().map_err(|e: outrigger_mesh::InvalidName| bad(e.to_string()))?;
        let method = Method::from_bytes(described.method.as_bytes());
        let (path, query) = match described.path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (described.path.as_str(), None),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &described.headers {
            let read = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (name, value) = read.ok_or_else(|| bad(format!("{name:?} is not a header")))?;
            headers.append(name, value);
        }
        Ok(Self {
            caller,
            host,
            method: method.map_err(|_| bad(format!("{:?} is not a method", described.method)))?,
            path: canonical_path(path).map(std::borrow::Cow::into_owned),
            query,
            headers,
            claims: described.claims.as_ref().map(claims).transpose()?,
        })
    }

    fn explained(&self, world: &World, asker: &Caller) -> Result<Json, ApiError> {
        let nowhere = Label::new("default").map_err(|e| bad(e.to_string()))?;
        let namespace = self.caller.as_ref().map_or(&nowhere, SpiffeId::namespace);
        let host = self.host.name.complete(namespace);
        let mut told = json!({
            "caller": self.caller.as_ref().map(ToString::to_string),
            "host": host.as_str(),
            "revision": world.revision(),
        });
        let Some(name) = world.host(&host) else {
            told["refused"] =
                json!({"reason": "unknown_service", "why": format!("no service answers to {host}")});
            return Ok(told);
        };
        asker.may(Verb::Read, What::Object(Kind::AccessPolicy), Some(name.namespace()))?;
        let Some(service) = compiled(world, name) else {
            return Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no service {name}")));
        };
        told["service"] = name.to_string().into();
        let Some(port) = service.port(self.host.port).copied() else {
            told["refused"] = json!({"reason": "no_route", "why": format!("{name} has no such port")});
            return Ok(told);
        };
        told["port"] = json!({"number": port.number.get(), "protocol": port.protocol.as_str()});
        if port.protocol.is_opaque() {
            told["access"] = json!([self.access(world, asker, name, port, None)]);
            return Ok(told);
        }
        let path = match &self.path {
            Ok(path) => path,
            Err(why) => {
                told["refused"] = json!({"reason": "bad_request", "why": why});
                return Ok(told);
            }
        };
        told["path"] = path.as_str().into();
        let head = RequestHead {
            method: &self.method,
            path,
            query: self.query.as_deref(),
            headers: &self.headers,
            claims: self.claims.as_ref(),
            source: Source { identity: self.caller.as_ref(), ..Source::default() },
        };
        let Some(routes) = routes(world, asker, &service, namespace, port) else {
            let why = format!("{namespace} has routes of its own for {name}, which are not told to you");
            told["unknown"] = json!({ "why": why });
            return Ok(told);
        };
        let index = RouteIndex::new(&routes);
        let hit = index.hit(&head);
        if hit.is_none() && !index.is_empty() {
            told["refused"] =
                json!({"reason": "no_route", "why": format!("none of the routes of {name} matches")});
            return Ok(told);
        }
        let found = hit.map(|hit| &routes[hit.route]);
        told["policy"] = way::policy(found, service.policy_for(self.caller.as_ref()));
        if let (Some(hit), Some(route)) = (hit, found) {
            told["route"] = json!({
                "rule": route.name.as_str(),
                "match": (!route.matches.is_empty()).then_some(hit.rule),
                "filters": way::filters(route),
                "settledBy": way::settled_by(route, &head),
                "backends": way::backends(route, &head, Sight { world, asker }),
            });
        } else {
            told["route"] = Json::Null;
            told["to"] = way::reached(name, None, &head, world).into();
        }
        let prefix = hit.and_then(|hit| index.prefix_of(hit));
        let mut access: Vec<Json> = vec![];
        for Target { service, port, backend } in targets(&service, found, port, &head, world) {
            let arriving = Arriving::of(&head, found, prefix, backend);
            let told = self.access(world, asker, &service, port, Some(&arriving.head(&head)));
            // Backends of one service differ by what they change of a request, if by anything.
            if !access.contains(&told) {
                access.push(told);
            }
        }
        told["access"] = access.into();
        Ok(told)
    }

    /// What the sidecar of a service says of it.
    fn access(
        &self,
        world: &World,
        asker: &Caller,
        to: &ServiceName,
        port: Port,
        head: Option<&RequestHead<'_>>,
    ) -> Json {
        if !asker.covers(to.namespace().as_str()) {
            let why = "what its namespace says of callers is not told to you";
            return json!({"service": to.to_string(), "decision": "unknown", "why": why});
        }
        let mtls = world.service(to).map(|e| e.checked.service().mtls.at(port.number));
        if self.caller.is_none() && mtls == Some(MtlsMode::Strict) {
            return json!({"service": to.to_string(), "decision": "denied", "why": "the service wants mutual TLS"});
        }
        let index = AccessIndex::new(&policy::access(world, to));
        // Where mutual TLS is off nobody proves anything.
        let caller = self.caller.as_ref().filter(|_| mtls != Some(MtlsMode::Off));
        let by = index.asked_by(caller, port.number);
        let (decision, audits): (Decision<'_>, Vec<&RuleName>) = match head {
            Some(head) => (index.decide(&by, head), index.audited(&by, head)),
            None => (index.decide_connection(&by), index.audited_connection(&by)),
        };
        let rule = match decision.because {
            Because::Rule(name) => Some(name),
            Because::NoneAllows | Because::Default => None,
        };
        json!({
            "service": to.to_string(),
            "decision": if decision.allowed { "allowed" } else { "denied" },
            "policy": rule.map(|name| name.policy.as_str()),
            "rule": rule.map(|name| &*name.rule),
            "why": decision.to_string(),
            "audits": audits.iter().map(|n| json!({"policy": n.policy.as_str(), "rule": &*n.rule})).collect::<Vec<_>>(),
        })
    }
}

/// A service that may get a request, with the port it is sent to and the backend that leads there.
struct Target<'a> {
    service: ServiceName,
    port: Port,
    backend: Option<&'a Backend>,
}

fn targets<'a>(
    service: &Service,
    route: Option<&'a Route>,
    port: Port,
    head: &RequestHead<'_>,
    world: &World,
) -> Vec<Target<'a>> {
    let Some(route) = route else {
        return vec![Target { service: service.name.clone(), port, backend: None }];
    };
    let target = |at: usize| {
        let backend = &route.backends[at];
        let of = world.service(&backend.service).map(|e| e.checked.service());
        let meant = backend.port.or(Some(port.number));
        let port = of.and_then(|s| s.port(meant).or_else(|| s.port(None))).copied().unwrap_or(port);
        Target { service: backend.service.clone(), port, backend: Some(backend) }
    };
    way::possible(route, head).into_iter().map(target).collect()
}

/// A service as it is pushed.
fn compiled(world: &World, name: &ServiceName) -> Option<Service> {
    match compile::resource(world, &ResourceName::Service(name.clone()))? {
        Resource::Service(service) => Some(service),
        _ => None,
    }
}

/// The routes that callers of `namespace` meet at a port: their own, where they have some for a service of another
/// namespace, else those of the service. None where the asker may not know the callers' own.
fn routes(
    world: &World,
    asker: &Caller,
    service: &Service,
    namespace: &Label,
    port: Port,
) -> Option<Vec<Route>> {
    let own = (namespace != service.name.namespace())
        .then(|| ResourceName::ConsumerRoutes(namespace.clone(), service.name.clone()))
        .and_then(|name| compile::resource(world, &name));
    let all = match own {
        Some(Resource::ConsumerRoutes(_)) if !asker.covers(namespace.as_str()) => return None,
        Some(Resource::ConsumerRoutes(own)) => own.routes,
        _ => service.routes.clone(),
    };
    let is_for = |route: &Route| route.ports.is_empty() || route.ports.contains(&port.number);
    Some(all.into_iter().filter(is_for).collect())
}

fn caller(text: &str, world: &World) -> Result<SpiffeId, ApiError> {
    if text.contains(':') {
        return text.parse().map_err(|e: outrigger_mesh::InvalidName| bad(e.to_string()));
    }
    let account: ServiceName = text
        .parse()
        .map_err(|_| bad(format!("{text:?} is nobody: write namespace/account, or a whole SPIFFE id")))?;
    Ok(SpiffeId::new(world.trust_domain().clone(), account.namespace().clone(), account.name().clone()))
}

fn claims(given: &serde_json::Map<String, Json>) -> Result<Claims, ApiError> {
    let part = |text| Label::new(text).map_err(|e| bad(e.to_string()));
    let issuer = IssuerName::new(part("default")?, part("explain")?, part("described")?);
    Ok(Claims::new(
        issuer,
        given.iter().map(|(name, value)| (Arc::from(name.as_str()), claim(value))).collect(),
    ))
}

/// JSON that was parsed is as deep as the parser allows.
fn claim(value: &Json) -> ClaimValue {
    match value {
        Json::Null => ClaimValue::Null,
        Json::Bool(b) => ClaimValue::Bool(*b),
        Json::Number(n) => {
            n.as_i64().map_or_else(|| ClaimValue::Float(n.as_f64().unwrap_or_default()), ClaimValue::Integer)
        }
        Json::String(text) => ClaimValue::Text(text.as_str().into()),
        Json::Array(all) => ClaimValue::List(all.iter().map(claim).collect()),
        Json::Object(all) => ClaimValue::Object(
            all.iter().map(|(name, value)| (Arc::from(name.as_str()), claim(value))).collect(),
        ),
    }
}

fn bad(detail: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, detail)
}
