//! How one object becomes another, as steps of a JSON patch. Only what differs is touched; of lists whose elements have
//! names, single elements are.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Operation;
use crate::json::escape;

/// The steps from `from` to `to`; none if they are equal.
pub(crate) fn difference(from: &Value, to: &Value) -> Vec<Operation> {
    let mut steps = Vec::new();
    walk("", from, to, &mut steps);
    steps
}

fn walk(path: &str, from: &Value, to: &Value, steps: &mut Vec<Operation>) {
    match (from, to) {
        _ if from == to => {}
        (Value::Object(old), Value::Object(new)) => {
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                steps.push(Operation::Remove { path: format!("{path}/{}", escape(name)) });
            }
            for (name, value) in new {
                let path = format!("{path}/{}", escape(name));
                match old.get(name) {
                    Some(before) => walk(&path, before, value, steps),
                    None => steps.push(Operation::Add { path, value: value.clone() }),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => match (names(old), names(new)) {
            (Some(_), Some(wanted)) => named(path, old, new, &wanted, steps),
            _ => steps.push(Operation::Replace { path: path.to_owned(), value: to.clone() }),
        },
        _ => steps.push(Operation::Replace { path: path.to_owned(), value: to.clone() }),
    }
}

/// The names of the elements, if each has one of its own.
fn names(list: &[Value]) -> Option<BTreeSet<&str>> {
    let all: Option<BTreeSet<&str>> = list.iter().map(name_of).collect();
    all.filter(|all| all.len() == list.len())
}

fn name_of(element: &Value) -> Option<&str> {
    element.get("name").and_then(Value::as_str)
}

fn named(path: &str, old: &[Value], new: &[Value], wanted: &BTreeSet<&str>, steps: &mut Vec<Operation>) {
    let stays = |element: &Value| name_of(element).is_some_and(|name| wanted.contains(name));
    // From the end, so that the numbers of those before stay what they are.
    for (at, _) in old.iter().enumerate().rev().filter(|(_, element)| !stays(element)) {
        steps.push(Operation::Remove { path: format!("{path}/{at}") });
    }
    let mut now: Vec<&Value> = old.iter().filter(|element| stays(element)).collect();
    for (at, wanted) in new.iter().enumerate() {
        let path_at = format!("{path}/{at}");
        match now.iter().position(|element| name_of(element) == name_of(wanted)) {
            Some(here) if here == at => {
                if let Some(before) = now.get(at) {
                    walk(&path_at, before, wanted, steps);
                }
                continue;
            }
            Some(elsewhere) => {
                steps.push(Operation::Remove { path: format!("{path}/{elsewhere}") });
                now.remove(elsewhere);
            }
            None => {}
        }
        steps.push(Operation::Add { path: path_at, value: wanted.clone() });
        now.insert(at.min(now.len()), wanted);
    }
}
