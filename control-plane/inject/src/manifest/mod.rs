//! Streams of Kubernetes manifests: what is in them is made a member of the mesh, and taken back, without anything else moving.
//!
//! `workload` knows where the pod of each kind is, `patch` carries a pod's patch out on its value, `inject` and `uninject` do
//! it on the text, `check` looks at the pods of a cluster. Whether a pod becomes a member, and how, is `decide`'s to say.

mod check;
mod inject;
mod patch;
mod report;
mod uninject;
mod workload;

pub use check::{Checked, Finding, check};
pub use inject::{Options, inject};
pub use report::{Outcome, Refusal, Rewritten, Told, Warned};
pub use uninject::uninject;

pub use crate::text::Fault;

/// The annotation of an object that takes what `outrigger inject` did to its text back.
pub const UNDO: &str = "outrigger.dev/undo";

/// Why a stream is not rewritten. Nothing of it is.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The text can not be read, or not be edited.
    #[error(transparent)]
    Text(#[from] Fault),
    /// The edited text does not say what it should: a mistake of ours.
    #[error(
        "line {line}: the edited {object} does not say what it should{}; nothing was written",
        if *.unended { ": end the file with a line break and try again" } else { ", which is a mistake of this program: please report it" }
    )]
    Unequal {
        /// The line of the object.
        line: usize,
        /// The object.
        object: String,
        /// Whether the text has no line break at its end, which text of several lines (`|`) can not do without when
        /// something follows.
        unended: bool,
    },
}

/// The objects of a text, YAML or JSON, of several documents; those of a list one by one.
pub fn values(text: &str) -> Result<Vec<serde_json::Value>, Fault> {
    let documents = crate::text::documents(text)?;
    let all = documents.iter().filter_map(|document| document.root.as_ref()).map(crate::text::Node::value);
    let each = |mut value: serde_json::Value| match value.get_mut("items").map(serde_json::Value::take) {
        Some(serde_json::Value::Array(items)) => items,
        // What has something else there is no list; of that nothing is looked at.
        _ => vec![value],
    };
    Ok(all.flat_map(each).collect())
}

/// The one value of a text, YAML or JSON; null, where it is empty.
pub fn value(text: &str) -> Result<serde_json::Value, Fault> {
    let documents = crate::text::documents(text)?;
    match documents.as_slice() {
        [] => Ok(serde_json::Value::Null),
        [one] => Ok(one.root.as_ref().map(crate::text::Node::value).unwrap_or_default()),
        _ => Err(Fault::at(text, text.len(), "one document is wanted, not several")),
    }
}
