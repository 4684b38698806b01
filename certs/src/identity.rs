//! The renewing certificate of a workload.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use outrigger_mesh::{SpiffeId, Trust};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, crypto::aws_lc_rs::sign::any_supported_type};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::disk::read_file;
use crate::error::CertError;
use crate::key::WorkloadKey;
use crate::peer::Peer;
use crate::trust::{TrustBundle, TrustStore};
use crate::verify::{Role, parse, peer_from_chain};

/// A workload's own identity: key and certificate of the moment, and the roots it believes.
///
/// Renewal swaps the certificate inside the one resolver that all TLS configurations share: new handshakes show the new
/// one, connections that are open stay open.
#[derive(Debug)]
pub struct WorkloadIdentity {
    id: SpiffeId,
    current: Arc<Current>,
    trust: Arc<TrustStore>,
}

#[derive(Debug)]
struct Current(ArcSwap<Leaf>);

#[derive(Debug)]
struct Leaf {
    key: Arc<CertifiedKey>,
    peer: Peer,
    not_before: SystemTime,
}

impl WorkloadIdentity {
    /// The identity that `chain` (leaf first, DER) gives to `key`. Our own chain is verified as a peer's would be, so a
    /// certificate that others would refuse is found out here.
    pub fn from_parts(key: &WorkloadKey, chain: &[Vec<u8>], trust: &Trust) -> Result<Self, CertError> {
        Self::from_key(&key.pkcs8(), chain, trust)
    }

    /// The identity in PEM texts: certificate (leaf first), private key, and the roots of the leaf's trust domain.
    pub fn from_pem(cert: &str, key: &str, roots: &str) -> Result<(Self, Trust), CertError> {
        let unreadable =
            |what| move |e: rustls::pki_types::pem::Error| CertError::Unreadable { what, why: e.to_string() };
        let chain = pem_certificates(cert).map_err(unreadable("the certificate"))?;
        let roots = pem_certificates(roots).map_err(unreadable("the roots"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unreadable("the private key"))?;
        let key = Zeroizing::new(key);
        let leaf = chain.first().ok_or(CertError::Peer(crate::PeerError::Absent))?;
        let id = crate::verify::leaf_identity(&parse(&CertificateDer::from(leaf.as_slice()))?)?;
        let trust = Trust {
            trust_domain: id.trust_domain().clone(),
            roots: roots.into_iter().map(|r| r.as_slice().into()).collect(),
        };
        Ok((Self::from_key(&key, &chain, &trust)?, trust))
    }

    /// The identity as another source of SVIDs gives it: the chain and the roots of its trust domain as certificates one
    /// after the other, DER, and the private key as PKCS#8, DER.
    pub fn from_der(chain: &[u8], key: &[u8], roots: &[u8]) -> Result<(Self, Trust), CertError> {
        let chain = certificates_from_der(chain)?;
        let key = Zeroizing::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec())));
        let leaf = chain.first().ok_or(CertError::Peer(crate::PeerError::Absent))?;
        let id = crate::verify::leaf_identity(&parse(&CertificateDer::from(leaf.as_slice()))?)?;
        let trust = Trust { trust_domain: id.trust_domain().clone(), roots: roots_from_der(roots)? };
        Ok((Self::from_key(&key, &chain, &trust)?, trust))
    }

    /// The identity in PEM files, as [`WorkloadIdentity::from_pem`]. A key that anybody on the machine may read is
    /// refused; its group may, since that is how platforms hand secrets to a process.
    pub fn from_pem_files(cert: &Path, key: &Path, roots: &Path) -> Result<(Self, Trust), CertError> {
        let cert = read_file(cert, 0)?;
        let key = read_file(key, 0o007)?;
        let roots = read_file(roots, 0)?;
        Self::from_pem(&cert, &key, &roots)
    }

    fn from_key(key: &PrivateKeyDer<'static>, chain: &[Vec<u8>], trust: &Trust) -> Result<Self, CertError> {
        let trust = Arc::new(TrustStore::new(TrustBundle::new(std::slice::from_ref(trust))?));
        let leaf = Leaf::new(key, chain, &trust)?;
        let id = leaf.peer.id().clone();
        Ok(Self { id, current: Arc::new(Current(ArcSwap::from_pointee(leaf))), trust })
    }

    /// Who this workload is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The roots it believes. Replaced as pushes bring others.
    pub fn trust(&self) -> &Arc<TrustStore> {
        &self.trust
    }

    /// Replaces key and certificate. They must be for the same identity.
    pub fn install(&self, key: &WorkloadKey, chain: &[Vec<u8>]) -> Result<(), CertError> {
        let leaf = Leaf::new(&key.pkcs8(), chain, &self.trust)?;
        if leaf.peer.id() != &self.id {
            return Err(CertError::OtherIdentity { expected: self.id.clone(), got: leaf.peer.id().clone() });
        }
        self.current.0.store(Arc::new(leaf));
        Ok(())
    }

    /// Replaces key, certificate and the roots of the own trust domain by what `fresh` has: the one pair of a source that
    /// gives all of them together. It must be the same identity; nothing changes when it is not.
    pub fn replace(&self, fresh: &Self, trust: &Trust) -> Result<(), CertError> {
        if fresh.id != self.id {
            return Err(CertError::OtherIdentity { expected: self.id.clone(), got: fresh.id.clone() });
        }
        // The roots first: peers are judged by them, and an own leaf that they do not vouch for was refused before.
        self.trust.update(trust)?;
        self.current.0.store(fresh.current.0.load_full());
        Ok(())
    }

    /// What a peer would learn from the certificate of the moment.
    pub fn as_peer(&self) -> Peer {
        self.current.0.load().peer.clone()
    }

    /// When the certificate of the moment began, set back against clock skew.
    pub fn not_before(&self) -> SystemTime {
        self.current.0.load().not_before
    }

    /// When the certificate of the moment ends.
    pub fn expires_at(&self) -> SystemTime {
        self.current.0.load().peer.not_after()
    }

    /// The SHA-256 of the certificate of the moment, in hex.
    pub fn certificate_sha256(&self) -> String {
        self.current.0.load().peer.certificate_sha256()
    }

    /// When to renew a certificate that was received at `received`: at half of the life it had left then, moved by up to
    /// a tenth of that life either way. `jitter` is a random number from 0 to 1: a mesh that was started at once must
    /// not renew at once.
    pub fn renew_at(&self, received: SystemTime, jitter: f64) -> SystemTime {
        let life = self.expires_at().duration_since(received).unwrap_or(Duration::ZERO);
        received + life.mul_f64(0.4 + 0.2 * jitter.clamp(0.0, 1.0))
    }

    pub(crate) fn server_resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.current.clone()
    }

    pub(crate) fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        self.current.clone()
    }
}

impl Leaf {
    fn new(key: &PrivateKeyDer<'static>, chain: &[Vec<u8>], trust: &TrustStore) -> Result<Self, CertError> {
        let chain: Vec<CertificateDer<'static>> = chain.iter().cloned().map(CertificateDer::from).collect();
        let peer = peer_from_chain(&chain, &trust.load(), Role::Client, UnixTime::now())?;
        let seconds = parse(&chain[0])?.validity().not_before.timestamp();
        let not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let unreadable =
            |e: rustls::Error| CertError::Unreadable { what: "the private key", why: e.to_string() };
        let key = CertifiedKey::new(chain, any_supported_type(key).map_err(unreadable)?);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CertError::Mismatch),
        }
        Ok(Self { key: Arc::new(key), peer, not_before })
    }
}

/// Roots one after the other, DER.
pub fn roots_from_der(der: &[u8]) -> Result<Vec<Arc<[u8]>>, CertError> {
    Ok(certificates_from_der(der)?.into_iter().map(Arc::from).collect())
}

/// Certificates one after the other.
fn certificates_from_der(mut rest: &[u8]) -> Result<Vec<Vec<u8>>, CertError> {
    let bad = |why: String| CertError::Unreadable { what: "the certificates", why };
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).map_err(|e| bad(e.to_string()))?;
        all.push(rest[..rest.len() - after.len()].to_vec());
        if all.len() > MOST_CERTIFICATES {
            return Err(bad(format!("there are more than {MOST_CERTIFICATES}")));
        }
        rest = after;
    }
    Ok(all)
}

const MOST_CERTIFICATES: usize = 256;

fn pem_certificates(pem: &str) -> Result<Vec<Vec<u8>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|c| c.map(|c| c.to_vec())).collect()
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
