//! The past of the configuration: what differs between two of its revisions, and the way back to one.
//!
//! The store keeps of each revision what it changed, before and after. What differs between two is found by laying those
//! changes over each other; the way back is a change like any other, checked and committed by `state`. Only the
//! configuration has a past: instances, keys and how far rollouts have come are never brought back. Nor is what somebody
//! did at once and for a reason: who was revoked stays revoked, and a breaker held open stays so ([`STAYS`]).

mod difference;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value as Json, json};

use crate::spec::{self, Code, Key, Kind, Problem};
use crate::state::Write;
use crate::store::{Expect, KEPT_REVISIONS, Revision, Store, StoreError};
use crate::world::World;

pub use difference::{FieldChange, difference};

/// One object in two revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Its name, as the store has it: the path of an object in the admin API.
    pub path: String,
    /// What it was in the first; `None` when it was not there.
    pub before: Option<Json>,
    /// What it was in the second.
    pub after: Option<Json>,
}

/// Every object that differs between the revisions `from` and `to`, in the order of their paths. Revision 0 is the mesh
/// before anything was written.
pub async fn between(store: &dyn Store, from: u64, to: u64) -> Result<Vec<Changed>, PastError> {
    let (low, high) = (from.min(to), from.max(to));
    let mut all = BTreeMap::new();
    let mut next = high;
    while next > low {
        let wanted = usize::try_from(next - low).unwrap_or(PAGE).min(PAGE);
        // Above every number there is no end: whoever asks for what was never made finds out by what is missing.
        let page = store.revisions(next.checked_add(1), wanted).await?;
        if page.is_empty() {
            return Err(missing(next));
        }
        for revision in page {
            if revision.revision != next {
                return Err(missing(next));
            }
            next -= 1;
            lay_under(&mut all, revision);
        }
    }
    let changed = all.into_iter().map(|(path, (old, new))| {
        let (before, after) = if from <= to { (old, new) } else { (new, old) };
        Changed { path, before, after }
    });
    Ok(changed.filter(|changed| changed.before != changed.after).collect())
}

/// Adds what an older revision changed.
fn lay_under(all: &mut BTreeMap<String, (Option<Json>, Option<Json>)>, older: Revision) {
    for change in older.changes {
        let (before, after) = (change.before.map(plain), change.after.map(plain));
        all.entry(change.key).and_modify(|known| known.0.clone_from(&before)).or_insert((before, after));
    }
}

/// Without what the control plane added: that is not what somebody wrote.
fn plain(mut object: Json) -> Json {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

fn missing(revision: u64) -> PastError {
    PastError::NotKept { revision }
}

/// What it takes to undo `changed`, which led to what is in force in `world`, and what of it stays as it is.
pub fn undo(world: &World, changed: Vec<Changed>) -> Result<Way, Vec<Problem>> {
    let (mut way, mut objects, mut expects) = (Way::default(), vec![], vec![]);
    for Changed { path, before, .. } in changed {
        // Written by a later version of the control plane, perhaps: what can not be judged is not passed over in silence.
        let key = Key::from_path(&path).ok_or_else(|| vec![unreadable(&path)])?;
        if STAYS.contains(&key.kind) {
            way.stays.push(key);
            continue;
        }
        let there = world.object(&key).map(|entry| Expect::Version(entry.changed()));
        match (before, there) {
            (Some(object), there) => {
                objects.push(object);
                expects.push(there.unwrap_or(Expect::Absent));
            }
            (None, Some(expect)) => way.writes.push(Write::Delete { key, expect }),
            (None, None) => {}
        }
    }
    let documents = spec::read_items(&json!({ "items": objects }).to_string())?;
    let put = documents.into_iter().zip(expects).map(|(document, expect)| Write::Put { document, expect });
    way.writes.extend(put);
    Ok(way)
}

/// What undoes some changes.
#[derive(Debug, Default)]
pub struct Way {
    /// What is written, each held to the version that is in force.
    pub writes: Vec<Write>,
    /// What differs and is not brought back.
    pub stays: Vec<Key>,
}

/// Kinds of which nothing is brought back: a rollback after an incident would undo what stopped the incident.
pub const STAYS: [Kind; 2] = [Kind::Denylist, Kind::BreakerOverride];

fn unreadable(path: &str) -> Problem {
    let message = format!("{path} is of a kind that this control plane does not know");
    Problem::error("", Code::Unsupported, message)
}

/// Why the past can not be told.
#[derive(Debug)]
pub enum PastError {
    /// This revision is no longer kept, or was never made.
    NotKept {
        /// Which.
        revision: u64,
    },
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for PastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKept { revision } => {
                write!(f, "revision {revision} is not kept, or was never made; the last {KEPT_REVISIONS} are")
            }
            Self::Store(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for PastError {}

impl From<StoreError> for PastError {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// So many revisions are read at a time: each holds the objects that it changed.
const PAGE: usize = 50;
