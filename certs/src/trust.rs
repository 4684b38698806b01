//! Trust bundles: which roots vouch for which trust domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use outrigger_mesh::{Trust, TrustDomain};
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::error::CertError;
use crate::token::RootHash;

/// Roots that have been parsed, by the trust domain they vouch for.
#[derive(Clone, Debug, Default)]
pub struct TrustBundle(BTreeMap<TrustDomain, Vec<TrustAnchor<'static>>>);

impl TrustBundle {
    /// Proves the roots of each of `trusts` to be certificates.
    pub fn new(trusts: &[Trust]) -> Result<Self, CertError> {
        let mut bundle = Self::default();
        for trust in trusts {
            let anchors = trust.roots.iter().map(|der| anchor(der)).collect::<Result<Vec<_>, _>>()?;
            if anchors.is_empty() {
                let why = format!("trust domain {} has no root", trust.trust_domain);
                return Err(CertError::Unreadable { what: "a trust bundle", why });
            }
            bundle.0.insert(trust.trust_domain.clone(), anchors);
        }
        Ok(bundle)
    }

    pub(crate) fn anchors(&self, domain: &TrustDomain) -> Option<&[TrustAnchor<'static>]> {
        self.0.get(domain).map(Vec::as_slice)
    }

    /// A bundle in which whatever domain the leaf claims is vouched for by one pinned root.
    pub(crate) fn pinned(domain: &TrustDomain, chain: &[CertificateDer<'_>], pin: RootHash) -> Option<Self> {
        let root = chain.iter().find(|c| RootHash::of(c) == pin)?;
        Some(Self(BTreeMap::from([(domain.clone(), vec![anchor(root).ok()?])])))
    }
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
