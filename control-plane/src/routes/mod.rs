//! The rules of a route as they are pushed: with what its policies say, and what other objects are just now.
//!
//! A check proves what a route says by itself. What hangs on others is looked at here, each time a route is compiled, so
//! that a service that comes or goes changes the routes that name it without anybody writing them anew.

use outrigger_mesh::{Route, ServiceName};

use crate::policy;
use crate::spec::Key;
use crate::world::World;

/// The rules of a route before `service`, whose callers they are for.
pub(crate) fn before(world: &World, key: &Key, service: &ServiceName) -> Vec<Route> {
    let Some(entry) = world.route(key) else { return vec![] };
    let ports = entry.checked.ports_of(service);
    let mut rules = policy::rules(world, key, Some(service));
    for rule in &mut rules {
        rule.ports = ports.to_vec();
        // What stays at the service keeps the port its caller meant, which is this one.
        rule.backends.iter_mut().filter(|b| b.service == *service).for_each(|b| b.port = None);
    }
    rules
}

/// The rules of a route at its gateways.
pub(crate) fn at_gateway(world: &World, key: &Key) -> Vec<Route> {
    policy::rules(world, key, None)
}
