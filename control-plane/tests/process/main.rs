//! The control plane as a process: what is lost when it is killed, and what it says when it can not start.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod full;
mod kills;
mod linear;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Process, command, data_folder};

/// Runs it to its end and tells its exit code and what it said.
fn fails(mut command: Command) -> (Option<i32>, String) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn fails_with_one_line(command: Command, words: &[&str]) {
    let (code, said) = fails(command);
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[test]
fn what_keeps_it_from_starting_is_one_line_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_folder(&folder);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut busy = Command::new(env!("CARGO_BIN_EXE_outrigger-control"));
    busy.arg("--data").arg(&data).args(["--admin", "127.0.0.1:0", "--push", &address]);
    fails_with_one_line(busy, &["--push", &address, "in use"]);

    let mut open = Command::new(env!("CARGO_BIN_EXE_outrigger-control"));
    open.arg("--data").arg(&data).args(["--admin", "0.0.0.0:0", "--push", "127.0.0.1:0"]);
    fails_with_one_line(open, &["--admin", "loopback"]);

    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    fails_with_one_line(command(&file), &[file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a folder");

    damaged_store(&data);
    let (code, said) = fails(bad_usage());
    assert_eq!(code, Some(2), "{said}");
}

fn damaged_store(data: &Path) {
    fs::create_dir_all(data).unwrap();
    let store = data.join("store.redb");
    fs::write(&store, "this was a store once").unwrap();
    fails_with_one_line(command(data), &[store.to_str().unwrap(), "damaged"]);
    assert_eq!(fs::read_to_string(&store).unwrap(), "this was a store once");
}

fn bad_usage() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-control"));
    command.args(["--lease", "soon"]);
    command
}

#[test]
fn a_second_control_plane_on_the_same_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_folder(&folder);
    let _first = Process::start(&data);
    fails_with_one_line(command(&data), &["store.redb", "in use"]);
}

#[test]
fn it_ends_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(&data_folder(&folder));
    let pid = i32::try_from(process.child.id()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}
