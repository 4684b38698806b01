//! The access policies of the world, by the services they are for, and who is believed besides the mesh's own.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_mesh::{AccessDefault, Label, ServiceName, Trust, TrustDomain};

use super::{Entry, World};
use crate::check::{CheckedAccess, Selects};
use crate::shards::Shards;
use crate::spec::Key;

/// The access policies.
#[derive(Clone, Debug, Default)]
pub(super) struct AccessPolicies {
    pub(super) all: Shards<Key, Arc<Entry<CheckedAccess>>>,
    by_place: Shards<Place, BTreeSet<Key>>,
}

/// Where a policy is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Mesh,
    Namespace(Label),
    Service(ServiceName),
}

fn places(selects: &Selects) -> Vec<Place> {
    match selects {
        Selects::Mesh => vec![Place::Mesh],
        Selects::Namespace(namespace) => vec![Place::Namespace(namespace.clone())],
        Selects::Services(names) => names.iter().cloned().map(Place::Service).collect(),
    }
}

impl World {
    /// One access policy.
    pub fn access_policy(&self, key: &Key) -> Option<&Arc<Entry<CheckedAccess>>> {
        self.access.all.get(key)
    }

    /// The access policies that are for a service, in the order of their names.
    pub fn access_for(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Entry<CheckedAccess>>> {
        let places =
            [Place::Mesh, Place::Namespace(service.namespace().clone()), Place::Service(service.clone())];
        let keys: BTreeSet<&Key> =
            places.iter().filter_map(|place| self.access.by_place.get(place)).flatten().collect();
        keys.into_iter().filter_map(|key| self.access.all.get(key))
    }

    /// The access policies that name a service.
    pub(crate) fn access_naming(&self, service: &ServiceName) -> impl Iterator<Item = &Key> {
        self.access.by_place.get(&Place::Service(service.clone())).into_iter().flatten()
    }

    /// The roots of other trust domains.
    pub(crate) fn trusted(&self) -> &[Trust] {
        self.defaults.as_ref().map(|e| e.checked.trusted.as_slice()).unwrap_or_default()
    }

    /// Those of one of them; the mesh's own are its authority's.
    pub(crate) fn trust_of(&self, domain: &TrustDomain) -> Option<&Trust> {
        self.trusted().iter().find(|trust| trust.trust_domain == *domain)
    }

    /// What becomes of requests of which no policy says anything.
    pub(crate) fn access_default(&self) -> AccessDefault {
        self.defaults.as_ref().map(|e| e.checked.access).unwrap_or_default()
    }

    /// Puts an access policy in place of the one of its name.
    pub(crate) fn put_access(&mut self, entry: Entry<CheckedAccess>) {
        let key = entry.object.key();
        self.remove_access(&key);
        for place in places(&entry.checked.selects) {
            self.access.by_place.update(&place, |of| of.insert(key.clone()), BTreeSet::is_empty);
        }
        self.access.all.insert(key, Arc::new(entry));
    }

    /// Takes an access policy away.
    pub(crate) fn remove_access(&mut self, key: &Key) {
        let Some(entry) = self.access.all.remove(key) else { return };
        for place in places(&entry.checked.selects) {
            self.access.by_place.update(&place, |of| of.remove(key), BTreeSet::is_empty);
        }
    }
}
