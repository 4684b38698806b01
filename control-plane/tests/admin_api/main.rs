//! The admin API over real HTTP: what its users meet.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod history;

use std::net::SocketAddr;

use clap::Parser;
use common::{Answer, request, service};
use outrigger_control::app::{self, App};
use outrigger_control::settings::Settings;
use serde_json::{Value as Json, json};

struct Plane {
    app: App,
    _folder: tempfile::TempDir,
}

async fn plane() -> Plane {
    let folder = tempfile::tempdir().unwrap();
    let data = common::data_folder(&folder);
    let arguments = ["outrigger-control", "--push", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"];
    let settings = Settings::parse_from(arguments.iter().map(std::ffi::OsStr::new).chain([data.as_os_str()]));
    Plane { app: app::build(settings).await.unwrap(), _folder: folder }
}

impl Plane {
    async fn send(
        &self,
        method: &'static str,
        path: &str,
        headers: &[&'static str],
        body: impl ToString,
    ) -> Answer {
        let (to, path, headers, body) = (self.app.admin, path.to_owned(), headers.to_vec(), body.to_string());
        tokio::task::spawn_blocking(move || request(to, method, &path, &headers, &body).unwrap())
            .await
            .unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    async fn create(&self, name: &str, spec: Json) -> Answer {
        let path = format!("/v1/services/shop/{name}");
        self.send("PUT", &path, &["If-None-Match: *"], service(name, spec)).await
    }
}

const CART: &str = "/v1/services/shop/cart";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_created_read_changed_and_deleted_by_its_version() {
    let plane = plane().await;
    assert_eq!(plane.get(CART).await.status, 404);
    let created = plane.create("cart", json!({ "owner": "checkout" })).await;
    assert_eq!((created.status, created.header("etag")), (201, Some("\"1\"")));
    assert_eq!(plane.create("cart", json!({})).await.status, 412, "it is there already");

    let read = plane.get(CART).await;
    assert_eq!((read.status, read.header("etag")), (200, Some("\"1\"")));
    assert_eq!(read.body["spec"]["owner"], "checkout");
    assert_eq!(read.body["metadata"]["resourceVersion"], "1");

    let changed = service("cart", json!({ "owner": "payments" }));
    let unconditional = plane.send("PUT", CART, &[], &changed).await;
    assert_eq!(unconditional.status, 428, "{}", unconditional.body);
    let stale = plane.send("PUT", CART, &["If-Match: \"9\""], &changed).await;
    assert_eq!((stale.status, stale.header("etag")), (412, Some("\"1\"")));
    assert_eq!(stale.body["current"]["spec"]["owner"], "checkout", "it tells what is there");
    let updated = plane.send("PUT", CART, &["If-Match: \"1\""], &changed).await;
    assert_eq!((updated.status, updated.header("etag")), (200, Some("\"2\"")));

    assert_eq!(plane.send("DELETE", CART, &[], "").await.status, 428);
    assert_eq!(plane.send("DELETE", CART, &["If-Match: \"1\""], "").await.status, 412);
    assert_eq!(plane.send("DELETE", CART, &["If-Match: \"2\""], "").await.status, 200);
    assert_eq!(plane.get(CART).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_can_be_edited_and_sent_back() {
    let plane = plane().await;
    plane.create("cart", json!({})).await;
    let mut object = plane.get(CART).await.body;
    object["spec"]["owner"] = "me".into();
    let answer = plane.send("PUT", CART, &["If-Match: \"1\""], &object).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_changes_what_it_names_of_the_version_it_expects() {
    let plane = plane().await;
    plane.create("cart", json!({ "owner": "a", "description": "the basket" })).await;
    let patch = async |expects, patch: Json| plane.send("PATCH", CART, &[expects], patch).await;
    let answer = patch("If-Match: \"1\"", json!({ "spec": { "owner": "b" } })).await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"2\"")), "{}", answer.body);
    assert_eq!(answer.body["spec"], json!({ "owner": "b", "description": "the basket" }));
    let stale = patch("If-Match: \"1\"", json!({ "spec": { "owner": "c" } })).await;
    assert_eq!((stale.status, &stale.body["current"]["spec"]["owner"]), (412, &json!("b")));
    let answer = patch("If-Match: *", json!({ "spec": { "description": null } })).await;
    assert_eq!(answer.body["spec"], json!({ "owner": "b" }));
    let wrong = patch("If-Match: *", json!({ "spec": { "onwer": "c" } })).await;
    assert_eq!((wrong.status, wrong.problems()[0].0.as_str()), (422, "/spec/onwer"), "{}", wrong.body);
    let renamed = patch("If-Match: *", json!({ "metadata": { "name": "other" } })).await;
    assert_eq!(renamed.status, 422, "{}", renamed.body);
    assert_eq!(plane.get(CART).await.body["spec"], json!({ "owner": "b" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_one_object_that_waits_tells_who_has_acknowledged_it() {
    let plane = plane().await;
    let path = format!("{CART}?wait=applied&timeout=5s");
    let answer = plane.send("PUT", &path, &["If-None-Match: *"], service("cart", json!({}))).await;
    assert_eq!((answer.status, answer.header("etag")), (201, Some("\"1\"")), "{}", answer.body);
    assert_eq!(answer.body["wait"], json!({ "acknowledged": 0, "proxies": 0, "missing": [] }));
    assert_eq!(answer.body["changes"], json!([{ "object": "services/shop/cart", "action": "created" }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_to_everybody() {
    let plane = plane().await;
    let answer = plane.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.body["openapi"], "3.1.0");
    let kept = include_str!("../../../docs/openapi.json");
    assert_eq!(answer.body, serde_json::from_str::<Json>(kept).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_document_may_ask_its_own_origin_and_nobody_else() {
    let plane = plane().await;
    let page = plane.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(policy.contains("connect-src 'self';") && !policy.contains("http"), "{policy}");
    for (file, kind) in [("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")] {
        let answer = plane.get(&format!("/docs/{file}")).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")), "{file}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{file}");
    }
    assert_eq!(plane.get("/docs/other.js").await.status, 404);
    let foreign = plane.send("GET", "/docs", &["Sec-Fetch-Site: cross-site"], "").await;
    assert_eq!(foreign.status, 403, "no other page may take it into a frame or read it");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_edit_one_version_one_is_told_to_look_again() {
    let plane = plane().await;
    plane.create("cart", json!({})).await;
    let edit = |owner: &str| {
        let body = service("cart", json!({ "owner": owner }));
        let plane = &plane;
        async move { plane.send("PUT", CART, &["If-Match: \"1\""], body).await.status }
    };
    let (one, two) = tokio::join!(edit("a"), edit("b"));
    assert_eq!((one.min(two), one.max(two)), (200, 412));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_mistakes_are_three_problems_with_their_places() {
    let plane = plane().await;
    let body = "{\"apiVersion\": \"outrigger.dev/v1alpha1\", \"kind\": \"MeshService\",\n\
                \"metadata\": {\"name\": \"cart\", \"namespace\": \"shop\", \"lables\": {}},\n\
                \"spec\": {\n\"ports\": [{\"port\": \"80\"}],\n\"timeouts\": {\"request\": \"2 s\"}}}";
    let answer = plane.send("PUT", CART, &["If-None-Match: *"], body).await;
    assert_eq!((answer.status, answer.header("content-type")), (422, Some("application/problem+json")));
    let lines: Vec<_> =
        answer.body["problems"].as_array().unwrap().iter().map(|p| p["line"].as_u64()).collect();
    assert_eq!(lines, [Some(2), Some(4), Some(5)], "{}", answer.body);
    assert_eq!(answer.body["problems"][0]["hint"], "did you mean \"labels\"?");
    assert_eq!(plane.get(CART).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_is_all_or_nothing_and_one_revision() {
    let plane = plane().await;
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "canary", "namespace": "shop" },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": "prices" }],
            "rules": [{ "backendRefs": [
                { "group": "outrigger.dev", "kind": "ServiceVersion", "name": "prices.v1", "weight": 90 },
                { "group": "outrigger.dev", "kind": "ServiceVersion", "name": "prices.v2", "weight": 10 },
            ] }],
        },
    });
    let wrong = json!({ "items": [service("prices", json!({})), route, service("cart", json!({ "hostnames": ["a.bank"] }))] });
    let answer = plane.send("POST", "/v1/apply", &[], &wrong).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(answer.problems(), [("/items/2/spec/hostnames/0".to_owned(), "conflict".to_owned())]);
    assert_eq!(plane.get("/v1/services").await.body["items"], json!([]));

    let right = json!({ "items": [route, service("prices", json!({}))] });
    let dry = plane.send("POST", "/v1/apply?dryRun=true", &[], &right).await;
    assert_eq!((dry.status, &dry.body["revision"]), (200, &json!(0)));
    let answer =
        plane.send("POST", "/v1/apply?wait=applied&timeout=1s", &["X-Outrigger-Why: canary"], &right).await;
    assert_eq!((answer.status, &answer.body["revision"]), (200, &json!(1)), "{}", answer.body);
    assert_eq!(answer.body["warnings"].as_array().unwrap().len(), 2, "no instance has either version yet");
    assert_eq!(plane.get("/v1/httproutes/shop").await.body["items"][0]["metadata"]["name"], "canary");

    let revision = plane.get("/v1/revisions/1").await.body;
    assert_eq!((&revision["why"], revision["changes"].as_array().unwrap().len()), (&json!("canary"), 2));
    let audit = plane.get("/v1/audit?limit=1").await.body;
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["why"]),
        (&json!("create"), &json!("canary"))
    );
    assert_eq!(plane.get("/v1/revisions/2").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_by_looking_at_the_mesh_points_into_the_request_as_well() {
    let plane = plane().await;
    let gateway_api = "gateway.networking.k8s.io/v1";
    let metadata = |name: &str| json!({ "name": name, "namespace": "shop" });
    let listener = |name: &str| json!({ "name": name, "port": 80, "protocol": "HTTP" });
    let gateway = |listeners: Json| {
        json!({ "apiVersion": gateway_api, "kind": "Gateway", "metadata": metadata("edge"),
            "spec": { "gatewayClassName": "outrigger", "listeners": listeners } })
    };
    let route = |parents: Json| {
        json!({ "apiVersion": gateway_api, "kind": "HTTPRoute", "metadata": metadata("shop"),
            "spec": { "parentRefs": parents, "rules": [{ "backendRefs": [{ "name": "cart" }] }] } })
    };
    let good = route(json!([{ "name": "edge", "sectionName": "web" }]));
    let items = json!([service("cart", json!({})), gateway(json!([listener("web")])), good]);
    let answer = plane.send("POST", "/v1/apply", &[], json!({ "items": items })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    let places = |answer: &Answer| answer.problems().into_iter().map(|(at, _)| at).collect::<Vec<_>>();
    // In the order of the kinds, whatever the order of the items.
    let egress = json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "EgressService",
        "metadata": metadata("pay"), "spec": { "hosts": ["pay.shop.mesh"], "ports": [{ "port": 443 }] } });
    let lost = route(json!([{ "name": "edge", "sectionName": "wbe" }, { "name": "egde" }]));
    let answer = plane.send("POST", "/v1/apply", &[], json!({ "items": [lost, egress] })).await;
    assert_eq!(
        places(&answer),
        ["/items/1/spec/hosts/0", "/items/0/spec/parentRefs/0", "/items/0/spec/parentRefs/1/name"],
        "{}",
        answer.body
    );
    assert!(
        answer.body["problems"].as_array().unwrap().iter().all(|p| !p["hint"].is_null()),
        "{}",
        answer.body
    );

    // What breaks something that is not part of the request.
    let items = json!([service("cart", json!({})), gateway(json!([listener("other")]))]);
    let answer = plane.send("POST", "/v1/apply", &[], json!({ "items": items })).await;
    assert_eq!(places(&answer), ["/items/1"], "{}", answer.body);
    let mut odd = service("cart", json!({}));
    odd["metadata"]["resourceVersion"] = "x".into();
    let answer = plane.send("POST", "/v1/apply", &[], json!({ "items": [good, odd] })).await;
    assert_eq!(places(&answer), ["/items/1/metadata/resourceVersion"], "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_in_an_applied_object_is_held_to() {
    let plane = plane().await;
    plane.create("cart", json!({})).await;
    plane.create("other", json!({})).await;
    let mut stale = service("cart", json!({ "owner": "a" }));
    stale["metadata"]["resourceVersion"] = "2".into();
    let answer = plane.send("POST", "/v1/apply", &[], json!({ "items": [stale] })).await;
    assert_eq!((answer.status, answer.header("etag")), (412, Some("\"1\"")), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_document() {
    let plane = plane().await;
    let large = format!("{{\"items\": \"{}\"}}", "x".repeat(5 << 20));
    let json_type = "Content-Type: application/json";
    for (method, path, headers, body, status) in [
        ("GET", "/", &[][..], "", 404),
        ("GET", "/v1/nothings", &[], "", 404),
        ("GET", "/v1/services/shop/cart/more", &[], "", 404),
        ("PATCH", "/v1/services/shop/cart", &[json_type], "{}", 428),
        ("PATCH", "/v1/services/shop/cart", &[json_type, "If-Match: *"], "{}", 404),
        ("PATCH", "/v1/services/shop/cart", &[json_type, "If-Match: *"], "{", 400),
        ("POST", "/v1/services/shop/cart", &[json_type], "{}", 405),
        ("GET", "/v1/watch?since=9", &[], "", 410),
        ("GET", "/v1/watch?of=secrets", &[], "", 400),
        ("DELETE", "/v1/apply", &[], "", 405),
        ("GET", "/v1/services/Shop", &[], "", 400),
        ("GET", "/v1/services?limt=1", &[], "", 400),
        ("GET", "/v1/revisions/x", &[], "", 400),
        ("PUT", "/v1/services/shop/cart", &["Content-Type: text/plain", "If-None-Match: *"], "{}", 415),
        ("PUT", "/v1/services/shop/cart", &["If-None-Match: *"], "{", 422),
        ("POST", "/v1/apply", &[], &large, 413),
        ("POST", "/v1/join-tokens", &[], "{\"namespace\": \"shop\"}", 400),
        ("GET", "/v1/services", &["Host: evil.example"], "", 421),
        ("GET", "/v1/services", &["Origin: https://evil.example"], "", 403),
    ] {
        let answer = plane.send(method, path, headers, body).await;
        let kind = answer.header("content-type");
        assert_eq!(
            (answer.status, kind),
            (status, Some("application/problem+json")),
            "{method} {path}: {}",
            answer.body
        );
        assert_eq!(answer.body["status"], status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_shown_once_and_its_secret_is_nowhere_else() {
    let plane = plane().await;
    let wanted = json!({ "namespace": "shop", "serviceAccount": "cart", "ttl": "5m" });
    let answer = plane.send("POST", "/v1/join-tokens", &[], &wanted).await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")));
    let token = answer.body["token"].as_str().unwrap();
    assert!(token.starts_with("ojt1."));
    let audit = plane.get("/v1/audit").await.body.to_string();
    assert!(audit.contains("create-token") && !audit.contains(token));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_facts_answer() {
    let plane = plane().await;
    for path in
        ["/healthz", "/readyz", "/metrics", "/v1/proxies", "/v1/stats", "/v1/revisions", "/v1/instances"]
    {
        assert_eq!(plane.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_not_listen_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let data = common::data_folder(&folder);
    let mut settings = Settings::parse_from(["outrigger-control"]);
    (settings.data, settings.admin, settings.push) =
        (data.clone(), SocketAddr::from(([0, 0, 0, 0], 0)), SocketAddr::from(([127, 0, 0, 1], 0)));
    let error = app::build(settings).await.err().unwrap().to_string();
    assert!(error.contains("loopback only"), "{error}");
    assert!(!data.exists(), "and nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_and_the_same_data_starts_again() {
    let Plane { app, _folder: folder } = plane().await;
    let admin = app.admin;
    let body = service("cart", json!({})).to_string();
    let put = move || request(admin, "PUT", CART, &["If-None-Match: *"], &body).unwrap().status;
    assert_eq!(tokio::task::spawn_blocking(put).await.unwrap(), 201);
    app.shutdown().await;
    let data = common::data_folder(&folder);
    let again = [
        "outrigger-control",
        "--push",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--data",
        data.to_str().unwrap(),
    ];
    let app = app::build(Settings::parse_from(again)).await.unwrap();
    let plane = Plane { app, _folder: folder };
    assert_eq!(plane.get(CART).await.status, 200);
}
