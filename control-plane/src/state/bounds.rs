//! Bounds to which every sidecar holds the routes of a service. Beyond them it would reject the whole of them, so a change that
//! would go there is refused.

use std::collections::{BTreeSet, HashSet};

use outrigger_mesh::{Backend, Label, Route, ServiceName};

use super::Write;
use crate::compile::Touched;
use crate::spec::{Code, Key, Problem};
use crate::world::World;

/// What would be too much in `new` and was less in `old`.
pub(super) fn exceeded(old: &World, new: &World, touched: &Touched, writes: &[Write]) -> Vec<Problem> {
    let mut tables: BTreeSet<(&Label, &ServiceName)> = BTreeSet::new();
    for (key, entry) in touched.routes.iter().filter_map(|key| Some((key, new.route(key)?))) {
        tables.extend(entry.checked.services().map(|service| (&key.namespace, service)));
    }
    let problem = |(namespace, service): (&Label, &ServiceName)| {
        let message = Table::of(new, namespace, service).beyond(&Table::of(old, namespace, service))?;
        let message = format!("{message}, of {namespace} for {service}");
        let is_of = |key: &Key| {
            key.namespace == *namespace && new.route(key).is_some_and(|entry| entry.checked.takes(service))
        };
        let document = writes.iter().rev().find_map(|write| match write {
            Write::Put { document, .. } if is_of(&document.object.key()) => Some(document),
            _ => None,
        })?;
        let problem = Problem::error("/spec/rules", Code::TooLarge, message);
        Some(
            document
                .located(problem.hint("no sidecar would take them; divide the service, or make fewer rules")),
        )
    };
    tables.into_iter().filter_map(problem).collect()
}

/// The routes that a namespace has made for a service.
struct Table {
    of_requests: usize,
    of_connections: usize,
    backends: usize,
}

impl Table {
    fn of(world: &World, namespace: &Label, service: &ServiceName) -> Self {
        let routes = world.routes_of(namespace, service);
        let named: HashSet<&ServiceName> = routes
            .iter()
            .flat_map(|entry| {
                let of_requests = entry.checked.routes().flat_map(|rule| &rule.backends);
                of_requests.chain(entry.checked.tcp_rules.iter().flat_map(|rule| &rule.backends))
            })
            .map(|backend| &backend.service)
            .collect();
        Self {
            of_requests: routes.iter().map(|entry| entry.checked.rules.len()).sum(),
            of_connections: routes.iter().map(|entry| entry.checked.tcp_rules.len()).sum(),
            backends: named.len(),
        }
    }

    /// What it has too much of, where that was less before.
    fn beyond(&self, before: &Self) -> Option<String> {
        let more = |now: usize, before: usize, most: usize| now > most && now > before;
        if more(self.of_requests, before.of_requests, Route::MOST)
            || more(self.of_connections, before.of_connections, Route::MOST)
        {
            return Some(format!("there would be more than {} rules", Route::MOST));
        }
        more(self.backends, before.backends, Backend::MOST_SERVICES)
            .then(|| format!("the rules would lead to more than {} services", Backend::MOST_SERVICES))
    }
}
