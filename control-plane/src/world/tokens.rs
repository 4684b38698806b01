//! What is said of tokens, and the keys that were fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_mesh::{Denylist, Issuer, IssuerKeys, IssuerName, ServiceName, TokenKey};

use super::{Entry, World};
use crate::check::{CheckedIssuer, CheckedTokenPolicy};
use crate::jwks::Source;
use crate::spec::Key;

/// There are few policies for tokens, so that they need no shards; a copy costs what they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    pub(super) policies: BTreeMap<Key, Arc<Entry<CheckedTokenPolicy>>>,
    pub(super) lists: BTreeMap<Key, Arc<Entry<Denylist>>>,
    of_service: BTreeMap<ServiceName, Key>,
    /// What was fetched, by the key of its source; what was kept from before is here from the start.
    fetched: Arc<BTreeMap<String, Vec<TokenKey>>>,
}

impl World {
    /// The policy for tokens of a service.
    pub fn token_policy_of(&self, service: &ServiceName) -> Option<&Arc<Entry<CheckedTokenPolicy>>> {
        self.tokens.policies.get(self.tokens.of_service.get(service)?)
    }

    /// One policy for tokens.
    pub fn token_policy(&self, key: &Key) -> Option<&Arc<Entry<CheckedTokenPolicy>>> {
        self.tokens.policies.get(key)
    }

    /// One list of what is revoked.
    pub fn denylist(&self, name: &ServiceName) -> Option<&Denylist> {
        self.tokens.lists.values().map(|e| &e.checked).find(|list| list.name == *name)
    }

    /// Every list of what is revoked.
    pub fn denylists(&self) -> impl Iterator<Item = &Denylist> {
        self.tokens.lists.values().map(|e| &e.checked)
    }

    /// Every issuer that a policy names.
    pub fn issuers(&self) -> impl Iterator<Item = &CheckedIssuer> {
        self.tokens.policies.values().flat_map(|e| &e.checked.issuers)
    }

    /// An issuer with the keys that are known of it.
    pub fn issuer(&self, name: &IssuerName) -> Option<Issuer> {
        let checked = self.issuers().find(|i| i.name == *name)?;
        let keys = match &checked.source {
            None => checked.inline.clone(),
            Some(source) => match self.tokens.fetched.get(&source.key()) {
                Some(keys) if !keys.is_empty() => IssuerKeys::Known(keys.clone()),
                _ => IssuerKeys::Missing,
            },
        };
        Some(Issuer { name: name.clone(), iss: checked.iss.clone(), keys })
    }

    /// Puts keys in force that were fetched. The policies whose issuers have them; none where they are as they were.
    pub(crate) fn put_keys(&mut self, source: &Source, keys: Vec<TokenKey>) -> Vec<Key> {
        let key = source.key();
        if keys.is_empty() || self.tokens.fetched.get(&key) == Some(&keys) {
            return vec![];
        }
        Arc::make_mut(&mut self.tokens.fetched).insert(key, keys);
        let named = |e: &&Arc<Entry<CheckedTokenPolicy>>| {
            e.checked.issuers.iter().any(|issuer| issuer.source.as_ref() == Some(source))
        };
        self.tokens.policies.values().filter(named).map(|e| e.object.key()).collect()
    }

    /// Takes what was fetched before.
    pub(crate) fn remember_keys(&mut self, kept: BTreeMap<String, Vec<TokenKey>>) {
        self.tokens.fetched = Arc::new(kept);
    }

    /// Puts a policy for tokens in place of the one of its name.
    pub(crate) fn put_token_policy(&mut self, entry: Entry<CheckedTokenPolicy>) {
        let key = entry.object.key();
        self.remove_token_policy(&key);
        for service in &entry.checked.services {
            self.tokens.of_service.insert(service.clone(), key.clone());
        }
        self.tokens.policies.insert(key, Arc::new(entry));
    }

    /// Takes a policy for tokens away.
    pub(crate) fn remove_token_policy(&mut self, key: &Key) {
        if self.tokens.policies.remove(key).is_some() {
            self.tokens.of_service.retain(|_, own| own != key);
        }
    }

    /// Puts a list of what is revoked in place of the one of its name.
    pub(crate) fn put_denylist(&mut self, entry: Entry<Denylist>) {
        self.tokens.lists.insert(entry.object.key(), Arc::new(entry));
    }

    /// Takes a list of what is revoked away.
    pub(crate) fn remove_denylist(&mut self, key: &Key) {
        self.tokens.lists.remove(key);
    }
}
