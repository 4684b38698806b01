//! What an operator says of leases that are held back.

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Api, ApiError, Caller};
use crate::audit::AuditEntry;
use crate::store::{CommitError, Transaction};

/// There is nothing to add.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirm {}

/// What is held back is gone indeed.
pub(super) async fn confirm(
    State(api): State<Api>,
    caller: Caller,
    body: String,
) -> Result<JsonBody<Json>, ApiError> {
    let Confirm {} =
        serde_json::from_str(&body).map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e.to_string()))?;
    let Some(held) = api.observed.held_back() else {
        return Err(ApiError::new(StatusCode::CONFLICT, "no leases are held back"));
    };
    let author = caller.author;
    let audit = vec![AuditEntry::new(&author, "confirm-loss", format!("{} leases", held.instances))];
    let noted = api.state.store().commit(Transaction { author, writes: vec![], audit }).await;
    if let Err(CommitError::Store(e)) = noted {
        return Err(e.into());
    }
    let confirmed = api.observed.confirm_loss();
    Ok(JsonBody(json!({ "confirmed": confirmed, "instances": held.instances, "of": held.of })))
}
