//! `outrigger diff`: what differs between two revisions, or would by applying files.

use std::process::ExitCode;

use owo_colors::OwoColorize;
use serde_json::Value;

use crate::apply;
use crate::args::Printed;
use crate::client::{Admin, How};
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};

/// Show what differs between two revisions, or what applying files would change, and for which sidecars.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// The earlier revision; `outrigger history` lists them.
    #[arg(required_unless_present = "files")]
    from: Option<u64>,
    /// The later one; what is in force now unless given.
    to: Option<u64>,
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input: what applying it would change.
    #[arg(short = 'f', long = "file", value_name = "FILE|FOLDER|-", conflicts_with_all = ["from", "to"])]
    files: Vec<String>,
    /// End with exit code 1 when something differs.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    printed: Printed,
}

impl Diff {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let answer = match self.from {
            Some(from) => {
                let to = self.to.map_or_else(|| "now".to_owned(), |to| to.to_string());
                admin.told(&format!("/v1/revisions/{from}/diff/{to}")).await?
            }
            None => {
                apply::foresee(admin, &self.files, How { dry_run: true, dangling: true, wait: None }).await?
            }
        };
        if self.printed.format == Format::Table {
            let lines = [lines(&answer["changes"]), affected(&answer)].concat();
            out::say(if lines.is_empty() { "nothing differs".into() } else { lines.join("\n") });
        } else {
            out::value(&answer, self.printed.format)?;
        }
        let differs = all(&answer["changes"]).any(|change| change["action"] != "unchanged");
        Ok(if self.exit_code && differs { Exit::Failed.into() } else { ExitCode::SUCCESS })
    }
}

/// Every object that differs, and below it its fields.
pub(crate) fn lines(changes: &Value) -> Vec<String> {
    all(changes)
        .flat_map(|change| object(change).into_iter().chain(all(&change["fields"]).flat_map(field)))
        .collect()
}

fn object(change: &Value) -> Option<String> {
    let path = change["object"].as_str().unwrap_or("?");
    match change["action"].as_str()? {
        "unchanged" => None,
        "created" => Some(format!("{} {path}", "+".green())),
        "deleted" => Some(format!("{} {path}", "-".red())),
        _ => Some(format!("{} {path}", "~".yellow())),
    }
}

fn field(field: &Value) -> Vec<String> {
    let pointer = field["pointer"].as_str().unwrap_or_default();
    // Of an object that comes or goes there is nothing to compare; what it says is in `outrigger get`.
    if pointer.is_empty() {
        return vec![];
    }
    let side = |sign: &str, value: &Value| (!value.is_null()).then(|| format!("      {sign} {value}"));
    let before = side("-", &field["before"]).map(|line| line.red().to_string());
    let after = side("+", &field["after"]).map(|line| line.green().to_string());
    [Some(format!("    {pointer}")), before, after].into_iter().flatten().collect()
}

/// The sidecars that a change would reach, and by which resources.
pub(crate) fn affected(answer: &Value) -> Vec<String> {
    let Some(proxies) = answer["affected"].as_array() else { return vec![] };
    let each = proxies.iter().map(|proxy| {
        let names: Vec<&str> = all(&proxy["resources"]).filter_map(Value::as_str).collect();
        format!("    {}: {}", proxy["node"].as_str().unwrap_or("?"), names.join(", "))
    });
    std::iter::once(format!("reaches {} connected proxies", proxies.len())).chain(each).collect()
}

fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_told_object_by_object_and_field_by_field() {
        let changes = json!([
            {"object": "services/shop/cart", "action": "updated", "fields": [
                {"pointer": "/spec/owner", "before": "a", "after": "b"}, {"pointer": "/spec/x", "after": 1}]},
            {"object": "services/shop/new", "action": "created", "fields": [{"pointer": "", "after": {}}]},
            {"object": "services/shop/same", "action": "unchanged", "fields": []},
        ]);
        let plain = lines(&changes).into_iter().map(|line| anstream::adapter::strip_str(&line).to_string());
        assert_eq!(
            plain.collect::<Vec<_>>(),
            [
                "~ services/shop/cart",
                "    /spec/owner",
                "      - \"a\"",
                "      + \"b\"",
                "    /spec/x",
                "      + 1",
                "+ services/shop/new",
            ]
        );
        let answer = json!({"affected": [{"node": "web-1", "resources": ["Service shop/cart"]}]});
        assert_eq!(affected(&answer), ["reaches 1 connected proxies", "    web-1: Service shop/cart"]);
    }
}
