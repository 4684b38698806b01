//! What this control plane logs, and for how long.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Api, ApiError, Caller};
use crate::audit::AuditEntry;
use crate::spec;
use crate::store::{CommitError, Transaction};
use outrigger_process::level::{LogLevel, USUAL};

/// What is to be logged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or a list such as `info,outrigger_control=debug`.
    filter: String,
    /// For how long: `10m` unless said, `24h` at most. After it the filter of the start is in force again.
    #[serde(rename = "for")]
    lasting: Option<spec::Duration>,
}

/// `GET /v1/log-level`: what is in force, and for how long.
pub(super) async fn read(State(api): State<Api>) -> Result<JsonBody<Json>, ApiError> {
    Ok(JsonBody(level(&api)?.told()))
}

/// `PUT /v1/log-level`: another filter, for a time.
pub(super) async fn write(
    State(api): State<Api>,
    caller: Caller,
    body: String,
) -> Result<JsonBody<Json>, ApiError> {
    let bad = |why: String| ApiError::new(StatusCode::BAD_REQUEST, why);
    let wanted: Wanted = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
    let level = level(&api)?;
    let author = caller.author;
    level.change(&wanted.filter, wanted.lasting.map_or(USUAL, spec::Duration::get)).map_err(bad)?;
    let audit = vec![AuditEntry::new(&author, "set-log-level", format!("log {}", wanted.filter))];
    let noted = api.state.store().commit(Transaction { author, writes: vec![], audit }).await;
    if let Err(CommitError::Store(e)) = noted {
        // What nobody can read about later is not done.
        let _as_well_as_it_goes = level.reset();
        return Err(e.into());
    }
    Ok(JsonBody(level.told()))
}

fn level(api: &Api) -> Result<Arc<LogLevel>, ApiError> {
    let none = || ApiError::new(StatusCode::NOT_FOUND, "what this process logs can not be changed");
    api.observed.log_level().ok_or_else(none)
}
