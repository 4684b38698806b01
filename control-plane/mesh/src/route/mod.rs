//! Routes: what a request must look like, what is done to it, and where it goes then.
//!
//! The semantics are those of the Gateway API's HTTPRoute, GRPCRoute and TCPRoute. Which of several matching routes wins
//! is decided in `index`, how a route divides its traffic in `split` and `choice`, what filters are asked for stands in
//! `filter`; the proxy acts on them.

mod choice;
mod cover;
mod filter;
mod head;
mod index;
mod matching;
mod name;
mod pattern;
mod split;

pub use choice::{Choice, KeyRange, Partition};
pub use filter::{
    Abort, Cors, DirectResponse, Fault, Filters, Fraction, HeaderChanges, Mirror, PathChange, Redirect,
    Rewrite,
};
pub use head::{Labels, RequestHead, Source};
pub use index::{Hit, RouteIndex};
pub use matching::{CookieMatch, HeaderMatch, PathMatch, QueryMatch, RouteMatch, ValueMatch};
pub use name::RouteName;
pub use pattern::{InvalidPattern, Pattern};
pub use split::{Split, key_hash};

use std::collections::HashSet;

use crate::name::{Label, PortNumber, ServiceName, Version};
use crate::policy::{CallerMatch, RetryPolicy, RoutePolicy, Timeouts};

/// One rule: any of its matches sends a request to its backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// The ports of the service it is for; none: all.
    pub ports: Vec<PortNumber>,
    /// What a request must look like; it is enough that one of them holds. Empty: everything matches.
    pub matches: Vec<RouteMatch>,
    /// What is done to a request on its way.
    pub filters: Filters,
    /// Where it goes, by weight. Empty, or all of weight 0: nowhere, and the request is refused.
    pub backends: Vec<Backend>,
    /// By what a backend is chosen, beside chance.
    pub choice: Choice,
    /// What differs from the service's timeouts.
    pub timeouts: Timeouts,
    /// The retry rule, where it differs from the service's.
    pub retry: Option<RetryPolicy>,
    /// Its own breaker and bulkhead, in front of the service's.
    pub policy: RoutePolicy,
}

impl Route {
    /// So many routes of requests, and of connections, a service has at most.
    pub const MOST: usize = 10_000;

    /// A route of this name that everything takes and that leads nowhere yet.
    pub fn new(name: RouteName) -> Self {
        Self {
            name,
            ports: vec![],
            matches: vec![],
            filters: Filters::default(),
            backends: vec![],
            choice: Choice::default(),
            timeouts: Timeouts::default(),
            retry: None,
            policy: RoutePolicy::default(),
        }
    }

    /// Whether it asks for claims of tokens.
    pub fn looks_at_claims(&self) -> bool {
        let faults = self.filters.faults.iter().flat_map(|f| &f.matches);
        let limits = self.filters.rate_limits.iter().flat_map(|l| &l.matches);
        self.matches.iter().chain(faults).chain(limits).any(|m| !m.claims.is_empty())
            || self.choice.looks_at_claims()
            || self.filters.rate_limits.iter().any(|l| matches!(l.key, crate::RateKey::Claim(_)))
    }

    /// Whether it asks who sends a request.
    pub fn looks_at_source(&self) -> bool {
        let faults = self.filters.faults.iter().flat_map(|f| &f.matches);
        let limits = self.filters.rate_limits.iter().flat_map(|l| &l.matches);
        self.matches.iter().chain(faults).chain(limits).any(RouteMatch::looks_at_source)
            || self.choice.looks_at_source()
            || self.filters.rate_limits.iter().any(|l| l.key == crate::RateKey::Caller)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        check_weights(&self.backends)?;
        self.timeouts_check()?;
        self.filters.check()?;
        self.choice.check(self.backends.len())?;
        self.matches.iter().try_for_each(RouteMatch::check)
    }

    fn timeouts_check(&self) -> Result<(), String> {
        let policy = crate::TrafficPolicy {
            timeouts: self.timeouts.of_route(),
            retry: self.retry.clone().unwrap_or_default(),
            ..crate::TrafficPolicy::default()
        };
        policy.check().and_then(|()| self.policy.check()).map_err(|e| e.to_string())
    }
}

fn check_weights(backends: &[Backend]) -> Result<(), String> {
    if backends.iter().any(|b| b.weight > Backend::MAX_WEIGHT) {
        return Err(format!("a weight is above {}", Backend::MAX_WEIGHT));
    }
    Ok(())
}

/// A share of a route's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service that gets it.
    pub service: ServiceName,
    /// The subset that gets it; `None` means all endpoints of the service.
    pub version: Option<Version>,
    /// The port of it that gets it; `None` means the one its caller meant, and at a gateway its first.
    pub port: Option<PortNumber>,
    /// Its weight relative to the other backends of the route, 0 to [`Backend::MAX_WEIGHT`].
    pub weight: u32,
    /// Changes to the headers of the requests that go there.
    pub request: HeaderChanges,
    /// Changes to the headers of the responses that come from there.
    pub response: HeaderChanges,
    /// Why nothing can go there. Its share is refused with 500, as the Gateway API wants it.
    pub unresolved: Option<Unresolved>,
}

impl Backend {
    /// The Gateway API's bound of a weight.
    pub const MAX_WEIGHT: u32 = 1_000_000;
    /// The routes of a service lead to so many services at most.
    pub const MOST_SERVICES: usize = 256;

    /// All endpoints of `service`, with a weight of 1.
    pub fn to(service: ServiceName) -> Self {
        Self {
            service,
            version: None,
            port: None,
            weight: 1,
            request: HeaderChanges::default(),
            response: HeaderChanges::default(),
            unresolved: None,
        }
    }

    /// What tells it apart from the others of its route for [`Split::pick_by_key`]: its service and its version, whatever
    /// its place and its weight.
    pub fn draws_by(&self) -> u64 {
        let version = self.version.as_ref().map_or("", Version::as_str);
        key_hash(format!("{} {version}", self.service).as_bytes())
    }
}

/// Why a reference leads nowhere; the reasons of the condition `ResolvedRefs` (Gateway API v1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unresolved {
    /// There is no such service, or it does not have that port.
    BackendNotFound,
    /// It is in another namespace, which does not grant that.
    RefNotPermitted,
    /// Nothing of that kind can be a backend.
    InvalidKind,
    /// What is spoken there is not what the route is about.
    UnsupportedProtocol,
}

impl Unresolved {
    /// The word of the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidKind => "InvalidKind",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        }
    }
}

/// One rule for connections whose bytes nobody looks into (TCPRoute).
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    /// Its name.
    pub name: RouteName,
    /// The ports of the service it is for; none: all that are opaque.
    pub ports: Vec<PortNumber>,
    /// Whose connections it takes: any of them. None: everybody's.
    pub callers: Vec<CallerMatch>,
    /// Where they go, by weight.
    pub backends: Vec<Backend>,
}

impl TcpRoute {
    pub(crate) fn check(&self) -> Result<(), String> {
        check_weights(&self.backends)
    }
}

/// The routes that the callers of one namespace have made for a service of another one. Where there are any, they stand in
/// place of all that the service's own namespace says for those callers (GAMMA: consumer routes over producer routes).
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerRoutes {
    /// The namespace whose callers they are for.
    pub namespace: Label,
    /// The service.
    pub service: ServiceName,
    /// The routes of requests, the oldest first.
    pub routes: Vec<Route>,
    /// The routes of connections, the oldest first.
    pub tcp_routes: Vec<TcpRoute>,
}

impl ConsumerRoutes {
    /// Proves that every route is sound and none is there twice.
    pub fn checked(self) -> Result<Self, String> {
        check_all(&self.routes, &self.tcp_routes)
            .map_err(|what| format!("routes of {} for {}: {what}", self.namespace, self.service))?;
        Ok(self)
    }
}

/// Proves that a service, as its callers of one namespace see it, has no more routes than [`Route::MOST`] and that they lead to
/// no more services than [`Backend::MOST_SERVICES`].
pub fn bounded_routes(routes: &[Route], tcp_routes: &[TcpRoute]) -> Result<(), String> {
    if routes.len().max(tcp_routes.len()) > Route::MOST {
        return Err(format!("there are more than {} routes", Route::MOST));
    }
    let of_requests = routes.iter().flat_map(|r| &r.backends);
    let backends = of_requests.chain(tcp_routes.iter().flat_map(|r| &r.backends));
    let services: HashSet<&ServiceName> = backends.map(|b| &b.service).collect();
    if services.len() > Backend::MOST_SERVICES {
        return Err(format!("the routes name more than {} services", Backend::MOST_SERVICES));
    }
    Ok(())
}

/// Proves that every route is sound, none is there twice and they are not too many.
pub(crate) fn check_all(routes: &[Route], tcp_routes: &[TcpRoute]) -> Result<(), String> {
    bounded_routes(routes, tcp_routes)?;
    let mut names = HashSet::new();
    let checked = routes.iter().map(|r| (&r.name, r.check()));
    for (name, checked) in checked.chain(tcp_routes.iter().map(|r| (&r.name, r.check()))) {
        if !names.insert(name) {
            return Err(format!("route {name} is there twice"));
        }
        checked.map_err(|what| format!("route {name}: {what}"))?;
    }
    Ok(())
}
