//! A control plane whose store is a cluster, as a process: what the cluster gets of it, what it takes from the cluster, and
//! that the roles of the chart are what it needs, no more and no less.

mod kubectl;
mod node;
mod pods;
mod roles;
mod stage;
mod users;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_testkit::{Client, Origin, eventually};
use serde_json::{Value, json};

use crate::support::{Mesh, Sidecar};
use stage::{Cluster, GATEWAY_API, OURS, object, review};

/// What it puts into the cluster by itself: the authority, who leads, the roots, and whom to believe for the webhook.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_in_a_cluster_makes_what_it_needs_and_answers_for_pods() {
    let cluster = Cluster::start().await;
    let mut mesh = cluster.mesh(&[]);
    let get = |version: &str, kind: &str, namespace: &str, name: &str| {
        cluster.server.get(version, kind, namespace, name).unwrap_or_default()
    };
    let secret = get("v1", "Secret", "outrigger-system", "outrigger-ca");
    assert_eq!(secret["type"], "outrigger.dev/record");
    let lease = || get("coordination.k8s.io/v1", "Lease", "outrigger-system", "outrigger-leader");
    let holder = || lease()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    eventually("it leads", || async { !holder().is_empty() }).await;
    let roots =
        |namespace: &str| get("v1", "ConfigMap", namespace, "outrigger-roots")["data"]["roots.pem"].clone();
    eventually("the roots are where pods are", || async { roots("shop").is_string() }).await;
    eventually("its own namespace has them too", || async { roots("outrigger-system") == roots("shop") })
        .await;
    assert_eq!(roots("default"), Value::Null);

    let version = "admissionregistration.k8s.io/v1";
    let hooks = || get(version, "MutatingWebhookConfiguration", "", "outrigger-injector")["webhooks"].clone();
    let bundle = STANDARD.encode(roots("shop").as_str().unwrap());
    eventually("the API server knows whom to believe", || async {
        hooks().as_array().unwrap().iter().all(|hook| hook["clientConfig"]["caBundle"] == *bundle)
    })
    .await;

    let webhook = mesh.webhook.unwrap();
    let answer = cluster.review(webhook, &review(&json!({}))).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    let patch = STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
    let patch = String::from_utf8(patch).unwrap();
    assert!(
        patch.contains("outrigger-proxy") && patch.contains("\"--service\"") || patch.contains("cart"),
        "{patch}"
    );
    let refused = cluster.review(webhook, &review(&json!({ "outrigger.dev/proxy-uid": "root" }))).await;
    assert_eq!((&refused["allowed"], &refused["status"]["code"]), (&json!(false), &json!(422)));
    eventually("the owner is told", || async {
        cluster.server.all("v1", "Event").iter().any(|event| event["reason"] == "OutriggerRefused")
    })
    .await;

    let log = mesh.control_log();
    assert!(!log.contains("planted"), "its token is in the log: {log}");
    mesh.end_control();
    assert_eq!(holder(), "", "nobody has to wait for the end of its term");
    assert_eq!(cluster.server.denied(), [].into());
}

/// What is written with kubectl is in force, with its status; sidecars are told of it, and a restart finds it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_in_the_cluster_is_pushed_and_told_in_its_status() {
    let cluster = Cluster::start().await;
    let mut mesh = cluster.mesh(&[]);
    let (first, second) = (Origin::named("cart-v1").await, Origin::named("cart-v2").await);
    // Beyond the cluster: a machine that has joined, and calls what is in it.
    // Without pods a Service is of nobody but the account `default`.
    let registered = json!({ "discovery": "registered", "identities": ["cart"] });
    cluster.server.put(&object(OURS, "MeshService", "cart", &registered));
    in_force(&mesh, "services/shop/cart", "registered").await;
    let v1 = mesh.sidecar("cart", "v1", first.addr()).token(mesh.token("cart")).start();
    let _v2 = mesh.sidecar("cart", "v2", second.addr()).token(mesh.token("cart")).start();
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;

    let to = |version: &str| {
        let parent = json!({ "group": "", "kind": "Service", "name": "cart" });
        let backend =
            json!({ "group": "outrigger.dev", "kind": "ServiceVersion", "name": format!("cart.{version}") });
        object(
            GATEWAY_API,
            "HTTPRoute",
            "cart",
            &json!({ "parentRefs": [parent], "rules": [{ "backendRefs": [backend] }] }),
        )
    };
    for version in ["v2", "v1"] {
        cluster.server.put(&to(version));
        eventually("the route is obeyed", || async {
            web.get("cart", "/").await.text().contains(&format!("cart-{version}"))
        })
        .await;
    }
    let is = |what: &str, reason: &str| [what, "True", reason].map(str::to_owned);
    eventually("its status says so", || async {
        let told = cluster.conditions(GATEWAY_API, "HTTPRoute", "cart");
        told.contains(&is("Accepted", "Accepted")) && told.contains(&is("ResolvedRefs", "ResolvedRefs"))
    })
    .await;

    // What does not hold is told, and what was in force stays; also over a restart.
    let mut owned = registered.clone();
    owned["owner"] = "checkout".into();
    cluster.server.put(&object(OURS, "MeshService", "cart", &owned));
    in_force(&mesh, "services/shop/cart", "checkout").await;
    let mut broken = object(
        GATEWAY_API,
        "HTTPRoute",
        "cart",
        &json!({ "parentRefs": [], "rules": [{ "matches": [{ "path": { "value": "?" } }] }] }),
    );
    broken["spec"]["parentRefs"] = to("v1")["spec"]["parentRefs"].clone();
    cluster.server.put(&broken);
    eventually("its status says what is wrong", || async {
        cluster
            .conditions(GATEWAY_API, "HTTPRoute", "cart")
            .iter()
            .any(|[what, is, _]| what == "Accepted" && is == "False")
    })
    .await;
    assert!(web.get("cart", "/").await.text().contains("cart-v1"));
    cluster.server.put(&to("v2"));
    mesh.end_control();
    mesh.start_control();
    eventually("the route is obeyed after the restart", || async {
        web.get("cart", "/").await.text().contains("cart-v2")
    })
    .await;
    drop(v1);
    assert_eq!(cluster.server.denied(), [].into());
}

/// A policy that somebody broke with kubectl is no open door: what was in force stays; after a restart, when nobody knows what
/// that was, nobody comes in by it. And that one of its services goes does not open the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_does_not_hold_opens_nothing() {
    let cluster = Cluster::start().await;
    let mut mesh = cluster.mesh(&[]);
    let registered = json!({ "discovery": "registered", "identities": ["cart"] });
    cluster.server.put(&object(OURS, "MeshService", "cart", &registered));
    in_force(&mesh, "services/shop/cart", "registered").await;
    let origin = Origin::named("cart").await;
    let _cart = mesh.sidecar("cart", "v1", origin.addr()).token(mesh.token("cart")).start();
    let [web, mallory] = ["web", "mallory"].map(|who| mesh.caller(who).token(mesh.token(who)).start());
    mesh.reachable(&mallory, "cart").await;
    let is = async |who: &Sidecar, status: u16| who.get("cart", "/").await.status == status;

    let target = |name: &str| json!({ "group": "outrigger.dev", "kind": "MeshService", "name": name });
    let policy = |from: &str| {
        let spec = json!({ "targetRefs": [target("cart"), target("web")], "action": "allow",
                           "rules": [{ "from": [{ "serviceAccount": from }] }] });
        object(OURS, "AccessPolicy", "cart", &spec)
    };
    let accepted = |is: &'static str| {
        let told = cluster.conditions(OURS, "AccessPolicy", "cart");
        told.iter().any(|[what, status, _]| what == "Accepted" && status == is)
    };
    cluster.server.put(&policy("web"));
    eventually("others are kept out", || is(&mallory, 403)).await;
    assert!(is(&web, 200).await);

    cluster.server.put(&policy("no such name"));
    eventually("it is told that it does not hold", || async { accepted("False") }).await;
    assert!(is(&web, 200).await && is(&mallory, 403).await, "what was in force stays");
    mesh.end_control();
    mesh.start_control();
    eventually("nobody comes in by it", || is(&web, 403)).await;
    assert!(is(&mallory, 403).await && accepted("False"));

    cluster.server.put(&policy("web"));
    eventually("it holds again", || is(&web, 200)).await;
    cluster.server.delete("v1", "Service", "shop", "web");
    mesh.end_control();
    mesh.start_control();
    eventually("it holds for the service that is left", || async { accepted("True") && is(&web, 200).await })
        .await;
    assert!(is(&mallory, 403).await);
}

/// Waits until an object that the admin API shows has a word in it.
async fn in_force(mesh: &Mesh, path: &str, word: &str) {
    let has = || async {
        let path = format!("/v1/{path}");
        let reply = Client::h1(mesh.admin).await.get(&mesh.admin.to_string(), &path).await.unwrap();
        reply.status.is_success() && reply.text().contains(word)
    };
    eventually(&format!("{path} has {word}"), has).await;
}
