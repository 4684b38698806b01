//! The last good configuration on disk, so that a sidecar serves through a restart while the control plane is away.
//!
//! A copy that was cut, changed, written by a newer version or for another workload is refused, and nothing is
//! overwritten: it is for a person to say what should become of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use outrigger_mesh::{FeatureSet, Resource, ResourceName, SpiffeId};
use outrigger_wire::{Bundle, BundleError};

/// The copy of one workload's configuration.
#[derive(Clone, Debug)]
pub struct DiskCopy {
    file: PathBuf,
    owner: SpiffeId,
}

/// Why a copy can not be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system refused.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path}: {source}; move it away to start without it")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// It is larger than any copy of ours.
    #[error("{path} has {size} bytes, more than a copy can have; move it away to start without it")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// It belongs to another workload.
    #[error("{path} is the configuration of {owner}, not of {expected}; move it away to start without it")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        owner: String,
    },
}

impl DiskCopy {
    /// The copy of `owner` in `folder`.
    pub fn new(folder: &Path, owner: SpiffeId) -> Self {
        Self { file: folder.join(FILE), owner }
    }

    /// What was stored; `None` when nothing was.
    pub fn load(&self) -> Result<Option<Bundle>, DiskError> {
        let Some(bytes) = read_bounded(&self.file)? else { return Ok(None) };
        let bundle = Bundle::from_bytes(&bytes, &FeatureSet::all())
            .map_err(|source| DiskError::Refused { path: self.file.clone(), source })?;
        if bundle.owner.as_ref() != Some(&self.owner) {
            let owner = bundle.owner.map_or("nobody".to_owned(), |owner| owner.to_string());
            return Err(DiskError::Foreign {
                path: self.file.clone(),
                expected: self.owner.to_string(),
                owner,
            });
        }
        Ok(Some(bundle))
    }

    /// Stores `resources` whole or not at all: written beside, synced, renamed into place. Blocks.
    pub fn store(
        &self,
        revision: u64,
        resources: &BTreeMap<ResourceName, Resource>,
    ) -> Result<(), DiskError> {
        let resources = resources.values().cloned().collect();
        let bundle = Bundle { owner: Some(self.owner.clone()), revision, resources };
        write_whole(&self.file, &bundle.to_bytes())
            .map_err(|source| DiskError::File { path: self.file.clone(), source })
    }
}

/// A file of at most [`LARGEST`] bytes; `None` when there is none.
pub(super) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    let failed = |source| DiskError::File { path: path.to_path_buf(), source };
    let size = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
        Ok(meta) => meta.len(),
    };
    if size > LARGEST {
        return Err(DiskError::TooLarge { path: path.to_path_buf(), size });
    }
    fs::read(path).map(Some).map_err(failed)
}

fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    match file.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

const FILE: &str = "snapshot.bundle";
const LARGEST: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use outrigger_testkit::resources::{identity, service};

    use super::*;

    fn stored(folder: &Path) -> (DiskCopy, PathBuf) {
        let copy = DiskCopy::new(folder, identity("shop", "cart"));
        let resource = Resource::Service(service("shop/prices"));
        copy.store(7, &BTreeMap::from([(resource.name(), resource)])).unwrap();
        (copy, folder.join(FILE))
    }

    #[test]
    fn a_copy_reads_back_and_only_its_owner_may() {
        let folder = tempfile::tempdir().unwrap();
        let (copy, file) = stored(folder.path());
        let bundle = copy.load().unwrap().unwrap();
        assert_eq!((bundle.revision, bundle.resources.len()), (7, 1));
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_copy_that_is_not_as_written_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (copy, file) = stored(folder.path());
        let good = fs::read(&file).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        let newer = [b"outrigger bundle 2\n", &good[19..]].concat();
        let cases: [(&[u8], &str); 5] = [
            (&good[..good.len() - 1], "ends too early"),
            (&flipped, "checksum"),
            (&newer, "newer version"),
            (b"", "ends too early"),
            (b"#!/bin/sh\n", "not a bundle"),
        ];
        for (bytes, expected) in cases {
            fs::write(&file, bytes).unwrap();
            let error = copy.load().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("snapshot.bundle"), "{error}");
            assert_eq!(fs::read(&file).unwrap(), bytes);
        }
    }

    #[test]
    fn the_copy_of_another_workload_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        stored(folder.path());
        let error = DiskCopy::new(folder.path(), identity("shop", "web")).load().unwrap_err().to_string();
        assert!(error.contains("sa/cart") && error.contains("sa/web"), "{error}");
    }

    #[test]
    fn nothing_stored_is_no_error_but_an_unreadable_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = DiskCopy::new(folder.path(), identity("shop", "cart"));
        assert!(nothing.load().unwrap().is_none());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(DiskCopy::new(&file, identity("shop", "cart")).load().is_err());
    }
}
