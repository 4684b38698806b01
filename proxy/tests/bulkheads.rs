//! Bulkheads, limits of connections and rate limits, through real sidecars.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use outrigger_mesh::{
    Bulkhead, ConnectionLimits, Protection, RateKey, RateLimit, Resource, Route, RouteName, RoutePolicy,
    Service, Timeouts,
};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, Reply, eventually, request, resources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use support::{Mesh, Sidecar, open_service, plain};

fn bulkhead(max_in_flight: u32, max_queue: u32, queue_ms: u64) -> Bulkhead {
    Bulkhead { max_in_flight, max_queue, queue_timeout: Duration::from_millis(queue_ms) }
}

fn limited(service: Bulkhead) -> Service {
    let mut limited = open_service("shop/cart");
    limited.policy.bulkheads.service = service;
    limited
}

fn slow(ms: u64) -> Behaviour {
    Behaviour { delay: Duration::from_millis(ms), ..Behaviour::default() }
}

/// Asks for `cart` over a connection of its own.
fn ask(sidecar: &Sidecar) -> tokio::task::JoinHandle<Reply> {
    let at = sidecar.outbound;
    tokio::spawn(async move { Client::h1(at).await.get("cart", "/").await.unwrap() })
}

fn reason(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status.as_u16(), reply.header("x-outrigger-reason"))
}

/// One metric, with its labels.
fn metric(sidecar: &Sidecar, line: &str) -> Option<u64> {
    let text = sidecar.live.prometheus();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test]
async fn a_full_service_queues_a_few_and_refuses_the_rest_with_which_bulkhead() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(slow(400));
    let sidecar = mesh.client_with(&[], 2);
    sidecar.knows(limited(bulkhead(2, 1, 5_000)), [plain("shop/cart", "i-1", origin.addr())]);
    let both = [ask(&sidecar), ask(&sidecar)];
    eventually("both are there", || async { origin.in_flight() == 2 }).await;
    let queued = ask(&sidecar);
    let gauge = |name| format!("outrigger_bulkhead_{name}{{level=\"service\",name=\"shop/cart\"}}");
    eventually("one waits", || async { metric(&sidecar, &gauge("queued")) == Some(1) }).await;

    let mut json = request(Method::GET, "cart", "/", "".into());
    json.headers_mut().insert("accept", "application/json".parse().unwrap());
    let refused = Client::h1(sidecar.outbound).await.send(json).await.unwrap();
    assert_eq!(reason(&refused), (503, Some("bulkhead_full")));
    assert_eq!(refused.header("x-outrigger-bulkhead"), Some("service shop/cart"));
    let problem = refused.json();
    assert_eq!(problem["bulkhead"], "service shop/cart");
    assert_eq!(problem["detail"], "bulkhead service shop/cart: 2 requests are in flight and 1 wait");
    let mut grpc = request(Method::POST, "cart", "/s/M", "x".into());
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let refused = Client::h2(sidecar.outbound).await.send(grpc).await.unwrap();
    assert_eq!(refused.header("grpc-status"), Some("8"));
    assert_eq!(metric(&sidecar, &gauge("in_flight")), Some(2));
    assert_eq!(metric(&sidecar, &gauge("limit")), Some(2));
    assert_eq!(metric(&sidecar, &gauge("rejected_total")), Some(2));

    for reply in both.into_iter().chain([queued]) {
        assert_eq!(reply.await.unwrap().status, StatusCode::OK);
    }
    eventually("all places are free", || async { metric(&sidecar, &gauge("in_flight")) == Some(0) }).await;
    let shown = sidecar.registry.clusters();
    assert_eq!((&shown[0]["bulkhead"]["limit"], &shown[0]["bulkhead"]["queued"]), (&2.into(), &0.into()));
    assert_eq!(shown[0]["endpoints"][0]["bulkhead"]["limit"], 256);
}

#[tokio::test]
async fn nobody_waits_longer_than_the_queue_allows_or_past_the_deadline() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(slow(60_000));
    let sidecar = mesh.client();
    sidecar.knows(limited(bulkhead(1, 9, 150)), [plain("shop/cart", "i-1", origin.addr())]);
    let _inside = ask(&sidecar);
    eventually("it is there", || async { origin.in_flight() == 1 }).await;
    let began = Instant::now();
    let refused = ask(&sidecar).await.unwrap();
    assert_eq!(reason(&refused), (503, Some("bulkhead_full")));
    assert!((150..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

    let mut service = limited(bulkhead(1, 9, 60_000));
    service.policy.timeouts = Timeouts { request: Some(Duration::from_millis(120)), ..Timeouts::default() };
    sidecar.set(Resource::Service(service));
    let began = Instant::now();
    let late = ask(&sidecar).await.unwrap();
    assert_eq!(reason(&late), (504, Some("timeout_request")));
    assert_eq!(late.header("x-outrigger-bulkhead"), Some("service shop/cart"));
    assert!((120..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_slow_download_holds_its_place_to_its_end_and_a_caller_that_goes_frees_it() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let body = BodyOf::Chunks { count: 100, size: 10, pause: Duration::from_millis(100) };
    origin.behave(Behaviour { body, ..Behaviour::default() });
    let sidecar = mesh.client();
    sidecar.knows(limited(bulkhead(1, 0, 100)), [plain("shop/cart", "i-1", origin.addr())]);
    let mut client = Client::h1(sidecar.outbound).await;
    let mut answer = client.start(request(Method::GET, "cart", "/", "".into())).await.unwrap();
    answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(reason(&ask(&sidecar).await.unwrap()), (503, Some("bulkhead_full")));
    drop((answer, client));
    origin.behave(Behaviour::default());
    let free = || async { ask(&sidecar).await.unwrap().status == StatusCode::OK };
    eventually("its place is free", free).await;
}

#[tokio::test]
async fn the_limit_changes_by_push_and_keeps_those_inside() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(slow(700));
    let sidecar = mesh.client_with(&[], 2);
    sidecar.knows(limited(bulkhead(1, 5, 5_000)), [plain("shop/cart", "i-1", origin.addr())]);
    let three = [ask(&sidecar), ask(&sidecar), ask(&sidecar)];
    eventually("one is there", || async { origin.in_flight() == 1 }).await;
    sidecar.set(Resource::Service(limited(bulkhead(3, 5, 5_000))));
    eventually("all are there", || async { origin.in_flight() == 3 }).await;
    sidecar.set(Resource::Service(limited(bulkhead(2, 0, 5_000))));
    assert_eq!(reason(&ask(&sidecar).await.unwrap()), (503, Some("bulkhead_full")));
    for reply in three {
        assert_eq!(reply.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_route_has_its_own_bulkhead_before_that_of_the_service() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(slow(500));
    let sidecar = mesh.client();
    let backend =
        outrigger_mesh::Backend { weight: 1, ..outrigger_mesh::Backend::to("shop/cart".parse().unwrap()) };
    let route = Route {
        backends: vec![backend],
        policy: RoutePolicy { bulkhead: Some(bulkhead(1, 0, 100)), ..RoutePolicy::default() },
        ..Route::new(RouteName::new("shop/reports/0").unwrap())
    };
    let service = Service { routes: vec![route], ..open_service("shop/cart") };
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    let inside = ask(&sidecar);
    eventually("it is there", || async { origin.in_flight() == 1 }).await;
    let refused = ask(&sidecar).await.unwrap();
    assert_eq!(refused.header("x-outrigger-bulkhead"), Some("route shop/reports/0"));
    assert_eq!(inside.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_endpoint_that_is_full_is_not_chosen_and_nobody_waits_for_it() {
    let (mesh, one, two) = (Mesh::new(), Origin::start().await, Origin::start().await);
    one.behave(slow(4_000));
    two.behave(slow(4_000));
    let sidecar = mesh.client_with(&[], 2);
    let mut service = open_service("shop/cart");
    service.policy.bulkheads.endpoint = 2;
    let endpoints = [plain("shop/cart", "i-1", one.addr()), plain("shop/cart", "i-2", two.addr())];
    sidecar.knows(service, endpoints);
    let four: Vec<_> = (0..4).map(|_| ask(&sidecar)).collect();
    eventually("they are spread", || async { (one.in_flight(), two.in_flight()) == (2, 2) }).await;
    let began = Instant::now();
    let refused = ask(&sidecar).await.unwrap();
    assert_eq!(reason(&refused), (503, Some("bulkhead_full")));
    assert_eq!(refused.header("x-outrigger-bulkhead"), Some("endpoint (each of shop/cart)"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for reply in four {
        assert_eq!(reply.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn event_streams_are_counted_apart_and_bounded() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let body = BodyOf::Chunks { count: 100, size: 10, pause: Duration::from_millis(100) };
    let headers = [("content-type".parse().unwrap(), "text/event-stream; charset=utf-8".parse().unwrap())];
    origin.behave(Behaviour { body, headers: headers.into_iter().collect(), ..Behaviour::default() });
    let sidecar = mesh.client();
    let mut service = limited(bulkhead(1, 0, 100));
    service.policy.bulkheads.max_streams = 2;
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = Client::h1(sidecar.outbound).await;
        let answer = client.start(request(Method::GET, "cart", "/", "".into())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        open.push((client, answer));
    }
    let gauge = |name| format!("outrigger_bulkhead_{name}{{level=\"service\",name=\"shop/cart\"}}");
    assert_eq!(metric(&sidecar, &gauge("streams")), Some(2));
    assert_eq!(metric(&sidecar, &gauge("in_flight")), Some(0));
    let refused = ask(&sidecar).await.unwrap();
    assert_eq!(reason(&refused), (503, Some("bulkhead_full")));
    assert!(refused.text().contains("2 long-lived streams are open"), "{}", refused.text());
    drop(open);
    eventually("their places are free", || async { metric(&sidecar, &gauge("streams")) == Some(0) }).await;
}

fn caller(settings: Bulkhead) -> Protection {
    Protection { caller: Some(settings), ..Protection::default() }
}

fn rate(key: RateKey, requests: u32) -> Protection {
    let per = Duration::from_hours(1);
    let limit = RateLimit { name: "hourly".into(), matches: vec![], key, requests, per, burst: requests };
    Protection { rate_limits: vec![limit], ..Protection::default() }
}

#[tokio::test]
async fn a_callers_bulkhead_refuses_it_and_nobody_else_and_changes_by_push() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    app.behave(slow(600));
    let server = mesh.protected("shop/cart", app.addr(), 1, caller(bulkhead(1, 0, 100)));
    let (noisy, quiet) = (mesh.client(), mesh.client_as("quiet"));
    for client in [&noisy, &quiet] {
        client.knows(resources::service("shop/cart"), [server.endpoint("shop/cart", "i-1")]);
    }
    let inside = ask(&noisy);
    eventually("it is there", || async { app.in_flight() == 1 }).await;
    let refused = ask(&noisy).await.unwrap();
    assert_eq!(reason(&refused), (503, Some("bulkhead_full")));
    assert_eq!(refused.header("x-outrigger-hop"), Some("server"));
    assert_eq!(refused.header("x-outrigger-unprocessed"), None, "that is between sidecars");
    let name = "caller spiffe://mesh.local/ns/shop/sa/web";
    assert_eq!(refused.header("x-outrigger-bulkhead"), Some(name));
    assert_eq!(ask(&quiet).await.unwrap().status, StatusCode::OK);
    server.protect("shop/cart", caller(bulkhead(3, 0, 100)));
    let more = [ask(&noisy), ask(&noisy)];
    for reply in [inside].into_iter().chain(more) {
        assert_eq!(reply.await.unwrap().status, StatusCode::OK);
    }
    let of = "name=\"shop/cart spiffe://mesh.local/ns/shop/sa/web\"";
    let gauge = format!("outrigger_bulkhead_in_flight{{level=\"caller\",{of}}}");
    eventually("all places are free", || async { metric(&server, &gauge) == Some(0) }).await;
}

/// An application that works on eight requests at a time, 100 ms each.
async fn busy_application() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, places) = (listener.local_addr().unwrap(), Arc::new(Semaphore::new(8)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let places = Arc::clone(&places);
            tokio::spawn(async move {
                let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    read.extend_from_slice(&buffer[..n]);
                    if read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        let _place = places.acquire().await.unwrap();
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    }
                }
            });
        }
    });
    at
}

/// The 99th percentile of a hundred requests, four at a time.
async fn p99(sidecar: &Sidecar) -> Duration {
    let at = sidecar.outbound;
    let one = || {
        tokio::spawn(async move {
            let (mut client, mut took) = (Client::h1(at).await, Vec::new());
            for _ in 0..25 {
                let began = Instant::now();
                assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
                took.push(began.elapsed());
            }
            took
        })
    };
    let mut all = Vec::new();
    for one in [one(), one(), one(), one()] {
        all.extend(one.await.unwrap());
    }
    all.sort_unstable();
    all[all.len() * 99 / 100 - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_noisy_caller_at_ten_times_the_load_does_not_slow_another_down() {
    let (mesh, app) = (Mesh::new(), busy_application().await);
    let server = mesh.protected("shop/cart", app, 1, Protection::default());
    let (noisy, quiet) = (mesh.client(), mesh.client_as("quiet"));
    for client in [&noisy, &quiet] {
        client.knows(resources::service("shop/cart"), [server.endpoint("shop/cart", "i-1")]);
    }
    let mut alone = p99(&quiet).await;
    for _ in 0..2 {
        // What the machine does beside it is not what it takes alone.
        alone = alone.min(p99(&quiet).await);
    }
    let at = noisy.outbound;
    let noise: Vec<_> = (0..40)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::h1(at).await;
                loop {
                    if client.get("cart", "/").await.unwrap().status != StatusCode::OK {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let unprotected = p99(&quiet).await;
    server.protect("shop/cart", caller(bulkhead(4, 4, 200)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut protected = p99(&quiet).await;
    for _ in 0..2 {
        // What other tests do at the same time is no caller's noise.
        if protected > alone.mul_f64(1.5) {
            protected = p99(&quiet).await;
        }
    }
    noise.iter().for_each(tokio::task::JoinHandle::abort);
    println!("p99 alone {alone:?}, beside the noise {unprotected:?}, with the bulkhead {protected:?}");
    assert!(unprotected > alone * 2, "the noise is none: {unprotected:?} to {alone:?}");
    assert!(protected <= alone.mul_f64(1.5), "{protected:?} to {alone:?}");
}

#[tokio::test]
async fn at_the_limit_of_connections_requests_wait_and_too_many_of_them_are_refused() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    origin.behave(slow(120_000));
    let sidecar = mesh.client_with(&[], 1);
    let mut service = open_service("shop/cart");
    service.policy.connections = ConnectionLimits { per_endpoint: Some(1), per_service: None };
    service.policy.bulkheads.service = bulkhead(4_000, 0, 100);
    service.policy.bulkheads.endpoint = 4_000;
    service.policy.timeouts = Timeouts { request: Some(Duration::from_secs(60)), ..Timeouts::default() };
    service.policy.retry.retries = 0;
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let connection = Client::h2(sidecar.outbound).await;
        for _ in 0..90 {
            let mut client = connection.beside();
            asked.spawn(async move { client.get("cart", "/").await.unwrap() });
        }
    }
    // One is answered by nobody, 1,024 wait for its connection.
    for _ in 0..12 * 90 - 1_025 {
        let reply = asked.join_next().await.unwrap().unwrap();
        assert_eq!(reason(&reply), (503, Some("bulkhead_full")), "{}", reply.text());
        assert!(reply.text().contains("wait for a connection"), "{}", reply.text());
    }
    eventually("the one has arrived", || async { origin.requests() > 0 }).await;
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_rate_limit_is_exact_over_both_workers_and_tells_when_to_come_back() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let server = mesh.protected("shop/cart", app.addr(), 2, rate(RateKey::Service, 20));
    let client = mesh.client_with(&[], 2);
    client.knows(resources::service("shop/cart"), [server.endpoint("shop/cart", "i-1")]);
    let sixty: Vec<_> = (0..60).map(|_| ask(&client)).collect();
    let mut refused = Vec::new();
    for reply in sixty {
        let reply = reply.await.unwrap();
        if reply.status != StatusCode::OK {
            refused.push(reply);
        }
    }
    assert_eq!((refused.len(), app.requests()), (40, 20));
    let one = &refused[0];
    assert_eq!(reason(one), (429, Some("rate_limited")));
    assert_eq!(one.header("ratelimit-policy"), Some("\"hourly\";q=20;w=3600"));
    let wait: u64 = one.header("retry-after").unwrap().parse().unwrap();
    assert!((170..=180).contains(&wait), "{wait}");
    assert!(one.header("ratelimit").unwrap().starts_with("\"hourly\";r=0;t=1"));
    server.protect("shop/cart", rate(RateKey::Service, 40));
    let ok = async {
        let mut ok = 0;
        for _ in 0..30 {
            ok += u32::from(ask(&client).await.unwrap().status == StatusCode::OK);
        }
        ok
    };
    assert_eq!(ok.await, 20, "what was taken stays taken");
    let line =
        "outrigger_rate_limit_requests_total{service=\"shop/cart\",limit=\"hourly\",outcome=\"refused\"}";
    assert!(metric(&server, line).unwrap() >= 40);
}

#[tokio::test]
async fn a_post_that_one_instance_has_no_tokens_for_goes_to_another() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let [one, two] = [(), ()].map(|()| mesh.protected("shop/cart", app.addr(), 1, rate(RateKey::Caller, 5)));
    let client = mesh.client();
    let endpoints = [one.endpoint("shop/cart", "i-1"), two.endpoint("shop/cart", "i-2")];
    let mut service = resources::service("shop/cart");
    service.policy.retry.budget_percent = 100;
    client.knows(service, endpoints);
    let mut caller = Client::h1(client.outbound).await;
    for _ in 0..10 {
        assert_eq!(caller.post("cart", "/", "order").await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(reason(&caller.post("cart", "/", "order").await.unwrap()), (429, Some("rate_limited")));
    assert_eq!(app.requests(), 10);
}
