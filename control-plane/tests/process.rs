//! The control plane as a process: what is lost when it is killed, and what it says when it can not start.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{Process, command, data_folder, request, service};
use serde_json::{Value as Json, json};

/// What was acknowledged, by object.
type Acknowledged = BTreeMap<String, u64>;

/// One kill after another at arbitrary moments: what was acknowledged is there, and of a change that writes two
/// objects either both are there or neither.
#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged_and_leaves_nothing_half() {
    let kills = if std::env::var_os("OUTRIGGER_SOAK").is_some() { 500 } else { 20 };
    let folder = tempfile::tempdir().unwrap();
    let data = data_folder(&folder);
    let mut acknowledged = Acknowledged::new();
    let mut count = 0;
    for kill in 0..kills {
        let process = Process::start(&data);
        check(&process, &acknowledged, kill);
        let pause = Duration::from_micros(pseudo_random(kill) % 60_000);
        count = write_until_killed(process, pause, count, &mut acknowledged);
    }
    check(&Process::start(&data), &acknowledged, kills);
    assert!(acknowledged.len() >= 4, "something was acknowledged between the kills");
}

/// Writes pairs, each with the number of its change, until the process is gone.
fn write_until_killed(
    process: Process,
    pause: Duration,
    mut count: u64,
    acknowledged: &mut Acknowledged,
) -> u64 {
    let (admin, killed) = (process.admin, AtomicBool::new(false));
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            thread::sleep(pause);
            process.kill();
            killed.store(true, Ordering::SeqCst);
        });
        while !killed.load(Ordering::SeqCst) {
            count += 1;
            let pair = count % 4;
            let names = [format!("left-{pair}"), format!("right-{pair}")];
            let items: Vec<Json> =
                names.iter().map(|n| service(n, json!({ "description": count.to_string() }))).collect();
            let body = json!({ "items": items }).to_string();
            if request(admin, "POST", "/v1/apply", &[], &body).is_ok_and(|a| a.status == 200) {
                acknowledged.extend(names.map(|n| (n, count)));
            }
        }
        killer.join().unwrap();
    });
    count
}

fn check(process: &Process, acknowledged: &Acknowledged, kill: u64) {
    let list = request(process.admin, "GET", "/v1/services", &[], "").unwrap();
    let present: Acknowledged = list.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| {
            let name = o["metadata"]["name"].as_str().unwrap().to_owned();
            (name, o["spec"]["description"].as_str().unwrap().parse().unwrap())
        })
        .collect();
    for (name, number) in acknowledged {
        // A later change may be there without having been acknowledged.
        let found = present.get(name);
        assert!(
            found.is_some_and(|f| f >= number),
            "kill {kill}: {name} is {found:?}, {number} was acknowledged"
        );
    }
    for (name, number) in &present {
        if let Some(pair) = name.strip_prefix("left-") {
            assert_eq!(present.get(&format!("right-{pair}")), Some(number), "kill {kill}: half of a change");
        }
    }
}

/// Spread over the range, and the same in every run.
fn pseudo_random(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

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
