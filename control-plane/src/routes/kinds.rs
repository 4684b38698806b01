//! Which kind of routes has a port of a service.
//!
//! Routes of different kinds do not share one: where a GRPCRoute is for a port, no HTTPRoute is in force there, however old
//! it is (GEP-1294, route types). That holds among the routes that one namespace has made for a service. Routes of
//! connections are for other ports anyway. At a gateway age decides, host name by host name: `gateway`.

use outrigger_mesh::{Label, PortNumber, ServiceName};

use crate::check::CheckedRoute;
use crate::spec::{Key, Kind};
use crate::world::{Entry, World};

/// The ports of a service that GRPCRoutes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// Each port that requests can come to, with the oldest GRPCRoute that is for it; none where there is no such route.
    ports: Vec<(PortNumber, Option<Key>)>,
}

impl Claimed {
    /// What the routes of a namespace say of a service.
    pub(crate) fn of(world: &World, namespace: &Label, service: &ServiceName) -> Self {
        let is_there = |key: &Key| key.kind == Kind::GrpcRoute && key.namespace == *namespace;
        if !world.routes_naming(service).any(is_there) {
            return Self { ports: vec![] };
        }
        let routes = world.routes_of(namespace, service);
        let grpc: Vec<_> = routes.into_iter().filter(|entry| is_grpc(entry, service)).collect();
        let ports = world.service(service).map(|entry| entry.checked.service().ports.as_slice());
        let ports = ports.unwrap_or_default().iter().filter(|port| !port.protocol.is_opaque());
        let by = |port: PortNumber| {
            let entry = grpc.iter().find(|entry| means(&entry.checked, service, port))?;
            Some(entry.object.key())
        };
        Self { ports: ports.map(|port| (port.number, by(port.number))).collect() }
    }

    /// The ports at which a route of `kind` is in force that is for `ports`; no ports at all are all there are, before and
    /// after. `None`: at not one of them.
    pub(crate) fn left(&self, kind: Kind, ports: &[PortNumber]) -> Option<Vec<PortNumber>> {
        if kind != Kind::HttpRoute || self.ports.iter().all(|(_, by)| by.is_none()) {
            return Some(ports.to_vec());
        }
        let meant = |port: PortNumber| ports.is_empty() || ports.contains(&port);
        let free = self.ports.iter().filter(|(port, by)| by.is_none() && meant(*port));
        let free: Vec<_> = free.map(|(port, _)| *port).collect();
        (!free.is_empty()).then_some(free)
    }

    /// The GRPCRoute because of which an HTTPRoute that is for `ports` is not in force.
    pub(crate) fn by(&self, ports: &[PortNumber]) -> Option<&Key> {
        if self.left(Kind::HttpRoute, ports).is_some() {
            return None;
        }
        let meant = |port: PortNumber| ports.is_empty() || ports.contains(&port);
        self.ports.iter().filter(|(port, _)| meant(*port)).find_map(|(_, by)| by.as_ref())
    }
}

fn is_grpc(entry: &Entry<CheckedRoute>, service: &ServiceName) -> bool {
    let takes = entry.checked.parent(service).is_some_and(|parent| !parent.takes_nothing());
    entry.object.kind() == Kind::GrpcRoute && takes
}

fn means(route: &CheckedRoute, service: &ServiceName, port: PortNumber) -> bool {
    let ports = route.ports_of(service);
    ports.is_empty() || ports.contains(&port)
}
