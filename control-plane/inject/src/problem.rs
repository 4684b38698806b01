//! Mistakes of whoever wrote something, with the place and what to do.

use std::fmt;

/// A mistake in what somebody wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a JSON pointer into the object, or the name of a setting.
    pub pointer: String,
    /// What kind of mistake, for machines.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write in its place.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}
