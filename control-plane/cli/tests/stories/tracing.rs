//! How much is traced is a setting like others: it is pushed, and holds without a restart.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::Method;
use outrigger_testkit::{Client, Collector, Origin, eventually, request};
use serde_json::Value;

use crate::support::{Mesh, Sidecar, text};

/// The YAML of a policy that traces so much of what goes to `target`.
fn policy(name: &str, target: &str, sample: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  targetRef: {target}\n  tracing: {{sample: {sample}}}\n"
    )
}

fn mesh_wide(sample: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: MeshDefaults\nmetadata: {{name: mesh, namespace: outrigger}}\n\
         spec:\n  trafficPolicy: {{tracing: {{sample: {sample}}}}}\n"
    )
}

const CART: &str = "{group: outrigger.dev, kind: MeshService, name: cart}";
const ROUTE: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: pay}";
/// A route for what is paid, and one for the rest.
const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pay, namespace: shop}
spec:
  parentRefs: [{group: outrigger.dev, kind: MeshService, name: cart}]
  rules: [{matches: [{path: {type: PathPrefix, value: /pay}}], backendRefs: [{group: outrigger.dev, kind: MeshService, name: cart}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rest, namespace: shop}
spec:
  parentRefs: [{group: outrigger.dev, kind: MeshService, name: cart}]
  rules: [{backendRefs: [{group: outrigger.dev, kind: MeshService, name: cart}]}]
";

/// What the collector gets of requests that nobody traced before.
struct Traced<'a> {
    collector: &'a Collector,
    asked: AtomicU32,
}

impl Traced<'_> {
    /// Whether a request to a path of its own below `path` is traced.
    async fn is(&self, web: &Sidecar, path: &str) -> bool {
        let number = self.asked.fetch_add(1, Relaxed);
        let (own, end) = (format!("{path}/n{number}x"), format!("/end/n{number}x"));
        let mut client = Client::h1(web.outbound).await;
        assert_eq!(client.get("cart", &own).await.unwrap().status, 200);
        // One behind it on the same connection that is traced whatever is said: what comes at all comes in this order.
        let mut traced = request(Method::GET, "cart", &end, "".into());
        traced.headers_mut().insert("traceparent", SAMPLED.parse().unwrap());
        assert_eq!(client.send(traced).await.unwrap().status, 200);
        eventually("the one behind it is told", || async { self.has(&end) }).await;
        self.has(&own)
    }

    fn has(&self, path: &str) -> bool {
        let taken = self.collector.taken();
        taken.iter().any(|taken| taken.message.windows(path.len()).any(|bytes| bytes == path.as_bytes()))
    }
}

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_traces_is_pushed_for_the_mesh_a_service_and_a_route_and_changes_without_a_restart() {
    let (mesh, collector, origin) = (Mesh::start(), Collector::start().await, Origin::start().await);
    mesh.services(&["cart", "web"]);
    mesh.apply(ROUTES);
    let _cart = mesh.sidecar("cart", "v1", origin.addr()).token(mesh.token("cart")).start();
    let flags = ["--otlp-endpoint", &collector.address(), "--otlp-protocol", "http", "--trace-sample", "0%"];
    let web = mesh.caller("web").token(mesh.token("web")).args(&flags).start();
    mesh.reachable(&web, "cart").await;
    web.has_kept(&mesh).await;

    let traced = Traced { collector: &collector, asked: AtomicU32::new(0) };
    assert!(!traced.is(&web, "/items").await, "nobody says anything, and the flag says 0%");
    mesh.apply(&mesh_wide("100%"));
    assert!(traced.is(&web, "/items").await, "the mesh says 100%");
    mesh.apply(&policy("cart", CART, "0%"));
    assert!(!traced.is(&web, "/items").await, "the service says 0%");
    mesh.apply(&policy("pay", ROUTE, "100%"));
    assert!(traced.is(&web, "/pay").await, "the route says 100%");

    let explained =
        mesh.cli(&["explain", "GET", "http://cart/pay/7", "--from", "web", "-n", "shop", "-o", "json"]);
    assert!(text(&explained).contains("\"traced\""), "{}", text(&explained));
    let told = Client::h1(web.admin).await.get("localhost", "/policies").await.unwrap();
    let told: Value = serde_json::from_str(&told.text()).unwrap();
    let shown = told.to_string();
    assert!(
        shown.contains(r#""tracing":{"sample":"0%"}"#) && shown.contains(r#""tracing":{"sample":"100%"}"#),
        "{shown}"
    );

    for (yaml, place, what) in [
        (policy("cart", CART, "2"), ":6:", "expected text"),
        (policy("cart", CART, "'2'"), ":6:", "write a percentage"),
        (policy("cart", CART, "101%"), ":6:", "0% to 100%"),
        (mesh_wide("1%").replace("sample", "sampel"), ":5:", "sample"),
    ] {
        let out = mesh.try_apply(&yaml, &[]);
        let said = text(&out);
        assert!(!out.status.success() && said.contains(place) && said.contains(what), "{yaml}: {said}");
    }
    for name in ["cart", "pay"] {
        assert!(mesh.cli(&["delete", "trafficpolicies", name, "-n", "shop"]).status.success());
    }
    mesh.apply(&mesh_wide("0%"));
    eventually("nothing is traced any more", || async { !traced.is(&web, "/pay").await }).await;
}
