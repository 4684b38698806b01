//! `outrigger compile`: resources into a plan that a sidecar runs without a control plane.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrigger_control::state::compile_all;
use outrigger_mesh::{Resource, TrustDomain};
use outrigger_wire::bundle::Bundle;

use crate::documents::{Documents, NotRead};
use crate::failure::{Doing, Failure};
use crate::out::{self, Format};
use crate::problems;

/// Compile resources without a control plane, for `outrigger-proxy --plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Compile {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|FOLDER|-", required = true)]
    files: Vec<String>,
    /// Where to write the plan.
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: PathBuf,
    /// The trust domain of the identities in it.
    #[arg(long, default_value = "mesh.local", env = "OUTRIGGER_TRUST_DOMAIN")]
    trust_domain: TrustDomain,
}

impl Compile {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let documents = match Documents::read(&self.files) {
            Ok(documents) => documents,
            Err(NotRead::Failed(failure)) => return Err(failure),
            Err(NotRead::Refused(found)) => return problems::tell(&found, Format::Table).map(ExitCode::from),
        };
        let resources = match compile_all(documents.into_all(), &self.trust_domain) {
            Ok(resources) => resources,
            Err(found) => return problems::tell(&found, Format::Table).map(ExitCode::from),
        };
        let told = counted(&resources);
        let bundle = Bundle { owner: None, revision: 0, resources };
        write(&self.out, &bundle.to_bytes())?;
        out::say(format!("{}: {told}", self.out.display()));
        Ok(ExitCode::SUCCESS)
    }
}

fn counted(resources: &[Resource]) -> String {
    let count = |wanted: fn(&Resource) -> bool| resources.iter().filter(|r| wanted(r)).count();
    let services = count(|r| matches!(r, Resource::Service(_)));
    let endpoints = count(|r| matches!(r, Resource::Endpoint(_)));
    format!("{services} services, {endpoints} endpoints")
}

/// Writes all of it or leaves what was there: a sidecar may read the plan at any moment.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what = format!("can not write {}", path.display());
    let mode = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(folder).doing(&what)?;
    file.write_all(bytes).doing(&what)?;
    file.as_file().sync_all().doing(&what)?;
    file.persist(path).map_err(|e| e.error).doing(&what)?;
    Ok(())
}
