//! The cluster as the store: objects of Kubernetes are what is kept, and their versions are the counts.
//!
//! Everything that is asked is answered from memory, which follows the API server (`memory`); what is written goes to
//! the API server first (`commit`). What a record is at the API server: an object of ours or of the Gateway API as it is, what
//! Services and EndpointSlices mean (`outrigger-kube`), or, for what is nobody's configuration, a Secret or a ConfigMap
//! each (`boxed`). Who leads, and who else there is, is in `replicas`. Why it is so, and what it does not promise:
//! docs/decisions/0019-kubernetes-as-source-and-store.md.

mod address;
mod boxed;
mod commit;
mod kinds;
mod memory;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use outrigger_kube::api::{ApiServer, CallError, CallErrorKind, Collection};
use outrigger_kube::follow::{Subject, Told, follow};
use outrigger_kube::lease::{LEASES, REPLICA};
use outrigger_kube::means::{NAMESPACES, SERVICES, SOURCES};
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::change_log::{ChangeLog, Watch};
use super::error::{CommitError, StoreError, StoreErrorKind};
use super::{
    AuditLine, Committed, Image, Listed, Promises, Record, Replicas, Revision, Space, Store, Transaction,
};
use crate::spec::{Key, Kind, Object};
use memory::Memory;
use replicas::Standing;

pub use address::ClusterAddress;
pub(crate) use kinds::collection;

/// A store in a cluster of Kubernetes, shared with every control plane in the same namespace of it. Clones share one.
#[derive(Clone)]
pub struct KubernetesStore {
    inner: Arc<Inner>,
    tasks: Arc<[AbortOnDropHandle<()>]>,
}

struct Inner {
    api: ApiServer,
    address: ClusterAddress,
    memory: Mutex<Memory>,
    changes: [Arc<ChangeLog>; Space::ALL.len()],
    standing: Mutex<Standing>,
    /// How many times something was told: whoever waits for something looks again.
    told: watch::Sender<u64>,
    closed: AtomicBool,
}

impl KubernetesStore {
    /// Reads everything from the cluster at `address`, and follows it from then on. Waits a little for an API server that does
    /// not answer; an error names what is not readable, and what to do.
    pub async fn open(address: ClusterAddress) -> Result<Self, StoreError> {
        let fault = |e: &CallError| StoreError::new(kind_of(e), "in Kubernetes", e);
        let api = ApiServer::new(&address.server).map_err(|e| fault(&e))?;
        let subjects = subjects(&address.namespace);
        let names = subjects.iter().map(|s| s.of.to_string());
        let inner = Arc::new(Inner {
            memory: Mutex::new(Memory::default()),
            changes: Space::ALL.map(|_| ChangeLog::new(0)),
            standing: Mutex::new(Standing::awaiting(names)),
            told: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            api,
            address,
        });
        let follow_one = |subject: Subject| {
            let (told_to, of) = (Arc::clone(&inner), subject.of.clone());
            follow(inner.api.clone(), subject, move |told| told_to.hear(&of, &told))
        };
        let mut tasks: Vec<_> =
            subjects.into_iter().map(|s| AbortOnDropHandle::new(tokio::spawn(follow_one(s)))).collect();
        let mut told = inner.told.subscribe();
        let all_told = told.wait_for(|_| {
            let standing = inner.standing();
            standing.is_complete() || standing.is_denied()
        });
        let late = timeout(PATIENCE, all_told).await.is_err();
        if late || inner.standing().is_denied() {
            let kind = if late { StoreErrorKind::Unavailable } else { StoreErrorKind::Refused };
            return Err(StoreError::new(kind, "in Kubernetes", inner.standing().missing()));
        }
        inner.begin();
        tasks.push(AbortOnDropHandle::new(tokio::spawn(replicas::keep(Arc::clone(&inner)))));
        Ok(Self { inner, tasks: tasks.into() })
    }

    /// What the cluster has that is not in force, with all that is wrong with it: what somebody wrote past the admin API.
    pub fn refused(&self) -> BTreeMap<Key, Vec<String>> {
        self.inner.memory().refused()
    }

    /// All that is wrong with one object, if it is not in force for that.
    pub(crate) fn refusal(&self, key: &Key) -> Option<Vec<String>> {
        self.inner.memory().refusal(key)
    }

    /// Whether the cluster is known to have an object of this name that is ours: of Gateways one of our class.
    pub(crate) fn has(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        self.inner.memory().has(kind, namespace, name)
    }

    /// Every object of a kind as the cluster has it, but for those of other controllers.
    pub fn written(&self, kind: Kind) -> Vec<(Key, Arc<Json>)> {
        self.inner.memory().written(kind)
    }

    /// The namespaces, with what is noted on each.
    pub fn namespaces(&self) -> Vec<(String, Json)> {
        self.inner.memory().namespaces()
    }

    /// A namespace with its Services, as the cluster tells of them; `None` where it is not known, or nothing new is heard of either.
    pub(crate) fn namespace_as_told(&self, name: &str) -> Option<(Json, Vec<Json>)> {
        if self.inner.standing().is_lost(&[NAMESPACES, SERVICES]) {
            return None;
        }
        self.inner.memory().namespace(name)
    }

    /// The namespace of the control plane.
    pub fn namespace(&self) -> &str {
        &self.inner.address.namespace
    }

    /// How many times something was told until now.
    pub fn told(&self) -> u64 {
        *self.inner.told.borrow()
    }

    /// The API server.
    pub fn api(&self) -> &ApiServer {
        &self.inner.api
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::new(StoreErrorKind::Io, "in Kubernetes", "it is closed"));
        }
        Ok(())
    }

    /// Takes what is told of a collection.
    fn hear(&self, of: &Collection, told: &Told) {
        self.standing().hear(of, told);
        if *of != LEASES {
            self.take(of, told);
        }
        self.told.send_modify(|n| *n += 1);
    }

    /// Puts what is told in place, and tells those who watch.
    fn take(&self, of: &Collection, told: &Told) {
        let mut memory = self.memory();
        for (space, change) in memory.take(of, told) {
            // Under the lock, so that changes are told in their order.
            self.changes[space as usize].push(change);
        }
    }

    /// From now on there are changes: what was read until now is what there was.
    fn begin(&self) {
        let memory = self.memory();
        for space in Space::ALL {
            self.changes[space as usize].restart(memory.position(space));
        }
    }

    /// Waits until the memory is as `is` wants it. Not for long.
    async fn until(&self, is: impl Fn(&Memory) -> bool) -> bool {
        let mut told = self.told.subscribe();
        timeout(SEEN_WITHIN, told.wait_for(|_| is(&self.memory()))).await.is_ok()
    }
}

/// Everything that is followed.
fn subjects(namespace: &str) -> Vec<Subject> {
    let all = |of: Collection, optional| Subject { of, namespace: None, labels: None, optional, older: None };
    let here = |of: Collection, labels: &str| Subject {
        of,
        namespace: Some(namespace.to_owned()),
        labels: Some(labels.to_owned()),
        optional: false,
        older: None,
    };
    let sources = SOURCES.into_iter().map(|of| all(of, false));
    // A cluster may not have the Gateway API, or not all of our kinds yet.
    let of_kind = |kind| {
        // `v1` came with version 1.5 of the Gateway API.
        let older = (kind == Kind::ReferenceGrant).then_some("v1beta1");
        Subject { older, ..all(collection(kind), true) }
    };
    let kinds = Kind::ALL.into_iter().map(of_kind);
    let boxes = [boxed::SECRETS, boxed::CONFIG_MAPS].map(|of| here(of, boxed::SPACE));
    let replicas = here(LEASES, &format!("{REPLICA}=true"));
    sources.chain(kinds).chain(boxes).chain([replicas]).collect()
}

/// How a call to the API server fails a store.
fn kind_of(e: &CallError) -> StoreErrorKind {
    match e.kind() {
        CallErrorKind::Away | CallErrorKind::Busy | CallErrorKind::Gone => StoreErrorKind::Unavailable,
        CallErrorKind::Refused | CallErrorKind::Forbidden | CallErrorKind::NotFound => {
            StoreErrorKind::Refused
        }
        CallErrorKind::Conflict => StoreErrorKind::Locked,
        CallErrorKind::Settings => StoreErrorKind::Io,
    }
}

impl Store for KubernetesStore {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        async move {
            self.inner.open()?;
            Ok(self.inner.memory().get(space, key).cloned())
        }
        .boxed()
    }

    fn list<'a>(&'a self, space: Space, prefix: &'a str) -> BoxFuture<'a, Result<Listed, StoreError>> {
        async move {
            self.inner.open()?;
            Ok(self.inner.memory().list(space, prefix))
        }
        .boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        commit::commit(&self.inner, None, transaction).boxed()
    }

    fn commit_on(
        &self,
        revision: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, CommitError>> {
        commit::commit(&self.inner, Some(revision), transaction).boxed()
    }

    fn replicas(&self) -> Option<Arc<dyn Replicas>> {
        Some(self.inner.clone())
    }

    fn meant(&self, object: &Object) -> Option<Object> {
        self.inner.memory().meant(object)
    }

    fn is_source(&self) -> bool {
        true
    }

    fn promises(&self) -> Promises {
        // The API server has no transactions, versions are of all objects together, and history is nobody's object.
        Promises { whole: false, gapless: false, history: false }
    }

    fn watch(&self, space: Space, after: u64) -> Watch {
        self.inner.changes[space as usize].watch(after)
    }

    fn revisions(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        async move {
            self.inner.open()?;
            Ok(self.inner.memory().revisions(before, limit))
        }
        .boxed()
    }

    fn revision(&self, number: u64) -> BoxFuture<'_, Result<Option<Revision>, StoreError>> {
        async move {
            self.inner.open()?;
            Ok(self.inner.memory().revision(number))
        }
        .boxed()
    }

    fn audit(&self, before: Option<u64>, limit: usize) -> BoxFuture<'_, Result<Vec<AuditLine>, StoreError>> {
        async move {
            self.inner.open()?;
            Ok(self.inner.memory().audit(before, limit))
        }
        .boxed()
    }

    fn image(&self) -> BoxFuture<'_, Result<Image, StoreError>> {
        async move {
            self.inner.open()?;
            Ok(self.inner.memory().image())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let first = !self.inner.closed.swap(true, Ordering::AcqRel);
        self.tasks.iter().for_each(AbortOnDropHandle::abort);
        async move {
            if first {
                replicas::end(&self.inner).await;
            }
        }
        .boxed()
    }
}

impl std::fmt::Debug for KubernetesStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesStore").field("api", &self.inner.api).finish_non_exhaustive()
    }
}

/// So long a start waits for an API server that does not answer, or a list that is not allowed.
const PATIENCE: Duration = Duration::from_secs(30);
const SEEN_WITHIN: Duration = Duration::from_secs(3);
