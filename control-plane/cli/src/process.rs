//! Processes that this one started: signalled and reaped by their id, never by name, and never left behind.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::failure::{Doing, Failure};
use crate::guard;
use crate::netns::Placed;

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What messages call it: `cart-1`, `the sidecar of cart`.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, OsString)>,
    /// What it does not inherit.
    pub(crate) withheld: Vec<&'static str>,
    pub(crate) output: Output,
    /// In a process group of its own a Ctrl-C of the terminal reaches it only through us.
    pub(crate) own_group: bool,
    pub(crate) guarded: Guarded,
    /// Where it is put and who it becomes; wants a guard.
    pub(crate) placed: Option<Placed>,
}

/// Where a process writes.
#[derive(Debug)]
pub(crate) enum Output {
    /// Where we do; it also reads what we read.
    Ours,
    /// To the end of a file.
    File(PathBuf),
}

/// What happens to a process when this one dies without a chance to stop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// It is asked to end, through this `outrigger` binary.
    Asked(PathBuf),
    /// It ends at once, through this `outrigger` binary.
    Killed(PathBuf),
    /// It lives on.
    No,
}

impl Launch {
    pub(crate) fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            // What lets us in at the admin API is nobody else's business.
            withheld: vec!["OUTRIGGER_TOKEN"],
            output: Output::Ours,
            own_group: true,
            guarded: Guarded::No,
            placed: None,
        }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// A flag with its value.
    pub(crate) fn flag(self, flag: &str, value: impl AsRef<OsStr>) -> Self {
        self.arg(flag).arg(value)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts it. Call from a thread that lives as long as the process should: the kernel ties a guarded process
    /// to the thread that started it.
    pub(crate) fn start(self) -> Result<Process, Failure> {
        let mut command = self.command();
        match &self.output {
            Output::Ours => {}
            Output::File(path) => {
                let (out, err) = log_file(path)?;
                command.stdin(Stdio::null()).stdout(out).stderr(err);
            }
        }
        if self.own_group {
            command.process_group(0);
        }
        let child = command.kill_on_drop(true).spawn().doing(format_args!(
            "can not start {} ({})",
            self.name,
            self.program.display()
        ))?;
        Ok(Process { name: self.name, child, log: self.output })
    }

    fn command(&self) -> Command {
        let (outrigger, gently) = match &self.guarded {
            Guarded::No => (None, false),
            Guarded::Asked(outrigger) => (Some(outrigger), true),
            Guarded::Killed(outrigger) => (Some(outrigger), false),
        };
        let mut command = match outrigger {
            None => Command::new(&self.program),
            Some(outrigger) => {
                let mut command = Command::new(outrigger);
                command.args(guard::prefix(gently, self.placed.as_ref())).arg(&self.program);
                command
            }
        };
        for name in &self.withheld {
            command.env_remove(name);
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }
}

/// A process that runs, or ended and was not asked about yet. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: Output,
}

impl Process {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its id, while it has not been reaped: a reaped id may be another's already.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal. One that ended already takes it without effect.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Fails only for a process that has gone; then there is nothing to tell.
            let _ = kill_process(pid, signal);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end, and ends it when it has not after `grace`. Tells how it ended, and whether by itself.
    pub(crate) async fn stop(&mut self, grace: Duration) -> Stopped {
        self.signal(Signal::TERM);
        if let Ok(Ok(status)) = tokio::time::timeout(grace, self.wait()).await {
            return Stopped::Itself(status);
        }
        self.kill().await;
        Stopped::Killed
    }

    /// Ends it at once (SIGKILL) and reaps it.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.wait().await;
    }

    /// The last lines it wrote, where they went to a file.
    pub(crate) fn last_words(&self) -> String {
        match &self.log {
            Output::Ours => String::new(),
            Output::File(path) => last_lines(path, 8),
        }
    }
}

/// How a process was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It ended in time when asked.
    Itself(ExitStatus),
    /// It did not, and was killed.
    Killed,
}

fn log_file(path: &Path) -> Result<(File, File), Failure> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .doing(format_args!("can not write {}", path.display()))?;
    let again = file.try_clone().doing("can not share a log file")?;
    Ok((file, again))
}

fn last_lines(path: &Path, count: usize) -> String {
    let text =
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        Launch::new("a shell", "/bin/sh").arg("-c").arg(script)
    }

    #[tokio::test]
    async fn one_that_listens_is_stopped_by_asking() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut process = Launch { output: Output::File(log.clone()), ..shell(script) }.start().unwrap();
        while last_lines(&log, 1) != "ready" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let Stopped::Itself(status) = process.stop(Duration::from_secs(10)).await else {
            panic!("it was killed")
        };
        assert_eq!(status.code(), Some(7));
        assert_eq!(process.pid(), None);
        assert_eq!(process.last_words(), "ready");
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_killed_after_its_grace() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
        let mut process = Launch { output: Output::File(log.clone()), ..shell(script) }.start().unwrap();
        while last_lines(&log, 1) != "ready" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(process.stop(Duration::from_millis(100)).await, Stopped::Killed);
        assert!(process.ended().is_some());
    }

    #[tokio::test]
    async fn a_signal_to_one_that_ended_reaches_nobody() {
        let mut process = shell("exit 3").start().unwrap();
        assert_eq!(process.wait().await.unwrap().code(), Some(3));
        process.signal(Signal::KILL);
        assert_eq!(process.ended().and_then(|s| s.code()), Some(3));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let failure = Launch::new("cart", "/no/such/program").start().unwrap_err();
        assert!(failure.message().contains("cart (/no/such/program)"), "{failure}");
    }
}
