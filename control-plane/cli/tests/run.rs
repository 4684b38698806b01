//! `outrigger run`, seen from outside, with a sidecar that is played by a script: what is told to whom, and in which
//! order things end.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

#[test]
fn the_command_learns_its_port_and_its_way_out_and_its_exit_code_is_ours() {
    let stage = Stage::new();
    let mut run = stage.run(
        &["--port", "18080"],
        r#"echo "$PORT $OUTRIGGER_OUTBOUND token=$OUTRIGGER_JOIN_TOKEN" >> "$EVENTS"; exit 7"#,
    );
    assert_eq!(run.wait().unwrap().code(), Some(7));
    let told = stage.events();
    assert_eq!(told[0], "sidecar cart shop v1 18080 token=one-time");
    assert_eq!(told[1], "18080 127.0.0.1:19001 token=");
    assert_eq!(told[2], "sidecar ends", "it is not left behind");
}

#[test]
fn at_the_end_the_sidecar_withdraws_while_the_command_serves_then_the_command_ends_then_the_sidecar() {
    let stage = Stage::new();
    let socket = UnixListener::bind(stage.path("admin.sock")).unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = stage.command(&[], SERVES);
    let mut run = command.env("ADMIN", admin.local_addr().unwrap().to_string()).spawn().unwrap();
    stage.until("serving");
    signal(run.id(), Signal::TERM);

    answer(socket.accept().unwrap().0, "POST /drain", "202 Accepted", "draining");
    for phase in ["draining: withdrawing", "draining: closing inbound connections"] {
        answer(admin.accept().unwrap().0, "GET /ready", "503 Service Unavailable", phase);
        assert_eq!(stage.events().last().unwrap(), "serving", "nobody is asked to end before it has drained");
    }
    answer(admin.accept().unwrap().0, "GET /ready", "503 Service Unavailable", "draining: inbound closed");

    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(stage.events()[1..], ["serving", "command ends", "sidecar ends"]);
}

#[test]
fn a_sidecar_that_does_not_start_is_told_with_its_words_and_the_command_never_runs() {
    let stage = Stage::new();
    stage.program("echo 'error: 127.0.0.1:15006 is taken' >&2; exit 3");
    let run = stage.command(&[], SERVES).stderr(Stdio::piped()).spawn().unwrap();
    let out = run.wait_with_output().unwrap();
    let told = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(told.contains("the sidecar of cart did not start (exit status: 3)"), "{told}");
    assert!(told.contains("127.0.0.1:15006 is taken"), "{told}");
    assert!(stage.events().is_empty());
}

#[test]
fn nothing_outlives_a_run_that_is_killed() {
    let stage = Stage::new();
    let mut run = stage.run(&[], r#"echo $$ > "$EVENTS.pid"; exec sleep 60"#);
    let pid_file = stage.path("events.pid");
    wait_for("the command's pid", || fs::read_to_string(&pid_file).ok().filter(|t| t.ends_with('\n')));
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    wait_for("the end of the command", || test_kill_process(raw(pid)).is_err().then_some(()));
    wait_for("the end of the sidecar", || stage.events().contains(&"sidecar ends".into()).then_some(()));
}

/// A command that serves until it is asked to end.
const SERVES: &str = r#"trap 'echo command ends >> "$EVENTS"; exit 0' TERM; echo serving >> "$EVENTS"
while :; do sleep 0.02; done"#;

/// A folder with a sidecar in it, and the events that it and the command noted.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        stage.program(
            r#"while [ $# -gt 0 ]; do case "$1" in
                --service) service=$2 ;; --namespace) namespace=$2 ;; --version) version=$2 ;;
                --port) port=$2 ;; --ready-file) ready=$2 ;;
            esac; shift 2; done
            trap 'echo sidecar ends >> "$EVENTS"; exit 0' TERM
            echo "sidecar $service $namespace $version $port token=$OUTRIGGER_JOIN_TOKEN" >> "$EVENTS"
            echo '{"outbound":"127.0.0.1:19001","inbound":"127.0.0.1:19006","uid":"cart-x",' \
                "\"admin\":\"${ADMIN:-127.0.0.1:19000}\",\"admin_socket\":\"$SOCKET\"}" > "$ready.new"
            mv "$ready.new" "$ready"
            while :; do sleep 0.02; done"#,
        );
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the sidecar this script.
    fn program(&self, script: &str) {
        let path = self.path("outrigger-proxy");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, more: &[&str], script: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_outrigger")));
        command
            .args(["run", "--service", "cart", "--namespace", "shop", "--version", "v1"])
            .args(more)
            .args(["--", "/bin/sh", "-c", script])
            .env("OUTRIGGER_BIN_DIR", self.folder.path())
            .env("OUTRIGGER_JOIN_TOKEN", "one-time")
            .env("EVENTS", self.path("events"))
            .env("SOCKET", self.path("admin.sock"))
            .env_remove("PORT")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, more: &[&str], script: &str) -> Child {
        self.command(more, script).spawn().unwrap()
    }

    fn events(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn until(&self, event: &str) {
        wait_for(event, || self.events().contains(&event.to_owned()).then_some(()));
    }
}

/// Reads the question, which must begin so, and answers it.
fn answer(mut stream: impl Read + Write, asked: &str, status: &str, body: &str) {
    let mut question = [0; 1024];
    let n = stream.read(&mut question).unwrap();
    let question = String::from_utf8_lossy(&question[..n]);
    assert!(question.starts_with(&format!("{asked} HTTP/1.1\r\n")), "{question}");
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(raw(pid), signal).unwrap();
}
