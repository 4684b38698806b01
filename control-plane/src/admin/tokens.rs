//! Tokens of this API: made, told once, listed without their secrets, revoked. And who one is.

use axum::Json as JsonBody;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outrigger_mesh::Label;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::caller::Caller;
use super::{Api, ApiError};
use crate::spec;
use crate::users::book::{self, Card};
use crate::users::{Grant, Namespaces, Role};

/// What token is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    name: String,
    role: String,
    /// The whole mesh, unless some are named.
    namespaces: Option<Vec<String>>,
    /// `720h` (30 days) unless said, `8760h` at most.
    ttl: Option<spec::Duration>,
}

pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    body: String,
) -> Result<Response, ApiError> {
    let bad = |detail: String| ApiError::new(StatusCode::BAD_REQUEST, detail);
    let wanted: Wanted = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
    let name = Label::new(&wanted.name).map_err(|e| bad(format!("name: {e}")))?;
    let role: Role = wanted.role.parse().map_err(bad)?;
    let namespaces = match wanted.namespaces {
        None => Namespaces::All,
        Some(names) => {
            let names: Result<_, _> = names.iter().map(|name| Label::new(name)).collect();
            Namespaces::Only(names.map_err(|e| bad(format!("namespaces: {e}")))?)
        }
    };
    let grant = Grant::new(role, namespaces).map_err(bad)?;
    let ttl = wanted.ttl.map_or(TTL, spec::Duration::get);
    if ttl > MAX_TTL {
        return Err(bad("a token of this API lives 8760h (a year) at most".into()));
    }
    let (token, card) =
        book::create(api.state.store(), api.state.root(), name, grant, ttl, &caller.author).await?;
    let mut answer = to_json(&card, OffsetDateTime::now_utc());
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("token".into(), token.expose().as_str().into());
    }
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, no_store, JsonBody(answer)).into_response())
}

pub(super) async fn list(State(api): State<Api>, _: Caller) -> Result<JsonBody<Json>, ApiError> {
    let now = OffsetDateTime::now_utc();
    let cards = book::list(api.state.store()).await?;
    Ok(JsonBody(json!({ "items": cards.iter().map(|card| to_json(card, now)).collect::<Vec<_>>() })))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<JsonBody<Json>, ApiError> {
    let revoked =
        if is_an_id(&id) { book::revoke(api.state.store(), &id, &caller.author).await? } else { None };
    let card = revoked.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "there is no token of that id"))?;
    Ok(JsonBody(to_json(&card, OffsetDateTime::now_utc())))
}

/// Whoever sends a token in the place of its id has it neither looked up nor told back.
fn is_an_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(super) async fn whoami(caller: Caller) -> JsonBody<Json> {
    JsonBody(caller.to_json())
}

/// A moment as it is told.
pub(super) fn moment(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

fn to_json(card: &Card, now: OffsetDateTime) -> Json {
    let state = match card.revoked {
        Some(_) => "revoked",
        None if card.is_live(now) => "live",
        None => "expired",
    };
    json!({
        "id": card.id,
        "name": card.name.as_str(),
        "role": card.grant.role().as_str(),
        "namespaces": card.grant.bound_to().map(|some| some.iter().map(Label::as_str).collect::<Vec<_>>()),
        "state": state,
        "createdBy": card.created_by,
        "created": moment(card.created),
        "expires": moment(card.expires),
        "revoked": card.revoked.map(moment),
        "lastUsed": card.last_used.map(moment),
    })
}

const TTL: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);
const MAX_TTL: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);
