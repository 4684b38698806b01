//! Trust bundles: which roots vouch for which trust domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use outrigger_mesh::{Trust, TrustDomain};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use x509_parser::prelude::X509Certificate;

use crate::error::CertError;
use crate::token::RootHash;
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
}

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
    Ok(RootFacts { from, until, below })
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

/// The trust bundle of the moment, read by every handshake and replaced whole when a push brings another.
#[derive(Debug, Default)]
pub struct TrustStore(ArcSwap<TrustBundle>);

impl TrustStore {
    /// Starts with `bundle`.
    pub fn new(bundle: TrustBundle) -> Self {
        Self(ArcSwap::from_pointee(bundle))
    }

    /// Replaces the roots of one trust domain. Roots that are no certificates change nothing.
    pub fn update(&self, trust: &Trust) -> Result<(), CertError> {
        let fresh = TrustBundle::new(std::slice::from_ref(trust))?;
        self.0.rcu(|old| {
            let mut all = TrustBundle::clone(old);
            all.0.extend(fresh.0.clone());
            all
        });
        Ok(())
    }

    /// The bundle of the moment.
    pub fn load(&self) -> Arc<TrustBundle> {
        self.0.load_full()
    }
}
