//! The services as processes: how they start, how they end, and the one in Python.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use common::process::Process;
use common::{Route, Shop, TRACEPARENT, TRACESTATE, ask};
use http::{Method, StatusCode};
use serde_json::json;

const WEB: &str = env!("CARGO_BIN_EXE_shop-web");
const CART: &str = env!("CARGO_BIN_EXE_shop-cart");
const PRICES: &str = env!("CARGO_BIN_EXE_shop-prices");
const REVIEWS: &str = env!("CARGO_BIN_EXE_shop-reviews");

fn outbound(address: SocketAddr) -> (&'static str, String) {
    ("OUTRIGGER_OUTBOUND", address.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn recommendations_in_python_asks_prices_through_the_mesh_and_passes_the_trace_on() {
    let shop = Shop::open().await;
    let mut python = Process::recommendations(&[outbound(shop.mesh.address)]);
    shop.mesh.route("recommendations", Route::To(python.address()));
    let item = shop.get("/items/anchor").await.json();
    let expected = json!([
        { "id": "rope", "price": "18.57", "currency": "EUR", "version": "v1" },
        { "id": "dry-bag", "price": "24.33", "currency": "EUR", "version": "v1" },
    ]);
    assert_eq!(item["recommendations"], expected, "{item}");

    let seen = shop.mesh.seen();
    let of_python: Vec<_> = seen.iter().filter(|seen| seen.path == "/price/rope").collect();
    assert_eq!(of_python.len(), 1);
    assert_eq!(of_python[0].traceparent.as_deref(), Some(TRACEPARENT));
    assert_eq!(of_python[0].tracestate.as_deref(), Some(TRACESTATE));
}

#[tokio::test(flavor = "multi_thread")]
async fn recommendations_in_python_knows_every_item_and_keeps_its_connections() {
    let shop = Shop::open().await;
    let mut python = Process::recommendations(&[outbound(shop.mesh.address)]);
    let address = python.address();
    for item in &outrigger_shop::catalogue::ITEMS {
        let answer = ask(address, Method::GET, &format!("/recommendations/{}", item.id), "{}").await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert_eq!(shop.mesh.connections(), 1);
    let answer = ask(address, Method::GET, "/recommendations/kraken", "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);

    shop.mesh.route("prices", Route::Answer(StatusCode::SERVICE_UNAVAILABLE, "no_endpoint"));
    let answer = ask(address, Method::GET, "/recommendations/rope", "").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["dependency"], "prices");
    assert_eq!(answer.json()["reason"], "answered 503: no_endpoint");
}

#[test]
fn a_caller_without_the_address_to_call_ends_with_one_clear_line() {
    let hint = "OUTRIGGER_OUTBOUND is not set: give the address that calls go to, such as 127.0.0.1:15001\n";
    for (who, process) in [
        ("shop-web", Process::start(Path::new(WEB), &[], &[])),
        ("shop-cart", Process::start(Path::new(CART), &[], &[])),
        ("shop-recommendations", Process::recommendations(&[])),
    ] {
        let (status, said) = process.ended();
        assert_eq!(said, format!("{who}: {hint}"));
        assert_eq!(status.code(), Some(1), "{who}");
    }
}

#[test]
fn all_mistakes_in_the_settings_come_in_one_line() {
    let env = [("PORT", "http".to_owned()), ("OUTRIGGER_OUTBOUND", "15001".to_owned())];
    for process in [Process::start(Path::new(WEB), &[], &env), Process::recommendations(&env)] {
        let (status, said) = process.ended();
        assert!(said.contains("PORT: \"http\"") && said.contains("OUTRIGGER_OUTBOUND: \"15001\""), "{said}");
        assert_eq!((status.code(), said.lines().count()), (Some(1), 1));
    }
}

#[test]
fn a_port_in_use_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let env = [("PORT", address.port().to_string()), outbound(address)];
    for process in [
        Process::start(Path::new(PRICES), &[], &env),
        Process::start(Path::new(REVIEWS), &[], &env),
        Process::recommendations(&env),
    ] {
        let (status, said) = process.ended();
        assert!(said.contains(&format!("can not listen on {address}: ")), "{said}");
        assert_eq!((status.code(), said.lines().count()), (Some(1), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_finished_after_sigterm() {
    let shop = Shop::open().await;
    let slow = [("SHOP_DELAY_MS", "2000".to_owned()), outbound(shop.mesh.address)];
    for (mut process, path) in [
        (Process::start(Path::new(PRICES), &["--version=v2"], &slow), "/price/rope"),
        (Process::recommendations(&slow), "/recommendations/rope"),
    ] {
        let address = process.address();
        let asking = tokio::spawn(async move { ask(address, Method::GET, path, "").await });
        // Long enough for the request to have arrived, short enough for it not to be answered.
        tokio::time::sleep(Duration::from_millis(800)).await;
        process.terminate();
        assert_eq!(asking.await.unwrap().status, StatusCode::OK, "{path}");
        let (status, said) = process.ended();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_flight_is_finished_after_sigterm() {
    let shop = Shop::open().await;
    let mut reviews = Process::start(Path::new(REVIEWS), &["--delay-ms", "2000"], &[]);
    shop.mesh.route("reviews", Route::To(reviews.address()));
    let (answer, ()) = tokio::join!(shop.get("/items/rope"), async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        reviews.terminate();
    });
    assert_eq!(answer.json()["reviews"]["count"], 3, "{answer:?}");
    assert_eq!(reviews.ended().0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_left_behind_after_five_seconds() {
    let shop = Shop::open().await;
    let stuck = [("SHOP_DELAY_MS", "60000".to_owned()), outbound(shop.mesh.address)];
    let mut processes = [Process::start(Path::new(PRICES), &[], &stuck), Process::recommendations(&stuck)];
    let mut asking = tokio::task::JoinSet::new();
    for (process, path) in processes.iter_mut().zip(["/price/rope", "/recommendations/rope"]) {
        let address = process.address();
        asking.spawn(async move { ask(address, Method::GET, path, "").await });
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    let told = Instant::now();
    processes.iter().for_each(Process::terminate);
    for process in processes {
        let (status, said) = process.ended();
        assert_eq!((status.code(), said.as_str()), (Some(0), "requests were still in flight after 5 s\n"));
    }
    let took = told.elapsed();
    assert!((4..15).contains(&took.as_secs()), "{took:?}");
}
