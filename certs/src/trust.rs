//! Trust bundles: which roots vouch for which trust domain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use arc_swap::ArcSwap;
use outrigger_mesh::{SpiffeId, Trust, TrustDomain};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use x509_parser::prelude::X509Certificate;

use crate::error::{CertError, PeerError};
use crate::peer::Peer;
use crate::token::{RootHash, sha256};
use crate::verify::parse;

/// Roots that have been parsed, by the trust domain they vouch for.
#[derive(Clone, Debug, Default)]
pub struct TrustBundle(BTreeMap<TrustDomain, DomainRoots>);

/// The roots of one trust domain.
#[derive(Clone, Debug)]
pub(crate) struct DomainRoots {
    anchors: Vec<TrustAnchor<'static>>,
    /// What path validation does not look at, of each.
    facts: Vec<RootFacts>,
}

/// What a root says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RootFacts {
    /// From when it holds, in seconds since 1970.
    pub from: i64,
    /// Until when it holds.
    pub until: i64,
    /// How many intermediates may stand below it.
    pub below: Option<u32>,
    /// Its name and key: a root that was signed anew is the same root.
    pub print: RootPrint,
}

/// What makes a root the same root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RootPrint([u8; 32]);

impl DomainRoots {
    fn prove<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, CertError> {
        let mut roots = Self { anchors: Vec::new(), facts: Vec::new() };
        for der in certificates {
            roots.facts.push(authority_facts(der)?);
            roots.anchors.push(anchor(der)?);
        }
        Ok(roots)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// What one of [`DomainRoots::anchors`] says: the same object, since a root may be signed anew under its name.
    pub(crate) fn facts(&self, anchor: &TrustAnchor<'_>) -> Option<RootFacts> {
        let at = self.anchors.iter().position(|a| std::ptr::eq(a, anchor))?;
        self.facts.get(at).copied()
    }
}

impl TrustBundle {
    /// Proves the roots of each of `trusts` to be certificates.
    pub fn new(trusts: &[Trust]) -> Result<Self, CertError> {
        let mut bundle = Self::default();
        for trust in trusts {
            let roots = DomainRoots::prove(trust.roots.iter().map(AsRef::as_ref))?;
            if roots.anchors.is_empty() {
                let why = format!("trust domain {} has no root", trust.trust_domain);
                return Err(CertError::Unreadable { what: "a trust bundle", why });
            }
            bundle.0.insert(trust.trust_domain.clone(), roots);
        }
        Ok(bundle)
    }

    pub(crate) fn roots(&self, domain: &TrustDomain) -> Option<&DomainRoots> {
        self.0.get(domain)
    }

    /// A bundle in which whatever domain the leaf claims is vouched for by one pinned root.
    pub(crate) fn pinned(domain: &TrustDomain, chain: &[CertificateDer<'_>], pin: RootHash) -> Option<Self> {
        let root = chain.iter().find(|c| RootHash::of(c) == pin)?;
        Some(Self(BTreeMap::from([(domain.clone(), DomainRoots::prove([root.as_ref()]).ok()?)])))
    }
}

/// What a root says of itself, if it is the certificate of an authority at all.
fn authority_facts(der: &[u8]) -> Result<RootFacts, CertError> {
    let bad = |why: String| CertError::Unreadable { what: "a root certificate", why };
    let der = CertificateDer::from(der);
    let root = parse(&der).map_err(|e| bad(e.to_string()))?;
    if !may_sign(&root) {
        return Err(bad("it is not the certificate of an authority".into()));
    }
    let below = root.basic_constraints().ok().flatten().and_then(|c| c.value.path_len_constraint);
    let (from, until) = (root.validity().not_before.timestamp(), root.validity().not_after.timestamp());
    let print = RootPrint(sha256(&[root.subject().as_raw(), root.public_key().raw].concat()));
    Ok(RootFacts { from, until, below, print })
}

/// Whether a certificate is that of an authority: cA, and allowed to sign certificates if it says what it may do.
pub(crate) fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let is_ca = matches!(certificate.basic_constraints(), Ok(Some(c)) if c.value.ca);
    let usage = match certificate.key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Err(_) => false,
    };
    is_ca && usage
}

fn anchor(der: &[u8]) -> Result<TrustAnchor<'static>, CertError> {
    let der = CertificateDer::from(der.to_vec());
    webpki::anchor_from_trusted_cert(&der)
        .map(|anchor| anchor.to_owned())
        .map_err(|e| CertError::Unreadable { what: "a root certificate", why: e.to_string() })
}

/// Whom a workload believes at the moment: the roots of each trust domain, and who is not believed in spite of them. Read
/// by every handshake and replaced whole when a push brings another.
#[derive(Debug, Default)]
pub struct TrustStore {
    bundle: ArcSwap<TrustBundle>,
    revoked: ArcSwap<BTreeSet<SpiffeId>>,
    changes: AtomicU64,
}

impl TrustStore {
    /// Starts with `bundle`.
    pub fn new(bundle: TrustBundle) -> Self {
        Self { bundle: ArcSwap::from_pointee(bundle), ..Self::default() }
    }

    /// Replaces the roots of one trust domain. Roots that are no certificates change nothing.
    pub fn update(&self, trust: &Trust) -> Result<(), CertError> {
        let fresh = TrustBundle::new(std::slice::from_ref(trust))?;
        self.bundle.rcu(|old| {
            let mut all = TrustBundle::clone(old);
            all.0.extend(fresh.0.clone());
            all
        });
        self.changes.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Believes nobody of `domain` any more.
    pub fn forget(&self, domain: &TrustDomain) {
        self.bundle.rcu(|old| {
            let mut all = TrustBundle::clone(old);
            all.0.remove(domain);
            all
        });
        self.changes.fetch_add(1, SeqCst);
    }

    /// The trust domains it has roots of.
    pub fn domains(&self) -> BTreeSet<TrustDomain> {
        self.bundle.load().0.keys().cloned().collect()
    }

    /// Believes none of these identities, whoever vouches for them, and those that were named before again.
    pub fn revoke(&self, identities: BTreeSet<SpiffeId>) {
        self.revoked.store(Arc::new(identities));
        self.changes.fetch_add(1, SeqCst);
    }

    /// Moves with every change: whoever has judged open connections looks again when it has moved.
    pub fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Whether a peer that was believed at its handshake would be now. Its certificate's end is not looked at.
    pub fn believes(&self, peer: &Peer) -> Result<(), PeerError> {
        self.is_not_revoked(peer.id())?;
        let bundle = self.bundle.load();
        let domain = peer.id().trust_domain();
        let roots = bundle.roots(domain).ok_or_else(|| PeerError::ForeignDomain(domain.clone()))?;
        if roots.facts.iter().any(|facts| facts.print == peer.root()) {
            return Ok(());
        }
        Err(PeerError::Chain(format!("the root of {domain} that vouched for it is not believed any more")))
    }

    pub(crate) fn is_not_revoked(&self, id: &SpiffeId) -> Result<(), PeerError> {
        let revoked = self.revoked.load();
        if revoked.contains(id) { Err(PeerError::Revoked(id.clone())) } else { Ok(()) }
    }

    /// The bundle of the moment.
    pub fn load(&self) -> Arc<TrustBundle> {
        self.bundle.load_full()
    }
}
