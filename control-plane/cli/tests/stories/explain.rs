//! What `explain` tells of a request is what a sidecar does with it: a thousand requests, made by a generator with a
//! fixed seed, are asked of both.

use http::{HeaderName, HeaderValue, Method};
use outrigger_testkit::{Client, Reply};
use serde_json::{Value, json};

use crate::support::Mesh;

/// Rules of every sort, each marked by a header of the response.
const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: first, namespace: shop}
spec:
  parentRefs: [{group: outrigger.dev, kind: MeshService, name: prices}]
  rules:
  - matches: [{path: {type: Exact, value: /items}, method: GET}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: shop/first/0}]}}]
    backendRefs: [{group: outrigger.dev, kind: ServiceVersion, name: prices.v1}]
  - matches:
    - {path: {type: PathPrefix, value: /items}, headers: [{name: x-tier, value: gold}]}
    - {path: {type: PathPrefix, value: /gold}}
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: shop/first/1}]}}]
    backendRefs: [{group: outrigger.dev, kind: ServiceVersion, name: prices.v2}]
  - matches: [{path: {type: RegularExpression, value: '/items/[0-9]+/reviews'}}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: shop/first/2}]}}]
    backendRefs: [{group: outrigger.dev, kind: ServiceVersion, name: prices.v3}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /items}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: second, namespace: shop}
spec:
  parentRefs: [{group: outrigger.dev, kind: MeshService, name: prices}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /items}}]
    filters:
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: shop/second/0}]}}
    - {type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: RouteFilter, name: by-user}}
    backendRefs:
    - {group: outrigger.dev, kind: ServiceVersion, name: prices.v1, weight: 60}
    - {group: outrigger.dev, kind: ServiceVersion, name: prices.v2, weight: 30}
    - {group: outrigger.dev, kind: ServiceVersion, name: prices.v3, weight: 10}
  - matches: [{path: {type: PathPrefix, value: /items}, queryParams: [{name: page, type: RegularExpression, value: '[0-9]+'}]}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: shop/second/1}]}}]
    backendRefs:
    - {group: outrigger.dev, kind: ServiceVersion, name: prices.v1, weight: 0}
    - {group: outrigger.dev, kind: ServiceVersion, name: prices.v3, weight: 1}
  - matches: [{method: DELETE}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: shop/second/2}]}}]
    backendRefs: [{group: outrigger.dev, kind: MeshService, name: prices}]
---
apiVersion: outrigger.dev/v1alpha1
kind: RouteFilter
metadata: {name: by-user, namespace: shop}
spec: {splitBy: {header: x-user}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_agrees_with_what_a_real_sidecar_did_for_a_thousand_requests() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web"]);
    let _prices = [
        mesh.instance("prices", "v1").await,
        mesh.instance("prices", "v2").await,
        mesh.instance("prices", "v3").await,
    ];
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "prices").await;
    mesh.apply(ROUTES);
    let (mut requests, mut admin) = (Client::h1(web.outbound).await, Client::h1(mesh.admin).await);
    let mut chance = fastrand::Rng::with_seed(4711);
    let mut met = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..1_000 {
        let asked = Asked::drawn(&mut chance);
        let told = asked.explained(&mut admin, mesh.admin).await;
        let reply = requests.send(asked.request("prices")).await.unwrap();
        asked.agrees(&told, &reply);
        let rule = told["route"]["rule"].as_str().unwrap_or("none").to_owned();
        *met.entry(rule).or_default() += 1;
    }
    assert!(met.len() >= 7 && met.values().all(|n| *n >= 10), "every rule is met often enough: {met:?}");
}

/// A request as it is made and as it is described.
#[derive(Debug)]
struct Asked {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
}

impl Asked {
    fn drawn(chance: &mut fastrand::Rng) -> Self {
        const PATHS: [&str; 12] = [
            "/items",
            "/items/7",
            "/items/7/reviews",
            "/items/x/reviews",
            "/items/7/reviews/1",
            "/gold/bar",
            "/golden",
            "/old/7",
            "/old",
            "/other",
            "/items/",
            "/items/../items/%37",
        ];
        let methods = [Method::GET, Method::GET, Method::POST, Method::DELETE];
        let mut path = PATHS[chance.usize(..PATHS.len())].to_owned();
        match chance.u8(..4) {
            0 => path.push_str("?page=2"),
            1 => path.push_str("?page=two&page=2"),
            _ => {}
        }
        let mut headers = vec![];
        if chance.u8(..4) > 0 {
            headers.push(("x-user", format!("user-{}", chance.u8(..))));
        }
        match chance.u8(..4) {
            0 => headers.push(("x-tier", "gold".to_owned())),
            1 => headers.push(("x-tier", "silver".to_owned())),
            _ => {}
        }
        Self { method: methods[chance.usize(..methods.len())].clone(), path, headers }
    }

    async fn explained(&self, admin: &mut Client, at: std::net::SocketAddr) -> Value {
        let described = json!({
            "from": "shop/web", "host": "prices.shop", "method": self.method.as_str(), "path": self.path,
            "headers": self.headers,
        });
        let body = bytes::Bytes::from(described.to_string());
        let mut post = outrigger_testkit::request(Method::POST, &at.to_string(), "/v1/explain", body);
        post.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        let reply = admin.send(post).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    fn request(&self, host: &str) -> http::Request<outrigger_testkit::RequestBody> {
        let mut request =
            outrigger_testkit::request(self.method.clone(), host, &self.path, bytes::Bytes::new());
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        request
    }

    fn agrees(&self, told: &Value, reply: &Reply) {
        let seen = format!("{self:?}: {} {:?}, told {told:#}", reply.status, reply.headers);
        if let Some(reason) = told["refused"]["reason"].as_str() {
            assert_eq!(reply.header("x-outrigger-reason"), Some(reason), "{seen}");
            return;
        }
        let route = &told["route"];
        let filters: Vec<&str> =
            route["filters"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        if filters.iter().any(|filter| filter.starts_with("redirect 301")) {
            assert_eq!(reply.status, 301, "{seen}");
            return;
        }
        assert_eq!(reply.status, 200, "{seen}");
        assert_eq!(reply.header("x-rule"), route["rule"].as_str(), "{seen}");
        let answered = reply.text();
        let possible =
            route["backends"].as_array().unwrap().iter().filter(|b| b["percent"].as_f64() > Some(0.0));
        let possible: Vec<_> = possible.collect();
        let fits =
            |b: &&Value| b["version"].as_str().is_none_or(|v| answered.contains(&format!("prices-{v}")));
        assert!(possible.iter().any(fits), "{seen} answered by {answered}");
        if route["settledBy"].is_string() {
            assert_eq!(possible.len(), 1, "what is settled is one backend: {seen}");
        }
    }
}
