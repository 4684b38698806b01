//! A server's certificate that somebody else puts into files, and takes away for a new one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::public::read;

/// A certificate that lies in files.
pub(crate) struct Files {
    paths: (PathBuf, PathBuf),
    changed: ArcSwap<(SystemTime, SystemTime)>,
    key: ArcSwap<CertifiedKey>,
}

impl Files {
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let paths = (certificate.to_owned(), key.to_owned());
        let changed = times(&paths)?;
        let key = ArcSwap::new(read(&paths)?);
        Ok(Self { paths, changed: ArcSwap::from_pointee(changed), key })
    }

    /// Takes them anew if they have changed; told is whether they have. The last good ones stay where that fails.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        let changed = times(&self.paths)?;
        if **self.changed.load() == changed {
            return Ok(false);
        }
        self.key.store(read(&self.paths)?);
        self.changed.store(Arc::new(changed));
        Ok(true)
    }

    pub(crate) fn key(&self) -> Arc<CertifiedKey> {
        self.key.load_full()
    }
}

fn times((certificate, key): &(PathBuf, PathBuf)) -> Result<(SystemTime, SystemTime), String> {
    let time = |file: &Path| {
        let modified = std::fs::metadata(file).and_then(|meta| meta.modified());
        modified.map_err(|e| format!("{}: {e}", file.display()))
    };
    Ok((time(certificate)?, time(key)?))
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.paths.0.display())
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}
