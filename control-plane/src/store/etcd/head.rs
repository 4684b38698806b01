//! The head of a store: what every transaction reads, names and writes anew.

use std::collections::BTreeMap;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::super::{Committed, Space};

/// The counts, and which transaction made them what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The format of everything under the prefix.
    pub(super) format: u64,
    /// The count of each space. One that is missing was never written.
    counts: BTreeMap<String, u64>,
    /// The last line of the audit log.
    pub(super) audit: u64,
    /// The transaction that wrote this: whoever lost the answer to its own finds it here.
    pub(super) by: String,
}

pub(super) const FORMAT: u64 = 1;

impl Head {
    /// Of a store that is empty.
    pub(super) fn first() -> Self {
        Self { format: FORMAT, counts: BTreeMap::new(), audit: 0, by: nonce() }
    }

    /// Of a store that has these counts, and lines of the audit log up to this one.
    pub(super) fn with(counts: &Committed, audit: u64) -> Self {
        let count = |space: Space| (space.as_str().to_owned(), counts.of(space));
        Self { counts: Space::ALL.into_iter().map(count).collect(), audit, ..Self::first() }
    }

    /// After a transaction that writes to `spaces` and adds so many lines to the audit log.
    pub(super) fn next(&self, spaces: impl IntoIterator<Item = Space>, lines: usize) -> Self {
        let mut next = Self { audit: self.audit + lines as u64, by: nonce(), ..self.clone() };
        for space in spaces {
            next.counts.insert(space.as_str().to_owned(), self.count(space) + 1);
        }
        next
    }

    pub(super) fn count(&self, space: Space) -> u64 {
        self.counts.get(space.as_str()).copied().unwrap_or_default()
    }

    pub(super) fn committed(&self) -> Committed {
        Committed {
            revision: self.count(Space::Config),
            generation: self.count(Space::Instances),
            tokens: self.count(Space::Tokens),
            certificates: self.count(Space::Certificates),
            rollouts: self.count(Space::Rollouts),
            status: self.count(Space::Status),
        }
    }
}

/// A name that nobody else has.
fn nonce() -> String {
    let mut bytes = [0; 16];
    // Without randomness no process of ours has a key either.
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    format!("{:032x}", u128::from_be_bytes(bytes))
}
