//! This replica among the others: a lease, with which its key and everything that it holds end.
//!
//! The replica whose key came to be first leads. That it still does it believes no longer than its lease can last by its
//! own clock, counted from before it asked to keep it: the others hear of its end later, not sooner.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use outrigger_wire::etcd::{EtcdError, EtcdErrorKind, Event, Keys, Op, Order, Pair, Range, Txn};
use tokio::time::Instant;

use super::super::error::StoreError;
use super::super::replicas::{Holder, Replicas};
use super::cluster::{Cluster, pause};
use super::keys::Layout;
use super::{Inner, read};

/// What is known of the replicas.
#[derive(Default)]
pub(super) struct Session {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The lease of this replica; 0: none.
    lease: i64,
    /// Whether its key and all that it holds are written with that lease.
    written: bool,
    /// Until when it surely lasts.
    until: Option<Instant>,
    /// When the store was last asked something that it answered.
    heard: Option<Instant>,
    /// Why it could not be kept, the last time.
    lost: Option<String>,
    /// What this replica tells the others.
    said: String,
    /// All replicas by their leases.
    replicas: BTreeMap<i64, Replica>,
    /// What replicas hold, with their leases.
    held: HashMap<String, i64>,
    /// What this one holds. With its lease it ends here as it does for the others: meanwhile others may have it, and who
    /// is still here is held again when he renews.
    mine: BTreeSet<String>,
}

/// A replica that lives.
struct Replica {
    /// The revision at which its key came to be.
    created: i64,
    said: String,
}

impl Replica {
    fn of(pair: &Pair) -> Self {
        Self { created: pair.created, said: String::from_utf8_lossy(&pair.value).into_owned() }
    }
}

impl Session {
    /// Forgets what was seen of the replicas, and sees what is there at a revision of etcd.
    pub(super) async fn look(
        &self,
        cluster: &Cluster,
        layout: &Layout,
        revision: i64,
    ) -> Result<(), StoreError> {
        let (mut replicas, mut held) = (BTreeMap::new(), HashMap::new());
        let mut keys = layout.of_replicas();
        loop {
            let page = Range { keys: keys.clone(), limit: PAGE, revision, order: Order::Keys };
            let found = read::range(cluster, page).await?;
            for pair in &found.pairs {
                match layout.read_replica(&pair.key) {
                    Some(Of::Replica) => drop(replicas.insert(pair.lease, Replica::of(pair))),
                    Some(Of::Held(name)) => drop(held.insert(name, pair.lease)),
                    None => {}
                }
            }
            match found.pairs.last() {
                Some(last) if found.more => keys.from = [last.key.as_slice(), &[0]].concat(),
                _ => break,
            }
        }
        let mut known = self.known();
        (known.replicas, known.held) = (replicas, held);
        Ok(())
    }

    /// Takes note of a key of the replicas. False for any other key.
    pub(super) fn note(&self, layout: &Layout, event: &Event) -> bool {
        let Some(of) = layout.read_replica(&event.pair.key) else { return false };
        let mut known = self.known();
        let lease = event.pair.lease;
        match (of, event.gone) {
            (Of::Replica, false) => drop(known.replicas.insert(lease, Replica::of(&event.pair))),
            (Of::Replica, true) => {
                // What is gone is told without its lease, which is its name.
                let name = super::keys::hex_of(&event.pair.key);
                known.replicas.retain(|lease, _| Some(*lease) != name);
            }
            (Of::Held(name), false) => {
                if lease != known.lease {
                    known.mine.remove(&name);
                }
                known.held.insert(name, lease);
            }
            (Of::Held(name), true) => drop(known.held.remove(&name)),
        }
        true
    }

    /// Takes note of a try that began at `began` to keep the session.
    fn kept(&self, began: Instant, kept: Result<i64, EtcdError>) {
        let mut known = self.known();
        match kept {
            Ok(lease) => {
                if known.lost.take().is_some() {
                    tracing::info!("the shared store answers again");
                }
                (known.lease, known.until) = (lease, Some(began + TTL - MARGIN));
                known.heard = Some(began);
            }
            Err(e) => {
                if e.kind == EtcdErrorKind::NoLease {
                    (known.lease, known.until, known.heard) = (0, None, Some(began));
                    known.mine.clear();
                }
                if known.lost.is_none() {
                    tracing::warn!(error = %e, "the shared store does not answer: nothing is written, all else goes on");
                }
                known.lost = Some(e.detail);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a key of the replicas says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// That one lives.
    Replica,
    /// That one holds this name.
    Held(String),
}

/// Keeps the session of this replica, until it is dropped.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut tries = 0;
    inner.session.known().heard = Some(Instant::now());
    loop {
        let began = Instant::now();
        let kept = keep_once(&inner).await;
        tries = if kept.is_ok() { 0 } else { tries + 1 };
        inner.session.kept(began, kept);
        tokio::time::sleep(if tries == 0 { TTL / 4 } else { pause(tries) }).await;
    }
}

/// The lease, kept or new, with everything that goes with it.
async fn keep_once(inner: &Inner) -> Result<i64, EtcdError> {
    let mut lease = inner.session.known().lease;
    if lease == 0 {
        lease = inner.cluster.call(|etcd| async move { etcd.grant(TTL).await }).await?;
        let mut known = inner.session.known();
        (known.lease, known.written) = (lease, false);
    } else {
        inner.cluster.call(|etcd| async move { etcd.keep_alive(lease).await }).await?;
    }
    if !inner.session.known().written {
        let (mine, said) = {
            let known = inner.session.known();
            (known.mine.iter().cloned().collect::<Vec<_>>(), known.said.clone())
        };
        write(inner, vec![own_key(inner, lease, said)]).await?;
        hold(inner, &mine, lease).await?;
        inner.session.known().written = true;
    }
    Ok(lease)
}

fn own_key(inner: &Inner, lease: i64, said: String) -> Op {
    Op::Put { key: inner.layout.replica(lease), value: said.into_bytes(), lease }
}

async fn hold(inner: &Inner, names: &[String], lease: i64) -> Result<(), EtcdError> {
    for some in names.chunks(AT_ONCE) {
        let put = |name: &String| Op::Put { key: inner.layout.held(name), value: vec![], lease };
        write(inner, some.iter().map(put).collect()).await?;
    }
    Ok(())
}

/// Writing these twice changes nothing.
async fn write(inner: &Inner, ops: Vec<Op>) -> Result<(), EtcdError> {
    let made = inner.cluster.call(|etcd| {
        let txn = Txn { then: ops.clone(), ..Txn::default() };
        async move { etcd.txn(txn).await }
    });
    made.await.map(drop)
}

/// Ends the session, so that nobody has to wait for its end.
pub(super) async fn end(inner: &Inner) {
    let lease = std::mem::take(&mut inner.session.known().lease);
    if lease != 0 {
        let ending = inner.cluster.call(|etcd| async move { etcd.revoke(lease).await });
        // It ends by itself when this does not arrive.
        let _ = tokio::time::timeout(END_WITHIN, ending).await;
    }
}

impl Replicas for Inner {
    fn leads(&self) -> bool {
        let known = self.session.known();
        let lasts = known.lease != 0 && known.until.is_some_and(|until| Instant::now() < until);
        let first = known.replicas.iter().min_by_key(|(_, replica)| replica.created);
        lasts && first.is_some_and(|(lease, _)| *lease == known.lease)
    }

    fn count(&self) -> usize {
        self.session.known().replicas.len()
    }

    fn lost(&self) -> Option<String> {
        self.session.known().lost.clone()
    }

    fn cut_off(&self) -> bool {
        self.session.known().heard.is_some_and(|heard| Instant::now() >= heard + TTL)
    }

    fn tell(&self, said: String) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let (lease, written) = {
                let mut known = self.session.known();
                known.said.clone_from(&said);
                (known.lease, known.written)
            };
            // Without a session it is told when there is one.
            if lease != 0 && written {
                write(self, vec![own_key(self, lease, said)]).await.map_err(|e| self.cluster.fault(&e))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn others(&self) -> Vec<String> {
        let known = self.session.known();
        let others = known.replicas.iter().filter(|(lease, _)| **lease != known.lease);
        others.map(|(_, replica)| replica.said.clone()).collect()
    }

    fn hold(&self, names: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let lease = {
                let mut known = self.session.known();
                known.mine.extend(names.iter().cloned());
                known.lease
            };
            // Without a session they are held when there is one.
            if lease != 0
                && let Err(e) = hold(self, &names, lease).await
            {
                // All of it is written again with the session.
                self.session.known().written = false;
                return Err(self.cluster.fault(&e));
            }
            Ok(())
        }
        .boxed()
    }

    fn let_go<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let held = {
                let mut known = self.session.known();
                known.mine.remove(name);
                known.held.get(name) == Some(&known.lease)
            };
            if held {
                let delete = vec![Op::Delete(Keys::one(self.layout.held(name)))];
                write(self, delete).await.map_err(|e| self.cluster.fault(&e))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn holder(&self, name: &str) -> Holder {
        let known = self.session.known();
        match known.held.get(name) {
            _ if known.mine.contains(name) => Holder::This,
            Some(_) => Holder::Another,
            None => Holder::Nobody,
        }
    }
}

/// So long after its last word a replica is believed to live.
const TTL: Duration = Duration::from_secs(10);
/// Clocks do not run equally fast, and a lease may have been counted from a little earlier.
const MARGIN: Duration = Duration::from_secs(2);
const END_WITHIN: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 100;
const PAGE: i64 = 2_000;
