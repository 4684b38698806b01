//! web -> cart -> stock, where cart's application calls stock: what the request handle carries through an application, and
//! what becomes of it without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test tells what it measured"
)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use outrigger_mesh::{Algorithm, Resource, RetryPolicy, Timeouts};
use outrigger_testkit::{Behaviour, CallsOn, Client, Onward, Origin, Trace, request, resources, trace_of};
use support::{Mesh, Sidecar};

struct Hops {
    web: Sidecar,
    cart: Sidecar,
    cart_app: CallsOn,
    _stock: Sidecar,
    stock_app: Origin,
}

/// Three workloads of one mesh. `cart` is the policy for its callers.
async fn hops(cart_timeouts: Timeouts) -> Hops {
    let mesh = Mesh::new();
    let (cart_app, stock_app) = (CallsOn::start().await, Origin::start().await);
    let (web, cart) = (mesh.client(), mesh.server("shop/cart", cart_app.addr()));
    let stock = mesh.server("shop/stock", stock_app.addr());
    let mut service = resources::service("shop/cart");
    service.policy.timeouts = cart_timeouts;
    web.knows(service, [cart.endpoint("shop/cart", "cart-1")]);
    cart.knows(resources::service("shop/stock"), [stock.endpoint("shop/stock", "stock-1")]);
    Hops { web, cart, cart_app, _stock: stock, stock_app }
}

impl Hops {
    fn onward(&self, trace: Trace) -> Onward {
        let (sidecar, think) = (self.cart.outbound, Duration::ZERO);
        Onward { sidecar, host: "stock", think, trace, headers: HeaderMap::new() }
    }

    /// As gRPC, since there the application sees what is left of the deadline.
    fn onward_grpc(&self, trace: Trace, think: Duration) -> Onward {
        let headers =
            HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/grpc".parse().unwrap())]);
        Onward { think, headers, ..self.onward(trace) }
    }

    /// What the last application was left of the deadline by its latest request.
    fn left_at_stock(&self) -> Option<Duration> {
        let seen = self.stock_app.seen().pop().unwrap();
        let text = seen.header("grpc-timeout")?.to_owned();
        Some(Duration::from_micros(text.strip_suffix('u').unwrap().parse().unwrap()))
    }
}

/// Sends GETs from several connections for `time`; how many.
async fn load(at: SocketAddr, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..40 {
        clients.spawn(async move {
            let (mut client, mut sent) = (Client::h1(at).await, 0);
            let mut every = tokio::time::interval(Duration::from_millis(200));
            while Instant::now() < end {
                every.tick().await;
                let reply = client.get("cart", "/").await.unwrap();
                assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
                assert!(reply.header("x-outrigger-attempt").is_none(), "the mark is for sidecars");
                sent += 1;
            }
            sent
        });
    }
    clients.join_all().await.into_iter().sum()
}

fn time() -> Duration {
    Duration::from_secs(if std::env::var_os("OUTRIGGER_SOAK").is_some() { 60 } else { 5 })
}

/// Requests, and what arrived at the last of three where everything fails.
async fn attempts(trace: Trace) -> (u64, u64) {
    // The promise is for more than a hundred a second. A run in which the machine was too busy for that shows nothing.
    for _ in 0..3 {
        let hops = hops(Timeouts::default()).await;
        hops.cart_app.calls(hops.onward(trace.clone()));
        hops.stock_app
            .behave(Behaviour { fail: Some((StatusCode::SERVICE_UNAVAILABLE, 100)), ..Behaviour::default() });
        let began = Instant::now();
        let requests = load(hops.web.outbound, time()).await;
        let rate = requests as f64 / began.elapsed().as_secs_f64();
        let arrived = hops.stock_app.requests();
        println!("{requests} requests at {rate:.0}/s, {arrived} attempts at the last");
        if rate > 100.0 {
            return (requests, arrived);
        }
    }
    panic!("never more than a hundred requests a second");
}

#[tokio::test]
async fn one_layer_retries_where_applications_pass_the_handle_on() {
    let (requests, arrived) = attempts(Trace::PassedOn).await;
    assert!(arrived > requests, "nothing was retried at all");
    assert!(arrived * 10 <= requests * 12, "{arrived} attempts of {requests} requests");
}

#[tokio::test]
async fn where_they_do_not_each_layer_keeps_to_its_budget() {
    let (requests, arrived) = attempts(Trace::Dropped).await;
    let seconds = time().as_secs() + 1;
    let floors = 2 * u64::from(RetryPolicy::default().budget_floor) * seconds;
    assert!(arrived * 100 <= requests * 144 + floors * 100, "{arrived} attempts of {requests} requests");
}

#[tokio::test]
async fn a_call_for_the_sake_of_a_second_attempt_is_made_once() {
    for (trace, expected) in [(Trace::PassedOn, 1), (Trace::Dropped, 3)] {
        let hops = hops(Timeouts::default()).await;
        hops.cart_app.calls(hops.onward(trace.clone()));
        hops.stock_app
            .behave(Behaviour { fail: Some((StatusCode::SERVICE_UNAVAILABLE, 100)), ..Behaviour::default() });
        // Another endpoint of cart, where nobody listens: who begins there comes to the other with a second attempt.
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut in_turn = resources::service("shop/cart");
        in_turn.policy.balance.algorithm = Algorithm::RoundRobin;
        hops.web.set(Resource::Service(in_turn));
        hops.web.set(Resource::Endpoint(resources::endpoint("shop/cart", "cart-0", nobody)));
        let mut client = Client::h1(hops.web.outbound).await;
        let second = async {
            loop {
                let (retries, arrived) =
                    (hops.web.live.counters.retries.load(Relaxed), hops.stock_app.requests());
                let cart = hops.cart_app.requests();
                client.get("cart", "/").await.unwrap();
                let retried = hops.web.live.counters.retries.load(Relaxed) - retries;
                if retried > 0 && hops.cart_app.requests() == cart + 1 {
                    return hops.stock_app.requests() - arrived;
                }
                // Until the floors of the budgets are whole again.
                tokio::time::sleep(Duration::from_millis(1_100)).await;
            }
        };
        let made = tokio::time::timeout(Duration::from_secs(40), second).await.expect("a second attempt");
        assert_eq!(made, expected);
    }
}

#[tokio::test]
async fn the_deadline_shrinks_from_hop_to_hop_through_the_application() {
    let hops = hops(Timeouts { request: Some(Duration::from_secs(10)), ..Timeouts::default() }).await;
    let think = Duration::from_millis(300);
    hops.cart_app.calls(hops.onward_grpc(Trace::PassedOn, think));
    let mut client = Client::h1(hops.web.outbound).await;
    assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
    let left = hops.left_at_stock().expect("the deadline of the first sidecar");
    let spent = Duration::from_secs(10).saturating_sub(left);
    assert!((think..Duration::from_secs(5)).contains(&spent), "{left:?} left");

    // The caller's own is continued as well, and wins where it is shorter.
    let mut grpc = request(Method::POST, "cart", "/s/M", "x".into());
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    grpc.headers_mut().insert("grpc-timeout", "5S".parse().unwrap());
    Client::h2(hops.web.outbound).await.send(grpc).await.unwrap();
    let left = hops.left_at_stock().expect("the caller's deadline");
    assert!(left + think < Duration::from_secs(5) && !left.is_zero(), "{left:?}");

    // Without trace context nobody knows for whose sake the call is made.
    hops.cart_app.calls(hops.onward_grpc(Trace::Dropped, think));
    client.get("cart", "/").await.unwrap();
    assert_eq!(hops.left_at_stock(), None);
}

#[tokio::test]
async fn a_call_for_whose_request_no_time_is_left_is_not_made() {
    let hops = hops(Timeouts { request: Some(Duration::from_millis(100)), ..Timeouts::default() }).await;
    hops.stock_app.behave(Behaviour { delay: Duration::from_secs(60), ..Behaviour::default() });
    hops.cart_app.calls(hops.onward(Trace::PassedOn));
    let began = Instant::now();
    let reply = Client::h1(hops.web.outbound).await.get("cart", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (504, Some("timeout_request")));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let idle = || async { hops.stock_app.in_flight() == 0 };
    outrigger_testkit::eventually("the last application was let go", idle).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_attackers_guess_a_stolen_context_and_an_old_handle_give_nobodys_deadline() {
    let hops = hops(Timeouts { request: Some(Duration::from_secs(3)), ..Timeouts::default() }).await;
    let think = Duration::from_millis(800);
    hops.cart_app.calls(hops.onward_grpc(Trace::PassedOn, think));
    let mut victim = Client::h1(hops.web.outbound).await;
    let (victims, stolen) = tokio::join!(victim.get("cart", "/victim"), async {
        let arrived = || async { hops.cart_app.requests() == 1 };
        outrigger_testkit::eventually("the victim's request is there", arrived).await;
        trace_of(&hops.cart_app.latest())
    });
    assert_eq!(victims.unwrap().status, StatusCode::OK);
    assert!(hops.left_at_stock().is_some());
    assert!(stolen["tracestate"].to_str().unwrap().starts_with("or="));

    // While another request of the victim is under way, somebody sends its whole trace context: gRPC has no deadline of
    // its own, so that any at the last hop would be the victim's.
    let mesh_caller = async {
        let arrived = || async { hops.cart_app.requests() == 2 };
        outrigger_testkit::eventually("the victim's request is there", arrived).await;
        let context = trace_of(&hops.cart_app.latest());
        hops.cart_app.calls(hops.onward_grpc(Trace::PassedOn, Duration::ZERO));
        let mut grpc = request(Method::POST, "cart", "/attacker", "x".into());
        grpc.headers_mut().extend(context.clone());
        grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let mut open = resources::service("shop/cart");
        open.policy.timeouts = Timeouts::default();
        hops.web.set(Resource::Service(open));
        Client::h2(hops.web.outbound).await.send(grpc).await.unwrap();
        let seen = hops.stock_app.seen().pop().unwrap();
        assert!(seen.target.ends_with("/attacker"));
        let got = trace_of(&hops.cart_app.latest());
        assert_eq!(got["traceparent"], context["traceparent"]);
        assert_ne!(got["tracestate"], context["tracestate"], "a handle of its own");
        seen.header("grpc-timeout").map(str::to_owned)
    };
    let (victims, attackers) = tokio::join!(victim.get("cart", "/victim"), mesh_caller);
    assert_eq!((victims.unwrap().status, attackers), (StatusCode::OK, None));

    // The application itself, or whoever speaks through it, names an old handle, and then guesses.
    let guessed = HeaderMap::from_iter([(
        http::HeaderName::from_static("tracestate"),
        http::HeaderValue::from_static("or=00000000000000000000000000000001"),
    )]);
    for forged in [stolen, guessed] {
        hops.cart_app.calls(hops.onward_grpc(Trace::Forged(forged), Duration::ZERO));
        victim.get("cart", "/").await.unwrap();
        assert_eq!(hops.left_at_stock(), None);
        let seen = hops.stock_app.seen().pop().unwrap();
        let own_only = seen.header("tracestate").unwrap();
        assert_eq!(own_only.matches("or=").count(), 1, "stock has its own sidecar's handle and no other");
    }
}
