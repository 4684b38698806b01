//! Methods as labels: those that the conventions know, and `_OTHER` for whatever else somebody thinks of.

use http::Method;

/// A method that a label may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MethodClass(u8);

impl MethodClass {
    /// The class of `method`.
    pub fn of(method: &Method) -> Self {
        Self(match *method {
            Method::GET => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::PATCH => 4,
            Method::DELETE => 5,
            Method::HEAD => 6,
            Method::OPTIONS => 7,
            Method::CONNECT => 8,
            Method::TRACE => 9,
            _ => 0,
        })
    }

    /// Its number, below 16.
    pub(super) fn number(self) -> u32 {
        self.0.into()
    }

    /// The word for a number.
    pub(super) fn word(number: u32) -> &'static str {
        usize::try_from(number).ok().and_then(|at| WORDS.get(at)).copied().unwrap_or(WORDS[0])
    }
}

const WORDS: [&str; 10] =
    ["_OTHER", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
