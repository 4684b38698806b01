//! Whether what is touched has the types that Kubernetes gives it. Everything else is left to the API server.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Problem;
use crate::json::{escape, member};
use crate::values::kind;

/// Every place of `pod` with another type than it must have; none means that it can be worked on.
pub(crate) fn check(pod: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    if !pod.is_object() {
        found.push(problem("", format!("it is {}", kind(pod)), "a pod is an object with metadata and spec"));
        return found;
    }
    if let Some(metadata) = member(pod, "metadata") {
        check_metadata(metadata, &mut found);
    }
    match member(pod, "spec") {
        Some(spec) if spec.is_object() => check_spec(spec, &mut found),
        Some(spec) => found.push(problem("/spec", format!("it is {}", kind(spec)), "write an object")),
        None => found.push(problem("/spec", "it is not there".into(), "a pod has a spec with containers")),
    }
    found
}

fn check_metadata(metadata: &Value, found: &mut Vec<Problem>) {
    if !metadata.is_object() {
        found.push(problem("/metadata", format!("it is {}", kind(metadata)), "write an object"));
        return;
    }
    for part in ["labels", "annotations"] {
        let Some(members) = member(metadata, part) else { continue };
        let at = format!("/metadata/{part}");
        let Some(members) = members.as_object() else {
            found.push(problem(&at, format!("it is {}", kind(members)), "write an object of texts"));
            continue;
        };
        for (name, value) in members.iter().filter(|(_, value)| !value.is_string()) {
            let at = format!("{at}/{}", escape(name));
            found.push(problem(&at, format!("it is {}", kind(value)), "write a text, in quotes"));
        }
    }
}

fn check_spec(spec: &Value, found: &mut Vec<Problem>) {
    if spec.get("containers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        found.push(problem("/spec/containers", "there are none".into(), "a pod has at least one container"));
    }
    let mut names = BTreeSet::new();
    for part in ["initContainers", "containers"] {
        named(spec, part, &mut names, found);
    }
    named(spec, "volumes", &mut BTreeSet::new(), found);
    if let Some(secrets) = member(spec, "imagePullSecrets").filter(|secrets| !secrets.is_array()) {
        found.push(problem("/spec/imagePullSecrets", format!("it is {}", kind(secrets)), "write a list"));
    }
}

/// A list of objects whose names are theirs alone.
fn named<'a>(spec: &'a Value, part: &str, names: &mut BTreeSet<&'a str>, found: &mut Vec<Problem>) {
    let Some(value) = member(spec, part) else { return };
    let at = format!("/spec/{part}");
    let Some(elements) = value.as_array() else {
        found.push(problem(&at, format!("it is {}", kind(value)), "write a list"));
        return;
    };
    for (number, element) in elements.iter().enumerate() {
        let at = format!("{at}/{number}/name");
        match element.get("name").and_then(Value::as_str) {
            None | Some("") => {
                found.push(problem(&at, "it is not there, or no text".into(), "write its name"));
            }
            Some(name) if !names.insert(name) => {
                found.push(problem(&at, format!("{name:?} is there twice"), "give each a name of its own"));
            }
            Some(_) => {}
        }
    }
}

fn problem(pointer: &str, message: String, hint: &str) -> Problem {
    Problem { pointer: pointer.into(), code: "invalid_pod", message, hint: hint.into() }
}
