//! How the link to the control plane is doing, for `/ready`, `/config_dump` and the metrics.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use outrigger_wire::session::Rejected;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What the link tells. One writer, many readers.
#[derive(Debug, Default)]
pub struct LinkStatus {
    state: Mutex<State>,
    connections: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    connected: bool,
    revision: u64,
    applied_at: Option<SystemTime>,
    heard_at: Option<SystemTime>,
    rejected_total: u64,
    rejected: VecDeque<Rejected>,
    last_error: Option<String>,
    from_disk: bool,
}

impl LinkStatus {
    /// A stream was opened and answered on.
    pub fn connected(&self) {
        let mut state = self.state();
        state.heard_at = Some(SystemTime::now());
        if !std::mem::replace(&mut state.connected, true) {
            state.last_error = None;
            drop(state);
            self.connections.send_modify(|n| *n += 1);
        }
    }

    /// The stream ended, or could not be opened.
    pub fn disconnected(&self, why: &str) {
        let mut state = self.state();
        if std::mem::replace(&mut state.connected, false) {
            state.heard_at = Some(SystemTime::now());
        }
        state.last_error = Some(why.to_owned());
    }

    /// Something of `revision` was applied, but for what was `rejected`.
    pub fn applied(&self, revision: u64, rejected: &[Rejected]) {
        let mut state = self.state();
        state.revision = state.revision.max(revision);
        state.applied_at = Some(SystemTime::now());
        state.rejected_total += rejected.len() as u64;
        for one in rejected {
            state.rejected.retain(|r| r.name != one.name);
            state.rejected.push_back(one.clone());
        }
        while state.rejected.len() > SHOWN {
            state.rejected.pop_front();
        }
    }

    /// A resource that was refused before is in force in another form, or gone.
    pub fn recovered(&self, name: &str) {
        self.state().rejected.retain(|r| r.name != name);
    }

    /// What is served comes from the disk copy of `revision`.
    pub fn loaded_from_disk(&self, revision: u64) {
        let mut state = self.state();
        state.from_disk = true;
        state.revision = revision;
    }

    /// Counts connections; moves whenever the control plane is there again.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// Whether the link is up.
    pub fn is_connected(&self) -> bool {
        self.state().connected
    }

    /// The latest revision of which something was applied.
    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// Resources refused since the start.
    pub fn rejected_total(&self) -> u64 {
        self.state().rejected_total
    }

    /// Resources that are refused now, as far as they are remembered.
    pub fn rejected_now(&self) -> usize {
        self.state().rejected.len()
    }

    /// When something was applied last.
    pub fn applied_at(&self) -> Option<SystemTime> {
        self.state().applied_at
    }

    /// When the control plane was there last.
    pub fn heard_at(&self) -> Option<SystemTime> {
        self.state().heard_at
    }

    /// All of it as JSON.
    pub fn dump(&self) -> Value {
        let state = self.state();
        let rejected: Vec<Value> = state
            .rejected
            .iter()
            .map(|r| json!({"name": r.name, "version": r.version, "reason": r.reason}))
            .collect();
        json!({
            "connected": state.connected,
            "connections": *self.connections.borrow(),
            "revision": state.revision,
            "startedFromDisk": state.from_disk,
            "lastError": state.last_error,
            "rejected": rejected,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many refused resources are shown.
const SHOWN: usize = 64;
