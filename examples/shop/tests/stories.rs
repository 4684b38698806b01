//! What an outside client sees of the shop, and what the mesh sees of its calls.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod common;

use std::time::Duration;

use common::{Answer, Route, Seen, Shop, TRACEPARENT, TRACESTATE};
use http::StatusCode;
use outrigger_shop::catalogue::ITEMS;
use outrigger_shop::prices::Version;
use serde_json::json;

const BROKEN: Route = Route::Answer(StatusCode::SERVICE_UNAVAILABLE, "no_endpoint");

#[tokio::test]
async fn the_page_lists_every_item() {
    let shop = Shop::open().await;
    let page = shop.get("/").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(ITEMS.iter().all(|item| page.contains(item.name)), "{page}");
    assert_eq!(shop.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(shop.mesh.seen(), []);
}

#[tokio::test]
async fn an_item_joins_what_three_services_say() {
    let shop = Shop::open().await;
    let answer = shop.get("/items/anchor").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let item = answer.json();
    assert_eq!(item["price"], json!({ "price": "39.90", "currency": "EUR", "version": "v1" }));
    assert_eq!(item["reviews"]["count"], 2);
    assert_eq!(item["reviews"]["average"], 4.5);
    assert_eq!(item["reviews"]["list"][1]["author"], "Piet");
    assert_eq!(item["recommendations"], json!([{ "id": "rope" }]));
    for service in ["prices", "reviews", "recommendations"] {
        assert_eq!(item["dependencies"][service], json!({ "status": "ok" }));
    }
}

#[tokio::test]
async fn the_trace_is_passed_on_to_every_dependency() {
    let shop = Shop::open().await;
    shop.post("/cart/ada/items", r#"{"id":"rope"}"#).await;
    shop.get("/cart/ada").await;
    shop.get("/items/anchor").await;
    let seen = shop.mesh.seen();
    let came: Vec<_> = seen.iter().map(|Seen { service, path, .. }| (&**service, &**path)).collect();
    let expected = [
        ("cart", "/cart/ada"),
        ("cart", "/cart/ada/items"),
        ("prices", "/price/anchor"),
        ("prices", "/price/rope"),
        ("recommendations", "/recommendations/anchor"),
        ("reviews", "/shop.reviews.v1.Reviews/Get"),
        ("reviews", "/shop.reviews.v1.Reviews/Stream"),
    ];
    assert_eq!(came, expected);
    for request in seen {
        assert_eq!(request.traceparent.as_deref(), Some(TRACEPARENT), "{request:?}");
        assert_eq!(request.tracestate.as_deref(), Some(TRACESTATE), "{request:?}");
    }
}

#[tokio::test]
async fn the_version_of_prices_that_answered_is_visible() {
    let mut shop = Shop::open().await;
    let first = json!({ "id": "lantern", "price": "34.68", "currency": "EUR", "version": "v1" });
    assert_eq!(shop.get("/price/lantern").await.json(), first);
    shop.prices(Version::V2, Duration::ZERO).await;
    let second = json!({ "id": "lantern", "price": "31.20", "currency": "EUR", "version": "v2" });
    assert_eq!(shop.get("/price/lantern").await.json(), second);
    assert_eq!(shop.get("/items/lantern").await.json()["price"]["version"], "v2");
}

#[tokio::test]
async fn a_cart_adds_up_with_a_price_for_each_kind_of_item() {
    let shop = Shop::open().await;
    shop.post("/cart/ada/items", r#"{"id":"rope","quantity":2}"#).await;
    shop.post("/cart/ada/items", r#"{"id":"sail"}"#).await;
    let added = shop.post("/cart/ada/items", r#"{"id":"rope"}"#).await;
    assert_eq!(added.json(), json!({ "user": "ada", "pieces": 4 }));
    let expected = json!({
        "user": "ada",
        "lines": [
            { "id": "rope", "quantity": 3, "price": "18.57", "version": "v1" },
            { "id": "sail", "quantity": 1, "price": "315.42", "version": "v1" },
        ],
        "pieces": 4,
        "total": "371.13",
        "currency": "EUR",
    });
    assert_eq!(shop.get("/cart/ada").await.json(), expected);
    assert_eq!(shop.get("/cart/nobody").await.json()["total"], "0.00");
    let priced = shop.mesh.seen().into_iter().filter(|seen| seen.service == "prices").count();
    assert_eq!(priced, 2);
}

#[tokio::test]
async fn recommendations_may_be_missing() {
    let shop = Shop::open().await;
    shop.mesh.route("recommendations", BROKEN);
    let answer = shop.get("/items/anchor").await;
    assert_eq!(answer.status, StatusCode::OK);
    let item = answer.json();
    assert_eq!(item["recommendations"], json!(null));
    let failed = json!({ "status": "failed", "reason": "answered 503: no_endpoint" });
    assert_eq!(item["dependencies"]["recommendations"], failed);
    assert_eq!(item["dependencies"]["prices"]["status"], "ok");
}

#[tokio::test]
async fn a_dependency_that_fails_is_named() {
    for (service, path) in [
        ("prices", "/price/rope"),
        ("prices", "/items/rope"),
        ("reviews", "/items/rope"),
        ("cart", "/cart/ada"),
    ] {
        let shop = Shop::open().await;
        shop.mesh.route(service, BROKEN);
        let answer = shop.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{path}: {answer:?}");
        assert_eq!(answer.json()["dependency"], service, "{path}");
        assert_eq!(answer.json()["error"], format!("{service} failed"), "{path}");
    }
}

#[tokio::test]
async fn a_cart_without_prices_says_which_service_of_its_own_failed() {
    let shop = Shop::open().await;
    shop.post("/cart/ada/items", r#"{"id":"rope"}"#).await;
    shop.mesh.route("prices", BROKEN);
    let answer = shop.get("/cart/ada").await.json();
    assert_eq!(answer["dependency"], "cart");
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.starts_with("answered 502: ") && reason.contains("prices failed"), "{reason}");
}

#[tokio::test]
async fn a_service_the_mesh_does_not_know_is_not_the_users_mistake() {
    let shop = Shop::open().await;
    shop.mesh.route("prices", Route::Answer(StatusCode::NOT_FOUND, "unknown_service"));
    let answer = shop.get("/price/rope").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["reason"], "answered 404: unknown_service");
}

#[tokio::test]
async fn a_dependency_that_takes_too_long_is_named_too() {
    let mut shop = Shop::open().await;
    shop.prices(Version::V1, Duration::from_mins(1)).await;
    let answer = shop.get("/price/rope").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["reason"], "no answer within 3 s");
}

#[tokio::test]
async fn what_the_user_got_wrong_is_refused_without_a_call() {
    let shop = Shop::open().await;
    let items = "/cart/ada/items";
    let refused = |answer: Answer, status: u16, hint: &str| {
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(hint), "{hint} is missing in: {error}");
    };
    refused(shop.get("/items/kraken").await, 404, "kraken");
    refused(shop.get("/price/kraken").await, 404, "kraken");
    refused(shop.get("/cart/a%20b").await, 400, "1 to 64 letters");
    refused(shop.get("/cart/a%2F..").await, 400, "1 to 64 letters");
    refused(shop.post(items, r#"{"id":"kraken"}"#).await, 404, "kraken");
    refused(shop.post(items, r#"{"id":"rope","quantity":0}"#).await, 400, "from 1 to 100");
    refused(shop.post(items, r#"{"id":"rope","quantity":101}"#).await, 400, "from 1 to 100");
    refused(shop.post(items, r#"{"id":"rope","amount":1}"#).await, 422, "amount");
    refused(shop.post(items, r#"{"id":"#).await, 400, "JSON");
    refused(shop.post(items, &format!("{:>20000}", "{}")).await, 413, "limit");
    assert_eq!(shop.mesh.seen(), []);
}

#[tokio::test]
async fn a_full_cart_is_the_users_affair() {
    let shop = Shop::open().await;
    shop.post("/cart/ada/items", r#"{"id":"rope","quantity":100}"#).await;
    let answer = shop.post("/cart/ada/items", r#"{"id":"rope"}"#).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.json()["error"], "the cart is full");
}

#[tokio::test]
async fn connections_to_the_mesh_are_kept_alive() {
    let shop = Shop::open().await;
    for _ in 0..10 {
        assert_eq!(shop.get("/price/rope").await.status, StatusCode::OK);
    }
    assert_eq!(shop.mesh.connections(), 1);
}
