//! What the control plane keeps in a cluster beside its store: what has become of each object, told in its status, and whom
//! pods are to believe. One of the replicas does it, the one that leads.

mod gateway;
mod roots;
mod statuses;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::ca::Keeper;
use crate::state::State;
use crate::store::kubernetes::KubernetesStore;
use roots::Roots;
use statuses::Statuses;

/// Keeps it so, until it is dropped.
pub(crate) async fn keep(store: KubernetesStore, state: Arc<State>, keeper: Arc<Keeper>) {
    let (mut statuses, mut roots) = (Statuses::default(), Roots::default());
    loop {
        if state.leads() {
            statuses.round(&store, &state.world()).await;
            roots.round(&store, &keeper.believed()).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

const LOOK: Duration = Duration::from_millis(500);
