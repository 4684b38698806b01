//! Every certificate that was signed and has not expired: who holds it, of which root it is, and what its holder knows.
//!
//! A holder is a process: its first certificate and all renewals of it. What was signed and never shown may never have
//! arrived. A certificate is in use until it has expired and a little longer, whatever its holder has shown since:
//! connections stand on it that were made with it.
//!
//! Pure: what it changed is taken by the `keeper`, which stores it.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_mesh::SpiffeId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Leaf {
    /// The SHA-256 of the certificate, in hex: its name here.
    pub sha256: String,
    /// Its serial number, in hex.
    pub serial: String,
    /// For whom it is.
    pub identity: String,
    /// The first certificate of the process that holds it.
    pub holder: String,
    /// The SHA-256 of its root.
    pub root: String,
    /// What was shown for it.
    pub by: Attested,
    /// From where it was asked for.
    pub from: String,
    /// When it was signed.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub issued: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub not_after: OffsetDateTime,
    /// Its place among all that were ever signed.
    pub order: u64,
    /// When its holder last connected with it.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub seen: Option<OffsetDateTime>,
    /// The version of the roots that its holder has acknowledged, or was given together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
}

impl Leaf {
    /// Until when connections over HTTP may stand on it. They begin to end before it expires, and what is under way on them
    /// may take [`FINISH`] longer. Of a certificate that lives for less than [`SHORT`], as only tests make them, it is a tenth
    /// of its life.
    pub fn in_use_until(&self) -> OffsetDateTime {
        let life: time::Duration = self.not_after - self.issued;
        self.not_after + if life < SHORT { life.max(time::Duration::ZERO) / 10 } else { FINISH }
    }
}

/// As long as sidecars let a request finish on a connection that ends.
const FINISH: time::Duration = time::Duration::minutes(30);
const SHORT: time::Duration = time::Duration::minutes(59);

/// What was shown for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attested {
    /// A join token.
    JoinToken,
    /// The certificate before it.
    Renewal,
    /// A token of Kubernetes.
    Kubernetes,
    /// An operator asked for files: who holds them never connects.
    Files,
    /// It was not in the account when somebody connected with it: an earlier version signed it, or the store is older.
    Earlier,
}

/// Somebody who keeps a gate closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// Who.
    pub identity: String,
    /// The certificate, as [`Leaf::sha256`].
    pub certificate: String,
    /// From where it was asked for.
    pub from: String,
    /// Until when it is in use, if nothing else happens.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
    /// Whether it is connected now.
    pub connected: bool,
    /// What is missing.
    pub why: String,
}

/// Why a certificate can not be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Of one process.
    #[error("this process holds {MAX_OF_HOLDER} certificates that are still valid: it asks too often")]
    OfHolder,
    /// Of one identity.
    #[error("{MAX_OF_IDENTITY} certificates of this identity are still valid: there can be no more")]
    OfIdentity,
    /// Of the mesh.
    #[error("{MAX} certificates are valid: this control plane keeps account of no more")]
    OfMesh,
}

/// The account of certificates.
#[derive(Debug, Default)]
pub struct Ledger {
    leaves: BTreeMap<String, Leaf>,
    holders: BTreeMap<String, BTreeSet<String>>,
    of_identity: BTreeMap<String, usize>,
    changed: BTreeSet<String>,
    last: u64,
}

/// As many valid certificates of a mesh are kept account of.
pub const MAX: usize = 200_000;
/// Of one identity: a service account may have very many instances.
pub const MAX_OF_IDENTITY: usize = 50_000;
/// Of one process: it renews at half life, so four would do.
pub const MAX_OF_HOLDER: usize = 16;

impl Ledger {
    /// The account as it was kept.
    pub fn of_kept(leaves: impl IntoIterator<Item = Leaf>) -> Self {
        let mut ledger = Self::default();
        for leaf in leaves {
            ledger.put(leaf);
        }
        ledger
    }

    /// The holder of what comes next: that of the certificate before it, or a new one.
    pub fn holder_of(&self, before: Option<&str>) -> Option<String> {
        before.map(|sha256| self.leaves.get(sha256).map_or(sha256.to_owned(), |leaf| leaf.holder.clone()))
    }

    /// Whether one more may be signed.
    pub fn room(&self, identity: &SpiffeId, holder: Option<&str>) -> Result<(), Full> {
        let of_holder = holder.and_then(|holder| self.holders.get(holder)).map_or(0, BTreeSet::len);
        if of_holder >= MAX_OF_HOLDER {
            return Err(Full::OfHolder);
        }
        if self.of_identity.get(&identity.to_string()).is_some_and(|n| *n >= MAX_OF_IDENTITY) {
            return Err(Full::OfIdentity);
        }
        if self.leaves.len() >= MAX { Err(Full::OfMesh) } else { Ok(()) }
    }

    /// Enters a certificate and gives it its place.
    pub fn enter(&mut self, mut leaf: Leaf) -> Leaf {
        leaf.order = self.last + 1;
        self.put(leaf.clone());
        leaf
    }

    /// Enters one as another control plane has stored it. What changed here and is not stored yet stays.
    pub fn merge(&mut self, leaf: Leaf) {
        if !self.changed.contains(&leaf.sha256) {
            self.put(leaf);
        }
    }

    /// Takes one out: it expired, or was never handed out.
    pub fn remove(&mut self, sha256: &str) {
        let Some(leaf) = self.leaves.remove(sha256) else { return };
        self.changed.remove(sha256);
        if let Some(all) = self.holders.get_mut(&leaf.holder) {
            all.remove(sha256);
            if all.is_empty() {
                self.holders.remove(&leaf.holder);
            }
        }
        if let Some(count) = self.of_identity.get_mut(&leaf.identity) {
            *count -= 1;
            if *count == 0 {
                self.of_identity.remove(&leaf.identity);
            }
        }
    }

    /// A handshake showed this certificate.
    pub fn seen(&mut self, sha256: &str, now: OffsetDateTime) {
        if let Some(leaf) = self.leaves.get_mut(sha256) {
            leaf.seen = Some(now);
            self.changed.insert(sha256.to_owned());
        }
    }

    /// Who connected with this certificate obeys this version of the roots.
    pub fn acknowledged(&mut self, sha256: &str, trust: &str) {
        if let Some(leaf) = self.leaves.get_mut(sha256)
            && leaf.trust.as_deref() != Some(trust)
        {
            leaf.trust = Some(trust.to_owned());
            self.changed.insert(sha256.to_owned());
        }
    }

    /// What has expired by `now`, and is not in use any more, taken out.
    pub fn sweep(&mut self, now: OffsetDateTime) -> Vec<String> {
        let expired = self.leaves.values().filter(|leaf| leaf.in_use_until() <= now);
        let expired: Vec<_> = expired.map(|leaf| leaf.sha256.clone()).collect();
        for sha256 in &expired {
            self.remove(sha256);
        }
        expired
    }

    /// What changed since the last time, `most` at most.
    pub fn take_changed(&mut self, most: usize) -> Vec<Leaf> {
        let mut taken = vec![];
        while taken.len() < most
            && let Some(name) = self.changed.pop_first()
        {
            taken.extend(self.leaves.get(&name).cloned());
        }
        taken
    }

    /// They were not stored: they have changed still.
    pub fn put_back(&mut self, leaves: &[Leaf]) {
        self.changed.extend(leaves.iter().map(|leaf| leaf.sha256.clone()));
    }

    /// One certificate.
    pub fn get(&self, sha256: &str) -> Option<&Leaf> {
        self.leaves.get(sha256)
    }

    /// All of them, those too that have just expired.
    pub fn all(&self) -> impl Iterator<Item = &Leaf> {
        self.leaves.values()
    }

    /// Whether its holder was given a later certificate of another root, before `since`.
    pub fn has_successor(&self, sha256: &str, since: OffsetDateTime) -> bool {
        let Some(leaf) = self.leaves.get(sha256) else { return false };
        let later = |other: &Leaf| other.order > leaf.order && other.root != leaf.root;
        self.of(&leaf.holder).any(|other| later(other) && other.issued < since)
    }

    /// Holders of a valid certificate that have not acknowledged this version of the roots.
    pub fn without_trust(&self, trust: &str, now: OffsetDateTime) -> Vec<&Leaf> {
        let knows = |leaf: &&Leaf| {
            let arrived = leaf.seen.is_some() || leaf.sha256 == leaf.holder;
            arrived && leaf.trust.as_deref() == Some(trust)
        };
        let holders = self.holders.keys().filter(|holder| !self.of(holder).any(|leaf| knows(&leaf)));
        holders.filter_map(|holder| self.latest(holder, now)).collect()
    }

    /// Holders whose latest certificate is of this root, and valid.
    pub fn latest_of(&self, root: &str, now: OffsetDateTime) -> Vec<&Leaf> {
        let latest = self.holders.keys().filter_map(|holder| self.latest(holder, now));
        latest.filter(|leaf| leaf.root == root).collect()
    }

    /// Certificates of this root on which connections may stand.
    pub fn in_use_of(&self, root: &str) -> Vec<&Leaf> {
        self.leaves.values().filter(|leaf| leaf.root == root).collect()
    }

    /// The latest of those that are valid: what was signed later, and never shown, may have been for a shorter life.
    fn latest(&self, holder: &str, now: OffsetDateTime) -> Option<&Leaf> {
        self.of(holder).filter(|leaf| leaf.not_after > now).max_by_key(|leaf| leaf.order)
    }

    fn of<'a>(&'a self, holder: &str) -> impl Iterator<Item = &'a Leaf> {
        let names = self.holders.get(holder);
        names.into_iter().flatten().filter_map(|name| self.leaves.get(name))
    }

    fn put(&mut self, leaf: Leaf) {
        self.remove(&leaf.sha256);
        self.last = self.last.max(leaf.order);
        self.holders.entry(leaf.holder.clone()).or_default().insert(leaf.sha256.clone());
        *self.of_identity.entry(leaf.identity.clone()).or_default() += 1;
        self.leaves.insert(leaf.sha256.clone(), leaf);
    }
}
