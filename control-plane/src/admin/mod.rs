//! The admin API: HTTP and JSON for people, the command line and programs.
//!
//! It listens on loopback only: there are no users yet, so whoever reaches it may do everything. A page in a browser on
//! the same machine can not: names that are not loopback's and foreign origins are refused, and what changes something
//! must say that it is JSON.
//!
//! Every error, also one for a path or a method that does not exist, is `application/problem+json` (RFC 9457).

mod apply;
mod certs;
mod etag;
mod explain;
mod facts;
mod guard;
mod listen;
mod objects;
mod problem;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::http::HeaderMap;
use axum::middleware;
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use serde_json::Value as Json;
use tokio::net::TcpListener;

use crate::audit::Author;
use crate::spec::MAX_BYTES;
use crate::state::State;

pub use certs::Certs;
pub(crate) use problem::ApiError;

/// What the API is told of the running mesh, as opposed to what people wrote.
pub trait Observed: Send + Sync + 'static {
    /// The connected sidecars, one JSON object each.
    fn proxies(&self) -> Vec<Json>;

    /// Traffic by service, version and caller, from the sidecars' own reports.
    fn stats(&self) -> Vec<Json>;

    /// The issuers of tokens and the state of their keys.
    fn issuers(&self) -> Vec<Json> {
        vec![]
    }

    /// Waits until every connected sidecar has acknowledged `revision`, or for `timeout`.
    fn acknowledged(&self, revision: u64, timeout: Duration) -> BoxFuture<'_, Acknowledged>;

    /// Metrics of the control plane, as text for Prometheus.
    fn metrics(&self) -> String;
}

/// How far a revision has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Sidecars that obey it.
    pub acknowledged: usize,
    /// Sidecars that are connected.
    pub proxies: usize,
    /// Those that do not obey it, with the reason.
    pub missing: Vec<(String, String)>,
}

/// Everything the handlers need.
#[derive(Clone)]
pub struct Api {
    /// What people wrote.
    pub state: Arc<State>,
    /// What is going on.
    pub observed: Arc<dyn Observed>,
    /// The certificate authority; none in tests of the rest.
    pub certs: Option<Certs>,
}

/// Serves the API on `listener` until `shutdown`; requests under way are finished.
pub async fn serve(listener: TcpListener, api: Api, shutdown: impl Future<Output = ()> + Send + 'static) {
    listen::serve(listener, router(api), listen::Limits::default(), shutdown).await;
}

/// The routes of the API.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/apply", post(apply::apply))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/proxies", get(facts::proxies))
        .route("/v1/revisions", get(facts::revisions))
        .route("/v1/revisions/{number}", get(facts::revision))
        .route("/v1/audit", get(facts::audit))
        .route("/v1/stats", get(facts::stats))
        .route("/v1/issuers", get(facts::issuers))
        .route("/v1/join-tokens", post(facts::create_join_token))
        .route("/v1/certs", get(certs::list))
        .route("/v1/certs/rotation", get(certs::status).post(certs::turn))
        .route("/v1/certs/issue", post(certs::issue))
        .route("/v1/{collection}", get(objects::list_all))
        .route("/v1/{collection}/{namespace}", get(objects::list))
        .route(
            "/v1/{collection}/{namespace}/{name}",
            get(objects::read).put(objects::write).delete(objects::delete),
        )
        .route("/healthz", get(facts::alive))
        .route("/readyz", get(facts::alive))
        .route("/metrics", get(facts::metrics))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn(guard::guard))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .layer(middleware::map_response(problem::one_form))
        .with_state(api)
}

/// Who asks. There are no users yet: the address is all that is known, and the reason that was given.
fn author(from: &ConnectInfo<SocketAddr>, headers: &HeaderMap) -> Author {
    let mut author = Author::new("admin-api", from.0.to_string());
    let why = headers.get("x-outrigger-why").and_then(|v| v.to_str().ok());
    author.why = why.map(|why| why.chars().take(MAX_WHY).collect());
    author
}

/// A reason is a sentence, not a document.
const MAX_WHY: usize = 500;
