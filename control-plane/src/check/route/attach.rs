//! At which listeners of a gateway a route takes part, and for which host names.

use outrigger_mesh::{HostPattern, Label, Listener, ServiceName};

use super::{CheckedRoute, GatewayParent, ServiceParent};
use crate::check::Found;
use crate::spec::{self, Code, Problem};
use crate::world::World;

/// The host names of a route, which only a gateway asks for: a service's callers named the service already.
pub(super) fn hostnames(
    written: &[String],
    parents: &[ServiceParent],
    found: &mut Found,
) -> Vec<HostPattern> {
    if let Some(parent) = parents.first().filter(|_| !written.is_empty()) {
        let message =
            format!("{} is a service: a route takes its requests whatever name they used", parent.service);
        let problem = Problem::error("/spec/hostnames", Code::Contradiction, message);
        found.add(problem.hint("leave hostnames out, or make two routes, one of them for the gateway"));
    }
    let mut all: Vec<HostPattern> = vec![];
    for (i, text) in written.iter().enumerate() {
        let pointer = format!("/spec/hostnames/{i}");
        match text.parse() {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, format!("{e}"))),
            Ok(pattern) if all.contains(&pattern) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{pattern} is there twice")));
            }
            Ok(pattern) => all.push(pattern),
        }
    }
    all
}

/// A route that no listener takes is allowed, since the gateway may change, but probably not meant.
pub(super) fn attachments(route: &CheckedRoute, namespace: &Label, world: &World, found: &mut Found) {
    for (i, parent) in route.gateways.iter().enumerate() {
        let Some(entry) = world.gateway(&parent.gateway) else { continue };
        let taken = entry.checked.base.listeners.iter().enumerate().any(|(at, listener)| {
            let from = entry.checked.from.get(at).copied().unwrap_or_default();
            taken_by(route, parent, namespace, listener, from, &parent.gateway).is_some()
        });
        if !taken {
            let message = format!(
                "no listener of {} takes it: their host names are others, or routes of this namespace are not allowed",
                parent.gateway
            );
            found.add(Problem::warning(format!("/spec/parentRefs/{i}"), Code::NoTraffic, message));
        }
    }
}

/// The host names for which a listener takes a route; `None` when it does not. No name at all means all of its own.
pub(crate) fn taken_by(
    route: &CheckedRoute,
    parent: &GatewayParent,
    namespace: &Label,
    listener: &Listener,
    from: spec::From,
    gateway: &ServiceName,
) -> Option<Vec<HostPattern>> {
    let allowed = from == spec::From::All || namespace == gateway.namespace();
    if !allowed || !parent.means(listener) {
        return None;
    }
    match &listener.hostname {
        None => Some(route.hostnames.clone()),
        Some(_) if route.hostnames.is_empty() => Some(vec![]),
        Some(own) => {
            let met: Vec<_> = route.hostnames.iter().filter_map(|h| h.intersection(own)).collect();
            (!met.is_empty()).then_some(met)
        }
    }
}
