//! How long things may take, and what is tried again: through real sidecars, counted at real origins.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, StatusCode};
use outrigger_mesh::{CallerPolicy, Longest, Resource, RetryPolicy, Service, Timeouts, TrafficPolicy};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, RawClient, RequestBody, request, resources};
use support::{Mesh, Sidecar, open_service, plain};

const MS: Duration = Duration::from_millis(1);

fn cart(timeouts: Timeouts) -> Service {
    let mut service = open_service("shop/cart");
    service.policy.timeouts = timeouts;
    service
}

fn grpc(timeout: Option<&str>) -> Request<RequestBody> {
    let mut grpc = request(Method::POST, "cart", "/s/M", "x".into());
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    if let Some(timeout) = timeout {
        grpc.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    }
    grpc
}

fn hangs() -> Behaviour {
    Behaviour { delay: Duration::from_secs(30), ..Behaviour::default() }
}

/// A client's sidecar before a plaintext `origin`.
fn before(origin: &Origin, mesh: &Mesh, service: Service) -> Sidecar {
    let sidecar = mesh.client();
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    sidecar
}

#[tokio::test]
async fn the_answer_comes_when_the_deadline_is_over_and_not_later() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(hangs());
    let limit = 200 * MS;
    let (retry, timeouts) =
        (RetryPolicy::default(), Timeouts { request: Some(limit), ..Timeouts::default() });
    let mut service = cart(timeouts);
    service.policy.retry = retry;
    let sidecar = before(&origin, &mesh, service);
    let (mut h1, mut h2) = (Client::h1(sidecar.outbound).await, Client::h2(sidecar.outbound).await);
    let mut beyond = Vec::new();
    for _ in 0..6 {
        for timeout in [None, Some("200m")] {
            let began = Instant::now();
            let status = match timeout {
                None => h1.get("cart", "/").await.unwrap().status.as_str().to_owned(),
                Some(_) => h2.send(grpc(timeout)).await.unwrap().header("grpc-status").unwrap().to_owned(),
            };
            assert!(["504", "4"].contains(&&*status), "{status}");
            assert!(began.elapsed() + MS >= limit, "cut before its time");
            beyond.push(began.elapsed().saturating_sub(limit));
        }
    }
    beyond.sort();
    // The best within the 5 ms that are promised however busy the machine is, none when the origin answers. What is exact
    // is shown with paused time, in `request/deadline.rs`.
    assert!(beyond[0] <= 5 * MS && beyond[beyond.len() - 1] < 5_000 * MS, "{beyond:?}");
}

#[tokio::test]
async fn nobody_is_asked_when_less_than_five_milliseconds_are_left() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let sidecar = before(&origin, &mesh, cart(Timeouts::default()));
    let reply = Client::h2(sidecar.outbound).await.send(grpc(Some("4m"))).await.unwrap();
    assert_eq!(
        (reply.header("grpc-status"), reply.header("x-outrigger-reason")),
        (Some("4"), Some("deadline"))
    );
    assert_eq!(origin.requests(), 0);
    let text = sidecar.live.prometheus();
    assert!(text.contains("outrigger_timeouts_total{limit=\"deadline\",head=\"before\"} 1"), "{text}");
}

#[tokio::test]
async fn a_grpc_timeout_is_rewritten_to_what_is_left_and_the_shorter_limit_wins() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", origin.addr());
    let sidecar = mesh.client();
    let told = async |service: Service, timeout| {
        sidecar.knows(service, [server.endpoint("shop/cart", "i-1")]);
        Client::h2(sidecar.outbound).await.send(grpc(timeout)).await.unwrap();
        origin
            .seen()
            .pop()
            .unwrap()
            .header("grpc-timeout")
            .map(|t| t.strip_suffix('u').unwrap().parse().unwrap())
    };
    let plain = || resources::service("shop/cart");
    let strict = Timeouts { request: Some(Duration::from_secs(2)), ..Timeouts::default() };
    let limited =
        || Service { policy: TrafficPolicy { timeouts: strict.clone(), ..plain().policy }, ..plain() };
    let micros = told(plain(), Some("5S")).await.unwrap();
    assert!((4_000_000..5_000_000_u64).contains(&micros), "{micros}");
    let micros = told(limited(), Some("5S")).await.unwrap();
    assert!((1_000_000..=2_000_000_u64).contains(&micros), "{micros}");
    assert_eq!(told(plain(), None).await, None, "gRPC has no default");
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_request_through_both_sidecars() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", origin.addr());
    let sidecar = mesh.client();
    let mut service = resources::service("shop/cart");
    service.policy.timeouts = Timeouts { request: Some(150 * MS), ..Timeouts::default() };
    sidecar.knows(service, [server.endpoint("shop/cart", "i-1")]);
    let mut client = RawClient::connect(sidecar.outbound).await;
    client.write("POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 8\r\n\r\n").await;
    for _ in 0..8 {
        tokio::time::sleep(60 * MS).await;
        client.write("x").await;
    }
    let (reply, _) = client.read_until_silent(300 * MS).await;
    assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
}

#[tokio::test]
async fn after_the_head_a_timeout_ends_the_exchange_visibly_and_nothing_is_tried_again() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let body = |count, pause| BodyOf::Chunks { count, size: 10, pause };
    let stream = Timeouts { stream: Some(200 * MS), ..Timeouts::default() };
    let sidecar = before(&origin, &mesh, cart(stream));
    // It flows all the time, and still is cut when its time is up.
    origin.behave(Behaviour { body: body(1_000, 10 * MS), ..Behaviour::default() });
    let began = Instant::now();
    assert!(Client::h1(sidecar.outbound).await.get("cart", "/").await.is_err());
    assert!(Client::h2(sidecar.outbound).await.get("cart", "/").await.is_err());
    assert!((400 * MS..2_000 * MS).contains(&began.elapsed()), "{:?}", began.elapsed());
    let reply = Client::h2(sidecar.outbound).await.send(grpc(None)).await.unwrap();
    assert_eq!(reply.trailers["grpc-status"], "4");
    assert_eq!(origin.requests(), 3);
    outrigger_testkit::eventually("the origin was let go", || async { origin.in_flight() == 0 }).await;

    let idle = Timeouts { idle: Some(100 * MS), ..Timeouts::default() };
    let sidecar = before(&origin, &mesh, cart(idle));
    origin.behave(Behaviour { body: body(3, 5_000 * MS), ..Behaviour::default() });
    assert!(Client::h1(sidecar.outbound).await.get("cart", "/").await.is_err());
    let reply = Client::h2(sidecar.outbound).await.send(grpc(None)).await.unwrap();
    assert_eq!(reply.trailers["grpc-status"], "4");
    assert_eq!(origin.requests(), 5);

    // The caller's own deadline holds for the whole of a gRPC call.
    let sidecar = before(&origin, &mesh, cart(Timeouts::default()));
    let reply = Client::h2(sidecar.outbound).await.send(grpc(Some("300m"))).await.unwrap();
    assert_eq!(reply.trailers["grpc-status"], "4");
    let text = sidecar.live.prometheus();
    assert!(text.contains("outrigger_timeouts_total{limit=\"stream\",head=\"after\"} 3"), "{text}");
}

#[tokio::test]
async fn the_pause_that_a_server_asks_for_is_kept_if_it_is_short() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let wishes = |seconds: &str| {
        let headers = vec![(http::header::RETRY_AFTER, seconds.parse().unwrap())];
        Behaviour { fail: Some((StatusCode::SERVICE_UNAVAILABLE, 100)), headers, ..Behaviour::default() }
    };
    let mut service = cart(Timeouts::default());
    service.policy.retry.retries = 1;
    let sidecar = before(&origin, &mesh, service);
    let mut client = Client::h1(sidecar.outbound).await;
    origin.behave(wishes("1"));
    let began = Instant::now();
    client.get("cart", "/").await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1) && origin.requests() == 2);
    origin.behave(wishes("2"));
    let reply = client.get("cart", "/").await.unwrap();
    assert_eq!((reply.header("retry-after"), origin.requests()), (Some("2"), 3), "told, not waited for");
}

#[tokio::test]
async fn when_the_budget_is_spent_the_last_answer_says_so() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(Behaviour { fail: Some((StatusCode::BAD_GATEWAY, 100)), ..Behaviour::default() });
    let mut service = cart(Timeouts::default());
    service.policy.retry = RetryPolicy { budget_percent: 0, budget_floor: 1, ..RetryPolicy::default() };
    let sidecar = before(&origin, &mesh, service);
    let mut client = Client::h1(sidecar.outbound).await;
    let mut reasons = Vec::new();
    for _ in 0..10 {
        let reply = client.get("cart", "/").await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
        reasons.push(reply.header("x-outrigger-reason").map(str::to_owned));
    }
    let spent = reasons.iter().filter(|r| r.as_deref() == Some("retry_budget")).count();
    assert!(spent >= 8, "{reasons:?}");
    let text = sidecar.live.prometheus();
    assert!(text.contains("outrigger_retries_denied_total{why=\"budget\"}"), "{text}");
    assert!(text.contains("outrigger_retry_outcomes_total{cause=\"answer\",outcome=\"failed\"}"), "{text}");
}

#[tokio::test]
async fn a_policy_for_some_callers_holds_for_them_alone() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(Behaviour { fail: Some((StatusCode::BAD_GATEWAY, 100)), ..Behaviour::default() });
    let never = TrafficPolicy {
        retry: RetryPolicy { retries: 0, ..RetryPolicy::default() },
        ..TrafficPolicy::default()
    };
    for (caller, attempts) in [("web", 1), ("other", 3)] {
        let mut service = cart(Timeouts::default());
        let callers = vec![resources::identity("shop", caller)];
        service.for_callers = vec![CallerPolicy { callers, policy: never.clone() }];
        let (before_it, sidecar) = (origin.requests(), before(&origin, &mesh, service));
        Client::h1(sidecar.outbound).await.get("cart", "/").await.unwrap();
        assert_eq!(origin.requests() - before_it, attempts, "{caller}");
    }
}

#[tokio::test]
async fn what_only_sidecars_tell_each_other_stays_among_them() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", origin.addr());
    let sidecar = mesh.client();
    sidecar.knows(resources::service("shop/cart"), [server.endpoint("shop/cart", "i-1")]);
    let mut call = request(Method::GET, "cart", "/", "".into());
    let context = HeaderMap::from_iter(
        [
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "or=1,a=2"),
        ]
        .map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())),
    );
    call.headers_mut().extend(context.clone());
    let reply = Client::h1(sidecar.outbound).await.send(call).await.unwrap();
    assert!(
        reply.headers.keys().all(|name| !name.as_str().starts_with("x-outrigger")),
        "{:?}",
        reply.headers
    );
    let seen = origin.seen().pop().unwrap();
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-outrigger")), "{:?}", seen.headers);
    assert_eq!(seen.header("traceparent"), context["traceparent"].to_str().ok());
    let state = seen.header("tracestate").unwrap();
    assert!(state.ends_with(",a=2") && state.len() == 35 + 4, "{state}");
}

#[tokio::test]
async fn no_caller_has_more_time_than_the_service_gives_anybody() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", origin.addr());
    let own = resources::service("shop/cart");
    let mut inbound = resources::inbound(&own.identities[0], &[&own]);
    inbound.services[0].longest =
        Longest { request: 200 * MS, grpc: Some(300 * MS), idle: 100 * MS, stream: Some(100 * MS) };
    server.set(Resource::Inbound(inbound));
    let sidecar = mesh.client();
    let generous = Timeouts { request: Some(20_000 * MS), ..Timeouts::default() };
    let retry = RetryPolicy { retries: 0, ..RetryPolicy::default() };
    let policy = TrafficPolicy { timeouts: generous, retry, ..own.policy.clone() };
    sidecar.knows(Service { policy, ..own }, [server.endpoint("shop/cart", "i-1")]);
    let mut client = Client::h2(sidecar.outbound).await;

    origin.behave(hangs());
    let began = Instant::now();
    let reply = client.get("cart", "/").await.unwrap();
    assert_eq!(
        (reply.status, reply.header("x-outrigger-reason")),
        (StatusCode::GATEWAY_TIMEOUT, Some("timeout_request"))
    );
    assert_eq!(reply.header("x-outrigger-hop"), Some("server"));
    let reply = client.send(grpc(Some("20S"))).await.unwrap();
    assert_eq!(reply.header("grpc-status"), Some("4"));
    assert!((500 * MS..5_000 * MS).contains(&began.elapsed()), "{:?}", began.elapsed());

    // Of bodies the sidecar of the service lets its callers be the first to say that they took too long.
    for body in [
        BodyOf::Chunks { count: 2, size: 10, pause: 20_000 * MS },
        BodyOf::Chunks { count: 1_000, size: 10, pause: 20 * MS },
    ] {
        origin.behave(Behaviour { body, ..Behaviour::default() });
        let began = Instant::now();
        assert!(client.get("cart", "/").await.is_err());
        assert!((1_000 * MS..6_000 * MS).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
}
