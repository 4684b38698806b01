//! What is known of one connected sidecar, for people.

use outrigger_mesh::ResourceKind;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;
use time::OffsetDateTime;

/// A connected sidecar.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// Its name, one for every process.
    pub node: String,
    /// Its proven identity.
    pub identity: String,
    /// The service it stands beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The instance it registers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its version.
    pub version: String,
    /// Why that differs from ours in a way that matters: features it lacks, or another version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew: Option<String>,
    /// From where it is connected.
    pub from: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub connected_since: OffsetDateTime,
    /// How many selectors it has subscribed to.
    pub subscriptions: usize,
    /// The revision up to which it has answered everything it subscribed to.
    pub acked_revision: u64,
    /// What it refused. The last good version of each stays in force there.
    pub rejected: Vec<RejectedResource>,
}

/// A resource that a sidecar refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RejectedResource {
    /// Its kind.
    #[serde(serialize_with = "kind_word")]
    #[schemars(with = "String")]
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
    /// The version that was refused.
    pub version: String,
    /// Why.
    pub reason: String,
}

impl ProxyStatus {
    /// As the admin API tells it.
    pub fn to_json(&self) -> Json {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn kind_word<S: serde::Serializer>(kind: &ResourceKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind.as_str())
}
