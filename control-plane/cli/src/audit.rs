//! `outrigger audit`: who changed what, when, from where and why; and who was refused.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::Printed;
use crate::client::Admin;
use crate::failure::Failure;
use crate::out::{self, Format};

/// Show the audit log, the newest first.
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    /// Only of those whose name contains this.
    #[arg(long)]
    who: Option<String>,
    /// Only this: create, update, delete, refused, create-api-token and so on.
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to objects whose name contains this.
    #[arg(long)]
    object: Option<String>,
    /// Only since then: a moment, or the beginning of one, as 2026-01-31T10.
    #[arg(long)]
    since: Option<String>,
    /// At most so many lines.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    printed: Printed,
}

impl Audit {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let lines = self.lines(admin).await?;
        if self.printed.format != Format::Table {
            out::value(&json!({ "items": lines }), self.printed.format)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = lines.iter().map(|line| {
            ["at", "who", "from", "action", "object", "why"]
                .map(|field| text(line, field).to_owned())
                .to_vec()
        });
        out::say(out::table(&["at", "who", "from", "action", "object", "why"], rows));
        Ok(ExitCode::SUCCESS)
    }

    /// What is asked for, read page by page as far as that takes.
    async fn lines(&self, admin: &Admin) -> Result<Vec<Value>, Failure> {
        let (mut found, mut before) = (vec![], None);
        while found.len() < self.limit {
            let page = admin.audit(before).await?;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let Some(last) = items.last() else { break };
            before = last["line"].as_u64();
            let too_old = self.since.as_deref().is_some_and(|since| text(last, "at") < since);
            found.extend(items.into_iter().filter(|line| self.wants(line)));
            if too_old || before.is_none_or(|line| line <= 1) {
                break;
            }
        }
        found.truncate(self.limit);
        Ok(found)
    }

    fn wants(&self, line: &Value) -> bool {
        let contains = |wanted: &Option<String>, field| {
            wanted.as_deref().is_none_or(|wanted| text(line, field).contains(wanted))
        };
        contains(&self.who, "who")
            && contains(&self.object, "object")
            && self.action.as_deref().is_none_or(|action| text(line, "action") == action)
            && self.since.as_deref().is_none_or(|since| text(line, "at") >= since)
    }
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}
