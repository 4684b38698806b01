//! How far a rollout has come: a record of its own, committed together with its line of the audit log.

use std::sync::Arc;

use outrigger_mesh::ServiceName;
use serde_json::json;

use crate::audit::{AuditEntry, Author};
use crate::rollout::{self, Progress};
use crate::spec::Key;
use crate::store::{self, Expect, Space, Store, StoreError, Transaction};
use crate::world::World;

/// A step of a rollout.
#[derive(Clone, Debug)]
pub struct Step {
    /// The service that is divided.
    pub service: ServiceName,
    /// How far it had come, as whoever decided saw it.
    pub before: Option<Arc<Progress>>,
    /// How far it has come then; `None`: nothing is left of it.
    pub after: Option<Arc<Progress>>,
    /// What the audit log calls it.
    pub action: &'static str,
}

/// What the store is told of a step, and the world after it; `None` when it is not as it was seen.
pub(super) fn stage(old: &World, step: &Step, author: Author) -> Option<(Transaction, World)> {
    if old.rollouts.progress(&step.service) != step.before.as_ref() {
        return None;
    }
    // A rollout that was taken away meanwhile leaves what it leaves.
    let of = step.after.as_ref().or(step.before.as_ref()).map(|progress| &progress.of)?;
    let entry = old.rollout_of(&step.service);
    let written = entry.is_some_and(|e| e.object.key().path() == of.rollout && e.created == of.created);
    if step.after.is_some() && !written {
        return None;
    }
    let mut new = old.clone();
    new.rollouts.set(&step.service, step.after.clone());
    let value = step.after.as_ref().map(|after| json!(**after));
    let key = rollout::store_key(&step.service);
    let writes = vec![store::Write { space: Space::Rollouts, key, value, expect: Expect::Anything }];
    let object = Key::from_path(&of.rollout).map_or_else(|| of.rollout.clone(), |key| key.to_string());
    let audit = vec![AuditEntry::new(&author, step.action, object)];
    Some((Transaction { author, writes, audit }, new))
}

/// Whether the store, too, holds what was seen; the transaction is then for exactly that. Other control planes may have
/// written it in the meantime.
pub(super) async fn as_seen(
    store: &dyn Store,
    step: &Step,
    transaction: &mut Transaction,
) -> Result<bool, StoreError> {
    let record = store.get(Space::Rollouts, &rollout::store_key(&step.service)).await?;
    let before = step.before.as_ref().map(|before| json!(**before));
    if record.as_ref().map(|record| &record.value) != before.as_ref() {
        return Ok(false);
    }
    for write in &mut transaction.writes {
        write.expect = record.as_ref().map_or(Expect::Absent, |record| Expect::Version(record.changed));
    }
    Ok(true)
}
