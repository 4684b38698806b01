//! The admin API: HTTP and JSON for people, the command line and programs.
//!
//! Started with nothing it listens on loopback, and whoever reaches it may do everything; anywhere else nobody comes in
//! without proof (`door`). A page in a browser can do nothing in either case: there are no cookies, foreign names and
//! origins are refused, and what changes something must say that it is JSON (`guard`).
//!
//! Every error, also one for a path or a method that does not exist, is `application/problem+json` (RFC 9457).

mod apply;
mod backup;
mod bucket;
mod caller;
mod certs;
mod dashboard;
mod door;
mod etag;
mod explain;
mod facts;
mod fault;
mod guard;
mod history;
mod leases;
mod live;
mod log_level;
mod objects;
mod openapi;
mod own_api;
mod problem;
mod rates;
mod refusals;
mod rollouts;
mod routes;
mod start;
mod swagger;
mod tap;
#[cfg(test)]
mod tests;
mod tokens;
mod topology;
mod watch;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post};
use futures_util::future::BoxFuture;
use outrigger_certs::AdminAcceptor;
use outrigger_mesh::SpiffeId;
use serde_json::Value as Json;
use tokio::net::TcpListener;

use crate::compile::ResourceChange;
use crate::exchange::Keys;
use crate::listen;
use crate::push::TapLines;
use crate::rollout::Rollouts;
use crate::source::registration::HeldBack;
use crate::spec::MAX_BYTES;
use crate::state::State;
use crate::telemetry::{Stretch, Telemetry};
use outrigger_process::level::LogLevel;

use caller::Caller;
pub use certs::Certs;
pub use door::Door;
pub use live::PAGES;
pub(crate) use problem::ApiError;
pub(crate) use rates::A_SECOND;
pub use start::{open, refuse_open_doors};
pub use tap::Taps;

/// What the API is told of the running mesh, as opposed to what people wrote.
pub trait Observed: Send + Sync + 'static {
    /// The connected sidecars, one JSON object each.
    fn proxies(&self) -> Vec<Json>;

    /// One of them by its name, with what it has subscribed to; more than one where identities chose the same name.
    fn proxy(&self, node: &str) -> Vec<Json>;

    /// A page of one of them, of [`PAGES`], asked of the sidecar itself; an error says why there is none.
    fn page<'a>(
        &'a self,
        identity: &'a str,
        node: &'a str,
        page: &'static str,
    ) -> BoxFuture<'a, Result<Json, String>>;

    /// Live requests of one of them, of [`TapFilter::page`](outrigger_mesh::TapFilter::page); an error says why there are
    /// none.
    fn tap(&self, identity: &SpiffeId, node: &str, page: String) -> Result<TapLines, String> {
        Err(format!("{identity} ({node}) has no page {page:?}"))
    }

    /// The connected sidecars that would be sent something if these changes were published, one JSON object each.
    fn affected(&self, changes: Vec<ResourceChange>) -> Vec<Json>;

    /// Traffic by service, version and caller, from the sidecars' own reports.
    fn stats(&self) -> Vec<Json>;

    /// Who called whom within the last `window`, from the same reports.
    fn traffic(&self, window: Duration) -> Stretch {
        Telemetry::default().stretch(window)
    }

    /// The issuers of tokens and the state of their keys.
    fn issuers(&self) -> Vec<Json> {
        vec![]
    }

    /// Waits until every connected sidecar has acknowledged `revision`, or for `timeout`.
    fn acknowledged(&self, revision: u64, timeout: Duration) -> BoxFuture<'_, Acknowledged>;

    /// Whether a workload's identity is revoked.
    fn is_revoked(&self, identity: &SpiffeId) -> bool;

    /// The leases that have ended and are held back, because most ended together.
    fn held_back(&self) -> Option<HeldBack> {
        None
    }

    /// Says that they are gone. False when none are held back.
    fn confirm_loss(&self) -> bool {
        false
    }

    /// What this process logs, where that can be changed.
    fn log_level(&self) -> Option<Arc<LogLevel>> {
        None
    }

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
    /// Who comes in.
    pub door: Arc<Door>,
    /// The mesh's own keys for tokens; none in tests of the rest.
    pub signers: Option<Arc<Keys>>,
    /// The rollouts, and who drives them; none in tests of the rest.
    pub rollouts: Option<Rollouts>,
    /// The taps that are open.
    pub taps: Arc<Taps>,
}

/// Serves the API on `listener` until `shutdown`; requests under way are finished.
pub async fn serve(
    listener: TcpListener,
    tls: Option<AdminAcceptor>,
    api: Api,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let serving =
        listen::serve(listener, tls.clone().into(), router(api), listen::Limits::default(), shutdown);
    tokio::select! {
        () = serving => {}
        () = refresh(tls) => {}
    }
}

/// Takes a certificate in files anew when they have changed, for as long as it runs.
async fn refresh(tls: Option<AdminAcceptor>) {
    let Some(tls) = tls else { return std::future::pending().await };
    loop {
        tokio::time::sleep(REFRESH).await;
        match tls.refresh() {
            Ok(true) => tracing::info!("took the new certificate of the admin API"),
            Ok(false) => {}
            Err(why) => tracing::warn!(
                why,
                "the certificate of the admin API is not read anew; the last good one stays"
            ),
        }
    }
}

const REFRESH: Duration = Duration::from_secs(30);

/// The routes of the API. What each needs of its caller is in `routes`.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/apply", post(apply::apply))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/proxies", get(facts::proxies))
        .route("/v1/proxies/{node}", get(facts::proxy))
        .route("/v1/proxies/{node}/{page}", get(live::page))
        .route("/v1/breakers", get(live::breakers))
        .route("/v1/revisions", get(history::revisions))
        .route("/v1/revisions/{number}", get(history::revision))
        .route("/v1/revisions/{number}/diff/{to}", get(history::diff))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/rollback", post(history::rollback))
        .route("/v1/audit", get(facts::audit))
        .route("/v1/backup", get(backup::backup))
        .route("/v1/stats", get(facts::stats))
        .route("/v1/tap", get(tap::tap))
        .route("/v1/topology", get(topology::all))
        .route("/v1/topology/{namespace}/{name}", get(topology::one))
        .route("/v1/issuers", get(facts::issuers))
        .route("/v1/join-tokens", post(facts::create_join_token))
        .route("/v1/leases/confirm", post(leases::confirm))
        .route("/v1/log-level", get(log_level::read).put(log_level::write))
        .route("/v1/certs", get(certs::list))
        .route("/v1/certs/rotation", get(certs::status).post(certs::turn))
        .route("/v1/certs/issue", post(certs::issue))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/whoami", get(tokens::whoami))
        .route("/v1/{collection}", get(objects::list_all))
        .route("/v1/{collection}/{namespace}", get(objects::list))
        .route(
            "/v1/{collection}/{namespace}/{name}",
            get(objects::read).put(objects::write).patch(objects::patch).delete(objects::delete),
        )
        .route("/v1/rollouts/{namespace}/{name}/{verb}", post(rollouts::order))
        .route("/v1/services/{namespace}/{name}/api", get(own_api::document))
        .route("/v1/services/{namespace}/{name}/try", post(own_api::tried))
        // Public keys, for whoever verifies tokens of the mesh: nobody has to say who they are.
        .route("/.well-known/jwks.json", get(facts::jwks))
        .route("/openapi.json", get(openapi::serve))
        .route("/docs", get(swagger::page))
        .route("/docs/{file}", get(swagger::file))
        .route("/", get(dashboard::entrance))
        .route("/dashboard", get(dashboard::without_slash))
        .route("/dashboard/", get(dashboard::page))
        .route("/dashboard/{*file}", get(dashboard::file))
        .route("/healthz", get(facts::alive))
        .route("/readyz", get(facts::ready))
        .route("/metrics", get(facts::metrics))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn(fault::survived))
        .layer(middleware::from_fn_with_state(api.clone(), door::door))
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .layer(middleware::map_response(problem::one_form))
        .with_state(api)
}
