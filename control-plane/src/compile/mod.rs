//! World to mesh resources: pure, and incremental.
//!
//! Each resource is a function of the world and its own name. A change touches a few objects; which resources those
//! can reach is known (`affected`), and only they are compiled again. That this finds every resource that differs is
//! a property test: compiling incrementally gives what compiling everything gives.
//!
//! The `Trust` of the mesh's own domain is not made here: its roots belong to the CA, which publishes them itself.

use std::collections::BTreeSet;

use outrigger_mesh::{
    BreakerOverride, ConsumerRoutes, Endpoint, EndpointPort, EndpointUid, Gateway, GatewayRoute, Inbound,
    InboundService, Label, Resource, ResourceName, Service, ServiceName, SpiffeId,
};

use crate::check::{CheckedInstance, CheckedOverride, CheckedService, PolicyTarget};
use crate::policy;
use crate::rollout;
use crate::routes;
use crate::spec::Key;
use crate::world::World;

/// What became of a resource.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "moved a few times a change")]
pub enum ResourceChange {
    /// It is this now.
    Set(Resource),
    /// It is no more.
    Remove(ResourceName),
}

impl ResourceChange {
    /// The resource's name.
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Set(resource) => resource.name(),
            Self::Remove(name) => name.clone(),
        }
    }
}

/// The objects that a change put, replaced or took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// What holds for the mesh as a whole.
    pub defaults: bool,
    /// The gateways.
    pub gateways: BTreeSet<ServiceName>,
    /// The services.
    pub services: BTreeSet<ServiceName>,
    /// The routes of all kinds.
    pub routes: BTreeSet<Key>,
    /// The filters of routes.
    pub filters: BTreeSet<Key>,
    /// The grants between namespaces.
    pub grants: BTreeSet<Key>,
    /// The policies.
    pub policies: BTreeSet<Key>,
    /// The overrides of breakers.
    pub overrides: BTreeSet<Key>,
    /// The access policies.
    pub access: BTreeSet<Key>,
    /// The policies for tokens.
    pub token_policies: BTreeSet<Key>,
    /// The lists of what is revoked.
    pub denylists: BTreeSet<Key>,
    /// The services whose rollouts were put, taken away or have come further.
    pub rollouts: BTreeSet<ServiceName>,
    /// The instances, under each service they belong or belonged to.
    pub instances: BTreeSet<(ServiceName, EndpointUid)>,
}

/// Every resource of the world, in the order of their names.
pub fn everything(world: &World) -> Vec<Resource> {
    names(world).iter().filter_map(|name| resource(world, name)).collect()
}

/// The names of all of them.
pub fn names(world: &World) -> BTreeSet<ResourceName> {
    let mut names = BTreeSet::from([ResourceName::Mesh(world.trust_domain().clone())]);
    names.extend(world.trusted().iter().map(|trust| ResourceName::Trust(trust.trust_domain.clone())));
    names.extend(world.gateways().map(|g| ResourceName::Gateway(g.checked.name().clone())));
    names.extend(world.issuers().map(|issuer| ResourceName::Issuer(issuer.name.clone())));
    names.extend(world.denylists().map(|list| ResourceName::Denylist(list.name.clone())));
    names
        .extend(world.consumers().into_iter().map(|(of, service)| ResourceName::ConsumerRoutes(of, service)));
    for service in world.services() {
        names_of_service(world, service.checked.name(), &mut names);
    }
    names
}

/// What is different in `new`, when it differs from `old` in what `touched` names.
pub fn changes(old: &World, new: &World, touched: &Touched) -> Vec<ResourceChange> {
    let names = affected(old, new, touched);
    names.into_iter().filter_map(|name| difference(old, new, name)).collect()
}

/// One resource, if there is one of that name.
pub fn resource(world: &World, name: &ResourceName) -> Option<Resource> {
    match name {
        ResourceName::Service(service) => compile_service(world, service).map(Resource::Service),
        ResourceName::Endpoint(service, uid) => compile_endpoint(world, service, uid).map(Resource::Endpoint),
        ResourceName::Inbound(namespace, account) => {
            let domain = world.trust_domain().clone();
            let identity = SpiffeId::new(domain, namespace.clone(), account.clone());
            compile_inbound(world, identity).map(Resource::Inbound)
        }
        ResourceName::Mesh(domain) => {
            (domain == world.trust_domain()).then(|| Resource::Mesh((**world.settings()).clone()))
        }
        ResourceName::Gateway(gateway) => compile_gateway(world, gateway).map(Resource::Gateway),
        ResourceName::Issuer(issuer) => world.issuer(issuer).map(Resource::Issuer),
        ResourceName::Denylist(list) => world.denylist(list).cloned().map(Resource::Denylist),
        ResourceName::Trust(domain) => world.trust_of(domain).cloned().map(Resource::Trust),
        ResourceName::ConsumerRoutes(namespace, service) => {
            compile_consumer(world, namespace, service).map(Resource::ConsumerRoutes)
        }
    }
}

fn difference(old: &World, new: &World, name: ResourceName) -> Option<ResourceChange> {
    match (resource(old, &name), resource(new, &name)) {
        (before, Some(after)) => (before.as_ref() != Some(&after)).then_some(ResourceChange::Set(after)),
        (Some(_), None) => Some(ResourceChange::Remove(name)),
        (None, None) => None,
    }
}

/// The resources that can differ when what is `touched` does.
fn affected(old: &World, new: &World, touched: &Touched) -> BTreeSet<ResourceName> {
    let mut names = BTreeSet::new();
    if touched.defaults {
        names.insert(ResourceName::Mesh(new.trust_domain().clone()));
        for world in [old, new] {
            names.extend(world.trusted().iter().map(|trust| ResourceName::Trust(trust.trust_domain.clone())));
        }
        if old.access_default() != new.access_default() {
            for world in [old, new] {
                world.services().for_each(|s| names_of_access(world, s.checked.name(), &mut names));
            }
        }
        if old.default_policy() != new.default_policy() {
            for world in [old, new] {
                world.services().for_each(|s| names_of_policy(world, s.checked.name(), &mut names));
                names.extend(world.gateways().map(|g| ResourceName::Gateway(g.checked.name().clone())));
            }
        }
    }
    names.extend(touched.gateways.iter().cloned().map(ResourceName::Gateway));
    for service in &touched.services {
        names_of_service(old, service, &mut names);
        names_of_service(new, service, &mut names);
    }
    for world in [old, new] {
        touched.routes.iter().for_each(|route| names_of_route(world, route, &mut names));
        let extended = touched.filters.iter().flat_map(|filter| world.routes_with(filter));
        extended.for_each(|route| names_of_route(world, route, &mut names));
        for grant in &touched.grants {
            world.routes_into(&grant.namespace).for_each(|route| names_of_route(world, route, &mut names));
        }
        for service in touched.services.iter().filter(|name| leads_elsewhere(old, new, name)) {
            let naming = world.routes_to(service).chain(world.routes_naming(service));
            naming.for_each(|route| names_of_route(world, route, &mut names));
        }
        for entry in touched.policies.iter().filter_map(|key| world.policy(key)) {
            match &entry.checked.target {
                PolicyTarget::Service(service) => names_of_policy(world, service, &mut names),
                PolicyTarget::Route(route, _) => names_of_route(world, route, &mut names),
            }
        }
        for entry in touched.access.iter().filter_map(|key| world.access_policy(key)) {
            let selected = world.services().filter(|s| entry.checked.selects.holds_for(s.checked.name()));
            selected.for_each(|s| names_of_access(world, s.checked.name(), &mut names));
        }
        for policy in touched.token_policies.iter().filter_map(|key| world.token_policy(key)) {
            names.extend(policy.checked.issuers.iter().map(|i| ResourceName::Issuer(i.name.clone())));
            policy.checked.services.iter().for_each(|service| names_of_policy(world, service, &mut names));
        }
        let lists =
            world.denylists().filter(|list| touched.denylists.iter().any(|key| is_list(key, &list.name)));
        names.extend(lists.map(|list| ResourceName::Denylist(list.name.clone())));
        let overrides = touched.overrides.iter().filter_map(|key| world.breaker_override(key));
        names.extend(overrides.map(|e| ResourceName::Service(e.checked.service.clone())));
    }
    names.extend(touched.rollouts.iter().cloned().map(ResourceName::Service));
    let endpoints = touched.instances.iter().cloned();
    names.extend(endpoints.map(|(service, uid)| ResourceName::Endpoint(service, uid)));
    names
}

/// The resources that a service as it is in `world` can reach: itself, its endpoints, which must fit its ports and
/// identities, and what protects the workloads that serve it.
fn names_of_service(world: &World, name: &ServiceName, names: &mut BTreeSet<ResourceName>) {
    names.insert(ResourceName::Service(name.clone()));
    for instance in world.instances(name) {
        names.insert(ResourceName::Endpoint(name.clone(), instance.checked.endpoint.uid.clone()));
    }
    names_of_policy(world, name, names);
}

/// The resources that the policy of a service can reach: itself, and what protects the workloads that serve it, and those
/// to which its timeouts go on.
fn names_of_policy(world: &World, name: &ServiceName, names: &mut BTreeSet<ResourceName>) {
    names.insert(ResourceName::Service(name.clone()));
    names_of_access(world, name, names);
    for other in &policy::depend_on(world, name) {
        names_of_access(world, other, names);
    }
}

/// The resources that who may ask a service can reach: what protects the workloads that serve it.
fn names_of_access(world: &World, name: &ServiceName, names: &mut BTreeSet<ResourceName>) {
    let identities = world.service(name).into_iter().flat_map(|e| &e.checked.service().identities);
    names.extend(
        identities.map(|id| ResourceName::Inbound(id.namespace().clone(), id.service_account().clone())),
    );
}

fn is_list(key: &Key, name: &ServiceName) -> bool {
    key.namespace == *name.namespace() && key.name.as_str() == name.name().as_str()
}

/// Whether routes that lead to a service can find something else there: it came or went, or has other ports.
fn leads_elsewhere(old: &World, new: &World, name: &ServiceName) -> bool {
    let ports = |world: &World| world.service(name).map(|e| e.checked.service().ports.clone());
    ports(old) != ports(new)
}

/// The resources that the rules of a route are part of.
fn names_of_route(world: &World, route: &Key, names: &mut BTreeSet<ResourceName>) {
    let Some(entry) = world.route(route) else { return };
    for service in entry.checked.services() {
        names.insert(if *service.namespace() == route.namespace {
            ResourceName::Service(service.clone())
        } else {
            ResourceName::ConsumerRoutes(route.namespace.clone(), service.clone())
        });
    }
    let gateways = entry.checked.gateways.iter().map(|parent| parent.gateway.clone());
    names.extend(gateways.map(ResourceName::Gateway));
    entry.checked.backends().for_each(|backend| names_of_access(world, backend, names));
}

fn compile_service(world: &World, name: &ServiceName) -> Option<Service> {
    let base = world.service(name)?.checked.service();
    // Its parts have been proven one by one; their names keep them apart.
    Some(Service {
        routes: routes::of_requests(world, name.namespace(), name),
        tcp_routes: routes::of_connections(world, name.namespace(), name),
        policy: policy::service(world, name),
        for_callers: policy::callers(world, name),
        tokens: world.token_policy_of(name).map_or(base.tokens, |p| p.checked.travel),
        overrides: world.overrides_of(name).flat_map(|e| compile_override(world, &e.checked)).collect(),
        division: rollout::division(world, name),
        ..base.clone()
    })
}

/// An override of a route's breaker is one for each of its rules.
fn compile_override(world: &World, checked: &CheckedOverride) -> Vec<BreakerOverride> {
    if checked.expired {
        return vec![];
    }
    let Some(route) = &checked.route else { return vec![checked.says.clone()] };
    let rules = world.route(route).into_iter().flat_map(|r| r.checked.routes());
    rules.map(|rule| BreakerOverride { route: Some(rule.name.clone()), ..checked.says.clone() }).collect()
}

/// A gateway with the rules of its routes, at each listener that takes them.
fn compile_gateway(world: &World, name: &ServiceName) -> Option<Gateway> {
    let mut compiled = world.gateway(name)?.checked.base.clone();
    for (listener, taken) in compiled.listeners.iter_mut().zip(routes::attached(world, name)) {
        for (entry, hostnames) in taken {
            let rules = routes::at_gateway(world, &entry.object.key()).into_iter();
            listener.routes.extend(rules.map(|route| GatewayRoute { hostnames: hostnames.clone(), route }));
        }
    }
    Some(compiled)
}

/// What a namespace says of a service of another one, for its own callers.
fn compile_consumer(world: &World, namespace: &Label, name: &ServiceName) -> Option<ConsumerRoutes> {
    if namespace == name.namespace() || world.service(name).is_none() {
        return None;
    }
    let routes = routes::of_requests(world, namespace, name);
    let tcp_routes = routes::of_connections(world, namespace, name);
    let (namespace, service) = (namespace.clone(), name.clone());
    let says = !routes.is_empty() || !tcp_routes.is_empty();
    says.then_some(ConsumerRoutes { namespace, service, routes, tcp_routes })
}

/// An instance is pushed while its service exists, lets its workload serve, and has at least one of its ports.
fn compile_endpoint(world: &World, name: &ServiceName, uid: &EndpointUid) -> Option<Endpoint> {
    let service = &world.service(name)?.checked;
    let instance = &world.instance(name, uid)?.checked;
    if !may_serve(service, instance) {
        return None;
    }
    let known = |p: &&EndpointPort| service.service().port(Some(p.port)).is_some();
    let ports: Vec<_> = instance.endpoint.ports.iter().filter(known).copied().collect();
    if ports.is_empty() {
        return None;
    }
    Some(Endpoint { ports: ports.into(), ..instance.endpoint.clone() })
}

fn may_serve(service: &CheckedService, instance: &CheckedInstance) -> bool {
    instance.registered_by.as_ref().is_none_or(|identity| service.may_be_served_by(identity))
}

fn compile_inbound(world: &World, identity: SpiffeId) -> Option<Inbound> {
    let services: Vec<_> = world
        .served_by(&identity)
        .map(|entry| {
            let service = entry.checked.service();
            InboundService {
                name: service.name.clone(),
                mtls: service.mtls.clone(),
                ports: service.ports.iter().map(|p| (p.number, p.protocol)).collect(),
                http: service.http.clone(),
                between: service.between,
                protection: policy::protection(world, &service.name),
                tokens: world.token_policy_of(&service.name).map(|p| p.checked.rules_of(&service.name)),
                longest: policy::longest(world, &service.name),
                access: policy::access(world, &service.name),
            }
        })
        .collect();
    (!services.is_empty()).then_some(Inbound { identity, services })
}

#[cfg(test)]
mod tests;
