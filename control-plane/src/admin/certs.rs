//! The certificate authority: what it signed, how a change of its root goes, and certificates as files.

use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_certs::LeafLifetime;
use outrigger_mesh::{Label, SpiffeId};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Api, ApiError, Caller};
use crate::audit::AuditEntry;
use crate::ca::{Attested, Keeper, NotIssued, NotTurned, Turning, Wanted, Wish};
use crate::spec;

/// The certificate authority, as the API asks it.
#[derive(Clone)]
pub struct Certs {
    /// What is in force.
    pub keeper: Arc<Keeper>,
    /// Who changes it.
    pub turning: Turning,
}

impl Api {
    fn certs(&self) -> Result<&Certs, ApiError> {
        let none = || ApiError::new(StatusCode::NOT_FOUND, "there is no certificate authority here");
        self.certs.as_ref().ok_or_else(none)
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    identity: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(whose): Query<Whose>,
) -> Result<JsonBody<Json>, ApiError> {
    Ok(JsonBody(api.certs()?.keeper.list(whose.identity.as_deref())))
}

pub(super) async fn status(State(api): State<Api>) -> Result<JsonBody<Json>, ApiError> {
    Ok(JsonBody(api.certs()?.keeper.rotation_status()))
}

/// What is to be done.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Turn {
    action: Action,
    /// For each gate.
    timeout: Option<spec::Duration>,
    /// That the casualties are known.
    #[serde(default)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Rotate,
    Resume,
    Force,
    Abort,
    NewIntermediate,
}

pub(super) async fn turn(State(api): State<Api>, caller: Caller, body: String) -> Result<Response, ApiError> {
    let bad = |detail: String| ApiError::new(StatusCode::BAD_REQUEST, detail);
    let turn: Turn = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
    let timeout = turn.timeout.map(spec::Duration::get);
    if timeout.is_some_and(|t| t.is_zero()) {
        return Err(bad("a gate needs time: timeout is longer than 0".into()));
    }
    let wish = match turn.action {
        Action::Rotate => Wish::Rotate(timeout),
        Action::Resume => Wish::Resume(timeout),
        Action::Force => Wish::Force(turn.yes),
        Action::Abort => Wish::Abort,
        Action::NewIntermediate => Wish::NewIntermediate,
    };
    let certs = api.certs()?;
    match certs.turning.ask(wish, caller.author).await {
        Ok(()) => Ok(JsonBody(certs.keeper.rotation_status()).into_response()),
        Err(NotTurned { message, unavailable: true, .. }) => {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
        Err(NotTurned { message, casualties, .. }) if turn.action == Action::Force && !turn.yes => {
            let told = json!({ "needsYes": true, "detail": message, "casualties": casualties });
            Ok((StatusCode::OK, JsonBody(told)).into_response())
        }
        Err(NotTurned { message, .. }) => Err(ApiError::new(StatusCode::CONFLICT, message)),
    }
}

/// A certificate for somebody who is no sidecar of ours.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Issue {
    namespace: String,
    service_account: String,
    /// PKCS#10, DER, base64.
    csr: String,
    /// `24h` unless said, 1h to 2160h.
    ttl: Option<spec::Duration>,
}

pub(super) async fn issue(
    State(api): State<Api>,
    caller: Caller,
    body: String,
) -> Result<Response, ApiError> {
    let bad = |detail: String| ApiError::new(StatusCode::BAD_REQUEST, detail);
    let wanted: Issue = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
    let label = |text: &str| Label::new(text).map_err(|e| bad(e.to_string()));
    let (namespace, account) = (label(&wanted.namespace)?, label(&wanted.service_account)?);
    let lifetime = match wanted.ttl {
        None => LeafLifetime::default(),
        Some(ttl) => LeafLifetime::new(ttl.get())
            .ok_or_else(|| bad("a certificate lives 1h to 2160h (90 days)".into()))?,
    };
    let csr = STANDARD.decode(&wanted.csr).map_err(|_| bad("csr is not base64".into()))?;
    let keeper = &api.certs()?.keeper;
    let id = SpiffeId::new(keeper.trust_domain().clone(), namespace, account);
    caller.may_let_be(&api.door, &id)?;
    let author = caller.author;
    let audit = AuditEntry::new(&author, "issue-certificate", format!("a certificate for {id}, as files"));
    let wanted = Wanted {
        id: &id,
        by: Attested::Files,
        before: None,
        from: author.from.clone(),
        lifetime,
        audit: Some((author, audit)),
    };
    let (leaf, trust) = keeper.issue(&csr, wanted).await.map_err(|why| not_issued(&why))?;
    tracing::info!(%id, serial = leaf.serial, "issued a certificate as files");
    let encode = |der: &[u8]| STANDARD.encode(der);
    let answer = json!({
        "identity": id.to_string(),
        "serial": leaf.serial,
        "chain": leaf.chain.iter().map(|c| encode(c)).collect::<Vec<_>>(),
        "roots": trust.roots.iter().map(|r| encode(r)).collect::<Vec<_>>(),
        "lifetimeSeconds": lifetime.get().as_secs(),
    });
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, no_store, JsonBody(answer)).into_response())
}

fn not_issued(why: &NotIssued) -> ApiError {
    let status = match why {
        NotIssued::Certificate(_) => StatusCode::BAD_REQUEST,
        NotIssued::Revoked(_) | NotIssued::Own(_) => StatusCode::FORBIDDEN,
        NotIssued::Full(_) => StatusCode::TOO_MANY_REQUESTS,
        NotIssued::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    ApiError::new(status, why.to_string())
}
