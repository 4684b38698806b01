//! The store that several control planes share: etcd.
//!
//! Everything of one mesh lies under one prefix (`keys`), so that meshes can share a cluster. One key, the head, holds the
//! counts of all spaces; a transaction is one transaction of etcd that names the head it was made for (`commit`), so that
//! writers anywhere come one after the other, and nothing is ever half written. One watch (`follow`) tells what others
//! write. Which member is asked, and what is tried again, is in `cluster`.

mod address;
mod cluster;
mod commit;
mod follow;
mod head;
mod image;
mod keys;
mod read;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::change_log::{ChangeLog, Watch};
use super::error::{CommitError, StoreError, StoreErrorKind};
use super::replicas::Replicas;
use super::{AuditLine, Committed, Image, Listed, Record, Revision, Space, Store, Transaction};
use cluster::Cluster;
use keys::Layout;
use session::Session;

pub use address::{EtcdAddress, EtcdSecrets};

/// A store in an etcd cluster, shared with every control plane that names the same cluster and prefix. Clones share one.
#[derive(Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
    tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

struct Inner {
    cluster: Cluster,
    layout: Layout,
    changes: [Arc<ChangeLog>; Space::ALL.len()],
    session: Session,
    /// Up to which revision of etcd the changes are known here.
    seen: watch::Sender<i64>,
    closed: AtomicBool,
}

impl EtcdStore {
    /// Opens the store at `address`, which is made if it is not there. Waits a little for a cluster that does not answer.
    pub async fn open(address: &EtcdAddress, secrets: &EtcdSecrets) -> Result<Self, StoreError> {
        let cluster = Cluster::of(address, secrets)?;
        let layout = Layout::under(&address.prefix);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (head, revision) = loop {
            match read::prepare(&cluster, &layout).await {
                Ok(found) => break found,
                Err(e)
                    if e.kind() == StoreErrorKind::Unavailable && tokio::time::Instant::now() < deadline =>
                {
                    tracing::warn!(error = %e, "the shared store is waited for");
                    tokio::time::sleep(cluster::pause(3)).await;
                }
                Err(e) => return Err(e),
            }
        };
        let changes = Space::ALL.map(|space| ChangeLog::new(head.count(space)));
        let seen = watch::Sender::new(revision);
        let session = Session::default();
        session.look(&cluster, &layout, revision).await?;
        let closed = AtomicBool::new(false);
        let inner = Arc::new(Inner { cluster, layout, changes, session, seen, closed });
        let following = tokio::spawn(follow::follow(Arc::clone(&inner), revision));
        let keeping = tokio::spawn(session::keep(Arc::clone(&inner)));
        let tasks = Arc::new([following, keeping].map(AbortOnDropHandle::new));
        Ok(Self { inner, tasks })
    }
}

impl Inner {
    fn changes_of(&self, space: Space) -> &Arc<ChangeLog> {
        &self.changes[space as usize]
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.cluster.error(StoreErrorKind::Io, "it is closed"));
        }
        Ok(())
    }

    async fn commit(&self, on: Option<u64>, transaction: Transaction) -> Result<Committed, CommitError> {
        self.open()?;
        let committing = commit::commit(&self.cluster, &self.layout, on, &transaction);
        let Ok(done) = timeout(COMMIT_WITHIN, committing).await else {
            let detail = "it took too long to write; whether it is written is not known";
            return Err(self.cluster.error(StoreErrorKind::Unavailable, detail).into());
        };
        let (head, revision) = done?;
        self.until_seen(revision).await;
        Ok(head.committed())
    }

    /// Waits until the watch has told of `revision`: whoever writes and then watches finds its own change. Not for long:
    /// what was written is written.
    async fn until_seen(&self, revision: i64) {
        let mut seen = self.seen.subscribe();
        let _ = timeout(SEEN_WITHIN, seen.wait_for(|seen| *seen >= revision)).await;
    }
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        async move {
            self.inner.open()?;
            read::get(&self.inner.cluster, &self.inner.layout, space, key).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, space: Space, prefix: &'a str) -> BoxFuture<'a, Result<Listed, StoreError>> {
        async move {
            self.inner.open()?;
            let listed = read::list(&self.inner.cluster, &self.inner.layout, space, prefix).await?;
            // Whoever lists and then watches finds the watch no further behind than the list.
            self.inner.until_seen(listed.1).await;
            Ok(listed.0)
        }
        .boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        self.inner.commit(None, transaction).boxed()
    }

    fn commit_on(
        &self,
        revision: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, CommitError>> {
        self.inner.commit(Some(revision), transaction).boxed()
    }

    fn replicas(&self) -> Option<Arc<dyn Replicas>> {
        Some(self.inner.clone())
    }

    fn watch(&self, space: Space, after: u64) -> Watch {
        self.inner.changes_of(space).watch(after)
    }

    fn revisions(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        async move {
            self.inner.open()?;
            read::revisions(&self.inner.cluster, &self.inner.layout, before, limit).await
        }
        .boxed()
    }

    fn revision(&self, number: u64) -> BoxFuture<'_, Result<Option<Revision>, StoreError>> {
        async move {
            self.inner.open()?;
            read::revision(&self.inner.cluster, &self.inner.layout, number).await
        }
        .boxed()
    }

    fn audit(&self, before: Option<u64>, limit: usize) -> BoxFuture<'_, Result<Vec<AuditLine>, StoreError>> {
        async move {
            self.inner.open()?;
            read::audit(&self.inner.cluster, &self.inner.layout, before, limit).await
        }
        .boxed()
    }

    fn image(&self) -> BoxFuture<'_, Result<Image, StoreError>> {
        async move {
            self.inner.open()?;
            image::read(&self.inner.cluster, &self.inner.layout).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let first = !self.inner.closed.swap(true, Ordering::AcqRel);
        self.tasks.iter().for_each(AbortOnDropHandle::abort);
        async move {
            if first {
                session::end(&self.inner).await;
            }
        }
        .boxed()
    }
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("cluster", &self.inner.cluster).finish_non_exhaustive()
    }
}

/// So long a start waits for a cluster that does not answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// A transaction that was not made by then is given up, with its outcome open.
const COMMIT_WITHIN: Duration = Duration::from_secs(12);
const SEEN_WITHIN: Duration = Duration::from_secs(1);
