//! What one client has subscribed to, and what that selects. Both sides keep it by the same rules, so that both forget
//! the same resources at the same moment.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use outrigger_mesh::{EndpointUid, Hostname, ResourceName, Selector, ServiceName};

use crate::codec::ResourceVersion;

/// Selectors, with the services that their host names mean.
#[derive(Debug, Default)]
pub(super) struct Interest {
    selectors: BTreeSet<Selector>,
    /// The service each subscribed host name means, where it is known to mean one.
    meaning: BTreeMap<Hostname, ServiceName>,
    /// How many subscribed host names mean a service.
    named_by_host: HashMap<ServiceName, usize>,
}

impl Interest {
    /// False when it was there already.
    pub(super) fn insert(&mut self, selector: Selector) -> bool {
        self.selectors.insert(selector)
    }

    /// False when it was not there.
    pub(super) fn remove(&mut self, selector: &Selector) -> bool {
        if let Selector::Host(host) = selector {
            self.forget_meaning(host);
        }
        self.selectors.remove(selector)
    }

    pub(super) fn contains(&self, selector: &Selector) -> bool {
        self.selectors.contains(selector)
    }

    pub(super) fn len(&self) -> usize {
        self.selectors.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Selector> {
        self.selectors.iter()
    }

    /// Notes what a host name means; answers what it meant before, where that differs.
    pub(super) fn means(&mut self, host: &Hostname, service: Option<&ServiceName>) -> Option<ServiceName> {
        if self.meaning.get(host) == service {
            return None;
        }
        let before = self.forget_meaning(host);
        if let Some(service) = service {
            self.meaning.insert(host.clone(), service.clone());
            *self.named_by_host.entry(service.clone()).or_default() += 1;
        }
        before
    }

    fn forget_meaning(&mut self, host: &Hostname) -> Option<ServiceName> {
        let service = self.meaning.remove(host)?;
        if let Some(count) = self.named_by_host.get_mut(&service) {
            *count -= 1;
            if *count == 0 {
                self.named_by_host.remove(&service);
            }
        }
        Some(service)
    }

    pub(super) fn meaning(&self, host: &Hostname) -> Option<&ServiceName> {
        self.meaning.get(host)
    }

    /// Whether any selector selects the resource.
    pub(super) fn selects(&self, name: &ResourceName) -> bool {
        let by_group = match name {
            ResourceName::Endpoint(service, _) => {
                self.selectors.contains(&Selector::EndpointsOf(service.clone()))
            }
            ResourceName::Service(service) => self.named_by_host.contains_key(service),
            ResourceName::Trust(_)
            | ResourceName::Mesh(_)
            | ResourceName::Issuer(_)
            | ResourceName::Denylist(_) => self.selectors.contains(&Selector::All(name.kind())),
            ResourceName::Inbound(..) | ResourceName::Gateway(_) | ResourceName::ConsumerRoutes(..) => false,
        };
        by_group || self.selectors.contains(&Selector::Named(name.clone()))
    }
}

/// Resources by name with their versions, and the endpoints among them by service.
#[derive(Debug, Default)]
pub(super) struct Holding {
    versions: HashMap<ResourceName, ResourceVersion>,
    endpoints: HashMap<ServiceName, HashSet<EndpointUid>>,
}

impl Holding {
    pub(super) fn insert(&mut self, name: ResourceName, version: ResourceVersion) -> Option<ResourceVersion> {
        if let ResourceName::Endpoint(service, uid) = &name {
            self.endpoints.entry(service.clone()).or_default().insert(uid.clone());
        }
        self.versions.insert(name, version)
    }

    pub(super) fn remove(&mut self, name: &ResourceName) -> Option<ResourceVersion> {
        if let ResourceName::Endpoint(service, uid) = name
            && let Some(uids) = self.endpoints.get_mut(service)
        {
            uids.remove(uid);
            if uids.is_empty() {
                self.endpoints.remove(service);
            }
        }
        self.versions.remove(name)
    }

    pub(super) fn get(&self, name: &ResourceName) -> Option<&ResourceVersion> {
        self.versions.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ResourceName, &ResourceVersion)> {
        self.versions.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// The names here that a selector selects, in no order.
    pub(super) fn selected_by(&self, selector: &Selector, interest: &Interest) -> Vec<ResourceName> {
        let here = |name: &ResourceName| self.versions.contains_key(name);
        match selector {
            Selector::Named(name) => Some(name.clone()).into_iter().filter(here).collect(),
            Selector::Host(host) => {
                interest.meaning(host).cloned().map(ResourceName::Service).into_iter().filter(here).collect()
            }
            Selector::EndpointsOf(service) => {
                let uids = self.endpoints.get(service).into_iter().flatten();
                uids.map(|uid| ResourceName::Endpoint(service.clone(), uid.clone())).collect()
            }
            Selector::All(kind) => self.versions.keys().filter(|n| n.kind() == *kind).cloned().collect(),
        }
    }

    /// Gives up a selector and forgets what nothing selects any more; answers what was forgotten.
    pub(super) fn give_up(&mut self, selector: &Selector, interest: &mut Interest) -> Vec<ResourceName> {
        let mut gone = self.selected_by(selector, interest);
        interest.remove(selector);
        gone.retain(|name| !interest.selects(name));
        for name in &gone {
            self.remove(name);
        }
        gone
    }
}
