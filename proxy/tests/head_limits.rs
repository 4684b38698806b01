//! A head at the limit of an edge passes every sidecar of its way; one beyond it is refused where it enters.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use outrigger_mesh::{Between, Resource, Service};
use outrigger_proxy::http::canonical::MAX_URI;
use outrigger_proxy::http::strict::Limits;
use outrigger_testkit::{Client, RawBackend, RawClient, request, resources};
use support::{Mesh, Sidecar};

/// A client's sidecar and that of an instance of shop/cart before `app`.
fn pair(between: Between, app: SocketAddr) -> (Sidecar, Sidecar) {
    let mesh = Mesh::new();
    let service = Service { between, ..resources::service("shop/cart") };
    let server = mesh.server("shop/cart", app);
    server.set(Resource::Inbound(resources::inbound(&service.identities[0], &[&service])));
    let client = mesh.client();
    client.knows(service, [server.endpoint("shop/cart", "i-1")]);
    (client, server)
}

/// A head of `bytes` bytes and `fields` fields that begins with `first`.
fn head(first: &str, bytes: usize, fields: usize) -> String {
    let mut head = first.to_owned();
    let had = first.matches("\r\n").count() - 1;
    // Written as shortly as can be: every hop writes a blank more.
    head.extend((had + 1..fields).map(|at| format!("x-{at}:y\r\n")));
    let pad = bytes - head.len() - "x-pad:\r\n\r\n".len();
    head + &format!("x-pad:{}\r\n\r\n", "p".repeat(pad))
}

async fn ask(client: &Sidecar, bytes: &str) -> String {
    let mut raw = RawClient::connect(client.outbound).await;
    let (got, _) = raw.write(bytes).await.read_until_silent(Duration::from_millis(600)).await;
    String::from_utf8_lossy(&got).into_owned()
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: cart\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
const EDGE: Limits = Limits::EDGE;
const BETWEEN: [Between; 2] = [Between::Http1, Between::Http2];

fn refused_at_once(got: &str, status: &str, reason: &str) -> bool {
    got.starts_with(status) && got.contains(reason) && got.contains("x-outrigger-hop: client\r\n")
}

#[tokio::test]
async fn a_head_at_the_limit_passes_both_sidecars_and_one_beyond_it_is_refused_by_the_first() {
    for between in BETWEEN {
        let app = RawBackend::start(format!("{ANSWER}Connection: close\r\n\r\nok")).await;
        let (client, _server) = pair(between, app.addr());
        let got = ask(&client, &head(REQUEST, EDGE.head, EDGE.fields)).await;
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("ok"), "{between:?}: {got}");
        let seen = String::from_utf8(app.received().concat()).unwrap();
        assert!(seen.contains("\r\nx-86: y\r\n") && seen.len() > EDGE.head, "{between:?}: {}", seen.len());

        for (bytes, fields) in [(EDGE.head + 1, 10), (EDGE.head, EDGE.fields + 1)] {
            let got = ask(&client, &head(REQUEST, bytes, fields)).await;
            assert!(refused_at_once(&got, "HTTP/1.1 431 ", "header_too_large"), "{between:?}: {got}");
        }
        // A target counts as it is sent on.
        for (braces, passes) in [(MAX_URI / 3, true), (MAX_URI / 3 + 1, false)] {
            let first = format!("GET /{} HTTP/1.1\r\nHost: cart\r\n", "{".repeat(braces));
            let got = ask(&client, &head(&first, EDGE.head, EDGE.fields)).await;
            assert_eq!(got.starts_with("HTTP/1.1 200 "), passes, "{between:?}: {got}");
            assert!(passes || refused_at_once(&got, "HTTP/1.1 414 ", "uri_too_long"), "{between:?}: {got}");
        }
        assert_eq!(app.received().concat().windows(4).filter(|w| w == b"GET ").count(), 2, "{between:?}");
    }
}

#[tokio::test]
async fn over_http2_the_decoded_list_counts_and_is_refused_with_a_reason() {
    // Of the smallest request to `cart`, as RFC 9113, section 6.5.2, counts it.
    let least = 4 * 32 + ":methodGET:schemehttp:authoritycart:path/".len();
    for between in BETWEEN {
        let app = RawBackend::start(format!("{ANSWER}Connection: close\r\n\r\nok")).await;
        let (client, _server) = pair(between, app.addr());
        let call = |size: usize, fields: usize| {
            let mut call = request(Method::GET, "cart", "/", Bytes::new());
            let mut left = size - least;
            for at in 1..fields {
                let name = HeaderName::try_from(format!("x-{at}")).unwrap();
                left -= 32 + name.as_str().len() + 1;
                call.headers_mut().insert(name, HeaderValue::from_static("y"));
            }
            let pad = "p".repeat(left - 32 - "x-pad".len());
            call.headers_mut().insert("x-pad", pad.parse().unwrap());
            call
        };
        // HTTP/1 would count Host.
        let (most, fields) = (EDGE.head, EDGE.fields - 1);
        for (size, fields, status) in [(most, fields, 200), (most + 1, 9, 431), (most, fields + 1, 431)] {
            let reply = Client::h2(client.outbound).await.send(call(size, fields)).await.unwrap();
            assert_eq!(reply.status.as_u16(), status, "{between:?}: {size} {fields} {}", reply.text());
            let told = (reply.header("x-outrigger-reason"), reply.header("x-outrigger-hop"));
            assert!(status == 200 || told == (Some("header_too_large"), Some("client")), "{told:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_at_the_limit_passes_both_sidecars_and_one_beyond_it_fails_at_the_applications() {
    for between in BETWEEN {
        for (bytes, fields, passes) in
            [(EDGE.head, EDGE.fields, true), (EDGE.head + 1, 10, false), (EDGE.head, EDGE.fields + 1, false)]
        {
            let app = RawBackend::start(head(ANSWER, bytes, fields) + "ok").await;
            let (client, _server) = pair(between, app.addr());
            let got = ask(&client, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
            assert_eq!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("ok"), passes, "{between:?}: {got}");
            let told = got.starts_with("HTTP/1.1 502 ") && got.contains("x-outrigger-hop: server\r\n");
            assert!(passes || told, "{between:?}: {got}");
        }
    }
}
