//! How long requests to a service may take at most, by everything that anybody was told: the service's own policies, those
//! for some of its callers, and every route that leads there, whether from the service itself, from another or from a
//! gateway. The sidecar of the service holds its callers to it without knowing which route they came by.

use outrigger_mesh::{Longest, Route, ServiceName, Timeouts};

use super::{caller_policies, merge, of_service, rules, whole};
use crate::world::World;

/// The longest that requests to a service may take.
pub(crate) fn longest(world: &World, name: &ServiceName) -> Longest {
    let mut all = timeouts(world, name);
    let mut add = |rules: Vec<Route>, base: &dyn Fn(&Route) -> Vec<Timeouts>| {
        let leads_here = |rule: &&Route| rule.backends.iter().any(|b| b.service == *name);
        for rule in rules.iter().filter(leads_here) {
            all.extend(base(rule).iter().map(|base| rule.timeouts.or(base)));
        }
    };
    for key in world.routes_to(name) {
        let Some(route) = world.route(key) else { continue };
        for parent in route.checked.services() {
            let base = timeouts(world, parent);
            add(rules(world, key, Some(parent)), &|_| base.clone());
        }
        if !route.checked.gateways.is_empty() {
            // At a gateway the policy of the first backend holds.
            let first = |rule: &Route| rule.backends.first().map(|b| timeouts(world, &b.service));
            add(rules(world, key, None), &|rule| first(rule).unwrap_or_default());
        }
    }
    all.iter().map(Longest::of).reduce(Longest::or).unwrap_or_default()
}

/// The services whose longest times depend on the policy of this one besides itself: those that its routes lead to, and
/// those beside it behind a route.
pub(crate) fn depend_on(world: &World, name: &ServiceName) -> Vec<ServiceName> {
    let from = world.routes_naming(name).filter_map(|key| world.route(key));
    let to = world.routes_to(name).filter_map(|key| world.route(key));
    let rules = from.chain(to).flat_map(|route| route.checked.routes());
    rules.flat_map(|rule| &rule.backends).map(|backend| backend.service.clone()).collect()
}

/// What callers of a service are told: everybody, and some.
fn timeouts(world: &World, name: &ServiceName) -> Vec<Timeouts> {
    let base = of_service(world, name);
    let some = caller_policies(world, name).map(|e| merge::over(&e.checked.settings, &base));
    some.chain([base.clone()])
        .map(|settings| settings.timeouts.as_ref().map(whole::timeouts).unwrap_or_default())
        .collect()
}
