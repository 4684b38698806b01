//! Since when the conditions of a route are as they are.
//!
//! A status is made whenever somebody asks (`super`). What can not be made again are its moments, so they are kept: in the
//! world, and in the store in the same transaction as the change that moves them. A change makes anew only what it can
//! reach, and a moment moves only when its condition becomes true or false.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_mesh::ServiceName;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Look;
use crate::compile::Touched;
use crate::spec::{Key, Kind, Time};
use crate::store::{Expect, Space, Write};
use crate::world::World;

/// The moments of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Since {
    /// The count at which the route was created: a later one of its name is another one.
    created: u64,
    told: Vec<Moment>,
}

/// The moment of one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Moment {
    /// The parent, as it is written.
    parent: String,
    /// The type of the condition.
    #[serde(rename = "type")]
    kind: String,
    holds: bool,
    at: Time,
}

impl Since {
    /// Since when a condition is as it is.
    pub(super) fn at(&self, parent: &str, kind: &str) -> Option<Time> {
        self.told.iter().find(|m| m.parent == parent && m.kind == kind).map(|m| m.at)
    }

    /// Of what is told now: what was told before keeps its moment.
    fn of(
        before: Option<&Self>,
        created: u64,
        told: impl Iterator<Item = (String, &'static str, bool)>,
        now: Time,
    ) -> Self {
        let before = before.filter(|before| before.created == created);
        let kept = |parent: &str, kind: &str, holds: bool| {
            let of_it = |m: &&Moment| m.parent == parent && m.kind == kind && m.holds == holds;
            before.and_then(|before| before.told.iter().find(of_it)).map_or(now, |m| m.at)
        };
        let told = told.map(|(parent, kind, holds)| {
            let at = kept(&parent, kind, holds);
            Moment { parent, kind: kind.to_owned(), holds, at }
        });
        Self { created, told: told.collect() }
    }
}

/// Notes in `new`, which differs from `old` in what is `touched`, what has become of routes; and what the store is to be
/// told of it.
pub(crate) fn note(old: &World, new: &mut World, touched: &Touched, now: Time) -> Vec<Write> {
    let mut keys = BTreeSet::new();
    reached(old, touched, &mut keys);
    reached(new, touched, &mut keys);
    note_all(new, &keys, now)
}

/// The same for every route of a world that was read from the store: what the store does not know begins now.
pub(crate) fn note_read(world: &mut World, now: Time) -> Vec<Write> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_route());
    let keys = kinds.flat_map(|kind| world.objects(kind, None)).map(|entry| entry.object().key()).collect();
    note_all(world, &keys, now)
}

fn note_all(world: &mut World, keys: &BTreeSet<Key>, now: Time) -> Vec<Write> {
    let mut changed: Vec<(Key, Option<Arc<Since>>)> = vec![];
    let look = Look::at(world);
    for key in keys {
        let before = world.since(key);
        let since = world
            .route(key)
            .map(|entry| Since::of(before.map(Arc::as_ref), entry.created, look.told(entry), now));
        if since.as_ref() != before.map(Arc::as_ref) {
            changed.push((key.clone(), since.map(Arc::new)));
        }
    }
    let write = |(key, since): (Key, Option<Arc<Since>>)| {
        let value = since.as_ref().map(|since| json!(**since));
        let path = key.path();
        world.set_since(&key, since);
        Write { space: Space::Status, key: path, value, expect: Expect::Anything }
    };
    changed.into_iter().map(write).collect()
}

/// The routes whose status can be another one by what is `touched`.
fn reached(world: &World, touched: &Touched, keys: &mut BTreeSet<Key>) {
    for key in &touched.routes {
        keys.insert(key.clone());
        let Some(entry) = world.route(key) else { continue };
        // Where one kind of route comes, another may have to go.
        for gateway in &entry.checked.gateways {
            of_gateway(world, &gateway.gateway, keys);
        }
        if key.kind == Kind::GrpcRoute {
            let naming = entry.checked.services().flat_map(|service| world.routes_naming(service));
            keys.extend(naming.filter(|other| other.namespace == key.namespace).cloned());
        }
    }
    touched.gateways.iter().for_each(|gateway| of_gateway(world, gateway, keys));
    for service in &touched.services {
        keys.extend(world.routes_to(service).chain(world.routes_naming(service)).cloned());
    }
    keys.extend(touched.filters.iter().flat_map(|filter| world.routes_with(filter)).cloned());
    keys.extend(touched.grants.iter().flat_map(|grant| world.routes_into(&grant.namespace)).cloned());
}

fn of_gateway(world: &World, gateway: &ServiceName, keys: &mut BTreeSet<Key>) {
    keys.extend(world.routes_at(gateway).iter().map(|entry| entry.object.key()));
}
