//! By what a backend of a route is chosen, beside chance.

use std::sync::Arc;

use crate::policy::{HashKey, Sticky};

/// By what a backend is chosen. The session comes first, then the partition, then the key, then chance by weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Requests with one key go to one backend, by weight; as a weight grows, keys come to it and none goes away.
    /// Requests without the key go by chance.
    pub by: Option<HashKey>,
    /// Requests go by ranges of a key.
    pub partition: Option<Partition>,
    /// Callers stay where they were, in place of what the service says of that (session persistence).
    pub session: Option<Sticky>,
}

impl Choice {
    pub(super) fn looks_at_claims(&self) -> bool {
        let keys = self.by.iter().chain(self.partition.iter().map(|p| &p.key));
        keys.into_iter().any(|key| matches!(key, HashKey::Claim(_)))
    }

    pub(super) fn looks_at_source(&self) -> bool {
        let mut keys = self.by.iter().chain(self.partition.iter().map(|p| &p.key));
        keys.any(|key| *key == HashKey::SourceIdentity)
    }

    pub(super) fn check(&self, backends: usize) -> Result<(), String> {
        let ranges = self.partition.iter().flat_map(|p| &p.ranges);
        for range in ranges.clone() {
            if range.backend >= backends {
                return Err("a range of its partition leads to a backend that is not there".into());
            }
            if let (Some(from), Some(to)) = (&range.from, &range.to)
                && from > to
                && !from.starts_with(&**to)
            {
                return Err(format!("nothing lies from {from:?} to {to:?}"));
            }
        }
        if ranges.count() > Partition::MAX_RANGES {
            return Err(format!("a partition has at most {} ranges", Partition::MAX_RANGES));
        }
        Ok(())
    }
}

/// Requests go by ranges of a key: users a to m here, n to z there. A request without the key, or with one in no range,
/// goes by weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// The key.
    pub key: HashKey,
    /// The ranges; the first that holds a key counts.
    pub ranges: Vec<KeyRange>,
}

impl Partition {
    /// The most ranges of a partition.
    pub const MAX_RANGES: usize = 256;

    /// The backend of a key.
    pub fn backend(&self, key: &[u8]) -> Option<usize> {
        self.ranges.iter().find(|range| range.holds(key)).map(|range| range.backend)
    }
}

/// A range of keys, compared byte by byte, both ends within: everything that begins with the end belongs to it, so that
/// `a` to `m` holds `mike`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it begins; none: with the first.
    pub from: Option<Arc<str>>,
    /// Where it ends; none: with the last.
    pub to: Option<Arc<str>>,
    /// The number of the backend in its route.
    pub backend: usize,
}

impl KeyRange {
    fn holds(&self, key: &[u8]) -> bool {
        let begun = self.from.as_ref().is_none_or(|from| key >= from.as_bytes());
        let over = |to: &Arc<str>| key > to.as_bytes() && !key.starts_with(to.as_bytes());
        begun && !self.to.as_ref().is_some_and(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_both_its_ends() {
        let range = |from: &str, to: &str, backend| KeyRange {
            from: Some(from.into()),
            to: Some(to.into()),
            backend,
        };
        let key = HashKey::Header(http::HeaderName::from_static("x-user"));
        let partition = Partition { key, ranges: vec![range("a", "m", 0), range("n", "z", 1)] };
        for (key, expected) in [
            ("ada", Some(0)),
            ("mike", Some(0)),
            ("n", Some(1)),
            ("zzz", Some(1)),
            ("7", None),
            ("", None),
            ("{", None),
        ] {
            assert_eq!(partition.backend(key.as_bytes()), expected, "{key}");
        }
    }
}
