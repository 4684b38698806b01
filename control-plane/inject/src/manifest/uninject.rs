//! Every workload of a stream as it was before it became a member of the mesh.
//!
//! What `inject` wrote is taken back byte for byte, by the record in the annotation. An object that was edited since, or that
//! the webhook injected, is taken back by its structure: what the status annotation names goes, what was replaced comes back.

use std::collections::HashMap;

use serde_json::Value;

use super::inject::written;
use super::report::{Outcome, Rewritten, Told};
use super::workload::{Stream, Workload};
use super::{Failed, UNDO, patch};
use crate::removal;
use crate::text::{self, Fault, Node, Splice, Undo};

/// Takes back what `inject` or the webhook did to every workload of `text`.
pub fn uninject(text: &str) -> Result<Rewritten, Failed> {
    let documents = text::documents(text)?;
    let stream = Stream::of(&documents);
    let (mut whole, mut splices) = (vec![], vec![]);
    let (mut expected, mut told) = (HashMap::new(), vec![]);
    for workload in &stream.workloads {
        let outcome = if let Some(original) = restored(text, workload) {
            let (start, end) = object_range(text, workload.node);
            whole.push(Splice { at: start, gone: end - start, text: original });
            Outcome::Uninjected
        } else {
            match by_structure(&workload.node.value(), workload.pod) {
                Ok(new) => {
                    splices.extend(text::edit(text, workload.document, workload.node, &new)?);
                    expected.insert((workload.number, workload.node.range.start), new);
                    Outcome::Uninjected
                }
                Err(left) => left,
            }
        };
        let line = Fault::at(text, workload.node.range.start, "").line;
        let namespace = workload.namespace.clone().unwrap_or_default();
        let (kind, name) = (workload.kind.clone(), workload.name.clone());
        told.push(Told { line, kind, namespace, name, outcome, warnings: vec![] });
    }
    // First what is by structure, which is proven against what was read; what is by record is proven by its checksum.
    written(text, splices.clone(), &documents, &expected, &stream)?;
    splices.extend(whole);
    splices.sort_by_key(|splice| splice.at);
    let done =
        text::apply(text, &splices).ok_or_else(|| Fault::at(text, 0, "objects lie over each other"))?;
    Ok(Rewritten { text: done, told, others: stream.others })
}

/// The bytes that are an object's own: to the end of its last line, where it is not between brackets.
pub(super) fn object_range(text: &str, node: &Node) -> (usize, usize) {
    let end = if node.is_flow() { node.range.end } else { text::line_end(text, node.range.end) };
    (node.range.start, end)
}

/// The text of an object before it was injected; nothing, where it was not, or was edited since.
pub(super) fn restored(text: &str, workload: &Workload<'_>) -> Option<String> {
    let annotation = workload.node.get("metadata")?.get("annotations")?.get(UNDO)?.value();
    let undo: Undo = serde_json::from_str(annotation.as_str()?).ok()?;
    let (start, end) = object_range(text, workload.node);
    undo.restore(text.get(start..end)?)
}

/// The object without what its status names; the outcome, where there is nothing to take back.
fn by_structure(object: &Value, pod: &str) -> Result<Value, Outcome> {
    let steps = object.pointer(pod).and_then(removal);
    let Some(steps) = steps else {
        let message = "it is no member of the mesh".to_owned();
        return Err(Outcome::Skipped { reason: "not_injected".into(), message });
    };
    let mut new = object.clone();
    if let Some(Err(message)) = new.pointer_mut(pod).map(|pod| patch::apply(pod, &steps)) {
        return Err(Outcome::Skipped { reason: "not_understood".into(), message });
    }
    if let Some(meta) = new.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.shift_remove(UNDO);
        if annotations.is_empty() {
            meta.shift_remove("annotations");
        }
    }
    Ok(new)
}
