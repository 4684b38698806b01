//! The shared store read whole, and made of an image.
//!
//! It is made in many transactions of etcd, and the head comes last: without it no control plane takes what is there for a
//! store, so half a restore is none.

use outrigger_wire::etcd::{Keys, Op, Order, Pair, Range, Txn};

use super::super::error::{StoreError, StoreErrorKind};
use super::super::{AuditLine, Image, Space};
use super::cluster::Cluster;
use super::head::Head;
use super::keys::{Layout, number_of};
use super::read::{self, LINES_OF_KEY};
use super::{EtcdAddress, EtcdSecrets, EtcdStore};
use crate::audit::AuditEntry;

impl EtcdStore {
    /// Makes the store at `address` of `image`. One that has something already is refused unless it is to be replaced, and
    /// always while a control plane lives on it.
    pub async fn restore(
        address: &EtcdAddress,
        secrets: &EtcdSecrets,
        image: &Image,
        replace: bool,
    ) -> Result<(), StoreError> {
        let (cluster, layout) = (Cluster::of(address, secrets)?, Layout::under(&address.prefix));
        let some = |keys: Keys| Range { limit: 1, ..Range::of(keys) };
        if !read::range(&cluster, some(layout.of_living())).await?.pairs.is_empty() {
            let detail = "a control plane lives on it, or did 10 s ago: end it first";
            return Err(cluster.error(StoreErrorKind::Locked, detail));
        }
        if !read::range(&cluster, some(layout.all())).await?.pairs.is_empty() {
            if !replace {
                let detail = "it is not empty; nothing was changed in it";
                return Err(cluster.error(StoreErrorKind::Locked, detail));
            }
            // The head first: from here on it is none.
            write(&cluster, vec![Op::Delete(Keys::one(layout.head()))]).await?;
            write(&cluster, vec![Op::Delete(layout.all())]).await?;
        }
        fill(&cluster, &layout, image).await
    }
}

async fn fill(cluster: &Cluster, layout: &Layout, image: &Image) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    for (space, key, record) in &image.records {
        batch.put(cluster, layout.record(*space, key), read::to_json(cluster, record)?).await?;
    }
    for revision in &image.revisions {
        let key = layout.revision(revision.revision);
        batch.put(cluster, key, read::to_json(cluster, revision)?).await?;
    }
    for lines in image.audit.chunks(LINES_OF_KEY) {
        let entries: Vec<&AuditEntry> = lines.iter().map(|line| &line.entry).collect();
        batch.put(cluster, layout.audit(lines[0].line), read::to_json(cluster, &entries)?).await?;
    }
    batch.flush(cluster).await?;
    let last = image.audit.last().map_or(0, |line| line.line);
    let head = read::to_json(cluster, &Head::with(&image.counts, last))?;
    let put = Op::Put { key: layout.head(), value: head, lease: 0 };
    let txn = Txn { expect: vec![(layout.head(), 0)], then: vec![put], otherwise: vec![] };
    let made = cluster.ask(|etcd| {
        let txn = txn.clone();
        async move { etcd.txn(txn).await }
    });
    if made.await?.held {
        Ok(())
    } else {
        Err(cluster.error(StoreErrorKind::Locked, "somebody else made it"))
    }
}

/// What is written together.
#[derive(Default)]
struct Batch {
    ops: Vec<Op>,
    bytes: usize,
}

impl Batch {
    async fn put(&mut self, cluster: &Cluster, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        let bytes = key.len() + value.len();
        if self.ops.len() >= MOST_OPS || self.bytes + bytes > MOST_BYTES {
            self.flush(cluster).await?;
        }
        self.bytes += bytes;
        self.ops.push(Op::Put { key, value, lease: 0 });
        Ok(())
    }

    async fn flush(&mut self, cluster: &Cluster) -> Result<(), StoreError> {
        self.bytes = 0;
        let ops = std::mem::take(&mut self.ops);
        if ops.is_empty() { Ok(()) } else { write(cluster, ops).await }
    }
}

/// Writing these twice changes nothing.
async fn write(cluster: &Cluster, ops: Vec<Op>) -> Result<(), StoreError> {
    let made = cluster.ask(|etcd| {
        let txn = Txn { then: ops.clone(), ..Txn::default() };
        async move { etcd.txn(txn).await }
    });
    made.await.map(drop)
}

/// All of it, as of one moment.
pub(super) async fn read(cluster: &Cluster, layout: &Layout) -> Result<Image, StoreError> {
    let mut tries = 0;
    loop {
        match read_once(cluster, layout).await {
            // etcd may have forgotten the moment while it was read.
            Err(e) if e.kind() == StoreErrorKind::Io && tries < TRIES => tries += 1,
            read => return read,
        }
    }
}

async fn read_once(cluster: &Cluster, layout: &Layout) -> Result<Image, StoreError> {
    let (head, revision) = read::head(cluster, layout).await?;
    let mut image = Image { counts: head.committed(), ..Image::default() };
    for space in Space::ALL {
        for pair in pairs(cluster, layout.records(space, ""), revision, RECORDS).await? {
            let (space, key) = layout.read_record(&pair.key).ok_or_else(|| read::no_key(cluster, &pair))?;
            image.records.push((space, key, read::value_of(cluster, &pair)?));
        }
    }
    for pair in pairs(cluster, layout.revisions(0, u64::MAX), revision, REVISIONS).await? {
        image.revisions.push(read::value_of(cluster, &pair)?);
    }
    for pair in pairs(cluster, layout.audit_lines(0, u64::MAX), revision, AUDIT).await? {
        let first = number_of(&pair.key).ok_or_else(|| read::no_key(cluster, &pair))?;
        let entries: Vec<AuditEntry> = read::value_of(cluster, &pair)?;
        image.audit.extend((first..).zip(entries).map(|(line, entry)| AuditLine { line, entry }));
    }
    Ok(image)
}

/// Everything of a range as of a revision, page by page.
async fn pairs(
    cluster: &Cluster,
    mut keys: Keys,
    revision: i64,
    limit: i64,
) -> Result<Vec<Pair>, StoreError> {
    let mut all = vec![];
    loop {
        let page = Range { keys: keys.clone(), limit, revision, order: Order::Keys };
        let found = read::range(cluster, page).await?;
        let next = found.pairs.last().filter(|_| found.more).map(|last| [last.key.as_slice(), &[0]].concat());
        all.extend(found.pairs);
        match next {
            Some(next) => keys.from = next,
            None => return Ok(all),
        }
    }
}

const TRIES: usize = 3;
const RECORDS: i64 = 1_000;
const REVISIONS: i64 = 20;
const AUDIT: i64 = 100;
/// Below what etcd takes: 128 operations, 1.5 MiB.
const MOST_OPS: usize = 100;
const MOST_BYTES: usize = 1_000_000;
