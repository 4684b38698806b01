//! The way of a request from the application: naming, forms of HTTP, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};
use outrigger_mesh::{Port, PortNumber, Protocol, Service};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, RawClient, request, resources};
use support::{Mesh, open_service, plain};

#[tokio::test]
async fn a_request_reaches_the_service_its_host_names_in_both_protocols() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    for mut client in [Client::h1(sidecar.outbound).await, Client::h2(sidecar.outbound).await] {
        for host in ["cart", "cart.shop", "CART.shop.mesh.", "cart:80", "cart.shop.svc.cluster.local"] {
            let reply = client.get(host, "/a/../items?x=1").await.unwrap();
            assert_eq!(reply.status, StatusCode::OK, "{host}: {}", reply.text());
            let seen = origin.seen().pop().unwrap();
            assert_eq!((seen.target.as_str(), seen.header("host")), ("/items?x=1", Some(host)));
        }
    }
    assert_eq!(origin.connections(), 1, "one idle connection serves all");
}

#[tokio::test]
async fn a_port_of_its_own_stands_for_its_service_whatever_the_host() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let sidecar = mesh.client_with(&["cart"], 1);
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    let mut client = Client::h1(sidecar.upstreams[0]).await;
    let host = sidecar.upstreams[0].to_string();
    assert_eq!(client.get(&host, "/").await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn what_can_not_be_routed_is_refused_with_its_reason() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    sidecar.knows(resources::service("shop/strict"), [plain("shop/strict", "i-1", origin.addr())]);
    sidecar.knows(open_service("shop/empty"), []);
    let port = sidecar.outbound.port();
    let here = format!("127.0.0.1:{port} [::ffff:127.0.0.1]:{port} 0.0.0.0:{port} [::]:{port}");
    for (number, at) in here.split(' ').enumerate() {
        let name = format!("shop/loop{number}");
        sidecar.knows(open_service(&name), [plain(&name, "i-1", at.parse().unwrap())]);
    }
    for (host, path, status, reason) in [
        ("nobody", "/", 404, "unknown_service"),
        ("127.0.0.1:80", "/", 400, "bad_request"),
        ("cart:81", "/", 404, "no_route"),
        ("cart", "/a%2fb", 400, "bad_request"),
        ("empty", "/", 503, "no_endpoint"),
        ("strict", "/", 502, "tls_failed"),
        ("loop0", "/", 508, "loop_detected"),
        ("loop1", "/", 508, "loop_detected"),
        ("loop2", "/", 508, "loop_detected"),
        ("loop3", "/", 508, "loop_detected"),
    ] {
        let mut client = Client::h1(sidecar.outbound).await;
        let reply = client.get(host, path).await.unwrap();
        let got =
            (reply.status.as_u16(), reply.header("x-outrigger-reason"), reply.header("x-outrigger-hop"));
        assert_eq!(got, (status, Some(reason), Some("client")), "{host}{path}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_refused_grpc_call_gets_a_status_and_a_json_client_a_problem() {
    let sidecar = Mesh::new().client();
    let mut grpc = request(Method::POST, "nobody", "/s/M", "x".into());
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let reply = Client::h2(sidecar.outbound).await.send(grpc).await.unwrap();
    assert_eq!((reply.status, reply.header("grpc-status")), (StatusCode::OK, Some("12")));

    let mut json = request(Method::GET, "nobody", "/", "".into());
    json.headers_mut().insert("accept", "application/json".parse().unwrap());
    let reply = Client::h1(sidecar.outbound).await.send(json).await.unwrap();
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.json()["reason"], "unknown_service");
}

#[tokio::test]
async fn headers_for_one_connection_and_forged_ones_do_not_pass_in_either_direction() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let answer = [("x-outrigger-reason", "forged"), ("x-kept", "1"), ("keep-alive", "timeout=5")];
    let headers = answer.map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).to_vec();
    origin.behave(Behaviour { headers, ..Behaviour::default() });
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    let mut client = RawClient::connect(sidecar.outbound).await;
    let head = "GET / HTTP/1.1\r\nHost: cart\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\
                X-Outrigger-Attempt: 9\r\nX-Forwarded-Client-Cert: forged\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
    client.write(head).await;
    let (reply, _) = client.read_until_silent(Duration::from_millis(200)).await;
    let reply = String::from_utf8_lossy(&reply).to_lowercase();
    assert!(reply.starts_with("http/1.1 200") && reply.contains("x-kept: 1"), "{reply}");
    assert!(!reply.contains("forged") && !reply.contains("keep-alive"), "{reply}");
    let seen = origin.seen().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-for"), Some("1.2.3.4"));
    for gone in ["x-secret", "x-outrigger-attempt", "x-forwarded-client-cert", "connection"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn what_has_two_readings_is_refused() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: cart\r\nHost: cart\r\n\r\n",
        "GET http://me@cart/ HTTP/1.1\r\nHost: cart\r\n\r\n",
        "GET /..;/x HTTP/1.1\r\nHost: cart\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: gzip\r\n\r\n",
        "CONNECT cart HTTP/1.1\r\nHost: cart\r\n\r\n",
    ] {
        let mut client = RawClient::connect(sidecar.outbound).await;
        client.write(head).await;
        let (reply, closed) = client.read_until_closed().await;
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.starts_with("HTTP/1.1 400") && closed, "{head:?}: {reply:?} {closed}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_body_and_trailers_stream_through_without_waiting_for_the_end() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let chunks = BodyOf::Chunks { count: 3, size: 10, pause: Duration::from_secs(1) };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    origin.behave(Behaviour { body: chunks, trailers, ..Behaviour::default() });
    let sidecar = mesh.client();
    let port = Port { number: PortNumber::HTTP, protocol: Protocol::Http2 };
    let service = Service { ports: vec![port], ..open_service("shop/cart") };
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    let mut client = Client::h2(sidecar.outbound).await;
    let response = client.start(request(Method::GET, "cart", "/", "".into())).await.unwrap();
    assert_eq!(origin.in_flight(), 1, "the head waited for the body");
    let collected = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes().len(), 30);
    assert_eq!(origin.seen().pop().unwrap().version, Version::HTTP_2);
}

#[tokio::test]
async fn cookie_crumbs_become_one_cookie_towards_http1() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    let mut crumbs = request(Method::GET, "cart", "/", "".into());
    crumbs.headers_mut().append("cookie", "a=1".parse().unwrap());
    crumbs.headers_mut().append("cookie", "b=2".parse().unwrap());
    Client::h2(sidecar.outbound).await.send(crumbs).await.unwrap();
    let seen = origin.seen().pop().unwrap();
    assert_eq!((seen.version, seen.header("cookie")), (Version::HTTP_11, Some("a=1; b=2")));
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let body = BodyOf::Bytes(1000);
    let reset = outrigger_testkit::Reset::MidBody(500);
    origin.behave(Behaviour { body, reset, ..Behaviour::default() });
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    assert!(Client::h1(sidecar.outbound).await.get("cart", "/").await.is_err());
    assert!(Client::h2(sidecar.outbound).await.get("cart", "/").await.is_err());
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_leaves_no_connection_that_hangs() {
    let mesh = Mesh::new();
    let early =
        outrigger_testkit::RawBackend::start("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await;
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", early.addr())]);
    let mut uploader = RawClient::connect(sidecar.outbound).await;
    uploader.write("POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 1000000\r\n\r\nbegun").await;
    let (reply, _) = uploader.read_until_silent(Duration::from_millis(200)).await;
    assert!(reply.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&reply));
    let other = tokio::time::timeout(Duration::from_secs(3), async {
        Client::h1(sidecar.outbound).await.get("cart", "/").await.unwrap().status
    });
    assert_eq!(other.await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(early.received().len(), 2, "the second request has a connection of its own");
}
