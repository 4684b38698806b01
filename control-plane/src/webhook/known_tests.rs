//! Namespaces that are followed: an admission asks for nothing, and where nothing is followed it asks as ever.

use std::fs;
use std::sync::Arc;

use outrigger_inject::NamespaceFacts;
use outrigger_kube::api::{Address, ApiServer};
use outrigger_testkit::kubernetes::Fault;
use outrigger_testkit::{KubernetesApi, eventually};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use super::facts::Namespaces;
use super::known::{Followed, Known};
use crate::store::kubernetes::{ClusterAddress, KubernetesStore};

struct Stage {
    server: KubernetesApi,
    address: Address,
    api: ApiServer,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let (server, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        fs::write(at("ca.crt"), server.root_pem()).unwrap();
        fs::write(at("token"), "own.token.planted").unwrap();
        let address = Address { url: server.url(), token: at("token"), roots: at("ca.crt") };
        let api = ApiServer::new(&address).unwrap();
        let stage = Self { server, address, api, _folder: folder };
        stage.label("enabled");
        stage.select(&json!({ "app": "web" }));
        stage
    }

    fn label(&self, inject: &str) {
        self.server.put(&json!({ "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "shop", "labels": { "outrigger.dev/inject": inject } } }));
    }

    fn select(&self, selector: &Json) {
        self.server.put(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "selector": selector, "ports": [{ "port": 80 }] } }));
    }

    fn namespaces(&self, followed: Option<Arc<dyn Known>>) -> Namespaces {
        Namespaces::new(Arc::new(self.api.clone()), followed)
    }

    /// Whether anybody has asked for one namespace.
    fn was_asked(&self) -> bool {
        self.server.used().iter().any(|(verb, _, plural)| verb == "get" && plural == "namespaces")
    }
}

/// The label, and what the first Service selects.
fn told(facts: &NamespaceFacts) -> (Option<&str>, Option<&str>) {
    let label = facts.labels.get("outrigger.dev/inject").map(String::as_str);
    (label, facts.services.first().and_then(|service| service.selector.get("app")).map(String::as_str))
}

/// Both that follow tell the same, and of every change.
async fn follows(stage: &Stage, followed: Arc<dyn Known>) {
    eventually("it is known", || async { followed.facts("shop").is_some() }).await;
    // Whoever asks now waits in vain.
    stage.server.fail("get", "namespaces", Fault::Silence, 100);
    let namespaces = stage.namespaces(Some(Arc::clone(&followed)));
    assert_eq!(told(&namespaces.facts("shop").await.unwrap()), (Some("enabled"), Some("web")));
    stage.label("disabled");
    stage.select(&json!({ "app": "other" }));
    eventually("it is told of", || async {
        told(&namespaces.facts("shop").await.unwrap()) == (Some("disabled"), Some("other"))
    })
    .await;
    stage.server.delete("v1", "Service", "shop", "web");
    eventually("it is gone", || async { namespaces.facts("shop").await.unwrap().services.is_empty() }).await;
    assert!(!stage.was_asked());
    assert!(followed.facts("nobody").is_none(), "one that is not known is asked for");

    // Where nothing new would be heard, it is asked for.
    stage.server.recover();
    stage.server.go_away();
    eventually("it is noticed", || async { followed.facts("shop").is_none() }).await;
    stage.server.recover();
    let asked = namespaces.facts("shop").await.unwrap();
    assert_eq!(told(&asked), (Some("disabled"), None));
    eventually("it is followed again", || async { followed.facts("shop").is_some() }).await;
}

#[tokio::test]
async fn an_admission_does_not_wait_for_a_namespace_that_is_followed() {
    let stage = Stage::start().await;
    let mut tasks = JoinSet::new();
    follows(&stage, Followed::start(&stage.api, &mut tasks)).await;
}

#[tokio::test]
async fn where_the_cluster_is_the_store_its_watch_is_enough() {
    let stage = Stage::start().await;
    let address = ClusterAddress {
        server: stage.address.clone(),
        namespace: "outrigger-system".into(),
        identity: "a".into(),
    };
    follows(&stage, Arc::new(KubernetesStore::open(address).await.unwrap())).await;
}

#[tokio::test]
async fn before_anything_is_known_a_namespace_is_asked_for() {
    let stage = Stage::start().await;
    // Nobody follows, as where the lists are not allowed.
    let namespaces = stage.namespaces(Some(Arc::<Followed>::default()));
    assert_eq!(told(&namespaces.facts("shop").await.unwrap()), (Some("enabled"), Some("web")));
    assert!(stage.was_asked());
    let e = namespaces.facts("nobody").await.unwrap_err();
    assert_eq!(e, "there is no namespace nobody");
}
