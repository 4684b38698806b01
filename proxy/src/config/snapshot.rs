//! What a request reads of a service: its routes arranged for matching, with everything that can be decided before
//! the request comes decided. Immutable; swapped whole.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;
use outrigger_mesh::{
    Endpoint, EndpointState, Location, PortNumber, RequestHead, RetryPolicy, Route, RouteIndex, RouteName,
    Service, ServiceName, Split, Timeouts, TrafficPolicy, Transport, Version,
};

use crate::config::outside::Outside;
use crate::config::registry::Resolved;
use crate::live::{EndpointLive, LiveService};

/// A service, arranged for requests.
#[derive(Debug)]
pub struct ServiceSnapshot {
    /// The resource it was made from.
    pub service: Service,
    index: RouteIndex,
    plans: Vec<Arc<RoutePlan>>,
    /// Where everything goes while the service has no route.
    default: Arc<RoutePlan>,
    /// The TLS to add, where the service is outside the mesh and wants it.
    pub outside: Option<Arc<Outside>>,
}

impl ServiceSnapshot {
    /// Arranges `service`. `resolve` gives the live state of the other services that its routes name.
    pub fn new(service: Service, mut resolve: impl FnMut(&ServiceName) -> Arc<LiveService>) -> Self {
        let plans = service
            .routes
            .iter()
            .map(|route| Arc::new(RoutePlan::of_route(&service, route, &mut resolve)))
            .collect();
        let default = Arc::new(RoutePlan::of_service(&service));
        Self { index: RouteIndex::new(&service.routes), plans, default, outside: None, service }
    }

    /// Whether its endpoints are found by name.
    pub fn is_looked_up(&self) -> bool {
        matches!(self.service.location, Location::Dns { .. })
    }

    /// The plan for what is no request: everything goes to all endpoints.
    pub fn opaque(&self) -> &Arc<RoutePlan> {
        &self.default
    }

    /// The plan for a request; `None` when the service has routes and none matches.
    pub fn route(&self, head: &RequestHead<'_>) -> Option<&Arc<RoutePlan>> {
        if self.index.is_empty() {
            return Some(&self.default);
        }
        self.index.position(head).map(|at| &self.plans[at])
    }
}

/// Where the requests of one route go and what holds for them.
#[derive(Debug)]
pub struct RoutePlan {
    /// The route, `None` for the service's default.
    pub name: Option<RouteName>,
    /// Its backends; empty means that requests are refused.
    pub targets: Vec<Target>,
    /// How the backends share the traffic.
    pub split: Split,
    /// Its timeouts, those of the service filled in.
    pub timeouts: Timeouts,
    /// Its retry rule.
    pub retry: RetryPolicy,
    /// The whole of the request timeout as a header value, made once.
    pub deadline_header: HeaderValue,
}

impl RoutePlan {
    fn of_route(
        service: &Service,
        route: &Route,
        resolve: &mut impl FnMut(&ServiceName) -> Arc<LiveService>,
    ) -> Self {
        let target = |backend: &outrigger_mesh::Backend| Target {
            service: (backend.service != service.name).then(|| resolve(&backend.service)),
            version: backend.version.clone(),
            port: backend.port,
        };
        Self::new(
            Some(route.name.clone()),
            route.backends.iter().map(target).collect(),
            Split::new(route.backends.iter().map(|b| b.weight)),
            route.timeouts.or(&service.policy.timeouts),
            route.retry.clone().unwrap_or_else(|| service.policy.retry.clone()),
        )
    }

    /// The plan of a route at a gateway: every backend is another service, and where the route says nothing `policy`
    /// holds.
    pub fn at_edge(
        route: &Route,
        policy: &TrafficPolicy,
        resolve: &mut impl FnMut(&ServiceName) -> Arc<LiveService>,
    ) -> Self {
        let target = |backend: &outrigger_mesh::Backend| Target {
            service: Some(resolve(&backend.service)),
            version: backend.version.clone(),
            port: backend.port,
        };
        Self::new(
            Some(route.name.clone()),
            route.backends.iter().map(target).collect(),
            Split::new(route.backends.iter().map(|b| b.weight)),
            route.timeouts.or(&policy.timeouts),
            route.retry.clone().unwrap_or_else(|| policy.retry.clone()),
        )
    }

    fn of_service(service: &Service) -> Self {
        let everything = Target { service: None, version: None, port: None };
        let policy = &service.policy;
        Self::new(None, vec![everything], Split::new([1]), policy.timeouts.clone(), policy.retry.clone())
    }

    fn new(
        name: Option<RouteName>,
        targets: Vec<Target>,
        split: Split,
        timeouts: Timeouts,
        retry: RetryPolicy,
    ) -> Self {
        let request = timeouts.request.unwrap_or(Timeouts::REQUEST);
        let deadline_header = HeaderValue::from(u64::try_from(request.as_millis()).unwrap_or(u64::MAX));
        Self { name, targets, split, timeouts, retry, deadline_header }
    }
}

/// One backend of a route.
#[derive(Debug)]
pub struct Target {
    /// The service, `None` for the route's own.
    pub service: Option<Arc<LiveService>>,
    /// The subset, `None` for all endpoints.
    pub version: Option<Version>,
    /// Its port, `None` for the one that its caller meant.
    pub port: Option<PortNumber>,
}

/// The endpoints of a service at one moment, arranged for balancing.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// Whether the control plane has said which endpoints there are. Until then a request waits instead of failing.
    pub complete: bool,
    /// Why there are none, or only old ones, where they are found by name.
    pub trouble: Option<Arc<str>>,
    /// Every endpoint, draining ones too.
    pub everything: Vec<Arc<EndpointView>>,
    all: Subset,
    subsets: HashMap<Version, Subset>,
}

impl EndpointSet {
    /// Arranges `endpoints`.
    pub fn new(endpoints: Vec<Arc<EndpointView>>, complete: bool) -> Self {
        let mut all = Subset::default();
        let mut subsets: HashMap<Version, Subset> = HashMap::new();
        for view in endpoints.iter().filter(|v| v.endpoint.state == EndpointState::Ready) {
            all.add(view);
            if let Some(version) = &view.endpoint.version {
                subsets.entry(version.clone()).or_default().add(view);
            }
        }
        Self { complete, trouble: None, everything: endpoints, all, subsets }
    }

    /// The endpoints that take new requests, of one version or of all.
    pub fn subset(&self, version: Option<&Version>) -> &Subset {
        match version {
            None => &self.all,
            Some(version) => self.subsets.get(version).unwrap_or(&NOBODY),
        }
    }
}

/// Endpoints to choose from.
#[derive(Debug, Default)]
pub struct Subset {
    /// Who they are.
    pub members: Vec<Arc<EndpointView>>,
    /// Running totals of their weights.
    pub upper: Vec<u64>,
    /// Whether all weigh the same, which saves looking at the totals.
    pub uneven: bool,
}

static NOBODY: Subset = Subset { members: Vec::new(), upper: Vec::new(), uneven: false };

impl Subset {
    fn add(&mut self, view: &Arc<EndpointView>) {
        let weight = view.endpoint.weight;
        self.uneven |= self.members.first().is_some_and(|first| first.endpoint.weight != weight);
        self.upper.push(self.total() + u64::from(weight.get()));
        self.members.push(Arc::clone(view));
    }

    /// The sum of the weights.
    pub fn total(&self) -> u64 {
        self.upper.last().copied().unwrap_or(0)
    }
}

/// An endpoint as it was last pushed, with the state that outlives the push.
#[derive(Debug)]
pub struct EndpointView {
    /// The resource.
    pub endpoint: Endpoint,
    /// Load, failures, connections.
    pub live: Arc<EndpointLive>,
    /// What is known of it beside, where it was found by name.
    pub resolved: Option<Arc<Resolved>>,
}

impl EndpointView {
    /// Whether requests to it run over mutual TLS.
    pub fn is_mesh(&self) -> bool {
        self.endpoint.transport == Transport::Mesh
    }

    /// Whether the application of this instance listens at `address`.
    pub fn is_at(&self, address: std::net::SocketAddr) -> bool {
        let ip = self.endpoint.ip.to_canonical();
        ip == address.ip() && self.endpoint.ports.iter().any(|p| p.application().get() == address.port())
    }

    /// Where the service's `port` is reached. An endpoint with a single port serves it under any name of the service.
    pub fn address(&self, port: PortNumber) -> Option<std::net::SocketAddr> {
        self.endpoint.address(port)
    }
}
