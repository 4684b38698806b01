//! `outrigger history` and `outrigger rollback`: what the configuration was, and making it that again.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::apply::Applied;
use crate::args::Printed;
use crate::client::{Admin, How, NotWritten};
use crate::diff;
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};
use crate::problems;

/// Show the revisions of the configuration, the newest first; or what one of them changed.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// Only this one, with every field that it changed.
    revision: Option<u64>,
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Only those that changed an object whose path contains this, such as httproutes/shop/cart.
    #[arg(long)]
    object: Option<String>,
    #[command(flatten)]
    printed: Printed,
}

impl History {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        match self.revision {
            Some(number) => self.one(admin, number).await?,
            None => self.list(admin).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn one(&self, admin: &Admin, number: u64) -> Result<(), Failure> {
        let revision = admin.told(&format!("/v1/revisions/{number}")).await?;
        if self.printed.format != Format::Table {
            return out::value(&revision, self.printed.format);
        }
        let why = revision["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        let text = |field: &str| revision[field].as_str().unwrap_or("?").to_owned();
        out::say(format!("revision {number}, {} by {}{why}", text("at"), text("who")));
        let before = number.saturating_sub(1);
        let told = admin.told(&format!("/v1/revisions/{before}/diff/{number}")).await?;
        out::say(diff::lines(&told["changes"]).join("\n"));
        Ok(())
    }

    async fn list(&self, admin: &Admin) -> Result<(), Failure> {
        let found = self.revisions(admin).await?;
        if self.printed.format != Format::Table {
            return out::value(&json!({ "items": found }), self.printed.format);
        }
        if found.is_empty() {
            out::warn("nothing was written yet, or nothing that you may see");
            return Ok(());
        }
        let rows = found.iter().map(|revision| {
            let text = |field: &str| revision[field].as_str().unwrap_or_default().to_owned();
            vec![revision["revision"].to_string(), text("at"), text("who"), changed(revision), text("why")]
        });
        out::say(out::table(&["revision", "at", "who", "changed", "why"], rows));
        Ok(())
    }

    /// What is asked for, read page by page as far as that takes.
    async fn revisions(&self, admin: &Admin) -> Result<Vec<Value>, Failure> {
        let (mut found, mut before) = (vec![], None::<u64>);
        while found.len() < self.limit {
            let from = before.map(|before| format!("&before={before}")).unwrap_or_default();
            let page = admin.told(&format!("/v1/revisions?limit={PAGE}{from}")).await?;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let Some(last) = items.last() else { break };
            before = last["revision"].as_u64();
            found.extend(items.into_iter().filter(|revision| self.wants(revision)));
            if before.is_none_or(|number| number <= 1) {
                break;
            }
        }
        found.truncate(self.limit);
        Ok(found)
    }

    fn wants(&self, revision: &Value) -> bool {
        let Some(wanted) = &self.object else { return true };
        paths(revision).any(|path| path.contains(wanted.as_str()))
    }
}

/// Make the configuration what it was at a revision, in one step that is a revision itself.
///
/// Instances are left alone, and so is what somebody did at once and for a reason: who was revoked stays revoked, and a
/// breaker that is held open stays so.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// The revision to go back to; `outrigger history` lists them.
    to: u64,
    /// Tell what would change and for whom, but change nothing.
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

impl Rollback {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let wait = self.wait.then(|| Duration::from_secs(self.timeout));
        let how = How { dry_run: self.dry_run, wait, ..How::default() };
        let answer = match admin.rollback(self.to, how).await {
            Ok(answer) => answer,
            Err(NotWritten::Failed(failure)) => return Err(failure),
            Err(NotWritten::Refused(refusal)) => {
                return problems::tell(&refusal.problems, self.printed.format).map(ExitCode::from);
            }
        };
        match self.printed.format {
            Format::Table => self.tell(&answer),
            format => out::value(&answer, format)?,
        }
        let live = !self.wait || Applied::answered(answer).live();
        Ok(if live { ExitCode::SUCCESS } else { Exit::NotLive.into() })
    }

    fn tell(&self, answer: &Value) {
        let stays = answer["stays"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for path in stays {
            out::warn(format!("{path} stays as it is: a rollback neither revokes nor forgives"));
        }
        let applied = Applied::answered(answer.clone());
        out::say(applied.lines(self.dry_run).join("\n"));
        if self.wait {
            out::say(applied.told());
        }
    }
}

/// The objects that a revision changed, in few words.
fn changed(revision: &Value) -> String {
    let mut paths = paths(revision);
    let first = paths.next().unwrap_or("-").to_owned();
    match paths.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn paths(revision: &Value) -> impl Iterator<Item = &str> {
    revision["changes"].as_array().into_iter().flatten().filter_map(|change| change["key"].as_str())
}

/// A revision holds all that it changed, so a page of many is large.
const PAGE: usize = 50;
