//! A state on a cluster: what is pushed, what is written through, what each object is told of itself.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod gateway_api;
mod gateways;

use std::fs;
use std::sync::{Arc, Mutex};

use outrigger_certs::RootHash;
use outrigger_kube::api::Address;
use outrigger_mesh::TrustDomain;
use outrigger_testkit::{KubernetesApi, eventually};
use serde_json::{Value as Json, json};

use super::roots::Roots;
use super::statuses::Statuses;
use crate::audit::Author;
use crate::compile::ResourceChange;
use crate::spec;
use crate::state::{ApplyError, Publish, State, Write};
use crate::store::kubernetes::{ClusterAddress, KubernetesStore};
use crate::store::{Expect, Store};

#[derive(Default)]
struct Pushed(Mutex<Vec<ResourceChange>>);

impl Publish for Pushed {
    fn publish(&self, _: u64, changes: Vec<ResourceChange>) {
        self.0.lock().unwrap().extend(changes);
    }
}

struct Plane {
    server: KubernetesApi,
    store: KubernetesStore,
    state: Arc<State>,
    pushed: Arc<Pushed>,
    folder: tempfile::TempDir,
}

const OURS: &str = "outrigger.dev/v1alpha1";

impl Plane {
    async fn start() -> Self {
        let server = KubernetesApi::start().await;
        for object in [
            json!({ "apiVersion": "v1", "kind": "Namespace",
                    "metadata": { "name": "shop", "labels": { "outrigger.dev/inject": "enabled" } } }),
            service("cart"),
            service("web"),
            json!({ "apiVersion": "v1", "kind": "Pod",
                    "metadata": { "name": "cart-1", "namespace": "shop", "labels": { "outrigger.dev/injected": "true" } },
                    "spec": { "serviceAccountName": "cart" } }),
            json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": { "name": "cart-x", "namespace": "shop",
                                  "labels": { "kubernetes.io/service-name": "cart" } },
                    "ports": [{ "name": "http", "port": 8080 }],
                    "endpoints": [{ "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "name": "cart-1" } }] }),
        ] {
            server.put(&object);
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), server.root_pem()).unwrap();
        fs::write(folder.path().join("token"), "own.token.planted").unwrap();
        Self::on(server, folder).await
    }

    async fn on(server: KubernetesApi, folder: tempfile::TempDir) -> Self {
        let at = |name: &str| folder.path().join(name);
        let address = Address { url: server.url(), token: at("token"), roots: at("ca.crt") };
        let address =
            ClusterAddress { server: address, namespace: "outrigger-system".into(), identity: "a".into() };
        let store = KubernetesStore::open(address).await.unwrap();
        let (domain, pushed) = (TrustDomain::new("mesh.local").unwrap(), Arc::new(Pushed::default()));
        let state = State::open(Arc::new(store.clone()), domain, RootHash::of(b"root"), pushed.clone());
        Self { state: state.await.unwrap(), server, store, pushed, folder }
    }

    /// It ends, and another one starts.
    async fn again(self) -> Self {
        let Self { server, store, state, folder, .. } = self;
        drop(state);
        store.close().await;
        Self::on(server, folder).await
    }

    /// Writes by the admin API.
    async fn apply(&self, object: &Json) -> Result<u64, ApplyError> {
        let document = spec::read_one(&object.to_string()).unwrap();
        let write = Write::Put { document, expect: Expect::Anything };
        Ok(self.state.apply(vec![write], &Author::new("ada", ""), false).await?.revision)
    }

    fn status(&self, version: &str, kind: &str, name: &str) -> Json {
        self.server.get(version, kind, "shop", name).unwrap()["status"].clone()
    }
}

fn service(name: &str) -> Json {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
            "spec": { "ports": [{ "name": "http", "port": 80 }] } })
}

fn object(version: &str, kind: &str, name: &str, spec: &Json) -> Json {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

fn route(name: &str, to: &str) -> Json {
    let parent = json!({ "group": "", "kind": "Service", "name": "cart" });
    let spec = json!({ "parentRefs": [parent], "rules": [{ "backendRefs": [{ "name": to, "port": 80 }] }] });
    object("gateway.networking.k8s.io/v1", "HTTPRoute", name, &spec)
}

#[tokio::test]
async fn a_service_has_the_addresses_of_its_cluster_and_nobody_can_claim_one() {
    let plane = Plane::start().await;
    let of = |name: &str| {
        let world = plane.state.world();
        let found =
            world.service(&crate::testing::name(name)).map(|s| s.checked.service().cluster_addresses.clone());
        found.unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of("shop/cart"), [] as [&str; 0]);
    let mut cart = service("cart");
    cart["spec"]["clusterIPs"] = json!(["10.96.0.7", "fd00:96::7"]);
    plane.server.put(&cart);
    let both = ["10.96.0.7", "fd00:96::7"];
    eventually("it is known by both", || async { of("shop/cart") == both }).await;
    let told = |ip: &str| {
        let host = outrigger_mesh::Hostname::of_address(ip.parse().unwrap());
        plane.pushed.0.lock().unwrap().iter().any(|change| {
            matches!(change, ResourceChange::Set(outrigger_mesh::Resource::Service(s)) if s.looked_up_as().contains(&host))
        })
    };
    assert!(both.into_iter().all(told), "and callers are");

    // What is added to it leaves them, and what somebody writes into a status of his own is nobody's address.
    let settings = json!({ "timeouts": { "request": "3s" } });
    plane.apply(&object(OURS, "MeshService", "cart", &settings)).await.unwrap();
    assert_eq!(of("shop/cart"), both);
    let mut forged = object(OURS, "MeshService", "web", &settings);
    forged["status"] = json!({ "clusterAddresses": ["10.96.0.7"] });
    plane.server.put(&forged);
    let mut alone = object(OURS, "MeshService", "alone", &settings);
    alone["status"] = json!({ "clusterAddresses": ["10.96.0.8"] });
    plane.server.put(&alone);
    eventually("they are read", || async {
        let world = plane.state.world();
        ["shop/alone", "shop/web"].iter().all(|name| {
            let service = world.service(&crate::testing::name(name));
            service.is_some_and(|s| s.object.to_json()["spec"]["timeouts"]["request"] == "3s")
        })
    })
    .await;
    assert_eq!((of("shop/web"), of("shop/alone")), (vec![], vec![]));

    // While what was written of it does not hold, its address may become another's: it has the one that it has now.
    plane.server.put(&object(OURS, "MeshService", "cart", &json!({ "timeouts": { "request": "soon" } })));
    eventually("it does not hold", || async { !plane.store.refused().is_empty() }).await;
    assert_eq!(of("shop/cart"), both);
    cart["spec"]["clusterIPs"] = json!(["10.96.0.9", "fd00:96::9"]);
    plane.server.put(&cart);
    let both = ["10.96.0.9", "fd00:96::9"];
    eventually("it is known by what it has now", || async { of("shop/cart") == both }).await;
    plane.server.put(&object(OURS, "MeshService", "cart", &settings));

    // What is not in the mesh is called as before there was one, unless somebody says something of it.
    plane.server.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "plain" } }));
    let mut outside = service("db");
    outside["metadata"]["namespace"] = "plain".into();
    outside["spec"]["clusterIPs"] = json!(["10.96.0.20"]);
    plane.server.put(&outside);
    let known = || plane.state.world().service(&crate::testing::name("plain/db")).is_some();
    eventually("it is followed", || async { known() }).await;
    assert_eq!(of("plain/db"), [] as [&str; 0]);
    let mut said = object(OURS, "MeshService", "db", &settings);
    said["metadata"]["namespace"] = "plain".into();
    plane.server.put(&said);
    eventually("it is in the mesh", || async { of("plain/db") == ["10.96.0.20"] }).await;

    let plane = plane.again().await;
    let world = plane.state.world();
    let cart = world.service(&crate::testing::name("shop/cart")).unwrap();
    assert_eq!(cart.checked.service().cluster_addresses.len(), 2, "a start finds them");
}

#[tokio::test]
async fn services_of_the_cluster_are_pushed_and_what_is_written_is_added_to_them() {
    let plane = Plane::start().await;
    let world = plane.state.world();
    let cart = world.service(&crate::testing::name("shop/cart")).unwrap();
    assert_eq!(cart.checked.service().ports[0].number.get(), 80);
    assert_eq!(world.instances_of(&crate::testing::name("shop/cart")), 1);
    assert!(!plane.pushed.0.lock().unwrap().is_empty());

    let before = world.revision();
    let revision =
        plane.apply(&object(OURS, "MeshService", "cart", &json!({ "timeouts": { "request": "3s" } }))).await;
    assert!(revision.unwrap() > before);
    let world = plane.state.world();
    let cart = world.service(&crate::testing::name("shop/cart")).unwrap();
    assert_eq!(
        cart.object.to_json()["spec"]["identities"],
        json!(["cart"]),
        "what the Service means is there still"
    );
    assert_eq!(cart.object.to_json()["spec"]["timeouts"]["request"], "3s");
    let written = plane.server.get(OURS, "MeshService", "shop", "cart").unwrap();
    assert_eq!(written["spec"], json!({ "timeouts": { "request": "3s" } }));

    // A pod that comes is an instance without the configuration being read again.
    let at = plane.state.world().revision();
    plane.server.put(&json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "cart-y", "namespace": "shop", "labels": { "kubernetes.io/service-name": "cart" } },
        "ports": [{ "name": "http", "port": 8080 }], "endpoints": [{ "addresses": ["10.0.0.2"] }] }));
    eventually("it is there", || async {
        plane.state.world().instances_of(&crate::testing::name("shop/cart")) == 2
    })
    .await;
    assert_eq!(plane.state.world().revision(), at);
}

#[tokio::test]
async fn each_object_is_told_what_has_become_of_it() {
    let plane = Plane::start().await;
    let statuses = tokio::sync::Mutex::new(Statuses::default());
    plane.server.put(&route("good", "web"));
    plane.server.put(&route("dangling", "nobody"));
    plane.server.put(&object(OURS, "MeshService", "broken", &json!({ "mtls": "perhaps" })));
    plane.server.put(&object(OURS, "MeshService", "fine", &json!({})));
    let version = "gateway.networking.k8s.io/v1";
    let said = |kind: &'static str, name: &'static str, of: &'static str| {
        let status = plane.status(if kind == "HTTPRoute" { version } else { OURS }, kind, name);
        let conditions = if kind == "HTTPRoute" {
            status["parents"][0]["conditions"].clone()
        } else {
            status["conditions"].clone()
        };
        let found = conditions
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == of)
            .cloned()
            .unwrap_or_default();
        (
            found["status"].as_str().unwrap_or("-").to_owned(),
            found["reason"].as_str().unwrap_or("-").to_owned(),
        )
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    eventually("all are told", || async {
        statuses.lock().await.round(&plane.store, &plane.state.world()).await;
        said("HTTPRoute", "dangling", "ResolvedRefs").0 == "False"
            && said("HTTPRoute", "good", "Accepted").0 == "True"
            && said("MeshService", "fine", "Accepted").0 == "True"
            && said("MeshService", "broken", "Accepted").0 == "False"
    })
    .await;
    assert_eq!(said("HTTPRoute", "good", "Accepted"), is("True", "Accepted"));
    assert_eq!(said("HTTPRoute", "good", "ResolvedRefs"), is("True", "ResolvedRefs"));
    assert_eq!(said("HTTPRoute", "dangling", "ResolvedRefs"), is("False", "BackendNotFound"));
    assert_eq!(said("MeshService", "broken", "Accepted"), is("False", "Invalid"));
    assert_eq!(said("MeshService", "fine", "Accepted"), is("True", "Accepted"));
    let status = plane.status(version, "HTTPRoute", "good");
    assert_eq!(status["parents"][0]["conditions"][0]["observedGeneration"], 1);
    assert!(status["parents"][0]["conditions"][0]["lastTransitionTime"].is_string());
}

#[tokio::test]
async fn what_somebody_broke_with_kubectl_keeps_shut_over_a_start() {
    let plane = Plane::start().await;
    let issuer = json!({ "name": "login", "issuer": "https://login.example", "audiences": ["shop"],
                         "jwks": { "uri": "https://login.example/keys" } });
    let target = json!({ "kind": "MeshService", "name": "cart" });
    let mut tokens = json!({ "targetRefs": [target], "issuers": [issuer] });
    plane.server.put(&object(OURS, "TokenPolicy", "users", &tokens));
    tokens["requirement"] = "perhaps".into();
    plane.server.put(&object(OURS, "TokenPolicy", "users", &tokens));
    let list = json!({ "tokens": [{ "jti": "1" }, { "jtii": "2" }] });
    plane.server.put(&object(OURS, "Denylist", "revoked", &list));

    let plane = plane.again().await;
    let cart = crate::testing::name("shop/cart");
    let shut = |world: &crate::world::World| {
        let entry = world.token_policy_of(&cart).unwrap();
        entry.checked.issuers.iter().all(|issuer| issuer.source.is_none())
    };
    let world = plane.state.world();
    assert!(shut(&world), "no key of it is looked for");
    let list = world.denylist(&crate::testing::name("shop/revoked")).unwrap();
    assert_eq!(list.tokens.len(), 1, "what of it can be read counts");
    Statuses::default().round(&plane.store, &world).await;
    for (kind, name, place) in [("TokenPolicy", "users", "requirement"), ("Denylist", "revoked", "jtii")] {
        let accepted = &plane.status(OURS, kind, name)["conditions"][0];
        assert_eq!((&accepted["type"], &accepted["status"]), (&json!("Accepted"), &json!("False")));
        assert!(accepted["message"].as_str().unwrap().contains(place), "{accepted}");
    }

    // Mended, it is what it was.
    tokens["requirement"] = "required".into();
    plane.server.put(&object(OURS, "TokenPolicy", "users", &tokens));
    eventually("it holds", || async { !shut(&plane.state.world()) }).await;
}

#[tokio::test]
async fn the_roots_are_in_every_namespace_whose_pods_get_sidecars_and_nowhere_else() {
    let plane = Plane::start().await;
    let mut roots = Roots::default();
    let there = |namespace: &str| plane.server.get("v1", "ConfigMap", namespace, "outrigger-roots");
    roots.round(&plane.store, &[Arc::from(b"one".as_slice())]).await;
    let first = there("shop").unwrap()["data"]["roots.pem"].clone();
    assert!(first.as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"), "{first}");
    assert_eq!(there("default"), None);
    roots.round(&plane.store, &[Arc::from(b"one".as_slice()), Arc::from(b"two".as_slice())]).await;
    let both = there("shop").unwrap()["data"]["roots.pem"].clone();
    assert_eq!(both.as_str().unwrap().matches("BEGIN").count(), 2);
    let count = plane.server.count();
    roots.round(&plane.store, &[Arc::from(b"one".as_slice()), Arc::from(b"two".as_slice())]).await;
    assert_eq!(plane.server.count(), count, "what is as it should be is not written");
}
