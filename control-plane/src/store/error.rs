//! How a store fails. Every text names the file or the address of the store.

use std::fmt;
use std::io;

use super::Record;

/// A store that can not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    kind: StoreErrorKind,
    place: String,
    detail: String,
}

/// Why a store can not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The file or folder can not be read or written: rights, a full disk, a failing one.
    Io,
    /// There is no room for more: the disk, a quota, or what etcd was given is full.
    Full,
    /// What is there is not what was written.
    Corrupt,
    /// Another process has it.
    Locked,
    /// A newer version wrote it.
    NewerFormat,
    /// Nobody answers who could: the cluster is away, or has no majority.
    Unavailable,
    /// It does not take so much at once.
    TooLarge,
    /// Somebody else changed the configuration since it was decided what to write.
    Behind,
    /// It does not let this be written: its own rules, or rights that this process does not have.
    Refused,
}

impl StoreErrorKind {
    /// As an error of the system says.
    pub(super) fn of_io(e: &io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Io,
        }
    }

    /// What to do about it, where somebody has to do something.
    fn remedy(self) -> &'static str {
        match self {
            Self::Full => "; make room, and it goes on",
            Self::Corrupt => "; restore a backup (outrigger restore), which keeps what is there beside",
            Self::NewerFormat => {
                "; start the version that wrote it, or restore a backup that this version made (outrigger restore)"
            }
            _ => "",
        }
    }
}

impl StoreError {
    /// The store at `place` failed so.
    pub fn new(kind: StoreErrorKind, place: impl fmt::Display, detail: impl fmt::Display) -> Self {
        // The reader gets one line, whatever the source of the error wrote.
        let detail = detail.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { kind, place: place.to_string(), detail }
    }

    /// Why.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may work later, without anybody mending the store.
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self.kind,
            StoreErrorKind::Full
                | StoreErrorKind::Corrupt
                | StoreErrorKind::NewerFormat
                | StoreErrorKind::TooLarge
                | StoreErrorKind::Refused
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::Io => "can not be read or written",
            StoreErrorKind::Full => "has no room for more; nothing was changed in it",
            StoreErrorKind::Corrupt => "is damaged or not a store of ours; nothing was changed in it",
            StoreErrorKind::Locked => "is in use by another process",
            StoreErrorKind::NewerFormat => "was written by a newer version",
            StoreErrorKind::Unavailable => "does not answer",
            StoreErrorKind::TooLarge => "does not take so much at once",
            StoreErrorKind::Behind => "was changed by somebody else meanwhile",
            StoreErrorKind::Refused => "refuses it",
        };
        write!(f, "the store {} {what}: {}{}", self.place, self.detail, self.kind.remedy())
    }
}

impl std::error::Error for StoreError {}

/// A transaction that was not committed.
#[derive(Clone, Debug, PartialEq)]
pub enum CommitError {
    /// A record was not as expected. Nothing was written.
    Conflict {
        /// Its key.
        key: String,
        /// What is there instead.
        current: Option<Record>,
    },
    /// The store failed. Whether the transaction is in it is not known until it is read again.
    Store(StoreError),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { key, .. } => write!(f, "{key} has been changed by somebody else"),
            Self::Store(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {}

impl From<StoreError> for CommitError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}
