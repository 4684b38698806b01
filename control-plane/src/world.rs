//! Everything that is in force, proven and indexed: a value with a revision.
//!
//! A world is never changed in place. The writer copies it, which is cheap, changes the copy and puts it in the place
//! of the old one; whoever reads keeps the world it took.

mod access;
mod rollouts;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use outrigger_mesh::{
    Denylist, EndpointUid, Hostname, Label, MeshSettings, ServiceName, SpiffeId, TrustDomain,
};

use crate::addresses::VirtualAddress;
use crate::check::{
    CheckedAccess, CheckedDefaults, CheckedFilter, CheckedGateway, CheckedGrant, CheckedInstance,
    CheckedOverride, CheckedPolicy, CheckedRoute, CheckedService, CheckedTokenPolicy, PolicyTarget,
};
use crate::rollout::Plan;
use crate::secret::MeshSecret;
use crate::shards::Shards;
use crate::spec::{Key, Kind, Object, ObjectName, PolicySettings};

/// All checked resources and facts.
#[derive(Clone, Debug)]
pub struct World {
    trust_domain: TrustDomain,
    secret: MeshSecret,
    /// The revision of the configuration.
    pub(crate) revision: u64,
    /// The generation of the instances.
    pub(crate) generation: u64,
    services: Shards<ServiceName, Arc<Entry<CheckedService>>>,
    gateways: Shards<ServiceName, Arc<Entry<CheckedGateway>>>,
    routes: routes::Routes,
    instances: Shards<ServiceName, Arc<InstancesOf>>,
    /// Which service an instance belongs to: names of instances are unique in their namespace.
    instance_names: Shards<(Label, EndpointUid), ServiceName>,
    hostnames: Shards<Hostname, ServiceName>,
    addresses: Shards<VirtualAddress, ServiceName>,
    defaults: Option<Arc<Entry<CheckedDefaults>>>,
    settings: Arc<MeshSettings>,
    served_by: Shards<SpiffeId, BTreeSet<ServiceName>>,
    policies: Shards<Key, Arc<Entry<CheckedPolicy>>>,
    policies_of: Shards<ServiceName, BTreeSet<Key>>,
    policies_of_route: Shards<Key, BTreeSet<Key>>,
    overrides: Shards<Key, Arc<Entry<CheckedOverride>>>,
    overrides_of: Shards<ServiceName, BTreeSet<Key>>,
    access: access::AccessPolicies,
    pub(crate) rollouts: Rollouts,
    pub(crate) tokens: Tokens,
    /// What is kept and does not hold, and why; something else may be in force for it.
    unheld: Arc<BTreeMap<Key, String>>,
}

/// The instances of one service by name.
pub type InstancesOf = BTreeMap<EndpointUid, Arc<Entry<CheckedInstance>>>;

/// One object as it was written, its versions, and what was proven of it.
#[derive(Debug, PartialEq)]
pub struct Entry<T> {
    /// As it was written.
    pub object: Object,
    /// The count at which it was created.
    pub created: u64,
    /// The count at which it was last changed: its version.
    pub changed: u64,
    /// As it was proven.
    pub checked: T,
}

/// An entry of any kind.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is named as its kind")]
pub enum AnyEntry {
    Service(Arc<Entry<CheckedService>>),
    Defaults(Arc<Entry<CheckedDefaults>>),
    Gateway(Arc<Entry<CheckedGateway>>),
    Route(Arc<Entry<CheckedRoute>>),
    Filter(Arc<Entry<CheckedFilter>>),
    Grant(Arc<Entry<CheckedGrant>>),
    Instance(Arc<Entry<CheckedInstance>>),
    Policy(Arc<Entry<CheckedPolicy>>),
    Override(Arc<Entry<CheckedOverride>>),
    Access(Arc<Entry<CheckedAccess>>),
    Tokens(Arc<Entry<CheckedTokenPolicy>>),
    Denylist(Arc<Entry<Denylist>>),
    Rollout(Arc<Entry<Plan>>),
}

impl AnyEntry {
    /// The object as it was written.
    pub fn object(&self) -> &Object {
        match self {
            Self::Service(e) => &e.object,
            Self::Defaults(e) => &e.object,
            Self::Gateway(e) => &e.object,
            Self::Route(e) => &e.object,
            Self::Filter(e) => &e.object,
            Self::Grant(e) => &e.object,
            Self::Instance(e) => &e.object,
            Self::Policy(e) => &e.object,
            Self::Override(e) => &e.object,
            Self::Access(e) => &e.object,
            Self::Tokens(e) => &e.object,
            Self::Denylist(e) => &e.object,
            Self::Rollout(e) => &e.object,
        }
    }

    /// The count at which it was last changed.
    pub fn changed(&self) -> u64 {
        match self {
            Self::Service(e) => e.changed,
            Self::Defaults(e) => e.changed,
            Self::Gateway(e) => e.changed,
            Self::Route(e) => e.changed,
            Self::Filter(e) => e.changed,
            Self::Grant(e) => e.changed,
            Self::Instance(e) => e.changed,
            Self::Policy(e) => e.changed,
            Self::Override(e) => e.changed,
            Self::Access(e) => e.changed,
            Self::Tokens(e) => e.changed,
            Self::Denylist(e) => e.changed,
            Self::Rollout(e) => e.changed,
        }
    }

    /// The count at which it was created.
    pub fn created(&self) -> u64 {
        match self {
            Self::Service(e) => e.created,
            Self::Defaults(e) => e.created,
            Self::Gateway(e) => e.created,
            Self::Route(e) => e.created,
            Self::Filter(e) => e.created,
            Self::Grant(e) => e.created,
            Self::Instance(e) => e.created,
            Self::Policy(e) => e.created,
            Self::Override(e) => e.created,
            Self::Access(e) => e.created,
            Self::Tokens(e) => e.created,
            Self::Denylist(e) => e.created,
            Self::Rollout(e) => e.created,
        }
    }

    /// Who registered it, if it registered itself.
    pub fn registered_by(&self) -> Option<&SpiffeId> {
        match self {
            Self::Instance(e) => e.checked.registered_by.as_ref(),
            _ => None,
        }
    }

    /// Of an override: whether its time is over.
    pub fn has_expired(&self) -> Option<bool> {
        let Self::Override(e) = self else { return None };
        Some(e.checked.has_expired(std::time::SystemTime::now()))
    }

    /// The virtual address it was given, if it is a service.
    pub fn address(&self) -> Option<VirtualAddress> {
        match self {
            Self::Service(e) => e.checked.address(),
            _ => None,
        }
    }

    /// What the cluster calls it by, if it is a service of one.
    pub fn cluster_addresses(&self) -> &[IpAddr] {
        match self {
            Self::Service(e) => &e.checked.base.cluster_addresses,
            _ => &[],
        }
    }
}

impl World {
    /// A world with nothing in it but its secret.
    pub fn new(trust_domain: TrustDomain, secret: MeshSecret) -> Self {
        Self {
            settings: Arc::new(MeshSettings::new(trust_domain.clone())),
            trust_domain,
            secret,
            revision: 0,
            generation: 0,
            services: Shards::default(),
            gateways: Shards::default(),
            routes: routes::Routes::default(),
            instances: Shards::default(),
            instance_names: Shards::default(),
            hostnames: Shards::default(),
            addresses: Shards::default(),
            defaults: None,
            served_by: Shards::default(),
            policies: Shards::default(),
            policies_of: Shards::default(),
            policies_of_route: Shards::default(),
            overrides: Shards::default(),
            overrides_of: Shards::default(),
            access: access::AccessPolicies::default(),
            rollouts: Rollouts::default(),
            tokens: Tokens::default(),
            unheld: Arc::default(),
        }
    }

    /// The revision of the configuration: it counts what people change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The generation of the instances: it counts their coming and going.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The trust domain whose identities are known here.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::MeshService | Kind::EgressService => self.services_of(kind).count(),
            Kind::MeshDefaults => usize::from(self.defaults.is_some()),
            Kind::Gateway => self.gateways.len(),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => self.routes.of_kind(kind).count(),
            Kind::RouteFilter => self.routes.filters.len(),
            Kind::ReferenceGrant => self.routes.grants.len(),
            Kind::Instance => self.instance_names.len(),
            Kind::TrafficPolicy => self.policies.len(),
            Kind::BreakerOverride => self.overrides.len(),
            Kind::AccessPolicy => self.access.all.len(),
            Kind::TokenPolicy => self.tokens.policies.len(),
            Kind::Denylist => self.tokens.lists.len(),
            Kind::Rollout => self.rollouts.all().count(),
        }
    }

    /// What holds for the mesh as a whole.
    pub fn settings(&self) -> &Arc<MeshSettings> {
        &self.settings
    }

    /// What was written of the mesh as a whole.
    pub(crate) fn defaults(&self) -> Option<&Arc<Entry<CheckedDefaults>>> {
        self.defaults.as_ref()
    }

    /// What holds for the traffic of every service that says nothing else.
    pub(crate) fn default_policy(&self) -> Option<&PolicySettings> {
        self.defaults.as_ref()?.checked.policy.as_ref()
    }

    /// What keys are derived from.
    pub(crate) fn secret(&self) -> &MeshSecret {
        &self.secret
    }

    /// One policy.
    pub fn policy(&self, key: &Key) -> Option<&Arc<Entry<CheckedPolicy>>> {
        self.policies.get(key)
    }

    /// The policies of a service, those for some of its callers too, in the order of their names.
    pub fn policies_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Entry<CheckedPolicy>>> {
        self.policies_of.get(service).into_iter().flatten().filter_map(|key| self.policies.get(key))
    }

    /// The policies of a route and of its rules, in the order of their names.
    pub fn policies_of_route(&self, route: &Key) -> impl Iterator<Item = &Arc<Entry<CheckedPolicy>>> {
        self.policies_of_route.get(route).into_iter().flatten().filter_map(|key| self.policies.get(key))
    }

    /// One override of a breaker.
    pub fn breaker_override(&self, key: &Key) -> Option<&Arc<Entry<CheckedOverride>>> {
        self.overrides.get(key)
    }

    /// What operators have said of the breakers of a service, in the order of their names.
    pub fn overrides_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Entry<CheckedOverride>>> {
        self.overrides_of.get(service).into_iter().flatten().filter_map(|key| self.overrides.get(key))
    }

    /// All of it, in no order.
    pub(crate) fn all_overrides(&self) -> impl Iterator<Item = &Arc<Entry<CheckedOverride>>> {
        self.overrides.iter().map(|(_, entry)| entry)
    }

    /// Who has a virtual address.
    pub fn at_address(&self, address: VirtualAddress) -> Option<&ServiceName> {
        self.addresses.get(&address)
    }

    /// The services that were written as `kind`, in no order.
    fn services_of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Entry<CheckedService>>> {
        self.services.iter().map(|(_, e)| e).filter(move |e| e.object.kind() == kind)
    }

    /// One service.
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Entry<CheckedService>>> {
        self.services.get(name)
    }

    /// All services, in the order of their names.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Entry<CheckedService>>> {
        self.services.sorted().into_iter().map(|(_, entry)| entry)
    }

    /// One gateway.
    pub fn gateway(&self, name: &ServiceName) -> Option<&Arc<Entry<CheckedGateway>>> {
        self.gateways.get(name)
    }

    /// All gateways, in no order.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Entry<CheckedGateway>>> {
        self.gateways.iter().map(|(_, entry)| entry)
    }

    /// The instances of a service.
    pub fn instances(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Entry<CheckedInstance>>> {
        self.instances.get(service).into_iter().flat_map(|of| of.values())
    }

    /// How many instances a service has.
    pub fn instances_of(&self, service: &ServiceName) -> usize {
        self.instances.get(service).map_or(0, |of| of.len())
    }

    /// All instances, in no order.
    pub fn all_instances(&self) -> impl Iterator<Item = &Arc<Entry<CheckedInstance>>> {
        self.instances.iter().flat_map(|(_, of)| of.values())
    }

    /// One instance of a service.
    pub fn instance(&self, service: &ServiceName, uid: &EndpointUid) -> Option<&Arc<Entry<CheckedInstance>>> {
        self.instances.get(service)?.get(uid)
    }

    /// The service to which the instance `uid` of a namespace belongs.
    pub fn service_of_instance(&self, namespace: &Label, uid: &EndpointUid) -> Option<&ServiceName> {
        self.instance_names.get(&(namespace.clone(), uid.clone()))
    }

    /// The service that answers to a host name completed with a namespace.
    pub fn host(&self, name: &Hostname) -> Option<&ServiceName> {
        self.hostnames.get(name)
    }

    /// The services that a workload may serve, in the order of their names.
    pub fn served_by(&self, identity: &SpiffeId) -> impl Iterator<Item = &Arc<Entry<CheckedService>>> {
        let names = self.served_by.get(identity).into_iter().flatten();
        names.filter_map(|name| self.services.get(name))
    }

    /// Notes that what is kept of an object does not hold.
    pub(crate) fn does_not_hold(&mut self, key: Key, why: String) {
        Arc::make_mut(&mut self.unheld).insert(key, why);
    }

    /// Why what is kept of an object does not hold, if it did not when everything was read the last time.
    pub(crate) fn unheld(&self, key: &Key) -> Option<&str> {
        self.unheld.get(key).map(String::as_str)
    }

    /// The workloads that may serve something.
    pub fn serving_identities(&self) -> impl Iterator<Item = &SpiffeId> {
        self.served_by.iter().map(|(identity, _)| identity)
    }

    /// One object of any kind.
    pub fn object(&self, key: &Key) -> Option<AnyEntry> {
        match key.kind {
            Kind::MeshService | Kind::EgressService => {
                let name = ServiceName::new(key.namespace.clone(), label(&key.name)?);
                let entry = self.services.get(&name).filter(|e| e.object.kind() == key.kind)?;
                Some(AnyEntry::Service(entry.clone()))
            }
            Kind::MeshDefaults => {
                let entry = self.defaults.as_ref().filter(|e| e.object.key() == *key)?;
                Some(AnyEntry::Defaults(entry.clone()))
            }
            Kind::Gateway => {
                let name = ServiceName::new(key.namespace.clone(), label(&key.name)?);
                self.gateways.get(&name).cloned().map(AnyEntry::Gateway)
            }
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => {
                self.route(key).cloned().map(AnyEntry::Route)
            }
            Kind::RouteFilter => self.filter(key).cloned().map(AnyEntry::Filter),
            Kind::ReferenceGrant => self.grant(key).cloned().map(AnyEntry::Grant),
            Kind::TrafficPolicy => self.policies.get(key).cloned().map(AnyEntry::Policy),
            Kind::BreakerOverride => self.overrides.get(key).cloned().map(AnyEntry::Override),
            Kind::AccessPolicy => self.access.all.get(key).cloned().map(AnyEntry::Access),
            Kind::TokenPolicy => self.tokens.policies.get(key).cloned().map(AnyEntry::Tokens),
            Kind::Denylist => self.tokens.lists.get(key).cloned().map(AnyEntry::Denylist),
            Kind::Rollout => self.rollouts.get(key).cloned().map(AnyEntry::Rollout),
            Kind::Instance => {
                let uid = EndpointUid::new(key.name.as_str()).ok()?;
                let service = self.service_of_instance(&key.namespace, &uid)?;
                self.instance(service, &uid).cloned().map(AnyEntry::Instance)
            }
        }
    }

    /// All objects of a kind, of one namespace or all, by namespace and name.
    pub fn objects(&self, kind: Kind, namespace: Option<&Label>) -> Vec<AnyEntry> {
        let mut all: Vec<AnyEntry> = match kind {
            Kind::MeshService | Kind::EgressService => {
                self.services_of(kind).map(|e| AnyEntry::Service(e.clone())).collect()
            }
            Kind::MeshDefaults => self.defaults.iter().map(|e| AnyEntry::Defaults(e.clone())).collect(),
            Kind::Gateway => self.gateways().map(|e| AnyEntry::Gateway(e.clone())).collect(),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => {
                self.routes.of_kind(kind).map(|e| AnyEntry::Route(e.clone())).collect()
            }
            Kind::RouteFilter => {
                self.routes.filters.iter().map(|(_, e)| AnyEntry::Filter(e.clone())).collect()
            }
            Kind::ReferenceGrant => {
                self.routes.grants.iter().map(|(_, e)| AnyEntry::Grant(e.clone())).collect()
            }
            Kind::TrafficPolicy => self.policies.iter().map(|(_, e)| AnyEntry::Policy(e.clone())).collect(),
            Kind::BreakerOverride => self.all_overrides().map(|e| AnyEntry::Override(e.clone())).collect(),
            Kind::AccessPolicy => self.access.all.iter().map(|(_, e)| AnyEntry::Access(e.clone())).collect(),
            Kind::TokenPolicy => self.tokens.policies.values().map(|e| AnyEntry::Tokens(e.clone())).collect(),
            Kind::Denylist => self.tokens.lists.values().map(|e| AnyEntry::Denylist(e.clone())).collect(),
            Kind::Rollout => self.rollouts.all().map(|e| AnyEntry::Rollout(e.clone())).collect(),
            Kind::Instance => self.all_instances().map(|e| AnyEntry::Instance(e.clone())).collect(),
        };
        all.retain(|e| namespace.is_none_or(|n| *n == e.object().metadata.namespace));
        let key = |e: &AnyEntry| (e.object().metadata.namespace.clone(), e.object().metadata.name.clone());
        all.sort_by_cached_key(key);
        all
    }

    /// Puts a service in place of the one of its name.
    pub(crate) fn put_service(&mut self, entry: Entry<CheckedService>) {
        let name = entry.checked.name().clone();
        self.remove_service(&name);
        for hostname in &entry.checked.base.hostnames {
            self.hostnames.insert(hostname.clone(), name.clone());
        }
        for identity in &entry.checked.base.identities {
            self.served_by.update(identity, |of| of.insert(name.clone()), BTreeSet::is_empty);
        }
        if let Some(address) = entry.checked.address {
            self.addresses.insert(address, name.clone());
        }
        self.services.insert(name, Arc::new(entry));
    }

    /// Puts what holds for the mesh in place, or takes what was written of it away.
    pub(crate) fn put_defaults(&mut self, entry: Option<Entry<CheckedDefaults>>) {
        let settings = entry.as_ref().map(|e| e.checked.settings.clone());
        self.settings = Arc::new(settings.unwrap_or_else(|| MeshSettings::new(self.trust_domain.clone())));
        self.defaults = entry.map(Arc::new);
    }

    /// Takes a service away. Its routes and instances are the caller's business.
    pub(crate) fn remove_service(&mut self, name: &ServiceName) {
        let Some(entry) = self.services.remove(name) else { return };
        for hostname in &entry.checked.base.hostnames {
            self.hostnames.remove(hostname);
        }
        for identity in &entry.checked.base.identities {
            self.served_by.update(identity, |of| of.remove(name), BTreeSet::is_empty);
        }
        if let Some(address) = entry.checked.address {
            self.addresses.remove(&address);
        }
    }

    /// Puts a gateway in place of the one of its name.
    pub(crate) fn put_gateway(&mut self, entry: Entry<CheckedGateway>) {
        self.gateways.insert(entry.checked.name().clone(), Arc::new(entry));
    }

    /// Takes a gateway away. Its routes are the caller's business.
    pub(crate) fn remove_gateway(&mut self, name: &ServiceName) {
        self.gateways.remove(name);
    }

    /// Puts a policy in place of the one of its name.
    pub(crate) fn put_policy(&mut self, entry: Entry<CheckedPolicy>) {
        let key = entry.object.key();
        self.remove_policy(&key);
        match &entry.checked.target {
            PolicyTarget::Service(service) => {
                self.policies_of.update(service, |of| of.insert(key.clone()), BTreeSet::is_empty);
            }
            PolicyTarget::Route(route, _) => {
                self.policies_of_route.update(route, |of| of.insert(key.clone()), BTreeSet::is_empty);
            }
        }
        self.policies.insert(key, Arc::new(entry));
    }

    /// Takes a policy away.
    pub(crate) fn remove_policy(&mut self, key: &Key) {
        let Some(entry) = self.policies.remove(key) else { return };
        match &entry.checked.target {
            PolicyTarget::Service(service) => {
                self.policies_of.update(service, |of| of.remove(key), BTreeSet::is_empty);
            }
            PolicyTarget::Route(route, _) => {
                self.policies_of_route.update(route, |of| of.remove(key), BTreeSet::is_empty);
            }
        }
    }

    /// Puts an override of a breaker in place of the one of its name.
    pub(crate) fn put_override(&mut self, entry: Entry<CheckedOverride>) {
        let key = entry.object.key();
        self.remove_override(&key);
        let service = &entry.checked.service;
        self.overrides_of.update(service, |of| of.insert(key.clone()), BTreeSet::is_empty);
        self.overrides.insert(key, Arc::new(entry));
    }

    /// Takes an override of a breaker away.
    pub(crate) fn remove_override(&mut self, key: &Key) {
        let Some(entry) = self.overrides.remove(key) else { return };
        self.overrides_of.update(&entry.checked.service, |of| of.remove(key), BTreeSet::is_empty);
    }

    /// Puts an instance in place of the one of its name, whichever service that belonged to.
    pub(crate) fn put_instance(&mut self, entry: Entry<CheckedInstance>) {
        let (service, uid) = (entry.checked.endpoint.service.clone(), entry.checked.endpoint.uid.clone());
        self.remove_instance(service.namespace(), &uid);
        self.instance_names.insert((service.namespace().clone(), uid.clone()), service.clone());
        let insert = |of: &mut Arc<InstancesOf>| Arc::make_mut(of).insert(uid, Arc::new(entry));
        self.instances.update(&service, insert, |of| of.is_empty());
    }

    /// Takes an instance away.
    pub(crate) fn remove_instance(&mut self, namespace: &Label, uid: &EndpointUid) {
        let Some(service) = self.instance_names.remove(&(namespace.clone(), uid.clone())) else { return };
        let remove = |of: &mut Arc<InstancesOf>| Arc::make_mut(of).remove(uid);
        self.instances.update(&service, remove, |of| of.is_empty());
    }
}

mod tokens;

pub(crate) use rollouts::Rollouts;
pub(crate) use tokens::Tokens;

fn label(name: &ObjectName) -> Option<Label> {
    Label::new(name.as_str()).ok()
}
