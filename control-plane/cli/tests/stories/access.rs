//! Access policies as they are written: in force at the sidecar of the service, explained by the same decisions, and
//! refused by a sidecar that does not know them.

use outrigger_testkit::{Origin, eventually};
use serde_json::Value;

use crate::support::{Mesh, text};

const READERS: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: AccessPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{group: outrigger.dev, kind: MeshService, name: prices}]
  action: allow
  rules:
  - {name: web, from: [{serviceAccount: web}], methods: [GET], paths: [{prefix: /items}, {exact: /}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-secrets, namespace: outrigger}
spec: {action: deny, rules: [{paths: [{prefix: /items/secret}]}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_explain_tells_of_access_is_what_the_sidecar_does() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web", "cart"]);
    let prices = mesh.instance("prices", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    let cart = mesh.caller("cart").token(mesh.token("cart")).start();
    for caller in [&web, &cart] {
        mesh.reachable(caller, "prices").await;
    }
    mesh.apply(READERS);
    for (caller, from, path, allowed, policy) in [
        (&web, "shop/web", "/", true, Some("shop/readers")),
        (&web, "shop/web", "/items/7", true, Some("shop/readers")),
        (&web, "shop/web", "/other", false, None),
        (&web, "shop/web", "/items/secret", false, Some("outrigger/no-secrets")),
        (&web, "shop/web", "/items/../items//Secret;x", false, Some("outrigger/no-secrets")),
        (&cart, "shop/cart", "/", false, None),
        (&cart, "shop/cart", "/items/7", false, None),
    ] {
        let reply = caller.get("prices", path).await;
        let expected = if allowed { 200 } else { 403 };
        assert_eq!(reply.status, expected, "{from} {path}: {}", reply.text());
        let target = format!("prices.shop{path}");
        let out = mesh.cli(&["explain", &target, "--from", from, "-o", "json"]);
        assert!(out.status.success(), "{}", text(&out));
        let told: Value = serde_json::from_slice(&out.stdout).unwrap();
        let access = &told["access"][0];
        assert_eq!(access["decision"], if allowed { "allowed" } else { "denied" }, "{told:#}");
        assert_eq!(access["policy"].as_str(), policy, "{told:#}");
        if !allowed {
            let why = access["why"].as_str().unwrap();
            assert!(reply.text().contains(why), "the same words: {why}: {}", reply.text());
        }
    }
    let out = text(&mesh.cli(&["explain", "prices.shop/", "--from", "shop/web"]));
    assert!(out.contains("allowed by policy shop/readers, rule web"), "{out}");
    let nobody = text(&mesh.cli(&["explain", "prices.shop/"]));
    assert!(nobody.contains("the service wants mutual TLS"), "{nobody}");
    let unknown = text(&mesh.cli(&["explain", "nothing.shop/"]));
    assert!(unknown.contains("unknown_service"), "{unknown}");
    let listed = text(&mesh.cli(&["get", "accesspolicies", "-A"]));
    assert!(listed.contains("the mesh") && listed.contains("prices"), "{listed}");

    // A mistake is refused with its place, and what is in force stays.
    let out = mesh.try_apply(&READERS.replace("name: prices}", "name: price}"), &[]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(text(&out).contains("did you mean \"prices\"?"), "{}", text(&out));
    assert_eq!(cart.get("prices", "/").await.status, 403);
    assert!(mesh.cli(&["delete", "accesspolicies", "readers", "-n", "shop"]).status.success());
    mesh.reachable(&cart, "prices").await;
    drop(prices);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_does_not_know_access_policies_rejects_them_and_without_older_rules_lets_nobody_in() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web"]);
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.apply(READERS);
    let origin = Origin::named("prices-old").await;
    let old = mesh.sidecar("prices", "v1", origin.addr()).token(mesh.token("prices"));
    let old = old.args(&["--lack-feature", "access"]).start();
    // It says so, and does not offer itself: what it serves would be refused.
    eventually("the refusal is told", || async { text(&mesh.cli(&["proxy", "status"])).contains("access") })
        .await;
    let reply = web.get("prices", "/").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (503, Some("no_endpoint")));
    assert_eq!(origin.requests(), 0);
    drop(old);
}
