//! `outrigger demo`: a whole mesh on this machine, from one command.
//!
//! `cast` says who plays, `plant` runs the processes, `page` and `load` are the users, `scenes` are the resource files,
//! `story` is what happens, or with `--chaos` `chaos`; `claims`, `shares` and `peers` are what is stated about it, `board`,
//! `traffic` and `strain` what is shown.

mod board;
mod cast;
mod chaos;
mod claims;
mod load;
mod page;
mod peers;
mod plant;
mod scenes;
mod shares;
mod story;
mod strain;
mod traffic;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use owo_colors::OwoColorize;
use serde_json::json;
use tempfile::TempDir;

use crate::args::Printed;
use crate::binaries::Binaries;
use crate::failure::{Doing, Failure};
use crate::out::{self, Format};
use crate::signals::EndSignals;
use board::{Board, Show};
use chaos::Chaos;
use claims::Step;
use plant::Addresses;
use story::{Setting, Stage};

/// A whole mesh on this machine: a shop under load, a canary, restarts, and what was served and lost.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// State everything in under a minute and without a terminal; exit 0 only if all of it held.
    #[arg(long)]
    check: bool,
    /// Kill, crash, freeze and slow instances, and show what the sidecars make of it: breakers, retries, budgets.
    #[arg(long)]
    chaos: bool,
    /// What decides whom the chaos hits; the same does the same.
    #[arg(long, default_value_t = 1, requires = "chaos")]
    seed: u64,
    /// How many instances it hits, one after the other [default: 12, with --check 4].
    #[arg(long, requires = "chaos")]
    blows: Option<usize>,
    /// Leave it running afterwards and tell how to look around; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Where everything lies; without it a folder that is gone at the end.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The most requests a second that users make.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// How many users come at once.
    #[arg(long, default_value_t = 12)]
    users: usize,
    /// How many answers each step of the canary counts.
    #[arg(long, default_value_t = 2_000)]
    answers: u64,
    #[command(flatten)]
    printed: Printed,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let mut signals = EndSignals::listen()?;
        let binaries = Binaries::find()?;
        let folder = Folder::make(self.folder.as_ref())?;
        let setting = self.setting(&folder)?;
        let board = Board::new(self.show());
        let mut stage = Stage::default();

        let played = tokio::select! {
            played = self.play(&mut stage, binaries, &setting, &board) => played,
            never = board.live() => match never {},
            () = signals.next() => {
                board.close();
                out::warn("ending everything");
                stage.end().await;
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        let mut steps = board.close();
        if let Err(failure) = &played {
            steps.push(broken_off(failure));
        }
        self.tell(&steps)?;
        if self.keep && played.is_ok() {
            look_around(&stage, &setting);
            board.now("running under load");
            tokio::select! {
                never = board.live() => match never {},
                () = signals.next() => {}
            }
            board.close();
            out::warn("ending everything");
        }
        stage.end().await;
        let held = steps.iter().all(Step::held);
        if !held {
            out::warn(format!("the logs are in {}", folder.keep().display()));
        }
        Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn play(
        &self,
        stage: &mut Stage,
        binaries: Binaries,
        setting: &Setting,
        board: &Board,
    ) -> Result<(), Failure> {
        if !self.chaos {
            return story::play(stage, binaries, setting, board).await;
        }
        let (lasts, rest) = if self.check { (2_000, 2_000) } else { (5_000, 5_000) };
        let chaos = Chaos {
            seed: self.seed,
            blows: self.blows.unwrap_or(if self.check { 4 } else { 12 }),
            lasts: Duration::from_millis(lasts),
            rest: Duration::from_millis(rest),
        };
        chaos::play(stage, binaries, setting, chaos, board).await
    }

    fn setting(&self, folder: &Folder) -> Result<Setting, Failure> {
        let python = has_python();
        if !python && self.check {
            return Err(Failure::failed(
                "python3 is missing, so a service in another language can not be checked",
            )
            .hint("install python3, or run the demo without --check: it then goes without recommendations"));
        }
        if !python {
            out::warn("python3 is missing: the shop goes without recommendations");
        }
        Ok(Setting {
            folder: folder.path.clone(),
            at: Addresses::choose(self.keep)?,
            python,
            users: self.users.clamp(1, 256),
            rate: self.rate.clamp(1, 20_000),
            answers: self.answers,
            least: Duration::from_secs(if self.check { 1 } else { 6 }),
        })
    }

    fn show(&self) -> Show {
        match self.printed.format {
            Format::Json | Format::Yaml => Show::Nothing,
            Format::Table if !self.check && out::on_terminal() => Show::Live,
            Format::Table => Show::Lines,
        }
    }

    /// What was served and lost, at the end.
    fn tell(&self, steps: &[Step]) -> Result<(), Failure> {
        let served: u64 = steps.iter().map(|step| step.tally.requests - step.tally.failed).sum();
        let lost: u64 = steps.iter().map(|step| step.tally.failed).sum();
        let held = steps.iter().all(Step::held);
        if self.printed.format != Format::Table {
            let summary = json!({
                "held": held,
                "served": served,
                "lost": lost,
                "steps": steps.iter().map(Step::json).collect::<Vec<_>>(),
            });
            return out::value(&summary, self.printed.format);
        }
        out::say(format!("\n{}", out::table(&claims::COLUMNS, steps.iter().map(Step::row))));
        let verdict =
            if held { "all as stated".green().to_string() } else { "NOT as stated".red().to_string() };
        out::say(format!("\n{served} requests served, {lost} lost: {}", verdict.bold()));
        for step in steps {
            for claim in step.claims.iter().filter(|claim| !claim.held) {
                out::say(format!("  {}: {} — {}", step.name, claim.says, claim.seen));
            }
        }
        Ok(())
    }
}

/// Where everything lies.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Folder {
    fn make(wanted: Option<&PathBuf>) -> Result<Self, Failure> {
        if let Some(path) = wanted {
            let path = std::path::absolute(path).doing("can not tell where the folder is")?;
            return Ok(Self { path, temporary: None });
        }
        let folder =
            tempfile::Builder::new().prefix("outrigger-demo-").tempdir().doing("can not make a folder")?;
        Ok(Self { path: folder.path().to_owned(), temporary: Some(folder) })
    }

    /// Leaves it there.
    fn keep(self) -> PathBuf {
        match self.temporary {
            Some(folder) => folder.keep(),
            None => self.path,
        }
    }
}

/// The exit code of a program that SIGINT ended.
const INTERRUPTED: u8 = 128 + 2;

/// What a person can do with a demo that is kept.
fn look_around(stage: &Stage, setting: &Setting) {
    let Some(plant) = &stage.plant else { return };
    let admin = plant.addresses().admin;
    let web = plant.instances().iter().find(|i| i.part.service == "web");
    let files = setting.folder.join("mesh");
    out::say(format!("\n{}", "It runs on, under load. Look around:".bold()));
    out::say(format!("  export OUTRIGGER_SERVER=http://{admin}"));
    out::say(format!("  http://{admin}/dashboard/             # everything as pages"));
    out::say("  outrigger proxy status");
    out::say("  outrigger get services -A");
    out::say("  outrigger get httproutes -n shop -o yaml");
    out::say(format!("  outrigger apply --wait -f {}", files.join("prices-50.yaml").display()));
    if let Some(web) = web {
        out::say(format!("  curl http://{}/items/sail          # a user of the shop", web.address()));
        out::say(format!(
            "  curl http://{}/clusters           # what the sidecar of {} knows",
            web.admin(),
            web.name
        ));
    }
    out::say(format!("  logs and data: {}", setting.folder.display()));
    out::say("Ctrl-C ends everything.");
}

fn has_python() -> bool {
    let tried = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn broken_off(failure: &Failure) -> Step {
    let claim = claims::Claim::new("the story went on to its end", false, failure.to_string());
    Step { name: "broken off".into(), tally: load::Tally::default(), claims: vec![claim] }
}
