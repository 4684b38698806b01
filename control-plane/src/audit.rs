//! Who changed what, when, from where and why.

use outrigger_mesh::SpiffeId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Whoever asks for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Who it is: a workload's identity, or a user of the admin API.
    pub who: String,
    /// From where: an address.
    pub from: String,
    /// Why, where a reason was given.
    pub why: Option<String>,
    /// The workload it is, where one proved itself.
    pub identity: Option<SpiffeId>,
}

impl Author {
    /// The control plane itself.
    pub fn system(why: &str) -> Self {
        Self { why: Some(why.into()), ..Self::new("outrigger-control", "itself") }
    }

    /// `who`, from the address `from`.
    pub fn new(who: impl Into<String>, from: impl Into<String>) -> Self {
        Self { who: who.into(), from: from.into(), why: None, identity: None }
    }

    /// The workload that proved to be `identity`, from the address `from`.
    pub fn workload(identity: &SpiffeId, from: impl std::fmt::Display) -> Self {
        Self { identity: Some(identity.clone()), ..Self::new(identity.to_string(), format!("{from}")) }
    }
}

/// One line of the audit log. It is written in the transaction of the change it tells of, so neither is there without
/// the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
    /// Who.
    pub who: String,
    /// From where.
    pub from: String,
    /// What was done: `create`, `update`, `delete`, `register`, `withdraw`, `expire`, `create-token`, `use-token`.
    pub action: String,
    /// To what.
    pub object: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl AuditEntry {
    /// `author` did `action` to `object`, now.
    pub fn new(author: &Author, action: &str, object: impl std::fmt::Display) -> Self {
        Self {
            at: OffsetDateTime::now_utc(),
            who: author.who.clone(),
            from: author.from.clone(),
            action: action.to_owned(),
            object: object.to_string(),
            why: author.why.clone(),
        }
    }
}
