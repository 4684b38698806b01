//! What the store keeps of the authority: keys and certificates, and a change of the root that is under way. One record,
//! so that a change is whole or absent; two control planes that make one at the same time end up with one.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_certs::{Authority, AuthorityPems, RootHash};
use outrigger_mesh::{Trust, TrustDomain};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::ledger::Leaf;
use super::rotation::{Rotation, Signer};
use crate::audit::{AuditEntry, Author};
use crate::store::{CommitError, Expect, Space, Store, StoreError, StoreErrorKind, Transaction, Write};

/// The record. It has no `Debug`: it holds private keys.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    /// The authority that signs, or signed when a change of the root began.
    pub(super) current: Held,
    /// The one that shall sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Held>,
    /// Signed by one root for the intermediate of the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) bridges: Vec<Bridge>,
    /// The change that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rotation: Option<Rotation>,
    /// The last change that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<Ended>,
    /// The version of the record in the store.
    #[serde(skip)]
    version: Option<u64>,
    /// What was read from files, while this process runs.
    #[serde(skip)]
    pub(super) given: Vec<Arc<Authority>>,
}

/// One authority, as far as the store holds it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Held {
    /// Made here: all of it, as [`AuthorityPems::to_text`].
    Made(String),
    /// Given as files, which keep the keys: its root alone, base64 of DER.
    Given {
        /// The root.
        root: String,
    },
}

/// How a change of the root ended.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ended {
    pub(super) rotation: Rotation,
    /// `completed` or `aborted`.
    pub(super) outcome: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) at: OffsetDateTime,
}

/// A certificate for an intermediate, signed by another root than its own, base64 of DER, with that root.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bridge {
    /// The SHA-256 of the intermediate's own certificate.
    of: String,
    certificate: String,
    root: String,
}

/// What of it is in force at a moment.
pub(super) struct InForce {
    /// Signs.
    pub(super) authority: Arc<Authority>,
    /// Whether it is given as files.
    pub(super) given: bool,
    /// Whom the mesh believes.
    pub(super) trust: Trust,
    /// What the control plane shows besides its own leaf and what is above it, DER.
    pub(super) bridges: Vec<Vec<u8>>,
}

impl Kept {
    /// The record of `store`. Where there is none, the authority in `folder`, made there if need be, goes into the store,
    /// and its file away.
    pub(super) async fn open(
        store: &dyn Store,
        folder: &Path,
        trust_domain: &TrustDomain,
    ) -> anyhow::Result<Self> {
        if let Some(kept) = Self::read(store).await? {
            kept.needs_no_files()?;
            kept.in_force(trust_domain)?;
            return Ok(kept);
        }
        // Makes the folder and proves what is in it.
        Authority::open_or_create(folder, trust_domain)?;
        let file = folder.join("authority.pem");
        let current = zeroize::Zeroizing::new(std::fs::read_to_string(&file)?);
        let kept = Self::of(Held::Made(current.to_string())).create(store).await?;
        kept.needs_no_files()?;
        kept.in_force(trust_domain)?;
        std::fs::remove_file(&file)?;
        Ok(kept)
    }

    /// The first one of a mesh.
    pub(super) fn of(current: Held) -> Self {
        let (rotation, last, version) = (None, None, None);
        Self { current, next: None, bridges: vec![], rotation, last, version, given: vec![] }
    }

    /// Stores the first one. Where another control plane was faster its authority is the mesh's.
    pub(super) async fn create(self, store: &dyn Store) -> anyhow::Result<Self> {
        let author = Author::system("the mesh had no authority");
        let audit = AuditEntry::new(&author, "create", "the certificate authority");
        match self.commit(store, &author, vec![audit]).await {
            Ok(kept) => Ok(kept),
            Err(CommitError::Store(e)) => Err(e.into()),
            Err(CommitError::Conflict { .. }) => {
                Ok(Self::read(store).await?.ok_or_else(|| fault("it came and went"))?)
            }
        }
    }

    pub(super) async fn read(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let Some(record) = store.get(Space::Certificates, KEY).await? else { return Ok(None) };
        // What serde says may quote the value.
        let kept = Self::deserialize(&record.value).map_err(|_| fault("it is not what was written"))?;
        Ok(Some(Self { version: Some(record.changed), ..kept }))
    }

    /// Which version of the record this is.
    pub(super) fn version(&self) -> Option<u64> {
        self.version
    }

    /// Puts this in the place of the one it was made from.
    pub(super) async fn commit(
        mut self,
        store: &dyn Store,
        author: &Author,
        audit: Vec<AuditEntry>,
    ) -> Result<Self, CommitError> {
        let value = serde_json::to_value(&self).map_err(|_| fault("it can not be written"))?;
        let expect = self.version.map_or(Expect::Absent, Expect::Version);
        let write = Write { space: Space::Certificates, key: KEY.into(), value: Some(value), expect };
        let transaction = Transaction { author: author.clone(), writes: vec![write], audit };
        let committed = store.commit(transaction).await?;
        self.version = Some(committed.of(Space::Certificates));
        Ok(self)
    }

    /// What is in force in this state.
    pub(super) fn in_force(&self, trust_domain: &TrustDomain) -> anyhow::Result<InForce> {
        let trust = self.trust(trust_domain)?;
        let signer = self.signer();
        let authority = self.authority(signer, trust_domain)?.ok_or_else(absent)?;
        let given = matches!(signer, Held::Given { .. });
        let of = authority.intermediate_sha256();
        let mut bridges = vec![];
        for bridge in self.bridges.iter().filter(|bridge| bridge.of == of) {
            bridges.extend([der(&bridge.certificate)?, der(&bridge.root)?]);
        }
        Ok(InForce { authority, given, trust, bridges })
    }

    /// Which of the two signs in this state.
    pub(super) fn signer(&self) -> &Held {
        let signs_new = self.rotation.as_ref().is_some_and(|r| r.signer() == Signer::New);
        self.next.as_ref().filter(|_| signs_new).unwrap_or(&self.current)
    }

    /// Whom the mesh believes in this state.
    pub(super) fn trust(&self, trust_domain: &TrustDomain) -> anyhow::Result<Trust> {
        let mut trust = Trust { trust_domain: trust_domain.clone(), roots: vec![] };
        for held in [Some(&self.current), self.next.as_ref()].into_iter().flatten() {
            let roots = match (self.authority(held, trust_domain)?, held) {
                (Some(authority), _) => authority.trust().roots,
                (None, held) => vec![held.root(trust_domain)?.as_slice().into()],
            };
            for root in roots {
                if !trust.roots.contains(&root) {
                    trust.roots.push(root);
                }
            }
        }
        Ok(trust)
    }

    /// All of one of the two. `None` while its files are not here.
    pub(super) fn authority(
        &self,
        held: &Held,
        trust_domain: &TrustDomain,
    ) -> anyhow::Result<Option<Arc<Authority>>> {
        if let Held::Made(text) = held {
            return Ok(Some(Arc::new(read(text, trust_domain)?)));
        }
        let root = held.root(trust_domain)?;
        Ok(self.given.iter().find(|given| given.root_der() == root).cloned())
    }

    /// With a new root that nobody knows yet.
    pub(super) fn with_next(&self, trust_domain: &TrustDomain) -> anyhow::Result<(Self, RootHash, RootHash)> {
        let now = std::time::SystemTime::now();
        let (next, next_pems) = Authority::create(trust_domain, now)?;
        let text = self.made()?;
        let current = read(text, trust_domain)?;
        let (_, current_pems) = AuthorityPems::from_text(text).map_err(|e| fault(&e))?;
        let bridge = |of: &Authority, pems: &AuthorityPems, by: &AuthorityPems| -> anyhow::Result<Bridge> {
            Ok(Bridge {
                of: of.intermediate_sha256(),
                certificate: STANDARD.encode(by.vouch_for(pems, now)?),
                root: STANDARD.encode(by.root_der()?),
            })
        };
        let bridges =
            vec![bridge(&next, &next_pems, &current_pems)?, bridge(&current, &current_pems, &next_pems)?];
        let (from, to) = (current.root_sha256(), next.root_sha256());
        let next = Some(Held::Made(next_pems.to_text(trust_domain).to_string()));
        Ok((Self { next, bridges, ..self.clone() }, from, to))
    }

    /// With the change of the root at this point.
    pub(super) fn at(self, rotation: Rotation) -> Self {
        Self { rotation: Some(rotation), ..self }
    }

    /// With another intermediate under the root of the moment.
    pub(super) fn with_new_intermediate(&self, trust_domain: &TrustDomain) -> anyhow::Result<Self> {
        let (_, pems) = AuthorityPems::from_text(self.made()?).map_err(|e| fault(&e))?;
        let pems = pems.with_new_intermediate(trust_domain, std::time::SystemTime::now())?;
        let current = Held::Made(pems.to_text(trust_domain).to_string());
        Ok(Self { current, bridges: vec![], ..self.clone() })
    }

    fn made(&self) -> anyhow::Result<&str> {
        match &self.current {
            Held::Made(text) => Ok(text),
            Held::Given { .. } => Err(absent()),
        }
    }

    /// With the new root alone, or the old one; the keys of the other are gone.
    pub(super) fn ended(&self, outcome: &str) -> Self {
        let mut new = self.clone();
        let next = new.next.take();
        if outcome == COMPLETED
            && let Some(next) = next
        {
            new.current = next;
        }
        let held = match &new.current {
            Held::Given { root } => STANDARD.decode(root).unwrap_or_default(),
            Held::Made(_) => vec![],
        };
        new.given.retain(|given| given.root_der() == held);
        let ended = |rotation| Ended { rotation, outcome: outcome.into(), at: OffsetDateTime::now_utc() };
        new.last = new.rotation.take().map(ended);
        new
    }
}

impl Held {
    /// The root, DER.
    pub(super) fn root(&self, trust_domain: &TrustDomain) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Made(text) => Ok(read(text, trust_domain)?.root_der().to_vec()),
            Self::Given { root } => Ok(der(root)?),
        }
    }
}

pub(super) const COMPLETED: &str = "completed";
pub(super) const ABORTED: &str = "aborted";

const KEY: &str = "authority";
const LEAVES: &str = "leaf/";

/// Whether this key is that of the authority.
pub(super) fn is_authority(key: &str) -> bool {
    key == KEY
}

/// The name of the certificate of which this key is the account.
pub(super) fn leaf_name(key: &str) -> Option<&str> {
    key.strip_prefix(LEAVES)
}

/// The version of the authority in the store.
pub(super) async fn version(store: &dyn Store) -> Result<Option<u64>, StoreError> {
    Ok(store.get(Space::Certificates, KEY).await?.map(|record| record.changed))
}

/// The account of certificates that is kept.
pub(super) async fn leaves(store: &dyn Store) -> Result<Vec<Leaf>, StoreError> {
    let listed = store.list(Space::Certificates, LEAVES).await?;
    let mut leaves = vec![];
    for (key, record) in listed.records {
        match Leaf::deserialize(&record.value) {
            Ok(leaf) => leaves.push(leaf),
            Err(error) => tracing::error!(%error, key, "left out of the account of certificates"),
        }
    }
    Ok(leaves)
}

/// Stores these as they are now, and forgets those.
pub(super) async fn store_leaves(
    store: &dyn Store,
    leaves: &[Leaf],
    forgotten: &[String],
    author: Author,
    audit: Vec<AuditEntry>,
) -> Result<(), StoreError> {
    let write = |name: &str, value| Write {
        space: Space::Certificates,
        key: format!("{LEAVES}{name}"),
        value,
        expect: Expect::Anything,
    };
    let mut writes = vec![];
    for leaf in leaves {
        let value = serde_json::to_value(leaf).map_err(|_| fault("an account can not be written"))?;
        writes.push(write(&leaf.sha256, Some(value)));
    }
    writes.extend(forgotten.iter().map(|name| write(name, None)));
    match store.commit(Transaction { author, writes, audit }).await {
        Ok(_) => Ok(()),
        Err(CommitError::Store(e)) => Err(e),
        Err(CommitError::Conflict { .. }) => Err(fault("an account changed meanwhile")),
    }
}

fn read(text: &str, trust_domain: &TrustDomain) -> anyhow::Result<Authority> {
    let (kept, pems) = AuthorityPems::from_text(text).map_err(|e| fault(&e))?;
    if kept != *trust_domain {
        let (expected, got) = (trust_domain.clone(), kept);
        return Err(outrigger_certs::CertError::OtherTrustDomain { expected, got }.into());
    }
    Ok(Authority::load(trust_domain, &pems)?)
}

fn absent() -> anyhow::Error {
    anyhow::anyhow!("the authority is given as files, and they are not here")
}

fn der(text: &str) -> Result<Vec<u8>, StoreError> {
    STANDARD.decode(text).map_err(|_| fault("a certificate in it is not what was written"))
}

fn fault(detail: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "of the certificate authority", detail)
}

/// The roots as one version: equal when they are the same roots.
pub(super) fn version_of(trust: &Trust) -> String {
    let resource = outrigger_mesh::Resource::Trust(trust.clone());
    outrigger_wire::Encoded::new(&resource).version.to_string()
}
