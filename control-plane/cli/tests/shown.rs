//! docs/shown.md says which test or figure shows each promise. A name in it that does not exist is a failure.

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
