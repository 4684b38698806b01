//! Key and leaf beside the snapshot, so that a sidecar can start while the control plane is away.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_mesh::{SpiffeId, Trust};

use crate::error::CertError;
use crate::identity::WorkloadIdentity;
use crate::key::WorkloadKey;

const FILE: &str = "identity.pem";
const ROOTS: &str = "roots.pem";

/// A workload's key and certificate chain in one file (so that they can never be of two different renewals), 0600,
/// and the roots beside it.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    folder: PathBuf,
}

impl IdentityFiles {
    /// In `folder`, which must exist.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// Writes both, each whole or not at all.
    pub fn store(&self, key: &WorkloadKey, chain: &[Vec<u8>], trust: &Trust) -> Result<(), CertError> {
        let mut text = key.to_pem();
        text.push_str(&to_pem(chain));
        write_private(&self.folder.join(FILE), text.as_bytes())?;
        let roots: Vec<Vec<u8>> = trust.roots.iter().map(|r| r.to_vec()).collect();
        write_private(&self.folder.join(ROOTS), to_pem(&roots).as_bytes())
    }

    /// What was stored; `None` when nothing was. A file that others may read, that is for somebody else, does not hold
    /// together or has expired is an error of its own, and is left as it is.
    pub fn load(&self, expected: &SpiffeId) -> Result<Option<(WorkloadIdentity, Trust)>, CertError> {
        let file = self.folder.join(FILE);
        let (Some(own), Some(roots)) = (read_private(&file)?, read_private(&self.folder.join(ROOTS))?) else {
            return Ok(None);
        };
        let (identity, trust) = WorkloadIdentity::from_pem(&own, &own, &roots)?;
        if identity.id() != expected {
            return Err(CertError::OtherIdentity { expected: expected.clone(), got: identity.id().clone() });
        }
        Ok(Some((identity, trust)))
    }
}

fn to_pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = STANDARD.encode(der);
        for line in body.as_bytes().chunks(64) {
            text.extend(line.iter().map(|b| char::from(*b)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Writes a file only its owner reads: whole under another name, synced, then renamed into place.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CertError> {
    let failed = |source| CertError::File { path: path.to_path_buf(), source };
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder).and_then(|f| f.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Reads such a file; `None` when it is not there.
pub(crate) fn read_private(path: &Path) -> Result<Option<zeroize::Zeroizing<String>>, CertError> {
    let failed = |source| CertError::File { path: path.to_path_buf(), source };
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            return Err(CertError::Exposed { path: path.to_path_buf(), mode: meta.mode() & 0o777 });
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(zeroize::Zeroizing::new).map(Some).map_err(failed)
}
