//! `outrigger certs rotate-root`, `rotate-intermediate` and `rotation`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::until;
use crate::args::Printed;
use crate::client::Admin;
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};

/// Change the root of the mesh.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateRoot {
    /// How long each gate may take before the change pauses; by default the life of a certificate and an hour.
    #[arg(long)]
    timeout: Option<String>,
    /// Open the gate that is closed now, although somebody is missing. Tells who would be cut off; does it with --yes.
    #[arg(long, conflicts_with_all = ["timeout", "wait"])]
    force: bool,
    /// Cut them off.
    #[arg(long, requires = "force")]
    yes: bool,
    /// Wait for the end of the change; its steps are told as they come.
    #[arg(long)]
    wait: bool,
}

/// Change the intermediate under the same root.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateIntermediate {}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Rotation {
    /// Show how far it is and who is missing.
    Status(Printed),
    /// Go on after a pause.
    Resume(Resume),
    /// Turn back. Before anything was signed that is at once; later the old root signs again, and the new one goes when
    /// nothing of it is left.
    Abort,
}

/// Go on after a pause.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// How long the gate may take from now.
    #[arg(long)]
    timeout: Option<String>,
}

const PATH: &str = "/v1/certs/rotation";

impl RotateRoot {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        if self.force {
            return force(admin, self.yes).await;
        }
        let status = admin.ask(PATH, &with_timeout("rotate", self.timeout.as_ref())).await?;
        out::say(told(&status));
        if self.wait { wait(admin, &status).await } else { Ok(ExitCode::SUCCESS) }
    }
}

impl RotateIntermediate {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let status = admin.ask(PATH, &json!({ "action": "new-intermediate" })).await?;
        out::say(told(&status));
        Ok(ExitCode::SUCCESS)
    }
}

impl Rotation {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let (status, format) = match self {
            Self::Status(printed) => (admin.list("certs/rotation", None).await?, printed.format),
            Self::Resume(resume) => {
                (admin.ask(PATH, &with_timeout("resume", resume.timeout.as_ref())).await?, Format::Table)
            }
            Self::Abort => (admin.ask(PATH, &json!({ "action": "abort" })).await?, Format::Table),
        };
        match format {
            Format::Table => out::say(told(&status)),
            format => out::value(&status, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn with_timeout(action: &str, timeout: Option<&String>) -> Value {
    match timeout {
        Some(timeout) => json!({ "action": action, "timeout": timeout }),
        None => json!({ "action": action }),
    }
}

async fn force(admin: &Admin, yes: bool) -> Result<ExitCode, Failure> {
    let answer = admin.ask(PATH, &json!({ "action": "force", "yes": yes })).await?;
    if answer["needsYes"] != json!(true) {
        out::say(told(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let casualties = &answer["casualties"];
    let count = casualties.as_array().map_or(0, Vec::len);
    out::say(format!("{count} would be cut off:\n{}", missing(casualties)));
    Err(Failure::new(Exit::Refused, "the gate stays closed")
        .hint("run it again with --yes to open it all the same"))
}

/// Tells each step as it comes.
async fn wait(admin: &Admin, first: &Value) -> Result<ExitCode, Failure> {
    let mut last = first.clone();
    loop {
        tokio::time::sleep(LOOK).await;
        let status = admin.list("certs/rotation", None).await?;
        if status["step"] != last["step"] || status["paused"] != last["paused"] {
            out::say(told(&status));
        }
        if status["step"] == json!("none") {
            let completed = status["last"]["outcome"] == json!("completed");
            return if completed { Ok(ExitCode::SUCCESS) } else { Err(Failure::failed("it was aborted")) };
        }
        if status["paused"] == json!(true) {
            return Err(Failure::new(Exit::NotLive, "it is paused")
                .hint("`outrigger certs rotation resume`, or `rotate-root --force`"));
        }
        last = status;
    }
}

const LOOK: Duration = Duration::from_millis(500);

/// The state in a few lines.
fn told(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let short = |value: &Value| text(value).chars().take(12).collect::<String>();
    let authority = &status["authority"];
    let mut lines = vec![];
    match status["step"].as_str() {
        None | Some("none") => {
            lines.push("no change of the root is under way".to_owned());
            if let Some(last) = status["last"].as_object() {
                let (from, to) = (short(&last["rotation"]["from"]), short(&last["rotation"]["to"]));
                let (outcome, at) = (text(&last["outcome"]), until(&last["at"]));
                lines.push(format!("the last one, {from} to {to}, was {outcome} at {at}"));
            }
        }
        Some(step) => {
            let paused = if status["paused"] == json!(true) { ", paused" } else { "" };
            let (from, to) = (short(&status["from"]), short(&status["to"]));
            lines.push(format!("root {from} to {to}: {step}{paused}"));
            lines.push(format!(
                "waits for {}, until {}",
                text(&status["waitsFor"]),
                until(&status["gateEnds"])
            ));
            lines.push(format!("{} missing", status["missingCount"]));
            lines.push(missing(&status["missing"]));
        }
    }
    let (root, intermediate) = (&authority["root"], &authority["intermediate"]);
    lines.push(format!("signing root {} until {}", short(&root["sha256"]), until(&root["notAfter"])));
    let (sha256, end) = (short(&intermediate["sha256"]), until(&intermediate["notAfter"]));
    lines.push(format!("intermediate {sha256} until {end}"));
    if authority["source"] == json!("files") {
        lines.push("the authority is given as files: replace them to change it".to_owned());
    }
    lines.retain(|line| !line.is_empty());
    lines.join("\n")
}

fn missing(all: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let row = |one: &Value| {
        let connected = if one["connected"] == json!(true) { "yes" } else { "no" };
        let certificate = text(&one["certificate"]).chars().take(12).collect();
        let (identity, from) = (text(&one["identity"]), text(&one["from"]));
        vec![identity, certificate, from, connected.into(), until(&one["until"]), text(&one["why"])]
    };
    let rows: Vec<_> = all.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    out::table(&["identity", "certificate", "from", "connected", "until", "why"], rows)
}
