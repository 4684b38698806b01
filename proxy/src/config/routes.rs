//! The routes of a service as requests and connections read them: arranged by port, each with everything that can be
//! decided before the request comes decided.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;
use outrigger_certs::Seal;
use outrigger_mesh::{
    Backend, CallerMatch, Choice, Division, HashKey, Partition, PortNumber, RequestHead, RetryPolicy, Route,
    RouteIndex, RouteName, ServiceName, SpiffeId, Split, Sticky, TcpRoute, Timeouts, TraceShare,
    TrafficPolicy, Unresolved, Version,
};

use crate::filter::{FilterPlan, RouteLimits};
use crate::live::LiveService;
use crate::request::bulkhead::Bulkhead;
use crate::request::service_breaker::Switch;
use crate::telemetry::metrics::requests::OfRoute;

/// Gives the live state of a service that a route names.
pub type Resolve<'a> = dyn FnMut(&ServiceName) -> Arc<LiveService> + 'a;

/// The routes of requests to one service.
#[derive(Debug, Default)]
pub struct RouteTable {
    plans: Vec<Arc<RoutePlan>>,
    everywhere: RouteIndex,
    /// Where some are for some ports only: what is for each of them.
    by_port: Option<HashMap<PortNumber, AtPort>>,
}

#[derive(Debug)]
struct AtPort {
    index: RouteIndex,
    /// The place of each of its routes among all.
    places: Vec<usize>,
}

/// Where the head of a request leads.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The route.
    pub plan: Arc<RoutePlan>,
    /// The prefix by which it was matched, where it asks for that.
    pub prefix: Option<Box<str>>,
}

impl Taken {
    /// What is reached without a route.
    pub fn by_default(plan: &Arc<RoutePlan>) -> Self {
        Self { plan: Arc::clone(plan), prefix: None }
    }
}

impl RouteTable {
    /// Arranges `routes`, the oldest first, with the plan of each, for the `ports` of their service.
    pub fn new(
        routes: &[Route],
        plans: Vec<Arc<RoutePlan>>,
        ports: impl Iterator<Item = PortNumber>,
    ) -> Self {
        if routes.iter().all(|route| route.ports.is_empty()) {
            return Self { plans, everywhere: RouteIndex::new(routes), by_port: None };
        }
        let shared: Vec<Arc<Route>> = routes.iter().cloned().map(Arc::new).collect();
        let at = |port: PortNumber| {
            let here = |route: &Route| route.ports.is_empty() || route.ports.contains(&port);
            let places: Vec<usize> = (0..shared.len()).filter(|at| here(&shared[*at])).collect();
            let index = RouteIndex::of(places.iter().map(|at| Arc::clone(&shared[*at])).collect());
            (port, AtPort { index, places })
        };
        Self { plans, everywhere: RouteIndex::default(), by_port: Some(ports.map(at).collect()) }
    }

    /// Where a request goes: `Err` where there is no route at all for its port, `Ok(None)` where none of them matches.
    pub fn find(&self, port: PortNumber, head: &RequestHead<'_>) -> Result<Option<Taken>, NoRoutes> {
        let (index, places) = match &self.by_port {
            None => (&self.everywhere, None),
            Some(by_port) => match by_port.get(&port) {
                Some(at) => (&at.index, Some(&at.places)),
                None => return Err(NoRoutes),
            },
        };
        if index.is_empty() {
            return Err(NoRoutes);
        }
        let Some(hit) = index.hit(head) else { return Ok(None) };
        let plan = &self.plans[places.map_or(hit.route, |places| places[hit.route])];
        let prefix = if plan.asks_for_prefix { index.prefix_of(hit).map(Box::from) } else { None };
        Ok(Some(Taken { plan: Arc::clone(plan), prefix }))
    }

    /// The plans, in the order of the routes, while nobody else has them.
    pub fn plans_mut(&mut self) -> impl Iterator<Item = &mut RoutePlan> {
        self.plans.iter_mut().filter_map(Arc::get_mut)
    }
}

/// There is no route at all: everything goes to all endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoutes;

/// What of a request beyond its head has to be looked up for whoever decides on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// The claims of its token.
    pub claims: bool,
    /// Who sends it.
    pub source: bool,
}

impl Asks {
    /// What `route` asks for.
    pub fn of_route(route: &Route) -> Self {
        Self { claims: route.looks_at_claims(), source: route.looks_at_source() }
    }

    /// What `key` asks for.
    pub fn of_key(key: &HashKey) -> Self {
        Self { claims: matches!(key, HashKey::Claim(_)), source: *key == HashKey::SourceIdentity }
    }

    /// What `division` asks for.
    pub fn of_division(division: &Division) -> Self {
        Self { claims: division.looks_at_claims(), source: division.looks_at_source() }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { claims: self.claims || other.claims, source: self.source || other.source }
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
    /// By what a backend is chosen beside chance, where anything else does.
    pub chosen: Option<Box<ChoicePlan>>,
    /// What it does to requests besides, where it does anything.
    pub filters: Option<Box<FilterPlan>>,
    /// Whether the prefix by which a request was matched is asked for.
    pub asks_for_prefix: bool,
    /// Its timeouts, those of the service filled in.
    pub timeouts: Timeouts,
    /// Its retry rule.
    pub retry: RetryPolicy,
    /// The whole of the request timeout as a header value, made once.
    pub deadline_header: HeaderValue,
    /// Its own bulkhead, in front of the service's.
    pub bulkhead: Option<Arc<Bulkhead>>,
    /// At a gateway its own breaker, in front of the service's.
    pub breaker: Option<Arc<Switch>>,
    /// How much of what begins a trace and takes it is kept, where a policy says so.
    pub traced: Option<TraceShare>,
    /// The counts of its requests.
    pub requests: OfRoute,
}

/// By what a backend is chosen beside chance.
#[derive(Debug)]
pub struct ChoicePlan {
    /// Requests with one key go to one backend.
    pub by: Option<HashKey>,
    /// What each backend draws by.
    pub names: Vec<u64>,
    /// Requests go by ranges of a key.
    pub partition: Option<Partition>,
    /// Callers stay where they were, and what seals that.
    pub session: Option<(Sticky, Seal)>,
}

impl RoutePlan {
    /// The plan of a route of `own`, whose policy is `policy`.
    pub fn of_route(
        own: &ServiceName,
        policy: &TrafficPolicy,
        route: &Route,
        resolve: &mut Resolve<'_>,
    ) -> Self {
        Self::of(Some(own), policy, route, resolve)
    }

    /// The plan of a route at a gateway: every backend is another service, and where the route says nothing `policy`
    /// holds.
    pub fn at_edge(route: &Route, policy: &TrafficPolicy, resolve: &mut Resolve<'_>) -> Self {
        Self::of(None, policy, route, resolve)
    }

    fn of(
        own: Option<&ServiceName>,
        policy: &TrafficPolicy,
        route: &Route,
        resolve: &mut Resolve<'_>,
    ) -> Self {
        let plan = Self::new(
            Some(route.name.clone()),
            targets(own, &route.backends, resolve),
            Split::new(route.backends.iter().map(|b| b.weight)),
            route.timeouts.or(&policy.timeouts),
            route.retry.clone().unwrap_or_else(|| policy.retry.clone()),
        );
        let filters = FilterPlan::of(route, own, resolve);
        let asks_for_prefix = filters.as_ref().is_some_and(|filters| filters.asks_for_prefix());
        let traced = route.policy.traced.or(policy.traced);
        Self {
            chosen: ChoicePlan::of(&route.choice, &route.backends),
            filters,
            asks_for_prefix,
            traced,
            ..plan
        }
    }

    /// The plan of a route of connections.
    pub fn of_connections(
        own: &ServiceName,
        policy: &TrafficPolicy,
        route: &TcpRoute,
        resolve: &mut Resolve<'_>,
    ) -> Self {
        Self::new(
            Some(route.name.clone()),
            targets(Some(own), &route.backends, resolve),
            Split::new(route.backends.iter().map(|b| b.weight)),
            policy.timeouts.clone(),
            policy.retry.clone(),
        )
    }

    /// The plan while there is no route: everything goes to all endpoints.
    pub fn of_service(policy: &TrafficPolicy) -> Self {
        let everything = Target { service: None, version: None, port: None, unresolved: None };
        let plan =
            Self::new(None, vec![everything], Split::new([1]), policy.timeouts.clone(), policy.retry.clone());
        Self { traced: policy.traced, ..plan }
    }

    /// The plan of a copy: it goes to one version of a service, or to all of it.
    pub fn of_version(version: Option<Version>) -> Self {
        let target = Target { service: None, version, port: None, unresolved: None };
        Self::new(None, vec![target], Split::new([1]), Timeouts::default(), RetryPolicy::default())
    }

    /// Takes what outlives it: the buckets of its rate limits.
    pub fn keep_buckets(&mut self, all: &RouteLimits) {
        if let (Some(filters), Some(name)) = (&mut self.filters, &self.name) {
            filters.keep_buckets(name.as_str(), all);
        }
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
        let (chosen, filters, asks_for_prefix, bulkhead, breaker) = (None, None, false, None, None);
        Self {
            name,
            targets,
            split,
            chosen,
            filters,
            asks_for_prefix,
            timeouts,
            retry,
            deadline_header,
            bulkhead,
            breaker,
            traced: None,
            requests: OfRoute::default(),
        }
    }

    /// Whether no request can go anywhere by it, whatever happens to its backends.
    pub fn leads_nowhere(&self) -> bool {
        self.split.total() == 0
    }
}

fn targets(own: Option<&ServiceName>, backends: &[Backend], resolve: &mut Resolve<'_>) -> Vec<Target> {
    let target = |backend: &Backend| {
        // What is not there is not asked for.
        let foreign = own != Some(&backend.service) && backend.unresolved.is_none();
        Target {
            service: foreign.then(|| resolve(&backend.service)),
            version: backend.version.clone(),
            port: backend.port,
            unresolved: backend.unresolved,
        }
    };
    backends.iter().map(target).collect()
}

impl ChoicePlan {
    fn of(choice: &Choice, backends: &[Backend]) -> Option<Box<Self>> {
        let Choice { by, partition, session } = choice.clone();
        if by.is_none() && partition.is_none() && session.is_none() {
            return None;
        }
        let session = session.map(|sticky| {
            let seal = Seal::new(sticky.key.secret());
            (sticky, seal)
        });
        Some(Box::new(Self {
            by,
            names: backends.iter().map(Backend::draws_by).collect(),
            partition,
            session,
        }))
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
    /// Why nothing can go there.
    pub unresolved: Option<Unresolved>,
}

/// The routes of connections to the opaque ports of one service, the oldest first.
#[derive(Debug, Default)]
pub struct TcpTable(Vec<TcpEntry>);

#[derive(Debug)]
struct TcpEntry {
    ports: Vec<PortNumber>,
    callers: Vec<CallerMatch>,
    plan: Arc<RoutePlan>,
}

impl TcpTable {
    /// Arranges the routes of `own`.
    pub fn new(
        own: &ServiceName,
        policy: &TrafficPolicy,
        routes: &[TcpRoute],
        resolve: &mut Resolve<'_>,
    ) -> Self {
        let entry = |route: &TcpRoute| TcpEntry {
            ports: route.ports.clone(),
            callers: route.callers.clone(),
            plan: Arc::new(RoutePlan::of_connections(own, policy, route, resolve)),
        };
        Self(routes.iter().map(entry).collect())
    }

    /// The route of a connection of `caller`: the first that is for it. `Err` where there is none for its port at all.
    pub fn find(
        &self,
        port: PortNumber,
        caller: Option<&SpiffeId>,
    ) -> Result<Option<&Arc<RoutePlan>>, NoRoutes> {
        let mut any = false;
        for entry in self.0.iter().filter(|e| e.ports.is_empty() || e.ports.contains(&port)) {
            any = true;
            if entry.callers.is_empty() || entry.callers.iter().any(|c| c.holds(caller)) {
                return Ok(Some(&entry.plan));
            }
        }
        if any { Ok(None) } else { Err(NoRoutes) }
    }
}
