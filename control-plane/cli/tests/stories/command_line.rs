//! The command line itself: watching what changes, several meshes by name, and what shells complete.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Mesh, binary, split, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_told_at_first_and_then_as_it_changes_whatever_becomes_of_the_control_plane() {
    let mut mesh = Mesh::start();
    mesh.services(&["cart"]);
    let mut watching = Command::new(binary("outrigger"))
        .args(["get", "services", "-n", "shop", "--watch"])
        .env("OUTRIGGER_ADMIN", format!("http://{}", mesh.admin))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (told, lines) = mpsc::channel();
    let out = BufReader::new(watching.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let _ended = told.send(line);
        }
    });
    let next = || lines.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(next().starts_with("NAMESPACE") && next().contains("cart"));
    mesh.services(&["prices"]);
    assert!(next().contains("prices"));
    // Of another kind nothing is told.
    mesh.apply(&split("prices", 100, 0));
    mesh.kill_control();
    mesh.start_control();
    let gone = mesh.cli(&["delete", "httproute", "prices", "-n", "shop"]);
    assert!(gone.status.success(), "{}", text(&gone));
    let gone = mesh.cli(&["delete", "service", "prices", "-n", "shop"]);
    assert!(gone.status.success(), "{}", text(&gone));
    assert_eq!(next(), "shop  prices  (deleted)");
    watching.kill().unwrap();
    watching.wait().unwrap();
    reader.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meshes_have_names() {
    let (one, other) = (Mesh::start(), Mesh::start());
    one.services(&["cart"]);
    other.services(&["prices"]);
    let home = one.path("home");
    let url = |mesh: &Mesh| format!("http://{}", mesh.admin);
    for (name, mesh) in [("test", &one), ("live", &other)] {
        let set = run(&home, &["context", "set", name, "--server", &url(mesh)]);
        assert!(set.status.success(), "{}", text(&set));
    }
    let services = |args: &[&str]| {
        let all = [&["get", "services", "-A"], args].concat();
        text(&run(&home, &all))
    };
    assert!(services(&["--context", "live"]).contains("prices"));
    assert!(services(&["--context", "test"]).contains("cart"));
    let used = run(&home, &["context", "use", "live"]);
    assert!(text(&used).contains(&url(&other)), "{}", text(&used));
    assert!(services(&[]).contains("prices"));
    let listed = text(&run(&home, &["context", "list"]));
    let star: Vec<&str> = listed.lines().filter(|line| line.starts_with('*')).collect();
    assert!(star.len() == 1 && star[0].contains("live"), "{listed}");
    // A URL that is given is meant, and a name that nobody gave is told.
    assert!(services(&["--server", &url(&one)]).contains("cart"));
    let nobody = run(&home, &["get", "services", "--context", "prod"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(text(&nobody).contains("live, test"), "{}", text(&nobody));
    assert!(run(&home, &["context", "delete", "live"]).status.success());
    assert!(services(&[]).contains("prices"), "the login stays");
    assert_eq!(run(&home, &["context", "set", "no name"]).status.code(), Some(2));
}

#[test]
fn what_the_control_plane_logs_is_told_and_changed_for_a_while() {
    let mesh = Mesh::start();
    let says = |args: &[&str]| text(&mesh.cli(&[&["log-level"], args].concat()));
    let first = says(&[]);
    assert!(first.contains("as at the start"), "{first}");
    let changed = says(&["info,h2=debug", "--for", "5m", "--why", "a slow stream"]);
    assert!(changed.starts_with("info,h2=debug, for ") && changed.contains("as at the start"), "{changed}");
    let told: serde_json::Value = serde_json::from_str(&says(&["-o", "json"])).unwrap();
    assert_eq!(told["filter"], "info,h2=debug", "{told}");
    let audit = text(&mesh.cli(&["audit", "-o", "json"]));
    assert!(audit.contains("set-log-level") && audit.contains("a slow stream"), "{audit}");
    let wrong = mesh.cli(&["log-level", "a=b=c", "--for", "5m"]);
    assert!(!wrong.status.success(), "{}", text(&wrong));
    assert_eq!(says(&["--reset"]), first);
}

#[test]
fn bash_completes_commands_and_flags() {
    let outrigger = binary("outrigger");
    let script = format!(
        "source <({outrigger} completions bash); \
         for words in 'rol' 'rollout pro' 'get --wat'; do \
           COMP_WORDS=(outrigger $words); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=(); \
           _outrigger outrigger \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
           echo \"$words: ${{COMPREPLY[*]}}\"; \
         done",
        outrigger = outrigger.display()
    );
    let out = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    let told = text(&out);
    for line in ["rol: rollout rollback", "rollout pro: promote", "get --wat: --watch"] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    for shell in ["zsh", "fish"] {
        let script = Command::new(&outrigger).args(["completions", shell]).output().unwrap();
        assert!(script.status.success() && text(&script).contains("rollout"), "{shell}");
    }
}

/// Runs a command as somebody whose home this is.
fn run(home: &Path, args: &[&str]) -> Output {
    Command::new(binary("outrigger"))
        .args(args)
        .env("XDG_CONFIG_HOME", home)
        .env_remove("OUTRIGGER_ADMIN")
        .env_remove("OUTRIGGER_SERVER")
        .env_remove("OUTRIGGER_CONTEXT")
        .output()
        .unwrap()
}
