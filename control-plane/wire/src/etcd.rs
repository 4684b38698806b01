//! The calls of etcd that the control plane's shared store makes, and their types.
//!
//! Keys and values are bytes. What they mean, which member is asked, and what is tried again is the store's matter
//! (`control-plane/src/store/etcd`), as are the connections and their TLS.

mod client;
mod convert;

pub use client::{EtcdClient, EtcdWatch};

use std::fmt;

/// The keys from `from` on, up to but without `end`; without an end that one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first.
    pub from: Vec<u8>,
    /// The first behind them.
    pub end: Option<Vec<u8>>,
}

impl Keys {
    /// One key.
    pub fn one(key: impl Into<Vec<u8>>) -> Self {
        Self { from: key.into(), end: None }
    }

    /// All keys of `from..end`.
    pub fn between(from: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self { from: from.into(), end: Some(end.into()) }
    }

    /// All keys that begin with `prefix`, which is text.
    pub fn under(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        // Text in UTF-8 never ends with the largest byte, so that the byte after its last one exists.
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        Self::between(prefix, end)
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Range {
    /// Which keys.
    pub keys: Keys,
    /// At most so many; 0: all.
    pub limit: i64,
    /// As of this revision; 0: the latest.
    pub revision: i64,
    /// In which order.
    pub order: Order,
}

impl Range {
    /// The keys as they are now, in their order.
    pub fn of(keys: Keys) -> Self {
        Self { keys, limit: 0, revision: 0, order: Order::Keys }
    }
}

/// The order of what is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By key.
    Keys,
    /// By key, the last first.
    KeysBackwards,
    /// The key that came to be first comes first.
    Created,
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The revision it is of.
    pub revision: i64,
    /// The keys with their values.
    pub pairs: Vec<Pair>,
    /// Whether the limit left some out.
    pub more: bool,
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The revision at which it came to be.
    pub created: i64,
    /// The revision at which it was last written.
    pub changed: i64,
    /// The lease that it ends with; 0: none.
    pub lease: i64,
}

impl fmt::Debug for Pair {
    // A value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", String::from_utf8_lossy(&self.key), self.changed)
    }
}

/// Changes that are made together, if every key was last changed at the revision that is named for it.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// The keys with the revisions of their last change; 0: the key is not there.
    pub expect: Vec<(Vec<u8>, i64)>,
    /// What is done then.
    pub then: Vec<Op>,
    /// What is done else.
    pub otherwise: Vec<Op>,
}

/// One thing in a transaction.
#[derive(Clone)]
pub enum Op {
    /// Tells.
    Range(Range),
    /// Writes.
    Put {
        /// Where.
        key: Vec<u8>,
        /// What.
        value: Vec<u8>,
        /// With which lease it ends; 0: with none.
        lease: i64,
    },
    /// Takes away.
    Delete(Keys),
    /// All of these, if its own expectations hold.
    Txn(Txn),
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => write!(f, "range {:?}", range.keys),
            Self::Put { key, .. } => write!(f, "put {}", String::from_utf8_lossy(key)),
            Self::Delete(keys) => write!(f, "delete {keys:?}"),
            Self::Txn(txn) => txn.fmt(f),
        }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub struct Done {
    /// Whether the expectations held.
    pub held: bool,
    /// The revision after it.
    pub revision: i64,
    /// What the ranges found, in their order.
    pub found: Vec<Found>,
}

/// Something that a watch tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// It has begun.
    Began,
    /// These keys were written or taken away, in this order; revisions are whole.
    Changed(Vec<Event>),
    /// Nothing more happened up to this revision.
    Progress(i64),
    /// What it was asked for is no longer kept: history begins at this revision.
    Compacted(i64),
}

/// A key that was written or taken away.
#[derive(Clone, Debug)]
pub struct Event {
    /// The key. Of one that was taken away, the value is empty.
    pub pair: Pair,
    /// Whether it was taken away.
    pub gone: bool,
}

/// A call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdError {
    /// The sort of it.
    pub kind: EtcdErrorKind,
    /// What was said.
    pub detail: String,
}

/// The sorts of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdErrorKind {
    /// Nobody answered, or whoever did has no quorum. What was asked may have been done.
    Unavailable,
    /// Its quota is used up: it reads, but does not write.
    Full,
    /// The request is larger than it takes.
    TooLarge,
    /// The revision is no longer kept.
    Compacted,
    /// The session of the user ended; it has to log in again.
    LoggedOut,
    /// The user may not do that, or is not known.
    Denied,
    /// The lease has ended.
    NoLease,
    /// Anything else.
    Other,
}

impl EtcdError {
    /// An error of this sort.
    pub fn new(kind: EtcdErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for EtcdError {}
