//! `outrigger certs issue`: a certificate as files. The key is made here and goes nowhere else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_certs::WorkloadKey;
use serde_json::{Value, json};

use crate::client::Admin;
use crate::failure::{Doing, Failure};
use crate::out;

/// Issue a certificate as files: `key.pem` (0600), `cert.pem` (leaf first) and `roots.pem`.
///
/// For a peer that is no sidecar of ours, such as Envoy. Nobody renews it: issue it again before it ends. It keeps the
/// gates of a change of the root closed until it ends, unless they are forced.
#[derive(Debug, clap::Args)]
pub(crate) struct Issue {
    /// The folder for the files; made if it is not there. Files of these names are replaced.
    #[arg(long, value_name = "DIR")]
    files: PathBuf,
    /// For whom: namespace/name.
    #[arg(short, long, value_name = "NAMESPACE/NAME")]
    service_account: String,
    /// How long it lives, 1h to 2160h.
    #[arg(long, default_value = "24h")]
    ttl: String,
}

impl Issue {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let (namespace, account) = self.service_account.split_once('/').ok_or_else(|| {
            Failure::usage(format!("{:?} is not namespace/name", self.service_account))
                .hint("as --service-account shop/cart")
        })?;
        let not_made = |e: outrigger_certs::CertError| Failure::failed(e.to_string());
        let key = WorkloadKey::generate().map_err(not_made)?;
        let csr = STANDARD.encode(key.csr().map_err(not_made)?);
        let wanted =
            json!({ "namespace": namespace, "serviceAccount": account, "csr": csr, "ttl": self.ttl });
        let issued = admin.ask("/v1/certs/issue", &wanted).await?;
        let (cert, roots) = (pem(&issued["chain"])?, pem(&issued["roots"])?);
        let doing = format!("{} can not be made", self.files.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.files).doing(doing)?;
        write(&self.files.join("key.pem"), 0o600, key.to_pem().as_bytes())?;
        write(&self.files.join("cert.pem"), 0o644, cert.as_bytes())?;
        write(&self.files.join("roots.pem"), 0o644, roots.as_bytes())?;
        let identity = issued["identity"].as_str().unwrap_or("-");
        out::say(format!("{identity}: key.pem, cert.pem and roots.pem in {}", self.files.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Whole under another name, then in place.
fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let doing = || format!("{} can not be written", path.display());
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&fresh).doing(doing())?;
    file.write_all(bytes).doing(doing())?;
    fs::rename(&fresh, path).doing(doing())
}

/// Certificates in base64 as PEM.
fn pem(all: &Value) -> Result<String, Failure> {
    let bad = || Failure::failed("the control plane answered without certificates");
    let mut text = String::new();
    for one in all.as_array().filter(|all| !all.is_empty()).ok_or_else(bad)? {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in one.as_str().ok_or_else(bad)?.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    Ok(text)
}
