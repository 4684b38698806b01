//! The recent changes of a space, for those who watch it.
//!
//! Watchers pull from one bounded ring, so a slow one costs nothing and delays nobody: it is told that what it wanted
//! is gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{KEPT_CHANGES, Record};

/// What one commit changed in a space.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The space's count after it.
    pub position: u64,
    /// The records by key; `None` where one was deleted.
    pub records: Vec<(String, Option<Record>)>,
}

/// The changes asked for are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changes after {after} are no longer kept")]
pub struct Compacted {
    /// After which count changes were asked for.
    pub after: u64,
}

/// The changes of a space, in order, without gaps.
#[derive(Debug)]
pub struct Watch {
    after: u64,
    log: Arc<ChangeLog>,
    position: watch::Receiver<u64>,
}

impl Watch {
    /// The next change, once there is one. Cancel safe.
    pub async fn next(&mut self) -> Result<Arc<Change>, Compacted> {
        loop {
            self.position.borrow_and_update();
            if let Some(change) = self.log.first_after(self.after)? {
                self.after = change.position;
                return Ok(change);
            }
            if self.position.changed().await.is_err() {
                // The store is gone: there will be no more changes, and nobody left to ask.
                return Err(Compacted { after: self.after });
            }
        }
    }
}

/// The ring behind the watches of one space.
#[derive(Debug)]
pub(super) struct ChangeLog {
    /// Each change with the count before it: a count may leap.
    ring: Mutex<VecDeque<(u64, Arc<Change>)>>,
    position: watch::Sender<u64>,
}

impl ChangeLog {
    /// A log that begins at `position`.
    pub(super) fn new(position: u64) -> Arc<Self> {
        Arc::new(Self { ring: Mutex::default(), position: watch::Sender::new(position) })
    }

    pub(super) fn watch(self: &Arc<Self>, after: u64) -> Watch {
        Watch { after, log: self.clone(), position: self.position.subscribe() }
    }

    /// The count after the last change.
    pub(super) fn position(&self) -> u64 {
        *self.position.borrow()
    }

    pub(super) fn push(&self, change: Change) {
        let position = change.position;
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT_CHANGES {
            ring.pop_front();
        }
        let before = self.position.send_replace(position);
        ring.push_back((before, Arc::new(change)));
    }

    /// Forgets everything before `position`: what happened until then was not seen here.
    pub(super) fn restart(&self, position: u64) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.position.send_replace(position);
    }

    fn first_after(&self, after: u64) -> Result<Option<Arc<Change>>, Compacted> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let position = *self.position.borrow();
        let kept_from = ring.front().map_or(position, |(before, _)| *before);
        if after < kept_from || after > position {
            return Err(Compacted { after });
        }
        Ok(ring.iter().find(|(_, c)| c.position > after).map(|(_, c)| Arc::clone(c)))
    }
}
