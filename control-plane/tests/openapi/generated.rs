//! A client that a program made of the document alone, at work.

use std::process::Command;
use std::time::Duration;

use outrigger_testkit::real;

use crate::plane::{Plane, beside};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_made_of_the_document_alone_creates_reads_changes_and_deletes() {
    let Some(python) = tokio::task::spawn_blocking(|| real::venv(&PACKAGES)).await.unwrap() else { return };
    let plane = Plane::furnished().await;
    let token = plane.token("editor").await;
    // From the address, as anybody would.
    let mut generate = Command::new(python.with_file_name("openapi-python-client"));
    generate.args(["generate", "--fail-on-warning", "--meta", "none", "--output-path", "mesh_client"]);
    generate.args(["--url", &format!("{}/openapi.json", plane.url())]).current_dir(plane.folder());
    let tools = std::env::join_paths(
        std::iter::once(python.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    generate.env("PATH", tools.unwrap());
    let mut story = Command::new(&python);
    story.arg(beside("story.py")).args([&plane.url(), &token]).env("PYTHONPATH", plane.folder());
    let (generated, told) = tokio::task::spawn_blocking(move || {
        (real::run(&mut generate, Duration::from_secs(80)), real::run(&mut story, Duration::from_secs(30)))
    })
    .await
    .unwrap();
    assert!(generated.ok, "{}{}", generated.stdout, generated.stderr);
    assert!(told.ok, "{}{}", told.stdout, told.stderr);
    assert_eq!(told.stdout.trim(), "created read changed refused applied deleted");
    plane.shutdown().await;
}

/// The generator, and what it tidies its output with.
const PACKAGES: [&str; 2] = ["openapi-python-client==0.29.1", "ruff==0.17.6"];
