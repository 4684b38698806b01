//! A service as its callers see it: names, ports, who may serve it, routes and policy.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use crate::division::Division;
use crate::http_rules::HttpRules;
use crate::identity::SpiffeId;
use crate::inbound::MtlsModes;
use crate::location::Location;
use crate::name::{Hostname, PortNumber, ServiceName};
use crate::policy::{BreakerOverride, CallerPolicy, TrafficPolicy};
use crate::route::{Route, TcpRoute, check_all};
use crate::token::TokenTravel;

/// A service, whole: its routes and policies travel with it, so that a change to a split is one atomic resource.
///
/// The fields are open to read and to build from; [`Service::checked`] proves that they hold together, and both
/// `compile` and `decode` go through it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its full name.
    pub name: ServiceName,
    /// Every host name it answers to, completed with a namespace, in a stable order.
    pub hostnames: Vec<Hostname>,
    /// Its virtual addresses, at most one of each family: by them applications reach it that know no Host.
    pub addresses: Vec<IpAddr>,
    /// What the cluster that it is of calls it by, such as the ClusterIP of a Service: at most one of each family. Applications
    /// that ask the cluster's DNS call it there. Only the cluster says so, never who writes a service: an address that could be
    /// claimed would be somebody else's traffic.
    pub cluster_addresses: Vec<IpAddr>,
    /// Its ports; the first is meant where a caller names none.
    pub ports: Vec<Port>,
    /// Where its endpoints come from.
    pub location: Location,
    /// Who may serve it. A peer with another identity is refused, whatever an endpoint says of itself.
    pub identities: Vec<SpiffeId>,
    /// Whether its endpoints must be reached over mutual TLS.
    pub mtls: MtlsModes,
    /// What two sidecars speak between them for this service.
    pub between: Between,
    /// What callers may ask of HTTP.
    pub http: HttpRules,
    /// Its routes, the oldest first. Empty: everything goes to all endpoints.
    pub routes: Vec<Route>,
    /// The routes of connections to its opaque ports, the oldest first.
    pub tcp_routes: Vec<TcpRoute>,
    /// How what goes to it as a whole is divided between two versions, while one takes the other's place.
    pub division: Option<Division>,
    /// What holds where a route says nothing else.
    pub policy: TrafficPolicy,
    /// What holds in its place for some callers.
    pub for_callers: Vec<CallerPolicy>,
    /// What operators have said of its breakers.
    pub overrides: Vec<BreakerOverride>,
    /// What becomes of tokens on the calls to it.
    pub tokens: TokenTravel,
}

impl Service {
    /// Proves that the parts agree: at least one port, no port, host name or route twice, routes that are sound.
    pub fn checked(self) -> Result<Self, InvalidService> {
        let fault = |what: String| Err(InvalidService { service: self.name.clone(), what });
        if self.ports.is_empty() {
            return fault("it has no port".into());
        }
        let mut ports = HashSet::new();
        if let Some(twice) = self.ports.iter().find(|p| !ports.insert(p.number)) {
            return fault(format!("port {} is declared twice", twice.number));
        }
        let mut names = HashSet::new();
        if let Some(twice) = self.hostnames.iter().find(|h| !names.insert(h.as_str())) {
            return fault(format!("host name {twice} is declared twice"));
        }
        for (all, kind) in [(&self.addresses, "virtual"), (&self.cluster_addresses, "cluster")] {
            if all.iter().filter(|a| a.is_ipv4()).count() > 1
                || all.iter().filter(|a| a.is_ipv6()).count() > 1
            {
                return fault(format!("it has more than one {kind} address of a family"));
            }
        }
        if let Err(what) = self.location.check(&self.mtls) {
            return fault(what);
        }
        if let Err(what) = self.http.check() {
            return fault(what);
        }
        let outside = matches!(self.location, Location::Dns { outside: true, .. });
        if outside && matches!(self.tokens, TokenTravel::Attach | TokenTravel::Exchange { .. }) {
            return fault("no token is attached to a call that leaves the mesh".into());
        }
        if let Err(what) = check_all(&self.routes, &self.tcp_routes) {
            return fault(what);
        }
        if let Some(Err(what)) = self.division.as_ref().map(Division::check) {
            return fault(what);
        }
        let policies = std::iter::once(&self.policy).chain(self.for_callers.iter().map(|c| &c.policy));
        for policy in policies {
            if let Err(what) = policy.check() {
                return fault(what.to_string());
            }
        }
        let mut callers = HashSet::new();
        if let Some(twice) = self.for_callers.iter().flat_map(|c| &c.callers).find(|id| !callers.insert(*id))
        {
            return fault(format!("two policies hold for caller {twice}"));
        }
        Ok(self)
    }

    /// Every name by which a lookup finds it: its host names, and those of its addresses.
    pub fn looked_up_as(&self) -> Vec<Hostname> {
        let addresses = self.addresses.iter().chain(&self.cluster_addresses);
        self.hostnames.iter().cloned().chain(addresses.map(|ip| Hostname::of_address(*ip))).collect()
    }

    /// What holds for the requests of `caller`, where no route says otherwise.
    pub fn policy_for(&self, caller: Option<&SpiffeId>) -> &TrafficPolicy {
        let own = |id| self.for_callers.iter().find(|c| c.callers.contains(id));
        caller.and_then(own).map_or(&self.policy, |c| &c.policy)
    }

    /// The port a caller means: the one it names, if it is declared, else the first.
    pub fn port(&self, named: Option<PortNumber>) -> Option<&Port> {
        match named {
            None => self.ports.first(),
            Some(number) => self.ports.iter().find(|p| p.number == number),
        }
    }
}

/// Parts of a service that do not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service {service}: {what}")]
pub struct InvalidService {
    service: ServiceName,
    what: String,
}

/// A port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// The number by which callers name it.
    pub number: PortNumber,
    /// What the application speaks there.
    pub protocol: Protocol,
}

/// What an application speaks on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Not declared: gRPC requests go on as HTTP/2, all others as HTTP/1.1.
    #[default]
    Detect,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, which is HTTP/2 with prior knowledge.
    Grpc,
    /// Bytes that nobody looks into; also for protocols in which the server speaks first.
    Tcp,
    /// TLS that the application speaks itself: passed through, told apart by SNI.
    Tls,
}

impl Protocol {
    /// The written form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether its bytes are passed on as they are, one connection being one exchange.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What two sidecars speak between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Between {
    /// The sidecar chooses by protocol and load.
    #[default]
    Auto,
    /// HTTP/1.1, one exchange a connection. Header case survives.
    Http1,
    /// HTTP/2, many exchanges a connection.
    Http2,
}
