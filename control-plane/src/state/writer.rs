//! The one task that changes anything: stage, commit, put in place, publish.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use outrigger_mesh::{Endpoint, EndpointUid, ServiceName, TokenKey};
use tokio::sync::{mpsc, oneshot};

use super::follow::{self, Follow, News};
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
use crate::store::{CommitError, Committed, Space, Store, StoreError, StoreErrorKind, Transaction};
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
    /// What others write.
    follow: Follow,
}

/// So many commands are looked at together; those about instances become one transaction.
const BATCH: usize = 256;
/// How often a change is checked anew, because another control plane changed the configuration in between.
const TRIES: usize = 8;

impl Writer {
    /// A writer of `world`, in which the steps of rollouts are up to the count `rollouts`.
    pub(super) fn new(
        store: Arc<dyn Store>,
        world: Arc<ArcSwap<World>>,
        rollouts: u64,
        publish: Arc<dyn Publish>,
    ) -> Self {
        let follow = Follow::after(&*store, &world.load(), rollouts);
        Self { store, world, publish, stale: false, follow }
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
                news = self.follow.next(&world) => {
                    if let Err(error) = self.take(news).await {
                        tracing::warn!(%error, "what others wrote is not in force yet");
                        tokio::time::sleep(overrides::TRY_AGAIN).await;
                    }
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
        let mut tries = 0;
        loop {
            self.catch_up().await?;
            let meant = self.store.is_source().then(|| meant(&*self.store, writes));
            let writes = meant.as_deref().unwrap_or(writes);
            let old = self.world.load_full();
            if how.only_at.is_some_and(|at| at != old.revision()) {
                return Err(ApplyError::Moved { revision: old.revision() });
            }
            let staged = Stage::of(&old, writes, author, how.dangling);
            // What is written the store compares with what it was decided on. What is refused, or changes nothing, it does not
            // see: that is true only of the latest.
            let is_seen = how.dry_run || staged.as_ref().is_ok_and(|stage| !stage.is_empty());
            if !is_seen && tries < TRIES {
                match super::catch_up::lies_behind(&*self.store, &old).await {
                    Ok(false) => {}
                    Ok(true) => {
                        (self.stale, tries) = (true, tries + 1);
                        continue;
                    }
                    // What is wrong in itself is so whatever others wrote.
                    Err(_) if matches!(staged, Err(ApplyError::Refused(_))) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            let mut stage = staged?;
            let (changes, warnings) =
                (std::mem::take(&mut stage.changes), std::mem::take(&mut stage.warnings));
            if how.dry_run {
                let foreseen = Some(foresee(&old, stage, &changes));
                return Ok(Applied { foreseen, ..Applied::of(&old, changes, warnings) });
            }
            return match self.commit(&old, stage, author).await {
                Ok(now) => Ok(Applied::of(&now, changes, warnings)),
                Err(CommitError::Store(e)) if e.kind() == StoreErrorKind::Behind && tries < TRIES => {
                    // Somebody else was faster: what was checked is checked again.
                    tries += 1;
                    continue;
                }
                Err(CommitError::Store(e)) => Err(e.into()),
                Err(CommitError::Conflict { key, .. }) => Err(self.conflict(&key, writes).await),
            };
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
        let Some((mut transaction, new)) = progress::stage(&old, &step, author) else { return Ok(false) };
        if self.store.replicas().is_some()
            && !progress::as_seen(&*self.store, &step, &mut transaction).await?
        {
            self.stale = true;
            return Ok(false);
        }
        let committed = match self.store.commit(transaction).await {
            Ok(committed) => committed,
            Err(e) => {
                self.stale = true;
                return match e {
                    CommitError::Store(e) => Err(e),
                    CommitError::Conflict { .. } => Ok(false),
                };
            }
        };
        let rollouts = self.follow.rollouts() + 1;
        let touched = compile::Touched { rollouts: [step.service].into(), ..Default::default() };
        self.put_in_place(&old, new, &touched);
        self.rollouts_at(rollouts, &committed).await;
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
        if self.store.replicas().is_some_and(|replicas| !replicas.leads()) {
            return;
        }
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
        let mut tries = 0;
        loop {
            let caught_up = self.catch_up().await;
            let old = self.world.load_full();
            let mut stage = Stage::new(&old);
            let staged: Vec<_> = commands.iter().filter_map(|c| stage_instance(&mut stage, c)).collect();
            let done = match caught_up {
                Ok(()) => self.commit_instances(&old, stage).await,
                Err(e) => Err(e),
            };
            if let Err(e) = &done
                && matches!(e.kind(), StoreErrorKind::Behind | StoreErrorKind::Locked)
                && self.store.replicas().is_some()
                && tries < TRIES
            {
                tries += 1;
                continue;
            }
            for (command, result) in commands.into_iter().zip(staged) {
                let result = match &done {
                    Err(e) if changes_something(&old, &command) => result.and(Err(Refusal::from(e.clone()))),
                    // Whoever says what is known already needs no store.
                    _ => result,
                };
                if let Command::Register { reply, .. } | Command::Remove { reply, .. } = command {
                    let _ = reply.send(result);
                }
            }
            return;
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
        let wrote_rollouts = stage.writes.iter().any(|w| w.space == Space::Rollouts);
        let (audit, touched) = (stage.audit.clone(), stage.touched.clone());
        let mut writes = stage.writes.clone();
        let mut new = stage.finish();
        writes.extend(status::note(old, &mut new, &touched, Time::now()));
        let transaction = Transaction { author: author.clone(), writes, audit };
        let committed = match self.store.commit_on(old.revision(), transaction).await {
            Ok(committed) => committed,
            Err(e) => {
                self.stale = true;
                return Err(e);
            }
        };
        let as_made = (committed.revision, committed.generation) == (new.revision(), new.generation());
        if !as_made || self.store.is_source() || !self.store.promises().gapless {
            // Somebody else wrote in between, or the store knows more of it: what is in the store is in force.
            self.follow_to(&committed).await?;
            return Ok(self.world.load_full());
        }
        let rollouts = self.follow.rollouts() + u64::from(wrote_rollouts);
        let now = self.put_in_place(old, new, &touched);
        self.rollouts_at(rollouts, &committed).await;
        Ok(now)
    }

    /// Puts in force what others wrote.
    async fn take(&mut self, news: News) -> Result<(), StoreError> {
        let old = self.world.load_full();
        match news {
            News::Instances(change) => match follow::with_instances(&old, &change) {
                Some((new, touched)) => drop(self.put_in_place(&old, new, &touched)),
                None => self.stale = true,
            },
            News::Rollouts(change) => {
                let (new, touched) = follow::with_rollouts(&old, &change);
                self.follow.seen_rollouts(change.position);
                // Most of it is what gates go by, which is nobody's configuration.
                if !touched.rollouts.is_empty() {
                    self.put_in_place(&old, new, &touched);
                }
            }
            News::Config(revision) => {
                tracing::info!(revision, "another control plane changed the configuration");
                self.stale = true;
            }
            News::Lost => self.stale = true,
        }
        self.catch_up().await
    }

    /// Notes that what was put in place has the steps of rollouts up to a commit, if that was the next one; else what others
    /// wrote of rollouts is taken first.
    async fn rollouts_at(&mut self, expected: u64, committed: &Committed) {
        if committed.rollouts == expected {
            self.follow.seen_rollouts(expected);
        } else if let Err(error) = self.follow_to(committed).await {
            tracing::warn!(%error, "what others wrote of rollouts is not in force yet");
        }
    }

    /// Takes what others wrote, up to a commit of one's own: what is told of it by then, else everything is read again.
    async fn follow_to(&mut self, committed: &Committed) -> Result<(), StoreError> {
        loop {
            let world = self.world.load_full();
            let now = (world.revision(), world.generation(), self.follow.rollouts());
            if now.0 >= committed.revision && now.1 >= committed.generation && now.2 >= committed.rollouts {
                return Ok(());
            }
            let Some(news) = self.follow.next(&world).now_or_never() else { break };
            self.take(news).await?;
        }
        self.stale = true;
        self.catch_up().await
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
        let load::Loaded { world: new, rollouts } =
            load::world(&*self.store, old.trust_domain().clone(), Some(&old)).await?;
        self.stale = false;
        self.follow = Follow::after(&*self.store, &new, rollouts);
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

/// The writes as the store understands them.
fn meant(store: &dyn Store, writes: &[Write]) -> Vec<Write> {
    let whole = |write: &Write| match write {
        Write::Put { document, expect } => {
            let mut document = document.clone();
            if let Some(object) = store.meant(&document.object) {
                document.object = object;
            }
            Write::Put { document, expect: *expect }
        }
        Write::Delete { .. } => write.clone(),
    };
    writes.iter().map(whole).collect()
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

/// Whether a command about an instance has anything to write.
fn changes_something(world: &World, command: &Command) -> bool {
    let mut stage = Stage::new(world);
    stage_instance(&mut stage, command);
    !stage.is_empty()
}

/// What is wrong with a command about an instance; `None` for any other command.
fn stage_instance(stage: &mut Stage, command: &Command) -> Option<Result<(), Refusal>> {
    match command {
        Command::Register { endpoint, author, .. } => {
            Some(instances::register(stage, endpoint.clone(), author))
        }
        Command::Remove { service, uid, author, .. } => Some(instances::remove(stage, service, uid, author)),
        Command::Apply { .. } | Command::Keys { .. } | Command::Progress { .. } => None,
    }
}
