//! Who issues tokens, with what keys, and what is revoked: as it was pushed, arranged for requests.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use outrigger_certs::jwt::{Arranged, Keys};
use outrigger_mesh::{Denylist, Issuer, IssuerName, ServiceName, SpiffeId};
use tokio::sync::watch;

/// What is known of tokens. Changed as a whole; requests read the value they took.
#[derive(Debug)]
pub struct Known {
    now: ArcSwap<Arranged>,
    pushed: Mutex<Pushed>,
    changed: watch::Sender<u64>,
    /// Issuers of which a token named a key that is not known: the control plane is told with the next report.
    wanted: Mutex<BTreeSet<IssuerName>>,
}

/// What was pushed.
#[derive(Debug, Default)]
struct Pushed {
    issuers: HashMap<IssuerName, Arc<Keys>>,
    lists: HashMap<ServiceName, Denylist>,
}

impl Default for Known {
    fn default() -> Self {
        let (pushed, wanted) = (Mutex::default(), Mutex::default());
        Self { now: ArcSwap::default(), pushed, changed: watch::Sender::new(0), wanted }
    }
}

impl Known {
    /// What is known now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Arranged>> {
        self.now.load()
    }

    /// Wakes on every change: whoever has connections of revoked workloads looks through them.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the identity of a workload is revoked.
    pub fn is_revoked(&self, identity: &SpiffeId) -> bool {
        self.now.load().is_revoked(identity)
    }

    /// Puts an issuer in place of the one of its name.
    pub fn set_issuer(&self, issuer: Issuer) {
        self.change(|pushed| drop(pushed.issuers.insert(issuer.name.clone(), Arc::new(Keys::new(issuer)))));
    }

    /// Takes an issuer away.
    pub fn remove_issuer(&self, name: &IssuerName) {
        self.change(|pushed| drop(pushed.issuers.remove(name)));
    }

    /// Puts a list of what is revoked in place of the one of its name.
    pub fn set_denylist(&self, list: Denylist) {
        self.change(|pushed| drop(pushed.lists.insert(list.name.clone(), list)));
    }

    /// Takes a list of what is revoked away.
    pub fn remove_denylist(&self, name: &ServiceName) {
        self.change(|pushed| drop(pushed.lists.remove(name)));
    }

    /// Notes that newer keys of an issuer are wanted.
    pub fn want_keys(&self, name: &IssuerName) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        // There are as many as this sidecar was told of.
        if !wanted.contains(name) {
            wanted.insert(name.clone());
        }
    }

    /// The issuers whose newer keys are wanted since the last time.
    pub fn take_wanted(&self) -> Vec<IssuerName> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *wanted).into_iter().collect()
    }

    fn change(&self, change: impl FnOnce(&mut Pushed)) {
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pushed);
        let generation = self.now.load().generation + 1;
        let arranged = Arranged::new(generation, pushed.issuers.clone(), pushed.lists.values());
        self.now.store(Arc::new(arranged));
        drop(pushed);
        self.changed.send_replace(generation);
    }
}
