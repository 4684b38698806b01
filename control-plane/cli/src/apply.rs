//! `outrigger apply`: resources from files into the mesh, all of them or none.

use std::process::ExitCode;
use std::time::Duration;

use outrigger_control::spec::{Object, Problem};
use serde_json::Value;

use crate::args::Printed;
use crate::client::{Admin, NotWritten};
use crate::documents::{Documents, NotRead};
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};
use crate::problems;

/// Write resources: all of the files' documents, or none.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|FOLDER|-", required = true)]
    files: Vec<String>,
    /// Check everything and tell what would change, but write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Wait until every connected proxy has acknowledged it, or tell which has not and why.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 30, requires = "wait")]
    timeout: u64,
    #[command(flatten)]
    printed: Printed,
}

/// What the control plane did.
#[derive(Debug)]
pub(crate) struct Applied {
    answer: Value,
    documents: Documents,
}

/// Why nothing was written.
#[derive(Debug)]
enum NotApplied {
    /// The resources have problems.
    Refused(Vec<Problem>),
    Failed(Failure),
}

impl Apply {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let wait = self.wait.then(|| Duration::from_secs(self.timeout));
        match write(admin, &self.files, self.dry_run, wait).await {
            Ok(applied) => self.tell(&applied),
            Err(NotApplied::Failed(failure)) => Err(failure),
            Err(NotApplied::Refused(problems)) => {
                problems::tell(&problems, self.printed.format).map(ExitCode::from)
            }
        }
    }

    fn tell(&self, applied: &Applied) -> Result<ExitCode, Failure> {
        if self.printed.format == Format::Table {
            for warning in applied.warnings() {
                out::warn(problems::lines(&warning));
            }
            out::say(applied.lines(self.dry_run).join("\n"));
            if self.wait {
                out::say(applied.told());
            }
        } else {
            out::value(&applied.answer, self.printed.format)?;
        }
        let live = !self.wait || applied.live();
        Ok(if live { ExitCode::SUCCESS } else { Exit::NotLive.into() })
    }
}

/// Writes files and waits, for commands that do it on the way.
pub(crate) async fn files(
    admin: &Admin,
    files: &[String],
    wait: Option<Duration>,
) -> Result<Applied, Failure> {
    write(admin, files, false, wait).await.map_err(|why| match why {
        NotApplied::Failed(failure) => failure,
        NotApplied::Refused(problems) => {
            problems::failure(&format!("{} was refused", files.join(", ")), &problems)
        }
    })
}

async fn write(
    admin: &Admin,
    files: &[String],
    dry_run: bool,
    wait: Option<Duration>,
) -> Result<Applied, NotApplied> {
    let documents = Documents::read(files).map_err(|why| match why {
        NotRead::Failed(failure) => NotApplied::Failed(failure),
        NotRead::Refused(problems) => NotApplied::Refused(problems),
    })?;
    let items: Vec<Value> = documents.objects().map(Object::to_json).collect();
    match admin.apply(&items, dry_run, wait).await {
        Ok(answer) => Ok(Applied { answer, documents }),
        Err(NotWritten::Failed(failure)) => Err(NotApplied::Failed(failure)),
        Err(NotWritten::Refused(refusal)) => Err(NotApplied::Refused(documents.located(refusal.problems))),
    }
}

impl Applied {
    /// Whether every connected proxy has acknowledged it.
    pub(crate) fn live(&self) -> bool {
        self.proxies().is_some_and(|(live, all)| live == all)
    }

    /// How far it has come, in a sentence.
    pub(crate) fn told(&self) -> String {
        let Some((live, all)) = self.proxies() else { return "nobody said how far it has come".into() };
        let missing: Vec<String> = self.missing().iter().map(|one| format!("\n  {one}")).collect();
        format!("live on {live} of {all} proxies{}", missing.concat())
    }

    fn proxies(&self) -> Option<(u64, u64)> {
        let wait = &self.answer["wait"];
        Some((wait["acknowledged"].as_u64()?, wait["proxies"].as_u64()?))
    }

    fn missing(&self) -> Vec<String> {
        let all = self.answer["wait"]["missing"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        all.iter().map(|one| format!("{}: {}", text(&one["proxy"]), text(&one["reason"]))).collect()
    }

    fn warnings(&self) -> Vec<Problem> {
        let warnings = serde_json::from_value(self.answer["warnings"].clone()).unwrap_or_default();
        self.documents.located(warnings)
    }

    fn lines(&self, dry_run: bool) -> Vec<String> {
        let dry = if dry_run { " (dry run)" } else { "" };
        let objects = self.documents.keys().map(|key| format!("{key} applied{dry}"));
        objects.chain(self.answer["revision"].as_u64().map(|n| format!("revision {n}{dry}"))).collect()
    }
}
