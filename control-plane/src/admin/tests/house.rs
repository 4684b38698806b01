//! An API at whose door somebody stands: a control plane without sidecars, in a folder of the test's own.

use outrigger_process::level::LogLevel;

use super::*;

struct Nothing;

impl Publish for Nothing {
    fn publish(&self, _: u64, _: Vec<ResourceChange>) {}
}

impl Observed for Nothing {
    fn proxies(&self) -> Vec<Json> {
        ["shop", "bank"]
            .map(|ns| serde_json::json!({ "identity": format!("spiffe://mesh.local/ns/{ns}/sa/x"), "node": "x" }))
            .into()
    }

    fn proxy(&self, node: &str) -> Vec<Json> {
        self.proxies().into_iter().map(|proxy| serde_json::json!({ "proxy": proxy, "node": node })).collect()
    }

    fn page<'a>(
        &'a self,
        identity: &'a str,
        _: &'a str,
        page: &'static str,
    ) -> BoxFuture<'a, Result<Json, String>> {
        let service = if identity.contains("/ns/shop/") { "shop/cart" } else { "bank/desk" };
        let (open, closed) =
            (serde_json::json!({ "state": "open" }), serde_json::json!({ "state": "closed" }));
        let breakers =
            serde_json::json!([{ "name": service, "service": closed, "versions": { "v2": open } }]);
        Box::pin(std::future::ready(if page == "breakers" { Ok(breakers) } else { Err(page.to_owned()) }))
    }

    fn affected(&self, _: Vec<ResourceChange>) -> Vec<Json> {
        self.proxies()
    }

    fn issuers(&self) -> Vec<Json> {
        ["shop/users/people", "bank/users/people"].map(|name| serde_json::json!({ "name": name })).into()
    }

    fn stats(&self) -> Vec<Json> {
        ["shop/cart", "bank/desk"].map(|service| serde_json::json!({ "service": service })).into()
    }

    fn acknowledged(&self, _: u64, _: Duration) -> BoxFuture<'_, Acknowledged> {
        Box::pin(std::future::ready(Acknowledged::default()))
    }

    fn is_revoked(&self, identity: &SpiffeId) -> bool {
        identity.service_account().as_str() == "revoked"
    }

    fn held_back(&self) -> Option<HeldBack> {
        Some(HeldBack { instances: 60, of: 100, lasting: Duration::from_secs(3) })
    }

    fn confirm_loss(&self) -> bool {
        true
    }

    fn log_level(&self) -> Option<Arc<LogLevel>> {
        Some(Arc::new(LogLevel::new("info", Box::new(|_| Ok(())))))
    }

    fn metrics(&self) -> String {
        "up 1\n".into()
    }
}

/// An API at whose door somebody stands.
pub(in crate::admin) struct House {
    pub(in crate::admin) api: Api,
    turner: tokio::task::JoinHandle<()>,
    driver: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.turner.abort();
        self.driver.abort();
    }
}

pub(super) struct Told {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Told {
    pub(super) fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl House {
    pub(in crate::admin) async fn with(door: Door) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.path()).await.unwrap());
        let (domain, hub) = (TrustDomain::new("mesh.local").unwrap(), Arc::new(Hub::new()));
        let place = ca::Place { folder: &folder.path().join("ca"), given: None };
        let (keeper, turning, turner) =
            ca::open(store.clone(), hub.clone(), place, &domain, LeafLifetime::default()).await.unwrap();
        let state = State::open(store, domain, root(), Arc::new(Nothing)).await.unwrap();
        let turner = tokio::spawn(turner.run(state.clone()));
        let (rollouts, driver) = rollout::open(state.clone(), hub, Arc::default());
        let (driver, rollouts) = (tokio::spawn(driver.run(std::future::pending())), Some(rollouts));
        let (observed, door) = (Arc::new(Nothing), Arc::new(door));
        let certs = Some(Certs { keeper, turning });
        let api = Api { state, observed, certs, door, signers: None, rollouts, taps: Arc::default() };
        Self { api, turner, driver, _folder: folder }
    }

    pub(super) async fn token(&self, grant: &str, ttl: Duration) -> ApiToken {
        let (name, grant): (_, Grant) = (Label::new("test").unwrap(), grant.parse().unwrap());
        let author = Author::system("a test");
        book::create(self.api.state.store(), root(), name, grant, ttl, &author).await.unwrap().0
    }

    pub(super) async fn sends(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Told {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let from: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let request = request.extension(ConnectInfo(from)).body(Body::from(body.to_owned())).unwrap();
        let answer = router(self.api.clone()).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let text = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        Told { status, text: String::from_utf8_lossy(&text).into_owned() }
    }

    pub(super) async fn get(&self, path: &str, token: &ApiToken) -> Told {
        let bearer = bearer(token);
        self.sends(&Method::GET, path, &[("authorization", &bearer)], "").await
    }

    /// Puts a rollout of `bank/cart` there.
    pub(super) async fn roll_out(&self) {
        let text = "{apiVersion: outrigger.dev/v1alpha1, kind: Rollout, metadata: {name: cart, namespace: bank}, \
                    spec: {service: cart, strategy: canary, stable: v1, candidate: v2}}";
        let document = crate::spec::read(text, "").unwrap().remove(0);
        let write = crate::state::Write::Put { document, expect: crate::store::Expect::Anything };
        self.api.state.apply(vec![write], &Author::system("a test"), false).await.unwrap();
    }

    pub(super) async fn audit(&self) -> String {
        format!("{:?}", self.api.state.store().audit(None, 1000).await.unwrap())
    }
}
