//! What there is to send: every resource encoded once, found by name, by service and by host name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use outrigger_mesh::{Endpoint, EndpointUid, Hostname, Resource, ResourceKind, ResourceName, ServiceName};
use outrigger_wire::Encoded;
use outrigger_wire::session::Catalog;

use crate::compile::ResourceChange;

/// A moment of the hub's history. Publications count up by one; the revision is that of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) publication: u64,
    pub(super) revision: u64,
}

/// All resources.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    resources: HashMap<ResourceName, Encoded>,
    /// The endpoints of each service, with the addresses at which their applications listen.
    endpoints: HashMap<ServiceName, BTreeMap<EndpointUid, Box<[SocketAddr]>>>,
    /// The services by the addresses of their instances. Host names are made of them when they are asked for: there
    /// may be very many.
    /// Whose instances are there, and how many of each: a pod may stand behind several Services. The first is meant.
    sockets: HashMap<SocketAddr, BTreeMap<ServiceName, usize>>,
    /// Those of the kinds that one may subscribe to as a whole.
    general: BTreeSet<ResourceName>,
    hosts: HashMap<Hostname, ServiceName>,
    hosts_of: HashMap<ServiceName, Vec<Hostname>>,
    position: Position,
}

/// A change, made ready outside of the lock.
#[derive(Debug)]
pub(super) enum Prepared {
    Set { encoded: Encoded, hostnames: Vec<Hostname>, sockets: Box<[SocketAddr]> },
    Remove(ResourceName),
}

impl Prepared {
    pub(super) fn new(change: ResourceChange) -> Self {
        match change {
            ResourceChange::Remove(name) => Self::Remove(name),
            ResourceChange::Set(resource) => {
                let encoded = Encoded::new(&resource);
                let (hostnames, sockets) = match resource {
                    Resource::Service(service) => (service.looked_up_as(), Box::default()),
                    Resource::Endpoint(endpoint) => (Vec::new(), sockets_of(&endpoint)),
                    _ => Default::default(),
                };
                Self::Set { encoded, hostnames, sockets }
            }
        }
    }
}

/// Where the application of an instance listens itself: callers that know the instance mean exactly that one.
fn sockets_of(endpoint: &Endpoint) -> Box<[SocketAddr]> {
    endpoint.ports.iter().map(|p| SocketAddr::new(endpoint.ip, p.application().get())).collect()
}

/// What a publication changed.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) names: Vec<ResourceName>,
    /// Host names that mean something else now.
    pub(super) hosts: HashSet<Hostname>,
    /// The host names by which a changed service was or is subscribed to.
    pub(super) hosts_of_changed: Vec<(ResourceName, Hostname)>,
}

impl Shelf {
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Puts changes in force; what is as it was makes no difference.
    pub(super) fn publish(&mut self, revision: u64, changes: Vec<Prepared>) -> Difference {
        self.position.publication += 1;
        self.position.revision = self.position.revision.max(revision);
        let mut difference = Difference::default();
        for change in changes {
            match change {
                Prepared::Set { encoded, hostnames, sockets } => {
                    self.set(encoded, hostnames, sockets, &mut difference);
                }
                Prepared::Remove(name) => self.remove(&name, &mut difference),
            }
        }
        difference
    }

    /// What would differ, and nothing is put in force.
    pub(super) fn foresee(&self, changes: &[Prepared]) -> Difference {
        let mut difference = Difference::default();
        for change in changes {
            let (name, hostnames) = match change {
                Prepared::Set { encoded, hostnames, .. } => {
                    let same =
                        self.resources.get(&encoded.name).is_some_and(|old| old.version == encoded.version);
                    if same {
                        continue;
                    }
                    (&encoded.name, &hostnames[..])
                }
                Prepared::Remove(name) => (name, &[][..]),
            };
            if let ResourceName::Service(service) = name {
                let old = self.hosts_of.get(service).into_iter().flatten();
                let all: HashSet<&Hostname> = old.chain(hostnames).collect();
                difference.hosts_of_changed.extend(all.into_iter().map(|host| (name.clone(), host.clone())));
            }
            difference.names.push(name.clone());
        }
        difference
    }

    fn set(
        &mut self,
        encoded: Encoded,
        hostnames: Vec<Hostname>,
        sockets: Box<[SocketAddr]>,
        difference: &mut Difference,
    ) {
        let name = encoded.name.clone();
        if self.resources.get(&name).is_some_and(|old| old.version == encoded.version) {
            return;
        }
        match &name {
            ResourceName::Endpoint(service, uid) => {
                let all = self.endpoints.entry(service.clone()).or_default();
                let old = all.insert(uid.clone(), sockets).unwrap_or_default();
                let new =
                    self.endpoints.get(service).and_then(|all| all.get(uid)).cloned().unwrap_or_default();
                self.place(service, &old, &new, difference);
            }
            ResourceName::Trust(_)
            | ResourceName::Mesh(_)
            | ResourceName::Issuer(_)
            | ResourceName::Denylist(_) => {
                self.general.insert(name.clone());
            }
            ResourceName::Service(service) => self.name_service(&name, service, hostnames, difference),
            ResourceName::Inbound(..) | ResourceName::Gateway(_) | ResourceName::ConsumerRoutes(..) => {}
        }
        self.resources.insert(name.clone(), encoded);
        difference.names.push(name);
    }

    fn remove(&mut self, name: &ResourceName, difference: &mut Difference) {
        if self.resources.remove(name).is_none() {
            return;
        }
        match name {
            ResourceName::Endpoint(service, uid) => {
                if let Some(all) = self.endpoints.get_mut(service) {
                    let old = all.remove(uid).unwrap_or_default();
                    if all.is_empty() {
                        self.endpoints.remove(service);
                    }
                    self.place(service, &old, &[], difference);
                }
            }
            ResourceName::Trust(_)
            | ResourceName::Mesh(_)
            | ResourceName::Issuer(_)
            | ResourceName::Denylist(_) => {
                self.general.remove(name);
            }
            ResourceName::Service(service) => self.name_service(name, service, Vec::new(), difference),
            ResourceName::Inbound(..) | ResourceName::Gateway(_) | ResourceName::ConsumerRoutes(..) => {}
        }
        difference.names.push(name.clone());
    }

    /// Gives an endpoint's addresses to its service, and takes those away that it had and no longer has.
    fn place(
        &mut self,
        service: &ServiceName,
        old: &[SocketAddr],
        new: &[SocketAddr],
        difference: &mut Difference,
    ) {
        for socket in new.iter().filter(|socket| !old.contains(socket)) {
            let all = self.sockets.entry(*socket).or_default();
            let before = all.first_key_value().map(|(first, _)| first.clone());
            *all.entry(service.clone()).or_default() += 1;
            if before.as_ref() != all.first_key_value().map(|(first, _)| first) {
                difference.hosts.insert(Hostname::of_socket(*socket));
            }
        }
        for socket in old.iter().filter(|socket| !new.contains(socket)) {
            let Some(all) = self.sockets.get_mut(socket) else { continue };
            let Some(left) = all.get_mut(service) else { continue };
            *left -= 1;
            if *left > 0 {
                continue;
            }
            let was_meant = all.first_key_value().is_some_and(|(first, _)| first == service);
            all.remove(service);
            if all.is_empty() {
                self.sockets.remove(socket);
            }
            if was_meant {
                difference.hosts.insert(Hostname::of_socket(*socket));
            }
        }
    }

    /// Gives a service its host names, and takes those away that it had and no longer has.
    fn name_service(
        &mut self,
        name: &ResourceName,
        service: &ServiceName,
        hostnames: Vec<Hostname>,
        difference: &mut Difference,
    ) {
        let old = self.hosts_of.remove(service).unwrap_or_default();
        for host in &hostnames {
            if self.hosts.insert(host.clone(), service.clone()).as_ref() != Some(service) {
                difference.hosts.insert(host.clone());
            }
        }
        for host in old.iter().filter(|host| !hostnames.contains(host)) {
            // In the same publication it may have become another service's already.
            if self.hosts.get(host) == Some(service) {
                self.hosts.remove(host);
                difference.hosts.insert(host.clone());
            }
        }
        let all: HashSet<Hostname> = old.into_iter().chain(hostnames.iter().cloned()).collect();
        difference.hosts_of_changed.extend(all.into_iter().map(|host| (name.clone(), host)));
        if !hostnames.is_empty() {
            self.hosts_of.insert(service.clone(), hostnames);
        }
    }
}

impl Catalog for Shelf {
    fn get(&self, name: &ResourceName) -> Option<Encoded> {
        self.resources.get(name).cloned()
    }

    fn endpoints_of(&self, service: &ServiceName) -> Vec<Encoded> {
        let uids = self.endpoints.get(service).into_iter().flat_map(BTreeMap::keys);
        uids.filter_map(|uid| self.get(&ResourceName::Endpoint(service.clone(), uid.clone()))).collect()
    }

    fn all(&self, kind: ResourceKind) -> Vec<Encoded> {
        // Nobody may subscribe to all of anything else.
        let names = self.general.iter().filter(|name| name.kind() == kind);
        names.filter_map(|name| self.get(name)).collect()
    }

    fn host(&self, host: &Hostname) -> Option<ServiceName> {
        let by_name = self.hosts.get(host);
        let at = |socket| self.sockets.get(&socket)?.first_key_value().map(|(first, _)| first);
        by_name.or_else(|| host.socket().and_then(at)).cloned()
    }

    fn revision(&self) -> u64 {
        self.position.revision
    }
}
