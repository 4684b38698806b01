//! The roles of the chart: a control plane that does everything it can do once needs each line of them, and nothing else.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_testkit::{Client, Origin, RequestBody, eventually};
use serde_json::{Value, json};

use super::stage::{ACCOUNT, Cluster, review};
use crate::support::{Mesh, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_permission_of_the_chart_is_used_and_nothing_is_asked_for_beyond() {
    let cluster = Cluster::start().await;
    // Roots of another mesh, which was here before.
    cluster.server.put(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "roots.pem": "old" },
        "metadata": { "name": "outrigger-roots", "namespace": "shop" } }));
    let mut mesh = cluster.mesh(&[]);
    let used =
        |act: &str| !cluster.server.unused(ACCOUNT).iter().any(|line| line.starts_with(&format!("{act} ")));
    // Objects of every kind, written twice, each with its status, and taken away.
    let examples = examples();
    let file = mesh.path("all.yaml");
    for owner in ["first", "second"] {
        let noted: Vec<String> = examples.iter().map(|object| noted(object, owner).to_string()).collect();
        fs::write(&file, noted.join("\n---\n")).unwrap();
        done(&mesh, &["apply", "-f", file.to_str().unwrap()]);
    }
    for object in examples.iter().filter(|object| object["kind"] != "ReferenceGrant") {
        let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let place = &object["metadata"];
        let (namespace, name) = (place["namespace"].as_str().unwrap(), place["name"].as_str().unwrap());
        let told =
            || cluster.server.get(version, kind, namespace, name).is_some_and(|o| o["status"].is_object());
        eventually(&format!("{kind} has a status"), || async { told() }).await;
    }
    // An instance that registers itself, and a rollout that moves.
    let origin = Origin::named("api").await;
    done(&mesh, &["delete", "-f", file.to_str().unwrap()]);
    mesh.services(&["api"]);
    let api = mesh.sidecar("api", "v1", origin.addr()).token(mesh.token("api")).start();
    done(&mesh, &["rollout", "start", "api", "-n", "shop", "--from", "v1", "--to", "v2"]);
    eventually("its progress is kept", || async {
        used("update configmaps everywhere") && used("update configmaps in outrigger-system")
    })
    .await;
    done(&mesh, &["rollout", "abort", "api", "-n", "shop"]);
    let aborted = |told: &Value| told["status"]["phase"] == "Aborted";
    mesh.until("it is aborted", "/v1/rollouts/shop/api", aborted).await;
    done(&mesh, &["delete", "rollout", "api", "-n", "shop"]);
    eventually("its progress is forgotten", || async { used("delete configmaps") }).await;
    let _ended = api.terminate();
    // A join token that nobody needs to remember, and the next one.
    forget(&cluster);
    eventually("it is forgotten", || async {
        let _next = mesh.token("api");
        used("delete secrets")
    })
    .await;
    // A user, and pods.
    cluster.server.token("eyJh.YWRh.planted", "ada", &[], &["outrigger"]);
    let asked = http::Request::get(format!("http://{}/v1/whoami", mesh.admin));
    let asked = asked.header("authorization", "Bearer eyJh.YWRh.planted").body(RequestBody::default());
    let told = Client::h1(mesh.admin).await.send(asked.unwrap()).await.unwrap();
    assert_eq!(told.status, 401, "{}", told.text());
    let webhook = mesh.webhook.unwrap();
    cluster.review(webhook, &review(&json!({ "outrigger.dev/proxy-uid": "root" }))).await;
    eventually("an event is written", || async { used("create events") }).await;
    // A namespace that the watch has not told of yet.
    let mut of_another = review(&json!({}));
    of_another["request"]["namespace"] = "later".into();
    let answer = cluster.review(webhook, &of_another).await;
    assert_eq!(answer["allowed"], false, "{answer}");
    mesh.end_control();
    assert_eq!(cluster.server.denied(), [].into(), "asked for, and not granted");
    let unused = cluster.server.unused(ACCOUNT);
    assert!(unused.is_empty(), "granted, and not used:\n{}", unused.join("\n"));
}

/// Lets the join tokens of this cluster be of another year.
fn forget(cluster: &Cluster) {
    for mut secret in cluster.server.all("v1", "Secret") {
        let value = STANDARD.decode(secret["data"]["value"].as_str().unwrap_or_default()).unwrap();
        let Ok(mut value) = serde_json::from_slice::<Value>(&value) else { continue };
        let is_token = secret["metadata"]["labels"]["outrigger.dev/space"] == "tokens";
        if !is_token || value.get("expires").is_none() {
            continue;
        }
        match &mut value["expires"] {
            Value::String(moment) => moment.replace_range(..4, "2001"),
            parts => parts[0] = 2001.into(),
        }
        secret["data"]["value"] = STANDARD.encode(value.to_string()).into();
        cluster.server.put(&secret);
    }
}

fn done(mesh: &Mesh, args: &[&str]) {
    let out = mesh.cli(args);
    assert!(out.status.success(), "{args:?}: {}", text(&out));
}

/// An object of each kind: those that the document of the admin API shows.
fn examples() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let document: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let shown =
        paths.values().filter_map(|path| path.pointer("/put/requestBody/content/application~1json/example"));
    let all: Vec<Value> = shown.filter(|object| object["kind"].is_string()).cloned().collect();
    assert_eq!(all.len(), 16, "one of each kind");
    all
}

fn noted(object: &Value, owner: &str) -> Value {
    let mut object = object.clone();
    object["metadata"]["labels"] = json!({ "owner": owner });
    object
}
