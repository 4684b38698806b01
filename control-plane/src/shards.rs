//! A map that is cheap to copy and to change: it shares what did not change with the map it was copied from.
//!
//! The world is a value, and a new one is made for every change. With one plain map a change among 10,000 services
//! would copy 10,000 entries; here it copies one shard of them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

const SHARDS: usize = 256;

/// A map in shards. Copies share every shard until one of them changes it.
#[derive(Debug)]
pub(crate) struct Shards<K, V> {
    parts: Vec<Arc<HashMap<K, V>>>,
    hasher: RandomState,
    len: usize,
}

impl<K: Clone + Eq + Hash + Ord, V: Clone> Shards<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.parts[self.shard_of(key)].get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.shard_of(&key);
        let before = Arc::make_mut(&mut self.parts[shard]).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let shard = self.shard_of(key);
        self.parts[shard].get(key)?;
        let before = Arc::make_mut(&mut self.parts[shard]).remove(key);
        self.len -= usize::from(before.is_some());
        before
    }

    /// Changes the value of `key`, beginning with the default; a value that is `empty` then is removed.
    pub(crate) fn update<R>(
        &mut self,
        key: &K,
        change: impl FnOnce(&mut V) -> R,
        empty: impl FnOnce(&V) -> bool,
    ) where
        V: Default,
    {
        let shard = self.shard_of(key);
        // In its place: a value that is shared with nobody is changed without being copied.
        let part = Arc::make_mut(&mut self.parts[shard]);
        let Some(value) = part.get_mut(key) else {
            let mut value = V::default();
            change(&mut value);
            if !empty(&value) {
                self.insert(key.clone(), value);
            }
            return;
        };
        change(value);
        if empty(value) {
            part.remove(key);
            self.len -= 1;
        }
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|shard| shard.iter())
    }

    /// All entries, in the order of their keys.
    pub(crate) fn sorted(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_unstable_by(|a, b| a.0.cmp(b.0));
        all
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits of a hash are as good as any others")]
    fn shard_of(&self, key: &K) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), hasher: self.hasher.clone(), len: self.len }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let parts = (0..SHARDS).map(|_| Arc::default()).collect();
        Self { parts, hasher: RandomState::new(), len: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_later_changes_and_shares_the_rest() {
        let mut map = Shards::default();
        for i in 0..1_000 {
            map.insert(i, i);
        }
        let copy = map.clone();
        map.insert(7, 0);
        map.remove(&8);
        assert_eq!((copy.get(&7), copy.get(&8), copy.len()), (Some(&7), Some(&8), 1_000));
        assert_eq!((map.get(&7), map.get(&8), map.len()), (Some(&0), None, 999));
        let shared = copy.parts.iter().zip(&map.parts).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "{shared}");
        assert!(map.sorted().is_sorted());
    }

    #[test]
    fn a_value_that_nobody_shares_is_changed_where_it_is() {
        let mut map: Shards<u8, Arc<Vec<u8>>> = Shards::default();
        let push = |of: &mut Arc<Vec<u8>>| Arc::make_mut(of).push(7);
        map.update(&1, push, |of| of.is_empty());
        let before = Arc::as_ptr(&map.parts[map.shard_of(&1)][&1]);
        map.update(&1, push, |of| of.is_empty());
        assert_eq!(Arc::as_ptr(&map.parts[map.shard_of(&1)][&1]), before);
        let copy = map.clone();
        map.update(&1, push, |of| of.is_empty());
        assert_eq!((copy.get(&1).unwrap().len(), map.get(&1).unwrap().len()), (2, 3));
    }

    #[test]
    fn what_becomes_empty_is_removed() {
        let mut map: Shards<u8, Vec<u8>> = Shards::default();
        map.update(&1, |v| v.push(2), Vec::is_empty);
        assert_eq!(map.len(), 1);
        map.update(&1, Vec::clear, Vec::is_empty);
        assert_eq!((map.len(), map.get(&1)), (0, None));
        map.update(&1, Vec::clear, Vec::is_empty);
        assert_eq!((map.len(), map.get(&1)), (0, None));
    }
}
