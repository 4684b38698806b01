//! A proxy at the edge: public TLS, routes by host name, what strangers may not say, and ports that come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use http::StatusCode;
use outrigger_mesh::{
    Backend, BreakerMode, Bulkhead, Fallback, Gateway, GatewayRoute, HttpRules, Label, Listener,
    ListenerKind, PathChange, PathMatch, Port, PortNumber, Protocol, Redirect, ResourceName, Rewrite, Route,
    RouteMatch, RouteName, Service, ServiceBreaker, SessionEnd, SigningKey, Sticky, StickyBy, StickyTo,
};
use outrigger_proxy::app::{self, App};
use outrigger_proxy::settings::{Args, Settings};
use outrigger_testkit::real::{self, Ran};
use outrigger_testkit::upgrade::{Switcher, connect_h2};
use outrigger_testkit::{Behaviour, Client, Origin, PlanServer, eventually, resources};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A proxy of the mesh, started by flags.
async fn proxy(server: &PlanServer, folder: &TempDir, account: &str, flags: &str) -> App {
    let token = server.join_token("shop", account).expose();
    let data = folder.path().join(format!("data-{account}"));
    let all = format!(
        "outrigger-proxy --namespace shop --control {} --data {} --outbound 127.0.0.1:0 --inbound 127.0.0.1:0 \
         --admin 127.0.0.1:0 --workers 2 {flags}",
        server.addr(),
        data.display(),
    );
    let settings = Settings::new(Args::parse_from(all.split_whitespace()), Some(&token)).unwrap();
    app::build(settings).await.unwrap()
}

fn route(path: &str, to: &str, hosts: &[&str]) -> GatewayRoute {
    let matches = vec![RouteMatch { path: Some(PathMatch::Prefix(path.into())), ..RouteMatch::default() }];
    let backends = vec![Backend::to(to.parse().unwrap())];
    let name = RouteName::new(&format!("{to}{path}")).unwrap();
    GatewayRoute {
        hostnames: hosts.iter().map(|h| h.parse().unwrap()).collect(),
        route: Route { matches, backends, ..Route::new(name) },
    }
}

fn listener(name: &str, port: u16, hostname: Option<&str>, certificates: &[&str]) -> Listener {
    let certificates: Vec<_> = certificates.iter().map(|c| Label::new(c).unwrap()).collect();
    Listener {
        name: Label::new(name).unwrap(),
        port: PortNumber::new(port).unwrap(),
        hostname: hostname.map(|h| h.parse().unwrap()),
        kind: if certificates.is_empty() { ListenerKind::Http } else { ListenerKind::Https { certificates } },
        routes: vec![],
    }
}

fn gateway(listeners: Vec<Listener>) -> Gateway {
    Gateway { name: "shop/edge".parse().unwrap(), listeners }.checked().unwrap()
}

/// A certificate that signs itself, as files `NAME.crt` and `NAME.key`.
fn certificate(folder: &Path, name: &str, hosts: &str) -> bool {
    if real::debian(&["openssl", "curl"]).is_none() {
        return false;
    }
    let file = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName={hosts}")]);
    openssl.args(["-keyout", &file("key"), "-out", &file("crt")]);
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    true
}

/// Where the gateway's port is open, once it is.
async fn opened(edge: &App, port: u16) -> SocketAddr {
    let admin = edge.bound.admin;
    let find = || async move {
        let dump = Client::h1(admin).await.get("localhost", "/config_dump").await.unwrap().json();
        let ports = dump["gateway"]["ports"].as_array().cloned().unwrap_or_default();
        let ours = ports.into_iter().find(|p| p["port"] == port)?;
        ours["open"].as_str()?.parse::<SocketAddr>().ok()
    };
    eventually("the port is open", || async { find().await.is_some() }).await;
    find().await.unwrap()
}

async fn curl(at: SocketAddr, ca: &Path, host: &str, more: &[&str]) -> Ran {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "--cacert", &ca.display().to_string()]);
    command.args(["--resolve", &format!("{host}:{}:{}", at.port(), at.ip())]);
    command.args(["-w", "\n%{http_code} %{http_version}"]).args(more);
    command.arg(format!("https://{host}:{}/hello", at.port()));
    tokio::task::spawn_blocking(move || real::run(&mut command, Duration::from_secs(15))).await.unwrap()
}

/// Asks at a gateway for a WebSocket over HTTP/1.1; the head of the answer.
async fn websocket(at: SocketAddr, host: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let asked = format!(
        "GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    (stream, String::from_utf8(head).unwrap())
}

async fn echoes(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    let mut back = [0; 5];
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye");
}

fn publish(server: &PlanServer, name: &str) {
    let service = resources::service(name);
    server.set(resources::inbound(&service.identities[0], &[&service]));
    server.set(service);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_tls_ends_at_the_gateway_and_the_mesh_sees_its_identity() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    if !certificate(folder.path(), "shop", "DNS:a.shop.example,DNS:b.shop.example") {
        return;
    }
    publish(&server, "shop/cart");
    let origin = Origin::named("cart").await;
    let flags = format!("--service cart --port {}", origin.addr().port());
    let _cart = proxy(&server, &folder, "cart", &flags).await;
    let mut https = listener("web", 443, Some("*.shop.example"), &["shop"]);
    https.routes.push(route("/", "shop/cart", &["a.shop.example"]));
    server.set(gateway(vec![https]));
    let flags = format!(
        "--gateway edge --gateway-ip 127.0.0.1 --gateway-port 443=0 --gateway-certificates {}",
        folder.path().display()
    );
    let edge = proxy(&server, &folder, "edge", &flags).await;
    let at = opened(&edge, 443).await;
    let ca = folder.path().join("shop.crt");

    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let forged = [
            "-H",
            "X-Forwarded-For: 10.9.9.9",
            "-H",
            "x-outrigger-deadline-ms: 1",
            "-H",
            "X_Forwarded_For: 1",
        ];
        let ran = curl(at, &ca, "a.shop.example", &[&[flag][..], &forged].concat()).await;
        assert!(ran.stdout.ends_with(&format!("200 {version}")), "{ran:?}");
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        assert_eq!(request.header("x_forwarded_for"), None);
        let caller = request.header("x-forwarded-client-cert").unwrap_or_default();
        assert!(caller.contains("/ns/shop/sa/edge"), "{caller}");
    }
    // A host of the listener without a route, and one that no listener is for; nothing inside is told.
    let ran = curl(at, &ca, "b.shop.example", &["-i", "--http1.1"]).await;
    assert!(ran.stdout.contains("x-outrigger-reason: no_route") && ran.stdout.contains("\n404 "), "{ran:?}");
    assert!(!ran.stdout.contains("shop/cart"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_a_gateway_come_and_go_with_what_is_pushed_and_a_missing_certificate_costs_only_its_listener()
 {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    publish(&server, "shop/cart");
    let origin = Origin::named("cart").await;
    let _cart =
        proxy(&server, &folder, "cart", &format!("--service cart --port {}", origin.addr().port())).await;
    let with_route = |mut listener: Listener| {
        listener.routes.push(route("/", "shop/cart", &[]));
        listener
    };
    let plain = || with_route(listener("plain", 80, None, &[]));
    server.set(gateway(vec![plain(), with_route(listener("tls", 443, None, &["missing"]))]));
    let flags = "--gateway edge --gateway-ip 127.0.0.1 --gateway-port 80=0,443=0,81=0 --gateway-certificates";
    let edge = proxy(&server, &folder, "edge", &format!("{flags} {}", folder.path().display())).await;
    let at = opened(&edge, 80).await;
    eventually("the gateway serves", || async {
        Client::h1(at).await.get("anything.example", "/").await.is_ok_and(|r| r.status == StatusCode::OK)
    })
    .await;
    let dump: Value =
        Client::h1(edge.bound.admin).await.get("localhost", "/config_dump").await.unwrap().json();
    assert!(dump["gateway"].to_string().contains("no certificate that can be used"), "{}", dump["gateway"]);

    let ready =
        || async { Client::h1(edge.bound.admin).await.get("localhost", "/ready").await.unwrap().text() };
    assert_eq!(ready().await, "ready\n", "one port of two is open");

    let mut held = Client::h1(at).await;
    assert_eq!(held.get("a.example", "/").await.unwrap().status, StatusCode::OK);
    server.set(gateway(vec![with_route(listener("plain", 81, None, &[]))]));
    let moved = opened(&edge, 81).await;
    assert_eq!(Client::h1(moved).await.get("a.example", "/").await.unwrap().status, StatusCode::OK);
    eventually("the old port is closed", || async { TcpStream::connect(at).await.is_err() }).await;
    server.remove(&ResourceName::Gateway("shop/edge".parse().unwrap()));
    let told = "listeners: no Gateway of this name is known yet\n";
    eventually("it is not ready without a Gateway", || async { ready().await == told }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_a_gateway_over_http1_and_http2_and_only_where_its_service_allows_it() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    let app = Switcher::start().await;
    let _cart =
        proxy(&server, &folder, "cart", &format!("--service cart --port {}", app.addr().port())).await;
    let mut plain = listener("plain", 80, None, &[]);
    plain.routes.push(route("/", "shop/cart", &["a.shop.example"]));
    server.set(gateway(vec![plain]));
    publish(&server, "shop/cart");
    let edge =
        proxy(&server, &folder, "edge", "--gateway edge --gateway-ip 127.0.0.1 --gateway-port 80=0").await;
    let at = opened(&edge, 80).await;
    eventually("the gateway serves", || async {
        Client::h1(at).await.get("a.shop.example", "/plain").await.is_ok_and(|r| r.status == StatusCode::OK)
    })
    .await;

    let before = app.seen().len();
    let (mut stream, head) = websocket(at, "a.shop.example").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    echoes(&mut stream).await;
    let (answer, stream) = connect_h2(at, "a.shop.example", "/chat", "websocket").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    echoes(&mut stream.unwrap()).await;
    let seen = app.seen().split_off(before);
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.headers["x-forwarded-for"], "127.0.0.1");
        assert!(request.headers["x-forwarded-client-cert"].to_str().unwrap().contains("/ns/shop/sa/edge"));
        assert!(request.headers.contains_key("sec-websocket-key"), "to the application over HTTP/1.1");
    }

    let none = HttpRules { upgrades: vec![], ..HttpRules::default() };
    let strict = Service { http: none, ..resources::service("shop/cart") };
    server.set(resources::inbound(&strict.identities[0], &[&strict]));
    server.set(strict);
    eventually("the gateway lets nobody switch", || async {
        let answer = connect_h2(at, "a.shop.example", "/chat", "websocket").await;
        answer.is_ok_and(|(answer, _)| answer.status() == StatusCode::FORBIDDEN)
    })
    .await;
    let plain = Client::h1(at).await.get("a.shop.example", "/plain").await.unwrap();
    assert_eq!(plain.status, StatusCode::OK, "what is no upgrade goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_hold_at_a_gateway_and_what_they_answer_needs_no_backend() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    let app = Origin::start().await;
    let _cart =
        proxy(&server, &folder, "cart", &format!("--service cart --port {}", app.addr().port())).await;
    publish(&server, "shop/cart");
    let mut plain = listener("plain", 80, None, &[]);
    let mut moved = route("/old", "shop/cart", &[]);
    moved.route.backends.clear();
    moved.route.filters.redirect = Some(Redirect {
        https: Some(true),
        host: None,
        path: Some(PathChange::Prefix("/new".into())),
        port: None,
        status: 301,
    });
    let mut nowhere = route("/nowhere", "shop/cart", &[]);
    nowhere.route.backends.clear();
    let mut rewritten = route("/api", "shop/cart", &[]);
    rewritten.route.filters.rewrite =
        Some(Rewrite { host: None, path: Some(PathChange::Prefix("/".into())) });
    plain.routes = vec![moved, nowhere, rewritten];
    server.set(gateway(vec![plain]));
    let edge =
        proxy(&server, &folder, "edge", "--gateway edge --gateway-ip 127.0.0.1 --gateway-port 80=0").await;
    let at = opened(&edge, 80).await;
    let ask = |path: &'static str| async move { Client::h1(at).await.get("a.example", path).await.unwrap() };
    let reply = ask("/old/x?q=1").await;
    let location = reply.header("location").map(str::to_owned);
    assert_eq!((reply.status.as_u16(), location.as_deref()), (301, Some("https://a.example/new/x?q=1")));
    assert_eq!(ask("/nowhere").await.status.as_u16(), 500);
    eventually("the gateway serves", || async { ask("/api/items").await.status == StatusCode::OK }).await;
    let seen = app.seen().pop().unwrap();
    assert!(seen.target.ends_with("/items") && !seen.target.contains("api"), "{}", seen.target);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_is_reached_at_the_port_that_its_route_names() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let port = |number| Port { number: PortNumber::new(number).unwrap(), protocol: Protocol::Http };
    let cart = Service { ports: vec![port(80), port(81)], ..resources::service("shop/cart") };
    server.set(resources::inbound(&cart.identities[0], &[&cart]));
    server.set(cart);
    let flags = format!(
        "--service cart --service-port 80 --port {} --inbound-map 0=81:{}",
        first.addr().port(),
        second.addr().port()
    );
    let _cart = proxy(&server, &folder, "cart", &flags).await;
    let mut plain = listener("plain", 80, None, &[]);
    plain.routes.push(route("/", "shop/cart", &[]));
    for (path, port) in [("/one", 80), ("/two", 81)] {
        let mut to = route(path, "shop/cart", &[]);
        to.route.backends[0].port = PortNumber::new(port);
        plain.routes.push(to);
    }
    server.set(gateway(vec![plain]));
    let edge =
        proxy(&server, &folder, "edge", "--gateway edge --gateway-ip 127.0.0.1 --gateway-port 80=0").await;
    let at = opened(&edge, 80).await;
    eventually("the gateway serves", || async {
        Client::h1(at).await.get("a.example", "/two").await.is_ok_and(|r| r.status == StatusCode::OK)
    })
    .await;
    let (before, others) = (first.seen().len(), second.seen().len());
    for path in ["/", "/one", "/two"] {
        assert_eq!(Client::h2(at).await.get("a.example", path).await.unwrap().status, StatusCode::OK);
    }
    let targets = |origin: &Origin, from| -> Vec<String> {
        origin.seen().split_off(from).into_iter().map(|seen| seen.target).collect()
    };
    assert_eq!(targets(&first, before), ["/", "/one"]);
    assert_eq!(targets(&second, others), ["/two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_of_a_gateway_have_their_own_bulkheads_and_breakers_and_keep_them() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    publish(&server, "shop/cart");
    let origin = Origin::named("cart").await;
    let _cart =
        proxy(&server, &folder, "cart", &format!("--service cart --port {}", origin.addr().port())).await;
    let pushed = |mode, fallback: Option<&str>| {
        let mut plain = listener("plain", 80, None, &[]);
        let mut narrow = route("/narrow", "shop/cart", &[]);
        narrow.route.policy.bulkhead =
            Some(Bulkhead { max_in_flight: 1, max_queue: 0, ..Bulkhead::default() });
        let mut guarded = route("/guarded", "shop/cart", &[]);
        let answer = |body: &str| Fallback::Response { status: 203, headers: vec![], body: body.into() };
        let fallback = fallback.map(answer);
        guarded.route.policy.breaker = Some(ServiceBreaker { mode, fallback, ..ServiceBreaker::default() });
        plain.routes.extend([route("/", "shop/cart", &[]), narrow, guarded]);
        server.set(gateway(vec![plain]));
    };
    pushed(BreakerMode::Auto, None);
    let edge =
        proxy(&server, &folder, "edge", "--gateway edge --gateway-ip 127.0.0.1 --gateway-port 80=0").await;
    let at = opened(&edge, 80).await;
    let get = |path: &'static str| async move { Client::h1(at).await.get("a.example", path).await.unwrap() };
    eventually("the gateway serves", || async { get("/").await.status == StatusCode::OK }).await;

    origin.behave(Behaviour { delay: Duration::from_millis(700), ..Behaviour::default() });
    let inside = tokio::spawn(async move { Client::h1(at).await.get("a.example", "/narrow").await.unwrap() });
    eventually("one is inside", || async { origin.in_flight() == 1 }).await;
    let full = get("/narrow").await;
    assert_eq!((full.status.as_u16(), full.header("x-outrigger-reason")), (503, Some("bulkhead_full")));
    assert_eq!(full.header("x-outrigger-bulkhead"), None, "a stranger is not told which");
    assert_eq!(get("/").await.status, StatusCode::OK, "the other route has room");
    assert_eq!(inside.await.unwrap().status, StatusCode::OK);

    // Its breaker trips; another push of the same Gateway does not make it forget.
    origin.behave(Behaviour { fail: Some((StatusCode::INTERNAL_SERVER_ERROR, 100)), ..Behaviour::default() });
    let mut tripped = 0;
    while get("/guarded").await.header("x-outrigger-reason") != Some("breaker_open") {
        tripped += 1;
        assert!(tripped < 20, "it never opens");
    }
    pushed(BreakerMode::Auto, Some("spare"));
    eventually("the fallback is there, and the breaker open", || async {
        get("/guarded").await.body == "spare"
    })
    .await;
    assert_eq!(get("/").await.status, StatusCode::INTERNAL_SERVER_ERROR, "the other route is not shut");
    let metrics =
        Client::h1(edge.bound.admin).await.get("localhost", "/stats/prometheus").await.unwrap().text();
    for line in [
        "outrigger_bulkhead_rejected_total{level=\"route\",name=\"shop/cart/narrow\"} 1",
        "outrigger_service_breaker_opened_total{service=\"shop/cart\",route=\"shop/cart/guarded\"} ",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cookie_of_a_sticky_session_is_secure_where_the_caller_came_by_tls_and_only_there() {
    let (server, folder) = (PlanServer::start().await, TempDir::new().unwrap());
    if !certificate(folder.path(), "shop", "DNS:a.shop.example") {
        return;
    }
    let by = StickyBy::Cookie { name: "place".into(), ttl: None };
    let sticky =
        Sticky { by, to: StickyTo::Endpoint, end: SessionEnd::default(), key: SigningKey::new([7; 32]) };
    let mut cart = resources::service("shop/cart");
    cart.policy.balance.sticky = Some(sticky);
    server.set(resources::inbound(&cart.identities[0], &[&cart]));
    server.set(cart);
    let origin = Origin::named("cart").await;
    let _cart =
        proxy(&server, &folder, "cart", &format!("--service cart --port {}", origin.addr().port())).await;
    let mut listeners = vec![listener("tls", 443, None, &["shop"]), listener("plain", 80, None, &[])];
    for listener in &mut listeners {
        listener.routes.push(route("/", "shop/cart", &[]));
    }
    server.set(gateway(listeners));
    let flags = "--gateway edge --gateway-ip 127.0.0.1 --gateway-port 443=0,80=0 --gateway-certificates";
    let edge = proxy(&server, &folder, "edge", &format!("{flags} {}", folder.path().display())).await;
    let (tls, plain) = (opened(&edge, 443).await, opened(&edge, 80).await);
    eventually("the gateway serves", || async {
        Client::h1(plain).await.get("a.shop.example", "/").await.is_ok_and(|r| r.status == StatusCode::OK)
    })
    .await;
    let ran = curl(tls, &folder.path().join("shop.crt"), "a.shop.example", &["-i"]).await;
    let set = ran.stdout.lines().find(|l| l.to_ascii_lowercase().starts_with("set-cookie: place="));
    assert!(set.is_some_and(|l| l.trim_end().ends_with("; Secure")), "{ran:?}");
    let reply = Client::h1(plain).await.get("a.shop.example", "/").await.unwrap();
    let set = reply.header("set-cookie").unwrap();
    assert!(set.starts_with("place=") && !set.contains("Secure"), "{set}");
}
