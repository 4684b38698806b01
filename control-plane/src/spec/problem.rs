//! What is wrong with something a person wrote, told so that they can mend it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One mistake, or one thing worth a second look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The file it is in, as the reader of the file named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its line, counted from 1, where the text is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Its column, counted from 1 in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Where in the document it is, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What sort of mistake it is.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// How it may be mended, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether it stops the change.
    pub severity: Severity,
}

impl Problem {
    /// A mistake at `pointer`.
    pub fn error(pointer: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self {
            file: None,
            line: None,
            column: None,
            pointer: pointer.into(),
            code,
            message: message.into(),
            hint: None,
            severity: Severity::Error,
        }
    }

    /// Something at `pointer` that is allowed, but probably not meant.
    pub fn warning(pointer: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(pointer, code, message) }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, below `prefix` in a larger document.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for Problem {
    /// One line: `shop.yaml:12:5: error: … (/spec/ports/0/prot); did you mean "port"?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}:")?;
        }
        if self.file.is_some() || self.line.is_some() {
            f.write_str(" ")?;
        }
        write!(f, "{}: {}", self.severity, self.message)?;
        if !self.pointer.is_empty() {
            write!(f, " (at {})", self.pointer)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Whether a problem stops a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// The sort of a mistake. The written form is part of the API and does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The text is neither YAML nor JSON.
    Syntax,
    /// It is larger or deeper than is read.
    TooLarge,
    /// A kind or version of resource that does not exist here.
    UnknownKind,
    /// A field that does not exist.
    UnknownField,
    /// A field that must be there and is not.
    MissingField,
    /// A value of the wrong type.
    WrongType,
    /// A value that breaks its rule.
    BadValue,
    /// The same thing twice.
    Duplicate,
    /// Something real that this version can not do yet. It is refused, never ignored.
    Unsupported,
    /// It names something that does not exist.
    Reference,
    /// Two values that can not both hold.
    Contradiction,
    /// Something that belongs to another resource.
    Conflict,
    /// A rule that no request can reach.
    Unreachable,
    /// A rule that sends its requests nowhere.
    NoTraffic,
    /// A code of a newer version.
    #[serde(other)]
    Other,
}
