//! How many routes each listener of a gateway has: those that are attached to it and accepted.

use std::collections::BTreeMap;

use outrigger_mesh::{Label, ServiceName};

use super::Look;
use crate::check::CheckedRoute;
use crate::routes;
use crate::world::{Entry, World};

/// The routes of each listener of the gateway that is in force under this name; empty where none is.
pub(crate) fn attached_routes(world: &World, gateway: &ServiceName) -> BTreeMap<Label, usize> {
    let Some(entry) = world.gateway(gateway) else { return BTreeMap::new() };
    let look = Look::at(world);
    // One that is attached may still be refused by us: where all of its rules are dropped.
    let is_accepted = |route: &Entry<CheckedRoute>| {
        let mut all = look.parents(route).into_iter().flat_map(|(_, conditions)| conditions);
        all.any(|c| c.kind == "Accepted" && c.holds)
    };
    let count = |all: routes::Attached| all.iter().filter(|(route, _)| is_accepted(route)).count();
    let counts = routes::attached(world, gateway).into_iter().map(count);
    entry.checked.base.listeners.iter().map(|listener| listener.name.clone()).zip(counts).collect()
}
