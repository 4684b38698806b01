//! `outrigger rollout`: one version of a service takes the place of another.
//!
//! `start` makes the resource from flags or takes it from a file, `show` draws where one is. What comes next is
//! decided by the control plane: this program only asks, tells and waits.

mod screen;
mod show;
mod start;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Printed;
use crate::client::{Admin, Stored};
use crate::failure::{Exit, Failure};
use crate::out::{self, Format};
use crate::rollout::screen::Screen;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Rollout {
    /// Begin: from flags, or from a file.
    ///
    /// The candidate gets traffic step by step. A step begins when every sidecar that knows the service has acknowledged
    /// the one before and the candidate has a ready endpoint; it ends when its time is over and every gate passes. A
    /// gate that fails brings everything back to the old version.
    ///
    /// Begin before the first instance of the new version is there: from that moment on it gets nothing but its share.
    #[command(after_help = start::EXAMPLES)]
    Start(Box<start::Start>),
    /// Show where one is, or all of them; with --watch as it goes on.
    Status(Status),
    /// Stay at the weight it has. Gates go on to protect the callers.
    Pause(Which),
    /// Go on after a pause: the step is held anew.
    Resume(Which),
    /// Go to the next step at once, whatever its gates say; with --full to the last.
    Promote(Promote),
    /// Give everything back to the old version at once.
    Abort(Which),
}

/// Which rollout.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// Its name, which is that of its service unless `start` was given another.
    name: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default", env = "OUTRIGGER_NAMESPACE")]
    namespace: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = WAITING)]
pub(crate) struct Status {
    /// Its name. All of them unless one is named.
    name: Option<String>,
    /// Its namespace; of a list, the one to look in.
    #[arg(short, long, env = "OUTRIGGER_NAMESPACE")]
    namespace: Option<String>,
    /// Until it has ended: drawn anew on a terminal, else a line for each change, or with -o json an object.
    #[arg(short, long, requires = "name")]
    watch: bool,
    #[command(flatten)]
    printed: Printed,
}

const WAITING: &str = "\
With --watch, and with `start --wait`, the exit code tells the end: 0 when the candidate has everything, 6 when it went
back or was aborted, 5 when it is paused and waits for somebody.";

#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    which: Which,
    /// To the last step.
    #[arg(long)]
    full: bool,
    /// Only if it is at this step, counted from 1. Without it, the one it is at when the command begins.
    #[arg(long, value_name = "STEP")]
    step: Option<u64>,
}

impl Rollout {
    pub(crate) async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        match self {
            Self::Start(start) => start.run(admin).await,
            Self::Status(status) => status.run(admin).await,
            Self::Pause(which) => which.say(admin, "pause", &json!({})).await,
            Self::Resume(which) => which.say(admin, "resume", &json!({})).await,
            Self::Abort(which) => which.say(admin, "abort", &json!({})).await,
            Self::Promote(promote) => promote.run(admin).await,
        }
    }
}

impl Promote {
    async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let mut wanted = json!({ "full": self.full });
        let step = match self.step {
            Some(step) => Some(step),
            None => self.which.read(admin).await?["status"]["step"].as_u64(),
        };
        if let Some(step) = step {
            wanted["step"] = step.into();
        }
        self.which.say(admin, "promote", &wanted).await
    }
}

impl Which {
    async fn say(&self, admin: &Admin, verb: &str, wanted: &Value) -> Result<ExitCode, Failure> {
        let path = format!("/v1/rollouts/{}/{}/{verb}", self.namespace, self.name);
        out::say(show::line(&admin.ask(&path, wanted).await?));
        Ok(ExitCode::SUCCESS)
    }

    async fn read(&self, admin: &Admin) -> Result<Value, Failure> {
        let there: Option<Stored> = admin.object("rollouts", &self.namespace, &self.name).await?;
        there.map(|stored| stored.object).ok_or_else(|| {
            Failure::failed(format!("there is no rollout {}/{}", self.namespace, self.name))
                .hint("`outrigger rollout status` lists what there is; --namespace names another")
        })
    }

    /// Follows it until it has ended, and answers how.
    async fn watch(&self, admin: &Admin, format: Format) -> Result<ExitCode, Failure> {
        let mut screen = Screen::new(format);
        let mut seen = None;
        loop {
            let rollout = match self.read(admin).await {
                Ok(rollout) => rollout,
                // A rollout outlives its control plane, and so does whoever watches it.
                Err(failure) if failure.exit() == Exit::Unreachable && since(seen) < PATIENCE => {
                    screen.away(failure.message());
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            seen = Some(Instant::now());
            let phase = rollout["status"]["phase"].as_str().unwrap_or_default();
            screen.draw(&rollout, matches!(phase, "Done" | "RolledBack" | "Aborted" | "Paused"));
            match phase {
                "Done" => return Ok(ExitCode::SUCCESS),
                phase @ ("RolledBack" | "Aborted" | "Paused") => {
                    let exit = if phase == "Paused" { Exit::NotLive } else { Exit::WentBack };
                    let why = rollout["status"]["why"].as_str().unwrap_or_default();
                    return Err(Failure::new(exit, format!("it is {phase}: {why}")));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

const LOOK: Duration = Duration::from_millis(500);
/// So long a control plane may be away that was there before.
const PATIENCE: Duration = Duration::from_secs(60);

fn since(seen: Option<Instant>) -> Duration {
    seen.map_or(Duration::MAX, |seen| seen.elapsed())
}

impl Status {
    async fn run(self, admin: &Admin) -> Result<ExitCode, Failure> {
        let Some(name) = self.name else {
            return list(admin, self.namespace.as_deref(), self.printed.format).await;
        };
        let which = Which { name, namespace: self.namespace.unwrap_or_else(|| "default".into()) };
        if self.watch {
            return which.watch(admin, self.printed.format).await;
        }
        let rollout = which.read(admin).await?;
        match self.printed.format {
            Format::Table => out::say(show::whole(&rollout, out::width())),
            format => out::value(&rollout, format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(admin: &Admin, namespace: Option<&str>, format: Format) -> Result<ExitCode, Failure> {
    let all = admin.list("rollouts", namespace).await?;
    if format != Format::Table {
        out::value(&all, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    let items = all["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        out::say("there are no rollouts");
    } else {
        out::say(items.iter().map(show::line).collect::<Vec<_>>().join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}
