//! What was done to each workload, and why.

use serde::Serialize;

use crate::{Problem, Warning};

/// A rewritten stream.
#[derive(Debug)]
pub struct Rewritten {
    /// The text.
    pub text: String,
    /// What was done to each workload, in order.
    pub told: Vec<Told>,
    /// How many objects are no workloads and stay as they are.
    pub others: usize,
}

impl Rewritten {
    /// Whether something is refused, so that the text is not to be used.
    pub fn is_refused(&self) -> bool {
        self.told.iter().any(|told| matches!(told.outcome, Outcome::Refused { .. }))
    }
}

/// What was done to one workload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The line where it begins, from 1.
    pub line: usize,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    #[serde(flatten)]
    /// What was done.
    pub outcome: Outcome,
    /// What its author should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warned>,
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// It is a member now.
    Injected,
    /// It is as it was before it became one.
    Uninjected,
    /// It was so already.
    Unchanged,
    /// It is left as it is.
    Skipped {
        /// The kind of reason, for machines.
        reason: String,
        /// In words.
        message: String,
    },
    /// It can not be done, for these reasons.
    Refused {
        /// All of them.
        problems: Vec<Refusal>,
    },
}

/// A reason to refuse.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// Where, as a JSON pointer into the object.
    pub pointer: String,
    /// What kind of mistake, for machines.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What an author should know.
#[derive(Debug, Serialize)]
pub struct Warned {
    /// What kind, for machines.
    pub code: String,
    /// In words.
    pub message: String,
}

impl Refusal {
    /// Of a mistake in the pod that is at `pod` of its object.
    pub(super) fn of(problem: &Problem, pod: &str) -> Self {
        let inner = problem.pointer.starts_with('/');
        Self {
            pointer: if inner { format!("{pod}{}", problem.pointer) } else { problem.pointer.clone() },
            code: problem.code.to_owned(),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl Warned {
    pub(super) fn of(warning: &Warning) -> Self {
        Self { code: warning.code.to_owned(), message: warning.message.clone() }
    }
}
