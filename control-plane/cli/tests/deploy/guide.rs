//! A page for who follows it line by line: its boxes are run as one shell script, and what each prints is what the page says.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::{kubectl, real};

use crate::stage::{programs, root, text};

#[test]
fn whoever_follows_the_page_for_machines_gets_what_it_shows() {
    let Some(()) = real::debian(&["curl", "iproute2", "python3", "util-linux"]) else { return };
    follow_page("docs/vm.md", 7, &programs().display().to_string());
}

#[test]
fn whoever_follows_the_page_for_kubernetes_gets_what_it_shows_without_a_cluster() {
    let Some(()) = real::debian(&["iproute2", "util-linux"]) else { return };
    let Some(tools) = kubectl::tools() else { return };
    let Some(python) = real::venv(&["kubernetes-validate==1.37.0"]) else { return };
    let folder = |program: &Path| program.parent().unwrap().display().to_string();
    follow_page("docs/kubernetes.md", 4, &[folder(&tools.helm), folder(&python)].join(":"));
}

/// Runs the boxes of a page with the programs of `path`, and compares.
fn follow_page(page: &str, at_least: usize, path: &str) {
    let Some(()) = real::needed(namespaces()) else { return };
    let boxes = Boxes::of(&text(page));
    assert!(boxes.0.len() >= at_least, "{} boxes", boxes.0.len());
    let told = boxes.run(path);
    for (at, (commands, expected)) in boxes.0.iter().enumerate() {
        let said = told.split(&mark(at)).nth(1).unwrap_or_default();
        let said = said.split(MARK).next().unwrap_or_default();
        if let Err(why) = agrees(said, expected) {
            panic!("{page}:\n{commands}\n{why}\n--- it printed:\n{said}\n--- all of it:\n{told}");
        }
    }
}

/// What is compared, and how.
#[test]
fn the_comparison_of_what_is_printed_sees_what_differs() {
    assert_eq!(agrees("a  b\nc\n", "a b\nc\n"), Ok(()));
    assert_eq!(agrees("hello-731 v1\n", "hello-… v1\n"), Ok(()));
    assert_eq!(agrees("one\ntwo\nthree\nfour\n", "one\n…\nfour\n"), Ok(()));
    assert!(agrees("a\n", "a\nb\n").is_err());
    assert!(agrees("a\nb\n", "a\n").is_err());
    assert!(agrees("hello-731 v2\n", "hello-… v1\n").is_err());
    assert!(agrees("one\ntwo\n", "one\n…\nthree\n").is_err());
}

/// The boxes of commands of a page, each with what it is to print.
struct Boxes(Vec<(String, String)>);

impl Boxes {
    fn of(page: &str) -> Self {
        let mut boxes: Vec<(String, String)> = Vec::new();
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            let Some(kind) = line.strip_prefix("```") else { continue };
            let inside: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
            let inside = format!("{}\n", inside.join("\n"));
            match (kind, boxes.last_mut()) {
                ("sh", _) => boxes.push((inside, String::new())),
                ("text", Some((_, expected))) => *expected = inside,
                _ => panic!("a box of {kind:?}: commands are sh, and what they print is text"),
            }
        }
        Self(boxes)
    }

    /// Runs all of them, one after the other in one shell, on loopback of a network of their own: the page names the ports that
    /// everybody has. What they started ends with the shell.
    fn run(&self, path: &str) -> String {
        let home = tempfile::tempdir().unwrap();
        let mut script =
            format!("set -euo pipefail\nexport PATH=\"{path}:$PATH\"\ncd {}\n", root().display());
        for (at, (commands, _)) in self.0.iter().enumerate() {
            let _ = write!(script, "echo '{}'\n{commands}", mark(at));
        }
        let (file, log) = (home.path().join("page.sh"), home.path().join("log"));
        fs::write(&file, script).unwrap();
        fs::create_dir(home.path().join("home")).unwrap();
        let out = fs::File::create(&log).unwrap();
        let mut shell = alone(&format!("exec bash {}", file.display()))
            .env("HOME", home.path().join("home"))
            .env("BIN", programs())
            .env("TMPDIR", home.path())
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let ended = loop {
            if let Some(status) = shell.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LIMIT {
                let _gone = shell.kill();
                let _reaped = shell.wait();
                panic!("the page takes longer than {LIMIT:?}:\n{}", fs::read_to_string(&log).unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let told = fs::read_to_string(&log).unwrap();
        assert!(ended.success(), "a command of the page fails:\n{told}");
        told
    }
}

/// A shell with a network and processes of its own: they end with it.
pub(crate) fn alone(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "bash", "-c"]);
    command.arg(format!("ip link set lo up && {script}"));
    command
}

/// Whether such a shell can be had.
pub(crate) fn namespaces() -> Result<(), String> {
    let ran = alone("true").stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let why = || format!("namespaces want root: {}", String::from_utf8_lossy(&ran.stderr).trim());
    if ran.status.success() && Path::new("/proc/self/ns/net").exists() { Ok(()) } else { Err(why()) }
}

/// Line by line; blanks count as one, `…` stands for anything within a line, and as a line for any lines.
fn agrees(said: &str, expected: &str) -> Result<(), String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = |text: &str| text.lines().map(words).filter(|l| !l.is_empty()).collect::<Vec<_>>();
    let (said, expected) = (lines(said), lines(expected));
    follow(&said, &expected)
}

fn follow(said: &[String], expected: &[String]) -> Result<(), String> {
    match (said, expected) {
        ([], []) => Ok(()),
        (_, [any, rest @ ..]) if any == ANY => {
            let ways = (0..=said.len()).map(|skip| follow(&said[skip..], rest));
            ways.reduce(Result::or).unwrap_or_else(|| Err("nothing follows".into()))
        }
        ([], [line, ..]) => Err(format!("{line:?} is not printed")),
        ([line, ..], []) => Err(format!("{line:?} is not on the page")),
        ([line, said @ ..], [wanted, expected @ ..]) if fits(line, wanted) => follow(said, expected),
        ([line, ..], [wanted, ..]) => Err(format!("{line:?} is printed, and the page has {wanted:?}")),
    }
}

fn fits(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split(ANY);
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn mark(at: usize) -> String {
    format!("{MARK} {at} --")
}

const MARK: &str = "-- box";
const ANY: &str = "…";
const LIMIT: Duration = Duration::from_secs(90);
