//! What is told and not written: sidecars, audit, traffic, health. And join tokens, which are made here and
//! told once.

use axum::Json as JsonBody;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use outrigger_mesh::{ExpositionForm, Label, SpiffeId, exposition_as};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Api, ApiError, Caller};
use crate::process;
use crate::spec;
use outrigger_process::panics;

pub(super) async fn proxies(State(api): State<Api>, caller: Caller) -> JsonBody<Json> {
    let (revision, mut proxies) = (api.state.world().revision(), api.observed.proxies());
    proxies.retain(|proxy| caller.covers(namespace_of_identity(proxy)));
    JsonBody(json!({ "revision": revision, "items": proxies }))
}

/// `GET /v1/proxies/{node}`: what the sidecars of this name have subscribed to, and what is in force for them.
pub(super) async fn proxy(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<JsonBody<Json>, ApiError> {
    let mut told = api.observed.proxy(&node);
    told.retain(|told| caller.covers(namespace_of_identity(&told["proxy"])));
    if told.is_empty() {
        let detail =
            format!("no sidecar called {node:?} is connected here; GET /v1/proxies lists those that are");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    Ok(JsonBody(json!({ "revision": api.state.world().revision(), "items": told })))
}

/// `GET /v1/issuers`: who issues tokens, and whether there are keys.
pub(super) async fn issuers(State(api): State<Api>, caller: Caller) -> JsonBody<Json> {
    let mut issuers = api.observed.issuers();
    issuers.retain(|issuer| caller.covers(first(issuer["name"].as_str().unwrap_or_default())));
    JsonBody(json!({ "items": issuers }))
}

/// `GET /.well-known/jwks.json`: the public keys of the mesh's own tokens.
pub(super) async fn jwks(State(api): State<Api>) -> JsonBody<Json> {
    JsonBody(api.signers.map_or_else(|| json!({ "keys": [] }), |keys| keys.jwks()))
}

pub(super) async fn stats(State(api): State<Api>, caller: Caller) -> JsonBody<Json> {
    let mut stats = api.observed.stats();
    stats.retain(|row| caller.covers(first(row["service"].as_str().unwrap_or_default())));
    JsonBody(json!({ "items": stats }))
}

/// The namespace of a sidecar's proven identity, `spiffe://mesh.local/ns/shop/sa/cart`.
pub(super) fn namespace_of_identity(proxy: &Json) -> &str {
    let identity = proxy["identity"].as_str().unwrap_or_default();
    identity.split_once("/ns/").map_or("", |(_, rest)| first(rest))
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// Which part of a log is wanted: what came before `before`, at most `limit`, the newest first.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    pub(super) before: Option<u64>,
    limit: Option<usize>,
}

impl Page {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(100).clamp(1, 1_000)
    }
}

pub(super) async fn audit(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<JsonBody<Json>, ApiError> {
    let items = api.state.store().audit(page.before, page.limit()).await?;
    Ok(JsonBody(json!({ "items": items })))
}

/// For whom a token is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenRequest {
    namespace: String,
    service_account: String,
    /// `10m` unless said, `24h` at most.
    ttl: Option<spec::Duration>,
}

pub(super) async fn create_join_token(
    State(api): State<Api>,
    caller: Caller,
    body: String,
) -> Result<Response, ApiError> {
    let bad = |detail: String| ApiError::new(StatusCode::BAD_REQUEST, detail);
    let wanted: TokenRequest = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
    let label = |text: &str| Label::new(text).map_err(|e| bad(e.to_string()));
    let (namespace, account) = (label(&wanted.namespace)?, label(&wanted.service_account)?);
    let ttl = wanted.ttl.map_or(TOKEN_TTL, spec::Duration::get);
    if ttl > MAX_TOKEN_TTL {
        return Err(bad("a join token lives 24h at most: make it when it is needed".into()));
    }
    let domain = api.state.world().trust_domain().clone();
    caller.may_let_be(&api.door, &SpiffeId::new(domain, namespace.clone(), account.clone()))?;
    let token = api.state.create_join_token(namespace, account, ttl, &caller.author).await?;
    let answer = json!({
        "token": token.expose().as_str(),
        "id": token.id(),
        "namespace": wanted.namespace,
        "serviceAccount": wanted.service_account,
        "ttlSeconds": ttl.as_secs(),
    });
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, no_store, JsonBody(answer)).into_response())
}

const TOKEN_TTL: std::time::Duration = std::time::Duration::from_secs(600);
const MAX_TOKEN_TTL: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Whether the process does what it is for. One of whose parts has ended in a panic does not: it is to be begun anew.
pub(super) async fn alive(State(api): State<Api>) -> Response {
    let (world, fallen) = (api.state.world(), panics::fallen());
    let (status, word) =
        if fallen.is_empty() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "failed") };
    let told = json!({
        "status": word, "revision": world.revision(), "generation": world.generation(),
        "panics": panics::count(), "fallen": fallen,
    });
    (status, JsonBody(told)).into_response()
}

/// By the time the API listens everything is loaded, so being reached is being ready. Ready it is also while a shared store
/// does not answer, or leases are held back, since sidecars are served and everything is read as before; but it says so.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let (world, fallen) = (api.state.world(), panics::fallen());
    let mut told = json!({ "status": "ok", "revision": world.revision(), "generation": world.generation() });
    let mut conditions = vec![condition("loaded", None)];
    if let Some(replicas) = api.state.store().replicas() {
        // Why not is in the log, and in the answer to whoever writes: this is for everybody.
        let answers = replicas.lost().is_none();
        told["store"] =
            json!({ "answers": answers, "replicas": replicas.count(), "leads": replicas.leads() });
        let why = (!answers).then_some("the shared store does not answer: nothing can be written");
        conditions.push(condition("store", why));
    }
    let held = api.observed.held_back();
    if let Some(held) = &held {
        told["leases"] =
            json!({ "heldBack": held.instances, "of": held.of, "seconds": held.lasting.as_secs() });
    }
    let why = held.map(|held| format!("{} of {} ended together and are held back", held.instances, held.of));
    conditions.push(condition("leases", why.as_deref()));
    let parts = (!fallen.is_empty()).then(|| format!("ended in a panic: {}", fallen.join(", ")));
    conditions.push(condition("parts", parts.as_deref()));
    if conditions.iter().any(|condition| condition["met"] == false) {
        told["status"] = "degraded".into();
    }
    told["conditions"] = conditions.into();
    if fallen.is_empty() {
        return JsonBody(told).into_response();
    }
    told["status"] = "failed".into();
    (StatusCode::SERVICE_UNAVAILABLE, JsonBody(told)).into_response()
}

fn condition(name: &str, why: Option<&str>) -> Json {
    json!({ "name": name, "met": why.is_none(), "why": why })
}

/// `GET /metrics`: in the form of Prometheus, or in that of OpenMetrics for whoever asks for it.
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let form = ExpositionForm::of_accept(&accepts.collect::<Vec<_>>().join(","));
    let text = api.observed.metrics() + &api.door.metrics() + &process::metrics();
    let kind = HeaderValue::from_static(form.content_type());
    ([(header::CONTENT_TYPE, kind)], exposition_as(form, &text)).into_response()
}
