//! `outrigger backup` and `outrigger restore`: all that the control plane keeps, in a file and back.
//!
//! A backup comes from a control plane that runs. It goes into a store that no control plane has open: what runs knows
//! what is in its store, and would go on from there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrigger_control::backup::{self, About};
use outrigger_control::store::etcd::{EtcdAddress, EtcdSecrets, EtcdStore};
use outrigger_control::store::{EmbeddedStore, Image, Space, StoreError};

use crate::client::Admin;
use crate::failure::{Doing, Failure};
use crate::out;

/// Write all that the control plane keeps to a file: the configuration with its history, tokens, rollouts, the audit log.
///
/// Instances are not in it, they register again; nor are the keys of the mesh, unless --with-keys says so.
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// The file, which its owner alone may read then.
    file: PathBuf,
    /// With the private keys of the mesh: whoever has the file can be everybody in the mesh. Without them, and without
    /// an authority of your own (--ca-cert), every workload has to join again after a restore.
    #[arg(long)]
    with_keys: bool,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        if !self.force && self.file.exists() {
            return Err(Failure::usage(format!("{} is there already", self.file.display()))
                .hint("choose another name, or replace it with --force"));
        }
        let text = admin.backup(self.with_keys, progress()).await?;
        told_progress();
        // What is kept for a bad day is read once on a good one.
        let (about, image) = backup::read(&text).map_err(|damaged| {
            Failure::failed(format!("what the control plane sent is no whole backup: {damaged}"))
                .hint("try again; is this program as new as the control plane?")
        })?;
        keep(&self.file, &text, self.force).doing(format_args!("can not write {}", self.file.display()))?;
        out::say(format!("{}: {}", self.file.display(), content(&about, &image)));
        if about.keys {
            out::warn(
                "the keys of the mesh are in it: whoever reads it can be everybody. Encrypt it before it goes anywhere",
            );
        } else {
            out::warn("the keys of the mesh are not in it (--with-keys)");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Make the store of a control plane of a backup. No control plane may run on it.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("into").required(true)))]
pub(crate) struct Restore {
    /// The file that `outrigger backup` wrote.
    file: PathBuf,
    /// The data folder of the control plane, for a store in a file. Run it as the user that the control plane runs as.
    #[arg(long, group = "into", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The shared store, as the control plane is told of it.
    #[arg(long, group = "into", value_name = "etcds://HOST:PORT,.../PREFIX")]
    store: Option<EtcdAddress>,
    /// Who vouches for the members of the shared store (PEM).
    #[arg(long, requires = "store", value_name = "FILE")]
    store_ca: Option<PathBuf>,
    /// What is shown to them (PEM), with --store-key.
    #[arg(long, requires_all = ["store", "store_key"], value_name = "FILE")]
    store_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "store_cert", value_name = "FILE")]
    store_key: Option<PathBuf>,
    /// The user to log in as, with --store-password-file.
    #[arg(long, requires_all = ["store", "store_password_file"], value_name = "NAME")]
    store_user: Option<String>,
    /// His password.
    #[arg(long, requires = "store_user", value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// Put it in the place of what is there. A store in a file is kept beside; what is in a shared one is gone then.
    #[arg(long)]
    replace: bool,
}

impl Restore {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let text = fs::read(&self.file).doing(format_args!("can not read {}", self.file.display()))?;
        let (about, image) = backup::read(&text).map_err(|damaged| {
            Failure::failed(format!(
                "{} is no whole backup: {damaged}; nothing was restored",
                self.file.display()
            ))
            .hint("take another one: of a damaged backup nothing is used")
        })?;
        let secrets = EtcdSecrets {
            roots: self.store_ca,
            certificate: self.store_cert.zip(self.store_key),
            user: self.store_user.zip(self.store_password_file),
        };
        if let Some(folder) = &self.data {
            if let Some(aside) =
                EmbeddedStore::restore(folder, &image, self.replace).await.map_err(|e| not_made(&e))?
            {
                out::say(format!("what was there is kept as {}", aside.display()));
            }
        } else if let Some(address) = self.store {
            let domain = about.domain.parse().map_err(|_| Failure::failed("its trust domain is none"))?;
            EtcdStore::restore(&address.of_mesh(&domain), &secrets, &image, self.replace)
                .await
                .map_err(|e| not_made(&e))?;
        }
        out::say(format!("restored: {}", content(&about, &image)));
        out::warn(format!("start the control plane with --trust-domain {}", about.domain));
        if !about.keys {
            out::warn(
                "the keys of the mesh were not in it: without an authority of your own (--ca-cert) a new one is made, and \
                 every workload has to join again",
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn not_made(e: &StoreError) -> Failure {
    let failure = Failure::failed(e.to_string());
    if e.to_string().contains("not empty") {
        failure.hint("--replace puts the backup in the place of what is there")
    } else {
        failure.hint("no control plane may run on it; nothing of the backup is in force")
    }
}

/// What it holds, in few words.
fn content(about: &About, image: &Image) -> String {
    let objects = image.records.iter().filter(|(space, ..)| *space == Space::Config).count();
    format!(
        "revision {} of {}, {objects} objects, {} revisions of history, {} lines of the audit log, taken {}",
        image.counts.revision,
        about.domain,
        image.revisions.len(),
        image.audit.len(),
        about.at.replace_nanosecond(0).unwrap_or(about.at),
    )
}

/// Whole or not at all, and for its owner's eyes from the first byte on. Without `force` what is there stays.
fn keep(file: &Path, text: &[u8], force: bool) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let half = file.with_file_name(format!(".{name}.half-{}", std::process::id()));
    let write = || {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        to.write_all(text)?;
        to.sync_all()?;
        // A link, unlike a renaming, fails when there is something meanwhile.
        if force { fs::rename(&half, file) } else { fs::hard_link(&half, file) }
    };
    let written = write();
    // It is a second name of the file, or worth nothing.
    let _ = fs::remove_file(&half);
    written
}

/// How far it has come, for who watches.
fn progress() -> Option<fn(usize)> {
    io::IsTerminal::is_terminal(&io::stderr()).then_some(|bytes| {
        let _ = write!(io::stderr(), "\r{:.1} MB", megabytes(bytes));
    })
}

fn told_progress() {
    if progress().is_some() {
        let _ = write!(io::stderr(), "\r            \r");
    }
}

#[allow(clippy::cast_precision_loss, reason = "a tenth of a megabyte is enough")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_its_owners_alone_and_not_replaced_unless_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mesh.backup");
        keep(&file, b"one", false).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(keep(&file, b"two", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"one");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        keep(&file, b"two", true).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half is left");
    }
}
