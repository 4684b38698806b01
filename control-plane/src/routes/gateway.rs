//! Which routes a gateway takes, listener by listener.

use std::sync::Arc;

use outrigger_mesh::{HostPattern, ServiceName};

use crate::check::{CheckedRoute, taken_by};
use crate::world::{Entry, World};

/// The routes of one listener, the oldest first, with the host names it takes them for; none: all of its own.
pub(crate) type Attached = Vec<(Arc<Entry<CheckedRoute>>, Vec<HostPattern>)>;

/// The routes of each listener of a gateway, in the order of the listeners.
///
/// Routes of requests and of gRPC do not share a host name at a listener: of two that would, the older one is taken
/// (GRPCRouteSpec.hostnames).
pub(crate) fn attached(world: &World, name: &ServiceName) -> Vec<Attached> {
    let Some(gateway) = world.gateway(name).map(|entry| &entry.checked) else { return vec![] };
    let mut all: Vec<Attached> = gateway.base.listeners.iter().map(|_| vec![]).collect();
    for entry in world.routes_at(name) {
        let (route, namespace) = (&entry.checked, &entry.object.metadata.namespace);
        for ((listener, from), taken) in gateway.base.listeners.iter().zip(&gateway.from).zip(&mut all) {
            let of_this = route.gateways.iter().filter(|parent| parent.gateway == *name);
            let mut hostnames = of_this.filter_map(|p| taken_by(route, p, namespace, listener, *from, name));
            let Some(hostnames) = hostnames.next() else { continue };
            if !taken.iter().any(|(other, own)| excludes(other, entry, own, &hostnames)) {
                taken.push((entry.clone(), hostnames));
            }
        }
    }
    all
}

fn excludes(
    older: &Entry<CheckedRoute>,
    route: &Entry<CheckedRoute>,
    own: &[HostPattern],
    hostnames: &[HostPattern],
) -> bool {
    let meet = own.is_empty()
        || hostnames.is_empty()
        || own.iter().any(|a| hostnames.iter().any(|b| a.intersection(b).is_some()));
    older.object.kind() != route.object.kind() && meet
}
