//! What is in force, and the one writer that changes it.
//!
//! Every change goes the same way, one at a time, in one task: it is staged on a copy of the world (`stage`), committed
//! to the store together with its audit lines, and only then the new world is put in place and what differs is
//! published. Readers take the world as it is and never wait. A caller that goes away does not stop its change half way.

mod agreement;
mod bounds;
mod catch_up;
mod dependents;
mod follow;
mod instances;
mod load;
mod overrides;
mod paper;
mod progress;
mod stage;
mod stand_in;
#[cfg(test)]
mod tests;
mod tokens;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_certs::{JoinToken, RootHash};
use outrigger_mesh::{Endpoint, EndpointUid, Label, ServiceName, TokenKey, TrustDomain};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::audit::Author;
use crate::compile::{self, ResourceChange};
use crate::history::FieldChange;
use crate::jwks::Source;
use crate::spec::{Document, Key, Problem};
use crate::store::{Expect, Store, StoreError, StoreErrorKind};
use crate::world::{AnyEntry, World};

pub(crate) use follow::held_name;
pub use instances::{Refusal, RefusalKind, is_found_by_the_cluster};
pub use paper::{Paper, compile_all, on_paper};
pub use progress::Step;
pub use tokens::TokenError;
use writer::{Command, Writer};

/// Publishes what `world` says, a part at a time: nobody is there yet who could see one without the others, and there may
/// be very much of it.
fn publish_all(world: &World, publish: &dyn Publish) {
    let names: Vec<_> = compile::names(world).into_iter().collect();
    for part in names.chunks(PUBLISHED_AT_ONCE) {
        let made = part.iter().filter_map(|name| compile::resource(world, name));
        publish.publish(world.revision(), made.map(ResourceChange::Set).collect());
    }
}

const PUBLISHED_AT_ONCE: usize = 4_096;

/// Gets what changed, after it is on disk. It must not block.
pub trait Publish: Send + Sync + 'static {
    /// The resources that differ since the last call, and the revision of the configuration they are of.
    fn publish(&self, revision: u64, changes: Vec<ResourceChange>);
}

/// The state of the control plane. Dropping it ends its writer.
pub struct State {
    store: Arc<dyn Store>,
    world: Arc<ArcSwap<World>>,
    root: ArcSwap<RootHash>,
    commands: mpsc::Sender<Command>,
    writer: JoinHandle<()>,
}

impl State {
    /// Reads everything from `store`, publishes it, and takes changes from then on. `root` is what join tokens tell
    /// their holders to believe.
    pub async fn open(
        store: Arc<dyn Store>,
        trust_domain: TrustDomain,
        root: RootHash,
        publish: Arc<dyn Publish>,
    ) -> Result<Arc<Self>, StoreError> {
        let load::Loaded { world, rollouts } = load::world(&*store, trust_domain, None).await?;
        publish_all(&world, &*publish);
        let world = Arc::new(ArcSwap::from_pointee(world));
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(store.clone(), world.clone(), rollouts, publish);
        let writer = tokio::spawn(writer.run(queue));
        Ok(Arc::new(Self { store, world, root: ArcSwap::from_pointee(root), commands, writer }))
    }

    /// What is in force now. Whoever keeps it keeps this moment.
    pub fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// The store behind it, for history and audit.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Whether this control plane does what only one of those on the same store may do.
    pub fn leads(&self) -> bool {
        self.store.replicas().is_none_or(|replicas| replicas.leads())
    }

    /// The root that tokens tell their holders to believe.
    pub fn root(&self) -> RootHash {
        **self.root.load()
    }

    /// Makes all of `writes`, as one transaction and one revision, or none and tells everything that is wrong.
    /// A dry run tells what would be.
    pub async fn apply(
        &self,
        writes: Vec<Write>,
        author: &Author,
        dry_run: bool,
    ) -> Result<Applied, ApplyError> {
        self.apply_as(writes, author, How { dry_run, ..How::default() }).await
    }

    /// The same, in a way of one's choice.
    pub async fn apply_as(
        &self,
        writes: Vec<Write>,
        author: &Author,
        how: How,
    ) -> Result<Applied, ApplyError> {
        let author = author.clone();
        self.ask(|reply| Command::Apply { writes, author, how, reply }).await?
    }

    /// Puts an instance in force that a workload, the author, says it is.
    pub async fn register_instance(&self, endpoint: Endpoint, author: &Author) -> Result<(), Refusal> {
        let author = author.clone();
        self.ask(|reply| Command::Register { endpoint, author, reply }).await?
    }

    /// Takes an instance away: its own workload withdraws it, or the control plane found its lease ended. One that is
    /// not there is no fault.
    pub async fn remove_instance(
        &self,
        service: &ServiceName,
        uid: &EndpointUid,
        author: &Author,
    ) -> Result<(), Refusal> {
        let (service, uid, author) = (service.clone(), uid.clone(), author.clone());
        self.ask(|reply| Command::Remove { service, uid, author, reply }).await?
    }

    /// From now on join tokens tell their holders to believe this root.
    pub fn set_root(&self, root: RootHash) {
        self.root.store(Arc::new(root));
    }

    /// Puts keys in force that were fetched from `source`. They are not configuration: no revision counts them.
    pub async fn set_keys(&self, source: Source, keys: Vec<TokenKey>) -> Result<(), StoreError> {
        self.ask(|reply| Command::Keys { source, keys, reply }).await?
    }

    /// Notes how far a rollout has come: on disk first, then in force. False when it is not as it was seen.
    pub async fn set_progress(&self, step: Step, author: Author) -> Result<bool, StoreError> {
        self.ask(|reply| Command::Progress { step, author, reply }).await?
    }

    /// A token with which one workload of this service account can get its first certificate, once, within `ttl`.
    pub async fn create_join_token(
        &self,
        namespace: Label,
        service_account: Label,
        ttl: Duration,
        author: &Author,
    ) -> Result<JoinToken, TokenError> {
        tokens::create(&*self.store, **self.root.load(), namespace, service_account, ttl, author).await
    }

    /// Uses up a token and tells whom it attests. Of parallel uses exactly one succeeds.
    pub async fn consume_join_token(&self, token: &JoinToken) -> Result<(Label, Label), Refusal> {
        self.consume_join_token_from(token, &Author::new(format!("join token {}", token.id()), "")).await
    }

    /// The same, with the caller's address for the audit log.
    pub async fn consume_join_token_from(
        &self,
        token: &JoinToken,
        author: &Author,
    ) -> Result<(Label, Label), Refusal> {
        tokens::consume(&*self.store, token, author).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::new(StoreErrorKind::Io, "behind this control plane", "it is shutting down");
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A commit under way is finished by its own thread; there is nobody left to tell.
        self.writer.abort();
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("revision", &self.world().revision()).finish_non_exhaustive()
    }
}

/// How many changes may wait for the writer. More callers wait to put theirs in.
const QUEUE: usize = 256;

/// A change to one object.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "most are of the large one, and they are moved once")]
pub enum Write {
    /// It shall be this.
    Put {
        /// What was read.
        document: Document,
        /// What its writer saw.
        expect: Expect,
    },
    /// It shall not be.
    Delete {
        /// Its name.
        key: Key,
        /// What its writer saw.
        expect: Expect,
    },
}

impl Write {
    /// The object's name.
    pub fn key(&self) -> Key {
        match self {
            Self::Put { document, .. } => document.object.key(),
            Self::Delete { key, .. } => key.clone(),
        }
    }
}

/// How a change is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Check and tell, change nothing.
    pub dry_run: bool,
    /// Routes may refer to what is not there, or not granted: that is told as a warning, and becomes their state.
    pub dangling: bool,
    /// Only while the configuration is at this revision: whoever made the change looked at all of it.
    pub only_at: Option<u64>,
}

/// What a change did, or would have done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The revision of the configuration after it.
    pub revision: u64,
    /// The generation of the instances after it.
    pub generation: u64,
    /// What became of each object: those that were asked for, in the order asked, then those that went with them.
    pub changes: Vec<ObjectChange>,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Problem>,
    /// What it would mean: of a dry run.
    pub foreseen: Option<Foreseen>,
}

/// What a change would mean that is not made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreseen {
    /// What would differ in each object, in the order of [`Applied::changes`].
    pub differences: Vec<Vec<FieldChange>>,
    /// The resources that would be published.
    pub resources: Vec<ResourceChange>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChange {
    /// Its name.
    pub key: Key,
    /// `created`, `updated`, `unchanged` or `deleted`.
    pub action: &'static str,
}

/// Why nothing was changed.
#[derive(Clone, Debug)]
pub enum ApplyError {
    /// What was asked for does not hold; everything that is wrong with it.
    Refused(Vec<Problem>),
    /// An object is not as its writer saw it.
    Precondition {
        /// Its name.
        key: Key,
        /// What it is now.
        current: Option<AnyEntry>,
    },
    /// The configuration is no longer at the revision that its writer looked at; it is at this one.
    Moved {
        /// The revision it is at.
        revision: u64,
    },
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for ApplyError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}
