//! What must outlive the process: one small trait, so that an embedded file and a shared database serve alike.
//!
//! A store keeps JSON values under text keys in a few spaces. Each space counts its own changes: configuration has
//! revisions, which people see; instances have generations, which churn; tokens have a count that nobody sees. All
//! writes go through transactions that hold everything that belongs together, the audit log included.
//!
//! What the values mean is not known here; `state` knows.

mod change_log;
#[cfg(test)]
mod conformance;
mod embedded;
mod embedded_tables;
mod error;
pub mod etcd;
mod image;
pub mod kubernetes;
mod replicas;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::audit::{AuditEntry, Author};
use crate::spec::Object;

pub use change_log::{Change, Compacted, Watch};
pub use embedded::EmbeddedStore;
pub use error::{CommitError, StoreError, StoreErrorKind};
pub use image::Image;
pub use replicas::{Holder, Replicas};

/// Keeps records, their history and the audit log. Every method may wait, none may be half done: a transaction whose
/// future is dropped goes on or never began. What not every store can promise is in [`Promises`]; all else holds of each.
pub trait Store: Send + Sync + 'static {
    /// One record.
    fn get<'a>(&'a self, space: Space, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// All records of a space whose key begins with `prefix`, in the order of their keys, as of one moment.
    fn list<'a>(&'a self, space: Space, prefix: &'a str) -> BoxFuture<'a, Result<Listed, StoreError>>;

    /// All records of a space in portions, in the order of their keys, as of one moment, and then the count of the space:
    /// for whoever does not want them all in memory at once. A store without a better way makes one portion of them.
    ///
    /// Whoever takes the portions must not ask the store for anything before the last. When nobody takes them any more
    /// the rest is not read.
    fn scan(
        &self,
        space: Space,
        portions: mpsc::Sender<Vec<(String, Record)>>,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            let listed = self.list(space, "").await?;
            let _nobody_takes_it = portions.send(listed.records).await;
            Ok(listed.position)
        }
        .boxed()
    }

    /// All of the transaction, or nothing, as far as [`Promises::whole`] goes. It is kept when this returns, and what is asked from
    /// then on tells of it.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>>;

    /// The same for what was decided on this revision of the configuration: where that is no longer the latest nothing is
    /// written, and the error is [`StoreErrorKind::Behind`]. What one process alone writes to is never behind.
    fn commit_on(
        &self,
        revision: u64,
        transaction: Transaction,
    ) -> BoxFuture<'_, Result<Committed, CommitError>> {
        let _ = revision;
        self.commit(transaction)
    }

    /// The other control planes on the same store, where there can be any.
    fn replicas(&self) -> Option<Arc<dyn Replicas>> {
        None
    }

    /// What an object means together with what this store knows of besides; `None`: what it says. Where there is any such
    /// thing, what was committed has to be read again to be known.
    fn meant(&self, object: &Object) -> Option<Object> {
        let _ = object;
        None
    }

    /// Whether there is any such thing.
    fn is_source(&self) -> bool {
        false
    }

    /// What it promises of that which not every store can.
    fn promises(&self) -> Promises {
        Promises::ALL
    }

    /// The changes of a space after the given count, as they are committed. What is no longer kept is answered with
    /// [`Compacted`]: list, then watch from there.
    fn watch(&self, space: Space, after: u64) -> Watch;

    /// The latest revisions before `before` (all, when `None`), the newest first, at most `limit`.
    fn revisions(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>>;

    /// One revision, if it is still kept. The last [`KEPT_REVISIONS`] are.
    fn revision(&self, number: u64) -> BoxFuture<'_, Result<Option<Revision>, StoreError>>;

    /// The latest lines of the audit log before line `before`, the newest first, at most `limit`. The last
    /// [`KEPT_AUDIT_LINES`] are kept.
    fn audit(&self, before: Option<u64>, limit: usize) -> BoxFuture<'_, Result<Vec<AuditLine>, StoreError>>;

    /// All of it, as of one moment.
    fn image(&self) -> BoxFuture<'_, Result<Image, StoreError>>;

    /// Lets go of the file or the connection, once what is under way has ended. Whoever still asks gets an error.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a store promises of that which not every one can. The suite of all stores holds each to what it says here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// A transaction of several records is whole or absent whatever happens meanwhile, and one change.
    ///
    /// Without it: what is expected is judged of all records before the first is written; then each is a change of its own, in
    /// the order of the transaction; where one can not be written those before it are, and the error names them. A
    /// transaction of one record is whole or absent in every store.
    pub whole: bool,
    /// Counts begin at 0, and each transaction adds one to those of the spaces that it writes to.
    ///
    /// Without it: counts begin somewhere and leap, only upwards, and to write what is there already may be no change. When a
    /// record came to be (`created`) is told in whole seconds, by which the older of two is the older, and no count.
    pub gapless: bool,
    /// Revisions and the audit log are kept for the next start.
    ///
    /// Without it they are in memory, and reach back to the start.
    pub history: bool,
}

impl Promises {
    /// Everything.
    pub const ALL: Self = Self { whole: true, gapless: true, history: true };
}

/// How many revisions of the configuration are kept.
pub const KEPT_REVISIONS: u64 = 1_000;
/// How many lines of the audit log are kept.
pub const KEPT_AUDIT_LINES: u64 = 100_000;
/// How many changes of a space a watcher may lie behind.
pub const KEPT_CHANGES: usize = 1_024;

/// The kinds of records, each with a count of changes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// What people change. Its count is the revision, and its changes are kept as history.
    Config,
    /// Instances of services. Its count is the endpoint generation. A rollback never touches it.
    Instances,
    /// Join tokens, by their hash.
    Tokens,
    /// The certificate authority, and an account of what it signed.
    Certificates,
    /// How far each rollout has come, by its service. A rollback of the configuration never touches it.
    Rollouts,
    /// Since when routes are as their status says.
    Status,
}

impl Space {
    /// Every space.
    pub const ALL: [Self; 6] =
        [Self::Config, Self::Instances, Self::Tokens, Self::Certificates, Self::Rollouts, Self::Status];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Instances => "instances",
            Self::Tokens => "tokens",
            Self::Certificates => "certificates",
            Self::Rollouts => "rollouts",
            Self::Status => "status",
        }
    }
}

/// A value with the counts at which it came to be and was last changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The count of its space when it was created. A deletion begins anew.
    pub created: u64,
    /// The count of its space when it was last written: its version.
    pub changed: u64,
    /// The value.
    pub value: Json,
}

/// Records and the count of their space at that moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The records by key.
    pub records: Vec<(String, Record)>,
    /// The count.
    pub position: u64,
}

/// Everything that is committed together.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Who asked for it.
    pub author: Author,
    /// What is written; no key twice.
    pub writes: Vec<Write>,
    /// What the audit log will say of it.
    pub audit: Vec<AuditEntry>,
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Where.
    pub space: Space,
    /// Under which key.
    pub key: String,
    /// The new value; `None` deletes.
    pub value: Option<Json>,
    /// What must be there before.
    pub expect: Expect,
}

/// What must be there for a write to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Anything,
    /// Nothing.
    Absent,
    /// Something.
    Present,
    /// The version that was last changed at this count.
    Version(u64),
}

impl Expect {
    /// Whether it holds for what is there.
    pub fn holds(self, changed: Option<u64>) -> bool {
        match self {
            Self::Anything => true,
            Self::Absent => changed.is_none(),
            Self::Present => changed.is_some(),
            Self::Version(version) => changed == Some(version),
        }
    }
}

/// The counts after a commit. A space that was not written keeps its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Of [`Space::Config`].
    pub revision: u64,
    /// Of [`Space::Instances`].
    pub generation: u64,
    /// Of [`Space::Tokens`].
    pub tokens: u64,
    /// Of [`Space::Certificates`].
    pub certificates: u64,
    /// Of [`Space::Rollouts`].
    pub rollouts: u64,
    /// Of [`Space::Status`].
    pub status: u64,
}

impl Committed {
    /// The count of one space.
    pub fn of(&self, space: Space) -> u64 {
        match space {
            Space::Config => self.revision,
            Space::Instances => self.generation,
            Space::Tokens => self.tokens,
            Space::Certificates => self.certificates,
            Space::Rollouts => self.rollouts,
            Space::Status => self.status,
        }
    }
}

/// One revision of the configuration: who changed what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
    /// Who.
    pub who: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What.
    pub changes: Vec<RevisionChange>,
}

/// One record in a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RevisionChange {
    /// Its key.
    pub key: String,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Json>,
    /// What is there since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Json>,
}

/// A line of the audit log with its number.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AuditLine {
    /// Its number; the first is 1.
    pub line: u64,
    /// What it says.
    #[serde(flatten)]
    pub entry: AuditEntry,
}
