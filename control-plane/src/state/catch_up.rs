//! Reading what is surely the latest.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::State;
use crate::store::{Space, Store, StoreError, StoreErrorKind};
use crate::world::World;

impl State {
    /// Waits until what is in force here has everything that anybody had been told is written when this was called. Where
    /// nobody else writes to the store that is always so; else the store is asked how far it is.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        if self.store.replicas().is_none() {
            return Ok(());
        }
        let revision = self.store.list(Space::Config, NOWHERE).await?.position;
        let generation = self.store.list(Space::Instances, NOWHERE).await?.position;
        let deadline = Instant::now() + WITHIN;
        loop {
            let world = self.world();
            if world.revision() >= revision && world.generation() >= generation {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let detail = format!(
                    "this control plane is at revision {}, others are at {revision}",
                    world.revision()
                );
                return Err(StoreError::new(StoreErrorKind::Unavailable, "that is shared", detail));
            }
            sleep(LOOK).await;
        }
    }
}

/// Whether others have changed the configuration since `world`.
pub(super) async fn lies_behind(store: &dyn Store, world: &World) -> Result<bool, StoreError> {
    if store.replicas().is_none() {
        return Ok(false);
    }
    Ok(store.list(Space::Config, NOWHERE).await?.position > world.revision())
}

/// No key begins so: only the count is wanted.
const NOWHERE: &str = "\u{10ffff}";
const WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);
