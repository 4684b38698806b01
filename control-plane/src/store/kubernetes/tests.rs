//! The cluster as the store, on a played API server: what is written where, what others write, what goes wrong.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::path::PathBuf;

use outrigger_kube::api::Address;
use outrigger_testkit::kubernetes::Fault;
use outrigger_testkit::{KubernetesApi, eventually};
use serde_json::{Value as Json, json};

use super::super::{CommitError, Expect, Space, Store, StoreErrorKind, Transaction, Write};
use super::{ClusterAddress, KubernetesStore};
use crate::audit::{AuditEntry, Author};
use crate::spec::{Key, Kind};
use crate::store::conformance::{Tried, suite};

suite!(|_: PathBuf| async {
    let cluster = Cluster::start().await;
    Some((cluster.open("a").await, cluster))
});

/// Records are objects where the store keeps objects, with the number as an annotation.
impl Tried for KubernetesStore {
    fn key(&self, space: Space, name: &str) -> String {
        match space {
            Space::Config => format!("services/{name}"),
            Space::Instances => format!("instances/{name}"),
            _ => name.to_owned(),
        }
    }

    fn value(&self, space: Space, name: &str, number: u64) -> Json {
        let key = Key::from_path(&self.key(space, name));
        let Some(key) = key.filter(|_| matches!(space, Space::Config | Space::Instances)) else {
            return json!(number);
        };
        let spec = match key.kind {
            Kind::Instance => {
                json!({ "service": "cart", "address": "10.0.0.9", "ports": [{ "port": 8080 }] })
            }
            _ => json!({}),
        };
        json!({
            "apiVersion": "outrigger.dev/v1alpha1", "kind": key.kind.as_str(),
            "metadata": { "name": key.name.as_str(), "namespace": key.namespace.as_str(),
                          "annotations": { "number": number.to_string() } },
            "spec": spec,
        })
    }

    fn number(&self, value: &Json) -> u64 {
        let noted = value["metadata"]["annotations"]["number"].as_str();
        noted.map_or_else(|| value.as_u64().unwrap(), |text| text.parse().unwrap())
    }
}

struct Cluster {
    server: KubernetesApi,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let server = KubernetesApi::start().await;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), server.root_pem()).unwrap();
        fs::write(folder.path().join("token"), "own.token.planted").unwrap();
        Self { server, folder }
    }

    fn address(&self, identity: &str) -> ClusterAddress {
        let at = |name: &str| self.folder.path().join(name);
        let server = Address { url: self.server.url(), token: at("token"), roots: at("ca.crt") };
        ClusterAddress { server, namespace: "outrigger-system".into(), identity: identity.into() }
    }

    async fn open(&self, identity: &str) -> KubernetesStore {
        KubernetesStore::open(self.address(identity)).await.unwrap()
    }

    /// The Service cart with one ready pod.
    fn with_cart(&self) {
        for object in [
            json!({ "apiVersion": "v1", "kind": "Namespace",
                    "metadata": { "name": "shop", "labels": { "outrigger.dev/inject": "enabled" } } }),
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "cart", "namespace": "shop" },
                    "spec": { "ports": [{ "name": "http", "port": 80 }], "ipFamilies": ["IPv4"] } }),
            json!({ "apiVersion": "v1", "kind": "Pod",
                    "metadata": { "name": "cart-1", "namespace": "shop", "labels": { "outrigger.dev/injected": "true" } },
                    "spec": { "serviceAccountName": "cart" } }),
            slice(&json!([{ "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "name": "cart-1" } }])),
        ] {
            self.server.put(&object);
        }
    }
}

fn slice(endpoints: &Json) -> Json {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "cart-x", "namespace": "shop", "labels": { "kubernetes.io/service-name": "cart" } },
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }], "endpoints": endpoints,
    })
}

fn mesh_service(name: &str, spec: &Json) -> Json {
    json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService",
        "metadata": { "name": name, "namespace": "shop" }, "spec": spec,
    })
}

fn put(space: Space, key: &str, value: Json, expect: Expect) -> Write {
    Write { space, key: key.into(), value: Some(value), expect }
}

fn transaction(writes: Vec<Write>) -> Transaction {
    let author = Author { why: Some("a test".into()), ..Author::new("tester", "127.0.0.1:1") };
    let audit = writes.iter().map(|w| AuditEntry::new(&author, "update", &w.key)).collect();
    Transaction { author, writes, audit }
}

async fn value(store: &KubernetesStore, space: Space, key: &str) -> Option<Json> {
    store.get(space, key).await.unwrap().map(|r| r.value)
}

#[tokio::test]
async fn what_is_written_is_an_object_of_the_cluster_and_read_at_once() {
    let cluster = Cluster::start().await;
    let store = cluster.open("a").await;
    let key = "services/shop/web";
    let web = mesh_service("web", &json!({ "mtls": "permissive" }));
    let done = store.commit(transaction(vec![put(Space::Config, key, web, Expect::Absent)])).await.unwrap();
    let record = store.get(Space::Config, key).await.unwrap().unwrap();
    let there = cluster.server.get("outrigger.dev/v1alpha1", "MeshService", "shop", "web").unwrap();
    assert_eq!(there["spec"], json!({ "mtls": "permissive" }));
    assert_eq!(there["metadata"]["resourceVersion"], record.changed.to_string(), "its version is the ETag");
    assert_eq!(done.revision, record.changed);
    assert!(store.list(Space::Config, "").await.unwrap().position >= done.revision);

    let other = mesh_service("web", &json!({ "mtls": "strict" }));
    let late = put(Space::Config, key, other.clone(), Expect::Version(record.changed - 1));
    let late = store.commit(transaction(vec![late])).await.unwrap_err();
    assert!(matches!(late, CommitError::Conflict { current: Some(ref c), .. } if *c == record), "{late:?}");
    let next = put(Space::Config, key, other, Expect::Version(record.changed));
    store.commit(transaction(vec![next])).await.unwrap();
    assert_eq!(value(&store, Space::Config, key).await.unwrap()["spec"]["mtls"], "strict");

    let gone = Write { space: Space::Config, key: key.into(), value: None, expect: Expect::Present };
    store.commit(transaction(vec![gone])).await.unwrap();
    assert_eq!(value(&store, Space::Config, key).await, None);
    assert_eq!(cluster.server.get("outrigger.dev/v1alpha1", "MeshService", "shop", "web"), None);

    let told = store.revisions(None, 10).await.unwrap();
    let told: Vec<_> = told.iter().map(|r| (r.who.as_str(), r.changes[0].after.is_some())).collect();
    assert_eq!(told, [("tester", false), ("tester", true), ("tester", true)]);
    assert_eq!(store.audit(None, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_somebody_else_writes_is_followed_and_says_by_whom() {
    let cluster = Cluster::start().await;
    let store = cluster.open("a").await;
    let from = store.list(Space::Config, "").await.unwrap().position;
    let mut watch = store.watch(Space::Config, from);
    cluster.server.put(&mesh_service("web", &json!({})));
    let change = watch.next().await.unwrap();
    assert_eq!(change.records[0].0, "services/shop/web");
    assert_eq!(store.revisions(None, 1).await.unwrap()[0].who, "kubernetes: test");
    cluster.server.delete("outrigger.dev/v1alpha1", "MeshService", "shop", "web");
    assert_eq!(watch.next().await.unwrap().records, [("services/shop/web".to_owned(), None)]);
}

#[tokio::test]
async fn a_service_is_there_without_being_written_and_its_pods_are_its_instances() {
    let cluster = Cluster::start().await;
    cluster.with_cart();
    let store = cluster.open("a").await;
    let cart = value(&store, Space::Config, "services/shop/cart").await.unwrap();
    assert_eq!(
        cart["spec"],
        json!({ "ports": [{ "port": 80, "name": "http", "protocol": "http" }], "identities": ["cart"],
                "mtls": "strict", "discovery": "kubernetes" })
    );
    let instances = store.list(Space::Instances, "instances/shop/").await.unwrap();
    let [(_, instance)] = instances.records.as_slice() else { panic!("{instances:?}") };
    assert_eq!(instance.value["spec"]["address"], "10.0.0.1");

    // Terminating: no new requests, then gone; each a change of the next count.
    let mut watch = store.watch(Space::Instances, instances.position);
    let ending = json!({ "ready": false, "serving": true, "terminating": true });
    let endpoint = json!({ "addresses": ["10.0.0.1"], "conditions": ending,
                           "targetRef": { "kind": "Pod", "name": "cart-1" } });
    cluster.server.put(&slice(&json!([endpoint])));
    let change = watch.next().await.unwrap();
    assert_eq!(change.position, instances.position + 1);
    assert_eq!(change.records[0].1.as_ref().unwrap().value["spec"]["state"], "draining");
    cluster.server.put(&slice(&json!([])));
    let change = watch.next().await.unwrap();
    assert_eq!((change.position, change.records[0].1.is_none()), (instances.position + 2, true));
}

#[tokio::test]
async fn a_mesh_service_adds_to_the_service_of_its_name_and_only_that_is_written() {
    let cluster = Cluster::start().await;
    cluster.with_cart();
    let store = cluster.open("a").await;
    let key = "services/shop/cart";
    let mut whole = value(&store, Space::Config, key).await.unwrap();
    whole["spec"]["timeouts"] = json!({ "request": "3s" });
    store.commit(transaction(vec![put(Space::Config, key, whole.clone(), Expect::Present)])).await.unwrap();
    let written = cluster.server.get("outrigger.dev/v1alpha1", "MeshService", "shop", "cart").unwrap();
    assert_eq!(written["spec"], json!({ "timeouts": { "request": "3s" } }));
    assert_eq!(value(&store, Space::Config, key).await.unwrap()["spec"], whole["spec"]);
    let gone =
        || transaction(vec![Write { value: None, ..put(Space::Config, key, Json::Null, Expect::Anything) }]);
    store.commit(gone()).await.unwrap();
    assert!(value(&store, Space::Config, key).await.unwrap()["spec"].get("timeouts").is_none());
    let e = store.commit(gone()).await.unwrap_err();
    assert!(matches!(e, CommitError::Store(ref e) if e.kind() == StoreErrorKind::Refused), "{e}");
}

#[tokio::test]
async fn what_does_not_hold_is_told_and_what_was_in_force_stays() {
    let cluster = Cluster::start().await;
    cluster.server.put(&mesh_service("web", &json!({ "mtls": "strict" })));
    let store = cluster.open("a").await;
    cluster
        .server
        .put(&mesh_service("web", &json!({ "mtls": "perhaps", "timeouts": { "request": "soon" } })));
    eventually("it is told", || async { !store.refused().is_empty() }).await;
    let refused = store.refused();
    let (key, why) = refused.first_key_value().unwrap();
    assert_eq!((key.path().as_str(), why.len()), ("services/shop/web", 2), "{why:?}");
    assert_eq!(value(&store, Space::Config, "services/shop/web").await.unwrap()["spec"]["mtls"], "strict");
    cluster.server.put(&mesh_service("web", &json!({ "mtls": "permissive" })));
    eventually("it holds again", || async { store.refused().is_empty() }).await;
    assert_eq!(
        value(&store, Space::Config, "services/shop/web").await.unwrap()["spec"]["mtls"],
        "permissive"
    );
}

#[tokio::test]
async fn of_several_writes_each_is_judged_before_the_first_is_made() {
    let cluster = Cluster::start().await;
    let store = cluster.open("a").await;
    let write = |name: &str| {
        put(Space::Config, &format!("services/shop/{name}"), mesh_service(name, &json!({})), Expect::Absent)
    };
    // The first dry run passes, the second is refused.
    cluster.server.fail("create", "routefilters", Fault::Status(422), 1);
    let filter = json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "RouteFilter",
                         "metadata": { "name": "f", "namespace": "shop" }, "spec": {} });
    let refused = put(Space::Config, "routefilters/shop/f", filter, Expect::Absent);
    let e = store.commit(transaction(vec![write("a"), refused])).await.unwrap_err();
    assert!(e.to_string().contains("these are made: none"), "{e}");
    assert!(cluster.server.all("outrigger.dev/v1alpha1", "MeshService").is_empty());

    store.commit(transaction(vec![write("a"), write("b")])).await.unwrap();
    assert_eq!(cluster.server.all("outrigger.dev/v1alpha1", "MeshService").len(), 2);
    let behind = store.commit_on(1, transaction(vec![write("c")])).await.unwrap_err();
    assert!(matches!(behind, CommitError::Store(ref e) if e.kind() == StoreErrorKind::Behind), "{behind}");
}

#[tokio::test]
async fn secrets_are_secrets_and_of_parallel_writers_one_wins() {
    let cluster = Cluster::start().await;
    let (a, b) = (cluster.open("a").await, cluster.open("b").await);
    let first = |by: &str| {
        transaction(vec![put(Space::Certificates, "authority", json!({ "key": by }), Expect::Absent)])
    };
    let (one, two) = tokio::join!(a.commit(first("a")), b.commit(first("b")));
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    let CommitError::Conflict { current: Some(current), .. } = loser.unwrap_err() else {
        panic!("no conflict")
    };
    assert_eq!(current.changed, winner.unwrap().certificates, "who lost knows what is there");
    let secret = cluster.server.get("v1", "Secret", "outrigger-system", "outrigger-ca").unwrap();
    assert_eq!(secret["metadata"]["labels"]["outrigger.dev/space"], "certificates");

    let all: Vec<_> = (0..8)
        .map(|i| {
            let write =
                put(Space::Certificates, "authority", json!({ "key": i }), Expect::Version(current.changed));
            a.commit(transaction(vec![write]))
        })
        .collect();
    let won = futures_util::future::join_all(all).await.iter().filter(|r| r.is_ok()).count();
    assert_eq!(won, 1);
    // Another one's Secret with our label is no record.
    let stray = json!({ "apiVersion": "v1", "kind": "Secret", "data": { "value": "e30=" },
        "metadata": { "name": "mine", "namespace": "outrigger-system", "labels": { "outrigger.dev/space": "certificates" },
                      "annotations": { "outrigger.dev/key": "authority" } } });
    cluster.server.put(&stray);
    cluster.server.put(&mesh_service("later", &json!({})));
    eventually("it is passed by", || async {
        value(&a, Space::Config, "services/shop/later").await.is_some()
    })
    .await;
    assert_ne!(value(&a, Space::Certificates, "authority").await, Some(json!({})));
}

#[tokio::test]
async fn while_the_api_server_is_away_everything_is_read_and_nothing_written() {
    let cluster = Cluster::start().await;
    cluster.with_cart();
    let store = cluster.open("a").await;
    let replicas = store.replicas().unwrap();
    eventually("it leads", || async { replicas.leads() }).await;
    cluster.server.go_away();
    eventually("it is noticed", || async { replicas.lost().is_some() }).await;
    assert!(value(&store, Space::Config, "services/shop/cart").await.is_some());
    let write = || transaction(vec![put(Space::Tokens, "t", json!(1), Expect::Anything)]);
    let e = store.commit(write()).await.unwrap_err();
    assert!(
        matches!(e, CommitError::Store(ref e) if e.kind() == StoreErrorKind::Unavailable && e.is_retryable()),
        "{e}"
    );
    // Meanwhile a pod ended, and the history of it is gone.
    cluster.server.put(&slice(&json!([])));
    cluster.server.compact();
    cluster.server.recover();
    eventually("it is found again", || async {
        store.list(Space::Instances, "").await.unwrap().records.is_empty() && replicas.lost().is_none()
    })
    .await;
    store.commit(write()).await.unwrap();
}

#[tokio::test]
async fn one_replica_leads_and_when_it_ends_another_does() {
    let cluster = Cluster::start().await;
    let (a, b) = (cluster.open("a").await, cluster.open("b").await);
    let (of_a, of_b) = (a.replicas().unwrap(), b.replicas().unwrap());
    eventually("one leads", || async { of_a.leads() || of_b.leads() }).await;
    assert!(!(of_a.leads() && of_b.leads()));
    of_a.tell("hello".into()).await.unwrap();
    of_a.hold(vec!["shop/vm-1".into()]).await.unwrap();
    eventually("the other hears it", || async {
        of_b.others() == ["hello"]
            && of_b.holder("shop/vm-1") == super::super::Holder::Another
            && of_b.count() == 2
    })
    .await;
    let (first, second) = if of_a.leads() { (a, of_b) } else { (b, of_a) };
    first.close().await;
    eventually("another one leads", || async { second.leads() && second.count() == 1 }).await;
}

#[tokio::test]
async fn a_start_without_rights_says_which_are_missing() {
    let cluster = Cluster::start().await;
    cluster.server.forbid("list", "endpointslices");
    let e = KubernetesStore::open(cluster.address("a")).await.unwrap_err();
    assert_eq!(e.kind(), StoreErrorKind::Refused);
    assert!(e.to_string().contains("cannot list resource \"endpointslices\""), "{e}");
}

#[tokio::test]
async fn where_a_later_write_fails_those_before_it_are_made_and_named() {
    let cluster = Cluster::start().await;
    let store = cluster.open("a").await;
    let mut watch = store.watch(Space::Tokens, store.list(Space::Tokens, "").await.unwrap().position);
    let secret = |key: &str| put(Space::Tokens, key, json!(1), Expect::Absent);
    let map = put(Space::Rollouts, "shop/cart", json!(1), Expect::Absent);
    cluster.server.fail("create", "configmaps", Fault::Status(422), 1);
    let failed = store.commit(transaction(vec![secret("a"), map, secret("b")])).await.unwrap_err();
    let told = failed.to_string();
    assert!(told.contains("shop/cart") && told.contains("of 3 writes these are made: a"), "{told}");
    let line = &store.audit(None, 1).await.unwrap()[0].entry;
    assert!(line.why.as_ref().unwrap().starts_with("a test; made in part: "), "{line:?}");
    // What is there is in force, and whoever watches is told of it.
    assert_eq!(value(&store, Space::Tokens, "a").await, Some(json!(1)));
    assert_eq!(watch.next().await.unwrap().records[0].0, "a");
    assert_eq!(value(&store, Space::Tokens, "b").await, None);
    assert_eq!(value(&store, Space::Rollouts, "shop/cart").await, None);
}

#[tokio::test]
async fn a_gateway_of_another_class_is_nobody_elses_to_speak_of() {
    let cluster = Cluster::start().await;
    let gateway = |class: &str| {
        let listener = json!({ "name": "web", "port": 80, "protocol": "TLS" });
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": { "name": "edge", "namespace": "shop" },
                "spec": { "gatewayClassName": class, "listeners": [listener] } })
    };
    cluster.server.put(&gateway("other"));
    let store = cluster.open("a").await;
    assert!(!store.has(Kind::Gateway, "shop", "edge"));
    assert!(store.written(Kind::Gateway).is_empty() && store.refused().is_empty());
    cluster.server.put(&gateway("outrigger"));
    eventually("it is ours", || async { !store.refused().is_empty() }).await;
    assert!(store.has(Kind::Gateway, "shop", "edge"));
    cluster.server.put(&gateway("other"));
    eventually("it is another's again", || async { store.refused().is_empty() }).await;
    assert!(store.written(Kind::Gateway).is_empty());
}
