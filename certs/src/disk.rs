//! Key and leaf beside the snapshot, so that a sidecar can start while the control plane is away.

use std::fs;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_mesh::{SpiffeId, Trust};
use zeroize::Zeroizing;

use crate::error::CertError;
use crate::identity::WorkloadIdentity;
use crate::key::WorkloadKey;
use crate::token::JoinToken;

const FILE: &str = "identity.pem";
const ROOTS: &str = "roots.pem";
const JOINED: &str = "joined-with";
/// Far above any chain or bundle.
const MAX_FILE: u64 = 1024 * 1024;

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
        // Roots first: an identity that lies there is then never without the roots it was issued under.
        let roots: Vec<Vec<u8>> = trust.roots.iter().map(|r| r.to_vec()).collect();
        write_private(&self.folder.join(ROOTS), to_pem(&roots).as_bytes())?;
        let (key, chain) = (key.to_pem(), to_pem(chain));
        // Sized beforehand: a text that grows leaves copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(key.len() + chain.len()));
        text.push_str(&key);
        text.push_str(&chain);
        write_private(&self.folder.join(FILE), text.as_bytes())
    }

    /// Remembers the token that let this workload in, by its public name.
    pub fn joined_with(&self, token: &JoinToken) -> Result<(), CertError> {
        write_private(&self.folder.join(JOINED), token.id().as_bytes())
    }

    /// Whether this is the token that let this workload in. Its mesh may have changed its root since.
    pub fn did_join_with(&self, token: &JoinToken) -> bool {
        matches!(read_private(&self.folder.join(JOINED)), Ok(Some(id)) if *id == token.id())
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

pub(crate) fn to_pem(certificates: &[Vec<u8>]) -> String {
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
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, CertError> {
    match read_file(path, 0o077) {
        Err(CertError::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Reads a password or a token from a file that not everybody on the machine may read; its group may, since that is how
/// platforms hand secrets to a process.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, CertError> {
    read_file(path, 0o007)
}

/// Reads a file of keys or certificates, unless its mode has one of the `closed` bits.
pub(crate) fn read_file(path: &Path, closed: u32) -> Result<Zeroizing<String>, CertError> {
    let failed = |source| CertError::File { path: path.to_path_buf(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    // Of the open file: between two looks at a path it could be another one.
    let meta = file.metadata().map_err(failed)?;
    if meta.mode() & closed != 0 {
        return Err(CertError::Exposed { path: path.to_path_buf(), mode: meta.mode() & 0o777 });
    }
    if meta.len() > MAX_FILE {
        return Err(failed(Error::new(ErrorKind::InvalidData, "too large for keys and certificates")));
    }
    let size = usize::try_from(meta.len()).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(size + 1));
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
