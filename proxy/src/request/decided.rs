//! What is decided of a request once, before its first attempt, from its head: the backend that a partition or a key
//! names, and on which side of a service that is divided between two versions it is. Retries keep to it.
//!
//! Whether what was decided can be reached at the moment of an attempt is asked in `request/choose.rs`.

use outrigger_mesh::{Division, HashKey, Part, SpiffeId, Version, key_hash};

use crate::config::routes::{Asks, RoutePlan};
use crate::config::snapshot::ServiceSnapshot;
use crate::live::Live;
use crate::request::dispatch::{Arrived, Routed};

/// What is decided of a request or a connection.
#[derive(Debug, Default)]
pub struct Decided {
    /// The place of the backend that a partition names: that one or none.
    pub backend: Option<usize>,
    /// The hash of the key by which a backend is chosen.
    pub key: Option<u64>,
    parts: Vec<Parted>,
}

/// The side of a divided service that was decided on.
#[derive(Debug)]
struct Parted {
    target: usize,
    version: Version,
    other: Version,
    /// Whether the other side is a candidate that gets nothing.
    alone: bool,
}

impl Decided {
    /// Nothing.
    pub const NOTHING: Self = Self { backend: None, key: None, parts: Vec::new() };

    /// Decides on a request.
    pub fn of(routed: &Routed, arrived: &mut Arrived, live: &Live) -> Self {
        let mut decided = Self::NOTHING;
        if routed.instance.is_some() {
            return decided;
        }
        if let Some(chosen) = &routed.plan.chosen {
            let head = arrived.head(live);
            let backend = |p: &outrigger_mesh::Partition| p.backend(&head.key(&p.key)?);
            decided.backend = chosen.partition.as_ref().and_then(backend);
            decided.key = chosen.by.as_ref().and_then(|by| Some(key_hash(&head.key(by)?)));
        }
        decided.divide(&routed.plan, &routed.snapshot, |division| {
            arrived.learn(live, Asks::of_division(division));
            division.part(&arrived.head(live), fastrand::u64(..))
        });
        decided
    }

    /// Decides on a connection of `caller`, which has no head: by its caller where that is the key, else by chance.
    pub fn of_connection(plan: &RoutePlan, snapshot: &ServiceSnapshot, caller: Option<&SpiffeId>) -> Self {
        let mut decided = Self::NOTHING;
        decided.divide(plan, snapshot, |division| {
            let by_caller = division.by == Some(HashKey::SourceIdentity);
            let key = caller.filter(|_| by_caller).map(|id| id.to_string().into_bytes());
            division.part_of(key.as_deref(), fastrand::u64(..))
        });
        decided
    }

    fn divide(
        &mut self,
        plan: &RoutePlan,
        snapshot: &ServiceSnapshot,
        mut part: impl FnMut(&Division) -> Part,
    ) {
        let whole =
            |target: &crate::config::routes::Target| target.version.is_none() && target.unresolved.is_none();
        for (at, target) in plan.targets.iter().enumerate().filter(|(_, target)| whole(target)) {
            let mut decide = |division: &Division| {
                let part = part(division);
                let (version, other) = (division.version(part), division.version(part.other()));
                let alone = division.share == 0 && part == Part::Stable;
                self.parts.push(Parted { target: at, version: version.clone(), other: other.clone(), alone });
            };
            match &target.service {
                None => snapshot.service.division.iter().for_each(&mut decide),
                Some(other) => {
                    let other = other.snapshot.load();
                    other.iter().filter_map(|s| s.service.division.as_ref()).for_each(&mut decide);
                }
            }
        }
    }

    /// The version that a target means: its side of the division, or the other one where only that can be reached.
    pub fn version(&self, target: usize, reached: impl Fn(&Version) -> bool) -> Option<&Version> {
        let Parted { version, other, .. } = self.parted(target)?;
        Some(if !reached(version) && reached(other) { other } else { version })
    }

    /// Whether a target is a divided service.
    pub fn is_divided(&self, target: usize) -> bool {
        self.parted(target).is_some()
    }

    /// Whether who was at `version` of a target before may stay there: not at a candidate that gets nothing, or nothing any
    /// more, unless this is a preview of it.
    pub fn keeps(&self, target: usize, version: Option<&Version>) -> bool {
        self.parted(target).is_none_or(|parted| !parted.alone || version != Some(&parted.other))
    }

    fn parted(&self, target: usize) -> Option<&Parted> {
        self.parts.iter().find(|parted| parted.target == target)
    }
}
