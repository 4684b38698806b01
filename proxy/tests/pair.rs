//! Two sidecars over mutual TLS, and who is kept out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod foreign_peers;
mod revocation;
mod support;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};
use outrigger_mesh::{Between, Service, Side};
use outrigger_proxy::drain::Phase;
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, RawClient, eventually, request, resources};
use support::Mesh;

fn service(between: Between) -> Service {
    Service { between, ..resources::service("shop/cart") }
}

#[tokio::test]
async fn a_request_crosses_the_mesh_and_the_application_learns_who_called() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    let client = mesh.client();
    for between in [Between::Http1, Between::Http2, Between::Auto] {
        client.knows(service(between), [server.endpoint("shop/cart", "i-1")]);
        for mut caller in [Client::h1(client.outbound).await, Client::h2(client.outbound).await] {
            let mut forged = request(Method::POST, "cart", "/x?y=1", "hello".into());
            forged.headers_mut().insert("x-forwarded-client-cert", "URI=spiffe://forged".parse().unwrap());
            let reply = caller.send(forged).await.unwrap();
            assert_eq!(reply.status, StatusCode::OK, "{between:?}: {}", reply.text());
            let seen = app.seen().pop().unwrap();
            let cert = seen.header("x-forwarded-client-cert").unwrap();
            assert!(
                cert.starts_with("Hash=") && cert.ends_with(";URI=spiffe://mesh.local/ns/shop/sa/web"),
                "{cert}"
            );
            assert_eq!((seen.body, seen.target.as_str(), seen.header("host")), (5, "/x?y=1", Some("cart")));
            assert_eq!(seen.header("x-outrigger-deadline-ms"), None);
        }
    }
    let told = server.live.traffic_delta().traffic;
    let (key, stats) = told.iter().find(|(key, _)| key.side == Side::Server).unwrap();
    assert_eq!((key.caller.clone(), stats.requests), (Some(resources::identity("shop", "web")), 6));
    let told = client.live.traffic_delta().traffic;
    assert_eq!(told.iter().map(|(_, s)| s.success).sum::<u64>(), 6);
}

#[tokio::test]
async fn grpc_keeps_its_trailers_and_the_application_gets_http2() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    app.behave(Behaviour { body: BodyOf::Request, trailers, ..Behaviour::default() });
    let server = mesh.server("shop/cart", app.addr());
    let client = mesh.client();
    client.knows(service(Between::Auto), [server.endpoint("shop/cart", "i-1")]);
    let mut call = request(Method::POST, "cart", "/s/M", "frames".into());
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "5S")] {
        call.headers_mut().insert(name, value.parse().unwrap());
    }
    let reply = Client::h2(client.outbound).await.send(call).await.unwrap();
    assert_eq!((&reply.body[..], reply.trailers["grpc-status"].as_bytes()), (&b"frames"[..], &b"0"[..]));
    let seen = app.seen().pop().unwrap();
    assert_eq!((seen.version, seen.header("te")), (Version::HTTP_2, Some("trailers")));
    assert!(seen.header("grpc-timeout").unwrap().ends_with('u'));
}

#[tokio::test]
async fn plaintext_and_a_foreign_certificate_are_refused_and_counted() {
    let (mesh, other, app) = (Mesh::new(), Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    let mut raw = RawClient::connect(server.inbound.unwrap()).await;
    raw.write("GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
    let (reply, closed) = raw.read_until_closed().await;
    assert!(reply.is_empty() && closed);

    let foreign = other.client();
    foreign.knows(service(Between::Auto), [server.endpoint("shop/cart", "i-1")]);
    let reply = Client::h1(foreign.outbound).await.get("cart", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (502, Some("tls_failed")));
    assert_eq!(app.requests(), 0);
    let refused = || async { server.live.counters.handshakes_refused.load(Relaxed) >= 2 };
    eventually("both were counted", refused).await;
}

#[tokio::test]
async fn an_endpoint_with_another_identity_than_the_service_allows_gets_nothing() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let impostor = mesh.server("shop/prices", app.addr());
    let client = mesh.client();
    client.knows(service(Between::Auto), [impostor.endpoint("shop/cart", "i-1")]);
    let reply = Client::h1(client.outbound).await.post("cart", "/", "secret").await.unwrap();
    assert_eq!(reply.header("x-outrigger-reason"), Some("tls_failed"));
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_peer_that_is_no_longer_allowed_loses_its_open_connections() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", app.addr());
    let client = mesh.client();
    client.knows(service(Between::Http2), [server.endpoint("shop/cart", "i-1")]);
    let mut caller = Client::h1(client.outbound).await;
    assert_eq!(caller.get("cart", "/").await.unwrap().status, StatusCode::OK);
    let identities = vec![resources::identity("shop", "somebody-else")];
    client.knows(Service { identities, ..service(Between::Http2) }, []);
    assert_eq!(caller.get("cart", "/").await.unwrap().header("x-outrigger-reason"), Some("tls_failed"));
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn an_application_that_is_down_is_told_apart_and_another_instance_answers() {
    let (mesh, mut down, up) = (Mesh::new(), Origin::start().await, Origin::start().await);
    down.refuse().await;
    let (first, second) = (mesh.server("shop/cart", down.addr()), mesh.server("shop/cart", up.addr()));
    let client = mesh.client();
    client.knows(service(Between::Auto), [first.endpoint("shop/cart", "i-1")]);
    let mut caller = Client::h1(client.outbound).await;
    let reply = caller.post("cart", "/", "order").await.unwrap();
    let got = (reply.status.as_u16(), reply.header("x-outrigger-reason"), reply.header("x-outrigger-hop"));
    assert_eq!(got, (503, Some("connect_failed"), Some("server")));
    assert_eq!(reply.header("x-outrigger-unprocessed"), None, "that is between sidecars");

    client.knows(service(Between::Auto), [second.endpoint("shop/cart", "i-2")]);
    for _ in 0..20 {
        assert_eq!(caller.post("cart", "/", "order").await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(up.requests(), 20);
}

#[tokio::test]
async fn many_at_once_share_few_connections() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    app.behave(Behaviour { delay: Duration::from_millis(100), ..Behaviour::default() });
    let server = mesh.server("shop/cart", app.addr());
    let client = mesh.client();
    client.knows(service(Between::Auto), [server.endpoint("shop/cart", "i-1")]);
    let callers = (0..50).map(|_| {
        let outbound = client.outbound;
        tokio::spawn(async move { Client::h1(outbound).await.get("cart", "/").await.unwrap().status })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap(), StatusCode::OK);
    }
    let handshakes = server.live.counters.handshakes.load(Relaxed);
    assert!((2..=10).contains(&handshakes), "{handshakes}");
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_takes_nothing_new() {
    let (mesh, app) = (Mesh::new(), Origin::start().await);
    app.behave(Behaviour { delay: Duration::from_millis(300), ..Behaviour::default() });
    let server = mesh.server("shop/cart", app.addr());
    let client = mesh.client();
    for between in [Between::Http1, Between::Http2] {
        client.knows(service(between), [server.endpoint("shop/cart", "i-1")]);
        Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
    }
    let outbound = client.outbound;
    let in_flight =
        tokio::spawn(async move { Client::h1(outbound).await.get("cart", "/").await.unwrap().status });
    eventually("it is in flight", || async { app.in_flight() == 1 }).await;
    server.phase.send_replace(Phase::InboundClosing);
    assert_eq!(in_flight.await.unwrap(), StatusCode::OK);
    tokio::time::timeout(Duration::from_secs(3), server.idle.inbound()).await.unwrap();
    assert!(tokio::net::TcpStream::connect(server.inbound.unwrap()).await.is_err());
    assert!(tokio::net::TcpStream::connect(server.outbound).await.is_ok(), "the application may still call");
}
