//! What a route may say but probably does not mean.

use std::time::Duration;

use outrigger_mesh::{PathMatch, Port, PortNumber, Route, RouteMatch, Timeouts};

use super::{CheckedRoute, CheckedRule, ServiceParent};
use crate::check::Found;
use crate::check::service::beyond_default;
use crate::routes::{self, Claimed};
use crate::spec::{Code, Key, Kind, Problem};
use crate::world::{Entry, World};

/// Adds warnings about `route`, which holds.
pub(super) fn add(key: &Key, route: &CheckedRoute, world: &World, found: &mut Found) {
    for (i, rule) in route.routes().enumerate() {
        let pointer = format!("/spec/rules/{i}");
        traffic(&pointer, rule, found);
        versions(&pointer, rule, world, found);
        ports(&pointer, rule, &route.parents, world, found);
        timeouts(&pointer, rule, &route.parents, world, found);
    }
    unreachable_matches(key, route, world, found);
    kinds(key, route, world, found);
}

/// A port that a GRPCRoute is for is none of an HTTPRoute.
fn kinds(key: &Key, route: &CheckedRoute, world: &World, found: &mut Found) {
    for parent in &route.parents {
        let service = &parent.service;
        if let Some(by) = Claimed::of(world, &key.namespace, service).by(&parent.ports)
            && key.kind == Kind::HttpRoute
        {
            let message = format!(
                "{by} is for the same port of {service}, and comes first: the route is not in force there"
            );
            let hint = "name another port in the parentRef, or make one kind of route of both";
            found.add(Problem::warning("/spec/parentRefs", Code::NoTraffic, message).hint(hint));
        }
        let displaced = |other: &CheckedRoute| {
            let theirs = other.ports_of(service);
            let meet = theirs.is_empty() || theirs.iter().any(|port| parent.ports.contains(port));
            parent.ports.is_empty() || meet
        };
        let others = world.routes_of(&key.namespace, service).into_iter();
        let mut others = others.filter(|other| other.object.kind() == Kind::HttpRoute);
        if key.kind == Kind::GrpcRoute
            && let Some(other) = others.find(|other| displaced(&other.checked))
        {
            let message = format!(
                "{} is for the same port of {service}: it is not in force there any more",
                other.object.key()
            );
            let hint = "name the port of the calls in the parentRef";
            found.add(Problem::warning("/spec/parentRefs", Code::NoTraffic, message).hint(hint));
        }
    }
}

fn traffic(pointer: &str, rule: &Route, found: &mut Found) {
    if rule.filters.redirect.is_some() || rule.filters.direct.is_some() {
        return;
    }
    if rule.backends.is_empty() {
        let message = "the rule has no backend, so its requests are refused";
        found.add(Problem::warning(pointer, Code::NoTraffic, message));
    } else if rule.backends.iter().all(|b| b.weight == 0) {
        let message = "all weights are 0, so the requests of the rule are refused";
        found.add(Problem::warning(format!("{pointer}/backendRefs"), Code::NoTraffic, message));
    }
}

fn versions(pointer: &str, rule: &Route, world: &World, found: &mut Found) {
    for (i, backend) in rule.backends.iter().enumerate() {
        let Some(version) = &backend.version else { continue };
        let has_it = |e: &crate::check::CheckedInstance| e.endpoint.version.as_ref() == Some(version);
        if !world.instances(&backend.service).any(|i| has_it(&i.checked)) {
            let message = format!("no instance of {} has the version {version} yet", backend.service);
            let at = format!("{pointer}/backendRefs/{i}/name");
            found.add(Problem::warning(at, Code::NoTraffic, message));
        }
    }
}

/// A request keeps its port, so a backend should have every port its callers can mean.
fn ports(pointer: &str, rule: &Route, parents: &[ServiceParent], world: &World, found: &mut Found) {
    for (i, backend) in rule.backends.iter().enumerate().filter(|(_, b)| b.port.is_none()) {
        let Some(to) = world.service(&backend.service).map(|e| e.checked.service()) else { continue };
        for (parent, entry) in parents.iter().filter_map(|p| Some((p, world.service(&p.service)?))) {
            let from = entry.checked.service();
            let meant = |p: &&Port| parent.ports.is_empty() || parent.ports.contains(&p.number);
            let lacks = |p: &&Port| to.port(Some(p.number)).is_none();
            if let Some(missing) = from.ports.iter().filter(meant).find(lacks) {
                let message = format!(
                    "callers of {} can mean port {}, which {} does not have",
                    from.name, missing.number, to.name
                );
                let at = format!("{pointer}/backendRefs/{i}");
                found.add(Problem::warning(at, Code::NoTraffic, message));
            }
        }
    }
}

fn timeouts(pointer: &str, rule: &Route, parents: &[ServiceParent], world: &World, found: &mut Found) {
    let request_of = |parent: &ServiceParent| -> Option<Duration> {
        let base = &crate::policy::service(world, &parent.service).timeouts;
        let both = rule.timeouts.or(base);
        let request = both.request.unwrap_or(Timeouts::REQUEST);
        let meant = |per_try: &Duration| *per_try > request && *per_try != Timeouts::UNBOUNDED;
        both.per_try.filter(meant).map(|_| request)
    };
    if let Some(request) = parents.iter().find_map(request_of) {
        let at = format!("{pointer}/timeouts");
        found.add(beyond_default(&at, "the limit of an attempt", request));
    }
}

/// A match that an earlier one says already is never met: of equals the oldest route and the first rule win. Conditions that
/// filters add count, and so do the ports; what differs in either is met.
fn unreachable_matches(key: &Key, route: &CheckedRoute, world: &World, found: &mut Found) {
    let mut seen: Vec<RouteMatch> = vec![];
    for (i, rule) in route.rules.iter().enumerate() {
        for (j, this) in matches_of(rule, world).into_iter().enumerate() {
            let at = if rule.route.matches.is_empty() {
                format!("/spec/rules/{i}")
            } else {
                format!("/spec/rules/{i}/matches/{j}")
            };
            if seen.contains(&this) {
                let message = "an earlier match says the same, so this one is never met";
                found.add(Problem::warning(at, Code::Unreachable, message));
            } else if let Some(other) = taken_by(key, route, &this, world) {
                let message = format!("{other} is older and matches the same, so this is never met");
                found.add(Problem::warning(at, Code::Unreachable, message));
            }
            seen.push(this);
        }
    }
}

/// The older route that takes all that a match of `route` would, at every service and port that it is for. At gateways what
/// they meet hangs on listeners and host names; lint looks there.
fn taken_by(key: &Key, route: &CheckedRoute, this: &RouteMatch, world: &World) -> Option<Key> {
    if !route.gateways.is_empty() {
        return None;
    }
    let mut first = None;
    for parent in &route.parents {
        let takes = |other: &&std::sync::Arc<Entry<CheckedRoute>>| {
            let ports = other.checked.ports_of(&parent.service);
            let all = |own: &[PortNumber]| !own.is_empty() && own.iter().all(|port| ports.contains(port));
            other.object.key() != *key
                && is_older(other, key, world)
                && (ports.is_empty() || all(&parent.ports))
                && other.checked.rules.iter().any(|rule| matches_of(rule, world).contains(this))
        };
        let other = world.routes_of(&key.namespace, &parent.service).into_iter().find(takes)?;
        first.get_or_insert_with(|| other.object.key());
    }
    first
}

fn is_older(other: &Entry<CheckedRoute>, key: &Key, world: &World) -> bool {
    match world.route(key) {
        None => true,
        Some(this) => (other.created, other.object.key()) < (this.created, key.clone()),
    }
}

/// The matches of a rule with what its filters add to them, as far as they can be followed.
fn matches_of(rule: &CheckedRule, world: &World) -> Vec<RouteMatch> {
    let mut whole = rule.route.clone();
    let matches = match routes::extend(world, rule, &mut whole) {
        Ok(()) => whole.matches,
        Err(_) => rule.route.matches.clone(),
    };
    let matches = if matches.is_empty() { vec![RouteMatch::default()] } else { matches };
    matches.into_iter().map(normal).collect()
}

/// The same for all ways to write the same.
fn normal(mut m: RouteMatch) -> RouteMatch {
    m.path = match m.path.take() {
        Some(PathMatch::Prefix(prefix)) => match prefix.strip_suffix('/').unwrap_or(&prefix) {
            "" => None,
            bare => Some(PathMatch::Prefix(bare.into())),
        },
        other => other,
    };
    m.headers.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    m.query.sort_by(|a, b| a.name.cmp(&b.name));
    m
}
