//! Changes as they are made, as server-sent events (the HTML standard, section 9.2).
//!
//! One event is one commit. Its id is the count after it, so that a client that was cut off goes on from there
//! (`Last-Event-ID`). A watch costs a connection of those there are (`listen`), and ends with it; a client that reads slowly
//! delays nobody, it is told that what it wanted is gone.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Api, ApiError, Caller};
use crate::store::{Change, Compacted, Record, Space, Watch};

/// What is watched.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Changes after this count; those from now on unless said.
    since: Option<u64>,
    /// `config` unless said.
    #[serde(default)]
    of: Of,
}

/// Which changes: the two are counted apart.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Of {
    /// What people write, counted as revisions.
    #[default]
    Config,
    /// Instances that come and go, counted as generations.
    Instances,
}

/// `GET /v1/watch`.
pub(super) async fn watch(
    State(api): State<Api>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let world = api.state.world();
    let (space, now) = match wanted.of {
        Of::Config => (Space::Config, world.revision()),
        Of::Instances => (Space::Instances, world.generation()),
    };
    // Of a client that comes back, this is the later one.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let since = last.or(wanted.since).unwrap_or(now);
    let mut watch = api.state.store().watch(space, since);
    // Whether it is kept is known at once, and an answer says it better than an event.
    let first = match tokio::time::timeout(Duration::ZERO, watch.next()).await {
        Ok(Ok(change)) => Some(event(&change, &caller)),
        Ok(Err(Compacted { after })) => return Err(gone(after, now)),
        Err(_nothing_yet) => None,
    };
    let hello = format!("retry: {}\n\n{}", RETRY.as_millis(), first.unwrap_or_default());
    let events = stream::unfold((Some(hello), watch, caller), next);
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
    Ok((headers, Body::from_stream(events)).into_response())
}

type At = (Option<String>, Watch, Caller);

async fn next((hello, mut watch, caller): At) -> Option<(Result<String, std::convert::Infallible>, At)> {
    if let Some(hello) = hello {
        return Some((Ok(hello), (None, watch, caller)));
    }
    let text = match tokio::time::timeout(BEAT, watch.next()).await {
        Ok(Ok(change)) => event(&change, &caller),
        // The connection ends: who comes back with its last id is told what to do.
        Ok(Err(Compacted { .. })) => return None,
        Err(_nothing) => ":\n\n".to_owned(),
    };
    Some((Ok(text), (None, watch, caller)))
}

/// One commit. Of what is none of the caller's business only the count is told.
fn event(change: &Arc<Change>, caller: &Caller) -> String {
    let covered = change.records.iter().filter(|(key, _)| {
        let namespace = key.split('/').nth(1).unwrap_or_default();
        caller.covers(namespace)
    });
    let changes: Vec<Json> = covered.map(|(key, record)| told(key, record.as_ref())).collect();
    let data = json!({ "position": change.position, "changes": changes });
    let mut event = String::new();
    // Writing to a String can not fail; JSON has no line breaks.
    let _ = write!(event, "id: {}\nevent: change\ndata: {data}\n\n", change.position);
    event
}

fn told(key: &str, record: Option<&Record>) -> Json {
    let Some(record) = record else { return json!({ "object": key, "action": "deleted" }) };
    let mut object = record.value.clone();
    if let Some(fields) = object.as_object_mut() {
        // What the control plane keeps beside it; GET tells it in full.
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Json::as_object_mut) {
            metadata.insert("resourceVersion".into(), record.changed.to_string().into());
        }
    }
    let action = if record.created == record.changed { "created" } else { "updated" };
    json!({ "object": key, "action": action, "resource": object })
}

fn gone(after: u64, now: u64) -> ApiError {
    let detail =
        format!("the changes after {after} are not kept, or were not made yet: list, then watch from {now}");
    ApiError::new(StatusCode::GONE, detail).with("position", now.into())
}

/// So often something is sent, so that neither side takes a quiet watch for a broken one.
const BEAT: Duration = Duration::from_secs(10);
/// How long a client waits before it comes back.
const RETRY: Duration = Duration::from_secs(1);
