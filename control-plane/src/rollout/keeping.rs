//! What was counted goes to the store now and then, and comes back from there at a start: a gate knows after a restart
//! what it knew before, but for the last seconds of a process that was killed.
//!
//! It is written at a bounded pace and without a line in the audit log: nothing is decided by it.

use std::collections::HashMap;
use std::time::Duration;

use outrigger_mesh::ServiceName;
use tokio::time::Instant;

use super::eyes::Eyes;
use super::kept::Kept;
use super::progress::{figures_key, service_of_figures};
use crate::audit::Author;
use crate::store::{Expect, Space, StoreError, Transaction, Write};

/// Writes what was counted, when it is time.
#[derive(Debug)]
pub(super) struct Keeping {
    /// What is in the store: how much had been counted of each service then.
    written: HashMap<ServiceName, u64>,
    next: Instant,
}

/// Figures are written so often, where there is something new.
const EVERY: Duration = Duration::from_secs(5);

impl Keeping {
    pub(super) fn new() -> Self {
        Self { written: HashMap::new(), next: Instant::now() + EVERY }
    }

    /// Takes back what an earlier process has kept of the rollouts that go on; the rest is taken away.
    pub(super) async fn restore(&mut self, eyes: &Eyes) {
        if let Err(error) = self.try_restore(eyes).await {
            tracing::warn!(%error, "the windows of gates begin anew: what was counted can not be read");
        }
    }

    async fn try_restore(&mut self, eyes: &Eyes) -> Result<(), StoreError> {
        let going_on = going_on(eyes);
        for (key, record) in eyes.state.store().list(Space::Rollouts, "").await?.records {
            let Some(service) = service_of_figures(&key) else { continue };
            // Whatever it is, it is there, and is to be taken away some time.
            self.written.insert(service.clone(), 0);
            let Ok(kept) = serde_json::from_value::<Kept>(record.value) else {
                tracing::warn!(%service, "the windows of its gates begin anew: what was counted can not be read");
                continue;
            };
            if going_on.contains(&service) {
                let since = Duration::try_from(eyes.now() - kept.at).unwrap_or_default();
                eyes.counted.restore(&service, &kept, since);
            }
        }
        Ok(())
    }

    /// Writes what is new, if it is time.
    pub(super) async fn keep(&mut self, eyes: &Eyes) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + EVERY;
            self.keep_now(eyes).await;
        }
    }

    /// Writes what is new.
    pub(super) async fn keep_now(&mut self, eyes: &Eyes) {
        // What gates go by is what the sidecars of the control plane that opens them report.
        let writes = if eyes.state.leads() { self.writes(eyes) } else { vec![] };
        if writes.is_empty() {
            return;
        }
        let author = Author::system("what gates go by");
        let transaction =
            Transaction { author, writes: writes.iter().map(|w| w.0.clone()).collect(), audit: vec![] };
        if let Err(error) = eyes.state.store().commit(transaction).await {
            tracing::warn!(%error, "what was counted for gates is not kept: the store does not take it");
            return;
        }
        for (_, service, counted) in writes {
            match counted {
                Some(counted) => self.written.insert(service, counted),
                None => self.written.remove(&service),
            };
        }
    }

    /// What there is to write, of which service, and how much had been counted of it; `None`: it is taken away.
    fn writes(&self, eyes: &Eyes) -> Vec<(Write, ServiceName, Option<u64>)> {
        let write = |service: &ServiceName, value| {
            let key = figures_key(service);
            Write { space: Space::Rollouts, key, value, expect: Expect::Anything }
        };
        let going_on = going_on(eyes);
        let over = self.written.keys().filter(|service| !going_on.contains(service));
        let mut writes: Vec<_> = over.map(|service| (write(service, None), service.clone(), None)).collect();
        for service in &going_on {
            let before = self.written.get(service).copied().unwrap_or(0);
            let Some((counted, kept)) = eyes.counted.kept(service, before, eyes.now()) else { continue };
            if let Ok(value) = serde_json::to_value(kept) {
                writes.push((write(service, Some(value)), service.clone(), Some(counted)));
            }
        }
        writes
    }
}

/// The services whose rollouts have not ended.
fn going_on(eyes: &Eyes) -> Vec<ServiceName> {
    let world = eyes.state.world();
    let goes_on = |service: &&ServiceName| {
        let progress = world.rollout_of(service).and_then(|entry| world.progress_of(entry));
        progress.is_some_and(|progress| !progress.has_ended())
    };
    world.rollouts.services().filter(goes_on).cloned().collect()
}
