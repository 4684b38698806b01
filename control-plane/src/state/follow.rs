//! What other control planes on the same store write: it takes the same way to the sidecars as what is written here.
//!
//! Instances and steps of rollouts, which come and go all the time, are put in place one by one. Another revision of the
//! configuration is rare and touches whatever refers to it, so the world is read again then; only what differs is
//! compiled and pushed.

use std::sync::Arc;

use outrigger_mesh::{EndpointUid, ServiceName};

use super::load;
use crate::compile::Touched;
use crate::spec::{Key, ObjectName};
use crate::store::{Change, Record, Space, Store, Watch};
use crate::world::World;

/// The changes of a store that the writer has not made itself, or not seen yet.
pub(super) struct Follow {
    config: Watch,
    instances: Watch,
    rollouts: Watch,
    /// Up to which count the steps of rollouts are in the world.
    seen_rollouts: u64,
}

/// What has changed.
#[derive(Debug)]
pub(super) enum News {
    /// The configuration is at this revision.
    Config(u64),
    /// Instances came or went.
    Instances(Arc<Change>),
    /// Rollouts have come further.
    Rollouts(Arc<Change>),
    /// More than can be told.
    Lost,
}

impl Follow {
    /// What comes after `world`.
    pub(super) fn after(store: &dyn Store, world: &World, rollouts: u64) -> Self {
        Self {
            config: store.watch(Space::Config, world.revision()),
            instances: store.watch(Space::Instances, world.generation()),
            rollouts: store.watch(Space::Rollouts, rollouts),
            seen_rollouts: rollouts,
        }
    }

    /// The next change that is not in `world`. Cancel safe.
    pub(super) async fn next(&mut self, world: &World) -> News {
        loop {
            let news = tokio::select! {
                // What instances and rollouts refer to comes first.
                biased;
                change = self.config.next() => change.map(|change| News::Config(change.position)),
                change = self.instances.next() => change.map(News::Instances),
                change = self.rollouts.next() => change.map(News::Rollouts),
            };
            let is_known = match &news {
                Ok(News::Config(revision)) => *revision <= world.revision(),
                Ok(News::Instances(change)) => change.position <= world.generation(),
                Ok(News::Rollouts(change)) => change.position <= self.seen_rollouts,
                Ok(News::Lost) | Err(_) => false,
            };
            if !is_known {
                return news.unwrap_or(News::Lost);
            }
        }
    }

    /// The steps of rollouts up to this count are in the world.
    pub(super) fn seen_rollouts(&mut self, count: u64) {
        self.seen_rollouts = self.seen_rollouts.max(count);
    }

    /// Up to which count they are.
    pub(super) fn rollouts(&self) -> u64 {
        self.seen_rollouts
    }
}

/// `world` with the instances of a change; `None` where it does not follow what is known.
pub(super) fn with_instances(world: &World, change: &Change) -> Option<(World, Touched)> {
    if change.position != world.generation() + 1 {
        return None;
    }
    let (mut new, mut touched) = (world.clone(), Touched::default());
    for (path, record) in &change.records {
        let key = Key::from_path(path)?;
        let uid = EndpointUid::new(key.name.as_str()).ok()?;
        note(&new, &key, &uid, &mut touched);
        // An instance may have passed from one service to another.
        new.remove_instance(&key.namespace, &uid);
        if let Some(record) = record {
            if let Err(why) = load::put(&mut new, record.clone()) {
                tracing::error!(object = path, why, "left out: it is kept, but does not hold");
            }
            note(&new, &key, &uid, &mut touched);
        }
    }
    new.generation = change.position;
    Some((new, touched))
}

fn note(world: &World, key: &Key, uid: &EndpointUid, touched: &mut Touched) {
    if let Some(service) = world.service_of_instance(&key.namespace, uid) {
        touched.instances.insert((service.clone(), uid.clone()));
    }
}

/// `world` with the steps of rollouts of a change.
pub(super) fn with_rollouts(world: &World, change: &Change) -> (World, Touched) {
    let (mut new, mut touched) = (world.clone(), Touched::default());
    for (key, record) in &change.records {
        let service: Option<ServiceName> = load::set_progress(&mut new, key, Option::<&Record>::from(record));
        touched.rollouts.extend(service);
    }
    (new, touched)
}

/// As the replicas call an instance among what they hold.
pub(crate) fn held_name(service: &ServiceName, uid: &EndpointUid) -> String {
    format!("{}/{}", service.namespace(), ObjectName::from(uid).as_str())
}
