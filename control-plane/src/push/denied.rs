//! Revoked identities, as the denylists that are published say: they get no certificate, and their streams end.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use outrigger_mesh::{Resource, ResourceName, ServiceName, SpiffeId};

use crate::compile::ResourceChange;

/// Who is revoked. All lists hold together.
#[derive(Debug, Default)]
pub(super) struct Denied(RwLock<HashMap<ServiceName, Vec<SpiffeId>>>);

impl Denied {
    /// Takes note of what is published; answers whether a list came or went.
    pub(super) fn take_note(&self, changes: &[ResourceChange]) -> bool {
        let mut any = false;
        for change in changes {
            let lists = || self.0.write().unwrap_or_else(PoisonError::into_inner);
            match change {
                ResourceChange::Set(Resource::Denylist(list)) => {
                    lists().insert(list.name.clone(), list.identities.clone());
                    any = true;
                }
                ResourceChange::Remove(ResourceName::Denylist(name)) => {
                    lists().remove(name);
                    any = true;
                }
                _ => {}
            }
        }
        any
    }

    pub(super) fn holds(&self, identity: &SpiffeId) -> bool {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lists.values().any(|list| list.contains(identity))
    }
}
