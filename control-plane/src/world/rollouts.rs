//! The rollouts of a world, and how far each has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_mesh::ServiceName;

use super::{Entry, World};
use crate::rollout::{Plan, Progress, Run};
use crate::spec::Key;

/// Rollouts. There are few at a time, so they are copied as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rollouts {
    all: BTreeMap<Key, Arc<Entry<Plan>>>,
    of: BTreeMap<ServiceName, Key>,
    progress: BTreeMap<ServiceName, Arc<Progress>>,
}

impl Rollouts {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Entry<Plan>>> {
        self.all.get(key)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Entry<Plan>>> {
        self.all.values()
    }

    /// The services that have one, or of which something is left from one.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.of.keys().chain(self.progress.keys().filter(|service| !self.of.contains_key(*service)))
    }

    /// Puts a rollout in place of the one of its name.
    pub(crate) fn put(&mut self, entry: Entry<Plan>) {
        let key = entry.object.key();
        self.remove(&key);
        self.of.insert(entry.checked.service.clone(), key.clone());
        self.all.insert(key, Arc::new(entry));
    }

    /// Takes a rollout away. What is left of it stays.
    pub(crate) fn remove(&mut self, key: &Key) {
        let Some(entry) = self.all.remove(key) else { return };
        self.of.remove(&entry.checked.service);
    }

    /// How far what divides a service has come, whichever rollout that is or was.
    pub(crate) fn progress(&self, service: &ServiceName) -> Option<&Arc<Progress>> {
        self.progress.get(service)
    }

    /// Notes how far it has come; `None`: nothing is left of it.
    pub(crate) fn set(&mut self, service: &ServiceName, progress: Option<Arc<Progress>>) {
        match progress {
            Some(progress) => self.progress.insert(service.clone(), progress),
            None => self.progress.remove(service),
        };
    }
}

impl World {
    /// The rollout of a service.
    pub fn rollout_of(&self, service: &ServiceName) -> Option<&Arc<Entry<Plan>>> {
        self.rollouts.all.get(self.rollouts.of.get(service)?)
    }

    /// How far it has come, where that is of the rollout as it is written.
    pub(crate) fn progress_of(&self, entry: &Entry<Plan>) -> Option<&Arc<Progress>> {
        let run = Run::new(&entry.object.key(), entry.created, entry.changed, &entry.checked);
        let progress = self.rollouts.progress(&entry.checked.service)?;
        // One that went back and was then changed begins anew.
        (progress.of.is_same(&run) && !(progress.is_back() && progress.of.changed != run.changed))
            .then_some(progress)
    }
}
