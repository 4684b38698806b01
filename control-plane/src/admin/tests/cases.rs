//! One request for every route, with the least role that gets through.

use super::*;

pub(super) const ROLLOUT: &str = "/v1/rollouts/{namespace}/{name}/{verb}";
pub(super) const OBJECT: &str = "/v1/{collection}/{namespace}/{name}";
const OWN_API: &str = "/v1/services/{namespace}/{name}/api";
const TRY: &str = "/v1/services/{namespace}/{name}/try";
const PAGE: &str = "/v1/proxies/{node}/{page}";
const DIFF: &str = "/v1/revisions/{number}/diff/{to}";

/// One request for a route, and the least role that gets through. `None`: it needs no proof.
pub(super) struct Case(
    pub(super) &'static str,
    pub(super) Method,
    pub(super) &'static str,
    pub(super) String,
    pub(super) Option<Role>,
);

pub(super) fn cases() -> Vec<Case> {
    let none = String::new;
    let apply = format!("{{\"items\": [{}]}}", service("shop"));
    let (get, post) = (Method::GET, Method::POST);
    let join = "{\"namespace\": \"shop\", \"serviceAccount\": \"cart\"}".to_owned();
    let explain = "{\"host\": \"cart.shop\"}".to_owned();
    let issue = "{\"namespace\": \"ops\", \"serviceAccount\": \"edge\", \"csr\": \"AA==\"}".to_owned();
    let turn = "{\"action\": \"abort\"}".to_owned();
    let level = "{\"filter\": \"debug\", \"for\": \"5m\"}".to_owned();
    let tried = "{\"method\": \"GET\", \"path\": \"/\"}".to_owned();
    let token = "{\"name\": \"ci\", \"role\": \"viewer\"}".to_owned();
    vec![
        Case("/healthz", get.clone(), "/healthz", none(), None),
        Case("/readyz", get.clone(), "/readyz", none(), None),
        Case("/.well-known/jwks.json", get.clone(), "/.well-known/jwks.json", none(), None),
        Case("/openapi.json", get.clone(), "/openapi.json", none(), None),
        Case("/docs", get.clone(), "/docs", none(), None),
        Case("/docs/{file}", get.clone(), "/docs/NOTICE", none(), None),
        Case("/", get.clone(), "/", none(), None),
        Case("/dashboard", get.clone(), "/dashboard", none(), None),
        Case("/dashboard/", get.clone(), "/dashboard/", none(), None),
        Case("/dashboard/{*file}", get.clone(), "/dashboard/app.js", none(), None),
        Case("/metrics", get.clone(), "/metrics", none(), Some(Role::Viewer)),
        Case("/v1/apply", post.clone(), "/v1/apply", apply, Some(Role::Editor)),
        Case("/v1/explain", post.clone(), "/v1/explain", explain, Some(Role::Viewer)),
        Case("/v1/proxies", get.clone(), "/v1/proxies", none(), Some(Role::Viewer)),
        Case("/v1/proxies/{node}", get.clone(), "/v1/proxies/x", none(), Some(Role::Viewer)),
        Case(PAGE, get.clone(), "/v1/proxies/x/breakers", none(), Some(Role::Viewer)),
        Case("/v1/breakers", get.clone(), "/v1/breakers", none(), Some(Role::Viewer)),
        Case("/v1/stats", get.clone(), "/v1/stats", none(), Some(Role::Viewer)),
        Case("/v1/topology", get.clone(), "/v1/topology?window=1m", none(), Some(Role::Viewer)),
        Case(
            "/v1/topology/{namespace}/{name}",
            get.clone(),
            "/v1/topology/shop/cart",
            none(),
            Some(Role::Viewer),
        ),
        Case("/v1/tap", get.clone(), "/v1/tap?to=shop/cart", none(), Some(Role::Editor)),
        Case("/v1/revisions", get.clone(), "/v1/revisions", none(), Some(Role::Viewer)),
        Case("/v1/revisions/{number}", get.clone(), "/v1/revisions/1", none(), Some(Role::Viewer)),
        Case(DIFF, get.clone(), "/v1/revisions/0/diff/now", none(), Some(Role::Viewer)),
        Case("/v1/watch", get.clone(), "/v1/watch?since=99", none(), Some(Role::Viewer)),
        Case("/v1/rollback", post.clone(), "/v1/rollback", "{\"to\": 0}".into(), Some(Role::Editor)),
        Case("/v1/audit", get.clone(), "/v1/audit", none(), Some(Role::Operator)),
        Case("/v1/backup", get.clone(), "/v1/backup", none(), Some(Role::Admin)),
        Case("/v1/issuers", get.clone(), "/v1/issuers", none(), Some(Role::Viewer)),
        Case("/v1/join-tokens", post.clone(), "/v1/join-tokens", join, Some(Role::Operator)),
        Case("/v1/leases/confirm", post.clone(), "/v1/leases/confirm", "{}".into(), Some(Role::Operator)),
        Case("/v1/log-level", get.clone(), "/v1/log-level", none(), Some(Role::Viewer)),
        Case("/v1/log-level", Method::PUT, "/v1/log-level", level, Some(Role::Operator)),
        Case("/v1/certs", get.clone(), "/v1/certs", none(), Some(Role::Operator)),
        Case("/v1/certs/issue", post.clone(), "/v1/certs/issue", issue, Some(Role::Operator)),
        Case("/v1/certs/rotation", get.clone(), "/v1/certs/rotation", none(), Some(Role::Operator)),
        Case("/v1/certs/rotation", post.clone(), "/v1/certs/rotation", turn, Some(Role::Admin)),
        Case("/v1/tokens", get.clone(), "/v1/tokens", none(), Some(Role::Admin)),
        Case("/v1/tokens", post, "/v1/tokens", token, Some(Role::Admin)),
        Case("/v1/tokens/{id}", Method::DELETE, "/v1/tokens/0011223344556677", none(), Some(Role::Admin)),
        Case("/v1/whoami", get.clone(), "/v1/whoami", none(), Some(Role::Viewer)),
        Case(ROLLOUT, Method::POST, "/v1/rollouts/shop/cart/pause", "{}".into(), Some(Role::Editor)),
        Case(OWN_API, get.clone(), "/v1/services/shop/cart/api", none(), Some(Role::Viewer)),
        Case(TRY, Method::POST, "/v1/services/shop/cart/try", tried, Some(Role::Editor)),
        Case("/v1/{collection}", get.clone(), "/v1/services", none(), Some(Role::Viewer)),
        Case("/v1/{collection}/{namespace}", get.clone(), "/v1/services/shop", none(), Some(Role::Viewer)),
        Case(OBJECT, get, "/v1/services/shop/cart", none(), Some(Role::Viewer)),
        Case(OBJECT, Method::PUT, "/v1/services/shop/cart", service("shop"), Some(Role::Editor)),
        Case(OBJECT, Method::PATCH, "/v1/services/shop/cart", "{}".into(), Some(Role::Editor)),
        Case(OBJECT, Method::DELETE, "/v1/services/shop/cart", none(), Some(Role::Editor)),
    ]
}
