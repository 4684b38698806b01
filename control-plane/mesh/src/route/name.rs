//! The names of rules.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::InvalidName;

/// The name of one rule of a route object: `namespace/route/index`. It labels metrics and keys live state.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

impl RouteName {
    /// Proves `text` to be the name of a route: 1 to 300 visible ASCII characters.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 300 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidName::new(
                "a route's name",
                text,
                "it must be 1 to 300 visible ASCII characters",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RouteName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}
