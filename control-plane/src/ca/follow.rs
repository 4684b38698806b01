//! What other control planes on the same store do to the authority: certificates that they sign, and a change of the root.

use futures_util::FutureExt as _;
use serde::Deserialize;

use super::keeper::{Keeper, Signing};
use super::kept::{self, Kept};
use super::ledger::Leaf;
use super::turn::Turner;
use crate::store::{Record, Space, StoreError, Watch};

/// The changes that were not looked at yet; none where nobody else can make any.
pub(super) type Others = Option<Watch>;

impl Turner {
    /// Takes over what others did since the last time. What can not be read now is read the next time.
    pub(super) async fn follow(&mut self) {
        let Some(mut watch) = self.others.take() else { return };
        let mut turned = false;
        let caught_up = loop {
            match watch.next().now_or_never() {
                None => break true,
                Some(Err(_compacted)) => break false,
                Some(Ok(change)) => {
                    for (key, record) in &change.records {
                        turned |= kept::is_authority(key);
                        merge(&self.keeper, key, record.as_ref());
                    }
                }
            }
        };
        if !caught_up {
            match self.read_again().await {
                Ok(position) => watch = self.keeper.store.watch(Space::Certificates, position),
                Err(error) => tracing::warn!(%error, "the account of certificates may be behind"),
            }
        }
        self.others = Some(watch);
        if (turned || !caught_up)
            && let Err(error) = self.take_over().await
        {
            tracing::error!(%error, "a change of the authority by another control plane is not in force here");
        }
    }

    async fn read_again(&self) -> Result<u64, StoreError> {
        let listed = self.keeper.store.list(Space::Certificates, "").await?;
        for (key, record) in &listed.records {
            merge(&self.keeper, key, Some(record));
        }
        Ok(listed.position)
    }

    /// Puts the authority of the store in force, if it is another one.
    async fn take_over(&mut self) -> anyhow::Result<()> {
        let Some(mut kept) = Kept::read(&*self.keeper.store).await? else { return Ok(()) };
        if kept.version() == self.kept.version() {
            return Ok(());
        }
        kept.given.clone_from(&self.kept.given);
        let signing = Signing::of(kept.in_force(&self.keeper.trust_domain)?, kept.version());
        self.kept = kept;
        self.put_in_force(signing);
        tracing::info!("another control plane changed the authority");
        Ok(())
    }
}

/// Enters what another control plane entered. What is not stored yet of this one's own stays.
fn merge(keeper: &Keeper, key: &str, record: Option<&Record>) {
    let Some(sha256) = kept::leaf_name(key) else { return };
    let leaf = record.map(|record| Leaf::deserialize(&record.value)).transpose();
    match leaf {
        Ok(Some(leaf)) => keeper.inner().ledger.merge(leaf),
        Ok(None) => keeper.inner().ledger.remove(sha256),
        Err(error) => tracing::error!(%error, key, "left out of the account of certificates"),
    }
}
