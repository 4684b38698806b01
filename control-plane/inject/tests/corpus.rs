//! Manifests as people write them, injected and taken back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;

use outrigger_inject::Settings;
use outrigger_inject::manifest::{Options, Outcome, Rewritten, check, inject, uninject};

/// Each file, how many of its workloads become members, and how many are skipped.
const CORPUS: &[(&str, usize, usize)] = &[
    ("anchors.yaml", 1, 0),
    ("cronjob.yaml", 1, 0),
    ("custom-resources.yaml", 0, 0),
    ("daemonset.yaml", 1, 0),
    ("deployment-indentless.yaml", 1, 0),
    ("deployment.yaml", 1, 0),
    ("documents.yaml", 2, 0),
    ("folded.yaml", 1, 0),
    ("grpc.yaml", 1, 0),
    ("helm.yaml", 2, 0),
    ("job.yaml", 1, 0),
    ("kustomize.yaml", 1, 0),
    ("list-of-kubectl.json", 1, 0),
    ("list.yaml", 2, 0),
    ("many-containers.yaml", 1, 0),
    ("opted-out.yaml", 0, 2),
    ("pod-no-final-newline.yaml", 1, 0),
    ("pod-one-line.json", 1, 0),
    ("pod-tabs.json", 1, 0),
    ("pod.yaml", 1, 0),
    ("quoted-keys.yaml", 1, 0),
    ("replicaset.yaml", 1, 0),
    ("replicationcontroller.yaml", 1, 0),
    ("sparse.yaml", 1, 0),
    ("statefulset.yaml", 1, 0),
    ("unicode.yaml", 1, 0),
    ("windows-no-final-newline.yaml", 1, 0),
    ("windows.yaml", 1, 0),
];

fn read(name: &str) -> String {
    fs::read_to_string(format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn injected(text: &str) -> Rewritten {
    inject(text, &Settings::default(), &Options::default())
        .unwrap_or_else(|failed| panic!("{failed}\n{text}"))
}

fn count(rewritten: &Rewritten, which: impl Fn(&Outcome) -> bool) -> usize {
    rewritten.told.iter().filter(|told| which(&told.outcome)).count()
}

#[test]
fn what_is_injected_and_taken_back_is_the_same_byte_for_byte() {
    let files = fs::read_dir(format!("{}/tests/corpus", env!("CARGO_MANIFEST_DIR"))).unwrap().count();
    assert_eq!(files, CORPUS.len(), "a file of the corpus is not in the table");
    for (name, members, skipped) in CORPUS {
        let text = read(name);
        let done = injected(&text);
        assert_eq!(count(&done, |o| matches!(o, Outcome::Injected)), *members, "{name}: {:#?}", done.told);
        assert_eq!(
            count(&done, |o| matches!(o, Outcome::Skipped { .. })),
            *skipped,
            "{name}: {:#?}",
            done.told
        );
        assert_eq!(done.text != text, *members > 0, "{name}");
        let back = uninject(&done.text).unwrap_or_else(|failed| panic!("{name}: {failed}\n{}", done.text));
        assert_eq!(back.text, text, "{name}, taken back from\n{}", done.text);
        assert_eq!(count(&back, |o| matches!(o, Outcome::Uninjected)), *members, "{name}");
    }
}

#[test]
fn comments_line_breaks_and_the_end_of_the_file_stay() {
    for (name, ..) in CORPUS.iter().filter(|(name, ..)| !name.contains("json")) {
        let text = read(name);
        let done = injected(&text).text;
        let mut lines = done.lines();
        for comment in text.lines().filter(|line| line.trim_start().starts_with('#')) {
            assert!(
                lines.any(|line| line == comment),
                "{name}: {comment:?} is not there, or out of order\n{done}"
            );
        }
        assert_eq!(text.contains("\r\n"), done.contains("\r\n"), "{name}");
        assert!(
            !text.contains("\r\n") || !done.replace("\r\n", "").contains('\n'),
            "{name}: breaks of both kinds"
        );
        assert_eq!(text.ends_with('\n'), done.ends_with('\n'), "{name}");
    }
}

#[test]
fn injecting_again_changes_nothing() {
    for (name, ..) in CORPUS {
        let once = injected(&read(name));
        let twice = injected(&once.text);
        assert_eq!(once.text, twice.text, "{name}");
        assert_eq!(count(&twice, |o| matches!(o, Outcome::Injected)), 0, "{name}: {:#?}", twice.told);
    }
}

#[test]
fn what_was_edited_since_is_taken_back_by_its_structure() {
    let text = read("deployment.yaml");
    let edited = injected(&text).text.replace("shop/web:1.4.2", "shop/web:1.4.3");
    let back = uninject(&edited).unwrap();
    assert_eq!(count(&back, |o| matches!(o, Outcome::Uninjected)), 1);
    for ours in [
        "outrigger-proxy",
        "outrigger-init",
        "outrigger-token",
        "outrigger.dev/status",
        "outrigger.dev/undo",
        "app-health",
    ] {
        assert!(!back.text.contains(ours), "{ours} is left in\n{}", back.text);
    }
    let wanted = text.replace("shop/web:1.4.2", "shop/web:1.4.3");
    let comments = |text: &str| text.lines().filter(|line| line.trim_start().starts_with('#')).count();
    assert_eq!(comments(&back.text), comments(&wanted));
    // And what comes of it is a member again by the same words.
    assert_eq!(count(&injected(&back.text), |o| matches!(o, Outcome::Injected)), 1);
}

#[test]
fn a_namespace_says_whether_its_pods_are_members() {
    let text = read("documents.yaml").replace("inject: enabled", "inject: disabled");
    let done = injected(&text);
    assert_eq!(count(&done, |o| matches!(o, Outcome::Skipped { .. })), 2, "{:#?}", done.told);
    assert_eq!(done.text, text);
    let asked = BTreeMap::from([("outrigger.dev/inject".to_owned(), "enabled".to_owned())]);
    let options = Options { namespace_labels: asked, ..Options::default() };
    let done = inject(&text, &Settings::default(), &options).unwrap();
    assert_eq!(count(&done, |o| matches!(o, Outcome::Injected)), 2, "{:#?}", done.told);
}

#[test]
fn mistakes_are_told_with_their_place_and_nothing_is_written() {
    let text = read("cronjob.yaml").replace("log-level: debug", "proxy-cpu-request: plenty");
    let done = injected(&text);
    assert!(done.is_refused());
    assert_eq!(done.text, text);
    let Outcome::Refused { problems } = &done.told[0].outcome else { panic!("{:#?}", done.told) };
    assert!(problems[0].pointer.contains("proxy-cpu-request"), "{problems:?}");
}

#[test]
fn what_can_not_be_edited_is_refused_with_the_line() {
    let options = Options::default();
    let failed = |text: &str| inject(text, &Settings::default(), &options).unwrap_err().to_string();
    let template = "apiVersion: v1\nkind: Pod\nmetadata: {name: {{ .Release.Name }}}\n";
    assert!(failed(template).starts_with("line 3"), "{}", failed(template));
    let shared = "apiVersion: v1\nkind: List\nitems:\n- &p\n  apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n  spec:\n    containers: [{name: a, image: a}]\n- *p\n";
    assert!(failed(shared).contains("alias"), "{}", failed(shared));
}

#[test]
fn a_check_finds_pods_that_should_be_members_and_sidecars_of_another_version() {
    let namespace = |label: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {{outrigger.dev/inject: {label}}}\n---\n"
        )
    };
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  containers: [{{name: a, image: a}}]\n"
        )
    };
    let found = |text: &str, version: &str| {
        let checked = check(text, &Settings::default(), version).unwrap();
        let codes: Vec<_> = checked.findings.iter().map(|f| format!("{} {}", f.object, f.code)).collect();
        (checked.pods, checked.members, codes)
    };
    let member = injected(&pod("one")).text;
    let text = format!("{}{member}---\n{}", namespace("enabled"), pod("two"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(found(&text, version), (2, 1, vec!["Pod two unmeshed".to_owned()]));
    assert_eq!(found(&text, "9.9.9").2, ["Pod one version_skew", "Pod two unmeshed"]);
    assert_eq!(found(&format!("{}{}", namespace("disabled"), pod("two")), version), (1, 0, vec![]));
    assert_eq!(found(&pod("two"), version), (1, 0, vec![]), "nobody asked");
    let bad = pod("two").replace(
        "namespace: shop",
        "namespace: shop, annotations: {outrigger.dev/proxy-cpu-request: plenty}",
    );
    assert_eq!(found(&format!("{}{bad}", namespace("enabled")), version).2, ["Pod two refused"]);
}
