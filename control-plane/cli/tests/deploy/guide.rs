//! A page for who follows it line by line: its boxes are run as one shell script, and what each prints is what the page says.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use outrigger_testkit::{kubectl, real};

use crate::page::{Boxes, printed};
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
    boxes.compare(page, &run(&boxes, path));
}

/// Runs all of them, one after the other in one shell, on loopback of a network of their own: the page names the ports that
/// everybody has. What they started ends with the shell.
fn run(boxes: &Boxes, path: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("page.sh");
    let before = format!("export PATH=\"{path}:$PATH\"\ncd {}", root().display());
    fs::write(&file, boxes.script(&before)).unwrap();
    fs::create_dir(home.path().join("home")).unwrap();
    let mut shell = alone(&format!("exec bash {}", file.display()));
    shell.env("HOME", home.path().join("home")).env("BIN", programs()).env("TMPDIR", home.path());
    printed(&mut shell, &home.path().join("log"), LIMIT)
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

const LIMIT: Duration = Duration::from_secs(90);
