//! How the layers of what people wrote become one policy.
//!
//! A setting is what the narrowest layer says that says anything: the mesh (`MeshDefaults`), the service itself
//! (`timeouts` and `retry` of a MeshService), the service's `TrafficPolicy`, and then that of its caller or of the route.
//! Layers are laid over each other in the written form (`merge`), so that what is left out stays open to the end; only
//! the last result becomes values with defaults (`whole`). Whether it agrees with itself is judged in `agree`.

mod agree;
mod longest;
mod merge;
mod whole;

use outrigger_mesh::{Access, CallerPolicy, Protection, Route, ServiceName, SigningKey, TrafficPolicy};

pub(crate) use agree::{Fault, faults_at_gateways, faults_of};
pub(crate) use longest::{depend_on, longest};
pub(crate) use whole::{hash as read_key, rate_limit as read_rate_limit};

use crate::check::CheckedPolicy;
use crate::spec::{Key, PolicySettings};
use crate::world::{Entry, World};

/// What holds for all requests to a service, as written by all its layers.
pub(crate) fn of_service(world: &World, name: &ServiceName) -> PolicySettings {
    let own = world.service(name).map(|e| e.checked.inline());
    let layers = [world.default_policy(), own, policy_of(world, name).map(|e| &e.checked.settings)];
    merge::layers(layers.into_iter().flatten())
}

/// What holds for all requests to a service.
pub(crate) fn service(world: &World, name: &ServiceName) -> TrafficPolicy {
    whole::policy(&of_service(world, name), name.namespace(), &key_of(world, name))
}

/// What holds for some of its callers.
pub(crate) fn callers(world: &World, name: &ServiceName) -> Vec<CallerPolicy> {
    let base = of_service(world, name);
    caller_policies(world, name)
        .map(|entry| {
            let settings = merge::over(&entry.checked.settings, &base);
            CallerPolicy {
                callers: entry.checked.callers.clone(),
                policy: whole::policy(&settings, name.namespace(), &key_of(world, name)),
            }
        })
        .collect()
}

/// What protects each instance of a service.
pub(crate) fn protection(world: &World, name: &ServiceName) -> Protection {
    whole::protection(&of_service(world, name))
}

/// Who may ask what of a service.
pub(crate) fn access(world: &World, name: &ServiceName) -> Access {
    let mut policies: Vec<_> = world.access_for(name).map(|e| e.checked.policy.clone()).collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    Access { default: world.access_default(), policies }
}

/// The rules of a route with what its policies say, before the service of this name; `None` at a gateway.
pub(crate) fn rules(world: &World, route: &Key, before: Option<&ServiceName>) -> Vec<Route> {
    let Some(entry) = world.route(route) else { return vec![] };
    let base = match before {
        Some(service) => of_service(world, service),
        None => world.default_policy().cloned().unwrap_or_default(),
    };
    let rules = entry.checked.rules.iter().enumerate();
    rules
        .map(|(i, rule)| whole::rule(rule, of_rule(world, route, i).as_ref(), &base, &route.namespace))
        .collect()
}

/// What the policies of a route say of one of its rules: the one of the rule over the one of the route.
fn of_rule(world: &World, route: &Key, rule: usize) -> Option<PolicySettings> {
    let all: Vec<_> = world.policies_of_route(route).collect();
    let says = |section: Option<usize>| {
        all.iter().find(|e| e.checked.target.section() == section).map(|e| &e.checked.settings)
    };
    let layers: Vec<_> = [says(None), says(Some(rule))].into_iter().flatten().collect();
    (!layers.is_empty()).then(|| merge::layers(layers.into_iter()))
}

/// The policy of a service for everybody.
pub(crate) fn policy_of<'a>(world: &'a World, name: &ServiceName) -> Option<&'a Entry<CheckedPolicy>> {
    world.policies_of(name).find(|e| e.checked.callers.is_empty()).map(|e| &**e)
}

/// The policies of a service for some of its callers, in the order of their names.
fn caller_policies<'a>(
    world: &'a World,
    name: &ServiceName,
) -> impl Iterator<Item = &'a Entry<CheckedPolicy>> {
    world.policies_of(name).filter(|e| !e.checked.callers.is_empty()).map(|e| &**e)
}

/// What signs the places of the callers of a service.
fn key_of(world: &World, name: &ServiceName) -> SigningKey {
    world.secret().key_for("sticky", &name.to_string())
}

#[cfg(test)]
mod tests;
