//! The one task that drives every rollout: it looks, decides, writes, and looks again.

use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{ServiceName, Version};
use serde_json::Value as Json;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::eyes::{Eyes, Sidecars, exists};
use super::figures::Counted;
use super::keeping::Keeping;
use super::machine::{self, Change, Verb};
use super::metrics;
use super::plan::Plan;
use super::progress::{Progress, Run};
use crate::audit::Author;
use crate::spec::Key;
use crate::state::{State, Step};
use crate::store::StoreError;
use crate::world::Entry;

/// How rollouts are asked for, from anywhere.
#[derive(Clone)]
pub struct Rollouts {
    eyes: Arc<Eyes>,
    orders: mpsc::Sender<Order>,
}

/// Drives the rollouts for as long as it runs.
pub struct Keeper {
    eyes: Arc<Eyes>,
    orders: mpsc::Receiver<Order>,
}

/// What somebody says of one.
struct Order {
    key: Key,
    verb: Verb,
    step: Option<usize>,
    author: Author,
    reply: oneshot::Sender<Result<(), NotDone>>,
}

/// Why what somebody said was not done.
#[derive(Clone, Debug)]
pub enum NotDone {
    /// There is no such rollout.
    Absent,
    /// It can not be done as it stands.
    Refused(String),
    /// The store failed.
    Store(StoreError),
}

/// Rollouts of `state`, by what these sidecars obey and report; whoever runs the keeper drives them.
pub fn open(state: Arc<State>, sidecars: Arc<dyn Sidecars>, counted: Arc<Counted>) -> (Rollouts, Keeper) {
    open_at(state, sidecars, counted, OffsetDateTime::now_utc())
}

/// The same at a moment of the day that is told.
pub(super) fn open_at(
    state: Arc<State>,
    sidecars: Arc<dyn Sidecars>,
    counted: Arc<Counted>,
    now: OffsetDateTime,
) -> (Rollouts, Keeper) {
    let eyes = Arc::new(Eyes::new(state, sidecars, counted, now));
    let (orders, queue) = mpsc::channel(QUEUE);
    let keeper = Keeper { eyes: eyes.clone(), orders: queue };
    // Now, and not when it runs: what sidecars report first is not to be missed.
    keeper.follow();
    (Rollouts { eyes, orders }, keeper)
}

const QUEUE: usize = 16;
const LOOK: Duration = Duration::from_millis(200);
/// More follows from one look than this only if something is wrong; the next look goes on.
const MOST_MOVES: usize = 8;

impl Rollouts {
    #[cfg(test)]
    pub(super) fn now(&self) -> OffsetDateTime {
        self.eyes.now()
    }

    /// Where a rollout is, as the admin API tells it.
    pub fn status(&self, entry: &Entry<Plan>) -> Json {
        self.eyes.status(entry)
    }

    /// Where each is, as text for Prometheus.
    pub fn metrics(&self) -> String {
        metrics::text(&self.eyes.state.world())
    }

    /// Has something done with one. `step`: the step that whoever says it saw it at, counted from 0.
    pub async fn order(
        &self,
        key: Key,
        verb: Verb,
        step: Option<usize>,
        author: Author,
    ) -> Result<(), NotDone> {
        let (reply, answer) = oneshot::channel();
        let gone = || NotDone::Refused("the control plane is shutting down".into());
        let order = Order { key, verb, step, author, reply };
        self.orders.send(order).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Keeper {
    /// Drives them until `stop`.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut keeping = Keeping::new();
        keeping.restore(&self.eyes).await;
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.look().await;
                    keeping.keep(&self.eyes).await;
                }
                () = &mut stop => return keeping.keep_now(&self.eyes).await,
                Some(order) = self.orders.recv() => {
                    let done = self.obey(&order).await;
                    // Whoever asked may have gone.
                    let _ = order.reply.send(done);
                    self.look().await;
                }
            }
        }
    }

    /// Has everything counted that the rollouts go by, and answers which there are.
    fn follow(&self) -> Vec<Arc<Entry<Plan>>> {
        let entries: Vec<_> = self.eyes.state.world().rollouts.all().cloned().collect();
        self.eyes.follow(entries.iter().map(|entry| &entry.checked));
        entries
    }

    async fn look(&self) {
        let entries = self.follow();
        if !self.eyes.state.leads() {
            return;
        }
        for entry in &entries {
            if let Err(error) = self.drive(entry).await {
                let rollout = entry.object.key();
                tracing::warn!(%rollout, %error, "a rollout stays where it is: the store does not take its step");
            }
        }
        let world = self.eyes.state.world();
        for service in world.rollouts.services().filter(|s| world.rollout_of(s).is_none()) {
            self.let_go(service).await;
        }
    }

    /// Goes on with one for as long as something follows.
    async fn drive(&self, entry: &Entry<Plan>) -> Result<(), StoreError> {
        let plan = &entry.checked;
        let run = Run::new(&entry.object.key(), entry.created, entry.changed, plan);
        for _ in 0..MOST_MOVES {
            let world = self.eyes.state.world();
            let before = world.rollouts.progress(&plan.service).cloned();
            let own = before.as_deref().filter(|progress| progress.of == run);
            let change = match own {
                None => machine::follow(plan, before.as_deref(), &run, self.eyes.now()),
                Some(progress) if progress.has_ended() => None,
                Some(progress) => machine::next(plan, progress, &self.eyes.facts(&world, plan, progress)),
            };
            let Some(change) = change else { return Ok(()) };
            let author = Author::system(&change.next.why);
            if !self.write(&plan.service, before, change, author).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn obey(&self, order: &Order) -> Result<(), NotDone> {
        // It may have been written a moment ago and not been looked at.
        self.look().await;
        let world = self.eyes.state.world();
        let entry = world.rollouts.get(&order.key).ok_or(NotDone::Absent)?;
        let plan = &entry.checked;
        let not_now = || NotDone::Refused("it is being changed; look again".into());
        let progress = world.progress_of(entry).ok_or_else(not_now)?;
        let facts = self.eyes.facts(&world, plan, progress);
        let mut change = machine::order(plan, progress, &facts, order.verb, order.step)
            .map_err(|refused| NotDone::Refused(refused.0))?;
        let mut author = order.author.clone();
        if let Some(said) = &author.why {
            change.next.why = format!("{said}; {}", change.next.why);
        } else {
            author.why = Some(change.next.why.clone());
        }
        let done = self.write(&plan.service, Some(progress.clone()), change, author).await;
        if done.map_err(NotDone::Store)? { Ok(()) } else { Err(not_now()) }
    }

    /// Forgets what is left of a rollout that was taken away, once nothing of its candidate is there any more.
    async fn let_go(&self, service: &ServiceName) {
        let world = self.eyes.state.world();
        let Some(before) = world.rollouts.progress(service).cloned() else { return };
        let candidate = Version::new(&before.of.candidate);
        // One that drains, or is not ready, may come back; so may one whose process begins anew.
        if candidate.is_ok_and(|candidate| exists(&world, service, &candidate)) {
            return;
        }
        let author = Author::system("nothing of its candidate is left");
        let (service, before) = (service.clone(), Some(before));
        let step = Step { service, before, after: None, action: "rollout-forget" };
        if let Err(error) = self.eyes.state.set_progress(step, author).await {
            tracing::warn!(%error, "what is left of a rollout stays: the store does not answer");
        }
    }

    /// False when it is not as it was seen.
    async fn write(
        &self,
        service: &ServiceName,
        before: Option<Arc<Progress>>,
        change: Change,
        author: Author,
    ) -> Result<bool, StoreError> {
        let Change { next, action } = change;
        let (rollout, phase, share, why) =
            (next.of.rollout.clone(), next.word(), next.share, next.why.clone());
        let step = Step { service: service.clone(), before, after: Some(Arc::new(next)), action };
        let done = self.eyes.state.set_progress(step, author).await?;
        if done {
            tracing::info!(rollout, phase, share, why, "a rollout has come further");
        }
        Ok(done)
    }
}
