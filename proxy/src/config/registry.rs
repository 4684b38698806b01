//! The services this sidecar knows and the names it is waiting for.
//!
//! Two sides meet here. Whoever holds the source of configuration (`link`, `plan`, `disk`) calls [`Registry::apply`]
//! and reads [`Registry::wants`]. The data path calls [`Registry::find`], and waits for a [`Registry::changed`] when
//! a name is new. Nothing here waits, and everything is bounded: names come from applications.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use outrigger_mesh::{
    Between, EndpointUid, Gateway, Hostname, Inbound, Label, MeshSettings, Resource, ResourceName, Service,
    ServiceName, bounded_routes,
};
use tokio::sync::{Notify, watch};

use crate::config::outside::Outside;
use crate::config::snapshot::{EndpointView, ServiceSnapshot};
use crate::live::{Live, LiveService, Millis};

mod consumer;
mod dump;
mod endpoints;
mod hosts;
mod located;
mod obeyed;
mod traced;

use consumer::Consumer;
use endpoints::publish;
use hosts::{HostEntry, UNKNOWN_MS, drop_hosts_of, make_room_for_host, service_of_instance};
use located::Located;
pub use located::{Alternate, Lookup, Resolved, uid_of};
use obeyed::Obeyed;
use traced::Traced;

/// A change of what is known.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "moved a few times a change, never on the way of a request")]
pub enum Change {
    /// A resource is new or different. `Trust` is not for the registry and is passed over.
    Set(Resource),
    /// A resource is no more.
    Remove(ResourceName),
    /// A host name leads to a service, whose resource may come before or after.
    HostIs {
        /// The host name, completed.
        host: Hostname,
        /// The service.
        service: ServiceName,
    },
    /// Nothing answers to a host name. It is remembered for a second; the subscription to it may be given up.
    HostUnknown(Hostname),
    /// A service that was asked for by name does not exist.
    ServiceUnknown(ServiceName),
    /// The own namespace's routes for a service were asked for: it is not ready before they are told.
    ConsumerAwaited(ServiceName),
    /// A service has no endpoint at all, as opposed to none that was told yet.
    NoEndpoints(ServiceName),
}

/// What the data path needs to know, as changes to subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The service behind a host name.
    Host(Hostname),
    /// A service and its endpoints.
    Service(ServiceName),
    /// No longer a host name.
    DropHost(Hostname),
    /// No longer a service and its endpoints.
    DropService(ServiceName),
}

/// Whether new names can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Never connected yet: worth waiting for.
    Connecting,
    /// An answer will come.
    Connected,
    /// The control plane is away: what is known serves on, what is not known can not be found out.
    Away,
    /// There is no control plane, and what is known is everything there is.
    Complete,
}

/// The answer to a lookup.
#[derive(Clone, Debug)]
pub enum Found {
    /// It is this service, and it can be routed.
    Known(Arc<LiveService>),
    /// There is no such service.
    Unknown,
    /// Not known yet: it was asked for. Look again after a change.
    Asked,
}

/// The services this sidecar knows and the names it is waiting for.
#[derive(Debug)]
pub struct Registry {
    own_namespace: Label,
    live: Arc<Live>,
    state: Mutex<State>,
    inbound: ArcSwapOption<Inbound>,
    mesh: ArcSwapOption<MeshSettings>,
    gateway: ArcSwapOption<Gateway>,
    own_gateway: OnceLock<ServiceName>,
    /// The change up to which requests at the edge are served.
    pub obeyed: Obeyed,
    /// Counts changes of what a name leads to; whoever remembers answers forgets them when it moves.
    names: AtomicU64,
    /// Whether any service wanted HTTP/1 all the way, ever: then callers' headers are kept as they spelled them.
    keeps_case: AtomicBool,
    changed: watch::Sender<u64>,
    /// Counts changes of which services are to be found by name.
    locations: watch::Sender<u64>,
    discovery: watch::Sender<Discovery>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<Hostname, HostEntry>,
    services: HashMap<ServiceName, ServiceEntry>,
    wants: VecDeque<Want>,
    traced: Traced,
}

#[derive(Debug)]
struct ServiceEntry {
    live: Arc<LiveService>,
    endpoints: BTreeMap<EndpointUid, Arc<EndpointView>>,
    /// Whether it was told what endpoints there are.
    complete: bool,
    /// Where this sidecar runs.
    zone: Option<Arc<str>>,
    /// Whether it was asked for, and whether the answer was that there is none.
    wanted: bool,
    absent: bool,
    /// What was found by name, where its endpoints are found so.
    located: Option<Located>,
    /// The service as it was pushed, and the own namespace's routes for it.
    pushed: Option<Box<Service>>,
    consumer: Consumer,
}

impl Registry {
    /// A registry that knows nothing, for a workload of `own_namespace`.
    pub fn new(own_namespace: Label, live: Arc<Live>) -> Self {
        Self {
            own_namespace,
            live,
            state: Mutex::default(),
            inbound: ArcSwapOption::empty(),
            mesh: ArcSwapOption::empty(),
            gateway: ArcSwapOption::empty(),
            own_gateway: OnceLock::new(),
            obeyed: Obeyed::default(),
            names: AtomicU64::new(0),
            keeps_case: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            locations: watch::Sender::new(0),
            discovery: watch::Sender::new(Discovery::Connecting),
            wanted: Notify::new(),
        }
    }

    /// The namespace that completes short names.
    pub fn own_namespace(&self) -> &Label {
        &self.own_namespace
    }

    /// Applies one change. An error is the reason to reject the resource; what was known before stays in force.
    pub fn apply(&self, change: Change) -> Result<(), String> {
        // Before the lock: it may read the roots that the system trusts.
        let outside = match &change {
            Change::Set(Resource::Service(service)) => Outside::of(service)?,
            Change::Set(Resource::ConsumerRoutes(own)) => self.outside_of(&own.service)?,
            Change::Remove(ResourceName::ConsumerRoutes(_, name)) => self.outside_of(name)?,
            _ => None,
        };
        let mut state = self.state();
        let outcome = match change {
            Change::Set(Resource::Service(service)) => self.set_service(&mut state, service, outside),
            Change::Set(Resource::Endpoint(endpoint)) => {
                let service = endpoint.service.clone();
                let outcome = self.set_endpoint(&mut state, endpoint);
                publish(&state, &service);
                outcome
            }
            Change::Set(Resource::Inbound(inbound)) => {
                self.inbound.store(Some(Arc::new(inbound)));
                self.live.access.pushed();
                Ok(())
            }
            Change::Set(Resource::Mesh(settings)) => {
                self.mesh.store(Some(Arc::new(settings)));
                Ok(())
            }
            Change::Set(Resource::Gateway(gateway)) => {
                // A plan may have those of others.
                if self.own_gateway.get() == Some(&gateway.name) {
                    self.traced_at_gateway(&mut state, Some(&gateway));
                    self.gateway.store(Some(Arc::new(gateway)));
                }
                Ok(())
            }
            Change::Remove(ResourceName::Gateway(_)) => {
                self.traced_at_gateway(&mut state, None);
                self.gateway.store(None);
                Ok(())
            }
            Change::Set(Resource::Issuer(issuer)) => {
                self.live.tokens.set_issuer(issuer);
                Ok(())
            }
            Change::Set(Resource::Denylist(list)) => {
                self.live.tokens.set_denylist(list);
                Ok(())
            }
            Change::Remove(ResourceName::Issuer(name)) => {
                self.live.tokens.remove_issuer(&name);
                Ok(())
            }
            Change::Remove(ResourceName::Denylist(name)) => {
                self.live.tokens.remove_denylist(&name);
                Ok(())
            }
            // Those of other namespaces are none of ours; a plan may have them.
            Change::Set(Resource::ConsumerRoutes(own)) if own.namespace != self.own_namespace => Ok(()),
            Change::Set(Resource::ConsumerRoutes(own)) => {
                let name = own.service.clone();
                self.set_consumer(&mut state, &name, Some(own), outside)
            }
            Change::Remove(ResourceName::ConsumerRoutes(_, name)) => {
                self.set_consumer(&mut state, &name, None, outside)
            }
            Change::ConsumerAwaited(name) => {
                self.await_consumer(&mut state, &name);
                Ok(())
            }
            // Like the roots, the settings of the mesh are replaced, never merely taken away.
            Change::Set(Resource::Trust(_))
            | Change::Remove(ResourceName::Trust(_) | ResourceName::Mesh(_)) => Ok(()),
            Change::Remove(ResourceName::Inbound(..)) => {
                self.inbound.store(None);
                self.live.access.pushed();
                Ok(())
            }
            Change::Remove(ResourceName::Service(name)) | Change::ServiceUnknown(name) => {
                self.remove_service(&mut state, &name);
                Ok(())
            }
            Change::Remove(ResourceName::Endpoint(service, uid)) => {
                self.remove_endpoint(&mut state, &service, &uid);
                Ok(())
            }
            Change::HostIs { host, service } => {
                self.set_host(&mut state, host, service);
                Ok(())
            }
            Change::HostUnknown(host) => {
                self.forget_host(&mut state, host);
                Ok(())
            }
            Change::NoEndpoints(service) => {
                self.clear_endpoints(&mut state, &service);
                Ok(())
            }
        };
        drop(state);
        self.announce();
        outcome
    }

    /// What the data path wants to know. There is one reader: each want is handed out once.
    pub fn wants(self: &Arc<Self>) -> Wants {
        Wants(Arc::clone(self))
    }

    /// Tells whether new names can be asked for.
    pub fn set_discovery(&self, discovery: Discovery) {
        self.discovery.send_if_modified(|d| std::mem::replace(d, discovery) != discovery);
        self.announce();
    }

    /// Whether new names can be asked for.
    pub fn discovery(&self) -> Discovery {
        *self.discovery.borrow()
    }

    /// Rules of the own inbound side came that can not be obeyed: who has no older ones lets nobody in.
    pub fn inbound_refused(&self) {
        self.live.access.refused();
    }

    /// The rules of the own inbound side, once known.
    pub fn inbound(&self) -> Option<Arc<Inbound>> {
        self.inbound.load_full()
    }

    /// Whether any service wants HTTP/1 all the way, with the case of its headers.
    pub fn keeps_case(&self) -> bool {
        self.keeps_case.load(Relaxed)
    }

    /// What holds for the mesh as a whole, once known.
    pub fn mesh(&self) -> Option<Arc<MeshSettings>> {
        self.mesh.load_full()
    }

    /// What this sidecar serves at the edge, once known; for proxies in gateway mode.
    pub fn gateway(&self) -> Option<Arc<Gateway>> {
        self.gateway.load_full()
    }

    /// The service that `host` leads to, asking for it when it is new. Completes short names.
    pub fn find(&self, host: &Hostname) -> Found {
        let host = host.complete(&self.own_namespace);
        let now = Millis::now();
        let mut state = self.state();
        match state.hosts.get(&host) {
            Some(HostEntry::Service { service, .. }) => {
                let service = service.clone();
                self.find_service_in(&mut state, &service)
            }
            Some(HostEntry::Asked) => Found::Asked,
            Some(HostEntry::Unknown(at)) if now.0 < at.0 + UNKNOWN_MS => Found::Unknown,
            // There is nobody to ask, but an instance may be known.
            _ if matches!(self.discovery(), Discovery::Complete | Discovery::Away)
                && let Some(service) = service_of_instance(&state, &host) =>
            {
                self.find_service_in(&mut state, &service)
            }
            _ if self.discovery() == Discovery::Complete => Found::Unknown,
            _ => {
                make_room_for_host(&mut state);
                state.hosts.insert(host.clone(), HostEntry::Asked);
                self.want(&mut state, Want::Host(host));
                Found::Asked
            }
        }
    }

    /// Whether `host` is known to be a service's, of which everything else may still be to be told.
    pub fn is_of_service(&self, host: &Hostname) -> bool {
        matches!(self.state().hosts.get(host), Some(HostEntry::Service { .. }))
    }

    /// The service of a full name, asking for it when it is new.
    pub fn find_service(&self, name: &ServiceName) -> Found {
        let mut state = self.state();
        self.find_service_in(&mut state, name)
    }

    /// Says which Gateway this sidecar serves; others are passed over.
    pub fn serve_gateway(&self, name: ServiceName) {
        let _only_once = self.own_gateway.set(name);
    }

    /// The state of a service that was asked for, whatever is known of it.
    pub fn live_service(&self, name: &ServiceName) -> Option<Arc<LiveService>> {
        self.state().services.get(name).map(|entry| Arc::clone(&entry.live))
    }

    /// The state of every service that is known, by name.
    pub fn live_services(&self) -> Vec<Arc<LiveService>> {
        let mut all: Vec<_> = self.state().services.values().map(|entry| Arc::clone(&entry.live)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// A number that changes whenever a remembered answer of [`Registry::find`] may be wrong.
    pub fn names_generation(&self) -> u64 {
        self.names.load(Relaxed)
    }

    /// How many changes there were.
    pub fn changes(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Wakes on every change.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn set_service(
        &self,
        state: &mut State,
        service: Service,
        outside: Option<Arc<Outside>>,
    ) -> Result<(), String> {
        self.entry(state, &service.name, false);
        let Some(entry) = state.services.get_mut(&service.name) else { return Ok(()) };
        bounded_routes(&service.routes, &service.tcp_routes)
            .map_err(|e| format!("service {}: {e}", service.name))?;
        let pushed = Box::new(service.clone());
        let Some(service) = entry.consumer.over(service) else {
            entry.pushed = Some(pushed);
            return Ok(());
        };
        if service.between == Between::Http1 {
            self.keeps_case.store(true, Relaxed);
        }
        let name = service.name.clone();
        let service = self.for_own_caller(service);
        let live = self.entry(state, &name, false);
        live.endpoint_breakers.configure((&service.policy.endpoint_breaker).into());
        live.breakers.configure(&service, |other| self.entry(state, other, true));
        let hosts = service.looked_up_as();
        drop_hosts_of(state, &name, &hosts);
        for host in &hosts {
            let asked = matches!(
                state.hosts.get(host),
                Some(HostEntry::Asked | HostEntry::Service { asked: true, .. })
            );
            state.hosts.insert(host.clone(), HostEntry::Service { service: name.clone(), asked });
        }
        let by_name = located::is_by_name(&service.location);
        let policy = &service.policy;
        let connections = policy.connections;
        live.bulkheads.apply(&service, &policy.bulkheads, &self.live.bulkheads);
        let mut snapshot = ServiceSnapshot::new(service, |other| self.entry(state, other, true)).with_limits(
            &live.bulkheads,
            &self.live.filters.limits,
            connections,
        );
        let old = live.snapshot.load_full();
        snapshot.outside = Outside::kept(old.as_ref().and_then(|old| old.outside.as_ref()), outside);
        let traced = snapshot.traced;
        live.snapshot.store(Some(Arc::new(snapshot)));
        self.traced(state, old.as_ref().and_then(|old| old.traced), traced);
        let now_strict = live.snapshot.load().as_ref().is_some_and(|new| new.is_strict());
        if let Some(entry) = state.services.get_mut(&name) {
            (entry.absent, entry.pushed) = (false, Some(pushed));
            for view in entry.in_force().0.values() {
                live.bulkheads.tell(&view.live);
            }
            if by_name != old.as_ref().is_some_and(|old| old.is_looked_up()) {
                entry.forget_located();
                entry.publish();
            } else if now_strict != old.is_some_and(|old| old.is_strict()) {
                entry.publish();
            }
        }
        self.relocate();
        self.names.fetch_add(1, Relaxed);
        Ok(())
    }

    /// The service as it is for this sidecar's own workload: what holds for it in place of the common policy is its policy.
    fn for_own_caller(&self, service: Service) -> Service {
        let own = self.live.identity();
        let policy = service.policy_for(own.as_deref()).clone();
        Service { policy, ..service }
    }

    fn set_host(&self, state: &mut State, host: Hostname, service: ServiceName) {
        self.entry(state, &service, true);
        state.hosts.insert(host, HostEntry::Service { service, asked: true });
        self.names.fetch_add(1, Relaxed);
    }

    fn forget_host(&self, state: &mut State, host: Hostname) {
        state.hosts.insert(host.clone(), HostEntry::Unknown(Millis::now()));
        self.names.fetch_add(1, Relaxed);
        self.want(state, Want::DropHost(host));
    }

    fn remove_service(&self, state: &mut State, name: &ServiceName) {
        let Some(entry) = state.services.get_mut(name) else { return };
        (entry.absent, entry.pushed) = (true, None);
        let old = entry.live.snapshot.swap(None);
        entry.forget_located();
        self.traced(state, old.and_then(|old| old.traced), None);
        self.clear_endpoints(state, name);
        drop_hosts_of(state, name, &[]);
        self.relocate();
        self.names.fetch_add(1, Relaxed);
    }

    fn find_service_in(&self, state: &mut State, name: &ServiceName) -> Found {
        if self.discovery() == Discovery::Complete && !state.services.contains_key(name) {
            return Found::Unknown;
        }
        let live = self.entry(state, name, true);
        #[allow(clippy::cast_possible_truncation, reason = "a century of seconds fits")]
        live.last_used.store((Millis::now().0 / 1000) as u32, Relaxed);
        let absent = state.services.get(name).is_none_or(|entry| entry.absent);
        let everything_told = self.discovery() == Discovery::Complete;
        match live.snapshot.load().is_some() {
            // What is found by name is waited for by whoever needs an endpoint.
            true if everything_told || live.endpoints.load().complete || live.is_looked_up() => {
                Found::Known(live)
            }
            false if absent || everything_told => Found::Unknown,
            _ => Found::Asked,
        }
    }

    /// The state of a service, made when it is new; asks for it when `wanted`.
    fn entry(&self, state: &mut State, name: &ServiceName, wanted: bool) -> Arc<LiveService> {
        if !state.services.contains_key(name) {
            self.make_room_for_service(state);
            let traffic = self.live.client_traffic(name, None);
            let mut live = LiveService::new(name.clone(), traffic);
            live.balance = self.live.balance.counts(name);
            let (live, endpoints) = (Arc::new(live), BTreeMap::new());
            let entry = ServiceEntry {
                live,
                endpoints,
                zone: self.live.zone().cloned(),
                complete: false,
                wanted: false,
                absent: false,
                located: None,
                pushed: None,
                consumer: Consumer::NotAsked,
            };
            state.services.insert(name.clone(), entry);
        }
        let Some(entry) = state.services.get_mut(name) else { unreachable!("inserted above") };
        let live = Arc::clone(&entry.live);
        if wanted && !std::mem::replace(&mut entry.wanted, true) {
            self.want(state, Want::Service(name.clone()));
            self.relocate();
        }
        live
    }

    /// Gives up the service that was not used for the longest time, if there are too many.
    fn make_room_for_service(&self, state: &mut State) {
        if state.services.len() < MAX_SERVICES || self.discovery() == Discovery::Complete {
            return;
        }
        let least = state.services.iter().min_by_key(|(_, e)| e.live.last_used.load(Relaxed));
        let Some(name) = least.map(|(name, _)| name.clone()) else { return };
        self.remove_service(state, &name);
        state.services.remove(&name);
        self.want(state, Want::DropService(name));
    }

    fn want(&self, state: &mut State, want: Want) {
        if self.discovery() == Discovery::Complete {
            return;
        }
        // Bounded by the number of names. What was wanted before it was given up is wanted after that.
        state.wants.retain(|waiting| *waiting != want);
        state.wants.push_back(want);
        self.wanted.notify_one();
    }

    fn announce(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream of wants.
#[derive(Debug)]
pub struct Wants(Arc<Registry>);

impl Wants {
    /// The next want. Cancelling loses nothing.
    pub async fn next(&mut self) -> Want {
        loop {
            if let Some(want) = self.try_next() {
                return want;
            }
            self.0.wanted.notified().await;
        }
    }

    /// The next want, if there is one.
    pub fn try_next(&mut self) -> Option<Want> {
        self.0.state().wants.pop_front()
    }
}

const MAX_SERVICES: usize = 1_024;

#[cfg(test)]
mod tests;
