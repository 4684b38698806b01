//! `outrigger apply`: resources from files into the mesh, all of them or none.

use std::process::ExitCode;
use std::time::Duration;

use outrigger_control::spec::{Object, Problem};
use serde_json::Value;

use crate::args::Printed;
use crate::client::{Admin, How, NotWritten};
use crate::diff;
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
    /// Let routes refer to what is not there, or not granted: it is told as a warning, and is their state.
    #[arg(long)]
    allow_dangling: bool,
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
        let how = How { dry_run: self.dry_run, dangling: self.allow_dangling, wait };
        match write(admin, &self.files, how).await {
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
    write(admin, files, How { wait, ..How::default() }).await.map_err(|why| match why {
        NotApplied::Failed(failure) => failure,
        NotApplied::Refused(problems) => {
            problems::failure(&format!("{} was refused", files.join(", ")), &problems)
        }
    })
}

/// What applying files would change, as the control plane tells it.
pub(crate) async fn foresee(admin: &Admin, files: &[String], how: How) -> Result<Value, Failure> {
    match write(admin, files, how).await {
        Ok(applied) => Ok(applied.answer),
        Err(NotApplied::Failed(failure)) => Err(failure),
        Err(NotApplied::Refused(found)) => {
            Err(problems::failure(&format!("{} would be refused", files.join(", ")), &found))
        }
    }
}

async fn write(admin: &Admin, files: &[String], how: How) -> Result<Applied, NotApplied> {
    let documents = Documents::read(files).map_err(|why| match why {
        NotRead::Failed(failure) => NotApplied::Failed(failure),
        NotRead::Refused(problems) => NotApplied::Refused(problems),
    })?;
    let items: Vec<Value> = documents.objects().map(Object::to_json).collect();
    match admin.apply(&items, how).await {
        Ok(answer) => Ok(Applied { answer, documents }),
        Err(NotWritten::Failed(failure)) => Err(NotApplied::Failed(failure)),
        Err(NotWritten::Refused(refusal)) => Err(NotApplied::Refused(documents.located(refusal.problems))),
    }
}

impl Applied {
    /// What the control plane answered to a change that was not read from files.
    pub(crate) fn answered(answer: Value) -> Self {
        Self { answer, documents: Documents::default() }
    }

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

    /// What became of each object, and the revision; of a dry run, what would differ and for whom.
    pub(crate) fn lines(&self, dry_run: bool) -> Vec<String> {
        let dry = if dry_run { " (dry run: nothing was written)" } else { "" };
        let changes = self.answer["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let change = |one: &Value| {
            let text = |field: &str| one[field].as_str().unwrap_or("?").to_owned();
            format!("{} {}", text("object"), text("action"))
        };
        let revision = self.answer["revision"].as_u64().map(|number| format!("revision {number}{dry}"));
        let foreseen = if dry_run {
            [diff::lines(&self.answer["changes"]), diff::affected(&self.answer)].concat()
        } else {
            changes.iter().map(change).collect()
        };
        foreseen.into_iter().chain(revision).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::tests::answers;

    const CART: &str = r#"{"apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService",
        "metadata": {"name": "cart", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}}"#;

    async fn applied(status: u16, answer: Value, text: &str) -> (Result<Applied, NotApplied>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cart.json");
        std::fs::write(&file, text).unwrap();
        let (address, server) = answers(vec![(status, "", answer.to_string())]).await;
        let admin = Admin::at(&format!("http://{address}")).unwrap();
        let wait = Some(Duration::from_secs(3));
        let applied = write(&admin, &[file.display().to_string()], How { wait, ..How::default() }).await;
        (applied, server.await.unwrap())
    }

    #[tokio::test]
    async fn what_changed_and_how_far_it_has_come_is_told() {
        let answer = json!({"revision": 7, "changes": [{"object": "services/shop/cart", "action": "created"}],
            "warnings": [], "wait": {"acknowledged": 1, "proxies": 2,
            "missing": [{"proxy": "web-1", "reason": "has not answered"}]}});
        let (applied, asked) = applied(200, answer, CART).await;
        let applied = applied.unwrap();
        assert_eq!(applied.lines(false), ["services/shop/cart created", "revision 7"]);
        assert_eq!(applied.told(), "live on 1 of 2 proxies\n  web-1: has not answered");
        assert!(!applied.live());
        assert!(
            asked[0].starts_with("POST /v1/apply?wait=applied&timeout=3000ms HTTP/1.1\r\n"),
            "{}",
            asked[0]
        );
        assert!(asked[0].contains(r#""kind":"MeshService""#), "{}", asked[0]);
    }

    #[tokio::test]
    async fn what_the_control_plane_refuses_is_told_where_it_was_written() {
        let problem = json!({"pointer": "/items/0/spec/ports/0/port", "code": "conflict", "message": "taken",
            "severity": "error", "line": 2, "column": 90});
        let (refused, _) = applied(422, json!({"title": "x", "problems": [problem]}), CART).await;
        let Err(NotApplied::Refused(problems)) = refused else { panic!("{refused:?}") };
        assert!(problems[0].file.as_deref().unwrap().ends_with("cart.json"));
        assert_eq!((problems[0].line, problems[0].column), (Some(2), Some(80)));
    }
}
