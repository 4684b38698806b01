//! A backup of everything that is kept, for whoever may be everybody.

use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use time::OffsetDateTime;

use super::caller::Caller;
use super::{Api, ApiError};
use crate::audit::AuditEntry;
use crate::backup;
use crate::store::{CommitError, StoreError, Transaction};

/// What is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// With the keys of the mesh.
    #[serde(default)]
    keys: bool,
}

/// `GET /v1/backup`: all of it, as of one moment. That somebody took one is in the audit log, before he has it.
pub(super) async fn backup(
    State(api): State<Api>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let store = api.state.store();
    match (note(&api, &caller, wanted.keys).await, wanted.keys) {
        (Ok(()), _) => {}
        (Err(e), true) => return Err(e.into()),
        // When the disk is full is when one is wanted.
        (Err(error), false) => tracing::warn!(%error, "that a backup was taken is not in the audit log"),
    }
    let image = backup::of(store.image().await?, wanted.keys);
    let domain = api.state.world().trust_domain().clone();
    let text = backup::write(&image, &domain, wanted.keys, OffsetDateTime::now_utc());
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(TYPE))], text).into_response())
}

async fn note(api: &Api, caller: &Caller, keys: bool) -> Result<(), StoreError> {
    let author = caller.author.clone();
    let what = if keys { "the mesh, with its keys" } else { "the mesh" };
    let audit = vec![AuditEntry::new(&author, "backup", what)];
    match api.state.store().commit(Transaction { author, writes: vec![], audit }).await {
        Err(CommitError::Store(e)) => Err(e),
        // There is nothing to conflict with.
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
    }
}

/// What it is sent as.
pub(super) const TYPE: &str = "text/plain";
