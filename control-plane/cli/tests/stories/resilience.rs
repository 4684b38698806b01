//! Policies as they are written, and what becomes of them: in force at a sidecar, refused with a place and a hint, and
//! what an operator says of a breaker, until its time is over.

use std::time::{Duration, Instant};

use outrigger_testkit::Client;
use serde_json::Value;

use crate::support::{Mesh, Sidecar, text};

const POLICIES: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshDefaults
metadata: {name: mesh, namespace: outrigger}
spec:
  trafficPolicy:
    timeouts: {request: 9s}
    retry: {budgetPercent: 10}
---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: prices, namespace: shop}
spec:
  targetRef: {group: outrigger.dev, kind: MeshService, name: prices}
  timeouts: {perTry: 2s}
  balance: {sticky: {cookie: {name: place}}}
---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: prices-for-web, namespace: shop}
spec:
  targetRef: {group: outrigger.dev, kind: MeshService, name: prices}
  callers: [web]
  retry: {retries: 0}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_of_policies_are_in_force_at_the_sidecar_and_contradictions_are_refused() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web"]);
    let _prices = mesh.instance("prices", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "prices").await;
    mesh.apply(POLICIES);
    let told = policy(&mesh, &web);
    let policy = &told["policy"];
    assert_eq!((&policy["timeouts"]["request"], &policy["timeouts"]["perTry"]), (&"9s".into(), &"2s".into()));
    assert_eq!((&policy["retry"]["retries"], &policy["retry"]["budgetPercent"]), (&0.into(), &10.into()));
    assert_eq!(policy["balance"]["sticky"]["cookie"]["name"], "place");
    assert_eq!(told["ofThisCaller"], true);

    // The mesh's own change would break what the service says.
    let short = POLICIES.replace("request: 9s", "request: 1s");
    let short = short.split("---").next().unwrap();
    let out = mesh.try_apply(short, &[]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    for word in ["apply.yaml:6:", "timeouts.perTry", "trafficpolicies/shop/prices says /spec/timeouts/perTry"]
    {
        assert!(text(&out).contains(word), "{word}:\n{}", text(&out));
    }
    // A second policy for the same is refused, and names the first.
    let second =
        POLICIES.split("---").nth(1).unwrap().replace("name: prices, namespace", "name: other, namespace");
    let out = mesh.try_apply(&second, &[]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(text(&out).contains("TrafficPolicy shop/prices"), "{}", text(&out));
    let listed = text(&mesh.cli(&["get", "trafficpolicies", "-n", "shop"]));
    assert!(listed.contains("MeshService/prices") && listed.contains("prices-for-web"), "{listed}");

    let endpoints = mesh.cli(&["proxy", "endpoints", "prices", "--sidecar", &web.admin.to_string()]);
    let endpoints = text(&endpoints);
    assert!(endpoints.starts_with("SERVICE") && endpoints.contains("shop/prices"), "{endpoints}");
    // The same from anywhere, through the control plane.
    let node = mesh.node_of("web").await;
    let elsewhere = text(&mesh.cli(&["proxy", "endpoints", "prices", "--node", &node]));
    assert_eq!(elsewhere.lines().next(), endpoints.lines().next());
    assert!(elsewhere.contains("shop/prices"), "{elsewhere}");
    let config = text(&mesh.cli(&["proxy", "config", "--node", &node]));
    assert!(config.contains("prices.shop") && config.contains("phase: serving"), "{config}");
    let certs = text(&mesh.cli(&["proxy", "certs", "--node", &node, "-o", "json"]));
    assert!(certs.contains("/ns/shop/sa/web") && !certs.contains("PRIVATE"), "{certs}");
    let nobody = mesh.cli(&["proxy", "config", "--node", "nobody"]);
    assert!(!nobody.status.success() && text(&nobody).contains("proxy status"), "{}", text(&nobody));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_of_a_breaker_is_at_the_sidecar_says_why_and_ends() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web"]);
    let _prices = mesh.instance("prices", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "prices").await;

    let open_for = |time| {
        let said = ["breaker", "open", "prices", "-n", "shop", "--for", time, "--why", "moving the database"];
        let out = mesh.cli(&said);
        assert!(out.status.success(), "{}", text(&out));
    };
    open_for("1m");
    until_overrides(&mesh, &web, 1).await;
    let told = policy(&mesh, &web);
    assert_eq!(told["overrides"][0]["mode"], "forceOpen");
    let refused = web.get("prices", "/").await;
    assert_eq!((refused.status.as_u16(), refused.header("x-outrigger-reason")), (503, Some("breaker_open")));
    let listed = text(&mesh.cli(&["breaker", "list"]));
    assert!(listed.contains("forceOpen") && listed.contains("moving the database"), "{listed}");
    // So it is at the sidecars, as they say themselves.
    let status = text(&mesh.cli(&["breaker", "status", "--open"]));
    let line = status.lines().find(|l| l.starts_with("shop/prices")).unwrap_or_else(|| panic!("{status}"));
    let line = line.split_whitespace().collect::<Vec<_>>();
    assert_eq!(line[1..4], ["service", "forceOpen", "forceOpen"], "{status}");
    let of_web = mesh.admin("/v1/breakers?service=shop/prices").await;
    let at = of_web["items"][0]["at"]
        .as_array()
        .unwrap()
        .iter()
        .find(|at| at["identity"].as_str().unwrap().ends_with("/sa/web"));
    assert_eq!(at.unwrap_or_else(|| panic!("{of_web:#}"))["state"], "open");

    // Said again: it is over a second after that.
    open_for("1s");
    until_overrides(&mesh, &web, 0).await;
    mesh.reachable(&web, "prices").await;
    let listed = text(&mesh.cli(&["get", "breakeroverrides", "-n", "shop"]));
    assert!(listed.contains("(expired)"), "{listed}");
    let audit = mesh.admin("/v1/audit").await;
    let of_it = |action: &str| {
        let lines = audit["items"].as_array().unwrap();
        let line =
            lines.iter().find(|l| l["action"] == action && l["object"] == "BreakerOverride shop/prices");
        line.unwrap_or_else(|| panic!("{action} is not in {audit:#}"))["why"].clone()
    };
    assert_eq!(of_it("create"), "moving the database");
    assert_eq!(of_it("expire"), "its time is over");

    // What is taken back is no more, with its reason.
    let clear = ["breaker", "clear", "prices", "-n", "shop", "--why", "moved"];
    assert!(mesh.cli(&clear).status.success());
    let audit = mesh.admin("/v1/audit").await;
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["why"]),
        (&"delete".into(), &"moved".into())
    );
    let nothing = mesh.cli(&clear);
    assert_eq!(nothing.status.code(), Some(1), "{}", text(&nothing));
}

/// The policy of `shop/prices` as the sidecar tells it.
fn policy(mesh: &Mesh, sidecar: &Sidecar) -> Value {
    let at = sidecar.admin.to_string();
    let out = mesh.cli(&["proxy", "policy", "prices", "--sidecar", &at, "-o", "json"]);
    assert!(out.status.success(), "{}", text(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

async fn until_overrides(mesh: &Mesh, sidecar: &Sidecar, count: usize) {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        if policy(mesh, sidecar)["overrides"].as_array().is_some_and(|all| all.len() == count) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let page = Client::h1(sidecar.admin).await.get(&sidecar.admin.to_string(), "/policies").await.unwrap();
    panic!("there are not {count} overrides: {}", page.text());
}
