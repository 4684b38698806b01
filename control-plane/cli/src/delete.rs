//! `outrigger delete`: takes resources away, each only as it was read a moment before.

use std::process::ExitCode;

use outrigger_control::spec::{Key, Problem};

use crate::client::{Admin, NotWritten};
use crate::documents::{Documents, NotRead};
use crate::failure::Failure;
use crate::get::not_there;
use crate::kind::Kind;
use crate::{out, problems};

/// Delete resources by kind and name, or those in files.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// services, instances or httproutes.
    #[arg(required_unless_present = "files", requires = "name")]
    kind: Option<Kind>,
    /// The name of the one to delete.
    #[arg(conflicts_with = "files")]
    name: Option<String>,
    /// Delete what these files name: a file, a folder, or - for standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE|FOLDER|-")]
    files: Vec<String>,
    /// The namespace of the one to delete.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
    /// It is no failure when a resource is not there.
    #[arg(long)]
    ignore_not_found: bool,
    /// Let routes be left that refer to it: it is told as a warning, and is their state.
    #[arg(long)]
    allow_dangling: bool,
}

impl Delete {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        for (kind, namespace, name) in self.targets()? {
            match admin.object(kind.plural(), &namespace, &name).await? {
                None if self.ignore_not_found => {}
                None => return Err(not_there(kind, &namespace, &name)),
                Some(stored) => {
                    let (plural, dangling) = (kind.plural(), self.allow_dangling);
                    let deleted = admin.delete(plural, &namespace, &name, &stored, dangling).await;
                    let told = deleted.map_err(|why| not_deleted(why, kind, &namespace, &name))?;
                    let warnings: Vec<Problem> =
                        serde_json::from_value(told["warnings"].clone()).unwrap_or_default();
                    for warning in &warnings {
                        out::warn(problems::lines(warning));
                    }
                    out::say(format!("{}/{namespace}/{name} deleted", kind.word()));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What to delete. Of files, the last first: what refers to others usually stands after them.
    fn targets(&self) -> Result<Vec<(Kind, String, String)>, Failure> {
        if let (Some(kind), Some(name)) = (self.kind, &self.name) {
            return Ok(vec![(kind, self.namespace.clone(), name.clone())]);
        }
        let documents = Documents::read(&self.files).map_err(|why| match why {
            NotRead::Failed(failure) => failure,
            NotRead::Refused(found) => problems::failure("nothing was deleted", &found),
        })?;
        let target = |key: Key| (Kind::from(key.kind), key.namespace.to_string(), key.name.to_string());
        Ok(documents.keys().rev().map(target).collect())
    }
}

fn not_deleted(why: NotWritten, kind: Kind, namespace: &str, name: &str) -> Failure {
    let what = format!("{}/{namespace}/{name}", kind.word());
    match why {
        NotWritten::Failed(failure) => failure,
        NotWritten::Refused(refusal) => {
            problems::failure(&format!("{what} is not deleted"), &refusal.problems)
                .hint("delete what still refers to it first, or let routes dangle with --allow-dangling")
        }
    }
}
