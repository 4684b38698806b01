//! An identity in files that somebody else provides and renews.
//!
//! The files are looked at once a second, through symbolic links, so that the way in which Kubernetes swaps a folder is
//! seen like a file that is written anew. What has changed is read once it has stood still, and taken whole or not at
//! all: certificate, key and roots must belong together and be for this workload. Connections stay open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::{CertError, WorkloadIdentity};
use outrigger_mesh::{SpiffeId, Trust};
use zeroize::Zeroizing;

use super::{CertificateFiles, IdentityError, Obtained, Origin, RenewalStatus, check, until};

/// Reads the files.
pub(super) fn read(files: &CertificateFiles, id: &SpiffeId) -> Result<Obtained, IdentityError> {
    let (identity, trust) = parse(files, id)?;
    Ok(Obtained { identity: Arc::new(identity), trust, from: Origin::Files })
}

fn parse(files: &CertificateFiles, id: &SpiffeId) -> Result<(WorkloadIdentity, Trust), IdentityError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| IdentityError::File { path: path.to_path_buf(), source })
    };
    let (cert, roots) = (read(&files.cert)?, read(&files.roots)?);
    let key = Zeroizing::new(read(&files.key)?);
    let mode = fs::metadata(&files.key).map_or(0, |meta| meta.mode() & 0o777);
    if mode & 0o077 != 0 {
        return Err(CertError::Exposed { path: files.key.clone(), mode }.into());
    }
    let (identity, trust) = WorkloadIdentity::from_pem(&cert, &key, &roots)?;
    check(id, &identity, || format!("the certificate in {}", files.cert.display()))?;
    Ok((identity, trust))
}

/// Follows the files for as long as it runs.
#[derive(Debug)]
pub struct FilesWatch {
    files: CertificateFiles,
    identity: Arc<WorkloadIdentity>,
    status: Arc<RenewalStatus>,
    /// What the files looked like when they were last read, for good or bad.
    read: Option<Looks>,
    last: Option<Looks>,
    warned: Option<SystemTime>,
}

impl FilesWatch {
    /// Follows `files`, from which `obtained` came.
    pub fn new(files: CertificateFiles, obtained: &Obtained) -> Self {
        let identity = Arc::clone(&obtained.identity);
        let status = Arc::default();
        // Read once more at the first look: they may have changed since they were.
        Self { files, identity, status, read: None, last: None, warned: None }
    }

    /// How it is going: a renewal is a set of files that was taken, a failure one that was not.
    pub fn status(&self) -> Arc<RenewalStatus> {
        Arc::clone(&self.status)
    }

    /// Looks until it is dropped.
    pub async fn run(self) {
        let mut every = tokio::time::interval(LOOK);
        let mut watch = Some(self);
        while let Some(mut this) = watch.take() {
            every.tick().await;
            // Files may lie on a disk that is slow.
            watch = tokio::task::spawn_blocking(move || {
                this.look();
                this
            })
            .await
            .ok();
        }
    }

    /// One look.
    pub fn look(&mut self) {
        let now = looks(&self.files);
        let still = std::mem::replace(&mut self.last, now) == now;
        if still && now.is_some() && now != self.read {
            self.take(now);
        }
        self.warn_of_the_end();
    }

    fn take(&mut self, now: Option<Looks>) {
        let parsed = parse(&self.files, self.identity.id());
        if looks(&self.files) != now {
            // They were being changed while they were read.
            return;
        }
        self.read = now;
        let taken = parsed.and_then(|(fresh, trust)| {
            if fresh.certificate_sha256() == self.identity.certificate_sha256() {
                self.identity.trust().update(&trust)?;
                return Ok(false);
            }
            self.identity.replace(&fresh, &trust)?;
            Ok(true)
        });
        match taken {
            Ok(false) => {}
            Ok(true) => {
                self.status.renewed();
                let left = until(self.identity.expires_at());
                tracing::info!(id = %self.identity.id(), valid_for = ?left, "the certificate files have changed and are in use");
            }
            Err(error) => {
                self.status.failed();
                let left = until(self.identity.expires_at());
                tracing::error!(%error, valid_for = ?left, "the certificate files have changed and can not be used; those of before stay in use");
            }
        }
    }

    /// Whoever renews the files has forgotten to: says so once an hour in the last fifth of the certificate's life.
    fn warn_of_the_end(&mut self) {
        let (from, to) = (self.identity.not_before(), self.identity.expires_at());
        let (life, left) = (to.duration_since(from).unwrap_or_default(), until(to));
        let now = SystemTime::now();
        let due = self.warned.is_none_or(|at| now.duration_since(at).is_ok_and(|past| past >= WARN_EVERY));
        if left < life / 5 && due {
            self.warned = Some(now);
            tracing::warn!(valid_for = ?left, cert = %self.files.cert.display(), "the certificate ends soon and its files have not been renewed");
        }
    }
}

/// What tells one state of the three files from another.
type Looks = [(u64, u64, i64, i64, u64); 3];

/// `None` while one of them is not there: somebody is about to write it.
fn looks(files: &CertificateFiles) -> Option<Looks> {
    let of = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.len()))
    };
    Some([of(&files.cert)?, of(&files.key)?, of(&files.roots)?])
}

const LOOK: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_hours(1);
