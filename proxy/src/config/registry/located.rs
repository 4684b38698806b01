//! Services whose endpoints this sidecar finds by name: which there are, and what was found.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use outrigger_certs::OutsideName;
use outrigger_mesh::{Endpoint, EndpointUid, Location, ServiceName};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Registry, ServiceEntry};
use crate::attempt::endpoint_breaker;
use crate::breaker::Group;
use crate::config::snapshot::{EndpointSet, EndpointView, ServiceSnapshot};
use crate::live::{EndpointLive, Live, LiveService, Millis};

/// What is known of an endpoint that was found by name beside its resource.
#[derive(Debug)]
pub struct Resolved {
    /// What it has to prove to be, where TLS is added.
    pub name: OutsideName,
    /// Where else it can be reached, in the other family of addresses.
    pub alternate: Option<Alternate>,
}

/// A second address of an endpoint.
#[derive(Debug)]
pub struct Alternate {
    /// The address.
    pub ip: IpAddr,
    /// Until when it is tried first, since it was the one that answered; milliseconds of the process's clock.
    first_until: AtomicU64,
}

impl Alternate {
    /// An address that was never tried.
    pub fn new(ip: IpAddr) -> Self {
        Self { ip, first_until: AtomicU64::new(0) }
    }

    /// Whether it goes first.
    pub fn is_first(&self) -> bool {
        self.first_until.load(Relaxed) > Millis::now().0
    }

    /// Remembers which of the two answered.
    pub fn note(&self, alternate_won: bool) {
        let until = if alternate_won { Millis::now().0 + REMEMBERED_MS } else { 0 };
        self.first_until.store(until, Relaxed);
    }
}

impl Resolved {
    fn is_same(&self, other: &Self) -> bool {
        let ip = |r: &Self| r.alternate.as_ref().map(|a| a.ip);
        self.name == other.name && ip(self) == ip(other)
    }
}

/// How looking for a service's endpoints goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Whether what is in use is older than its time to live.
    pub stale: bool,
    /// What went wrong last.
    pub error: Option<Arc<str>>,
    /// Addresses that were found and are not used, since they are this sidecar's or the mesh's own.
    pub refused: usize,
}

impl Lookup {
    pub(super) fn dump(&self) -> Value {
        json!({"stale": self.stale, "error": self.error.as_deref(), "refusedAddresses": self.refused})
    }
}

impl Registry {
    /// Moves when the services whose endpoints are to be found by name may be others.
    pub fn locations(&self) -> watch::Receiver<u64> {
        self.locations.subscribe()
    }

    /// The services in use.
    pub fn in_use(&self) -> Vec<(Arc<LiveService>, Arc<ServiceSnapshot>)> {
        let state = self.state();
        let used = state.services.values().filter(|entry| entry.wanted && !entry.absent);
        let both = |entry: &ServiceEntry| Some((Arc::clone(&entry.live), entry.live.snapshot.load_full()?));
        used.filter_map(both).collect()
    }

    /// The services in use whose endpoints are to be found by name.
    pub fn to_locate(&self) -> Vec<(Arc<LiveService>, Arc<ServiceSnapshot>)> {
        self.in_use().into_iter().filter(|(_, snapshot)| snapshot.is_looked_up()).collect()
    }

    /// The endpoints of a service as they were found. Passed over when the service is gone or found in another way.
    pub fn set_located(&self, name: &ServiceName, found: Vec<(Endpoint, Arc<Resolved>)>, lookup: Lookup) {
        {
            let mut state = self.state();
            let Some(entry) = state.services.get_mut(name).filter(|entry| entry.is_looked_up()) else {
                return;
            };
            let mut old = entry.located.take().map(|located| located.endpoints).unwrap_or_default();
            let mut endpoints = BTreeMap::new();
            for (endpoint, resolved) in found {
                let before = old.remove(&endpoint.uid);
                let group = &entry.live.endpoint_breakers;
                let view = view(&self.live, group, before.as_ref(), endpoint, Some(resolved));
                endpoints.insert(view.endpoint.uid.clone(), view);
            }
            remove(&old);
            entry.located = Some(Located { endpoints, lookup });
            entry.publish();
        }
        self.announce();
    }

    pub(super) fn relocate(&self) {
        self.locations.send_modify(|n| *n += 1);
    }
}

impl ServiceEntry {
    pub(super) fn is_looked_up(&self) -> bool {
        self.live.snapshot.load().as_deref().is_some_and(ServiceSnapshot::is_looked_up)
    }

    /// Its endpoints as they are in force, and whether they are all told: those found by name, where they are found so,
    /// else those pushed.
    pub(super) fn in_force(&self) -> (&BTreeMap<EndpointUid, Arc<EndpointView>>, bool) {
        static NONE: BTreeMap<EndpointUid, Arc<EndpointView>> = BTreeMap::new();
        match &self.located {
            _ if !self.is_looked_up() => (&self.endpoints, self.complete),
            Some(located) => (&located.endpoints, true),
            None => (&NONE, false),
        }
    }

    /// Forgets what was found by name, if anything was.
    pub(super) fn forget_located(&mut self) {
        if let Some(located) = self.located.take() {
            remove(&located.endpoints);
        }
    }

    pub(super) fn publish(&self) {
        let (endpoints, complete) = self.in_force();
        for view in endpoints.values() {
            self.live.bulkheads.tell(&view.live);
        }
        let views = endpoints.values().cloned().collect();
        let strict = self.live.snapshot.load().as_ref().is_some_and(|snapshot| snapshot.is_strict());
        let set =
            if strict { EndpointSet::of_strict(views, complete) } else { EndpointSet::new(views, complete) };
        let mut set = set.seen_from(self.zone.as_deref());
        set.trouble = self.located.as_ref().and_then(|located| located.lookup.error.clone());
        let members = set.subset(None).members.iter().map(|view| &view.live.breaker);
        self.live.endpoint_breakers.set_members(members);
        self.live.endpoints.store(Arc::new(set));
    }
}

/// What was found of a service by name. What is pushed of it meanwhile lies beside, for when it is found so again.
#[derive(Debug)]
pub(super) struct Located {
    endpoints: BTreeMap<EndpointUid, Arc<EndpointView>>,
    pub(super) lookup: Lookup,
}

/// Connections to these end when they are idle.
pub(super) fn remove(endpoints: &BTreeMap<EndpointUid, Arc<EndpointView>>) {
    for gone in endpoints.values() {
        gone.live.removed.store(true, Relaxed);
    }
}

/// The view of `endpoint`, with the state of `old` if that was at the same place.
pub(super) fn view(
    live: &Live,
    group: &Arc<Group>,
    old: Option<&Arc<EndpointView>>,
    endpoint: Endpoint,
    resolved: Option<Arc<Resolved>>,
) -> Arc<EndpointView> {
    let same = |old: &Arc<EndpointView>| match (&old.resolved, &resolved) {
        (None, None) => true,
        (Some(old), Some(new)) => old.is_same(new),
        _ => false,
    };
    let same_place = |old: &&Arc<EndpointView>| {
        let before = &old.endpoint;
        before.ip == endpoint.ip
            && before.ports == endpoint.ports
            && before.transport == endpoint.transport
            && before.version == endpoint.version
            && same(old)
    };
    if let Some(kept) = old.filter(same_place) {
        let (live, resolved) = (Arc::clone(&kept.live), kept.resolved.clone());
        return Arc::new(EndpointView { endpoint, live, resolved });
    }
    if let Some(old) = old {
        old.live.removed.store(true, Relaxed);
    }
    let traffic = live.client_traffic(&endpoint.service, endpoint.version.as_ref());
    let live = Arc::new(EndpointLive::among(group, endpoint.uid.clone(), traffic));
    endpoint_breaker::begin(&live);
    Arc::new(EndpointView { endpoint, live, resolved })
}

/// The name of an endpoint that has none but its address.
pub fn uid_of(ip: IpAddr, port: Option<outrigger_mesh::PortNumber>) -> Option<EndpointUid> {
    let ip = match ip {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => v6.segments().map(|s| format!("{s:x}")).join("-"),
    };
    let text = port.map_or_else(|| ip.clone(), |port| format!("{ip}-p{port}"));
    EndpointUid::new(&text).ok()
}

/// Whether the endpoints of what is at `location` are to be found by name.
pub(super) fn is_by_name(location: &Location) -> bool {
    matches!(location, Location::Dns { .. })
}

/// How long the family that answered is tried first (RFC 8305 leaves it open; ten minutes is what it names for caches).
const REMEMBERED_MS: u64 = 600_000;
