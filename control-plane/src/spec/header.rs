//! The name of a header, read and written as text.

use std::fmt;

use super::written::as_text;

/// The name of a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName(http::HeaderName);

impl HeaderName {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = http::HeaderName::from_bytes(text.as_bytes());
        name.map(Self).map_err(|_| format!("{text:?} is not the name of a header"))
    }

    /// The value.
    pub fn get(&self) -> &http::HeaderName {
        &self.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

as_text!(HeaderName);
