//! What a request reads of a service: its routes arranged for matching, with everything that can be decided before
//! the request comes decided. Immutable; swapped whole.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use outrigger_certs::Seal;
use outrigger_mesh::{
    Algorithm, ConnectionLimits, Endpoint, EndpointState, EndpointUid, Location, MtlsMode, PortNumber,
    RequestHead, Service, ServiceName, SpiffeId, TraceShare, Transport, Version,
};

use crate::attempt::balance::{self, Maglev, Turns};
use crate::config::outside::Outside;
use crate::config::registry::Resolved;
use crate::config::routes::{Asks, NoRoutes, RoutePlan, RouteTable, Taken, TcpTable};
use crate::filter::RouteLimits;
use crate::live::{EndpointLive, LiveService, Millis};
use crate::request::places::ServiceBulkheads;

/// A service, arranged for requests.
#[derive(Debug)]
pub struct ServiceSnapshot {
    /// The resource it was made from.
    pub service: Service,
    routes: RouteTable,
    tcp_routes: TcpTable,
    /// Where everything goes while the service has no route.
    default: Arc<RoutePlan>,
    /// The TLS to add, where the service is outside the mesh and wants it.
    pub outside: Option<Arc<Outside>>,
    /// Seals what callers keep, where they stay where they were.
    pub seal: Option<Seal>,
    /// How many connections may be open.
    pub connections: ConnectionLimits,
    /// What its routes, its division or the choice of an endpoint ask for beyond the head of a request.
    pub asks: Asks,
    /// The largest share of its requests that is traced on any of its routes, where policies say so.
    pub traced: Option<TraceShare>,
}

impl ServiceSnapshot {
    /// Arranges `service`, whose policy is the own workload's. `resolve` gives the live state of the other services that
    /// its routes name.
    pub fn new(service: Service, mut resolve: impl FnMut(&ServiceName) -> Arc<LiveService>) -> Self {
        let (name, policy) = (&service.name, &service.policy);
        let plan = |route| Arc::new(RoutePlan::of_route(name, policy, route, &mut resolve));
        let plans = service.routes.iter().map(plan).collect();
        let tcp_routes = TcpTable::new(name, policy, &service.tcp_routes, &mut resolve);
        let default = Arc::new(RoutePlan::of_service(policy));
        let seal = policy.balance.sticky.as_ref().map(|sticky| Seal::new(sticky.key.secret()));
        Self {
            routes: RouteTable::new(&service.routes, plans, service.ports.iter().map(|port| port.number)),
            tcp_routes,
            default,
            outside: None,
            seal,
            connections: ConnectionLimits::default(),
            asks: asks(&service),
            traced: service.routes.iter().map(|r| r.policy.traced).chain([policy.traced]).max().flatten(),
            service,
        }
    }

    /// Puts the routes' own bulkheads and rate limits, which outlive it, in front of them, and limits connections.
    #[must_use]
    pub fn with_limits(
        mut self,
        bulkheads: &ServiceBulkheads,
        buckets: &RouteLimits,
        connections: ConnectionLimits,
    ) -> Self {
        self.connections = connections;
        for (plan, route) in self.routes.plans_mut().zip(&self.service.routes) {
            plan.bulkhead = bulkheads.of_route(route);
            plan.keep_buckets(buckets);
        }
        self
    }

    /// Whether its endpoints are found by name.
    pub fn is_looked_up(&self) -> bool {
        matches!(self.service.location, Location::Dns { .. })
    }

    /// Whether every endpoint of it must prove who it is.
    pub fn is_strict(&self) -> bool {
        self.service.mtls.of_service() == MtlsMode::Strict
    }

    /// The plan for a connection of `caller` whose bytes nobody looks into; `None` when the port has routes and none is
    /// for it.
    pub fn opaque(&self, port: PortNumber, caller: Option<&SpiffeId>) -> Option<&Arc<RoutePlan>> {
        self.tcp_routes.find(port, caller).unwrap_or(Some(&self.default))
    }

    /// Where a request to `port` goes; `None` when the port has routes and none matches.
    pub fn route(&self, port: PortNumber, head: &RequestHead<'_>) -> Option<Taken> {
        self.routes.find(port, head).unwrap_or_else(|NoRoutes| Some(Taken::by_default(&self.default)))
    }
}

fn asks(service: &Service) -> Asks {
    let balance = match &service.policy.balance.algorithm {
        Algorithm::Maglev(key) => Asks::of_key(key),
        Algorithm::PeakEwma | Algorithm::RoundRobin | Algorithm::LeastRequest | Algorithm::Random => {
            Asks::default()
        }
    };
    let division = service.division.as_ref().map(Asks::of_division).unwrap_or_default();
    service.routes.iter().map(Asks::of_route).fold(balance.and(division), Asks::and)
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
        Self::arranged(endpoints, complete, false)
    }

    /// The same of a service all whose endpoints must prove who they are. Those without a sidecar can not: among others nobody
    /// chooses them, as while the pods of a workload start anew one by one with their sidecars.
    pub fn of_strict(endpoints: Vec<Arc<EndpointView>>, complete: bool) -> Self {
        Self::arranged(endpoints, complete, true)
    }

    fn arranged(mut endpoints: Vec<Arc<EndpointView>>, complete: bool, strict: bool) -> Self {
        endpoints.sort_by(|a, b| a.endpoint.uid.cmp(&b.endpoint.uid));
        let ready = || endpoints.iter().filter(|v| v.endpoint.state == EndpointState::Ready);
        let all = Subset::of(ready(), strict);
        let mut of_version: HashMap<Version, Vec<&Arc<EndpointView>>> = HashMap::new();
        for view in ready() {
            if let Some(version) = &view.endpoint.version {
                of_version.entry(version.clone()).or_default().push(view);
            }
        }
        let subsets = of_version
            .into_iter()
            .map(|(version, views)| (version, Subset::of(views.into_iter(), strict)))
            .collect();
        Self { complete, trouble: None, everything: endpoints, all, subsets }
    }

    /// The same, seen from `zone`.
    #[must_use]
    pub fn seen_from(mut self, zone: Option<&str>) -> Self {
        if let Some(zone) = zone {
            self.all.divide(zone);
            self.subsets.values_mut().for_each(|subset| subset.divide(zone));
        }
        self
    }

    /// Makes what takes long ahead of the first request: the tables of those who choose by a key.
    pub fn prepare(&self) {
        for subset in std::iter::once(&self.all).chain(self.subsets.values()) {
            match &subset.zones {
                None => _ = subset.maglev(),
                Some(zones) => _ = (zones.here.maglev(), zones.elsewhere.maglev()),
            }
        }
    }

    /// The endpoint of this name, if it takes new requests.
    pub fn named(&self, uid: &EndpointUid) -> Option<&Arc<EndpointView>> {
        let at = self.everything.binary_search_by(|view| view.endpoint.uid.cmp(uid)).ok()?;
        self.everything.get(at).filter(|view| view.endpoint.state == EndpointState::Ready)
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
    /// The same endpoints by zone, where some are in the own one and some are not.
    pub zones: Option<Box<Zones>>,
    well: WellCache,
    turns: OnceLock<Turns>,
    maglev: OnceLock<Maglev>,
}

/// The endpoints of a subset in the own zone, and all others.
#[derive(Debug, Default)]
pub struct Zones {
    /// In the own zone.
    pub here: Subset,
    /// In others, or nobody knows where.
    pub elsewhere: Subset,
}

/// How many of a subset are well, of a thousand; none only where nobody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Well {
    /// By number.
    pub count: u32,
    /// By weight.
    pub weight: u32,
}

static NOBODY: Subset = Subset {
    members: Vec::new(),
    upper: Vec::new(),
    uneven: false,
    zones: None,
    well: WellCache(AtomicU64::new(0)),
    turns: OnceLock::new(),
    maglev: OnceLock::new(),
};

impl Subset {
    /// Of these endpoints, all; or those that can prove who they are, where that is wanted and any can.
    fn of<'a>(views: impl Iterator<Item = &'a Arc<EndpointView>> + Clone, strict: bool) -> Self {
        let proven = strict && views.clone().any(|view| view.is_mesh());
        let mut subset = Self::default();
        for view in views.filter(|view| !proven || view.is_mesh()) {
            subset.add(view);
        }
        subset
    }

    fn add(&mut self, view: &Arc<EndpointView>) {
        let weight = view.endpoint.weight;
        self.uneven |= self.members.first().is_some_and(|first| first.endpoint.weight != weight);
        self.upper.push(self.total() + u64::from(weight.get()));
        self.members.push(Arc::clone(view));
    }

    fn divide(&mut self, own: &str) {
        let mut zones = Zones::default();
        for view in &self.members {
            let is_here = view.endpoint.zone.as_deref() == Some(own);
            if is_here { zones.here.add(view) } else { zones.elsewhere.add(view) }
        }
        if !zones.here.members.is_empty() && !zones.elsewhere.members.is_empty() {
            self.zones = Some(Box::new(zones));
        }
    }

    /// The sum of the weights.
    pub fn total(&self) -> u64 {
        self.upper.last().copied().unwrap_or(0)
    }

    /// How many are well, as of some milliseconds ago at most.
    pub fn well(&self, now: Millis) -> Well {
        self.well.get(now).unwrap_or_else(|| self.well_now(now))
    }

    /// How many are well at this moment. Looks at all.
    pub fn well_now(&self, now: Millis) -> Well {
        let (mut count, mut weight) = (0, 0);
        for view in self.members.iter().filter(|v| balance::is_well(&v.live, now)) {
            count += 1;
            weight += u64::from(view.endpoint.weight.get());
        }
        // One of very many is few, but not nobody.
        let of = |part: u64, whole: u64| {
            let thousandths = (part * 1_000 / whole.max(1)).max(u64::from(part > 0));
            u32::try_from(thousandths).unwrap_or(1_000)
        };
        let well = Well { count: of(count, self.members.len() as u64), weight: of(weight, self.total()) };
        self.well.set(well, now);
        well
    }

    /// Whose turn it is.
    pub fn turns(&self) -> &Turns {
        self.turns.get_or_init(|| {
            let weights: Vec<u16> = self.members.iter().map(|m| m.endpoint.weight.get()).collect();
            Turns::new(&weights, fastrand::usize(..FIRST_TURNS))
        })
    }

    /// The table by which a key finds its endpoint.
    pub fn maglev(&self) -> &Maglev {
        self.maglev.get_or_init(|| Maglev::new(&self.members))
    }
}

/// How many were well, and when that was looked at: nobody looks at all endpoints for every request.
#[derive(Debug, Default)]
struct WellCache(AtomicU64);

impl WellCache {
    fn get(&self, now: Millis) -> Option<Well> {
        let packed = self.0.load(Relaxed);
        let (at, known) = (packed >> 24, packed & 1 << 23 != 0);
        let fresh = known && (now.0 & AT_MASK).wrapping_sub(at) & AT_MASK < WELL_FOR_MS;
        let of = |bits: u64| u32::try_from(bits & 0x3ff).unwrap_or(0);
        fresh.then(|| Well { count: of(packed), weight: of(packed >> 10) })
    }

    fn set(&self, well: Well, now: Millis) {
        let (count, weight) = (u64::from(well.count), u64::from(well.weight));
        self.0.store((now.0 & AT_MASK) << 24 | 1 << 23 | weight << 10 | count, Relaxed);
    }
}

const AT_MASK: u64 = (1 << 40) - 1;
/// How long it is believed how many are well. Whether one is, is looked at for every request.
const WELL_FOR_MS: u64 = 50;
/// Sidecars begin their turns anywhere among so many.
const FIRST_TURNS: usize = 1 << 20;

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

    /// The addresses by which it is known to be called itself.
    pub fn sockets(&self) -> impl Iterator<Item = std::net::SocketAddr> + '_ {
        let ip = self.endpoint.ip.to_canonical();
        self.endpoint.ports.iter().map(move |p| (ip, p.application().get()).into())
    }

    /// Where the service's `port` is reached. An endpoint with a single port serves it under any name of the service.
    pub fn address(&self, port: PortNumber) -> Option<std::net::SocketAddr> {
        self.endpoint.address(port)
    }
}
