//! What outlives a snapshot: the state of services and endpoints, shared by all workers.
//!
//! Everything here is atomics. Connections are not here: each worker has its own (`attempt::pool`).

mod own_ports;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use outrigger_mesh::{
    Bulkheads, EndpointBreaker, EndpointUid, Labels, PortRanges, Report, RouteName, ServiceName, SpiffeId,
    TrafficKey, Version,
};

use crate::attempt::balance;
use crate::breaker::{Breaker, Group, Settings};
use crate::config::snapshot::{EndpointSet, ServiceSnapshot};
use crate::dns;
use crate::filter;
use crate::listen::accept::Side;
use crate::listen::own_calls::OwnCalls;
use crate::overload::Overload;
use crate::policy::access::AccessTable;
use crate::policy::protection::Protections;
use crate::request::budget::Budget;
use crate::request::bulkhead::Bulkhead;
use crate::request::counted::Counted;
use crate::request::handle::Handles;
use crate::request::places::{self, ServiceBulkheads};
use crate::request::service_breaker::ServiceBreakers;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::push::Pushed;
use crate::telemetry::metrics::requests::{Parties, RequestTable, Series};
use crate::telemetry::metrics::{self, Counters, Traffic, TrafficTable};
use crate::telemetry::observe::Observe;
use crate::telemetry::ports::PortTable;
use crate::telemetry::process::Runtimes;
use crate::telemetry::refusals::RefusalTable;
use crate::telemetry::tap::Taps;
use crate::telemetry::trace;
use crate::token::{self, exchange::Exchanges, known::Known};

pub use own_ports::OwnPorts;

/// The state of the process that is not configuration.
#[derive(Debug)]
pub struct Live {
    /// Traffic by whom it was between.
    pub traffic: TrafficTable,
    /// Requests by what came of them.
    pub requests: RequestTable,
    /// Everything else that is counted.
    pub counters: Counters,
    /// What was refused, by service and reason.
    pub refusals: RefusalTable,
    /// What is counted for each port of a service.
    pub ports: PortTable,
    /// What is counted of names.
    pub dns: dns::counters::Counters,
    /// Where addresses of names outside the mesh are asked for.
    pub names_outside: dns::outside::Outside,
    /// The bulkheads there are.
    pub bulkheads: places::Table,
    /// What protects the instances behind this sidecar.
    pub protections: Protections,
    /// Who may ask what of them.
    pub access: AccessTable,
    /// The own identity, once there is one: the caller in the traffic of this sidecar's application.
    identity: ArcSwapOption<SpiffeId>,
    /// Where this process's own connections to places outside come from.
    pub own_calls: Arc<OwnCalls>,
    /// How many connections may be open on each side.
    most_connections: u64,
    /// Whether what comes new is refused.
    pub overload: Overload,
    /// Pushes of metrics.
    pub pushed: Arc<Pushed>,
    /// What runs the workers and everything beside them.
    pub runtimes: Runtimes,
    /// How many workers there are.
    pub workers: AtomicUsize,
    /// What is counted of the choice of endpoints.
    pub balance: balance::Table,
    /// Where this sidecar runs, if that is known.
    zone: OnceLock<Arc<str>>,
    /// What is counted of filters, and the buckets of routes.
    pub filters: filter::Counts,
    /// The labels of the instance it stands beside.
    labels: OnceLock<Labels>,
    /// Ports of the application that are opaque where nobody declares what they speak.
    opaque_ports: OnceLock<PortRanges>,
    /// What the application is serving, to know its own calls by.
    pub handles: Arc<Handles>,
    /// What is counted of time and retries.
    pub counted: Counted,
    /// Who issues tokens of users, and what is revoked.
    pub tokens: Known,
    /// Tokens of the mesh that go along in their place.
    pub exchanges: Exchanges,
    /// Who takes what is observed of requests.
    pub observe: Arc<Observe>,
    /// Who looks at them live.
    pub taps: Taps,
    /// What is counted of spans.
    pub spans: Arc<trace::Counts>,
    /// Lines of requests.
    pub access_log: Arc<AccessLog>,
    /// Requests that name nothing that is known.
    refused: OnceLock<Arc<Series>>,
}

impl Default for Live {
    fn default() -> Self {
        Self::new(MOST_CONNECTIONS)
    }
}

impl Live {
    /// Nothing has happened yet.
    pub fn new(most_connections: u64) -> Self {
        let (traffic, counters) = (TrafficTable::default(), Counters::default());
        let (dns, identity) = (dns::counters::Counters::default(), ArcSwapOption::empty());
        let (own_calls, ports, overload) = (Arc::default(), PortTable::default(), Overload::default());
        let (handles, counted) = (Arc::default(), Counted::default());
        let names_outside = dns::outside::Outside::default();
        let (balance, zone) = (balance::Table::default(), OnceLock::new());
        let (bulkheads, protections) = (places::Table::default(), Protections::default());
        Self {
            traffic,
            requests: RequestTable::default(),
            counters,
            refusals: RefusalTable::default(),
            ports,
            dns,
            names_outside,
            bulkheads,
            protections,
            access: AccessTable::default(),
            identity,
            own_calls,
            most_connections,
            overload,
            pushed: Arc::default(),
            runtimes: Runtimes::default(),
            workers: AtomicUsize::new(0),
            balance,
            zone,
            labels: OnceLock::new(),
            opaque_ports: OnceLock::new(),
            filters: filter::Counts::default(),
            handles,
            counted,
            tokens: Known::default(),
            exchanges: Exchanges::default(),
            observe: Arc::default(),
            taps: Taps::default(),
            spans: Arc::default(),
            access_log: Arc::default(),
            refused: OnceLock::new(),
        }
    }

    /// Tells where this sidecar runs. Before the first endpoint is known: they are arranged by it.
    pub fn set_zone(&self, zone: Arc<str>) {
        let _only_once = self.zone.set(zone);
    }

    /// Where this sidecar runs, if that is known.
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.zone.get()
    }

    /// Tells which ports of the own application are opaque where nobody declares what they speak.
    pub fn set_opaque_ports(&self, ports: PortRanges) {
        let _only_once = self.opaque_ports.set(ports);
    }

    /// Whether a port of the own application is one of them.
    pub fn is_opaque(&self, port: u16) -> bool {
        self.opaque_ports.get().is_some_and(|ports| ports.contains(port))
    }

    /// Tells which labels the own instance has.
    pub fn set_labels(&self, labels: Labels) {
        let _only_once = self.labels.set(labels);
    }

    /// The labels of the own instance, as far as somebody told them.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.get()
    }

    /// Connections from the mesh.
    pub fn inbound_side(&self) -> Side<'_> {
        let c = &self.counters;
        let (open, limited) = (&c.inbound_connections, &c.inbound_limited);
        Side { name: "inbound", open, most: self.most_connections, limited, pauses: &c.accept_pauses }
    }

    /// Connections of the application.
    pub fn outbound_side(&self) -> Side<'_> {
        let c = &self.counters;
        let (open, limited) = (&c.outbound_connections, &c.outbound_limited);
        Side { name: "outbound", open, most: self.most_connections, limited, pauses: &c.accept_pauses }
    }

    /// What passed since the last call, for the report to the control plane. The caller keeps it until delivered.
    pub fn traffic_delta(&self) -> Report {
        let (wanted_keys, refusals) = (self.tokens.take_wanted(), self.refusals.delta());
        Report { wanted_keys, refusals, ..self.traffic.delta() }
    }

    /// The metrics as text for Prometheus.
    pub fn prometheus(&self) -> String {
        let mut text = metrics::prometheus(&self.traffic, &self.counters);
        self.requests.write(&mut text);
        self.dns.write(&mut text);
        self.ports.write(&mut text);
        self.balance.write(&mut text);
        self.bulkheads.write(&mut text);
        self.protections.write(&mut text);
        self.access.write(&mut text);
        token::cache::write(&mut text);
        self.exchanges.write(&mut text);
        self.counted.write(&mut text);
        self.handles.write(&mut text);
        self.filters.write(&mut text);
        self.access_log.write(&mut text);
        self.taps.write(&mut text);
        trace::Tracing::write(&self.spans, &mut text);
        self.pushed.write(&mut text);
        text
    }

    /// Who this sidecar's workload is, once there is an identity.
    pub fn identity(&self) -> Option<Arc<SpiffeId>> {
        self.identity.load_full()
    }

    /// Tells who this sidecar's workload is. Traffic of endpoints known earlier keeps the caller it had.
    pub fn set_identity(&self, identity: SpiffeId) {
        self.identity.store(Some(Arc::new(identity)));
    }

    /// The handle for what the own application sends to a version of `service`.
    pub fn client_traffic(&self, service: &ServiceName, version: Option<&Version>) -> Arc<Traffic> {
        self.traffic.handle(&TrafficKey {
            side: outrigger_mesh::Side::Client,
            service: service.clone(),
            version: version.cloned(),
            caller: self.identity.load().as_deref().cloned(),
        })
    }

    /// The counts of what the own application sends: to whom, and along which route.
    pub fn client_requests<T>(
        &self,
        service: Option<&ServiceName>,
        version: Option<&Version>,
        route: Option<&RouteName>,
        find: impl FnOnce(Parties<'_>) -> T,
    ) -> T {
        let caller = self.identity.load();
        find(Parties {
            side: outrigger_mesh::Side::Client,
            service,
            version,
            caller: caller.as_deref(),
            route,
        })
    }

    /// The counts of requests that name nothing that is known.
    pub fn refused(&self) -> &Series {
        self.refused.get_or_init(|| self.client_requests(None, None, None, |who| self.requests.of(who)))
    }
}

/// Open connections of a side, unless somebody says otherwise.
pub const MOST_CONNECTIONS: u64 = 16_384;

/// The state of a service: what it is now, and what was learnt of it.
#[derive(Debug)]
pub struct LiveService {
    /// Its name.
    pub name: ServiceName,
    /// The service as last pushed; `None` while it is not known.
    pub snapshot: ArcSwapOption<ServiceSnapshot>,
    /// Its endpoints as last pushed.
    pub endpoints: ArcSwap<EndpointSet>,
    /// What may be retried.
    pub budget: Budget,
    /// How many requests may be under way.
    pub bulkheads: ServiceBulkheads,
    /// The breakers over all of it, its versions and its routes.
    pub breakers: ServiceBreakers,
    /// What the breakers of its endpoints share.
    pub endpoint_breakers: Arc<Group>,
    /// Requests that came to no endpoint.
    pub traffic: Arc<Traffic>,
    /// The same, by what came of them.
    refused: OnceLock<Arc<Series>>,
    /// What is counted of the choice of its endpoints.
    pub balance: Arc<balance::Counts>,
    /// When it was last looked up, in seconds of the process's clock; the least used is given up first.
    pub last_used: AtomicU32,
}

impl LiveService {
    /// A service of which nothing is known yet.
    pub fn new(name: ServiceName, traffic: Arc<Traffic>) -> Self {
        Self {
            name,
            snapshot: ArcSwapOption::empty(),
            endpoints: ArcSwap::default(),
            budget: Budget::default(),
            bulkheads: ServiceBulkheads::default(),
            breakers: ServiceBreakers::default(),
            endpoint_breakers: Arc::new(Group::new(Settings::from(&EndpointBreaker::default()))),
            traffic,
            refused: OnceLock::new(),
            balance: Arc::default(),
            last_used: AtomicU32::new(0),
        }
    }

    /// The counts of requests that were refused before they had a route.
    pub fn refused(&self, live: &Live) -> &Series {
        self.refused
            .get_or_init(|| live.client_requests(Some(&self.name), None, None, |who| live.requests.of(who)))
    }

    /// Whether a request can be routed: the service is known and so are its endpoints, be it that there are none.
    pub fn is_loaded(&self) -> bool {
        self.snapshot.load().is_some() && self.endpoints.load().complete
    }

    /// How many retries its budget would grant now, once it is known.
    pub fn retries_left(&self, now: Millis) -> Option<u64> {
        self.snapshot.load().as_ref().map(|s| self.budget.left(&s.service.policy.retry, now))
    }

    /// Whether its endpoints are found by name.
    pub fn is_looked_up(&self) -> bool {
        self.snapshot.load().as_deref().is_some_and(ServiceSnapshot::is_looked_up)
    }
}

/// The state of an endpoint at one address.
#[derive(Debug)]
pub struct EndpointLive {
    /// Unique in the process: pools are keyed by it.
    pub id: u64,
    /// Its name.
    pub uid: EndpointUid,
    /// Load, for balancing.
    pub load: Load,
    /// What health checks have found out of it.
    pub health: balance::Health,
    /// How many requests it takes at once. Nobody waits there.
    pub bulkhead: Arc<Bulkhead>,
    /// Whether it is left alone for its failures.
    pub breaker: Arc<Breaker>,
    /// Whether it is gone: connections to it end when idle.
    pub removed: AtomicBool,
    /// What it answered.
    pub traffic: Arc<Traffic>,
}

impl EndpointLive {
    /// An endpoint that was never used, and that is never left alone: there is no other.
    pub fn new(uid: EndpointUid, traffic: Arc<Traffic>) -> Self {
        Self::among(&Arc::new(Group::new(Settings::off())), uid, traffic)
    }

    /// An endpoint of a service that was never used.
    pub fn among(group: &Arc<Group>, uid: EndpointUid, traffic: Arc<Traffic>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (load, removed) = (Load::default(), AtomicBool::new(false));
        let (health, breaker) = (balance::Health::default(), Arc::new(Breaker::new(Arc::clone(group))));
        let bulkhead = Bulkhead::new(Bulkhead::no_queue(Bulkheads::default().endpoint), u32::MAX);
        Self { id: NEXT.fetch_add(1, Relaxed), uid, load, health, breaker, bulkhead, removed, traffic }
    }

    /// Whether its bulkhead lets in another request. One that is full is not chosen.
    pub fn has_room(&self) -> bool {
        self.bulkhead.has_room()
    }
}

/// Peak-EWMA latency and requests in flight of an endpoint.
///
/// A slow answer counts at once and wears off by half every [`HALF_MS`], to nothing while nobody asks: an endpoint that was
/// slow once is asked again, whatever the others take. A failure counts as a slow answer for a moment: whoever fails
/// instantly must not look fast. Leaving alone who keeps failing is the work of its breaker.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// Microseconds in the upper half, milliseconds of the process's clock when that was in the lower.
    ewma: AtomicU64,
    failed_until_ms: AtomicU64,
}

impl Load {
    /// What a request there is expected to cost; the lower, the better. Never 0.
    pub fn cost(&self, now: Millis) -> u64 {
        let waiting = u64::from(self.in_flight.load(Relaxed)) + 1;
        let latency = self.latency_micros(now).max(1);
        let latency = if self.has_just_failed(now) { latency.max(FAILED_MICROS) } else { latency };
        u64::from(latency).saturating_mul(waiting)
    }

    /// Whether its last answer was a failure, a moment ago.
    pub fn has_just_failed(&self, now: Millis) -> bool {
        self.failed_until_ms.load(Relaxed) > now.0
    }

    /// Requests that it has not finished.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// The average latency, a peak decaying. What was never used counts as fast as it could be, so that it is tried.
    pub fn latency_micros(&self, now: Millis) -> u32 {
        let (micros, at) = unpack(self.ewma.load(Relaxed));
        #[allow(clippy::cast_possible_truncation, reason = "wraps together with the stored half")]
        let age = (now.0 as u32).wrapping_sub(at);
        // The age decays what nobody has measured since: after some seconds a slow endpoint is worth another try.
        decay(micros, 0, age)
    }

    /// Counts a request in until [`Load::end`].
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Counts a request out.
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Notes an answer.
    pub fn succeeded(&self, latency: Duration, now: Millis) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).max(1);
        let (old, at) = unpack(self.ewma.load(Relaxed));
        #[allow(clippy::cast_possible_truncation, reason = "only differences count, and they wrap")]
        let now32 = now.0 as u32;
        let new = if micros >= old { micros } else { decay(old, micros, now32.wrapping_sub(at)) };
        // Two workers may race here; an average survives the loss of one of its samples. It is written once a
        // millisecond at most, unless it rises, so that decaying by whole milliseconds does not lose time.
        if new > old || now32 != at {
            self.ewma.store(pack(new, now32), Relaxed);
        }
        if self.failed_until_ms.load(Relaxed) != 0 {
            self.failed_until_ms.store(0, Relaxed);
        }
    }

    /// Notes a failure. `chance` spreads the return of endpoints that failed together.
    pub fn failed(&self, now: Millis, chance: u64) {
        self.failed_until_ms.store(now.0 + FAILED_MS / 2 + chance % (FAILED_MS / 2), Relaxed);
    }
}

/// `old` on its way to `new` after `age` milliseconds: the gap halves every [`HALF_MS`].
fn decay(old: u32, new: u32, age: u32) -> u32 {
    let gap = u64::from(old.saturating_sub(new));
    // The exponential with straight lines between its halvings: no floating point on the way of a request.
    let (halvings, rest) = (age / HALF_MS, u64::from(age % HALF_MS));
    let left = gap.checked_shr(halvings).unwrap_or(0);
    let left = left - left * rest / (2 * u64::from(HALF_MS));
    new.saturating_add(u32::try_from(left).unwrap_or(u32::MAX))
}

fn pack(micros: u32, at: u32) -> u64 {
    u64::from(micros) << 32 | u64::from(at)
}

#[allow(clippy::cast_possible_truncation, reason = "takes the halves apart")]
fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

/// After so long half of what was slow is forgotten.
const HALF_MS: u32 = 2_000;
/// What a failure counts as, and for how long.
const FAILED_MICROS: u32 = 1_000_000;
const FAILED_MS: u64 = 250;

/// Milliseconds since the process began to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `now` on the process's clock.
    pub fn at(now: std::time::Instant) -> Self {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        let start = START.get_or_init(|| now);
        Self(u64::try_from(now.saturating_duration_since(*start).as_millis()).unwrap_or(u64::MAX))
    }

    /// This moment.
    pub fn now() -> Self {
        Self::at(std::time::Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_wears_off() {
        let load = Load::default();
        load.succeeded(Duration::from_millis(1), Millis(0));
        load.succeeded(Duration::from_millis(100), Millis(10));
        assert_eq!(load.latency_micros(Millis(10)), 100_000);
        load.succeeded(Duration::from_millis(1), Millis(4_010));
        let later = load.latency_micros(Millis(4_010));
        assert!((20_000..30_000).contains(&later), "{later}");
    }

    #[test]
    fn who_was_slow_once_is_asked_again_however_fast_the_others_are() {
        let (slow, fast) = (Load::default(), Load::default());
        slow.succeeded(Duration::from_millis(100), Millis(0));
        let asked_again = (0..120_000).step_by(10).find(|at| {
            fast.succeeded(Duration::from_micros(50), Millis(*at));
            slow.cost(Millis(*at)) < fast.cost(Millis(*at))
        });
        assert!(asked_again.is_some_and(|at| at < 30_000), "{asked_again:?}");
    }

    #[test]
    fn a_failure_counts_as_a_slow_answer_for_a_moment_and_a_success_ends_that() {
        let (bad, busy) = (Load::default(), Load::default());
        busy.succeeded(Duration::from_millis(20), Millis(0));
        (0..20).for_each(|_| busy.begin());
        bad.failed(Millis(0), 7);
        assert!(bad.cost(Millis(1)) > busy.cost(Millis(1)));
        assert!(bad.cost(Millis(251)) < busy.cost(Millis(251)));
        bad.failed(Millis(300), 7);
        bad.succeeded(Duration::from_millis(1), Millis(301));
        assert!(!bad.has_just_failed(Millis(301)));
    }
}
