//! Contradictions between the layers of a policy, told where this change makes them.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_mesh::ServiceName;

use super::Write;
use crate::check::PolicyTarget;
use crate::compile::Touched;
use crate::policy::{Fault, faults_at_gateways, faults_of};
use crate::spec::{Code, Key, Kind, Problem};
use crate::world::World;

/// What would not agree in `new` and is not so in `old` already, each once, however many services it is about.
pub(super) fn contradictions(old: &World, new: &World, touched: &Touched, writes: &[Write]) -> Vec<Problem> {
    let (services, routes) = concerned(old, new, touched);
    let faults = |world: &World| -> Vec<Fault> {
        let of_services = services.iter().flat_map(|name| faults_of(world, name));
        of_services.chain(routes.iter().flat_map(|route| faults_at_gateways(world, route))).collect()
    };
    let mut found = faults(new);
    if found.is_empty() {
        return vec![];
    }
    let before = faults(old);
    found.retain(|fault| !before.iter().any(|known| known.is(fault)));
    // The same setting of the same object is told once, with those it is about.
    let mut told: BTreeMap<(usize, String, String), (Fault, Vec<String>)> = BTreeMap::new();
    for fault in found {
        let (write, pointer) = cause(&fault, writes);
        let about = fault.about.clone();
        let of_one = told.entry((write, pointer, fault.invalid.to_string()));
        of_one.or_insert_with(|| (fault, vec![])).1.push(about);
    }
    told.into_iter()
        .filter_map(|((write, pointer, what), (fault, about))| {
            let write = writes.get(write)?;
            let more = about.len().saturating_sub(1);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let message = format!("{what}, for {}{more}", about.first()?);
            let problem =
                Problem::error(pointer, Code::Contradiction, message).hint(hint(&fault, &write.key()));
            Some(match write {
                Write::Put { document, .. } => document.located(problem),
                Write::Delete { .. } => problem,
            })
        })
        .collect()
}

/// The services and the routes at gateways whose policies can be others.
fn concerned(old: &World, new: &World, touched: &Touched) -> (BTreeSet<ServiceName>, BTreeSet<Key>) {
    let mut services = touched.services.clone();
    let mut routes = touched.routes.clone();
    let all = touched.defaults && old.default_policy() != new.default_policy();
    for world in [old, new] {
        for policy in touched.policies.iter().filter_map(|key| world.policy(key)) {
            match &policy.checked.target {
                PolicyTarget::Service(name) => drop(services.insert(name.clone())),
                PolicyTarget::Route(key, _) => drop(routes.insert(key.clone())),
            }
        }
        if all {
            services.extend(world.services().map(|s| s.checked.name().clone()));
            let kinds = [Kind::HttpRoute, Kind::GrpcRoute].into_iter();
            routes.extend(kinds.flat_map(|kind| world.objects(kind, None)).map(|e| e.object().key()));
        }
        let parents = routes.iter().filter_map(|key| world.route(key)).flat_map(|r| r.checked.services());
        services.extend(parents.cloned());
    }
    (services, routes)
}

/// The write that makes it, by its place among them, and where in it: the narrowest layer that says the setting, if it is
/// written now, else one that says what the setting does not agree with.
fn cause(fault: &Fault, writes: &[Write]) -> (usize, String) {
    let field = &fault.invalid.field;
    let written = |key: &Key| writes.iter().position(|w| w.key() == *key);
    let layers = || fault.layers.iter().rev().filter_map(|l| Some((written(&l.key)?, l.pointer(field)?)));
    let says = layers().find(|(_, (_, exact))| *exact);
    if let Some((write, (pointer, _))) = says.or_else(|| layers().next()) {
        return (write, pointer);
    }
    let any = fault.layers.iter().rev().find_map(|l| written(&l.key));
    (any.unwrap_or_default(), String::new())
}

/// Who else speaks of it.
fn hint(fault: &Fault, blamed: &Key) -> String {
    let others = fault.layers.iter().rev().filter(|l| l.key != *blamed);
    let said: Vec<String> = others
        .filter_map(|l| Some(format!("{} says {}", l.key.path(), l.pointer(&fault.invalid.field)?.0)))
        .collect();
    if said.is_empty() {
        "the other value is the default; write both, or neither".to_owned()
    } else {
        format!("{}; change both together, or this one", said.join(", "))
    }
}
