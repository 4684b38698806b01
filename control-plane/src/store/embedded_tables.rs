//! The tables of the embedded store: what lies where in the file, and the transactions over them.

use std::path::Path;

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::error::{CommitError, StoreError, StoreErrorKind};
use super::{
    AuditLine, Committed, KEPT_AUDIT_LINES, KEPT_REVISIONS, Listed, Record, Revision, RevisionChange, Space,
    Transaction, Write,
};
use crate::audit::AuditEntry;

/// Counts, and the format of the file.
pub(super) const COUNTS: TableDefinition<&str, u64> = TableDefinition::new("counts");
/// [`Revision`] by number.
pub(super) const REVISIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("revisions");
/// [`AuditEntry`] by line.
pub(super) const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

const FORMAT: u64 = 1;

/// How many records a portion of a scan has at most.
const PORTION: usize = 1_024;

pub(super) fn records_of(space: Space) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(space.as_str())
}

/// Makes the tables where they are not there yet, judges the format and tells the counts.
pub(super) fn prepare(database: &Database, path: &Path) -> Result<Committed, StoreError> {
    let at = At { path };
    let read = database.begin_read().map_err(at.fault())?;
    if let Some(counts) = at.table_if_there(&read, COUNTS)? {
        let format = at.count(&counts, "format")?;
        if format != FORMAT {
            let detail = format!("its format is {format}, this version knows {FORMAT}");
            return Err(StoreError::new(StoreErrorKind::NewerFormat, path.display(), detail));
        }
        let lacks = Space::ALL.iter().any(|space| !counts.get(space.as_str()).is_ok_and(|c| c.is_some()));
        drop(counts);
        if lacks {
            at.add_spaces(database)?;
        }
        let counts = database.begin_read().map_err(at.fault())?.open_table(COUNTS).map_err(at.fault())?;
        return at.counts(&counts);
    }
    if read.list_tables().map_err(at.fault())?.next().is_some() {
        let detail = "it has tables, but not ours";
        return Err(StoreError::new(StoreErrorKind::Corrupt, path.display(), detail));
    }
    let write = database.begin_write().map_err(at.fault())?;
    {
        let mut counts = write.open_table(COUNTS).map_err(at.fault())?;
        counts.insert("format", FORMAT).map_err(at.fault())?;
        for space in Space::ALL {
            counts.insert(space.as_str(), 0).map_err(at.fault())?;
            write.open_table(records_of(space)).map_err(at.fault())?;
        }
        write.open_table(REVISIONS).map_err(at.fault())?;
        write.open_table(AUDIT).map_err(at.fault())?;
    }
    write.commit().map_err(at.fault())?;
    Ok(Committed::default())
}

/// Whether the database still answers. After a failure of the disk it does not, until it is opened anew.
pub(super) fn is_usable(database: &Database) -> bool {
    // A write transaction touches the state that a failure invalidates, and costs nothing when it is dropped.
    database.begin_write().is_ok_and(|write| write.abort().is_ok())
}

pub(super) fn get(
    database: &Database,
    path: &Path,
    space: Space,
    key: &str,
) -> Result<Option<Record>, StoreError> {
    let at = At { path };
    let read = database.begin_read().map_err(at.fault())?;
    let table = read.open_table(records_of(space)).map_err(at.fault())?;
    at.record(&table, key)
}

pub(super) fn list(
    database: &Database,
    path: &Path,
    space: Space,
    prefix: &str,
) -> Result<Listed, StoreError> {
    let at = At { path };
    let read = database.begin_read().map_err(at.fault())?;
    let counts = read.open_table(COUNTS).map_err(at.fault())?;
    let position = at.count(&counts, space.as_str())?;
    let table = read.open_table(records_of(space)).map_err(at.fault())?;
    let mut records = vec![];
    for row in table.range(prefix..).map_err(at.fault())? {
        let (key, value) = row.map_err(at.fault())?;
        if !key.value().starts_with(prefix) {
            break;
        }
        records.push((key.value().to_owned(), at.unseal(key.value(), value.value())?));
    }
    Ok(Listed { records, position })
}

/// Sends all records of a space, a portion at a time; its count.
pub(super) fn scan(
    database: &Database,
    path: &Path,
    space: Space,
    portions: &mpsc::Sender<Vec<(String, Record)>>,
) -> Result<u64, StoreError> {
    let at = At { path };
    let read = database.begin_read().map_err(at.fault())?;
    let position = at.count(&read.open_table(COUNTS).map_err(at.fault())?, space.as_str())?;
    let table = read.open_table(records_of(space)).map_err(at.fault())?;
    let mut rows = table.range::<&str>(..).map_err(at.fault())?.peekable();
    while rows.peek().is_some() {
        let mut portion = Vec::with_capacity(PORTION);
        for row in rows.by_ref().take(PORTION) {
            let (key, value) = row.map_err(at.fault())?;
            portion.push((key.value().to_owned(), at.unseal(key.value(), value.value())?));
        }
        if portions.blocking_send(portion).is_err() {
            break;
        }
    }
    Ok(position)
}

/// Writes all of `transaction`, and tells the counts and the records as they are now.
pub(super) fn commit(
    database: &Database,
    path: &Path,
    transaction: &Transaction,
) -> Result<(Committed, Vec<Option<Record>>), CommitError> {
    let at = At { path };
    // Dropping it, which every `?` below does, leaves no trace.
    let write = database.begin_write().map_err(at.fault())?;
    let counts = at.next_counts(&write, transaction)?;
    let (records, changes) = at.write_records(&write, transaction, &counts)?;
    if !changes.is_empty() {
        at.write_revision(&write, transaction, counts.revision, changes)?;
    }
    at.write_audit(&write, &transaction.audit)?;
    write.commit().map_err(at.fault())?;
    Ok((counts, records))
}

pub(super) fn revisions(
    database: &Database,
    path: &Path,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Revision>, StoreError> {
    let rows = At { path }.newest(database, REVISIONS, before, limit)?;
    Ok(rows.into_iter().map(|(_, revision)| revision).collect())
}

pub(super) fn audit(
    database: &Database,
    path: &Path,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<AuditLine>, StoreError> {
    let rows = At { path }.newest(database, AUDIT, before, limit)?;
    Ok(rows.into_iter().map(|(line, entry)| AuditLine { line, entry }).collect())
}

/// The file that errors name.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) path: &'a Path,
}

impl At<'_> {
    /// Makes the tables of spaces that an earlier version did not have.
    fn add_spaces(self, database: &Database) -> Result<(), StoreError> {
        let write = database.begin_write().map_err(self.fault())?;
        {
            let mut counts = write.open_table(COUNTS).map_err(self.fault())?;
            for space in Space::ALL {
                if counts.get(space.as_str()).map_err(self.fault())?.is_none() {
                    counts.insert(space.as_str(), 0).map_err(self.fault())?;
                }
                write.open_table(records_of(space)).map_err(self.fault())?;
            }
        }
        write.commit().map_err(self.fault())
    }

    fn next_counts(self, write: &WriteTransaction, tx: &Transaction) -> Result<Committed, StoreError> {
        let mut table = write.open_table(COUNTS).map_err(self.fault())?;
        for space in Space::ALL {
            if tx.writes.iter().any(|w| w.space == space) {
                let next = self.count(&table, space.as_str())? + 1;
                table.insert(space.as_str(), next).map_err(self.fault())?;
            }
        }
        self.counts(&table)
    }

    /// Writes the records; what of it is configuration comes back as the changes of a revision.
    fn write_records(
        self,
        write: &WriteTransaction,
        tx: &Transaction,
        counts: &Committed,
    ) -> Result<(Vec<Option<Record>>, Vec<RevisionChange>), CommitError> {
        let (mut records, mut changes) = (vec![], vec![]);
        for change in &tx.writes {
            let mut table = write.open_table(records_of(change.space)).map_err(self.fault())?;
            let current = self.record(&table, &change.key)?;
            if !change.expect.holds(current.as_ref().map(|r| r.changed)) {
                return Err(CommitError::Conflict { key: change.key.clone(), current });
            }
            let record = self.write_record(&mut table, change, current.as_ref(), counts.of(change.space))?;
            if change.space == Space::Config {
                changes.push(RevisionChange {
                    key: change.key.clone(),
                    before: current.map(|r| r.value),
                    after: change.value.clone(),
                });
            }
            records.push(record);
        }
        Ok((records, changes))
    }

    fn write_record(
        self,
        table: &mut Table<'_, &'static str, &'static [u8]>,
        change: &Write,
        current: Option<&Record>,
        count: u64,
    ) -> Result<Option<Record>, StoreError> {
        let Some(value) = &change.value else {
            table.remove(change.key.as_str()).map_err(self.fault())?;
            return Ok(None);
        };
        let created = current.map_or(count, |r| r.created);
        let record = Record { created, changed: count, value: value.clone() };
        table.insert(change.key.as_str(), &*self.seal(&record)?).map_err(self.fault())?;
        Ok(Some(record))
    }

    fn write_revision(
        self,
        write: &WriteTransaction,
        tx: &Transaction,
        number: u64,
        changes: Vec<RevisionChange>,
    ) -> Result<(), StoreError> {
        let revision = Revision {
            revision: number,
            at: OffsetDateTime::now_utc(),
            who: tx.author.who.clone(),
            why: tx.author.why.clone(),
            changes,
        };
        let mut table = write.open_table(REVISIONS).map_err(self.fault())?;
        table.insert(number, &*self.seal(&revision)?).map_err(self.fault())?;
        self.trim(&mut table, KEPT_REVISIONS)
    }

    fn write_audit(self, write: &WriteTransaction, entries: &[AuditEntry]) -> Result<(), StoreError> {
        let mut table = write.open_table(AUDIT).map_err(self.fault())?;
        let mut line = table.last().map_err(self.fault())?.map_or(0, |(line, _)| line.value());
        for entry in entries {
            line += 1;
            table.insert(line, &*self.seal(entry)?).map_err(self.fault())?;
        }
        self.trim(&mut table, KEPT_AUDIT_LINES)
    }

    /// Removes the oldest rows beyond `keep`.
    fn trim(self, table: &mut Table<'_, u64, &'static [u8]>, keep: u64) -> Result<(), StoreError> {
        let newest = table.last().map_err(self.fault())?.map_or(0, |(number, _)| number.value());
        loop {
            let oldest = table.first().map_err(self.fault())?.map(|(number, _)| number.value());
            match oldest {
                Some(oldest) if newest - oldest >= keep => table.remove(oldest).map_err(self.fault())?,
                _ => return Ok(()),
            };
        }
    }

    fn newest<T: DeserializeOwned>(
        self,
        database: &Database,
        definition: TableDefinition<'static, u64, &'static [u8]>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, T)>, StoreError> {
        let read = database.begin_read().map_err(self.fault())?;
        let table = read.open_table(definition).map_err(self.fault())?;
        let rows = table.range(..before.unwrap_or(u64::MAX)).map_err(self.fault())?;
        rows.rev()
            .take(limit)
            .map(|row| {
                let (number, value) = row.map_err(self.fault())?;
                let number = number.value();
                Ok((number, self.unseal(&number.to_string(), value.value())?))
            })
            .collect()
    }

    fn record(
        self,
        table: &impl ReadableTable<&'static str, &'static [u8]>,
        key: &str,
    ) -> Result<Option<Record>, StoreError> {
        let value = table.get(key).map_err(self.fault())?;
        value.map(|value| self.unseal(key, value.value())).transpose()
    }

    pub(super) fn counts(
        self,
        table: &impl ReadableTable<&'static str, u64>,
    ) -> Result<Committed, StoreError> {
        Ok(Committed {
            revision: self.count(table, Space::Config.as_str())?,
            generation: self.count(table, Space::Instances.as_str())?,
            tokens: self.count(table, Space::Tokens.as_str())?,
            certificates: self.count(table, Space::Certificates.as_str())?,
            rollouts: self.count(table, Space::Rollouts.as_str())?,
            status: self.count(table, Space::Status.as_str())?,
        })
    }

    fn count(self, table: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, StoreError> {
        let count = table.get(name).map_err(self.fault())?.map(|c| c.value());
        count.ok_or_else(|| self.corrupt(&format!("the count {name:?} is missing")))
    }

    fn table_if_there(
        self,
        read: &ReadTransaction,
        definition: TableDefinition<'static, &'static str, u64>,
    ) -> Result<Option<ReadOnlyTable<&'static str, u64>>, StoreError> {
        match read.open_table(definition) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(self.fault()(e)),
        }
    }

    /// A value with a checksum before it: redb checks its pages only after a crash.
    pub(super) fn seal(self, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
        let json = serde_json::to_vec(value).map_err(|e| self.corrupt(&e.to_string()))?;
        let mut sealed = checksum(&json).to_vec();
        sealed.extend(json);
        Ok(sealed)
    }

    pub(super) fn unseal<T: DeserializeOwned>(self, key: &str, sealed: &[u8]) -> Result<T, StoreError> {
        let wrong = || self.corrupt(&format!("the value of {key} is not what was written"));
        let (sum, json) = sealed.split_at_checked(CHECKSUM).ok_or_else(wrong)?;
        if checksum(json) != sum {
            return Err(wrong());
        }
        serde_json::from_slice(json).map_err(|e| self.corrupt(&format!("{key}: {e}")))
    }

    fn corrupt(self, detail: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Corrupt, self.path.display(), detail)
    }

    /// Names the file in an error of redb.
    pub(super) fn fault<E: Into<redb::Error>>(self) -> impl Fn(E) -> StoreError {
        let path = self.path.display().to_string();
        move |e| {
            let e: redb::Error = e.into();
            let kind = match e {
                redb::Error::Io(ref e) => StoreErrorKind::of_io(e),
                redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreErrorKind::Io,
                _ => StoreErrorKind::Corrupt,
            };
            StoreError::new(kind, &path, e)
        }
    }
}

const CHECKSUM: usize = 8;

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::digest(bytes);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest[..CHECKSUM]);
    sum
}
