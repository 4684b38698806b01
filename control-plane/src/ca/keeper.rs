//! The authority of the moment: signs, and keeps account of what it signed.
//!
//! A certificate is in the account, on disk, before anybody gets it. Signing and entering happen under one lock with the
//! choice of the signer, so that whoever counts the certificates of a root after another one signs misses none. What
//! changes the authority is in `turn`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use outrigger_certs::{
    Authority, CertError, Ends, HandshakeError, LeafLifetime, NamedAcceptor, RootHash, SignedLeaf,
    WorkloadIdentity, WorkloadKey, control_plane_id, roots_to_pem,
};
use outrigger_mesh::{Hostname, SpiffeId, Trust, TrustDomain};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::kept::{self, Ended, InForce};
use super::ledger::{Attested, Full, Leaf, Ledger};
use super::rotation::Rotation;
use crate::audit::{AuditEntry, Author};
use crate::store::{Store, StoreError, StoreErrorKind};

/// The connected sidecars, as far as certificates go.
pub trait Fleet: Send + Sync + 'static {
    /// Tells everybody whom to believe.
    fn publish_trust(&self, trust: Trust);

    /// What each connected sidecar showed, and what it has acknowledged.
    fn holdings(&self) -> Vec<Holding>;

    /// Ends the connections that were made with this certificate; their sidecars come back with what they have now.
    fn reconnect(&self, certificate: &str);

    /// Whether an identity is revoked: it gets no certificate.
    fn is_revoked(&self, identity: &SpiffeId) -> bool;

    /// Moves when an answer or a connection comes or goes.
    fn progress(&self) -> watch::Receiver<u64>;
}

/// What one connected sidecar holds.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The SHA-256 of the certificate it showed, in hex.
    pub certificate: String,
    /// Who it is.
    pub identity: SpiffeId,
    /// From where.
    pub from: String,
    /// Since when.
    pub since: OffsetDateTime,
    /// When that certificate ends.
    pub not_after: SystemTime,
    /// The version of the roots it obeys.
    pub trust: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum NotIssued {
    /// The request, or the authority.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// The identity is revoked.
    #[error("{0} is revoked")]
    Revoked(SpiffeId),
    /// Nobody else is the control plane, whatever was attested.
    #[error("{0} is the control plane itself")]
    Own(SpiffeId),
    /// Too many.
    #[error(transparent)]
    Full(#[from] Full),
    /// The account could not be written.
    #[error("the store failed, and a certificate that is in no account is not handed out")]
    Store(#[from] StoreError),
}

/// For whom a certificate is wanted, and by what right.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// For whom.
    pub id: &'a SpiffeId,
    /// By what right.
    pub by: Attested,
    /// The certificate it replaces, as the connection showed it.
    pub before: Option<String>,
    /// From where it is asked for.
    pub from: String,
    /// How long it shall live.
    pub lifetime: LeafLifetime,
    /// What the audit log will say, where an operator asked.
    pub audit: Option<(Author, AuditEntry)>,
}

/// The authority, its account, and the control plane's own identity.
pub struct Keeper {
    pub(super) trust_domain: TrustDomain,
    pub(super) store: Arc<dyn Store>,
    pub(super) fleet: Arc<dyn Fleet>,
    inner: Mutex<Inner>,
    own: Arc<WorkloadIdentity>,
}

pub(super) struct Inner {
    pub(super) signing: Arc<Signing>,
    pub(super) ledger: Ledger,
    pub(super) rotation: Option<Rotation>,
    pub(super) last: Option<Ended>,
}

/// What signs, and what everybody is told to believe.
pub(super) struct Signing {
    pub(super) authority: Arc<Authority>,
    /// Whether it is given as files.
    pub(super) given: bool,
    pub(super) trust: Trust,
    pub(super) trust_version: String,
    bridges: Vec<Vec<u8>>,
    /// The version of the record that it is of.
    version: Option<u64>,
}

impl Signing {
    pub(super) fn of(in_force: InForce, version: Option<u64>) -> Self {
        let InForce { authority, given, trust, bridges } = in_force;
        let trust_version = kept::version_of(&trust);
        Self { authority, given, trust, trust_version, bridges, version }
    }

    /// The control plane's own certificate, with the roots in the chain: a sidecar that knows only the hash of one
    /// verifies it by that.
    fn own_leaf(&self) -> Result<(WorkloadKey, Vec<Vec<u8>>), CertError> {
        let key = WorkloadKey::generate()?;
        let id = control_plane_id(self.authority.trust_domain())?;
        let leaf = self.authority.sign(&key.csr()?, &id, LeafLifetime::default(), SystemTime::now())?;
        let mut chain = leaf.chain;
        chain.push(self.authority.root_der().to_vec());
        chain.extend(self.bridges.iter().cloned());
        Ok((key, chain))
    }
}

impl Keeper {
    pub(super) fn new(
        store: Arc<dyn Store>,
        fleet: Arc<dyn Fleet>,
        signing: Signing,
        ledger: Ledger,
        of: (Option<Rotation>, Option<Ended>),
    ) -> Result<Self, CertError> {
        let (key, chain) = signing.own_leaf()?;
        let own = Arc::new(WorkloadIdentity::from_parts(&key, &chain, &signing.trust)?);
        fleet.publish_trust(signing.trust.clone());
        let trust_domain = signing.authority.trust_domain().clone();
        let inner = Inner { signing: Arc::new(signing), ledger, rotation: of.0, last: of.1 };
        Ok(Self { trust_domain, store, fleet, inner: Mutex::new(inner), own })
    }

    /// The trust domain it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The control plane's own identity.
    pub fn own_identity(&self) -> &Arc<WorkloadIdentity> {
        &self.own
    }

    /// A server of these names, with a certificate that is renewed by [`Keeper::renew_server`], and when it ends. It is
    /// in no account: whoever shows it is no workload, and no sidecar takes it for one.
    pub fn server(&self, names: Vec<Hostname>) -> Result<(NamedAcceptor, SystemTime), HandshakeError> {
        NamedAcceptor::new(&self.signing().authority, names, LeafLifetime::default())
    }

    /// Gives a server a new certificate, signed by the authority of the moment. Returns when it ends.
    pub fn renew_server(&self, server: &NamedAcceptor) -> Result<SystemTime, CertError> {
        server.renew(&self.signing().authority, LeafLifetime::default())
    }

    /// The SHA-256 of the certificate that signs.
    pub fn signer(&self) -> String {
        self.signing().authority.intermediate_sha256()
    }

    /// The roots that everybody is told to believe, PEM.
    pub fn roots_pem(&self) -> String {
        roots_to_pem(&self.signing().trust)
    }

    /// What join tokens tell their holders to believe.
    pub fn root(&self) -> RootHash {
        self.signing().authority.root_sha256()
    }

    /// Whom the mesh believes: the roots, DER.
    pub fn believed(&self) -> Vec<Arc<[u8]>> {
        self.signing().trust.roots.clone()
    }

    /// When the certificates of the authority end.
    pub fn ends(&self) -> Ends {
        self.signing().authority.ends()
    }

    /// How many certificates are valid.
    pub fn certificates(&self) -> usize {
        let now = OffsetDateTime::now_utc();
        self.inner().ledger.all().filter(|leaf| leaf.not_after > now).count()
    }

    /// Signs the key of a request, with whom to believe.
    pub async fn issue(&self, csr_der: &[u8], wanted: Wanted<'_>) -> Result<(SignedLeaf, Trust), NotIssued> {
        let version = self.signing().version;
        let (signed, leaf, trust) = self.sign(csr_der, &wanted)?;
        let (author, audit) = match wanted.audit {
            Some((author, entry)) => (author, vec![entry]),
            None => (Author::system("a certificate was signed"), vec![]),
        };
        let stored = kept::store_leaves(&*self.store, std::slice::from_ref(&leaf), &[], author, audit).await;
        if let Err(e) = stored {
            self.inner().ledger.remove(&leaf.sha256);
            return Err(e.into());
        }
        // Another control plane may have changed the authority and not counted this one. Then it is in the account, and
        // nobody gets it.
        if self.store.replicas().is_some() && kept::version(&*self.store).await? != version {
            let detail = "another control plane is changing it; try again";
            return Err(
                StoreError::new(StoreErrorKind::Behind, "of the certificate authority", detail).into()
            );
        }
        Ok((signed, trust))
    }

    fn sign(&self, csr_der: &[u8], wanted: &Wanted<'_>) -> Result<(SignedLeaf, Leaf, Trust), NotIssued> {
        if wanted.id == self.own.id() {
            return Err(NotIssued::Own(wanted.id.clone()));
        }
        if self.fleet.is_revoked(wanted.id) {
            return Err(NotIssued::Revoked(wanted.id.clone()));
        }
        let mut inner = self.inner();
        let holder = inner.ledger.holder_of(wanted.before.as_deref());
        inner.ledger.room(wanted.id, holder.as_deref())?;
        let signing = Arc::clone(&inner.signing);
        let now = SystemTime::now();
        let signed = signing.authority.sign(csr_der, wanted.id, wanted.lifetime, now)?;
        let sha256 = signed.sha256();
        let leaf = inner.ledger.enter(Leaf {
            holder: holder.unwrap_or_else(|| sha256.clone()),
            serial: signed.serial.clone(),
            identity: wanted.id.to_string(),
            root: signing.authority.root_sha256().to_string(),
            by: wanted.by,
            from: wanted.from.clone(),
            issued: now.into(),
            not_after: signed.not_after.into(),
            order: 0,
            seen: None,
            // Files are handed out with the roots of this moment, and nobody tells their holder of others.
            trust: Some(signing.trust_version.clone()),
            sha256,
        });
        Ok((signed, leaf, signing.trust.clone()))
    }

    /// Puts another authority, or other roots, in force: believed first, then signed with.
    pub(super) fn put_in_force(&self, signing: Signing) {
        let signing = Arc::new(signing);
        if let Err(error) = self.own.trust().update(&signing.trust) {
            tracing::error!(%error, "the control plane does not take its own roots");
        }
        self.inner().signing = Arc::clone(&signing);
        self.renew_own();
        self.fleet.publish_trust(signing.trust.clone());
    }

    /// Replaces the control plane's own certificate.
    pub(super) fn renew_own(&self) {
        let signing = self.signing();
        match signing.own_leaf().and_then(|(key, chain)| self.own.install(&key, &chain)) {
            Ok(()) => tracing::info!("renewed the control plane's own certificate"),
            Err(error) => tracing::error!(%error, "the control plane's own certificate is not renewed"),
        }
    }

    pub(super) fn signing(&self) -> Arc<Signing> {
        Arc::clone(&self.inner().signing)
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
