//! YAML and JSON that people wrote, edited so that nothing else moves.
//!
//! `tree` reads a text into values that know which bytes they came from, `edit` finds the bytes to change so that a value
//! says something else, `emit` writes what is new in the manner of what is there, `splice` carries the changes out and keeps
//! what takes them back. What a pod or a service needs is deliberately elsewhere.

mod edit;
mod emit;
mod scalar;
mod splice;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use edit::edit;
pub use scalar::Scalar;
#[cfg(test)]
pub(crate) use splice::undo_of;
pub(crate) use splice::{PLACEHOLDER, Splice, Undo, apply, record};
pub(crate) use tree::{Document, Kind, Node, documents};

/// Why a text is not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Fault {
    /// A fault at this byte of the text.
    pub(crate) fn at(text: &str, byte: usize, message: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Self { line, column, message: message.into() }
    }
}

/// Where the line of this byte ends, before its line break.
pub(crate) fn line_end(text: &str, byte: usize) -> usize {
    let rest = text.get(byte..).unwrap_or("");
    let end = byte + rest.find('\n').unwrap_or(rest.len());
    if text.get(..end).is_some_and(|t| t.ends_with('\r')) && end > byte { end - 1 } else { end }
}

/// Where the line of this byte begins.
pub(crate) fn line_start(text: &str, byte: usize) -> usize {
    text.get(..byte).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1)
}
