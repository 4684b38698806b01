//! Steps of a JSON patch (RFC 6902).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One step of a JSON patch; `path` is a JSON pointer (RFC 6901), with `~1` for `/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Adds a member, or inserts into a list before the element of that number (`-`: at its end).
    Add {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Puts a value in place of the one that is there.
    Replace {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Takes away what is there.
    Remove {
        /// Where.
        path: String,
    },
}
