//! The past of the configuration: its revisions, what differs between them, and the way back.

use axum::Json as JsonBody;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::facts::Page;
use super::writes::{WriteOptions, not_a_revision};
use super::{Api, ApiError, Caller};
use crate::history::{self, Changed, PastError, difference};
use crate::spec::Key;
use crate::state::{ApplyError, How};
use crate::store::Revision;

pub(super) async fn revisions(
    State(api): State<Api>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<JsonBody<Json>, ApiError> {
    let all = api.state.store().revisions(page.before, page.limit()).await?;
    let items: Vec<Revision> = all.into_iter().filter_map(|revision| seen(revision, &caller)).collect();
    Ok(JsonBody(json!({ "revision": api.state.world().revision(), "items": items })))
}

pub(super) async fn revision(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<u64>,
) -> Result<JsonBody<Json>, ApiError> {
    let kept = api.state.store().revision(number).await?;
    if let Some(revision) = kept.and_then(|revision| seen(revision, &caller)) {
        return Ok(JsonBody(json!(revision)));
    }
    let detail = format!("revision {number} is not kept, or was never made; the last 1,000 are");
    Err(ApiError::new(StatusCode::NOT_FOUND, detail))
}

/// `GET /v1/revisions/{from}/diff/{to}`: every object that differs, with the fields in which it does.
pub(super) async fn diff(
    State(api): State<Api>,
    caller: Caller,
    Path((from, to)): Path<(String, String)>,
) -> Result<JsonBody<Json>, ApiError> {
    let now = api.state.world().revision();
    let number = |given: &str| match given {
        "now" => Ok(now),
        given => given.parse::<u64>().map_err(|_| not_a_revision(given)),
    };
    let (from, to) = (number(&from)?, number(&to)?);
    let mut changed = history::between(api.state.store(), from, to).await?;
    changed.retain(|changed| caller.covers(namespace(&changed.path)));
    let changes: Vec<Json> = changed.iter().map(told).collect();
    Ok(JsonBody(json!({ "from": from, "to": to, "changes": changes })))
}

fn told(changed: &Changed) -> Json {
    let action = match (&changed.before, &changed.after) {
        (None, _) => "created",
        (_, None) => "deleted",
        (Some(_), Some(_)) => "updated",
    };
    let fields = difference(changed.before.as_ref(), changed.after.as_ref());
    json!({ "object": changed.path, "action": action, "fields": fields })
}

/// Where to go back to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    /// The revision whose configuration is wanted again.
    to: u64,
}

/// `POST /v1/rollback`: one change, and one revision, that makes the configuration what it was at an earlier one.
pub(super) async fn rollback(
    State(api): State<Api>,
    caller: Caller,
    Query(options): Query<WriteOptions>,
    body: String,
) -> Result<JsonBody<Json>, ApiError> {
    let bad =
        |e: serde_json::Error| ApiError::new(StatusCode::BAD_REQUEST, format!("{e}; write {{\"to\": 17}}"));
    let Back { to } = serde_json::from_str(&body).map_err(bad)?;
    let world = api.state.world();
    if to >= world.revision() {
        let detail = format!("the configuration is at revision {}: choose one before it", world.revision());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let changed = history::between(api.state.store(), to, world.revision()).await?;
    let way = history::undo(&world, changed).map_err(|problems| ApiError::refused(&problems))?;
    caller.may_write(&way.writes)?;
    let keys: Vec<Key> = way.writes.iter().map(crate::state::Write::key).collect();
    let mut author = caller.author.clone();
    let said = author.why.take().map(|why| format!(": {why}")).unwrap_or_default();
    author.why = Some(format!("rollback to revision {to}{said}"));
    // What led nowhere then may do so again: it was in force.
    let how = How { dangling: true, only_at: Some(world.revision()), ..options.how() };
    let applied = api.state.apply_as(way.writes, &author, how).await;
    let applied = applied.map_err(|e: ApplyError| ApiError::from(e).of(&keys))?;
    let mut answer = options.answer(&api, &caller, applied).await;
    if let Some(fields) = answer.as_object_mut() {
        let stays = way.stays.iter().filter(|key| caller.covers(key.namespace.as_str()));
        fields.insert("to".into(), to.into());
        fields.insert("stays".into(), stays.map(|key| Json::from(key.path())).collect());
    }
    Ok(JsonBody(answer))
}

/// A revision as `caller` may see it: what was changed in other namespaces is none of his business. `None` when that is
/// all of it.
fn seen(mut revision: Revision, caller: &Caller) -> Option<Revision> {
    let all = revision.changes.len();
    revision.changes.retain(|change| caller.covers(namespace(&change.key)));
    (all == 0 || !revision.changes.is_empty()).then_some(revision)
}

/// The namespace of an object's path.
fn namespace(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

impl From<PastError> for ApiError {
    fn from(e: PastError) -> Self {
        match e {
            PastError::NotKept { .. } => Self::new(StatusCode::NOT_FOUND, e.to_string()),
            PastError::Store(e) => e.into(),
        }
    }
}
