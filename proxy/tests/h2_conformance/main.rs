//! The framing of HTTP/2 by an independent reader: a suite in Python that writes right and wrong frames by hand and lets
//! hyperframe and hpack judge what the sidecar says (docs/decisions/0006-http2-conformance.md).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outrigger_testkit::{Origin, real};
use serde_json::Value;
use support::{Mesh, open_service, plain};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_framing_of_http2_is_what_rfc_9113_says() {
    let packages = ["hyperframe==6.1.0", "hpack==4.1.0"];
    let Some(python) = tokio::task::spawn_blocking(move || real::venv(&packages)).await.unwrap() else {
        return;
    };
    let (sidecar, origin) = (Mesh::new().client(), Origin::start().await);
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);

    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/h2_conformance/suite.py");
    let mut command = Command::new(python);
    command.arg(suite).arg("127.0.0.1").arg(sidecar.outbound.port().to_string());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = tokio::task::spawn_blocking(move || real::run(&mut command, LIMIT)).await.unwrap();
    assert!(ran.ok, "{}{}", ran.stdout, ran.stderr);

    let cases: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    let failed: Vec<String> = cases
        .iter()
        .filter(|c| c["ok"] != true && !EXCEPT.iter().any(|(id, _)| *id == text(c, "id")))
        .map(|c| format!("{} {}: {}", text(c, "id"), text(c, "about"), text(c, "why")))
        .collect();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert!(cases.len() >= 150, "only {} cases", cases.len());

    // What must not be passed on was not, whatever the caller was told.
    let held: BTreeSet<String> =
        cases.iter().filter(|c| c["reaches"] != true).map(|c| format!("/{}", text(c, "id"))).collect();
    let passed_on: Vec<_> = origin.seen().into_iter().filter(|s| held.contains(&s.target)).collect();
    assert!(passed_on.is_empty(), "{passed_on:?}");
    for (id, why) in EXCEPT {
        assert!(
            cases.iter().any(|c| c["id"] == **id && c["ok"] == false),
            "{id} is no exception any more: {why}"
        );
    }
}

const LIMIT: Duration = Duration::from_secs(90);
/// Cases that are not as the document says, and why: the same list as in docs/decisions/0006-http2-conformance.md.
const EXCEPT: &[(&str, &str)] = &[
    ("4.3-1", COMPRESSION),
    ("hpack-2.3.3-1", COMPRESSION),
    ("hpack-2.3.3-2", COMPRESSION),
    ("hpack-4.2-1", COMPRESSION),
    ("hpack-5.1-1", COMPRESSION),
    ("hpack-5.2-1", COMPRESSION),
    ("hpack-5.2-2", COMPRESSION),
    ("hpack-5.2-3", COMPRESSION),
    ("hpack-5.2-4", COMPRESSION),
    ("hpack-6.1-1", COMPRESSION),
    ("hpack-6.3-1", COMPRESSION),
    ("5.1-6", "the error is PROTOCOL_ERROR instead of STREAM_CLOSED"),
    ("6.5.2-2", "the error is PROTOCOL_ERROR instead of FLOW_CONTROL_ERROR"),
    ("8.1-3", "pseudo fields in trailers are dropped, and the trailers stand"),
    ("8.3.1-5", "a fragment is dropped from the path before anybody reads it"),
];
const COMPRESSION: &str = "the error is PROTOCOL_ERROR instead of COMPRESSION_ERROR";
