//! What comes after an authority: another intermediate under the same root, and the bridge between two roots.
//!
//! When each is due, and who must have heard of it before, is kept by the control plane.

use std::time::SystemTime;

use outrigger_mesh::TrustDomain;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::authority::{AuthorityPems, authority_params, end_of, new_intermediate};
use crate::error::CertError;
use crate::verify::parse;

impl AuthorityPems {
    /// The same root with another intermediate, which signs from then on.
    pub fn with_new_intermediate(
        &self,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CertError> {
        let (root, end) = self.root_issuer()?;
        let (intermediate, key) = new_intermediate(trust_domain, &root, end, now)?;
        Ok(Self {
            root: self.root.clone(),
            root_key: self.root_key.clone(),
            intermediate: intermediate.pem(),
            intermediate_key: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// The intermediate of `other`, signed by this root too, DER: whoever believes only this root believes what the
    /// other authority signs, when this certificate comes with it.
    pub fn vouch_for(&self, other: &Self, now: SystemTime) -> Result<Vec<u8>, CertError> {
        let make = |source| CertError::Make { what: "a bridge between two roots", source };
        let (root, end) = self.root_issuer()?;
        let der = certificate("the intermediate certificate", &other.intermediate)?;
        let theirs = parse(&der)?;
        let name = theirs.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let life = end.min(end_of(&theirs)).duration_since(now).unwrap_or_default();
        let mut params = authority_params(name.unwrap_or_default(), 0, life, now)?;
        params.use_authority_key_identifier_extension = true;
        let key = Zeroizing::new(KeyPair::from_pem(&other.intermediate_key).map_err(make)?);
        Ok(params.signed_by(&*key, &root).map_err(make)?.der().to_vec())
    }

    /// The root certificate, DER.
    pub fn root_der(&self) -> Result<Vec<u8>, CertError> {
        Ok(certificate("the root certificate", &self.root)?.to_vec())
    }

    fn root_issuer(&self) -> Result<(Issuer<'static, KeyPair>, SystemTime), CertError> {
        let unreadable = |e: rcgen::Error| CertError::Unreadable { what: "the root", why: e.to_string() };
        let der = certificate("the root certificate", &self.root)?;
        let end = end_of(&parse(&der)?);
        let key = KeyPair::from_pem(&self.root_key).map_err(unreadable)?;
        Ok((Issuer::from_ca_cert_der(&der, key).map_err(unreadable)?, end))
    }
}

fn certificate(what: &'static str, pem: &str) -> Result<CertificateDer<'static>, CertError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| CertError::Unreadable { what, why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::{Authority, LeafLifetime, TrustBundle, WorkloadKey, peer_from_chain};

    fn leaf(authority: &Authority) -> Vec<Vec<u8>> {
        let id = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
        let csr = WorkloadKey::generate().unwrap().csr().unwrap();
        authority.sign(&csr, &id, LeafLifetime::default(), SystemTime::now()).unwrap().chain
    }

    fn holds(chain: &[Vec<u8>], roots: &[&Authority]) -> bool {
        let mut trust = roots[0].trust();
        trust.roots = roots.iter().map(|a| Arc::from(a.root_der())).collect();
        let chain: Vec<_> = chain.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
        let now = rustls::pki_types::UnixTime::now();
        peer_from_chain(&chain, &TrustBundle::new(&[trust]).unwrap(), crate::Role::Server, now).is_ok()
    }

    #[test]
    fn whoever_believes_either_root_believes_a_leaf_that_comes_with_the_bridge() {
        let (domain, now) = (TrustDomain::new("mesh.local").unwrap(), SystemTime::now());
        let (old, old_pems) = Authority::create(&domain, now).unwrap();
        let (new, new_pems) = Authority::create(&domain, now).unwrap();
        let mut chain = leaf(&new);
        assert!(holds(&chain, &[&new]) && holds(&chain, &[&old, &new]) && !holds(&chain, &[&old]));
        chain.push(old_pems.vouch_for(&new_pems, now).unwrap());
        chain.push(new.root_der().to_vec());
        chain.push(old.root_der().to_vec());
        assert!(holds(&chain, &[&old]) && holds(&chain, &[&new]) && holds(&chain, &[&old, &new]));
    }

    #[test]
    fn another_intermediate_is_believed_by_the_same_root_and_the_one_before_still_is() {
        let (domain, now) = (TrustDomain::new("mesh.local").unwrap(), SystemTime::now());
        let (first, pems) = Authority::create(&domain, now).unwrap();
        let second = pems.with_new_intermediate(&domain, now).unwrap();
        let second = Authority::load(&domain, &second).unwrap();
        assert_eq!(first.root_sha256(), second.root_sha256());
        assert_ne!(first.intermediate_sha256(), second.intermediate_sha256());
        assert!(holds(&leaf(&first), &[&second]) && holds(&leaf(&second), &[&first]));
    }
}
