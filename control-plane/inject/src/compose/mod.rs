//! Compose files: every service gets a sidecar and a redirection in its own network namespace, and the mesh a control plane.
//!
//! `wish` reads what the file says of the mesh (`x-outrigger`, labels), `parts` makes the services that are added, and here
//! both become a change of the text, with a record in `x-outrigger-undo` that takes it back byte for byte. How the services
//! get their join tokens is in docs/compose.md.

mod parts;
mod wish;

use serde_json::{Map, Value};

use crate::manifest::{Failed, Outcome, Refusal, Rewritten, Told};
use crate::text::{self, Document, Fault, Node, PLACEHOLDER, Undo};
use wish::{Mesh, Wish};

/// Where the record is that takes everything back.
pub const UNDO: &str = "x-outrigger-undo";

/// What is added beside the services of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// The image with `/outrigger-proxy`, `/outrigger-init` and a packet filter.
    pub proxy: String,
    /// The image with `/outrigger-control` and `/outrigger`.
    pub control_plane: String,
}

impl Default for Images {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            proxy: format!("outrigger/proxy:{version}"),
            control_plane: format!("outrigger/control-plane:{version}"),
        }
    }
}

/// Makes every service of a Compose file a member of a mesh, as far as it may be. What was injected before is taken back first.
pub fn inject(text: &str, images: &Images) -> Result<Rewritten, Failed> {
    let base = restored(text)?.unwrap_or_else(|| text.to_owned());
    let documents = text::documents(&base)?;
    let (document, root) = file(&base, &documents)?;
    let mut told = vec![];
    let Some(new) = injected(&base, root, images, &mut told) else {
        return Ok(Rewritten { text: text.to_owned(), told, others: 0 });
    };
    let done = written(&base, document, root, new)?;
    if done == text {
        for told in told.iter_mut().filter(|told| matches!(told.outcome, Outcome::Injected)) {
            told.outcome = Outcome::Unchanged;
        }
    }
    Ok(Rewritten { text: done, told, others: 0 })
}

/// Takes back what `inject` did.
pub fn uninject(text: &str) -> Result<Rewritten, Failed> {
    let documents = text::documents(text)?;
    let (_, root) = file(text, &documents)?;
    let Some(record) = root.get(UNDO) else {
        return Ok(Rewritten { text: text.to_owned(), told: vec![], others: 0 });
    };
    let Some(original) = restored(text)? else {
        let message = "the file was edited since it was injected: edit the file that it came from, or take the services \
                       whose names begin with outrigger- out by hand";
        return Err(Fault::at(text, record.range.start, message).into());
    };
    let names = text::documents(&original)?;
    let (_, root) = file(&original, &names)?;
    let services = services(root).into_iter().map(|(name, node)| Told {
        line: Fault::at(&original, node.range.start, "").line,
        kind: "service".into(),
        namespace: String::new(),
        name,
        outcome: Outcome::Uninjected,
        warnings: vec![],
    });
    Ok(Rewritten { told: services.collect(), text: original, others: 0 })
}

/// The text before it was injected; nothing, where it was not, or was edited since.
fn restored(text: &str) -> Result<Option<String>, Failed> {
    let documents = text::documents(text)?;
    let (_, root) = file(text, &documents)?;
    let record = root.get(UNDO).map(Node::value);
    let undo =
        record.as_ref().and_then(Value::as_str).and_then(|json| serde_json::from_str::<Undo>(json).ok());
    Ok(undo.and_then(|undo| undo.restore(text)))
}

/// The one document of a Compose file.
fn file<'a>(text: &str, documents: &'a [Document]) -> Result<(&'a Document, &'a Node), Fault> {
    match documents {
        [Document { root: Some(root), .. }] if root.get("services").is_some() => Ok((&documents[0], root)),
        [_] => Err(Fault::at(text, 0, "this is no Compose file: it has no services")),
        _ => Err(Fault::at(text, text.len(), "a Compose file is one document")),
    }
}

fn services(root: &Node) -> Vec<(String, &Node)> {
    root.get("services").map(Node::entries).unwrap_or_default()
}

/// What the file is to say; nothing, where it stays as it is.
fn injected(text: &str, root: &Node, images: &Images, told: &mut Vec<Told>) -> Option<Value> {
    let mut file = root.value();
    let mesh = Mesh::read(&file);
    let mut members = vec![];
    for (name, node) in services(root) {
        let wish = Wish::read(&name, &node.value());
        let (outcome, warnings) = match (&mesh, wish) {
            (Err(problems), _) if told.is_empty() => (refused("", problems), vec![]),
            (Ok(_), Err(wish::Not::Refused(problems))) => (refused(&name, &problems), vec![]),
            (_, Err(wish::Not::Skipped(reason, message))) => {
                (Outcome::Skipped { reason: reason.into(), message }, vec![])
            }
            (_, Ok(wish)) => {
                let warnings = wish.warnings();
                members.push(wish);
                (Outcome::Injected, warnings)
            }
            (Err(_), Err(_)) => continue,
        };
        let line = Fault::at(text, node.range.start, "").line;
        told.push(Told { line, kind: "service".into(), namespace: String::new(), name, outcome, warnings });
    }
    let refused = told.iter().any(|told| matches!(told.outcome, Outcome::Refused { .. }));
    let mesh = mesh.ok()?;
    if refused || members.is_empty() {
        return None;
    }
    add(&mut file, &mesh, &members, images);
    Some(file)
}

fn refused(service: &str, problems: &[Refusal]) -> Outcome {
    let at = |problem: &Refusal| Refusal {
        pointer: if service.is_empty() {
            problem.pointer.clone()
        } else {
            format!("/services/{service}{}", problem.pointer)
        },
        code: problem.code.clone(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    };
    Outcome::Refused { problems: problems.iter().map(at).collect() }
}

fn add(file: &mut Value, mesh: &Mesh, members: &[Wish], images: &Images) {
    let Some(file) = file.as_object_mut() else { return };
    if let Some(services) = file.get_mut("services").and_then(Value::as_object_mut) {
        for member in members {
            if let Some(service) = services.get_mut(&member.name).and_then(Value::as_object_mut) {
                wait_for_sidecars(service, members);
            }
        }
        services.insert(parts::CONTROL.into(), parts::control(mesh, members, images));
        services.insert(parts::SETUP.into(), parts::setup(mesh, members, images));
        for member in members {
            services.insert(parts::init_name(member), parts::init(member, images));
            services.insert(parts::proxy_name(member), parts::proxy(mesh, member, images));
        }
    }
    let volumes = file.entry("volumes").or_insert(Value::Null);
    if volumes.is_null() {
        *volumes = Value::Object(Map::new());
    }
    if let Some(volumes) = volumes.as_object_mut() {
        volumes.insert(parts::CONTROL.into(), Value::Object(Map::new()));
        for member in members {
            volumes.insert(parts::proxy_name(member), Value::Object(Map::new()));
        }
    }
}

/// A service that depends on another begins when the other's sidecar serves, and ends before it.
fn wait_for_sidecars(service: &mut Map<String, Value>, members: &[Wish]) {
    let before: Map<String, Value> = match service.get("depends_on") {
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(|name| {
                Some((name.as_str()?.to_owned(), serde_json::json!({"condition": "service_started"})))
            })
            .collect(),
        Some(Value::Object(map)) => map.clone(),
        _ => return,
    };
    let mut after = before.clone();
    for member in members.iter().filter(|member| before.contains_key(&member.name)) {
        let mut wanted = serde_json::json!({"condition": "service_healthy"});
        // Who can do without the other can do without its sidecar.
        if let (Some(required), Some(wanted)) =
            (before.get(&member.name).and_then(|on| on.get("required")), wanted.as_object_mut())
        {
            wanted.insert("required".into(), required.clone());
        }
        after.insert(parts::proxy_name(member), wanted);
    }
    if after.len() > before.len() {
        service.insert("depends_on".into(), Value::Object(after));
    }
}

/// The changed text, with the record of the change; proven.
fn written(text: &str, document: &Document, root: &Node, mut new: Value) -> Result<String, Failed> {
    if let Some(new) = new.as_object_mut() {
        new.shift_remove(UNDO);
        new.insert(UNDO.into(), PLACEHOLDER.into());
    }
    let mut splices = text::edit(text, document, root, &new)?;
    let record = text::record(text, 0, text.len(), &mut splices);
    if let Some(slot) = new.get_mut(UNDO) {
        *slot = record.into();
    }
    let unequal =
        || Failed::Unequal { line: 1, object: "Compose file".into(), unended: !text.ends_with('\n') };
    let done = text::apply(text, &splices).ok_or_else(unequal)?;
    let read = text::documents(&done).map_err(|_| unequal())?;
    match read.as_slice() {
        [Document { root: Some(root), .. }] if root.value() == new => Ok(done),
        _ => Err(unequal()),
    }
}
