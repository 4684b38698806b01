//! What an operator says of leases that are held back.

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value as Json, json};

use super::{Api, ApiError, Caller};
use crate::audit::AuditEntry;
use crate::store::{CommitError, Transaction};

/// What is held back is gone indeed.
pub(super) async fn confirm(State(api): State<Api>, caller: Caller) -> Result<JsonBody<Json>, ApiError> {
    let Some(held) = api.observed.held_back() else {
        return Err(ApiError::new(StatusCode::CONFLICT, "no leases are held back"));
    };
    let author = caller.author;
    let audit = vec![AuditEntry::new(&author, "confirm-loss", format!("{} leases", held.instances))];
    if let Err(CommitError::Store(e)) =
        api.state.store().commit(Transaction { author, writes: vec![], audit }).await
    {
        return Err(e.into());
    }
    Ok(JsonBody(
        json!({ "confirmed": api.observed.confirm_loss(), "instances": held.instances, "of": held.of }),
    ))
}
