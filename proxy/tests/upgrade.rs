//! Connections that stop being HTTP, through two sidecars: every way in, between, and out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Method, Version};
use outrigger_mesh::{Between, HttpRules, Port, PortNumber, Protocol, Resource, Service, TrafficPolicy};
use outrigger_proxy::drain::Phase;
use outrigger_testkit::upgrade::{Switcher, connect_h2, websocket_accept};
use outrigger_testkit::{RawClient, eventually, resources};
use support::{Mesh, Sidecar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn service(between: Between, protocol: Protocol, upgrades: &[&str]) -> Service {
    let http = HttpRules { upgrades: upgrades.iter().map(|u| (*u).into()).collect(), ..HttpRules::default() };
    let ports = vec![Port { number: PortNumber::HTTP, protocol }];
    Service { between, http, ports, ..resources::service("shop/cart") }
}

/// A client's sidecar and that of an instance of `service` before `app`.
fn pair(mesh: &Mesh, service: &Service, app: &Switcher) -> (Sidecar, Sidecar) {
    let server = mesh.server("shop/cart", app.addr());
    server.set(Resource::Inbound(resources::inbound(&service.identities[0], &[service])));
    let client = mesh.client();
    client.knows(service.clone(), [server.endpoint("shop/cart", "i-1")]);
    (client, server)
}

fn opening(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\n{more}\r\n")
}

fn websocket(path: &str) -> String {
    opening(path, &format!("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"))
}

/// Opens an upgrade over HTTP/1.1 and reads the head of its answer.
async fn open(client: &Sidecar, opening: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(client.outbound).await.unwrap();
    stream.write_all(opening.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

/// Sends, reads back, ends one half, and hears the other end.
async fn echoes(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    let mut back = [0; 5];
    for _ in 0..3 {
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"bye", "the other half was open until the application had ended it");
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("{what}: too late"))
}

#[tokio::test]
async fn a_websocket_gets_through_every_way_in_between_and_out() {
    let mesh = Mesh::new();
    for between in [Between::Http1, Between::Http2, Between::Auto] {
        for protocol in [Protocol::Http, Protocol::Http2] {
            let app = Switcher::start().await;
            let (client, _server) = pair(&mesh, &service(between, protocol, &["websocket"]), &app);
            let what = format!("{between:?} {protocol:?}");

            let (mut stream, head) = soon(&what, open(&client, &websocket("/chat"))).await;
            assert!(head.starts_with("http/1.1 101 ") && head.contains("x-switched: yes"), "{what}: {head}");
            let accept = websocket_accept(KEY).to_ascii_lowercase();
            assert!(head.contains(&format!("sec-websocket-accept: {accept}")), "{what}: {head}");
            assert_eq!(head.matches("upgrade: websocket").count(), 1, "{what}: {head}");
            soon(&what, echoes(&mut stream)).await;

            let opened = connect_h2(client.outbound, "cart", "/chat", "websocket");
            let (answer, stream) = soon(&what, opened).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2), "{what}");
            assert!(!answer.headers().contains_key("sec-websocket-accept"), "{what}");
            soon(&what, echoes(&mut stream.unwrap())).await;

            for seen in app.seen() {
                let key = seen.headers.get("sec-websocket-key").map(http::HeaderValue::len);
                let expected = match protocol {
                    Protocol::Http => (Method::GET, None, Version::HTTP_11, Some(24)),
                    _ => (Method::CONNECT, Some("websocket"), Version::HTTP_2, None),
                };
                let got = (seen.method, seen.protocol.as_deref(), seen.version, key);
                assert_eq!(got, expected, "{what}");
                assert_eq!(seen.headers["sec-websocket-version"], "13");
                let ours = seen.headers.keys().find(|n| n.as_str().starts_with("x-outrigger-"));
                assert_eq!(ours, None, "{what}");
            }
            assert_eq!(app.seen().len(), 2);
        }
    }
}

#[tokio::test]
async fn what_is_sent_before_the_101_waits_for_it_and_is_passed_on() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    for between in [Between::Http1, Between::Http2] {
        let (client, _server) = pair(&mesh, &service(between, Protocol::Http, &["websocket"]), &app);
        let mut raw = RawClient::connect(client.outbound).await;
        raw.write(format!("{}early GET / HTTP/1.1\r\n\r\n", websocket("/"))).await;
        let (got, _) = raw.read_until_silent(Duration::from_millis(300)).await;
        let got = String::from_utf8_lossy(&got);
        assert!(got.starts_with("HTTP/1.1 101 "), "{got}");
        assert!(got.ends_with("\r\n\r\nearly GET / HTTP/1.1\r\n\r\n"), "{got}");
    }
}

#[tokio::test]
async fn other_protocols_pass_where_they_are_listed_whatever_the_method() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    for between in [Between::Http1, Between::Http2] {
        let (client, _server) = pair(&mesh, &service(between, Protocol::Http, &["tcp"]), &app);
        let attach = opening("/attach", "Upgrade: h2c, websocket, TCP\r\nHTTP2-Settings: AAA\r\n");
        let (mut stream, head) = open(&client, &attach.replace("GET", "POST")).await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: tcp"), "{head}");
        soon("tcp", echoes(&mut stream)).await;
        let seen = app.seen().pop().unwrap();
        assert_eq!(
            (seen.method, seen.headers["upgrade"].to_str().unwrap().to_ascii_lowercase()),
            (Method::POST, "tcp".into())
        );
    }
}

#[tokio::test]
async fn what_is_not_listed_goes_on_as_a_plain_request_or_is_refused_over_http2() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    let (client, server) = pair(&mesh, &service(Between::Auto, Protocol::Http, &["tcp"]), &app);
    for opening in [
        websocket("/"),
        opening("/", "Upgrade: h2c\r\nHTTP2-Settings: AAA\r\n"),
        opening("/", "Upgrade: tcp\r\nContent-Length: 1\r\n").replace("GET", "POST") + "x",
        opening("/", "Upgrade: tcp\r\n").replace("Connection: Upgrade\r\n", ""),
        opening("/", "Upgrade: tcp\r\n").replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let (_stream, head) = open(&client, &opening).await;
        assert!(head.contains(" 200 ok"), "{opening}: {head}");
        let seen = app.seen().pop().unwrap();
        for gone in ["upgrade", "http2-settings", "connection"] {
            assert!(!seen.headers.contains_key(gone), "{opening}: {gone}");
        }
    }
    let reached = app.seen().len();
    let (answer, _) = connect_h2(client.outbound, "cart", "/", "websocket").await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-outrigger-reason"]),
        (403, &"upgrade_denied".parse().unwrap())
    );
    // The server's side has its own rules: those of the caller's side do not count there.
    server.set(Resource::Inbound(resources::inbound(
        &resources::identity("shop", "cart"),
        &[&service(Between::Auto, Protocol::Http, &[])],
    )));
    client.knows(service(Between::Http2, Protocol::Http, &["tcp"]), []);
    let (_, head) = open(&client, &opening("/", "Upgrade: tcp\r\n")).await;
    assert!(head.contains(" 403 ") && head.contains("x-outrigger-hop: server"), "{head}");
    assert_eq!(app.seen().len(), reached);
}

#[tokio::test]
async fn an_application_that_does_not_switch_is_heard_and_one_that_lies_is_not() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    for between in [Between::Http1, Between::Http2] {
        let (client, _server) = pair(&mesh, &service(between, Protocol::Http, &["websocket"]), &app);
        for (path, status, said) in [("/plain", "200", "plain"), ("/no", "426", "no")] {
            let mut raw = RawClient::connect(client.outbound).await;
            let twice = websocket(path) + "GET /plain HTTP/1.1\r\nHost: cart\r\n\r\n";
            let (got, closed) = raw.write(twice).await.read_until_silent(Duration::from_millis(300)).await;
            let got = String::from_utf8_lossy(&got);
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")) && !closed, "{between:?}: {got}");
            assert!(
                got.contains(&format!("\r\n\r\n{said}HTTP/1.1 200 OK")),
                "{between:?}: it goes on: {got}"
            );
            assert!(got.ends_with("\r\n\r\nplain"), "{between:?}: {got}");
            assert!(!got.contains("x-outrigger-"), "{got}");
        }
        let (answer, _) = connect_h2(client.outbound, "cart", "/plain", "websocket").await.unwrap();
        assert_eq!(answer.status().as_u16(), 501, "extended CONNECT has no success but a switch");
        let (answer, _) = connect_h2(client.outbound, "cart", "/no", "websocket").await.unwrap();
        assert_eq!(answer.status().as_u16(), 426);
        let (answer, _) = connect_h2(client.outbound, "cart", "/wrong", "websocket").await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-outrigger-reason"]),
            (502, &"upstream_reset".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn a_tunnel_outlives_the_request_timeout_and_ends_when_it_idles() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    for between in [Between::Http1, Between::Http2] {
        let mut policy = TrafficPolicy::default();
        policy.timeouts.request = Some(Duration::from_millis(500));
        policy.timeouts.idle = Some(Duration::from_secs(2));
        let service = Service { policy, ..service(between, Protocol::Http, &["websocket"]) };
        let (client, server) = pair(&mesh, &service, &app);
        let (mut stream, _) = open(&client, &websocket("/")).await;
        let mut back = [0; 1];
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.write_all(b"x").await.unwrap();
            stream.read_exact(&mut back).await.unwrap();
        }
        let began = std::time::Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut back)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)) && began.elapsed() > Duration::from_secs(1));
        let quiet = || async { server.live.counters.inbound_connections.load(Relaxed) <= 1 };
        eventually("the other side has ended, too", quiet).await;
    }
}

#[tokio::test]
async fn a_tunnel_ends_when_its_service_lets_no_answer_go_on_for_longer() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    for between in [Between::Http1, Between::Http2] {
        let mut policy = TrafficPolicy::default();
        policy.timeouts.stream = Some(Duration::from_millis(600));
        let service = Service { policy, ..service(between, Protocol::Http, &["websocket"]) };
        let (client, server) = pair(&mesh, &service, &app);
        let began = std::time::Instant::now();
        let (mut stream, _) = open(&client, &websocket("/")).await;
        let mut back = [0; 1];
        let passes = async {
            loop {
                stream.write_all(b"x").await?;
                match stream.read(&mut back).await? {
                    0 => return std::io::Result::Ok(()),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let _ended_or_reset = soon("it ends though bytes pass", passes).await;
        assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let quiet = || async { server.live.counters.inbound_connections.load(Relaxed) <= 1 };
        eventually("the other side has ended, too", quiet).await;
    }
}

#[tokio::test]
async fn draining_waits_for_tunnels_and_the_deadline_cuts_them() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    for between in [Between::Http1, Between::Http2] {
        let (client, server) = pair(&mesh, &service(between, Protocol::Http, &["websocket"]), &app);
        let (mut stream, _) = open(&client, &websocket("/")).await;
        server.phase.send_replace(Phase::InboundClosing);
        let idle = tokio::time::timeout(Duration::from_millis(300), server.idle.inbound()).await;
        assert!(idle.is_err(), "{between:?}: it waits");
        let mut back = [0; 4];
        stream.write_all(b"more").await.unwrap();
        soon("an echo", stream.read_exact(&mut back)).await.unwrap();
        if between == Between::Http1 {
            soon("the end", echoes(&mut stream)).await;
        } else {
            server.phase.send_replace(Phase::InboundClosed);
            soon("the cut", stream.read(&mut back)).await.ok();
        }
        soon("nothing is left", server.idle.inbound()).await;
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_the_whole_way_along() {
    let (mesh, app) = (Mesh::new(), Switcher::start().await);
    let (client, server) = pair(&mesh, &service(Between::Http1, Protocol::Http, &["websocket"]), &app);
    let (stream, _) = open(&client, &websocket("/")).await;
    assert_eq!(client.live.counters.outbound_connections.load(Relaxed), 1);
    drop(stream);
    let gone = || async {
        client.live.counters.outbound_connections.load(Relaxed) == 0
            && server.live.counters.inbound_connections.load(Relaxed) == 0
    };
    eventually("both sidecars have let go", gone).await;
}
