//! Faults that are put in on purpose: delays, aborts in both worlds, resets; and that nobody counts them as failures.

use std::time::{Duration, Instant};

use http::Method;
use outrigger_mesh::{
    Abort, BreakerMode, Fault, Filters, Fraction, Route, RouteMatch, ServiceBreaker, Timeouts, Trip,
};
use outrigger_testkit::{Client, Reply, request};

use crate::{Shop, backend, caller, cart, prefix, route, who, with};

fn fault(delay: Option<u64>, abort: Option<Abort>) -> Fault {
    Fault { share: Fraction::ALL, matches: vec![], delay: delay.map(Duration::from_millis), abort }
}

fn faulty(path: &str, faults: Vec<Fault>) -> Route {
    let filters = Filters { faults, ..Filters::default() };
    let name = format!("at{path}");
    Route { filters, ..route(&name, vec![prefix(path)], vec![backend("shop/cart", Some("v1"), 1)]) }
}

async fn grpc(shop: &Shop, path: &str) -> Reply {
    let call = with(request(Method::POST, "cart", path, "x".into()), &[("content-type", "application/grpc")]);
    Client::h2(shop.client.outbound).await.send(call).await.unwrap()
}

#[tokio::test]
async fn an_abort_has_the_status_that_it_says_in_both_worlds() {
    let shop = Shop::new(cart(vec![
        faulty("/http", vec![fault(None, Some(Abort::Http(404)))]),
        faulty("/busy", vec![fault(None, Some(Abort::Http(429)))]),
        faulty("/grpc", vec![fault(None, Some(Abort::Grpc(8)))]),
        faulty("/denied", vec![fault(None, Some(Abort::Grpc(7)))]),
    ]))
    .await;
    for (path, status, code) in
        [("/http", 404, "12"), ("/busy", 429, "14"), ("/grpc", 429, "8"), ("/denied", 403, "7")]
    {
        let reply = shop.ask(path, &[]).await;
        assert_eq!((reply.status.as_u16(), who(&reply).as_str()), (status, "fault_injected"), "{path}");
        let reply = grpc(&shop, path).await;
        assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, Some(code)), "{path}");
    }
    assert_eq!(shop.v1.requests(), 0);
    let text = shop.client.live.prometheus();
    assert!(text.contains("outrigger_faults_injected_total{fault=\"abort\"} 8"), "{text}");
}

#[tokio::test]
async fn a_reset_ends_the_connection_or_the_stream_and_nothing_else() {
    let shop =
        Shop::new(cart(vec![faulty("/reset", vec![fault(None, Some(Abort::Reset))]), faulty("/", vec![])]))
            .await;
    assert!(Client::h1(shop.client.outbound).await.get("cart", "/reset").await.is_err());
    let mut h2 = Client::h2(shop.client.outbound).await;
    assert!(h2.get("cart", "/reset").await.is_err());
    assert_eq!(who(&h2.get("cart", "/").await.unwrap()), "v1", "the connection stays");
}

#[tokio::test]
async fn a_delay_lasts_as_long_as_it_says_and_never_longer_than_the_request_has() {
    let mut short = faulty("/short", vec![fault(Some(10_000), None)]);
    short.timeouts = Timeouts { request: Some(Duration::from_millis(200)), ..Timeouts::default() };
    let shop = Shop::new(cart(vec![faulty("/slow", vec![fault(Some(150), None)]), short])).await;
    let began = Instant::now();
    assert_eq!(shop.who("/slow", &[]).await, "v1");
    assert!(began.elapsed() >= Duration::from_millis(150));
    let began = Instant::now();
    assert_eq!(shop.who("/short", &[]).await, "timeout_request");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(shop.v1.requests(), 1);
}

#[tokio::test]
async fn only_the_requests_that_are_meant_meet_a_fault_and_only_their_share() {
    let meant = RouteMatch { callers: vec![caller("admin")], ..RouteMatch::default() };
    let others = Fault { matches: vec![meant], ..fault(None, Some(Abort::Http(500))) };
    let half = Fault { share: Fraction { of: 1, out_of: 2 }, ..fault(None, Some(Abort::Http(500))) };
    let shop = Shop::new(cart(vec![faulty("/others", vec![others]), faulty("/half", vec![half])])).await;
    assert_eq!(shop.who("/others", &[]).await, "v1");
    let mut client = Client::h1(shop.client.outbound).await;
    let mut aborted = 0;
    for _ in 0..200 {
        aborted += u32::from(client.get("cart", "/half").await.unwrap().status == 500);
    }
    // Half of 200, six sigma around.
    assert!((58..=142).contains(&aborted), "{aborted}");
}

#[tokio::test]
async fn no_breaker_and_no_retry_hears_of_a_fault() {
    let mut service =
        cart(vec![faulty("/bad", vec![fault(None, Some(Abort::Http(503)))]), faulty("/", vec![])]);
    let trip = Trip { consecutive: Some(3), ..Trip::default() };
    service.policy.service_breaker =
        ServiceBreaker { mode: BreakerMode::Auto, trip, ..ServiceBreaker::default() };
    let shop = Shop::new(service).await;
    for _ in 0..20 {
        assert_eq!(shop.who("/bad", &[]).await, "fault_injected");
    }
    assert_eq!(shop.who("/", &[]).await, "v1");
    assert_eq!(shop.v1.requests(), 1);
}
