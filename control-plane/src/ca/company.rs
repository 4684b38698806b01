//! An authority that a company gives as files: read anew when they change, and believed before it signs.
//!
//! Another intermediate under the same root signs at once. A file with another root begins a change of the root, with the
//! steps and gates of `rotation`: the authority of before signs from memory until everybody believes the root that comes,
//! and its root is believed until nothing of it is left, whatever the files say. The store holds the roots and how far it
//! is, never a key of the company.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_certs::{Authority, AuthorityFiles, CertError, RootHash};
use outrigger_mesh::TrustDomain;
use time::OffsetDateTime;

use super::kept::{ABORTED, Held, Kept, version_of};
use super::ledger::{Leaf, Ledger};
use super::rotation::{Event, Rotation, Step};
use crate::audit::{AuditEntry, Author};
use crate::store::{CommitError, Store};

/// Where a company's authority comes from.
#[derive(Clone, Debug)]
pub struct Given {
    /// The files.
    pub files: AuthorityFiles,
    /// Whether another root signs at once when the one that everybody believes can not: whoever does not believe it yet
    /// is cut off.
    pub at_once: bool,
}

/// Opens the record of a mesh whose authority is given.
pub(super) async fn open(
    store: &dyn Store,
    folder: &Path,
    trust_domain: &TrustDomain,
    given: &Given,
    leaves: &[Leaf],
    timeout: Duration,
) -> anyhow::Result<Kept> {
    let now = OffsetDateTime::now_utc();
    let authority = Arc::new(given.files.load(trust_domain, now.into())?);
    let kept = match Kept::read(store).await? {
        Some(kept) => kept,
        // What an earlier version kept: the mesh believes it.
        None if folder.join("authority.pem").exists() => Kept::open(store, folder, trust_domain).await?,
        None => Kept::of(Held::Given { root: STANDARD.encode(authority.root_der()) }).create(store).await?,
    };
    let before = kept.rotation.clone();
    let (mut kept, what) = match kept.take_up(&authority, trust_domain, timeout, now) {
        Ok(taken) => taken,
        Err(why) => bail!("{}: {why}", given.files.cert.display()),
    };
    if kept.authority(kept.signer(), trust_domain)?.is_none() {
        kept.sign_without_the_former(trust_domain, given, leaves, now)?;
    }
    if kept.rotation == before {
        return Ok(kept);
    }
    let author = Author::system("the files of the authority");
    let audit = AuditEntry::new(&author, what, "the certificate authority");
    match kept.commit(store, &author, vec![audit]).await {
        Ok(kept) => Ok(kept),
        Err(CommitError::Store(e)) => Err(e.into()),
        Err(CommitError::Conflict { .. }) => {
            bail!("another control plane changes the authority; start again")
        }
    }
}

impl Kept {
    /// With what the files hold now, and what that is called.
    pub(super) fn take_up(
        mut self,
        authority: &Arc<Authority>,
        trust_domain: &TrustDomain,
        timeout: Duration,
        now: OffsetDateTime,
    ) -> Result<(Self, &'static str), String> {
        let fault = |e: anyhow::Error| e.to_string();
        let current = RootHash::of(&self.current.root(trust_domain).map_err(fault)?).to_string();
        let root = authority.root_sha256().to_string();
        self.given.retain(|given| given.root_sha256() != authority.root_sha256());
        self.given.push(Arc::clone(authority));
        let same = |kept| Ok((kept, "take up the files of"));
        let Some(mut rotation) = self.rotation.clone() else {
            if current == root {
                return same(self);
            }
            self.next = Some(Held::Given { root: STANDARD.encode(authority.root_der()) });
            return Ok((self.at(Rotation::begin(current, root, timeout, now)), "rotate-root"));
        };
        let back = root == rotation.from;
        if back == (rotation.step == Step::Withdraw) && (back || root == rotation.to) {
            return same(self);
        }
        if !back {
            let (from, to, step) = (&rotation.from, &rotation.to, rotation.step.as_str());
            return Err(format!(
                "its root is {root}, while a change of the root from {from} to {to} is at {step}: one at a time, see \
                 `outrigger certs rotation status`"
            ));
        }
        match rotation.abort(now) {
            Some(Event::Aborted) => Ok((self.at(rotation).ended(ABORTED), "abort")),
            _ => Ok((self.at(rotation), "abort")),
        }
    }

    /// Whether it can be in force without files; the error says what to do.
    pub(super) fn needs_no_files(&self) -> anyhow::Result<()> {
        if [Some(&self.current), self.next.as_ref()].into_iter().flatten().any(Held::is_given) {
            bail!(
                "the authority of this mesh is given as files: start with --ca-cert, --ca-key and --ca-roots, as \
                 before. Sidecars believe its root alone"
            );
        }
        Ok(())
    }

    /// The authority that everybody believes is not here any more; the one that is signs if everybody believes it, too.
    fn sign_without_the_former(
        &mut self,
        trust_domain: &TrustDomain,
        given: &Given,
        leaves: &[Leaf],
        now: OffsetDateTime,
    ) -> anyhow::Result<()> {
        let ledger = Ledger::of_kept(leaves.iter().filter(|leaf| leaf.not_after > now).cloned());
        let version = version_of(&self.trust(trust_domain)?);
        let missing = ledger.without_trust(&version, now);
        if !missing.is_empty() && !given.at_once {
            let first = missing.first().map(|leaf| leaf.identity.as_str()).unwrap_or_default();
            bail!(
                "{}: {} processes that hold certificates, such as {first}, do not believe its root yet and would be \
                 cut off. Start with the former --ca-cert and --ca-key, and with both roots in --ca-roots; replace the \
                 files when `outrigger certs rotation status` says that everybody believes them. --ca-at-once cuts \
                 them off",
                given.files.cert.display(),
                missing.len(),
            );
        }
        if let Some(rotation) = &mut self.rotation {
            let count = missing.len();
            if count > 0 {
                tracing::warn!(casualties = count, "another root signs at once, as --ca-at-once says");
            }
            rotation.force(count, now);
        }
        Ok(())
    }
}

impl Held {
    fn is_given(&self) -> bool {
        matches!(self, Self::Given { .. })
    }
}

/// Looks at the files, and tells when they hold something else.
pub(super) struct Watched {
    files: AuthorityFiles,
    /// What was read, or refused.
    taken: Stamp,
    /// What was there at the last look: what changes is read once it stands still.
    last: Stamp,
    looked: tokio::time::Instant,
}

/// What tells that a file is another one: its place, its length and when it was written.
type Stamp = [Option<(u64, u64, SystemTime)>; 3];

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Watched {
    pub(super) fn new(files: AuthorityFiles) -> Self {
        let stamp = stamp(&files);
        Self { files, taken: stamp, last: stamp, looked: tokio::time::Instant::now() }
    }

    /// What the files hold, if that is new.
    pub(super) fn look(&mut self, trust_domain: &TrustDomain) -> Option<Result<Authority, CertError>> {
        if self.looked.elapsed() < LOOK {
            return None;
        }
        self.looked = tokio::time::Instant::now();
        let now = stamp(&self.files);
        let stands_still = std::mem::replace(&mut self.last, now) == now;
        if !stands_still || now == self.taken {
            return None;
        }
        self.taken = now;
        Some(self.files.load(trust_domain, SystemTime::now()))
    }
}

fn stamp(files: &AuthorityFiles) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    [&files.cert, &files.key, &files.roots].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.ino(), meta.len(), meta.modified().ok()?))
    })
}
