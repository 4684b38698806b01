//! How a call to the API server fails. Every text names the server, none a token.

use std::fmt;

/// A call that did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    kind: CallErrorKind,
    place: String,
    detail: String,
}

/// The sorts of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallErrorKind {
    /// Something in the settings or files is wrong.
    Settings,
    /// Nobody answers, or with nonsense: later it may work.
    Away,
    /// The server has too much to do: later it may work.
    Busy,
    /// We may not do that (401, 403).
    Forbidden,
    /// There is no such object, or no such kind.
    NotFound,
    /// Somebody else wrote before, or it is there already.
    Conflict,
    /// What is asked for is forgotten (410): list again.
    Gone,
    /// The server refuses what was sent: a schema or an admission webhook says why.
    Refused,
}

impl CallError {
    pub(super) fn new(kind: CallErrorKind, place: &str, detail: impl fmt::Display) -> Self {
        // One line, and not a long one, whatever a server or a webhook wrote.
        let words = detail.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { kind, place: place.to_owned(), detail: words.chars().take(1_000).collect() }
    }

    /// The sort of it.
    pub fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// Whether the same may work later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, CallErrorKind::Away | CallErrorKind::Busy)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            CallErrorKind::Settings => "can not be asked",
            CallErrorKind::Away => "does not answer as it should",
            CallErrorKind::Busy => "has too much to do",
            CallErrorKind::Forbidden => "does not let the control plane do that",
            CallErrorKind::NotFound => "has no such object",
            CallErrorKind::Conflict => "has another version of it",
            CallErrorKind::Gone => "has forgotten what came before",
            CallErrorKind::Refused => "refuses it",
        };
        write!(f, "the Kubernetes API server {} {what}: {}", self.place, self.detail)
    }
}

impl std::error::Error for CallError {}
