//! The one task that changes anything: stage, commit, put in place, publish.

use std::sync::Arc;

use arc_swap::ArcSwap;
use outrigger_mesh::{Endpoint, EndpointUid, ServiceName, TokenKey};
use tokio::sync::{mpsc, oneshot};

use super::instances::{self, Refusal};
use super::progress::{self, Step};
use super::stage::Stage;
use super::{Applied, ApplyError, Foreseen, How, ObjectChange, Publish, Write, load, overrides};
use crate::audit::Author;
use crate::compile;
use crate::history;
use crate::jwks::{self, Source};
use crate::spec::{Key, Problem, Time};
use crate::status;
use crate::store::{CommitError, Store, StoreError, StoreErrorKind, Transaction};
use crate::world::World;

/// What can be asked of the writer. A caller that has gone does not get its answer.
pub(super) enum Command {
    Apply {
        writes: Vec<Write>,
        author: Author,
        how: How,
        reply: oneshot::Sender<Result<Applied, ApplyError>>,
    },
    Register {
        endpoint: Endpoint,
        author: Author,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Remove {
        service: ServiceName,
        uid: EndpointUid,
        author: Author,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Progress {
        step: Step,
        author: Author,
        reply: oneshot::Sender<Result<bool, StoreError>>,
    },
    Keys {
        source: Source,
        keys: Vec<TokenKey>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
}

pub(super) struct Writer {
    store: Arc<dyn Store>,
    world: Arc<ArcSwap<World>>,
    publish: Arc<dyn Publish>,
    /// The store may hold more than the world: a commit failed in a way that does not tell.
    stale: bool,
}

/// So many commands are looked at together; those about instances become one transaction.
const BATCH: usize = 256;

impl Writer {
    pub(super) fn new(store: Arc<dyn Store>, world: Arc<ArcSwap<World>>, publish: Arc<dyn Publish>) -> Self {
        Self { store, world, publish, stale: false }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let world = self.world.load_full();
            let taken = tokio::select! {
                taken = queue.recv_many(&mut batch, BATCH) => taken,
                () = overrides::until_next(&world) => {
                    self.expire().await;
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            let mut instances = vec![];
            for command in batch.drain(..) {
                // The order of the queue is kept: what was asked first is in force first.
                match command {
                    Command::Apply { writes, author, how, reply } => {
                        self.instances(std::mem::take(&mut instances)).await;
                        let _ = reply.send(self.apply(&writes, &author, how).await);
                    }
                    Command::Progress { step, author, reply } => {
                        self.instances(std::mem::take(&mut instances)).await;
                        let _ = reply.send(self.progress(step, author).await);
                    }
                    Command::Keys { source, keys, reply } => {
                        let _ = reply.send(self.keys(&source, keys).await);
                    }
                    Command::Register { .. } | Command::Remove { .. } => instances.push(command),
                }
            }
            self.instances(instances).await;
        }
    }

    async fn apply(&mut self, writes: &[Write], author: &Author, how: How) -> Result<Applied, ApplyError> {
        self.catch_up().await?;
        let old = self.world.load_full();
        if how.only_at.is_some_and(|at| at != old.revision()) {
            return Err(ApplyError::Moved { revision: old.revision() });
        }
        let mut stage = Stage::of(&old, writes, author, how.dangling)?;
        let (changes, warnings) = (std::mem::take(&mut stage.changes), std::mem::take(&mut stage.warnings));
        if how.dry_run {
            let foreseen = Some(foresee(&old, stage, &changes));
            return Ok(Applied { foreseen, ..Applied::of(&old, changes, warnings) });
        }
        match self.commit(&old, stage, author).await {
            Ok(now) => Ok(Applied::of(&now, changes, warnings)),
            Err(CommitError::Store(e)) => Err(e.into()),
            Err(CommitError::Conflict { key, .. }) => Err(self.conflict(&key, writes).await),
        }
    }

    /// Puts keys in force that were fetched, and keeps them for the next start.
    async fn keys(&mut self, source: &Source, keys: Vec<TokenKey>) -> Result<(), StoreError> {
        self.catch_up().await?;
        let old = self.world.load_full();
        let mut new = (*old).clone();
        let policies = new.put_keys(source, keys.clone());
        if !policies.is_empty() {
            jwks::keep(&*self.store, source, &keys).await;
            let touched =
                compile::Touched { token_policies: policies.into_iter().collect(), ..Default::default() };
            self.put_in_place(&old, new, &touched);
        }
        Ok(())
    }

    /// Notes how far a rollout has come, and puts it in force. False when it is not as it was seen.
    async fn progress(&mut self, step: Step, author: Author) -> Result<bool, StoreError> {
        self.catch_up().await?;
        let old = self.world.load_full();
        let Some((transaction, new)) = progress::stage(&old, &step, author) else { return Ok(false) };
        if let Err(e) = self.store.commit(transaction).await {
            self.stale = true;
            return match e {
                CommitError::Store(e) => Err(e),
                CommitError::Conflict { .. } => Ok(false),
            };
        }
        let touched = compile::Touched { rollouts: [step.service].into(), ..Default::default() };
        self.put_in_place(&old, new, &touched);
        Ok(true)
    }

    /// Ends the overrides whose time is over: they stay to be read, and no longer hold.
    async fn expire(&mut self) {
        if self.catch_up().await.is_err() {
            // The store does not answer; their time is still over when it does.
            tokio::time::sleep(overrides::TRY_AGAIN).await;
            return;
        }
        let old = self.world.load_full();
        let mut new = (*old).clone();
        let (touched, audit) = overrides::expire(&mut new);
        self.put_in_place(&old, new, &touched);
        let author = Author::system("its time is over");
        if let Err(e) = self.store.commit(Transaction { author, writes: vec![], audit }).await {
            tracing::warn!(error = %e, "the end of an override is not in the audit log");
        }
    }

    /// Many instances come and go together when anything larger happens; together they cost one commit.
    async fn instances(&mut self, commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let caught_up = self.catch_up().await;
        let old = self.world.load_full();
        let mut stage = Stage::new(&old);
        let replies: Vec<Reply> =
            commands.into_iter().filter_map(|c| stage_instance(&mut stage, c)).collect();
        let done = match caught_up {
            Ok(()) => self.commit_instances(&old, stage).await,
            Err(e) => Err(e),
        };
        for (reply, result) in replies {
            let result = result.and_then(|()| done.clone().map_err(Refusal::from));
            let _ = reply.send(result);
        }
    }

    async fn commit_instances(&mut self, old: &Arc<World>, stage: Stage) -> Result<(), StoreError> {
        let author = Author::system("instances came or went");
        match self.commit(old, stage, &author).await {
            Ok(_) => Ok(()),
            Err(CommitError::Store(e)) => Err(e),
            Err(CommitError::Conflict { .. }) => {
                let detail = "another control plane changed the same instances";
                Err(StoreError::new(StoreErrorKind::Locked, "of the mesh", detail))
            }
        }
    }

    /// Commits what is staged on `old`, puts it in place and publishes what differs.
    async fn commit(
        &mut self,
        old: &Arc<World>,
        stage: Stage,
        author: &Author,
    ) -> Result<Arc<World>, CommitError> {
        if stage.is_empty() {
            return Ok(old.clone());
        }
        let (audit, touched) = (stage.audit.clone(), stage.touched.clone());
        let mut writes = stage.writes.clone();
        let mut new = stage.finish();
        writes.extend(status::note(old, &mut new, &touched, Time::now()));
        let transaction = Transaction { author: author.clone(), writes, audit };
        let committed = match self.store.commit(transaction).await {
            Ok(committed) => committed,
            Err(e) => {
                self.stale = true;
                return Err(e);
            }
        };
        if (committed.revision, committed.generation) != (new.revision(), new.generation()) {
            // Somebody else wrote in between: what is in the store is in force.
            self.stale = true;
            self.catch_up().await?;
            return Ok(self.world.load_full());
        }
        Ok(self.put_in_place(old, new, &touched))
    }

    fn put_in_place(&self, old: &World, new: World, touched: &compile::Touched) -> Arc<World> {
        let changes = compile::changes(old, &new, touched);
        let new = Arc::new(new);
        self.world.store(new.clone());
        // Published even when no resource differs: sidecars are told the revision they are at.
        self.publish.publish(new.revision(), changes);
        new
    }

    /// Reads everything again where the world may not be what the store holds.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        if !self.stale {
            return Ok(());
        }
        let old = self.world.load_full();
        let new = load::world(&*self.store, old.trust_domain().clone()).await?;
        self.stale = false;
        let touched = load::all_of(&old, &new);
        self.put_in_place(&old, new, &touched);
        Ok(())
    }

    async fn conflict(&mut self, path: &str, writes: &[Write]) -> ApplyError {
        if let Err(e) = self.catch_up().await {
            return e.into();
        }
        let key = Key::from_path(path).or_else(|| writes.first().map(Write::key));
        match key {
            Some(key) => {
                let current = self.world.load().object(&key);
                ApplyError::Precondition { key, current }
            }
            None => ApplyError::Refused(vec![]),
        }
    }
}

impl Applied {
    fn of(now: &World, changes: Vec<ObjectChange>, warnings: Vec<Problem>) -> Self {
        Self { revision: now.revision(), generation: now.generation(), changes, warnings, foreseen: None }
    }
}

/// What a staged change would mean.
fn foresee(old: &World, stage: Stage, changes: &[ObjectChange]) -> Foreseen {
    let touched = stage.touched.clone();
    let new = stage.finish();
    let written = |world: &World, key: &Key| world.object(key).map(|entry| entry.object().to_json());
    let differences = changes.iter().map(|change| {
        history::difference(written(old, &change.key).as_ref(), written(&new, &change.key).as_ref())
    });
    Foreseen { differences: differences.collect(), resources: compile::changes(old, &new, &touched) }
}

type Reply = (oneshot::Sender<Result<(), Refusal>>, Result<(), Refusal>);

fn stage_instance(stage: &mut Stage, command: Command) -> Option<Reply> {
    match command {
        Command::Register { endpoint, author, reply } => {
            Some((reply, instances::register(stage, endpoint, &author)))
        }
        Command::Remove { service, uid, author, reply } => {
            Some((reply, instances::remove(stage, &service, &uid, &author)))
        }
        Command::Apply { .. } | Command::Keys { .. } | Command::Progress { .. } => None,
    }
}
