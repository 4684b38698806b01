//! The table in docs/routing.md: a row for each case, made of what the suite asserts.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::case::{Case, Cell};

/// The table is what the cases say; `OUTRIGGER_WRITE_TABLE=1` writes it.
#[test]
fn the_table_in_the_documents_is_what_the_cases_say() {
    let subjects = crate::subjects();
    let cases: Vec<&Case> = subjects.iter().flat_map(|(_, cases)| cases).collect();
    assert!(cases.len() >= 120, "there are only {} cases", cases.len());
    let mut ids = HashSet::new();
    for case in &cases {
        assert!(ids.insert(case.id), "{} is there twice", case.id);
        assert!(!case.steps.is_empty(), "{} shows nothing", case.id);
    }
    let page = page();
    let before = std::fs::read_to_string(&page).unwrap();
    let after = replaced(&before, &rendered(&subjects));
    if std::env::var_os("OUTRIGGER_WRITE_TABLE").is_some() {
        std::fs::write(&page, after).unwrap();
    } else if let Some((wrong, right)) = before.lines().zip(after.lines()).find(|(a, b)| a != b) {
        panic!(
            "docs/routing.md is not what the cases say; write it with OUTRIGGER_WRITE_TABLE=1\n{wrong}\n{right}"
        );
    } else {
        assert_eq!(before, after, "docs/routing.md is not what the cases say");
    }
}

const BEGIN: &str = "<!-- the table of the conformance suite begins -->";
const END: &str = "<!-- the table of the conformance suite ends -->";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/routing.md")
}

fn replaced(page: &str, table: &str) -> String {
    let (head, rest) = page.split_once(BEGIN).expect("the marker at which the table begins");
    let (_, tail) = rest.split_once(END).expect("the marker at which the table ends");
    format!("{head}{BEGIN}\n{table}{END}{tail}")
}

fn rendered(subjects: &[(&str, Vec<Case>)]) -> String {
    let mut text = String::new();
    for (subject, cases) in subjects {
        let _never = write!(
            text,
            "\n### {subject}\n\n| case | place | meaning | mesh | gateway |\n|---|---|---|---|---|\n"
        );
        for case in cases {
            let (mesh, gateway) = (cell(case, case.mesh), cell(case, case.gateway));
            let Case { id, place, meaning, .. } = case;
            let _never = writeln!(text, "| `{id}` | {place} | {meaning} | {mesh} | {gateway} |");
        }
    }
    text.push('\n');
    text
}

fn cell(case: &Case, cell: Cell) -> String {
    match (cell, case.unsupported) {
        (Cell::Nothing(_), _) => "–".into(),
        (Cell::NotYet(why), _) => format!("not yet: {why}"),
        (Cell::Holds, Some(why)) => format!("not supported: {why}"),
        (Cell::Holds, None) if case.is_refusal() => "✓ refused".into(),
        (Cell::Holds, None) => "✓".into(),
    }
}
