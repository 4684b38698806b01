//! How a change is to be made, and what is answered to one: the same wherever objects are written.

use std::time::Duration;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Acknowledged, Api, ApiError, Caller};
use crate::spec;
use crate::state::{Applied, How};

/// How the change is to be made.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WriteOptions {
    /// Check and tell, change nothing.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// `allow`: routes may refer to what is not there, or not granted.
    dangling: Option<Dangling>,
    /// `applied`: answer when every connected sidecar has acknowledged the change.
    wait: Option<Wait>,
    /// How long to wait for that, `10s` unless said, `10m` at most.
    timeout: Option<spec::Duration>,
}

/// What is allowed beyond the usual.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Dangling {
    Allow,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Wait {
    Applied,
}

impl WriteOptions {
    pub(super) fn how(&self) -> How {
        How { dry_run: self.dry_run, dangling: self.dangling.is_some(), only_at: None }
    }

    /// What the change did, once it was waited for as it was asked for; of a dry run, what it would mean.
    pub(super) async fn answer(&self, api: &Api, caller: &Caller, applied: Applied) -> Json {
        let mut answer = summary(&applied);
        let more = match applied.foreseen {
            Some(foreseen) => {
                add_differences(&mut answer, &foreseen.differences);
                let mut affected = api.observed.affected(foreseen.resources);
                affected.retain(|proxy| caller.covers(super::facts::namespace_of_identity(proxy)));
                Some(("affected", json!(affected)))
            }
            None => self.waited(api, applied.revision).await.map(|told| ("wait", told)),
        };
        if let (Some((name, value)), Some(fields)) = (more, answer.as_object_mut()) {
            fields.insert(name.into(), value);
        }
        answer
    }

    /// Whether the answer waits for sidecars, and then tells of them.
    pub(super) fn waits(&self) -> bool {
        self.wait.is_some()
    }

    async fn waited(&self, api: &Api, revision: u64) -> Option<Json> {
        self.wait?;
        let timeout = self.timeout.map_or(WAIT, spec::Duration::get).min(MAX_WAIT);
        Some(told(&api.observed.acknowledged(revision, timeout).await))
    }
}

fn told(acknowledged: &Acknowledged) -> Json {
    let missing = acknowledged.missing.iter();
    json!({
        "acknowledged": acknowledged.acknowledged,
        "proxies": acknowledged.proxies,
        "missing": missing.map(|(proxy, reason)| json!({ "proxy": proxy, "reason": reason })).collect::<Vec<_>>(),
    })
}

/// What a change did, in the form of every answer to a write.
fn summary(applied: &Applied) -> Json {
    let changes = applied.changes.iter();
    json!({
        "revision": applied.revision,
        "generation": applied.generation,
        "changes": changes.map(|c| json!({ "object": c.key.path(), "action": c.action })).collect::<Vec<_>>(),
        "warnings": applied.warnings,
    })
}

fn add_differences(answer: &mut Json, differences: &[Vec<crate::history::FieldChange>]) {
    let changes = answer.get_mut("changes").and_then(Json::as_array_mut);
    for (change, fields) in changes.into_iter().flatten().zip(differences) {
        if let Some(change) = change.as_object_mut() {
            change.insert("fields".into(), json!(fields));
        }
    }
}

/// The refusal of a number that is none of a revision.
pub(super) fn not_a_revision(given: &str) -> ApiError {
    let detail = format!("{given} is not the number of a revision; GET /v1/revisions lists them");
    ApiError::new(StatusCode::BAD_REQUEST, detail)
}

const WAIT: Duration = Duration::from_secs(10);
const MAX_WAIT: Duration = Duration::from_secs(600);
