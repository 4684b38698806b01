//! `outrigger lint`: what is wrong or doubtful in files, without a control plane.

use std::process::ExitCode;

use outrigger_control::spec::{Problem, Severity};
use outrigger_mesh::TrustDomain;
use serde_json::json;

use crate::args::Printed;
use crate::documents::{Documents, NotRead};
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};
use crate::problems;

/// Find what is wrong or doubtful in files, without a control plane: everything that `apply` would refuse or warn of, and
/// what only shows when all objects are seen together: rules that no request can meet, weights that send nothing,
/// references that dangle, access rules that others undo.
///
/// Give it the whole of what is to be in force: what is not in the files is taken not to be there. Exits with 3 when
/// something would be refused, with `--strict` also when something is doubtful.
#[derive(Debug, clap::Args)]
pub(crate) struct Lint {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|FOLDER|-", required = true)]
    files: Vec<String>,
    /// Take what is doubtful for a mistake too.
    #[arg(long)]
    strict: bool,
    /// The trust domain of the identities in the files.
    #[arg(long, default_value = "mesh.local", env = "OUTRIGGER_TRUST_DOMAIN")]
    trust_domain: TrustDomain,
    #[command(flatten)]
    printed: Printed,
}

impl Lint {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let (found, read) = match Documents::read(&self.files) {
            Ok(documents) => {
                let documents = documents.into_all();
                (outrigger_control::lint::lint(&documents, &self.trust_domain), documents.len())
            }
            Err(NotRead::Failed(failure)) => return Err(failure),
            Err(NotRead::Refused(found)) => (found, 0),
        };
        let errors = found.iter().filter(|p| p.severity == Severity::Error).count();
        match self.printed.format {
            Format::Table => {
                for problem in &found {
                    out::say(told(problem));
                }
                out::say(summary(read, errors, found.len() - errors));
            }
            format => out::value(&json!({ "problems": found }), format)?,
        }
        let refused = errors > 0 || self.strict && !found.is_empty();
        Ok(if refused { Exit::Refused.into() } else { ExitCode::SUCCESS })
    }
}

fn told(problem: &Problem) -> String {
    format!("{}: {}", problem.severity, problems::lines(problem))
}

fn summary(read: usize, errors: usize, warnings: usize) -> String {
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => format!("{}: nothing to say", counted(read, "object")),
        _ => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
    }
}
