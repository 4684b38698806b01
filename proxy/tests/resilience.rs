//! Deadlines, retries, balancing: what the application does not notice, and what it is told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use outrigger_mesh::{Backend, Endpoint, Resource, Route, RouteName, Service, Timeouts, Version};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, Reset, request};
use support::{Mesh, open_service, plain};

fn reset() -> Behaviour {
    Behaviour { reset: Reset::BeforeHead, ..Behaviour::default() }
}

fn fail(status: StatusCode) -> Behaviour {
    Behaviour { fail: Some((status, 100)), ..Behaviour::default() }
}

#[tokio::test]
async fn a_post_whose_endpoint_refuses_connections_goes_to_another() {
    let (mesh, mut dead, good) = (Mesh::new(), Origin::start().await, Origin::start().await);
    dead.refuse().await;
    let sidecar = mesh.client();
    let endpoints = [plain("shop/cart", "dead", dead.addr()), plain("shop/cart", "good", good.addr())];
    sidecar.knows(open_service("shop/cart"), endpoints);
    let mut client = Client::h1(sidecar.outbound).await;
    for _ in 0..20 {
        assert_eq!(client.post("cart", "/", "order").await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(good.requests(), 20);
}

#[tokio::test]
async fn a_post_that_was_sent_is_never_sent_again_and_a_get_is() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(reset());
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    let mut client = Client::h1(sidecar.outbound).await;
    let reply = client.post("cart", "/", "order").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (502, Some("upstream_reset")));
    assert_eq!(origin.requests(), 1);
    client.get("cart", "/").await.unwrap();
    assert_eq!(origin.requests(), 4, "three attempts of the GET");
}

#[tokio::test]
async fn a_small_body_is_replayed_and_a_large_one_sent_once() {
    let (mesh, bad, good) = (Mesh::new(), Origin::start().await, Origin::start().await);
    bad.behave(fail(StatusCode::SERVICE_UNAVAILABLE));
    let sidecar = mesh.client();
    let endpoints = [plain("shop/cart", "bad", bad.addr()), plain("shop/cart", "good", good.addr())];
    sidecar.knows(open_service("shop/cart"), endpoints);
    let mut client = Client::h1(sidecar.outbound).await;
    // Which endpoint is asked first is chance; in the end the bad one has been asked, and every answer was good.
    for size in [0, 1_000, 60_000] {
        for _ in 0..8 {
            let put = request(Method::PUT, "cart", "/", vec![b'x'; size].into());
            let reply = client.send(put).await.unwrap();
            assert_eq!((reply.status, reply.json()["body"].as_u64()), (StatusCode::OK, Some(size as u64)));
        }
    }
    assert!(bad.requests() > 0);
    let before = bad.requests() + good.requests();
    for _ in 0..5 {
        client.send(request(Method::PUT, "cart", "/", vec![b'x'; 300_000].into())).await.unwrap();
    }
    assert_eq!(bad.requests() + good.requests(), before + 5);
}

#[tokio::test]
async fn one_of_three_that_fails_instantly_costs_few_errors() {
    let mesh = Mesh::new();
    let (bad, one, two) = (Origin::start().await, Origin::start().await, Origin::start().await);
    bad.behave(fail(StatusCode::INTERNAL_SERVER_ERROR));
    let slow = Behaviour { delay: Duration::from_millis(5), ..Behaviour::default() };
    one.behave(slow.clone());
    two.behave(slow);
    let sidecar = mesh.client();
    let endpoints =
        [("bad", &bad), ("one", &one), ("two", &two)].map(|(uid, o)| plain("shop/cart", uid, o.addr()));
    sidecar.knows(open_service("shop/cart"), endpoints);
    let mut client = Client::h1(sidecar.outbound).await;
    let (mut failed, began) = (0, Instant::now());
    for _ in 0..100 {
        failed += u64::from(client.get("cart", "/").await.unwrap().status.is_server_error());
    }
    // Five in a row open the breaker; then there is a probe now and then, a second apart at first.
    let probes = began.elapsed().as_secs();
    assert!(failed <= 5 + probes, "{failed} of 100 failed");
}

#[tokio::test]
async fn no_answer_in_time_is_a_504_with_its_reason() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(Behaviour { delay: Duration::from_secs(5), ..Behaviour::default() });
    let sidecar = mesh.client();
    let mut service = open_service("shop/cart");
    service.policy.timeouts = Timeouts { request: Some(Duration::from_millis(100)), ..Timeouts::default() };
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    let reply = Client::h1(sidecar.outbound).await.get("cart", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (504, Some("timeout_request")));

    let mut grpc = request(Method::POST, "cart", "/s/M", "x".into());
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    grpc.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let reply = Client::h2(sidecar.outbound).await.send(grpc).await.unwrap();
    assert_eq!(reply.header("grpc-status"), Some("4"));
    assert_eq!(reply.header("x-outrigger-reason"), Some("deadline"));
}

#[tokio::test]
async fn a_long_answer_is_not_cut_by_the_request_timeout() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let body = BodyOf::Chunks { count: 5, size: 10, pause: Duration::from_millis(60) };
    origin.behave(Behaviour { body, ..Behaviour::default() });
    let sidecar = mesh.client();
    let mut service = open_service("shop/cart");
    service.policy.timeouts = Timeouts { request: Some(Duration::from_millis(100)), ..Timeouts::default() };
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    let reply = Client::h1(sidecar.outbound).await.get("cart", "/").await.unwrap();
    assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 50));
}

#[tokio::test]
async fn when_every_endpoint_refuses_it_is_a_503_and_the_budget_bounds_the_tries() {
    let (mesh, mut origin) = (Mesh::new(), Origin::start().await);
    origin.refuse().await;
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    let mut client = Client::h1(sidecar.outbound).await;
    for _ in 0..30 {
        let reply = client.get("cart", "/").await.unwrap();
        assert_eq!(reply.header("x-outrigger-reason"), Some("connect_failed"));
        assert_eq!(reply.status.as_u16(), 503);
    }
    let counters = &sidecar.live.counters;
    let retries = counters.retries.load(std::sync::atomic::Ordering::Relaxed);
    assert!(retries < 30, "{retries} retries of 30 requests");
    assert!(counters.retries_over_budget.load(std::sync::atomic::Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn traffic_follows_the_weights_and_skips_a_subset_without_endpoints() {
    let (mesh, one, two) = (Mesh::new(), Origin::named("v1").await, Origin::named("v2").await);
    let version = |v: &str, origin: &Origin| Endpoint {
        version: Some(Version::new(v).unwrap()),
        ..plain("shop/cart", v, origin.addr())
    };
    let split = |weights: [u32; 2]| {
        let backend = |(v, weight)| Backend {
            version: Some(Version::new(v).unwrap()),
            weight,
            ..Backend::to("shop/cart".parse().unwrap())
        };
        let backends = [("v1", weights[0]), ("v2", weights[1])].map(backend).to_vec();
        let (name, timeouts) = (RouteName::new("r").unwrap(), Timeouts::default());
        let route = Route { backends, timeouts, ..Route::new(name) };
        Service { routes: vec![route], ..open_service("shop/cart") }
    };
    let sidecar = mesh.client();
    sidecar.knows(split([50, 50]), [version("v1", &one)]);
    let mut client = Client::h1(sidecar.outbound).await;
    for _ in 0..20 {
        assert_eq!(client.get("cart", "/").await.unwrap().json()["origin"], "v1");
    }
    sidecar.set(Resource::Endpoint(version("v2", &two)));
    for _ in 0..400 {
        client.get("cart", "/").await.unwrap();
    }
    let share = two.requests();
    assert!((130..270).contains(&share), "{share} of 400");
    sidecar.set(Resource::Service(split([0, 100])));
    for _ in 0..20 {
        assert_eq!(client.get("cart", "/").await.unwrap().json()["origin"], "v2");
    }
}
