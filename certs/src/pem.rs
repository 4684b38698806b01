//! Certificates as people write them.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The certificates of a PEM text as DER, in the order written. Whether they are sound is judged by who uses them; at
/// least one must be there. The error is one sentence.
pub fn certificates_from_pem(text: &str) -> Result<Vec<Arc<[u8]>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|e| format!("the certificates can not be read: {e}"))?;
    match all.len() {
        0 => Err("there is no certificate in the text; it begins with -----BEGIN CERTIFICATE-----".into()),
        1..=MAX => Ok(all.iter().map(|c| Arc::from(c.as_ref())).collect()),
        n => Err(format!("{n} certificates are too many, at most {MAX} are allowed")),
    }
}

const MAX: usize = 256;
