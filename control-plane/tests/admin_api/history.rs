//! The past: what differs between revisions, what a change would mean, and the way back.

use serde_json::{Value as Json, json};

use super::common::{Answer, service};
use super::{CART, Plane, plane};

impl Plane {
    async fn apply(&self, items: &[Json]) -> u64 {
        let answer = self.post("/v1/apply", &json!({ "items": items })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["revision"].as_u64().unwrap()
    }

    async fn post(&self, path: &str, body: &Json) -> Answer {
        self.send("POST", path, &["X-Outrigger-Why: it went wrong"], body).await
    }

    async fn diff(&self, from: u64, to: &str) -> Json {
        let answer = self.get(&format!("/v1/revisions/{from}/diff/{to}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["changes"].clone()
    }
}

fn owned(name: &str, owner: &str) -> Json {
    service(name, json!({ "owner": owner }))
}

fn ours(kind: &str, name: &str, spec: &Json) -> Json {
    json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_revisions_are_compared_field_by_field_in_either_direction() {
    let plane = plane().await;
    plane.apply(&[owned("cart", "a"), owned("gone", "a")]).await;
    plane.apply(&[owned("cart", "b")]).await;
    assert_eq!(plane.send("DELETE", "/v1/services/shop/gone", &["If-Match: *"], "").await.status, 200);
    plane.apply(&[owned("new", "c")]).await;
    plane.apply(&[owned("cart", "c")]).await;

    let changes = plane.diff(1, "now").await;
    let told: Vec<_> = changes.as_array().unwrap().iter().map(|c| (&c["object"], &c["action"])).collect();
    assert_eq!(
        told,
        [
            (&json!("services/shop/cart"), &json!("updated")),
            (&json!("services/shop/gone"), &json!("deleted")),
            (&json!("services/shop/new"), &json!("created")),
        ]
    );
    assert_eq!(changes[0]["fields"], json!([{ "pointer": "/spec/owner", "before": "a", "after": "c" }]));
    let back = plane.get("/v1/revisions/5/diff/1").await.body["changes"].clone();
    assert_eq!(back[0]["fields"], json!([{ "pointer": "/spec/owner", "before": "c", "after": "a" }]));
    assert_eq!(back[1]["action"], "created");
    assert_eq!(plane.diff(5, "5").await, json!([]));
    assert_eq!(plane.diff(0, "1").await.as_array().unwrap().len(), 2);
    for (path, status) in [("9/diff/1", 404), ("1/diff/x", 400), ("-1/diff/1", 400)] {
        assert_eq!(plane.get(&format!("/v1/revisions/{path}")).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_one_revision_and_the_audit_log_tells_why() {
    let plane = plane().await;
    plane.apply(&[owned("cart", "a"), owned("gone", "a")]).await;
    plane.apply(&[owned("cart", "b"), owned("new", "b")]).await;
    plane.send("DELETE", "/v1/services/shop/gone", &["If-Match: *"], "").await;

    let dry = plane.post("/v1/rollback?dryRun=true", &json!({ "to": 1 })).await;
    assert_eq!((dry.status, &dry.body["revision"]), (200, &json!(3)), "{}", dry.body);
    let done = plane.post("/v1/rollback", &json!({ "to": 1 })).await;
    assert_eq!((done.status, &done.body["revision"]), (200, &json!(4)), "{}", done.body);
    let mut actions: Vec<String> = done.body["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {}", c["object"].as_str().unwrap(), c["action"].as_str().unwrap()))
        .collect();
    actions.sort();
    assert_eq!(
        actions,
        ["services/shop/cart updated", "services/shop/gone created", "services/shop/new deleted"]
    );
    assert_eq!(plane.get(CART).await.body["spec"]["owner"], "a");
    assert_eq!(plane.get("/v1/services/shop/new").await.status, 404);
    assert_eq!(plane.diff(1, "4").await, json!([]));
    let audit = plane.get("/v1/audit?limit=3").await.body;
    for line in audit["items"].as_array().unwrap() {
        assert_eq!(line["why"], "rollback to revision 1: it went wrong");
    }

    for (to, status) in [(json!(4), 400), (json!(9), 400), (json!("1"), 400), (json!(-1), 400)] {
        let answer = plane.post("/v1/rollback", &json!({ "to": to })).await;
        assert_eq!(answer.status, status, "{to}: {}", answer.body);
    }
}

/// Somebody was revoked after the revision that is gone back to, and an instance has left since.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_neither_revives_instances_nor_forgives_nor_closes_what_is_held_open() {
    let plane = plane().await;
    let instance = ours("Instance", "i-1", &json!({ "service": "cart", "address": "127.0.0.1" }));
    plane.apply(&[owned("cart", "a"), instance]).await;
    let denied = ours("Denylist", "gone", &json!({ "identities": ["thief"] }));
    let held = ours(
        "BreakerOverride",
        "cart",
        &json!({ "service": "cart", "mode": "forceOpen", "for": "1h", "why": "fire" }),
    );
    plane.apply(&[owned("cart", "b"), denied, held]).await;
    assert_eq!(plane.send("DELETE", "/v1/instances/shop/i-1", &["If-Match: *"], "").await.status, 200);

    let done = plane.post("/v1/rollback", &json!({ "to": 1 })).await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(
        done.body["stays"],
        json!(["breakeroverrides/shop/cart", "denylists/shop/gone"]),
        "{}",
        done.body
    );
    assert_eq!(plane.get(CART).await.body["spec"]["owner"], "a");
    assert_eq!(plane.get("/v1/instances/shop/i-1").await.status, 404);
    assert_eq!(plane.get("/v1/denylists/shop/gone").await.status, 200);
    assert_eq!(plane.get("/v1/breakeroverrides/shop/cart").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_every_field_and_changes_nothing() {
    let plane = plane().await;
    plane.apply(&[owned("cart", "a")]).await;
    let items = json!({ "items": [owned("cart", "b"), owned("new", "b")] });
    let dry = plane.post("/v1/apply?dryRun=true", &items).await;
    assert_eq!(dry.status, 200, "{}", dry.body);
    let changes = &dry.body["changes"];
    assert_eq!(changes[0]["fields"], json!([{ "pointer": "/spec/owner", "before": "a", "after": "b" }]));
    assert_eq!((&changes[1]["action"], &changes[1]["fields"][0]["pointer"]), (&json!("created"), &json!("")));
    assert_eq!(dry.body["affected"], json!([]), "nobody is connected");
    assert_eq!(plane.get(CART).await.body["spec"]["owner"], "a");
    let mut put = owned("cart", "c");
    put["metadata"]["labels"] = json!({ "a/b": "c" });
    let dry = plane.send("PUT", &format!("{CART}?dryRun=true"), &["If-Match: *"], &put).await;
    let pointers: Vec<_> =
        dry.body["changes"][0]["fields"].as_array().unwrap().iter().map(|f| &f["pointer"]).collect();
    assert_eq!(pointers, ["/metadata/labels", "/spec/owner"], "{}", dry.body);
}

/// Reads events of a watch until `wanted` have come.
fn events(to: std::net::SocketAddr, query: &str, wanted: usize) -> Vec<(u64, Json)> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    write!(stream, "GET /v1/watch{query} HTTP/1.1\r\nHost: {to}\r\n\r\n").unwrap();
    let (mut found, mut id) = (vec![], 0);
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("id: ") {
            id = number.parse().unwrap();
        } else if let Some(data) = line.strip_prefix("data: ") {
            found.push((id, serde_json::from_str(data).unwrap()));
        }
        if found.len() == wanted {
            return found;
        }
    }
    panic!("the watch ended after {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_every_change_in_order_and_goes_on_where_it_was() {
    let plane = plane().await;
    plane.apply(&[owned("cart", "a"), owned("new", "a")]).await;
    let to = plane.app.admin;
    let watching = tokio::task::spawn_blocking(move || events(to, "?since=0", 3));
    plane.apply(&[owned("cart", "b")]).await;
    plane.send("DELETE", "/v1/services/shop/new", &["If-Match: *"], "").await;
    let told = watching.await.unwrap();
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(told[0].1["changes"].as_array().unwrap().len(), 2);
    let second = &told[1].1["changes"][0];
    assert_eq!((&second["object"], &second["action"]), (&json!("services/shop/cart"), &json!("updated")));
    assert_eq!(second["resource"]["metadata"]["resourceVersion"], "2");
    assert_eq!(second["resource"]["spec"]["owner"], "b");
    assert_eq!(told[2].1["changes"], json!([{ "object": "services/shop/new", "action": "deleted" }]));
    let again = tokio::task::spawn_blocking(move || events(to, "?since=2", 1)).await.unwrap();
    assert_eq!(again[0].0, 3);

    let watching = tokio::task::spawn_blocking(move || events(to, "?of=instances&since=0", 1));
    plane.apply(&[ours("Instance", "i-1", &json!({ "service": "cart", "address": "127.0.0.1" }))]).await;
    let told = watching.await.unwrap();
    assert_eq!(told[0].1["changes"][0]["object"], "instances/shop/i-1");
}
