//! What HTTP has beside requests and answers: spelling, expectations, interim answers, order, HTTP/1.0.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use outrigger_mesh::{Between, Resource, Service};
use outrigger_testkit::{Behaviour, BodyOf, Origin, RawBackend, RawClient, resources};
use support::{Mesh, Sidecar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

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

const SILENCE: Duration = Duration::from_millis(400);

async fn ask(client: &Sidecar, request: &str) -> (String, bool) {
    let mut raw = RawClient::connect(client.outbound).await;
    let (got, closed) = raw.write(request).await.read_until_silent(SILENCE).await;
    (String::from_utf8_lossy(&got).into_owned(), closed)
}

/// The same of somebody who is to close the connection then.
async fn ask_to_the_end(client: &Sidecar, request: &str) -> (String, bool) {
    let mut raw = RawClient::connect(client.outbound).await;
    let (got, closed) = raw.write(request).await.read_until_closed().await;
    (String::from_utf8_lossy(&got).into_owned(), closed)
}

#[tokio::test]
async fn headers_are_spelled_as_they_were_where_http1_runs_all_the_way() {
    let answer = "HTTP/1.1 200 OK\r\nX-MiXed: back\r\nContent-LENGTH: 2\r\n\r\nok";
    for (between, kept) in [(Between::Http1, true), (Between::Http2, false)] {
        let app = RawBackend::start(answer).await;
        let (client, _server) = pair(between, app.addr());
        let (got, _) =
            ask(&client, "GET / HTTP/1.1\r\nHost: cart\r\nX-CamelCase: 1\r\nx-lower: 2\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("ok"), "{got}");
        let seen = String::from_utf8(app.received().concat()).unwrap();
        assert_eq!(seen.contains("\r\nX-CamelCase: 1\r\n"), kept, "{seen}");
        assert!(seen.contains("\r\nx-lower: 2\r\n"), "{seen}");
        assert_eq!(got.contains("\r\nX-MiXed: back\r\n"), kept, "{got}");
    }
}

/// An application by hand: reads a head, then does as it is told.
async fn by_hand<F: Future<Output = ()> + Send + 'static>(
    act: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        act(stream).await;
    });
    addr
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn a_body_is_asked_for_when_the_application_wants_it() {
    for between in [Between::Http1, Between::Auto] {
        let (want, wanted) = oneshot::channel::<()>();
        let app = by_hand(move |mut stream: TcpStream| async move {
            wanted.await.unwrap();
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
            stream.write_all(&body).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        })
        .await;
        let (client, _server) = pair(between, app);
        let mut raw = RawClient::connect(client.outbound).await;
        let silent = raw.write(EXPECTING).await.stays_silent(Duration::from_millis(150)).await;
        assert!(silent, "{between:?}: nobody has asked for the body yet");
        want.send(()).unwrap();
        let (asked, _) = raw.read_until_silent(SILENCE).await;
        assert_eq!(asked, b"HTTP/1.1 100 Continue\r\n\r\n", "{between:?}");
        let (got, _) = raw.write("body").await.read_until_silent(SILENCE).await;
        let got = String::from_utf8_lossy(&got);
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\nbody"), "{between:?}: {got}");
    }
}

#[tokio::test]
async fn an_answer_before_the_body_spares_it_and_ends_the_connection() {
    for between in [Between::Http1, Between::Auto] {
        let app = by_hand(async |mut stream| {
            stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            let _until_closed = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty(), "the body came all the same");
        })
        .await;
        let (client, _server) = pair(between, app);
        let (got, closed) = ask_to_the_end(&client, EXPECTING).await;
        assert!(got.starts_with("HTTP/1.1 401 ") && closed, "{between:?}: {got}");
    }
}

#[tokio::test]
async fn interim_answers_end_at_the_sidecar_and_the_final_one_passes() {
    for between in [Between::Http1, Between::Http2] {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
        let app =
            RawBackend::start(format!("{early}{early}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).await;
        let (client, _server) = pair(between, app.addr());
        let (got, _) = ask(&client, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("ok") && !got.contains("103"), "{got}");
    }
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    for between in [Between::Http1, Between::Http2] {
        let app = Origin::start().await;
        app.behave(Behaviour { body: BodyOf::Request, ..Behaviour::default() });
        let (client, _server) = pair(between, app.addr());
        let mut row = String::new();
        for number in 0..20 {
            let body = number.to_string();
            let length = body.len();
            write!(row, "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        }
        let (got, closed) = ask(&client, &row).await;
        let bodies: Vec<&str> = got
            .split("HTTP/1.1 200 OK\r\n")
            .skip(1)
            .map(|answer| {
                answer.split_once("\r\n\r\n").unwrap().1.split("\r\n").find(|l| !l.is_empty()).unwrap()
            })
            .collect();
        // Chunks of one piece: its size, then itself.
        let numbers: Vec<String> =
            got.lines().filter_map(|l| l.parse::<u32>().ok().map(|n| n.to_string())).collect();
        assert_eq!(bodies.len(), 20, "{between:?}: {got}");
        let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let mut at = 0;
        for n in numbers {
            if at < 20 && n == expected[at] {
                at += 1;
            }
        }
        assert!(at == 20 && !closed, "{between:?}: {got}");
    }
}

#[tokio::test]
async fn http_1_0_gets_no_chunks_and_keeps_a_connection_only_when_it_asks() {
    for between in [Between::Http1, Between::Http2] {
        let app = Origin::start().await;
        let (client, _server) = pair(between, app.addr());
        app.behave(Behaviour {
            body: BodyOf::Chunks { count: 3, size: 5, pause: Duration::ZERO },
            ..Behaviour::default()
        });
        let (got, closed) =
            ask_to_the_end(&client, "GET / HTTP/1.0\r\nHost: cart\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.0 200 OK\r\n") && closed, "{between:?}: {got}");
        assert!(
            !got.contains("transfer-encoding") && got.ends_with("\r\n\r\nxxxxxxxxxxxxxxx"),
            "{between:?}: {got}"
        );

        for (asks, keeps) in [("Connection: keep-alive\r\n", true), ("", false)] {
            let app = RawBackend::start("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxxx").await;
            let (client, _server) = pair(between, app.addr());
            let request = format!("GET / HTTP/1.0\r\nHost: cart\r\n{asks}\r\n");
            let (got, closed) =
                if keeps { ask(&client, &request).await } else { ask_to_the_end(&client, &request).await };
            assert!(got.ends_with("\r\n\r\nxxx") && closed != keeps, "{between:?}: {got}");
            assert_eq!(got.to_lowercase().contains("connection: keep-alive"), keeps, "{between:?}: {got}");
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_keep_what_they_say_of_it() {
    for between in [Between::Http1, Between::Http2] {
        for (method, answer, said) in [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", "content-length: 12345"),
            ("GET", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", "x-a: b"),
            ("GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"1\"\r\n\r\n", "etag: \"1\""),
        ] {
            let app = RawBackend::start(answer).await;
            let (client, _server) = pair(between, app.addr());
            let request = format!("{method} / HTTP/1.1\r\nHost: cart\r\n\r\n");
            let mut raw = RawClient::connect(client.outbound).await;
            let (got, closed) = raw.write(&request).await.read_until_silent(SILENCE).await;
            let got = String::from_utf8_lossy(&got).to_lowercase();
            assert!(
                got.contains(said) && got.ends_with("\r\n\r\n") && !closed,
                "{between:?} {method}: {got}"
            );
            assert!(!got.contains("transfer-encoding"), "{between:?} {method}: {got}");
        }
    }
}
