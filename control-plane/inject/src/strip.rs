//! A pod as it was before it became a member.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::difference::difference;
use crate::json::{all_containers, object_in, text};
use crate::{Operation, STATUS_ANNOTATION, Status, probes};

/// What was taken away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// Containers, by name.
    pub(crate) containers: BTreeMap<String, Value>,
    /// Volumes, by name.
    pub(crate) volumes: BTreeMap<String, Value>,
    /// Lists and objects that were made for ours, whatever others have put into them since.
    pub(crate) made: Vec<String>,
}

/// The steps that take away what an injection added to `pod`, by its status annotation. `None` if it was not injected.
pub fn removal(pod: &Value) -> Option<Vec<Operation>> {
    let status = Status::of(pod)?;
    let (bare, _taken) = strip(pod, &status);
    Some(difference(pod, &bare))
}

/// `pod` without what `status` says was added.
pub(crate) fn strip(pod: &Value, status: &Status) -> (Value, Taken) {
    let (mut bare, mut taken) = (pod.clone(), Taken { made: status.made.clone(), ..Taken::default() });
    if let Some(Value::Object(spec)) = bare.get_mut("spec") {
        take(spec, "initContainers", &status.init_containers, &mut taken.containers);
        take(spec, "containers", &status.containers, &mut taken.containers);
        take(spec, "volumes", &status.volumes, &mut taken.volumes);
        take(spec, "imagePullSecrets", &status.image_pull_secrets, &mut BTreeMap::new());
        probes::restore(spec, &status.probes);
    }
    if let Some(Value::Object(metadata)) = bare.get_mut("metadata") {
        put_back(metadata, "labels", &status.labels);
        put_back(metadata, "annotations", &status.annotations);
        if metadata.get("annotations").is_some_and(Value::is_object) {
            object_in(metadata, "annotations").shift_remove(STATUS_ANNOTATION);
        }
    }
    for pointer in &status.made {
        remove_empty(&mut bare, pointer);
    }
    (bare, taken)
}

fn take(spec: &mut Map<String, Value>, part: &str, names: &[String], into: &mut BTreeMap<String, Value>) {
    let Some(Value::Array(elements)) = spec.get_mut(part) else { return };
    elements.retain(|element| {
        let Some(name) = text(element, "name").filter(|name| names.iter().any(|n| n == name)) else {
            return true;
        };
        into.insert(name.to_owned(), element.clone());
        false
    });
}

/// Gives members the values that they had.
fn put_back(metadata: &mut Map<String, Value>, part: &str, before: &Map<String, Value>) {
    let Some(Value::Object(members)) = metadata.get_mut(part) else { return };
    for (name, value) in before {
        if value.is_string() {
            members.insert(name.clone(), value.clone());
        } else {
            members.shift_remove(name);
        }
    }
}

/// Takes away a list or an object that was made for ours, if nobody else put anything in.
fn remove_empty(pod: &mut Value, pointer: &str) {
    if !PARENTS.iter().any(|parent| pointer_of(*parent) == pointer) {
        return;
    }
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    let Some(Value::Object(parent)) = pod.pointer_mut(parent) else { return };
    let empty = match parent.get(name) {
        Some(Value::Array(elements)) => elements.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        _ => false,
    };
    if empty {
        parent.shift_remove(name);
    }
}

/// The lists and objects of a pod in which something of ours is put; what lies deeper stands first.
const PARENTS: [(&str, &str); 6] = [
    ("metadata", "labels"),
    ("metadata", "annotations"),
    ("spec", "initContainers"),
    ("spec", "volumes"),
    ("spec", "imagePullSecrets"),
    ("", "metadata"),
];

fn pointer_of((of, name): (&str, &str)) -> String {
    if of.is_empty() { format!("/{name}") } else { format!("/{of}/{name}") }
}

/// Pointers of those parents that `bare` does not have, or had not before somebody else used them.
pub(crate) fn missing_parents(bare: &Value, made: &[String]) -> Vec<String> {
    let missing = |(of, name): (&str, &str)| {
        let holder = if of.is_empty() { Some(bare) } else { bare.get(of) };
        holder.and_then(|holder| holder.get(name)).is_none_or(Value::is_null)
    };
    let pointers = PARENTS.into_iter().filter_map(|parent| {
        let pointer = pointer_of(parent);
        (missing(parent) || made.contains(&pointer)).then_some(pointer)
    });
    pointers.collect()
}

/// Whether a container of one of our names is there that no status speaks of.
pub(crate) fn foreign(spec: &Value, status: Option<&Status>, names: [&str; 2]) -> Option<String> {
    let mut all = all_containers(spec).filter_map(|container| text(container, "name"));
    let known = |name: &str| status.is_some_and(|status| status.adds(name));
    all.find(|name| names.contains(name) && !known(name)).map(str::to_owned)
}
