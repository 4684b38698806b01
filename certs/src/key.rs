//! Key pairs of workloads.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::CertError;

/// A workload's P-256 key pair. Made where it is used, never sent, never printed.
pub struct WorkloadKey(Zeroizing<KeyPair>);

impl WorkloadKey {
    /// Makes a new one.
    pub fn generate() -> Result<Self, CertError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| CertError::Make { what: "a key pair", source })?;
        Ok(Self(Zeroizing::new(pair)))
    }

    /// A certificate signing request, DER (PKCS#10). It carries the public key and no name: who the certificate is
    /// for is decided by what the control plane attested.
    pub fn csr(&self) -> Result<Vec<u8>, CertError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&*self.0)
            .map_err(|source| CertError::Make { what: "a certificate request", source })?;
        Ok(request.der().to_vec())
    }

    /// The private key as PEM (PKCS#8), for a file only its owner reads.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// Reads [`WorkloadKey::to_pem`] back.
    pub fn from_pem(pem: &str) -> Result<Self, CertError> {
        let pair = KeyPair::from_pem(pem)
            .map_err(|e| CertError::Unreadable { what: "the private key", why: e.to_string() })?;
        Ok(Self(Zeroizing::new(pair)))
    }

    /// The private key as the TLS library takes it; overwritten when dropped.
    pub(crate) fn pkcs8(&self) -> Zeroizing<PrivateKeyDer<'static>> {
        Zeroizing::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der())))
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadKey(…)")
    }
}
