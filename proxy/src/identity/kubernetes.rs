//! What a pod shows the control plane at first contact: a service-account token that the kubelet projects for the mesh, and
//! the roots of the mesh, from a ConfigMap. Both files are replaced now and then, so both are read at each try.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use outrigger_certs::{CertError, certificates_from_pem};
use outrigger_mesh::{SpiffeId, Trust};
use zeroize::Zeroizing;

use super::IdentityError;

/// Where they are.
#[derive(Clone, Debug)]
pub struct KubernetesToken {
    /// The token.
    pub token: PathBuf,
    /// The roots that vouch for the control plane, PEM.
    pub roots: PathBuf,
}

impl KubernetesToken {
    /// The token as it is now.
    pub(super) fn read(&self) -> Result<Zeroizing<String>, IdentityError> {
        let text = small(&self.token)?;
        let token = Zeroizing::new(text.trim().to_owned());
        if token.is_empty() {
            let source = io::Error::new(io::ErrorKind::InvalidData, "there is no token in it");
            return Err(IdentityError::File { path: self.token.clone(), source });
        }
        Ok(token)
    }

    /// Whom to believe at first contact.
    pub(super) fn trust(&self, id: &SpiffeId) -> Result<Trust, IdentityError> {
        let roots = certificates_from_pem(&small(&self.roots)?);
        let roots = roots.map_err(|why| {
            let source = io::Error::new(io::ErrorKind::InvalidData, why);
            IdentityError::Certificate(CertError::File { path: self.roots.clone(), source })
        })?;
        Ok(Trust { trust_domain: id.trust_domain().clone(), roots })
    }
}

/// Far above any token or bundle.
const MAX: u64 = 1024 * 1024;

fn small(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    let failed = |source| IdentityError::File { path: path.to_path_buf(), source };
    let mut text = Zeroizing::new(String::new());
    File::open(path).and_then(|file| file.take(MAX).read_to_string(&mut text)).map_err(failed)?;
    Ok(text)
}
