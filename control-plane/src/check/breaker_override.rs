//! Whether the breaker exists that an operator speaks of, and nobody else spoke of it.

use std::time::SystemTime;

use outrigger_mesh::{BreakerOverride as Compiled, Label, ServiceName, Version};

use super::Found;
use super::settings::no_service;
use crate::spec::{BreakerOverride, Code, Key, Kind, Object, ObjectName, OverrideRoute, Problem, Time};
use crate::world::World;

/// An override that holds, until it expires.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedOverride {
    /// Whose breaker it is.
    pub service: ServiceName,
    /// The route whose breaker it is, if it is one's.
    pub route: Option<Key>,
    /// What it says; its route is filled in when it is compiled.
    pub(crate) says: Compiled,
    /// Whether its time was over when the world was last looked at.
    pub(crate) expired: bool,
}

impl CheckedOverride {
    /// Whether its time is over.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        !self.says.holds(now)
    }

    /// Until when it holds; `None`: until it is taken back.
    pub fn until(&self) -> Option<SystemTime> {
        self.says.until
    }
}

pub(super) fn check(
    object: &Object,
    spec: &BreakerOverride,
    world: &World,
    found: &mut Found,
) -> Option<CheckedOverride> {
    let namespace = &object.metadata.namespace;
    let bad = |pointer: &str, message: String| Problem::error(pointer, Code::BadValue, message);
    let label = Label::new(&spec.service).map_err(|e| found.add(bad("/spec/service", e.to_string()))).ok()?;
    let service = ServiceName::new(namespace.clone(), label);
    if world.service(&service).is_none() {
        found.add(no_service("/spec/service", &service, world));
        return None;
    }
    let route = spec.route.as_deref().map(ObjectName::new).transpose();
    let route = route.map_err(|e| found.add(bad("/spec/route", e))).ok()?;
    let route = route.map(|name| key_of(name, spec.route_kind, &service, world, found));
    if route.is_none() && spec.route_kind.is_some() {
        let problem = Problem::error("/spec/routeKind", Code::MissingField, "it is the kind of no route");
        found.add(problem.hint("add route: the name of the route, or leave routeKind out"));
    }
    if route.is_some() && spec.version.is_some() {
        let message = "a route's breaker is the same for every version";
        found
            .add(Problem::error("/spec/version", Code::Contradiction, message).hint("leave one of them out"));
    }
    let version = spec.version.as_deref().map(Version::new).transpose();
    let version = version.map_err(|e| found.add(bad("/spec/version", e.to_string()))).ok()?;
    if spec.lasting.is_some() && spec.expires_at.is_some() {
        let message = "for and expiresAt say the same in two ways";
        found.add(Problem::error("/spec/for", Code::Contradiction, message).hint("leave one of them out"));
    }
    let now = SystemTime::now();
    let until = spec.expires_at.map(Time::get);
    if until.is_some_and(|until| until <= now) && !found.stored {
        let message = "this moment is over, so it would say nothing";
        found.add(Problem::error("/spec/expiresAt", Code::Contradiction, message).hint("write for: 10m"));
    }
    let says = Compiled { route: None, version, mode: spec.mode.into(), until };
    let own = object.key();
    for other in world.overrides_of(&service).filter(|e| e.object.key() != own && !e.checked.expired) {
        if other.checked.route == route && other.checked.says.version == says.version {
            let key = other.object.key();
            let message = format!("{key} speaks of the same breaker");
            let problem = Problem::error("/spec/service", Code::Conflict, message);
            found.add(problem.hint(format!("change or delete {key}")));
        }
    }
    let expired = !says.holds(now);
    (!found.is_fatal()).then_some(CheckedOverride { service, route, says, expired })
}

/// The route of this name that takes the requests to a service. Without a kind it may be one of either, if it is one alone.
fn key_of(
    name: ObjectName,
    kind: Option<OverrideRoute>,
    service: &ServiceName,
    world: &World,
    found: &mut Found,
) -> Key {
    let kinds = match kind {
        None => &[Kind::HttpRoute, Kind::GrpcRoute][..],
        Some(OverrideRoute::HttpRoute) => &[Kind::HttpRoute],
        Some(OverrideRoute::GrpcRoute) => &[Kind::GrpcRoute],
    };
    let routes = world.routes_from(service);
    let takes =
        |kind: &&Kind| routes.iter().any(|r| r.object.kind() == **kind && r.object.metadata.name == name);
    let meant: Vec<Kind> = kinds.iter().filter(takes).copied().collect();
    let first = meant.first().or(kinds.first()).copied().unwrap_or(Kind::HttpRoute);
    let key = Key { kind: first, namespace: service.namespace().clone(), name };
    if meant.is_empty() && !found.stored {
        let message = format!("{key} is no route that takes the requests to {service}");
        found.add(Problem::error("/spec/route", Code::Reference, message));
    }
    if meant.len() > 1 && !found.stored {
        let message = format!("there are an HTTPRoute and a GRPCRoute {}", key.name);
        let problem = Problem::error("/spec/route", Code::Contradiction, message);
        found.add(problem.hint("add routeKind: HTTPRoute, or routeKind: GRPCRoute"));
    }
    key
}
