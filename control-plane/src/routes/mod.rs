//! The rules of a route as they are pushed: with what its policies and filters say, and what other objects are just now.
//!
//! A check proves what a route says by itself. What hangs on others is looked at here, each time a route is compiled, so
//! that a service, a grant or a filter that comes or goes changes the routes that name it without anybody writing them
//! anew (docs/decisions/0015-references-as-states.md).

mod extend;
mod gateway;
mod kinds;
mod resolve;

use outrigger_mesh::{Backend, Choice, Filters, Label, PortNumber, Route, ServiceName, TcpRoute, Unresolved};

pub(crate) use extend::{INCOMPATIBLE, apply as extend};
pub(crate) use gateway::{Attached, attached};
pub(crate) use kinds::Claimed;
pub(crate) use resolve::{Dangling, Referrer, dangling, leads, no_service};

use crate::check::{CheckedRoute, CheckedRule};
use crate::policy;
use crate::spec::{Key, Kind};
use crate::world::{Entry, World};

/// The rules of requests that a namespace has made for a service, the oldest route first.
pub(crate) fn of_requests(world: &World, namespace: &Label, service: &ServiceName) -> Vec<Route> {
    let claimed = Claimed::of(world, namespace, service);
    let routes = world.routes_of(namespace, service).into_iter();
    let routes =
        routes.filter(|entry| entry.object.kind() != Kind::TcpRoute && takes(&entry.checked, service));
    let in_force = routes.filter_map(|entry| {
        let ports = claimed.left(entry.object.kind(), entry.checked.ports_of(service))?;
        Some((entry, ports))
    });
    in_force.flat_map(|(entry, ports)| before(world, entry, service, &ports)).collect()
}

/// The rules of connections that a namespace has made for a service, the oldest route first.
pub(crate) fn of_connections(world: &World, namespace: &Label, service: &ServiceName) -> Vec<TcpRoute> {
    let mut all = vec![];
    let routes = world.routes_of(namespace, service).into_iter();
    for entry in routes.filter(|entry| takes(&entry.checked, service)) {
        let key = entry.object.key();
        for rule in &entry.checked.tcp_rules {
            let mut rule = rule.clone();
            rule.ports = entry.checked.ports_of(service).to_vec();
            settle(world, &key, &mut rule.backends);
            keep_ports(&mut rule.backends, service);
            all.push(rule);
        }
    }
    all
}

fn takes(checked: &CheckedRoute, service: &ServiceName) -> bool {
    checked.parent(service).is_some_and(|parent| !parent.takes_nothing())
}

/// The rules of a route at its gateways.
pub(crate) fn at_gateway(world: &World, key: &Key) -> Vec<Route> {
    let Some(entry) = world.route(key) else { return vec![] };
    whole(world, key, &entry.checked, None)
}

fn before(
    world: &World,
    entry: &Entry<CheckedRoute>,
    service: &ServiceName,
    ports: &[PortNumber],
) -> Vec<Route> {
    let mut rules = whole(world, &entry.object.key(), &entry.checked, Some(service));
    for rule in &mut rules {
        rule.ports = ports.to_vec();
        keep_ports(&mut rule.backends, service);
    }
    rules
}

/// What stays at the service keeps the port its caller meant, which is the one that is written where one is.
fn keep_ports(backends: &mut [Backend], service: &ServiceName) {
    backends.iter_mut().filter(|b| b.service == *service).for_each(|b| b.port = None);
}

fn whole(world: &World, key: &Key, checked: &CheckedRoute, before: Option<&ServiceName>) -> Vec<Route> {
    let mut rules = policy::rules(world, key, before);
    for (rule, written) in rules.iter_mut().zip(&checked.rules) {
        settle(world, key, &mut rule.backends);
        let from = Referrer::of(key);
        // Nobody waits for the answer to a copy; one that can not be sent is not.
        rule.filters.mirrors.retain(|m| leads(world, from, &m.service, m.port).is_ok());
        if extend(world, written, rule).is_err() {
            refuse(rule, written, before);
        }
    }
    rules
}

/// Marks the backends that nothing can go to just now. Those that nothing can ever go to are marked already.
fn settle(world: &World, key: &Key, backends: &mut [Backend]) {
    for one in backends.iter_mut().filter(|one| one.unresolved.is_none()) {
        let found = leads(world, Referrer::of(key), &one.service, one.port);
        one.unresolved = found.err().map(|(why, _)| why);
    }
}

/// A filter that can not be obeyed must not be skipped (Gateway API, HTTPRouteFilter): every request that the rule takes is
/// refused, by a backend that is not there.
fn refuse(rule: &mut Route, written: &CheckedRule, before: Option<&ServiceName>) {
    let named = written.route.backends.first().map(|b| &b.service).or(before);
    let namespace = || Label::new(rule.name.as_str().split('/').next()?).ok();
    let named = named.cloned().or_else(|| nameless(&namespace()?));
    rule.matches.clone_from(&written.route.matches);
    rule.filters = Filters::default();
    rule.choice = Choice::default();
    let unresolved = Some(Unresolved::InvalidKind);
    rule.backends = named.map(|service| Backend { unresolved, ..Backend::to(service) }).into_iter().collect();
}

/// A name that no service has: for what leads nowhere.
pub(crate) fn nameless(namespace: &Label) -> Option<ServiceName> {
    Some(ServiceName::new(namespace.clone(), Label::new("no-backend").ok()?))
}

#[cfg(test)]
mod tests;
