//! Traces: one request through four services, and what a collector makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use outrigger_proxy::http::glance::Glance;
use outrigger_proxy::settings::telemetry::Telemetry;
use outrigger_proxy::telemetry::access_log::Lines;
use outrigger_proxy::telemetry::observe::Direction;
use outrigger_proxy::telemetry::otlp::{self, Origin as Whose, Spoken};
use outrigger_proxy::telemetry::start::{Telling, start};
use outrigger_proxy::telemetry::trace::sample::Share;
use outrigger_testkit::{
    Behaviour, CallsOn, Client, Collector, Decoded, Onward, Origin, Trace, Treats, eventually, request,
    resources,
};
use serde_json::Value;
use support::{Mesh, Sidecar, open_service, plain};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the allocator of the system as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _not_while_the_thread_ends = ALLOCATED.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[tokio::test]
async fn a_request_that_is_not_sampled_allocates_nothing_for_its_trace() {
    let collector = Collector::start().await;
    let (web, _cart, _origin, _telling) = pair("0%", &(collector.address(), Spoken::Grpc)).await;
    let allocated = |brought: Option<&'static str>| {
        let mut all = Vec::with_capacity(1_000);
        for _ in 0..1_000 {
            let mut headers = HeaderMap::with_capacity(16);
            headers.insert("host", "cart".parse().unwrap());
            brought.map(|trace| headers.insert("traceparent", http::HeaderValue::from_static(trace)));
            all.push(headers);
        }
        let before = ALLOCATED.get();
        for headers in &mut all {
            let mut seen = Glance::at(headers);
            assert!(web.live.observe.request(Direction::Outbound, headers, &mut seen, true).is_none());
        }
        ALLOCATED.get() - before
    };
    assert_eq!(allocated(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")), 0);
    assert_eq!(allocated(None), 0, "what begins here is said in a word, and only to whom it is sent");
}

/// The collector at `address`, with nothing said beside.
fn at(address: &str, spoken: Spoken) -> otlp::Collector {
    otlp::Collector::new(address.parse().unwrap(), spoken, &otlp::Terms::default()).unwrap()
}

/// Has `sidecar` send its spans to `address`.
fn traces(sidecar: &Sidecar, service: &str, share: &str, (address, spoken): (String, Spoken)) -> Telling {
    let wanted = Telemetry {
        collector: Some(at(&address, spoken)),
        shares: share.parse::<Share>().unwrap().into(),
        ..Telemetry::default()
    };
    let whose = Whose::of(&service.parse().unwrap(), None, &"one".parse().unwrap());
    start(&wanted, &sidecar.live, whose).unwrap()
}

/// web -> cart -> stock -> prices, where each application passes the trace on.
struct Shop {
    web: Sidecar,
    sidecars: Vec<Sidecar>,
    _apps: [CallsOn; 2],
    prices: Origin,
    _telling: Vec<Telling>,
}

async fn shop(to: (String, Spoken)) -> Shop {
    let mesh = Mesh::new();
    let (cart_app, stock_app, prices) =
        (CallsOn::start().await, CallsOn::start().await, Origin::start().await);
    let web = mesh.client();
    let cart = mesh.server("shop/cart", cart_app.addr());
    let stock = mesh.server("shop/stock", stock_app.addr());
    let last = mesh.server("shop/prices", prices.addr());
    web.knows(resources::service("shop/cart"), [cart.endpoint("shop/cart", "cart-1")]);
    cart.knows(resources::service("shop/stock"), [stock.endpoint("shop/stock", "stock-1")]);
    stock.knows(resources::service("shop/prices"), [last.endpoint("shop/prices", "prices-1")]);
    let onward = |sidecar: &Sidecar, host| Onward {
        sidecar: sidecar.outbound,
        host,
        think: Duration::ZERO,
        trace: Trace::PassedOn,
        headers: HeaderMap::new(),
    };
    cart_app.calls(onward(&cart, "stock"));
    stock_app.calls(onward(&stock, "prices"));
    let named = [(&web, "shop/web"), (&cart, "shop/cart"), (&stock, "shop/stock"), (&last, "shop/prices")];
    let telling = named.map(|(sidecar, name)| traces(sidecar, name, "0%", to.clone())).into();
    Shop { web, sidecars: vec![cart, stock, last], _apps: [cart_app, stock_app], prices, _telling: telling }
}

impl Shop {
    fn exported(&self) -> u64 {
        let sidecars = std::iter::once(&self.web).chain(&self.sidecars);
        sidecars.map(|sidecar| sidecar.live.spans.exported.load(Relaxed)).sum()
    }

    async fn asks(&self, trace: Option<&str>) -> StatusCode {
        let mut asked = request(Method::GET, "cart", "/items/7?card=secret", "".into());
        if let Some(trace) = trace {
            asked.headers_mut().insert("traceparent", trace.parse().unwrap());
        }
        Client::h1(self.web.outbound).await.send(asked).await.unwrap().status
    }
}

/// The tree of spans as lines: whose it is, its kind and name, and what tells it from others.
fn tree(spans: &[Value]) -> String {
    let mut children: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for span in spans {
        children.entry(span["parent"].as_str().unwrap()).or_default().push(span);
    }
    for all in children.values_mut() {
        all.sort_by_key(|span| span["start"].as_u64());
    }
    let mut out = String::new();
    draw(&mut out, &children, "00f067aa0ba902b7", 0);
    out
}

fn draw(out: &mut String, children: &BTreeMap<&str, Vec<&Value>>, parent: &str, depth: usize) {
    for span in children.get(parent).into_iter().flatten() {
        let (own, told) = (&span["resource"]["service.name"], &span["attributes"]);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _never = write!(
            out,
            "{}{} {} {}",
            "  ".repeat(depth),
            text(own),
            text(&span["kind"]),
            text(&span["name"])
        );
        for (shown, key) in [
            ("attempt", "outrigger.attempt"),
            ("endpoint", "outrigger.endpoint"),
            ("status", "http.response.status_code"),
            ("retried for", "outrigger.retried_for"),
            ("attempts", "outrigger.attempts"),
            ("from", "outrigger.source"),
            ("to", "outrigger.destination"),
        ] {
            if let Some(value) = told.get(key) {
                let value = text(value);
                let value = value.strip_prefix("spiffe://mesh.local/ns/shop/sa/").unwrap_or(&value);
                let _never = write!(out, ", {shown} {value}");
            }
        }
        if span["status"] == "error" {
            out.push_str(", error");
        }
        out.push('\n');
        draw(out, children, span["span"].as_str().unwrap(), depth + 1);
    }
}

/// Also in docs/observability.md, word for word.
const TREE: &str = "\
web client GET shop/cart, status 200, attempts 1
  web client GET shop/cart, attempt 1, endpoint cart-1, status 200, to cart
    cart server GET shop/cart, status 200, from web
      cart client GET shop/stock, status 200, attempts 1
        cart client GET shop/stock, attempt 1, endpoint stock-1, status 200, to stock
          stock server GET shop/stock, status 200, from cart
            stock client GET shop/prices, status 200, attempts 2
              stock client GET shop/prices, attempt 1, endpoint prices-1, status 503, retried for answer, to prices, error
                prices server GET shop/prices, status 503, from stock, error
              stock client GET shop/prices, attempt 2, endpoint prices-1, status 200, to prices
                prices server GET shop/prices, status 200, from stock
";

async fn decoded(collector: Collector) -> Option<Decoded> {
    tokio::task::spawn_blocking(move || collector.decoded()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_through_four_services_with_one_retry_is_this_tree() {
    for spoken in [Spoken::Grpc, Spoken::Http] {
        let collector = Collector::start().await;
        let shop = shop((collector.address(), spoken)).await;
        // Every second answer of the last service fails: the first of what follows is one of them.
        shop.prices
            .behave(Behaviour { fail: Some((StatusCode::SERVICE_UNAVAILABLE, 50)), ..Behaviour::default() });
        assert_eq!(shop.asks(None).await, StatusCode::OK);
        assert_eq!(shop.asks(Some(SAMPLED)).await, StatusCode::OK);
        eventually("the spans are there", || async { shop.exported() >= 11 }).await;
        let path = if spoken == Spoken::Grpc { "TraceService/Export" } else { "/v1/traces" };
        assert!(collector.taken().iter().all(|taken| taken.path.ends_with(path)));
        let Some(decoded) = decoded(collector).await else { return };
        assert_eq!(tree(&decoded.spans), TREE, "{spoken:?}");
        assert_eq!(decoded.spans.len(), 11, "and nothing of the request that is not sampled");
        for span in &decoded.spans {
            assert_eq!(span["trace"], TRACE);
            assert!(span["start"].as_u64() <= span["end"].as_u64(), "{span}");
            let told = &span["attributes"];
            assert_eq!(
                (&told["http.request.method"], &told["url.path"]),
                (&"GET".into(), &"/items/7".into())
            );
            assert!(!span.to_string().contains("secret"), "the query is nobody's business");
        }
    }
}

#[test]
fn the_tree_is_shown_in_the_documentation() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observability.md");
    let page = std::fs::read_to_string(page).unwrap();
    for line in TREE.lines() {
        assert!(page.lines().any(|shown| shown.strip_prefix("    ") == Some(line)), "{line}");
    }
}

/// web -> cart, and what arrived at the application.
async fn pair(share: &str, to: &(String, Spoken)) -> (Sidecar, Sidecar, Origin, Vec<Telling>) {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let (web, cart) = (mesh.client(), mesh.server("shop/cart", origin.addr()));
    web.knows(resources::service("shop/cart"), [cart.endpoint("shop/cart", "cart-1")]);
    let telling =
        vec![traces(&web, "shop/web", share, to.clone()), traces(&cart, "shop/cart", share, to.clone())];
    (web, cart, origin, telling)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_brought_of_b3_arrives_beside_trace_context() {
    let collector = Collector::start().await;
    let (web, _cart, origin, _telling) = pair("0%", &(collector.address(), Spoken::Grpc)).await;
    let mut client = Client::h1(web.outbound).await;
    let mut arrives = async |headers: &[(&'static str, String)]| {
        let mut asked = request(Method::GET, "cart", "/", "".into());
        for (name, value) in headers {
            asked.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        assert_eq!(client.send(asked).await.unwrap().status, StatusCode::OK);
        let seen = origin.seen().pop().unwrap();
        move |name: &str| seen.header(name).map(str::to_owned)
    };
    let seen = arrives(&[("b3", format!("{TRACE}-00f067aa0ba902b7-1"))]).await;
    let parent = seen("traceparent").unwrap();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"), "{parent}");
    assert_eq!(seen("b3").unwrap(), format!("{TRACE}-{}-1", &parent[36..52]), "the span of the last sidecar");
    assert_ne!(&parent[36..52], "00f067aa0ba902b7");
    assert!(seen("x-b3-traceid").is_none());

    let multi = |sampled: &str| {
        [
            ("x-b3-traceid", TRACE.to_owned()),
            ("x-b3-spanid", "00f067aa0ba902b7".into()),
            ("x-b3-sampled", sampled.into()),
        ]
    };
    let seen = arrives(&multi("1")).await;
    let parent = seen("traceparent").unwrap();
    assert_eq!(
        (seen("x-b3-traceid").unwrap().as_str(), seen("x-b3-spanid").unwrap().as_str()),
        (TRACE, &parent[36..52])
    );
    assert!(seen("b3").is_none());

    let seen = arrives(&multi("0")).await;
    assert_eq!(
        (seen("x-b3-spanid").unwrap().as_str(), seen("x-b3-sampled").unwrap().as_str()),
        ("00f067aa0ba902b7", "0")
    );
    assert_eq!(seen("traceparent").unwrap(), format!("00-{TRACE}-00f067aa0ba902b7-00"));

    let seen = arrives(&[]).await;
    assert!(seen("traceparent").unwrap().ends_with("-00") && seen("b3").is_none());
}

/// A sidecar that keeps everything keeps nothing of what the one before has decided on; whoever is no sidecar, and the
/// application, are told as the standard has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_traced_is_said_to_sidecars_in_a_word_and_to_others_by_a_context() {
    let collector = Collector::start().await;
    let (mesh, origin, outside) = (Mesh::new(), Origin::start().await, Origin::start().await);
    let (web, cart) = (mesh.client(), mesh.server("shop/cart", origin.addr()));
    web.knows(resources::service("shop/cart"), [cart.endpoint("shop/cart", "cart-1")]);
    web.knows(open_service("shop/outside"), [plain("shop/outside", "o-1", outside.addr())]);
    let to = (collector.address(), Spoken::Grpc);
    let telling =
        vec![traces(&web, "shop/web", "0%", to.clone()), traces(&cart, "shop/cart", "100%", to.clone())];
    for (h2, (host, at)) in
        [("cart", &origin), ("outside", &outside)].into_iter().flat_map(|to| [(false, to), (true, to)])
    {
        let mut client = if h2 { Client::h2(web.outbound).await } else { Client::h1(web.outbound).await };
        assert_eq!(client.get(host, "/").await.unwrap().status, StatusCode::OK);
        let seen = at.seen().pop().unwrap();
        assert!(seen.header("traceparent").unwrap().ends_with("-00"), "{host}: {seen:?}");
        assert!(seen.header("x-outrigger-untraced").is_none(), "{host}: {seen:?}");
    }
    for telling in telling {
        telling.finish(Duration::from_secs(5)).await;
    }
    assert!(collector.taken().is_empty(), "nothing was kept");

    // An application does not decide by it, and it goes no further.
    let loud = mesh.client();
    loud.knows(open_service("shop/outside"), [plain("shop/outside", "o-1", outside.addr())]);
    let telling = traces(&loud, "shop/loud", "100%", to);
    let mut asked = request(Method::GET, "outside", "/", "".into());
    asked.headers_mut().insert("x-outrigger-untraced", "1".parse().unwrap());
    assert_eq!(Client::h1(loud.outbound).await.send(asked).await.unwrap().status, StatusCode::OK);
    let seen = outside.seen().pop().unwrap();
    assert!(seen.header("traceparent").unwrap().ends_with("-01"), "{seen:?}");
    assert!(seen.header("x-outrigger-untraced").is_none(), "{seen:?}");
    telling.finish(Duration::from_secs(5)).await;
    assert!(!collector.taken().is_empty(), "it was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_says_nothing_holds_up_nobody_and_what_is_lost_is_counted() {
    let (silent, none) =
        (Collector::start().await, tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    silent.treats(Treats::Silent);
    let gone = format!("http://{}", none.local_addr().unwrap());
    drop(none);
    for to in [(silent.address(), Spoken::Grpc), (silent.address(), Spoken::Http), (gone, Spoken::Grpc)] {
        let (web, _cart, origin, telling) = pair("100%", &to).await;
        let more = otlp::ROOM as u64 + 1_000;
        load(web.outbound, more).await;
        assert!(origin.requests() >= more);
        let lost = |live: &outrigger_proxy::live::Live| {
            live.spans.no_room.load(Relaxed) + live.spans.failed.load(Relaxed)
        };
        assert!(lost(&web.live) > 0, "more came than there is room for");
        let told = web.live.prometheus();
        assert!(told.contains("outrigger_spans_dropped_total{why=\"no_room\"}"), "{told}");
        drop(telling);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_lines_reach_the_collector_with_the_ids_of_their_trace() {
    for spoken in [Spoken::Grpc, Spoken::Http] {
        let collector = Collector::start().await;
        let (mesh, origin) = (Mesh::new(), Origin::start().await);
        let (web, cart) = (mesh.client(), mesh.server("shop/cart", origin.addr()));
        web.knows(resources::service("shop/cart"), [cart.endpoint("shop/cart", "cart-1")]);
        let wanted = Telemetry {
            lines: Lines::All.into(),
            to_collector: true,
            format: "{method} {path}: {status}".parse().unwrap(),
            collector: Some(at(&collector.address(), spoken)),
            ..Telemetry::default()
        };
        let whose = Whose::of(&"shop/web".parse().unwrap(), None, &"one".parse().unwrap());
        let _telling = start(&wanted, &web.live, whose).unwrap();
        let mut asked = request(Method::GET, "cart", "/users/ann@example.com?card=secret", "".into());
        asked.headers_mut().insert("traceparent", SAMPLED.parse().unwrap());
        assert_eq!(Client::h1(web.outbound).await.send(asked).await.unwrap().status, StatusCode::OK);
        let counts = web.live.access_log.counts();
        let sent = || async { counts.written.load(Relaxed) + web.live.spans.exported.load(Relaxed) >= 3 };
        eventually("the line and the spans are there", sent).await;
        let Some(Decoded { spans, logs }) = decoded(collector).await else { return };
        let [line] = &logs[..] else { panic!("{logs:?}") };
        assert_eq!(
            (&line["body"], &line["severity"]),
            (&"GET /users/[redacted]: 200".into(), &"INFO".into())
        );
        let told = &line["attributes"];
        assert_eq!(
            (&told["service"], &told["called"]),
            (&"shop/cart".into(), &"spiffe://mesh.local/ns/shop/sa/cart".into())
        );
        assert_eq!(
            (&line["trace"], &told["trace_id"], &told["attempts"]),
            (&TRACE.into(), &TRACE.into(), &1.into())
        );
        assert!(spans.iter().any(|span| span["span"] == told["span_id"]), "{spans:?}");
        assert!(!format!("{spans:?}{logs:?}").contains("example.com"));
        assert_eq!(line["resource"]["service.name"], "web");
    }
}

/// Sends so many requests from several connections, all of which are answered within the time of one try.
async fn load(at: SocketAddr, count: u64) {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        clients.spawn(async move {
            let mut client = Client::h1(at).await;
            for _ in 0..=(count / 8) {
                assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_told_of_in_metrics_and_one_that_comes_back_gets_spans() {
    let collector = Collector::start().await;
    collector.treats(Treats::Refuses);
    let (web, _cart, _origin, _telling) = pair("100%", &(collector.address(), Spoken::Http)).await;
    load(web.outbound, 8).await;
    eventually("they are lost", || async { web.live.spans.failed.load(Relaxed) > 0 }).await;
    collector.treats(Treats::Well);
    load(web.outbound, 8).await;
    eventually("they are taken", || async { web.live.spans.exported.load(Relaxed) > 0 }).await;
}
