//! `outrigger compile`: resources into a plan that a sidecar runs without a control plane.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use outrigger_control::state::compile_all;
use outrigger_mesh::{Resource, Route, TrustDomain};
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
        let (told, secret) = (counted(&resources), resources.iter().any(holds_secret));
        let bundle = Bundle { owner: None, revision: 0, resources };
        write(&self.out, &bundle.to_bytes(), secret)?;
        let only =
            if secret { "; it holds keys of sticky sessions, so only its owner may read it" } else { "" };
        out::say(format!("{}: {told}{only}", self.out.display()));
        Ok(ExitCode::SUCCESS)
    }
}

fn counted(resources: &[Resource]) -> String {
    let count = |wanted: fn(&Resource) -> bool| resources.iter().filter(|r| wanted(r)).count();
    let services = count(|r| matches!(r, Resource::Service(_)));
    let endpoints = count(|r| matches!(r, Resource::Endpoint(_)));
    format!("{services} services, {endpoints} endpoints")
}

/// Whether whoever can read it could sign places of sticky sessions.
fn holds_secret(resource: &Resource) -> bool {
    let in_routes = |routes: &[Route]| routes.iter().any(|route| route.choice.session.is_some());
    match resource {
        Resource::Service(service) => {
            let mut policies = service.for_callers.iter().map(|c| &c.policy).chain([&service.policy]);
            policies.any(|policy| policy.balance.sticky.is_some()) || in_routes(&service.routes)
        }
        Resource::ConsumerRoutes(own) => in_routes(&own.routes),
        Resource::Gateway(gateway) => {
            let mut routes = gateway.listeners.iter().flat_map(|l| &l.routes);
            routes.any(|attached| attached.route.choice.session.is_some())
        }
        _ => false,
    }
}

/// Writes all of it or leaves what was there: a sidecar may read the plan at any moment.
fn write(path: &Path, bytes: &[u8], secret: bool) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what = format!("can not write {}", path.display());
    let mode = std::fs::Permissions::from_mode(if secret { 0o600 } else { 0o644 });
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(folder).doing(&what)?;
    file.write_all(bytes).doing(&what)?;
    file.as_file().sync_all().doing(&what)?;
    file.persist(path).map_err(|e| e.error).doing(&what)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_keys_in_it_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let sources = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {name: cart, namespace: shop}\n\
                       spec: {ports: [{port: 80}]}\n";
        let sticky = "---\napiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\n\
                      metadata: {name: cart, namespace: shop}\n\
                      spec: {targetRef: {kind: MeshService, name: cart}, balance: {sticky: {cookie: {name: place}}}}\n";
        for (text, mode) in [(sources.to_owned(), 0o644), (format!("{sources}{sticky}"), 0o600)] {
            let (source, out) = (folder.path().join("mesh.yaml"), folder.path().join("plan"));
            std::fs::write(&source, text).unwrap();
            let files = vec![source.display().to_string()];
            let compile = Compile { files, out: out.clone(), trust_domain: "mesh.local".parse().unwrap() };
            compile.run().unwrap();
            assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, mode);
        }
    }
}
