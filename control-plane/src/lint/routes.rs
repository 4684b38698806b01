//! Rules that no request can meet, and rules that answer nobody.

use std::collections::BTreeMap;

use outrigger_mesh::{
    ConsumerRoutes, Fault, Filters, Gateway, HostPattern, PortNumber, Route, RouteMatch, RouteName, Service,
};

use super::Finding;
use crate::spec::Code;

pub(super) fn of_service(service: &Service) -> Vec<Finding> {
    let mut found = unreachable(&service.routes.iter().collect::<Vec<_>>());
    found.extend(service.routes.iter().flat_map(of_route));
    found
}

pub(super) fn of_consumer(consumer: &ConsumerRoutes) -> Vec<Finding> {
    let mut found = unreachable(&consumer.routes.iter().collect::<Vec<_>>());
    found.extend(consumer.routes.iter().flat_map(of_route));
    found
}

/// At a gateway routes meet each other where they have a listener and a host name in common.
pub(super) fn of_gateway(gateway: &Gateway) -> Vec<Finding> {
    let mut found: Vec<Finding> = vec![];
    for listener in &gateway.listeners {
        let mut by_host: BTreeMap<Option<&HostPattern>, Vec<&Route>> = BTreeMap::new();
        for attached in &listener.routes {
            let hosts = attached.hostnames.iter().map(Some);
            let all = hosts.chain(attached.hostnames.is_empty().then_some(None));
            for host in all {
                by_host.entry(host).or_default().push(&attached.route);
            }
        }
        let here = by_host.values().flat_map(|routes| unreachable(routes));
        for finding in here.chain(listener.routes.iter().flat_map(|attached| of_route(&attached.route))) {
            // The same route stands at several listeners.
            if !found.contains(&finding) {
                found.push(finding);
            }
        }
    }
    found
}

/// One match of one rule.
#[derive(Clone, Copy)]
struct Place<'a> {
    rule: &'a RouteName,
    ports: &'a [PortNumber],
    /// Its number in the rule; none where the rule has no match, which is one that everything meets.
    number: Option<usize>,
    conditions: &'a RouteMatch,
}

/// Matches that leave nothing to others: of two that hold the more exact one wins, of equals the older.
fn unreachable(routes: &[&Route]) -> Vec<Finding> {
    let everything = RouteMatch::default();
    let mut all: Vec<Place<'_>> = vec![];
    for route in routes {
        let (rule, ports) = (&route.name, &route.ports[..]);
        if route.matches.is_empty() {
            all.push(Place { rule, ports, number: None, conditions: &everything });
        }
        let matches = route.matches.iter().enumerate();
        all.extend(matches.map(|(i, conditions)| Place { rule, ports, number: Some(i), conditions }));
    }
    if all.len() > MOST {
        return vec![];
    }
    let places: Vec<_> = all.iter().map(|place| place.conditions.precedence()).collect();
    let mut found = vec![];
    for (i, place) in all.iter().enumerate() {
        let comes_first = |j: usize| places[j] > places[i] || (places[j] == places[i] && j < i);
        let covers = |j: &usize| {
            let other = &all[*j];
            let ports = other.ports.is_empty()
                || !place.ports.is_empty() && place.ports.iter().all(|p| other.ports.contains(p));
            *j != i && ports && comes_first(*j) && other.conditions.covers(place.conditions)
        };
        if let Some(j) = (0..all.len()).find(covers) {
            found.push(shadowed(place, &all[j]));
        }
    }
    found
}

fn shadowed(place: &Place<'_>, by: &Place<'_>) -> Finding {
    let below = place.number.map(|i| format!("/matches/{i}")).unwrap_or_default();
    let number = by.number.map(|i| format!(", match {i}")).unwrap_or_default();
    let message = if place.rule == by.rule {
        format!(
            "no request meets this: match {} of the same rule takes all of them first",
            by.number.unwrap_or(0)
        )
    } else {
        format!("no request meets this: {}{number} takes all of them first", by.rule)
    };
    Finding::of_route(place.rule, &below, Code::Unreachable, message)
        .hint("give it a condition that the other one does not have, or take it out")
}

fn of_route(route: &Route) -> Vec<Finding> {
    let mut found = vec![];
    let Filters { faults, redirect, direct, mirrors, .. } = &route.filters;
    let answers = redirect.is_some() || direct.is_some();
    if answers && !route.backends.is_empty() {
        let message = "the rule answers by itself, so nothing goes to its backends".into();
        found.push(Finding::of_route(&route.name, "/backendRefs", Code::NoTraffic, message));
    }
    if !answers && !route.backends.is_empty() && route.backends.iter().all(|b| b.weight == 0) {
        let message = "all weights are 0, so the requests of the rule are refused".into();
        found.push(Finding::of_route(&route.name, "/backendRefs", Code::NoTraffic, message));
    }
    for (i, backend) in route.backends.iter().enumerate() {
        if let Some(why) = backend.unresolved {
            let message =
                format!("{} leads nowhere ({}): its share is refused", backend.service, why.as_str());
            let at = format!("/backendRefs/{i}");
            found.push(Finding::of_route(&route.name, &at, Code::Reference, message));
        }
    }
    let whole = |f: &&Fault| f.abort.is_some() && f.matches.is_empty() && f.share.of == f.share.out_of;
    if faults.iter().any(|f| whole(&f)) {
        let message = "a fault aborts every request of the rule".into();
        found.push(Finding::of_route(&route.name, "", Code::NoTraffic, message));
    }
    let is_backend = |m: &outrigger_mesh::Mirror| {
        route
            .backends
            .iter()
            .any(|b| (&b.service, &b.version, b.weight > 0) == (&m.service, &m.version, true))
    };
    if let Some(mirror) = mirrors.iter().find(|m| is_backend(m)) {
        let message = format!("{} gets requests of the rule and their copies too", mirror.service);
        found.push(Finding::of_route(&route.name, "", Code::Contradiction, message));
    }
    found
}

/// More matches than these are not compared with each other: it takes the square of their number.
const MOST: usize = 4_096;
