//! The last hour on a paused clock: who calls whom, what decides, and what a flood leaves behind.

use outrigger_mesh::{Histogram, Reason, RefusalKey, TrafficKey, TrafficStats, Version};

use super::hour::{Bounds, Hour};
use super::*;

fn id(name: &str) -> SpiffeId {
    format!("spiffe://mesh.local/ns/shop/sa/{name}").parse().unwrap()
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// Requests to `shop/cart`, each of `millis`, as `side` counted them.
fn traffic(side: Side, caller: Option<&str>, (requests, success): (u64, u64), millis: u64) -> Report {
    let mut latency = Histogram::default();
    (0..requests).for_each(|_| latency.record(Duration::from_millis(millis)));
    let key = TrafficKey {
        side,
        service: name("shop/cart"),
        version: Version::new("v1").ok(),
        caller: caller.map(id),
    };
    let stats = TrafficStats { requests, success, latency, unanswered: 0 };
    Report { traffic: vec![(key, stats)], ..Report::default() }
}

fn refusals(side: Side, reason: Reason, count: u64) -> Report {
    let key = RefusalKey { side, service: name("shop/cart"), caller: None, reason };
    Report { refusals: vec![(key, count)], ..Report::default() }
}

fn anybody(_: &ServiceName, _: Side) -> bool {
    true
}

fn told(telemetry: &Telemetry, window: u64) -> (f64, Flow) {
    let stretch = telemetry.stretch(Duration::from_secs(window));
    (stretch.seconds(), Flows::of(&stretch, |_| true).to(&name("shop/cart")))
}

#[tokio::test(start_paused = true)]
async fn a_window_has_what_was_reported_within_it_and_an_hour_is_all_there_is() {
    let telemetry = Telemetry::default();
    telemetry.add(&id("cart"), traffic(Side::Server, Some("web"), (100, 90), 3), anybody);
    let (seconds, flow) = told(&telemetry, 10);
    assert_eq!((seconds, flow.requests, flow.success), (1.0, 100, 90));
    tokio::time::advance(Duration::from_secs(60)).await;
    telemetry.add(&id("cart"), traffic(Side::Server, Some("web"), (10, 10), 3), anybody);
    assert_eq!((told(&telemetry, 10).1.requests, told(&telemetry, 60).1.requests), (10, 110));
    assert_eq!((told(&telemetry, 3600).0, told(&telemetry, 10).0), (60.0, 10.0));
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!((told(&telemetry, 3600).1.requests, told(&telemetry, 60).1.requests), (10, 0));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(told(&telemetry, 3600).1.requests, 0);
}

#[tokio::test(start_paused = true)]
async fn each_complete_step_is_a_point_also_the_empty_ones() {
    let telemetry = Telemetry::default();
    for requests in [5, 0, 7, 9] {
        if requests > 0 {
            let report = traffic(Side::Server, Some("web"), (requests, requests), 3);
            telemetry.add(&id("cart"), report, anybody);
        }
        tokio::time::advance(STEP).await;
    }
    let told = Told::of(&telemetry.stretch(Duration::from_secs(3600)), &name("shop/cart"));
    let points: Vec<_> = told.points.iter().map(|(ago, flow)| (ago.as_secs(), flow.requests)).collect();
    assert_eq!(points, [(40, 5), (30, 0), (20, 7), (10, 9)]);
    assert_eq!(told.versions[&Version::new("v1").unwrap()].requests, 21);
}

#[tokio::test(start_paused = true)]
async fn the_servers_counts_decide_and_what_callers_refused_is_added() {
    let telemetry = Telemetry::default();
    // Of 100 requests 10 failed at first and were tried again: the caller hides that, the server does not.
    telemetry.add(&id("cart"), traffic(Side::Server, Some("web"), (110, 100), 3), anybody);
    telemetry.add(&id("web"), traffic(Side::Client, None, (100, 100), 9), anybody);
    let flow = told(&telemetry, 60).1;
    assert_eq!((flow.requests, flow.success, flow.refused), (110, 100, 0));
    assert!(flow.latency.quantile(0.5).unwrap() < Duration::from_millis(5), "the server's");
    // 50 more never left the caller's sidecar, and 5 of them were the caller's own fault.
    telemetry.add(&id("web"), refusals(Side::Client, Reason::BreakerOpen, 45), anybody);
    telemetry.add(&id("web"), refusals(Side::Client, Reason::RateLimited, 5), anybody);
    let flow = told(&telemetry, 60).1;
    assert_eq!((flow.requests, flow.success, flow.refused), (160, 105, 50));
    // What the server refused arrived there, and is counted already.
    telemetry.add(&id("cart"), refusals(Side::Server, Reason::AuthzDenied, 3), anybody);
    let flow = told(&telemetry, 60).1;
    assert_eq!((flow.requests, flow.success, flow.refused), (160, 105, 53));
    let told = Told::of(&telemetry.stretch(Duration::from_secs(60)), &name("shop/cart"));
    let by_reason: Vec<_> = told.refusals.into_iter().collect();
    assert_eq!(by_reason, [(Reason::AuthzDenied, 3), (Reason::RateLimited, 5), (Reason::BreakerOpen, 45)]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_is_told_by_its_callers() {
    let telemetry = Telemetry::default();
    telemetry.add(&id("web"), traffic(Side::Client, None, (100, 0), 9), anybody);
    telemetry.add(&id("web"), refusals(Side::Client, Reason::ConnectFailed, 100), anybody);
    let flow = told(&telemetry, 60).1;
    assert_eq!((flow.requests, flow.success_share(), flow.refused), (100, Some(0.0), 100));
    assert!(flow.latency.quantile(0.5).unwrap() > Duration::from_millis(8));
    // Or its sidecars report to another control plane: one of its three instances is here.
    let telemetry = Telemetry::default();
    telemetry.add(&id("web"), traffic(Side::Client, None, (90, 80), 9), anybody);
    telemetry.add(&id("cart"), traffic(Side::Server, Some("web"), (30, 30), 3), anybody);
    let flow = told(&telemetry, 60).1;
    assert_eq!((flow.requests, flow.success), (90, 80));
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_speaks_for_itself_and_for_what_it_may_serve_only() {
    let telemetry = Telemetry::default();
    let forged = traffic(Side::Client, Some("forged"), (7, 7), 3);
    telemetry.add(&id("web"), forged, |_, side| side == Side::Client);
    telemetry.add(&id("web"), traffic(Side::Server, Some("x"), (900, 0), 3), |_, side| side == Side::Client);
    telemetry.add(&id("web"), refusals(Side::Server, Reason::AuthzDenied, 9), |_, side| side == Side::Client);
    let flows = Flows::of(&telemetry.stretch(STEP), |_| true);
    let edges: Vec<_> = flows.edges.iter().map(|((_, from), flow)| (from.clone(), flow.requests)).collect();
    assert_eq!(edges, [(Whose::Known(id("web")), 7)]);
    assert_eq!(telemetry.stats(), Vec::<Json>::new());
}

#[tokio::test(start_paused = true)]
async fn the_last_ten_seconds_are_told_apart_from_the_total() {
    let telemetry = Telemetry::default();
    telemetry.add(&id("cart"), traffic(Side::Server, Some("web"), (100, 100), 3), anybody);
    assert_eq!(telemetry.stats()[0]["rps"], 10.0);
    assert!(telemetry.stats()[0]["p50Ms"].as_f64().unwrap() >= 3.0);
    tokio::time::advance(Duration::from_secs(13)).await;
    let row = &telemetry.stats()[0];
    assert_eq!((row["rps"].as_f64(), row["requests"].as_u64()), (Some(0.0), Some(100)));
}

/// Callers without number, with every latency there is: `n` tells them apart.
fn flood(n: usize) -> Report {
    let mut latency = Histogram::default();
    (0..240).for_each(|bucket| latency.add(bucket, 1_000));
    let key = TrafficKey {
        side: Side::Server,
        service: name(&format!("shop/s{}", n % 37)),
        version: None,
        caller: Some(id(&format!("c{n}"))),
    };
    let stats = TrafficStats { requests: 240_000, success: 240_000, latency, unanswered: 0 };
    Report { traffic: vec![(key, stats)], ..Report::default() }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_callers_stays_within_the_bounds_and_its_requests_are_still_counted() {
    let bounds = Bounds { keys: 64, of_service: 8, reserve: 40, bytes: 200_000 };
    let mut hour = Hour::within(bounds);
    let mut sent = 0;
    for step in 0..100 {
        for n in 0..200 {
            hour.take(&flood(step * 200 + n));
            sent += 240_000;
        }
        let (keys, bytes, left_out) = hour.weight();
        assert!(keys <= bounds.keys + bounds.reserve, "{keys} keys");
        // One step is always kept; what it can weigh is bounded by its keys.
        assert!(bytes <= bounds.bytes.max(104 * 800), "{bytes} bytes");
        assert_eq!(left_out, 0, "every service has its others");
        tokio::time::advance(Duration::from_millis(9)).await;
    }
    let stretch = hour.stretch(Duration::from_secs(3600));
    let flows = Flows::of(&stretch, |_| true);
    let all: u64 = flows.edges.values().map(|flow| flow.requests).sum();
    assert_eq!(all, sent);
    assert!(flows.edges.keys().any(|(_, from)| *from == Whose::Others));
}

#[tokio::test(start_paused = true)]
async fn where_the_figures_weigh_too_much_the_oldest_go_first_and_it_is_told_how_far_they_reach() {
    let bounds = Bounds { keys: 64, of_service: 64, reserve: 40, bytes: 100_000 };
    let mut hour = Hour::within(bounds);
    for _ in 0..360 {
        (0..20).for_each(|n| hour.take(&flood(n)));
        tokio::time::advance(STEP).await;
    }
    let (_, bytes, _) = hour.weight();
    assert!(bytes <= bounds.bytes, "{bytes}");
    let stretch = hour.stretch(Duration::from_secs(3600));
    let seconds = stretch.seconds();
    assert!((30.0..3600.0).contains(&seconds), "{seconds}");
    let requests: u64 = Flows::of(&stretch, |_| true).edges.values().map(|flow| flow.requests).sum();
    let steps = requests / (20 * 240_000);
    assert!(
        (seconds - steps as f64 * 10.0).abs() < 0.1,
        "the rate is what it was: {requests} in {seconds} s"
    );
    // Whoever was silent for an hour is forgotten, once nobody reads it any more.
    drop(stretch);
    tokio::time::advance(Duration::from_secs(3620)).await;
    hour.take(&flood(0));
    assert_eq!(hour.weight().0, 1);
}
