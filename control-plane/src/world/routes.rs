//! The routes of the world, by whom they concern, and what they refer to: filters and grants.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_mesh::{Label, ServiceName};

use super::{Entry, World};
use crate::check::{CheckedFilter, CheckedGrant, CheckedRoute, Extension};
use crate::shards::Shards;
use crate::spec::{Key, Kind};
use crate::status::Since;

/// Routes of all kinds, their filters and the grants between namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    pub(super) all: Shards<Key, Arc<Entry<CheckedRoute>>>,
    /// By the service whose requests they take, whichever namespace they are of.
    from: Shards<ServiceName, BTreeSet<Key>>,
    /// By the service they lead to.
    to: Shards<ServiceName, BTreeSet<Key>>,
    /// By the gateway they are attached to.
    at: Shards<ServiceName, BTreeSet<Key>>,
    /// By the filter they name.
    with: Shards<Key, BTreeSet<Key>>,
    /// By the other namespace they refer to.
    into: Shards<Label, BTreeSet<Key>>,
    pub(super) filters: Shards<Key, Arc<Entry<CheckedFilter>>>,
    pub(super) grants: Shards<Key, Arc<Entry<CheckedGrant>>>,
    grants_of: Shards<Label, BTreeSet<Key>>,
    /// Since when their conditions are as they are.
    since: Shards<Key, Arc<Since>>,
}

impl Routes {
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Entry<CheckedRoute>>> {
        self.all.iter().map(|(_, entry)| entry).filter(move |entry| entry.object.kind() == kind)
    }

    /// The oldest first, then by namespace and name.
    fn by_age(&self, keys: Option<&BTreeSet<Key>>) -> Vec<&Arc<Entry<CheckedRoute>>> {
        let mut routes: Vec<_> = keys.into_iter().flatten().filter_map(|k| self.all.get(k)).collect();
        routes.sort_by(|a, b| {
            let place = |e: &Entry<CheckedRoute>| {
                let metadata = &e.object.metadata;
                (e.created, metadata.namespace.clone(), metadata.name.clone())
            };
            place(a).cmp(&place(b))
        });
        routes
    }
}

impl World {
    /// One route.
    pub fn route(&self, key: &Key) -> Option<&Arc<Entry<CheckedRoute>>> {
        self.routes.all.get(key)
    }

    /// The routes that are attached to a gateway, the oldest first, then by name.
    pub fn routes_at(&self, gateway: &ServiceName) -> Vec<&Arc<Entry<CheckedRoute>>> {
        self.routes.by_age(self.routes.at.get(gateway))
    }

    /// The routes that a service's own namespace has made for it, the oldest first, then by name.
    pub fn routes_from(&self, service: &ServiceName) -> Vec<&Arc<Entry<CheckedRoute>>> {
        self.routes_of(service.namespace(), service)
    }

    /// The routes that a namespace has made for a service, the oldest first, then by name.
    pub fn routes_of(&self, namespace: &Label, service: &ServiceName) -> Vec<&Arc<Entry<CheckedRoute>>> {
        let mut routes = self.routes.by_age(self.routes.from.get(service));
        routes.retain(|entry| entry.object.metadata.namespace == *namespace);
        routes
    }

    /// The routes that take the requests to a service, whoever has made them and for whose callers.
    pub fn routes_naming(&self, service: &ServiceName) -> impl Iterator<Item = &Key> {
        self.routes.from.get(service).into_iter().flatten()
    }

    /// The routes that send requests to a service.
    pub fn routes_to(&self, service: &ServiceName) -> impl Iterator<Item = &Key> {
        self.routes.to.get(service).into_iter().flatten()
    }

    /// The routes that name a filter.
    pub(crate) fn routes_with(&self, filter: &Key) -> impl Iterator<Item = &Key> {
        self.routes.with.get(filter).into_iter().flatten()
    }

    /// The routes of other namespaces that refer to something in this one.
    pub(crate) fn routes_into(&self, namespace: &Label) -> impl Iterator<Item = &Key> {
        self.routes.into.get(namespace).into_iter().flatten()
    }

    /// Since when the conditions of a route are as they are.
    pub(crate) fn since(&self, route: &Key) -> Option<&Arc<Since>> {
        self.routes.since.get(route)
    }

    /// Notes since when they are.
    pub(crate) fn set_since(&mut self, route: &Key, since: Option<Arc<Since>>) {
        match since {
            Some(since) => self.routes.since.insert(route.clone(), since),
            None => self.routes.since.remove(route),
        };
    }

    /// Every pair of a namespace and a service of another one for which that namespace has made routes.
    pub(crate) fn consumers(&self) -> BTreeSet<(Label, ServiceName)> {
        let all =
            self.routes.from.iter().flat_map(|(service, keys)| keys.iter().map(move |key| (key, service)));
        let foreign = all.filter(|(key, service)| key.namespace != *service.namespace());
        foreign.map(|(key, service)| (key.namespace.clone(), service.clone())).collect()
    }

    /// One filter.
    pub fn filter(&self, key: &Key) -> Option<&Arc<Entry<CheckedFilter>>> {
        self.routes.filters.get(key)
    }

    /// One grant.
    pub fn grant(&self, key: &Key) -> Option<&Arc<Entry<CheckedGrant>>> {
        self.routes.grants.get(key)
    }

    /// Whether the routes of a kind and namespace may refer to a service. Their own namespace's they always may.
    pub fn is_granted(&self, kind: Kind, namespace: &Label, service: &ServiceName) -> bool {
        let grants = self.routes.grants_of.get(service.namespace()).into_iter().flatten();
        namespace == service.namespace()
            || grants
                .filter_map(|key| self.routes.grants.get(key))
                .any(|grant| grant.checked.allows(kind, namespace, service))
    }

    /// Puts a route in place of the one of its name.
    pub(crate) fn put_route(&mut self, entry: Entry<CheckedRoute>) {
        let key = entry.object.key();
        self.remove_route(&key);
        let entry = Arc::new(entry);
        self.index_route(&key, &entry, &|of, key| of.insert(key.clone()));
        self.routes.all.insert(key, entry);
    }

    /// Takes a route away.
    pub(crate) fn remove_route(&mut self, key: &Key) {
        let Some(entry) = self.routes.all.remove(key) else { return };
        self.index_route(key, &entry, &|of, key| of.remove(key));
    }

    fn index_route(
        &mut self,
        key: &Key,
        entry: &Entry<CheckedRoute>,
        change: &dyn Fn(&mut BTreeSet<Key>, &Key) -> bool,
    ) {
        let Routes { from, to, at, with, into, .. } = &mut self.routes;
        for service in entry.checked.services() {
            from.update(service, |of| change(of, key), BTreeSet::is_empty);
        }
        for parent in &entry.checked.gateways {
            at.update(&parent.gateway, |of| change(of, key), BTreeSet::is_empty);
        }
        for service in entry.checked.backends() {
            to.update(service, |of| change(of, key), BTreeSet::is_empty);
            if *service.namespace() != key.namespace {
                into.update(service.namespace(), |of| change(of, key), BTreeSet::is_empty);
            }
        }
        for extension in entry.checked.rules.iter().flat_map(|rule| &rule.extensions) {
            if let Extension::Filter(filter) = extension {
                with.update(filter, |of| change(of, key), BTreeSet::is_empty);
            }
        }
    }

    /// Puts a filter in place of the one of its name.
    pub(crate) fn put_filter(&mut self, entry: Entry<CheckedFilter>) {
        self.routes.filters.insert(entry.object.key(), Arc::new(entry));
    }

    /// Takes a filter away.
    pub(crate) fn remove_filter(&mut self, key: &Key) {
        self.routes.filters.remove(key);
    }

    /// Puts a grant in place of the one of its name.
    pub(crate) fn put_grant(&mut self, entry: Entry<CheckedGrant>) {
        let key = entry.object.key();
        let insert = |of: &mut BTreeSet<Key>| of.insert(key.clone());
        self.routes.grants_of.update(&key.namespace, insert, BTreeSet::is_empty);
        self.routes.grants.insert(key, Arc::new(entry));
    }

    /// Takes a grant away.
    pub(crate) fn remove_grant(&mut self, key: &Key) {
        if self.routes.grants.remove(key).is_some() {
            self.routes.grants_of.update(&key.namespace, |of| of.remove(key), BTreeSet::is_empty);
        }
    }
}
