//! A transaction as one of etcd's.
//!
//! What is there is read together with the head; what is to be written is decided here, and etcd makes it if the head
//! is still the one that was read. If not, somebody else wrote in between, and it is decided anew.
//!
//! An answer that was lost leaves open whether it was written. The same request is sent again then, which is safe: it
//! names the head that it is for, so at most one of the two is made; and the head tells whose the last one was.
//!
//! etcd takes 128 operations in a transaction by default, but one of them can be a transaction itself; and it takes 1.5 MiB
//! in a request. What is more is refused before anything is written.

use outrigger_wire::etcd::{EtcdErrorKind, Found, Keys, Op, Range, Txn};
use time::OffsetDateTime;

use super::super::error::{CommitError, StoreError, StoreErrorKind};
use super::super::{KEPT_AUDIT_LINES, KEPT_REVISIONS, Record, Revision, RevisionChange, Space, Transaction};
use super::cluster::{Cluster, pause};
use super::head::Head;
use super::keys::Layout;
use super::read::{self, LINES_OF_KEY};

/// Makes all of `transaction`, if the configuration is still at the revision `on`; tells the head after it, and the
/// revision of etcd.
pub(super) async fn commit(
    cluster: &Cluster,
    layout: &Layout,
    on: Option<u64>,
    transaction: &Transaction,
) -> Result<(Head, i64), CommitError> {
    if transaction.writes.len() > MAX_WRITES {
        let detail =
            format!("{} changes are more than {MAX_WRITES}: make fewer together", transaction.writes.len());
        return Err(cluster.error(StoreErrorKind::TooLarge, detail).into());
    }
    let look = look(layout, transaction);
    let looked = cluster.ask(|etcd| {
        let look = Txn { then: look.clone(), ..Txn::default() };
        async move { etcd.txn(look).await }
    });
    let mut seen = Seen::of(cluster, layout, transaction, &looked.await?.found)?;
    for tries in 0..TRIES {
        let latest = seen.head.count(Space::Config);
        if on.is_some_and(|on| on != latest) {
            return Err(cluster.error(StoreErrorKind::Behind, format!("it is at revision {latest}")).into());
        }
        let (ops, next) = decide(cluster, layout, transaction, &seen)?;
        let txn = Txn { expect: vec![(layout.head(), seen.changed)], then: ops, otherwise: look.clone() };
        match make(cluster, layout, transaction, txn, &next).await? {
            Made::Written(revision) => return Ok((next, revision)),
            Made::Overtaken(found) => seen = found,
        }
        tokio::time::sleep(pause(tries / 4)).await;
    }
    Err(cluster.error(StoreErrorKind::Locked, "others write to it without a pause").into())
}

/// What is there: the head, and the record of each write, in their order.
struct Seen {
    head: Head,
    /// The revision of etcd at which the head was written.
    changed: i64,
    records: Vec<Option<Record>>,
}

impl Seen {
    fn of(
        cluster: &Cluster,
        layout: &Layout,
        transaction: &Transaction,
        found: &[Found],
    ) -> Result<Self, StoreError> {
        let mut found = found.iter();
        let head = found.next().and_then(|found| found.pairs.first());
        let head = head.ok_or_else(|| read::headless(cluster))?;
        let mut records = vec![];
        for write in &transaction.writes {
            let pair = found.next().and_then(|found| found.pairs.first());
            // Found in the order asked; whatever else it is, it is not this store's.
            if pair.is_some_and(|pair| pair.key != layout.record(write.space, &write.key)) {
                return Err(cluster.error(StoreErrorKind::Io, "etcd answered something else than was asked"));
            }
            records.push(pair.map(|pair| read::value_of(cluster, pair)).transpose()?);
        }
        Ok(Self { changed: head.changed, head: read::head_of(cluster, head)?, records })
    }
}

/// What became of one try.
enum Made {
    /// It is written, at this revision of etcd.
    Written(i64),
    /// Somebody wrote before; this is there now.
    Overtaken(Seen),
}

async fn make(
    cluster: &Cluster,
    layout: &Layout,
    transaction: &Transaction,
    txn: Txn,
    next: &Head,
) -> Result<Made, StoreError> {
    let mut lost = None;
    for tries in 0..=cluster.len() + 1 {
        let made = cluster.call(|etcd| {
            let txn = txn.clone();
            async move { etcd.txn(txn).await }
        });
        match made.await {
            Ok(done) if done.held => return Ok(Made::Written(done.revision)),
            Ok(done) => {
                let seen = Seen::of(cluster, layout, transaction, &done.found)?;
                return match lost {
                    None => Ok(Made::Overtaken(seen)),
                    Some(_) if seen.head.by == next.by => Ok(Made::Written(seen.changed)),
                    Some(_) => {
                        let detail = "an answer was lost, and others wrote since; whether this is written is not \
                                      known";
                        Err(cluster.error(StoreErrorKind::Unavailable, detail))
                    }
                };
            }
            Err(e) if e.kind == EtcdErrorKind::Unavailable => {
                lost = Some(e);
                tokio::time::sleep(pause(tries)).await;
            }
            Err(e) => return Err(cluster.fault(&e)),
        }
    }
    let why = lost.map(|e| cluster.fault(&e));
    Err(why.unwrap_or_else(|| cluster.error(StoreErrorKind::Unavailable, "no member answers")))
}

/// Asks for the head and the record of each write.
fn look(layout: &Layout, transaction: &Transaction) -> Vec<Op> {
    let one = |key| Op::Range(Range::of(Keys::one(key)));
    let records = transaction.writes.iter().map(|write| one(layout.record(write.space, &write.key)));
    grouped(std::iter::once(one(layout.head())).chain(records).collect())
}

/// What etcd is told to write, and the head after it; or who stands in the way.
fn decide(
    cluster: &Cluster,
    layout: &Layout,
    transaction: &Transaction,
    seen: &Seen,
) -> Result<(Vec<Op>, Head), CommitError> {
    let spaces = Space::ALL.into_iter().filter(|space| transaction.writes.iter().any(|w| w.space == *space));
    let next = seen.head.next(spaces, transaction.audit.len());
    let mut ops = vec![put(layout.head(), read::to_json(cluster, &next)?)];
    let mut changes = vec![];
    for (write, current) in transaction.writes.iter().zip(&seen.records) {
        if !write.expect.holds(current.as_ref().map(|r| r.changed)) {
            return Err(CommitError::Conflict { key: write.key.clone(), current: current.clone() });
        }
        let (key, count) = (layout.record(write.space, &write.key), next.count(write.space));
        ops.push(match &write.value {
            None => Op::Delete(Keys::one(key)),
            Some(value) => {
                let created = current.as_ref().map_or(count, |r| r.created);
                let record = Record { created, changed: count, value: value.clone() };
                put(key, read::to_json(cluster, &record)?)
            }
        });
        if write.space == Space::Config {
            let before = current.as_ref().map(|r| r.value.clone());
            changes.push(RevisionChange { key: write.key.clone(), before, after: write.value.clone() });
        }
    }
    if !changes.is_empty() {
        let number = next.count(Space::Config);
        let revision = Revision {
            revision: number,
            at: OffsetDateTime::now_utc(),
            who: transaction.author.who.clone(),
            why: transaction.author.why.clone(),
            changes,
        };
        ops.push(put(layout.revision(number), read::to_json(cluster, &revision)?));
        if let Some(end) = (number + 1).checked_sub(KEPT_REVISIONS) {
            ops.push(Op::Delete(layout.revisions(0, end)));
        }
    }
    let keys = (seen.head.audit + 1..).step_by(LINES_OF_KEY);
    for (line, entries) in keys.zip(transaction.audit.chunks(LINES_OF_KEY)) {
        ops.push(put(layout.audit(line), read::to_json(cluster, &entries)?));
    }
    if let Some(end) = (next.audit + 1).checked_sub(KEPT_AUDIT_LINES + LINES_OF_KEY as u64) {
        ops.push(Op::Delete(layout.audit_lines(0, end)));
    }
    let size: usize = ops.iter().map(size_of).sum();
    if size > MAX_BYTES {
        let detail = format!(
            "this change is {size} bytes with its history, and etcd takes {MAX_BYTES} in one request: apply \
             fewer objects together"
        );
        return Err(cluster.error(StoreErrorKind::TooLarge, detail).into());
    }
    Ok((grouped(ops), next))
}

/// As one level of transactions within a transaction, where there are more than etcd takes in one.
fn grouped(ops: Vec<Op>) -> Vec<Op> {
    if ops.len() <= GROUP {
        return ops;
    }
    let mut rest = ops.into_iter();
    std::iter::from_fn(|| {
        let group: Vec<Op> = rest.by_ref().take(GROUP).collect();
        (!group.is_empty()).then(|| Op::Txn(Txn { then: group, ..Txn::default() }))
    })
    .collect()
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Op {
    Op::Put { key, value, lease: 0 }
}

/// About what it is in a request.
fn size_of(op: &Op) -> usize {
    const AROUND: usize = 32;
    AROUND
        + match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete(keys) => keys.from.len() + keys.end.as_ref().map_or(0, Vec::len),
            Op::Range(_) | Op::Txn(_) => 0,
        }
}

/// How often it is decided anew, because others were faster.
const TRIES: usize = 24;
/// A transaction has at most 128 operations (etcd's --max-txn-ops), and those within it at most as many as are left.
const GROUP: usize = 60;
/// As many keys can be written together: each is an operation, and beside them are the head, history and audit lines.
const MAX_WRITES: usize = 3_000;
/// Below etcd's --max-request-bytes, 1.5 MiB, with room for what is around it and for the keys that are read otherwise.
const MAX_BYTES: usize = 1_300_000;
