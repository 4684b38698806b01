//! docs/shown.md says which test or figure shows each promise. A name in it that does not exist is a failure, and so is a
//! suite without a planted defect (`.ci/planted`).

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::path::Path;

#[test]
fn every_name_in_the_table_of_what_is_shown_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/shown.md")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| promise")).collect();
    assert!(rows.len() >= 10, "the table has only {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        // The names stand in the last column; the promise may quote words of its own.
        let cell = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("nothing is named: {row}"));
        }
        wrong.extend(names.into_iter().filter_map(|name| missing(&root, name)));
    }
    assert!(wrong.is_empty(), "docs/shown.md:\n{}", wrong.join("\n"));
}

/// Why `name` is not there: `path::test` must be a test in that file, `path#text` a file that has the text.
fn missing(root: &Path, name: &str) -> Option<String> {
    let (path, wanted) = match (name.split_once("::"), name.split_once('#')) {
        (Some((path, test)), _) => (path, format!("fn {test}(")),
        (None, Some((path, text))) => (path, text.to_owned()),
        (None, None) => return Some(format!("write `path::test` or `path#text`: {name}")),
    };
    match fs::read_to_string(root.join(path)) {
        Err(e) => Some(format!("{path}: {e}")),
        Ok(text) if !text.contains(&wanted) => Some(format!("{path} has no {wanted:?}")),
        Ok(_) => None,
    }
}

/// A planted defect: names that do not exist are seen.
#[test]
fn a_name_that_does_not_exist_is_seen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let here = "control-plane/cli/tests/shown.rs";
    assert_eq!(missing(&root, &format!("{here}::a_name_that_does_not_exist_is_seen")), None);
    let absent = format!("{here}::{}", ["no", "such", "test"].join("_"));
    assert!(missing(&root, &absent).is_some());
    assert!(missing(&root, "no/such/file.rs::x").is_some());
    assert!(missing(&root, "plain words").is_some());
}

/// Suites that hold themselves to a planted defect of their own.
const BY_THEMSELVES: [&str; 2] = ["outrigger-cli::shown", "outrigger-cli::walls"];

#[test]
fn every_suite_has_a_planted_defect_whose_place_is_still_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join(".ci/planted/defects.json")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for (word, defect) in table["defects"].as_object().unwrap() {
        for edit in defect["edits"].as_array().unwrap() {
            let (file, old) = (edit["file"].as_str().unwrap(), edit["old"].as_str().unwrap());
            let times = fs::read_to_string(root.join(file)).unwrap_or_default().matches(old).count();
            if times != 1 {
                wrong.push(format!("{word}: its place stands {times} times in {file}, not once"));
            }
        }
    }
    let listed: Vec<String> = table["suites"].as_array().unwrap().iter().map(suite_name).collect();
    let suites = suites(&root);
    assert!(suites.len() > 30, "{suites:?}");
    let without = suites.into_iter().filter(|s| !listed.contains(s) && !BY_THEMSELVES.contains(&s.as_str()));
    wrong.extend(without.map(|s| format!("{s} has no planted defect")));
    assert!(wrong.is_empty(), ".ci/planted/defects.json:\n{}", wrong.join("\n"));
}

fn suite_name(suite: &serde_json::Value) -> String {
    format!("{}::{}", suite["package"].as_str().unwrap(), suite["suite"].as_str().unwrap())
}

/// Every test program of the workspace, as `package::suite`.
fn suites(root: &Path) -> Vec<String> {
    let packages = [
        ("certs", "outrigger-certs"),
        ("control-plane", "outrigger-control"),
        ("control-plane/cli", "outrigger-cli"),
        ("control-plane/inject", "outrigger-inject"),
        ("control-plane/kube", "outrigger-kube"),
        ("control-plane/mesh", "outrigger-mesh"),
        ("control-plane/wire", "outrigger-wire"),
        ("examples/shop", "outrigger-shop"),
        ("proxy", "outrigger-proxy"),
        ("proxy/init", "outrigger-init"),
    ];
    let of = |(folder, package): (&str, &str)| {
        let entries = fs::read_dir(root.join(folder).join("tests")).into_iter().flatten().flatten();
        let is_suite =
            |path: &Path| path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists();
        let suite = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
        let paths = entries.map(|e| e.path()).filter(|p| is_suite(p));
        paths.map(|p| format!("{package}::{}", suite(&p))).collect::<Vec<_>>()
    };
    packages.into_iter().flat_map(of).collect()
}
