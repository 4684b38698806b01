//! Whether a pod becomes a member of the mesh.

use std::fmt;

use serde_json::Value;

use crate::{NamespaceFacts, Operation, Problem, Settings};

/// What becomes of a pod.
#[derive(Debug)]
pub enum Decision {
    /// It becomes a member of the mesh.
    Inject(Injection),
    /// It stays as it is.
    Skip(Skip),
    /// What is written on it or its namespace can not be obeyed. All mistakes.
    Refuse(Vec<Problem>),
}

/// What makes the pod a member.
#[derive(Debug)]
pub struct Injection {
    patch: Vec<Operation>,
    warnings: Vec<Warning>,
}

impl Injection {
    /// The steps, for a pod-shaped object; none when it is so already.
    pub fn patch(&self) -> &[Operation] {
        &self.patch
    }

    /// What its author should know.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// What the author of a pod should know, though it is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What kind, for machines.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Which kind of reason.
    pub reason: SkipReason,
    /// In words, with what was found.
    pub message: String,
}

/// The kinds of reasons to leave a pod as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// Neither it nor its namespace asks for it.
    NotAsked,
}

impl SkipReason {
    /// Its name in metrics, events and reports.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Decides over `pod`, a raw object with metadata and spec: a pod, or the template of one.
pub fn decide(_pod: &Value, _namespace: &NamespaceFacts, _settings: &Settings) -> Decision {
    Decision::Skip(Skip {
        reason: SkipReason::NotAsked,
        message: "neither the pod nor its namespace asks".into(),
    })
}
