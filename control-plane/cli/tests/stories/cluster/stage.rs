//! A cluster that is played: its API server, which holds the control plane to the roles of the chart, and what lies in it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use outrigger_certs::{OutsideAlpn, OutsideConnector, OutsideName, certificates_from_pem};
use outrigger_mesh::{Hostname, OutsideRoots};
use outrigger_testkit::kubernetes::Grant;
use outrigger_testkit::{KubernetesApi, Owned};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::Mesh;

/// The control plane's own token, and who it is.
const OWN: &str = "own.token.planted";
pub(crate) const ACCOUNT: &str = "system:serviceaccount:outrigger-system:outrigger-control";
/// By which name the API server calls the webhook.
const WEBHOOK: &str = "outrigger-control.outrigger-system.svc";
pub(crate) const OURS: &str = "outrigger.dev/v1alpha1";
pub(crate) const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) server: KubernetesApi,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// One with our kinds, the objects of the chart that the control plane looks for, and the namespace `shop`, in the mesh, with
    /// the Services `cart` and `web`.
    pub(crate) async fn start() -> Self {
        let (server, folder) = (KubernetesApi::start().await, tempfile::tempdir().unwrap());
        fs::write(folder.path().join("ca.crt"), server.root_pem()).unwrap();
        fs::write(folder.path().join("own"), format!("{OWN}\n")).unwrap();
        server.token(OWN, ACCOUNT, &["system:serviceaccounts"], &[]);
        for grant in grants() {
            server.grant(ACCOUNT, grant);
        }
        for definition in definitions() {
            server.put(&definition);
        }
        for (name, label) in [("shop", "enabled"), ("outrigger-system", "disabled")] {
            server.put(&json!({ "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": name, "labels": { "outrigger.dev/inject": label } } }));
        }
        let hook = |name: &str| json!({ "name": name, "clientConfig": { "service": { "name": "outrigger-control" } } });
        server.put(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": "outrigger-injector" },
            "webhooks": [hook("injector.outrigger.dev"), hook("pods.injector.outrigger.dev")],
        }));
        for name in ["cart", "web"] {
            server.put(&service(name));
        }
        Self { server, folder }
    }

    /// The settings by which a control plane lives in it.
    pub(crate) fn flags(&self) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (api, ca, own) = (self.server.url(), file("ca.crt"), file("own"));
        let flags = [
            ["--store", "kubernetes"],
            ["--kubernetes-api", &api],
            ["--kubernetes-ca-file", &ca],
            ["--kubernetes-token-file", &own],
            ["--webhook-listen", "127.0.0.1:0"],
            ["--webhook-name", WEBHOOK],
        ];
        flags.concat().into_iter().map(str::to_owned).collect()
    }

    /// A control plane in it.
    pub(crate) fn mesh(&self, more: &[&str]) -> Mesh {
        let flags = self.flags();
        Mesh::start_with(&[flags.iter().map(String::as_str).collect(), more.to_vec()].concat())
    }

    /// The conditions of an object in `shop`: type, status and reason of each.
    pub(crate) fn conditions(&self, version: &str, kind: &str, name: &str) -> Vec<[String; 3]> {
        let object = self.server.get(version, kind, "shop", name).unwrap_or_default();
        let status = &object["status"];
        let own = if status["parents"].is_array() { &status["parents"][0] } else { status };
        let all = own["conditions"].as_array().into_iter().flatten();
        let word = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        all.map(|c| [word(c, "type"), word(c, "status"), word(c, "reason")]).collect()
    }

    /// Asks the webhook, as the API server does: by its name, believing what stands in caBundle.
    pub(crate) async fn review(&self, webhook: SocketAddr, review: &Value) -> Value {
        let found = self.server.get(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            "",
            "outrigger-injector",
        );
        let bundle = found.unwrap()["webhooks"][0]["clientConfig"]["caBundle"].clone();
        let pem = String::from_utf8(STANDARD.decode(bundle.as_str().unwrap()).unwrap()).unwrap();
        let roots = OutsideRoots::Only(certificates_from_pem(&pem).unwrap());
        let asked = async {
            let stream = TcpStream::connect(webhook).await.unwrap();
            let name = OutsideName::of_host(&Hostname::new(WEBHOOK).unwrap()).unwrap();
            let connector = OutsideConnector::new(&roots).unwrap();
            let stream = connector.connect(stream, &name, OutsideAlpn::Http1).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            let _connection = Owned::spawn(async move { drop(connection.await) });
            let request =
                Request::post("/inject").header("host", WEBHOOK).header("content-type", "application/json");
            let request = request.body(Full::new(Bytes::from(review.to_string()))).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.status());
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()["response"].clone()
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap()
    }
}

/// A review of a pod of a ReplicaSet in `shop` that is being made.
pub(crate) fn review(annotations: &Value) -> Value {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d", "uid": "u-1", "controller": true });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "cart-5d-", "labels": { "app": "cart" }, "annotations": annotations, "ownerReferences": [owner] },
        "spec": { "serviceAccountName": "cart", "containers": [
            { "name": "app", "image": "example/cart:1", "ports": [{ "containerPort": 8080 }] },
        ] },
    });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "shop", "dryRun": false,
        "kind": { "group": "", "version": "v1", "kind": "Pod" }, "resource": { "group": "", "version": "v1", "resource": "pods" },
        "object": pod,
    } })
}

fn service(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
            "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } })
}

/// An object of the cluster in `shop`.
pub(crate) fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// The definitions of our kinds.
pub(crate) fn definitions() -> Vec<Value> {
    let files = fs::read_dir(deploy().join("crds")).unwrap().map(|file| file.unwrap().path());
    let read = |file: PathBuf| -> Value {
        serde_saphyr::from_str(&fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    };
    files.map(read).filter(|object| object["kind"] == "CustomResourceDefinition").collect()
}

/// What the table of the chart gives the control plane, of which it makes its roles (tests/deploy/permissions.rs).
fn grants() -> Vec<Grant> {
    let table = fs::read_to_string(deploy().join("chart/outrigger/permissions.tsv")).unwrap();
    let mut all = vec![];
    for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [scope, group, resource, verbs, names, _] = cells[..] else { panic!("six cells: {line:?}") };
        for verb in verbs.split(',') {
            all.extend(names.split(',').map(|name| Grant {
                namespace: (scope == "own").then(|| "outrigger-system".to_owned()),
                group: if group == "core" { String::new() } else { group.to_owned() },
                resource: resource.to_owned(),
                verb: verb.to_owned(),
                name: (name != "*").then(|| name.to_owned()),
            }));
        }
    }
    all
}
