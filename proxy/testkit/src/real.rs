//! Foreign programs for tests: Debian packages, Python packages in an environment of their own, and child processes
//! that end with their owner.
//!
//! Installing is serialised over all test processes by a file lock. What can not be had is told as `skipped: why`;
//! where the gate runs (`CI=true`) that is a failure.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The Python of an environment in which exactly `packages` (`name==version`) are installed. It is made once and kept
/// beside the build. `None` where it can not be had.
pub fn venv(packages: &[&str]) -> Option<PathBuf> {
    needed(make_venv(packages))
}

/// Sees to it that the Debian packages are installed. `None` where they can not be had.
pub fn debian(packages: &[&str]) -> Option<()> {
    needed(install(packages))
}

/// Sees to it that there is a program of this name, by these Debian packages where there is none. `None` where it can not be had.
pub fn program(name: &str, packages: &[&str]) -> Option<()> {
    if on_path(name) { Some(()) } else { debian(packages) }
}

/// The folder with the npm packages that the `package-lock.json` in `folder` names. It is made once and kept beside the build; no
/// package runs anything while it is installed. `None` where it can not be had.
pub fn npm(folder: &Path) -> Option<PathBuf> {
    needed(make_modules(folder))
}

/// Passes a thing on, or says why the test that needs it is skipped.
///
/// # Panics
///
/// Where the gate runs, which skips nothing.
pub fn needed<T>(thing: Result<T, String>) -> Option<T> {
    match thing {
        Ok(thing) => Some(thing),
        Err(why) => {
            eprintln!("skipped: {why}");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped where nothing may be: {why}");
            None
        }
    }
}

/// A port of 127.0.0.1 that was free a moment ago, for programs that can not be told to choose one.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it writes goes to a file of its own.
    pub fn spawn(command: &mut Command) -> Self {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log =
            std::env::temp_dir().join(format!("outrigger-{}-{name}-{}.log", std::process::id(), unique()));
        let file = File::create(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, name, log }
    }

    /// Waits until it accepts connections at `address`.
    #[must_use]
    pub fn listens_at(mut self, address: SocketAddr) -> Self {
        let began = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none(), "{} ended with {ended:?}: {}", self.name, self.log());
            assert!(began.elapsed() < PATIENCE, "{} does not listen at {address}: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs, and otherwise how it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.name, self.log());
        }
        let _best_effort = fs::remove_file(&self.log);
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Ran {
    /// Whether it ended with 0.
    pub ok: bool,
    /// What it wrote to its output.
    pub stdout: String,
    /// What it wrote to its error output.
    pub stderr: String,
}

/// Runs `command` to its end, which must come within `limit`. Blocks: call it where other tasks may still run.
pub fn run(command: &mut Command, limit: Duration) -> Ran {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its state") {
            break Some(status);
        }
        if began.elapsed() > limit {
            let _gone = child.kill();
            let _reaped = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    let Some(status) = status else { panic!("{name} ran for longer than {limit:?}: {stdout}{stderr}") };
    Ran { ok: status.success(), stdout, stderr }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            let _what_came = pipe.read_to_end(&mut all);
        }
        String::from_utf8_lossy(&all).into_owned()
    })
}

fn make_venv(packages: &[&str]) -> Result<PathBuf, String> {
    let mut sorted = packages.to_vec();
    sorted.sort_unstable();
    let folder = cache().join(format!("venv-{}", sorted.join("-").replace(['=', '/', '.'], "_")));
    let (python, done) = (folder.join("bin/python"), folder.join("complete"));
    if done.exists() {
        return Ok(python);
    }
    let _lock = lock("venv")?;
    if done.exists() {
        return Ok(python);
    }
    // The system's own Python: others may lack what environments are made with.
    if !Path::new("/usr/bin/python3").exists() || !has_package("python3-venv") {
        install(&["python3", "python3-venv"])?;
    }
    let _half_made = fs::remove_dir_all(&folder);
    let steps = [
        vec!["/usr/bin/python3".to_owned(), "-m".into(), "venv".into(), folder.display().to_string()],
        [
            vec![python.display().to_string()],
            words("-m pip install --quiet --disable-pip-version-check"),
            owned(packages),
        ]
        .concat(),
    ];
    for step in steps {
        let ran = run(Command::new(&step[0]).args(&step[1..]), INSTALLING);
        if !ran.ok {
            return Err(format!("{}: {}", step.join(" "), ran.stderr.trim()));
        }
    }
    File::create(&done).map_err(|e| e.to_string())?;
    Ok(python)
}

fn make_modules(folder: &Path) -> Result<PathBuf, String> {
    let read = |name: &str| fs::read(folder.join(name)).map_err(|e| format!("{name}: {e}"));
    let files = [("package.json", read("package.json")?), ("package-lock.json", read("package-lock.json")?)];
    let made = cache().join("npm");
    // What was installed is known by the lock it was installed by.
    let same = || fs::read(made.join("complete")).is_ok_and(|lock| lock == files[1].1);
    let _lock = lock("npm")?;
    if same() {
        return Ok(made);
    }
    if !on_path("node") || !on_path("npm") {
        install(&["nodejs", "npm"])?;
    }
    let _half_made = fs::remove_dir_all(&made);
    fs::create_dir_all(&made).map_err(|e| e.to_string())?;
    for (name, content) in &files {
        fs::write(made.join(name), content).map_err(|e| e.to_string())?;
    }
    let arguments = words("ci --ignore-scripts --no-audit --no-fund --loglevel=error");
    let ran = run(Command::new("npm").args(arguments).current_dir(&made), INSTALLING);
    if !ran.ok {
        return Err(format!("npm ci: {}", ran.stderr.trim()));
    }
    fs::write(made.join("complete"), &files[1].1).map_err(|e| e.to_string())?;
    Ok(made)
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).exists())
}

fn install(packages: &[&str]) -> Result<(), String> {
    if packages.iter().all(|p| has_package(p)) {
        return Ok(());
    }
    let _lock = lock("apt")?;
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !has_package(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let lock_timeout = "-qq -o DPkg::Lock::Timeout=120";
    let apt = |rest: Vec<String>| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(words(lock_timeout)).args(rest);
        if Path::new("/usr/bin/apt-get").exists() {
            Ok(run(&mut command, INSTALLING))
        } else {
            Err("no apt-get here")
        }
    };
    apt(words("update"))?;
    let ran = apt([words("install -y --no-install-recommends"), owned(&missing)].concat())?;
    if ran.ok { Ok(()) } else { Err(format!("apt-get install {}: {}", missing.join(" "), ran.stderr.trim())) }
}

fn has_package(name: &str) -> bool {
    let asked = Command::new("dpkg-query").args(["-W", "-f=${Status}", name]).output();
    asked.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("ok installed"))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// Held while something is installed, against every other process that would do the same.
fn lock(name: &str) -> Result<File, String> {
    let folder = cache();
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let file = File::create(folder.join(format!("{name}.lock"))).map_err(|e| e.to_string())?;
    file.lock().map_err(|e| e.to_string())?;
    Ok(file)
}

/// A folder that stays from run to run, beside what was built.
fn cache() -> PathBuf {
    target().join("peers")
}

/// The folder in which everything is built: that of the running test.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let marked = program.ancestors().find(|f| f.join("CACHEDIR.TAG").exists());
    marked.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

const PATIENCE: Duration = Duration::from_secs(20);
const INSTALLING: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_with_its_owner_and_its_words_are_kept() {
        let started = Process::spawn(Command::new("sh").args(["-c", "echo hello; sleep 60"]));
        let began = Instant::now();
        while !started.log().contains("hello") {
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(5));
        }
        let id = started.id();
        drop(started);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        let ran = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 1"]), PATIENCE);
        assert_eq!((ran.ok, ran.stdout.as_str(), ran.stderr.as_str()), (false, "out\n", "err\n"));
    }
}
