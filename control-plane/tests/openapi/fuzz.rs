//! schemathesis asks as each role whatever the document allows, and much that it does not; nothing may fail, and nothing may be
//! answered that the document does not say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outrigger_testkit::real;
use serde_json::{Value as Json, json};

use crate::plane::{Plane, beside};

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_asks_whatever_the_document_allows_and_hears_what_it_says() {
    whoever_asks("viewer", 35).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_asks_whatever_the_document_allows_and_hears_what_it_says() {
    whoever_asks("editor", 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_whatever_the_document_allows_and_hears_what_it_says() {
    whoever_asks("operator", 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_asks_whatever_the_document_allows_and_hears_what_it_says() {
    whoever_asks("admin", 80).await;
}

/// Asks as this role, and wants so many percent of the operations that were asked to come to a 2xx.
async fn whoever_asks(role: &str, percent: usize) {
    let Some(python) = python().await else { return };
    let plane = Plane::furnished().await;
    let document = plane.folder().join("openapi.json");
    fs::write(&document, plane.document().await.to_string()).unwrap();
    let token = plane.token(role).await;
    let form = Form::of(role);
    let all = form.phases != "examples";
    let run = Run { python: &python, plane: &plane, document: &document, token: &token, form, seed: 1 };
    let told = run.done().await;
    assert!(told.passed, "{role}: {}", told.text);
    let seen = told.seen;
    let (asked, reached) = (seen.operations(), seen.reached());
    eprintln!("{role}: {} requests, {reached} of {asked} operations reach a 2xx", seen.requests);
    assert!(seen.statuses().all(|status| status < 500), "{role}: {seen:?}");
    assert!(asked >= if all { 120 } else { 80 }, "{asked}");
    assert!(reached * 100 >= asked * percent, "{reached} of {asked}: {:?}", seen.missed());
    plane.shutdown().await;
}

/// What is for everybody the document says (`security: []`), and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn who_proves_nothing_gets_what_the_document_says_is_for_everybody() {
    let Some(python) = python().await else { return };
    let plane = Plane::furnished().await;
    let (document, file) = (plane.document().await, plane.folder().join("openapi.json"));
    fs::write(&file, document.to_string()).unwrap();
    let form = Form { phases: "fuzzing", examples: 1 };
    let run = Run { python: &python, plane: &plane, document: &file, token: "none", form, seed: 1 };
    let told = run.done().await;
    assert!(told.passed, "{}", told.text);
    let mut open = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().iter();
        let of_it = methods.filter(|(_, operation)| operation["security"] == json!([]));
        open.extend(of_it.map(|(method, _)| format!("{} {path}", method.to_uppercase())));
    }
    let missed = told.seen.missed();
    let reached = told.seen.answered.keys().filter(|operation| !missed.contains(&operation.as_str()));
    assert_eq!(reached.cloned().collect::<BTreeSet<_>>(), open);
    assert!(told.seen.operations() >= 120 && open.len() >= 4, "{open:?}");
    plane.shutdown().await;
}

/// A planted lie: of two answers the document says what is not so, and both are found.
#[tokio::test(flavor = "multi_thread")]
async fn a_lie_in_the_document_is_found() {
    let Some(python) = python().await else { return };
    let plane = Plane::furnished().await;
    let mut document = plane.document().await;
    document["components"]["schemas"]["WhoAmI"]["properties"]["role"]["enum"] = json!(["king"]);
    let conflict = document["paths"]["/v1/tokens/{id}"]["delete"]["responses"].as_object_mut().unwrap();
    conflict.shift_remove("404").unwrap();
    let paths = document["paths"].as_object_mut().unwrap();
    paths.retain(|path, _| matches!(path.as_str(), "/v1/whoami" | "/v1/tokens/{id}" | "/readyz"));
    strip_links(&mut document);
    let file = plane.folder().join("lie.json");
    fs::write(&file, document.to_string()).unwrap();
    let token = plane.token("admin").await;
    let form = Form { phases: "fuzzing", examples: 3 };
    let told =
        Run { python: &python, plane: &plane, document: &file, token: &token, form, seed: 1 }.done().await;
    assert!(!told.passed, "{}", told.text);
    for found in
        ["Response violates schema", "is not one of \"king\"", "Undocumented status code", "Received: 404"]
    {
        assert!(told.text.contains(found), "{found}: {}", told.text);
    }
    plane.shutdown().await;
}

/// What leads to operations that are not there any more.
fn strip_links(at: &mut Json) {
    match at {
        Json::Object(fields) => {
            fields.shift_remove("links");
            fields.values_mut().for_each(strip_links);
        }
        Json::Array(items) => items.iter_mut().for_each(strip_links),
        _ => {}
    }
}

async fn python() -> Option<PathBuf> {
    tokio::task::spawn_blocking(|| real::venv(&[SCHEMATHESIS])).await.unwrap()
}

/// How much is asked.
struct Form {
    phases: &'static str,
    /// For each operation.
    examples: usize,
}

impl Form {
    /// The short form asks everything as an admin, and of the others what the examples say; the long form all of all.
    fn of(role: &str) -> Self {
        match (std::env::var_os("OUTRIGGER_SOAK").is_some(), role) {
            (true, _) => Self { phases: "examples,fuzzing,stateful", examples: 50 },
            (false, "admin") => Self { phases: "examples,fuzzing,stateful", examples: 2 },
            (false, _) => Self { phases: "examples", examples: 1 },
        }
    }
}

struct Run<'a> {
    python: &'a Path,
    plane: &'a Plane,
    document: &'a Path,
    token: &'a str,
    form: Form,
    seed: usize,
}

struct Told {
    passed: bool,
    text: String,
    seen: Seen,
}

impl Run<'_> {
    async fn done(self) -> Told {
        let seen = self.plane.folder().join(format!("seen-{}", self.seed));
        let mut command = Command::new(self.python.with_file_name("schemathesis"));
        command.arg("run").arg(self.document).args(["--url", &self.plane.url()]);
        command.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        // A watch does not end, and a tap not soon: what they answer is asked for in admin_api and in the stories.
        command.args([
            // What a service answers, or that it can not be asked, is not said by this API.
            "--exclude-operation-id",
            "readApi",
            "--exclude-operation-id",
            "tryApi",
            "--exclude-operation-id",
            "watch",
            "--exclude-operation-id",
            "tap",
            "--checks",
            CHECKS,
        ]);
        command.args(["--phases", self.form.phases, "--max-examples", &self.form.examples.to_string()]);
        command.args([
            "--seed",
            &self.seed.to_string(),
            "--workers",
            "2",
            "--continue-on-failure",
            "--no-color",
        ]);
        command.args(["--suppress-health-check", "all", "--warnings", "off"]);
        command.env("SCHEMATHESIS_HOOKS", "hooks").env("SEEN", &seen).env("PYTHONHASHSEED", "0");
        command
            .env("PYTHONPATH", beside(""))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(self.plane.folder());
        let limit = Duration::from_secs(if self.form.examples > 10 { 1_700 } else { 110 });
        let ran = tokio::task::spawn_blocking(move || real::run(&mut command, limit)).await.unwrap();
        let seen = Seen::read(&fs::read_to_string(&seen).unwrap_or_default());
        Told { passed: ran.ok, text: ran.stdout + &ran.stderr, seen }
    }
}

/// The statuses that were answered, by operation.
#[derive(Debug)]
struct Seen {
    requests: usize,
    answered: BTreeMap<String, BTreeSet<u64>>,
}

impl Seen {
    fn read(log: &str) -> Self {
        let (mut requests, mut answered) = (0, BTreeMap::<String, BTreeSet<u64>>::new());
        for line in log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()) {
            requests += 1;
            let operation = line["operation"].as_str().unwrap_or_default().to_owned();
            answered.entry(operation).or_default().extend(line["status"].as_u64());
        }
        Self { requests, answered }
    }

    fn operations(&self) -> usize {
        self.answered.len()
    }

    fn statuses(&self) -> impl Iterator<Item = u64> {
        self.answered.values().flatten().copied()
    }

    fn missed(&self) -> Vec<&str> {
        let missed =
            self.answered.iter().filter(|(_, all)| !all.iter().any(|status| (200..300).contains(status)));
        missed.map(|(operation, _)| operation.as_str()).collect()
    }

    fn reached(&self) -> usize {
        self.operations() - self.missed().len()
    }
}

const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";
