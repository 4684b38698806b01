//! Whether a route holds: its parents, its conditions, what it does and where it leads.
//!
//! What a route says of itself is proven here, once. What it says of other objects (that a service is there, that its
//! namespace lets others refer to it) can change while the route stays as it is: `crate::routes` looks at that whenever
//! the route is compiled.

mod attach;
mod backends;
mod cors;
mod filters;
mod frame;
mod grpc;
mod headers;
mod http;
mod matches;
mod parents;
mod rule;
mod tcp;
mod warnings;

use outrigger_mesh::{HostPattern, PortNumber, Route, ServiceName, TcpRoute};

pub(crate) use attach::taken_by;
pub(crate) use backends::foreign;
pub(super) use grpc::check as check_grpc;
pub(super) use headers::{keeps_no_place, reserved};
pub(super) use http::check as check_http;
pub(crate) use matches::read_match;
pub(super) use matches::{Expressions, conditions, value};
pub use parents::{GatewayParent, ServiceParent};
pub(super) use tcp::check as check_tcp;

use crate::spec::{Key, Kind, RouteRetry};
use crate::world::World;

/// A route that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRoute {
    /// The services whose requests it takes, each once.
    pub parents: Vec<ServiceParent>,
    /// The gateways it is attached to.
    pub gateways: Vec<GatewayParent>,
    /// At a gateway: the host names it is for; none for all of the listener's.
    pub hostnames: Vec<HostPattern>,
    /// Its rules, in the order written.
    pub rules: Vec<CheckedRule>,
    /// Of a route of connections: its rules.
    pub tcp_rules: Vec<TcpRoute>,
}

/// A rule that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRule {
    /// What it says by itself.
    pub route: Route,
    /// What it says of retries, which is laid over what its service says.
    pub(crate) retry: Option<RouteRetry>,
    /// What it says elsewhere, in the order written.
    pub(crate) extensions: Vec<Extension>,
    /// The names of its backends as they are written, by which others mean them.
    pub(crate) names: Vec<String>,
}

/// What an ExtensionRef names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    /// A RouteFilter.
    Filter(Key),
    /// Something of a kind that is no filter here.
    Foreign(String),
}

impl CheckedRoute {
    /// The services whose requests it takes.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.parents.iter().map(|parent| &parent.service)
    }

    /// Whether it takes the requests to `service`.
    pub fn takes(&self, service: &ServiceName) -> bool {
        self.services().any(|own| own == service)
    }

    /// The ports of `service` that it is for; none: all.
    pub fn ports_of(&self, service: &ServiceName) -> &[PortNumber] {
        self.parent(service).map(|parent| parent.ports.as_slice()).unwrap_or_default()
    }

    /// What it says of a service whose requests it takes.
    pub fn parent(&self, service: &ServiceName) -> Option<&ServiceParent> {
        self.parents.iter().find(|parent| parent.service == *service)
    }

    /// Its rules by themselves.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.rules.iter().map(|rule| &rule.route)
    }

    /// The services it sends requests to; one may come more than once.
    pub fn backends(&self) -> impl Iterator<Item = &ServiceName> {
        let mirrored = self.routes().flat_map(|r| &r.filters.mirrors).map(|m| &m.service);
        let opaque = self.tcp_rules.iter().flat_map(|r| &r.backends);
        let backends = self.routes().flat_map(|r| &r.backends).chain(opaque);
        backends.map(|b| &b.service).chain(mirrored)
    }
}

/// What the references of a route are resolved in.
struct Context<'a> {
    /// The route.
    key: &'a Key,
    world: &'a World,
}

impl Context<'_> {
    /// The name of a rule. Routes of different kinds may have one name; their rules do not.
    fn name_of_rule(&self, number: usize) -> String {
        let kind = match self.key.kind {
            Kind::GrpcRoute => "grpc:",
            Kind::TcpRoute => "tcp:",
            _ => "",
        };
        format!("{}/{kind}{}/{number}", self.key.namespace, self.key.name)
    }
}

#[cfg(test)]
mod tests;
