//! What is read: records, history, the audit log.

use outrigger_wire::etcd::{EtcdErrorKind, Found, Keys, Op, Order, Pair, Range, Txn};
use serde::de::DeserializeOwned;

use super::super::error::{StoreError, StoreErrorKind};
use super::super::{AuditLine, KEPT_AUDIT_LINES, KEPT_REVISIONS, Listed, Record, Revision, Space};
use super::cluster::Cluster;
use super::head::{FORMAT, Head};
use super::keys::{Layout, number_of};
use crate::audit::AuditEntry;

/// As many lines of the audit log lie under one key at most.
pub(super) const LINES_OF_KEY: usize = 32;
/// So many records are read at a time.
const PAGE: i64 = 1_000;
/// How often a list begins anew when etcd forgot the moment it was of.
const LISTS: usize = 3;

/// Makes the head where it is not there yet, judges the format, and tells the head and the revision of etcd.
pub(super) async fn prepare(cluster: &Cluster, layout: &Layout) -> Result<(Head, i64), StoreError> {
    let first = Head::first();
    let value = to_json(cluster, &first)?;
    let everything = Range { limit: 1, ..Range::of(layout.all()) };
    let found = cluster.ask(|etcd| {
        let range = everything.clone();
        async move { etcd.range(&range).await }
    });
    let is_empty = found.await?.pairs.is_empty();
    let mut txn = Txn { then: vec![Op::Range(Range::of(Keys::one(layout.head())))], ..Txn::default() };
    if is_empty {
        // Of two that make it at the same time one does.
        let make = Op::Put { key: layout.head(), value, lease: 0 };
        let make = Txn { expect: vec![(layout.head(), 0)], then: vec![make], otherwise: vec![] };
        txn.then.insert(0, Op::Txn(make));
    }
    let done = cluster.ask(|etcd| {
        let txn = txn.clone();
        async move { etcd.txn(txn).await }
    });
    let done = done.await?;
    let Some(pair) = done.found.first().and_then(|found| found.pairs.first()) else {
        let detail = "there are keys under its prefix, but not ours";
        return Err(cluster.error(StoreErrorKind::Corrupt, detail));
    };
    Ok((head_of(cluster, pair)?, done.revision))
}

/// The head as it is now, and the revision of etcd it is of.
pub(super) async fn head(cluster: &Cluster, layout: &Layout) -> Result<(Head, i64), StoreError> {
    let (head, _, revision) = head_with_change(cluster, layout).await?;
    Ok((head, revision))
}

/// The same with the revision at which the head was written.
async fn head_with_change(cluster: &Cluster, layout: &Layout) -> Result<(Head, i64, i64), StoreError> {
    let found = range(cluster, Range::of(Keys::one(layout.head()))).await?;
    let Some(pair) = found.pairs.first() else { return Err(headless(cluster)) };
    Ok((head_of(cluster, pair)?, pair.changed, found.revision))
}

pub(super) async fn get(
    cluster: &Cluster,
    layout: &Layout,
    space: Space,
    key: &str,
) -> Result<Option<Record>, StoreError> {
    let found = range(cluster, Range::of(Keys::one(layout.record(space, key)))).await?;
    found.pairs.first().map(|pair| value_of(cluster, pair)).transpose()
}

/// The records, and the revision of etcd at which anything in the store was last changed before.
pub(super) async fn list(
    cluster: &Cluster,
    layout: &Layout,
    space: Space,
    prefix: &str,
) -> Result<(Listed, i64), StoreError> {
    for _ in 0..LISTS {
        if let Some(listed) = list_once(cluster, layout, space, prefix).await? {
            return Ok(listed);
        }
    }
    Err(cluster.error(StoreErrorKind::Unavailable, "its history is forgotten faster than it can be read"))
}

/// `None` when etcd forgot the moment while it was read.
async fn list_once(
    cluster: &Cluster,
    layout: &Layout,
    space: Space,
    prefix: &str,
) -> Result<Option<(Listed, i64)>, StoreError> {
    let (head, changed, revision) = head_with_change(cluster, layout).await?;
    let mut keys = layout.records(space, prefix);
    let mut records = vec![];
    loop {
        let page = Range { keys: keys.clone(), limit: PAGE, revision, order: Order::Keys };
        let found = cluster.ask(|etcd| {
            let page = page.clone();
            async move {
                match etcd.range(&page).await {
                    Err(e) if e.kind == EtcdErrorKind::Compacted => Ok(None),
                    other => other.map(Some),
                }
            }
        });
        let Some(found) = found.await? else { return Ok(None) };
        for pair in &found.pairs {
            let (_, key) = layout.read_record(&pair.key).ok_or_else(|| no_key(cluster, pair))?;
            records.push((key, value_of(cluster, pair)?));
        }
        match found.pairs.last() {
            Some(last) if found.more => {
                // The first key behind the last one.
                keys.from = [last.key.as_slice(), &[0]].concat();
            }
            _ => return Ok(Some((Listed { records, position: head.count(space) }, changed))),
        }
    }
}

pub(super) async fn revisions(
    cluster: &Cluster,
    layout: &Layout,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Revision>, StoreError> {
    let last = head(cluster, layout).await?.0.count(Space::Config);
    let end = before.unwrap_or(u64::MAX).min(last + 1);
    let oldest = (last + 1).saturating_sub(KEPT_REVISIONS);
    let from = end.saturating_sub(limit as u64).max(oldest);
    let mut all = vec![];
    // Revisions can be large; a page of them is a request.
    let mut upper = end;
    while upper > from {
        let lower = upper.saturating_sub(REVISIONS_PAGE).max(from);
        let found = range(cluster, Range::of(layout.revisions(lower, upper))).await?;
        for pair in found.pairs.iter().rev() {
            all.push(value_of(cluster, pair)?);
        }
        upper = lower;
    }
    Ok(all)
}

pub(super) async fn revision(
    cluster: &Cluster,
    layout: &Layout,
    number: u64,
) -> Result<Option<Revision>, StoreError> {
    let found = range(cluster, Range::of(Keys::one(layout.revision(number)))).await?;
    found.pairs.first().map(|pair| value_of(cluster, pair)).transpose()
}

pub(super) async fn audit(
    cluster: &Cluster,
    layout: &Layout,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<AuditLine>, StoreError> {
    let last = head(cluster, layout).await?.0.audit;
    let end = before.unwrap_or(u64::MAX).min(last + 1);
    let oldest = (last + 1).saturating_sub(KEPT_AUDIT_LINES).max(1);
    let from = end.saturating_sub(limit as u64).max(oldest);
    let mut lines = vec![];
    let mut upper = end;
    while upper > from {
        let lower = upper.saturating_sub(AUDIT_PAGE).max(from);
        // The lines from `lower` on may lie under a key that begins a little before.
        let keys = layout.audit_lines(lower.saturating_sub(LINES_OF_KEY as u64 - 1), upper);
        for pair in range(cluster, Range::of(keys)).await?.pairs.iter().rev() {
            let first = number_of(&pair.key).ok_or_else(|| no_key(cluster, pair))?;
            let entries: Vec<AuditEntry> = value_of(cluster, pair)?;
            let numbered = (first..).zip(entries).map(|(line, entry)| AuditLine { line, entry });
            let wanted: Vec<_> = numbered.filter(|l| (lower..upper).contains(&l.line)).collect();
            lines.extend(wanted.into_iter().rev());
        }
        upper = lower;
    }
    Ok(lines)
}

pub(super) async fn range(cluster: &Cluster, range: Range) -> Result<Found, StoreError> {
    let asked = cluster.ask(|etcd| {
        let range = range.clone();
        async move { etcd.range(&range).await }
    });
    asked.await
}

/// The head in what was found; a format that is not known here is not touched.
pub(super) fn head_of(cluster: &Cluster, pair: &Pair) -> Result<Head, StoreError> {
    let head: Head = value_of(cluster, pair)?;
    if head.format > FORMAT {
        let detail = format!("its format is {}, this version knows {FORMAT}", head.format);
        return Err(cluster.error(StoreErrorKind::NewerFormat, detail));
    }
    Ok(head)
}

pub(super) fn headless(cluster: &Cluster) -> StoreError {
    cluster.error(StoreErrorKind::Corrupt, "its head is gone: somebody deleted keys under its prefix")
}

pub(super) fn value_of<T: DeserializeOwned>(cluster: &Cluster, pair: &Pair) -> Result<T, StoreError> {
    // What serde says may quote the value.
    serde_json::from_slice(&pair.value)
        .map_err(|e| damaged(cluster, pair, &format!("line {}, column {}", e.line(), e.column())))
}

pub(super) fn to_json(cluster: &Cluster, value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| cluster.error(StoreErrorKind::Corrupt, e))
}

/// Somebody else wrote there: keys of ours are text.
pub(super) fn no_key(cluster: &Cluster, pair: &Pair) -> StoreError {
    let key = String::from_utf8_lossy(&pair.key).into_owned();
    cluster.error(StoreErrorKind::Corrupt, format!("the key {key} is none of a control plane"))
}

fn damaged(cluster: &Cluster, pair: &Pair, what: &str) -> StoreError {
    let key = String::from_utf8_lossy(&pair.key);
    cluster.error(StoreErrorKind::Corrupt, format!("the value of {key} is not what was written: {what}"))
}

const REVISIONS_PAGE: u64 = 20;
const AUDIT_PAGE: u64 = 2_000;
