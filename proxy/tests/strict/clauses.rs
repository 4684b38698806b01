//! Which clause has which cases.

use std::collections::{BTreeMap, HashSet};

/// One line each: an id, and what is promised.
const CLAUSES: &str = include_str!("clauses.txt");

#[test]
fn every_clause_has_a_case_and_every_case_a_clause() {
    let lines = CLAUSES.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    let mut table: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let (id, words) = line.split_once(" | ").unwrap_or_else(|| panic!("write `id | words`: {line}"));
        assert!(words.len() > 10, "{id} says nothing");
        assert!(table.insert(id.trim(), 0).is_none(), "clause {id} is there twice");
    }
    let cases = crate::all();
    let mut ids = HashSet::new();
    for case in &cases {
        assert!(ids.insert(&case.id), "{} is there twice", case.id);
        let count = table.get_mut(case.clause);
        *count.unwrap_or_else(|| panic!("{} belongs to {}, which is no clause", case.id, case.clause)) += 1;
    }
    let bare: Vec<&&str> = table.iter().filter(|(_, n)| **n == 0).map(|(id, _)| id).collect();
    let rows: Vec<String> = table.iter().map(|(id, n)| format!("{n:4}  {id}")).collect();
    let trials: usize = cases.iter().map(|case| case.ways.len()).sum();
    // Seen with --no-capture, and where it fails.
    eprintln!("{}\n{} cases, {trials} trials, {} clauses", rows.join("\n"), cases.len(), rows.len());
    assert!(bare.is_empty(), "clauses without a case: {bare:?}");
    assert!(cases.len() >= 250, "only {} cases", cases.len());
}
