//! HTTP/1 at both edges, judged by the bytes that arrive: what has two readings goes nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::time::Duration;

use outrigger_mesh::{Between, HttpRules, Service};
use outrigger_testkit::{Origin, RawBackend, RawClient, resources};
use support::{Mesh, Sidecar, open_service, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SILENCE: Duration = Duration::from_millis(150);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A sidecar before a backend that answers each connection with `answer`.
async fn before(answer: &str) -> (Sidecar, RawBackend) {
    let backend = RawBackend::start(answer).await;
    let sidecar = Mesh::new().client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", backend.addr())]);
    (sidecar, backend)
}

/// A sidecar before a backend that answers every request.
async fn before_origin() -> (Sidecar, Origin) {
    let origin = Origin::start().await;
    let sidecar = Mesh::new().client();
    sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", origin.addr())]);
    (sidecar, origin)
}

/// Sends `bytes` in pieces of `piece`, and reads what comes.
async fn exchange(sidecar: &Sidecar, bytes: &str, piece: usize) -> (String, bool) {
    let (answer, closed) = sent(sidecar, bytes, piece).await.read_until_silent(SILENCE).await;
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

/// The same of somebody who is to close the connection then.
async fn exchange_to_the_end(sidecar: &Sidecar, bytes: &str, piece: usize) -> (String, bool) {
    let (answer, closed) = sent(sidecar, bytes, piece).await.read_until_closed().await;
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

async fn sent(sidecar: &Sidecar, bytes: &str, piece: usize) -> RawClient {
    let mut client = RawClient::connect(sidecar.outbound).await;
    for piece in bytes.as_bytes().chunks(piece) {
        client.write(piece).await;
        if piece.len() < bytes.len() {
            tokio::task::yield_now().await;
        }
    }
    client
}

#[tokio::test]
async fn a_request_with_two_readings_is_refused_and_nothing_of_it_is_sent_on() {
    let (sidecar, backend) = before(OK).await;
    for (what, request) in [
        (
            "both framings",
            "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two equal lengths",
            "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 0, 0\r\n\r\n"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: +0\r\n\r\n"),
        ("a length with a blank", "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 0 \r\n\r\n"),
        ("an empty length", "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length:\r\n\r\n"),
        ("a huge length", "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 18446744073709551616\r\n\r\n"),
        (
            "another coding",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked with a tab",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("a bare LF", "GET / HTTP/1.1\nHost: cart\n\n"),
        ("a bare LF in the middle", "GET / HTTP/1.1\r\nHost: cart\nX: y\r\n\r\n"),
        ("a bare CR", "GET / HTTP/1.1\r\nHost: cart\rX: y\r\n\r\n"),
        ("a folded line", "GET / HTTP/1.1\r\nHost: cart\r\nX: y\r\n z\r\n\r\n"),
        ("a blank before the colon", "GET / HTTP/1.1\r\nHost : cart\r\n\r\n"),
        ("an empty name", "GET / HTTP/1.1\r\nHost: cart\r\n: y\r\n\r\n"),
        ("a NUL", "GET / HTTP/1.1\r\nHost: cart\r\nX: \0\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\nX: y\r\n\r\n"),
        ("no host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n"),
        ("two equal hosts", "GET / HTTP/1.1\r\nHost: cart\r\nHost: cart\r\n\r\n"),
        ("two blanks", "GET  / HTTP/1.1\r\nHost: cart\r\n\r\n"),
        ("another version", "GET / HTTP/1.2\r\nHost: cart\r\n\r\n"),
        ("no version", "GET /\r\nHost: cart\r\n\r\n"),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: cart\r\n\r\n"),
        ("a target without a form", "GET a/b HTTP/1.1\r\nHost: cart\r\n\r\n"),
        ("three blank lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: cart\r\n\r\n"),
        (
            "a signed chunk",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
        ),
        (
            "0x before a chunk",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        ),
        (
            "a blank behind a chunk's size",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
        ),
        (
            "a chunk's size that overflows",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n",
        ),
        (
            "a bare LF behind a chunk's size",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        ),
        (
            "a chunk that is longer than it says",
            "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        ),
    ] {
        for piece in [usize::MAX, 1] {
            let (answer, closed) = exchange_to_the_end(&sidecar, request, piece).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{what}: {answer}");
            assert!(answer.contains("\r\nx-outrigger-reason: bad_request\r\n"), "{what}: {answer}");
            assert!(answer.contains("\r\nx-outrigger-hop: client\r\n"), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{what}: {answer}");
            assert!(closed, "{what}: still open");
        }
    }
    for received in backend.received() {
        let received = String::from_utf8_lossy(&received).into_owned();
        assert!(!received.ends_with("0\r\n\r\n"), "a broken upload became a whole request: {received:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_has_its_own_refusal() {
    let (sidecar, backend) = before(OK).await;
    let many = "x: y\r\n".repeat(100);
    for (status, reason, request) in [
        (
            "431 ",
            "header_too_large",
            format!("GET / HTTP/1.1\r\nHost: cart\r\nX: {}\r\n\r\n", "y".repeat(65_536)),
        ),
        ("431 ", "header_too_large", format!("GET / HTTP/1.1\r\nHost: cart\r\n{many}\r\n")),
        ("414 ", "uri_too_long", format!("GET /{} HTTP/1.1\r\nHost: cart\r\n\r\n", "y".repeat(16 * 1024))),
    ] {
        let (answer, closed) = exchange_to_the_end(&sidecar, &request, usize::MAX).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(&format!("x-outrigger-reason: {reason}\r\n")) && closed, "{answer}");
    }
    assert!(backend.received().is_empty());
    let fits = format!("GET / HTTP/1.1\r\nHost: cart\r\nX: {}\r\n\r\n", "y".repeat(65_000));
    assert!(exchange(&sidecar, &fits, usize::MAX).await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn requests_before_a_bad_one_are_answered_first() {
    let (sidecar, _origin) = before_origin().await;
    let good = "GET / HTTP/1.1\r\nHost: cart\r\n\r\n";
    let (answer, closed) = exchange_to_the_end(
        &sidecar,
        &format!("{good}{good}GET / HTTP/1.1\nHost: cart\n\n{good}"),
        usize::MAX,
    )
    .await;
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|a| &a[..3]).collect();
    assert_eq!((statuses, closed), (vec!["200", "200", "400"], true), "{answer}");
}

#[tokio::test]
async fn a_refusal_speaks_json_to_who_asks_for_it() {
    let (sidecar, _backend) = before(OK).await;
    let (answer, _) =
        exchange(&sidecar, "GET / HTTP/1.1\r\nAccept: application/json\r\nHost: a\r\nHost: b\r\n\r\n", 7)
            .await;
    assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    assert!(answer.contains("more than one Host"), "{answer}");
    let (answer, _) = exchange(&sidecar, "HEAD / HTTP/1.1\r\n\r\n", 7).await;
    assert!(answer.ends_with("\r\n\r\n") && answer.contains("content-length: "), "{answer}");
}

#[tokio::test]
async fn an_answer_with_two_readings_becomes_a_502_and_its_connection_is_not_used_again() {
    for (what, answer) in [
        (
            "both framings",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
        ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"),
        ("a bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        ("a folded line", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok"),
        ("an unasked 101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        ("a status of 600", "HTTP/1.1 600 What\r\nContent-Length: 2\r\n\r\nok"),
        ("a status of 99", "HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nok"),
        ("no HTTP", "hello\r\n\r\n"),
        (
            "bytes behind the end",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("a bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n"),
        ("a 204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"),
    ] {
        let (sidecar, backend) = before(answer).await;
        let (got, _) =
            exchange(&sidecar, "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 0\r\n\r\n", usize::MAX)
                .await;
        assert!(got.starts_with("HTTP/1.1 502 "), "{what}: {got}");
        assert!(got.contains("x-outrigger-reason: upstream_reset\r\n"), "{what}: {got}");
        exchange(&sidecar, "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 0\r\n\r\n", usize::MAX).await;
        assert_eq!(backend.received().len(), 2, "{what}: the connection was used again");
    }
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let (sidecar, _backend) = before(&format!("{}{OK}", interim.repeat(8))).await;
    assert!(
        exchange(&sidecar, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n", usize::MAX)
            .await
            .0
            .starts_with("HTTP/1.1 200")
    );
    let (sidecar, _backend) = before(&format!("{}{OK}", interim.repeat(9))).await;
    assert!(
        exchange(&sidecar, "POST / HTTP/1.1\r\nHost: cart\r\n\r\n", usize::MAX)
            .await
            .0
            .starts_with("HTTP/1.1 502")
    );
}

#[tokio::test]
async fn good_messages_pass_whatever_pieces_they_come_in() {
    let (sidecar, origin) = before_origin().await;
    for request in [
        "GET /a?b=c HTTP/1.1\r\nHost: cart\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost:cart\r\n\r\n",
        "GET http://cart/a HTTP/1.1\r\nHost: other\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: cart\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: cart\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: Chunked\r\n\r\n005;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    ] {
        for piece in [usize::MAX, 1, 3] {
            let (answer, _) = exchange(&sidecar, request, piece).await;
            assert!(answer.contains(" 200 OK\r\n"), "{request:?} in pieces of {piece}: {answer}");
        }
    }
    assert_eq!(origin.requests(), 21);
}

#[tokio::test]
async fn what_a_request_says_of_itself_is_held_against_what_it_is() {
    let (sidecar, origin) = before_origin().await;
    for (what, status, request) in [
        (
            "another expectation",
            "417",
            "POST / HTTP/1.1\r\nHost: cart\r\nExpect: tea\r\nContent-Length: 0\r\n\r\n",
        ),
        ("a user in the target", "400", "GET http://me@cart/ HTTP/1.1\r\nHost: cart\r\n\r\n"),
        ("a foreign scheme", "400", "GET ftp://cart/ HTTP/1.1\r\nHost: cart\r\n\r\n"),
        (
            "an invalid Host beside an absolute target",
            "400",
            "GET http://cart/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        ),
        ("* for GET", "400", "GET * HTTP/1.1\r\nHost: cart\r\n\r\n"),
        ("an encoded slash", "400", "GET /a%2fb HTTP/1.1\r\nHost: cart\r\n\r\n"),
        ("an encoded NUL", "400", "GET /a%00 HTTP/1.1\r\nHost: cart\r\n\r\n"),
        ("dots before a semicolon", "400", "GET /..;/a HTTP/1.1\r\nHost: cart\r\n\r\n"),
    ] {
        let (answer, _) = exchange(&sidecar, request, usize::MAX).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(answer.contains("x-outrigger-reason: "), "{what}: {answer}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn framing_is_written_anew() {
    for (request, expected) in [
        (
            "GET / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n05;x=y\r\nhello\r\n000\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 0000005\r\n\r\nhello",
            "content-length: 5\r\n\r\nhello",
        ),
        ("POST / HTTP/1.1\r\nHost: cart\r\n\r\n", "content-length: 0\r\n\r\n"),
    ] {
        let (sidecar, backend) = before(OK).await;
        exchange(&sidecar, request, usize::MAX).await;
        let received = String::from_utf8_lossy(&backend.received()[0]).into_owned();
        assert!(received.ends_with(expected), "{received}");
        assert_eq!(
            received.matches("content-length").count() + received.matches("chunked").count(),
            1,
            "{received}"
        );
    }
}

#[tokio::test]
async fn an_early_answer_never_lets_the_rest_of_the_body_become_a_request() {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: cart\r\n\r\n";
    let head = format!("POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: {}\r\n\r\n", inner.len());
    let (sidecar, backend) = before(OK).await;
    let mut client = RawClient::connect(sidecar.outbound).await;
    client.write(&head).await;
    let (answer, _) = client.read_until_silent(SILENCE).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    client.write(inner).await;
    assert!(client.stays_silent(SILENCE).await, "the rest of the body was answered");
    let received = String::from_utf8_lossy(&backend.received().concat()).into_owned();
    // The answer was whole: the upload is given up, and with it the connection upstream.
    assert!(received.ends_with(&format!("content-length: {}\r\n\r\n", inner.len())), "{received}");
    assert_eq!(backend.received().len(), 1);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_anything_of_it_is_sent_where_its_length_is_known() {
    let (sidecar, backend) = before(OK).await;
    let rules = HttpRules { max_body: Some(10), ..HttpRules::default() };
    let service = Service { http: rules, ..open_service("shop/cart") };
    sidecar.knows(service, [plain("shop/cart", "i-1", backend.addr())]);
    let declared = "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 11\r\n\r\nhello";
    let (answer, closed) = exchange_to_the_end(&sidecar, declared, usize::MAX).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && closed, "{answer}");
    assert!(answer.contains("x-outrigger-reason: payload_too_large\r\n"), "{answer}");
    assert!(backend.received().is_empty());
    let (sidecar, origin) = before_origin().await;
    let service = Service {
        http: HttpRules { max_body: Some(10), ..HttpRules::default() },
        ..open_service("shop/cart")
    };
    sidecar.knows(service, [plain("shop/cart", "i-1", origin.addr())]);
    let fits =
        "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
    assert!(exchange(&sidecar, fits, usize::MAX).await.0.starts_with("HTTP/1.1 200 "));
    let grows = "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n";
    for piece in [usize::MAX, 10] {
        let (answer, closed) = exchange_to_the_end(&sidecar, grows, piece).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && closed, "{answer}");
    }
}

#[tokio::test]
async fn between_sidecars_the_same_rules_hold() {
    let (mesh, app) = (Mesh::new(), RawBackend::start("HTTP/1.1 200 OK\nContent-Length: 2\n\nok").await);
    let server = mesh.server("shop/cart", app.addr());
    let client = mesh.client();
    for between in [Between::Http1, Between::Http2] {
        let service = Service { between, ..resources::service("shop/cart") };
        client.knows(service, [server.endpoint("shop/cart", "i-1")]);
        let (answer, _) = exchange(&client, "POST / HTTP/1.1\r\nHost: cart\r\n\r\n", usize::MAX).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(
            answer.contains("x-outrigger-reason: upstream_reset\r\nx-outrigger-hop: server\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn an_answer_cut_short_never_looks_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n",
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sidecar = Mesh::new().client();
        let at = listener.local_addr().unwrap();
        sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", at)]);
        let backend = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let (head, body) = answer.split_at(answer.find("\r\n\r\n").unwrap() + 4);
            stream.write_all(head.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(body.as_bytes()).await.unwrap();
        });
        let (got, closed) =
            exchange_to_the_end(&sidecar, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n", usize::MAX).await;
        backend.await.unwrap();
        assert!(got.starts_with("HTTP/1.1 200 OK") && closed, "{got}");
        assert!(!got.ends_with("0\r\n\r\n"), "{got}");
        let body = got.split_once("\r\n\r\n").unwrap().1;
        assert!(got.contains("chunked") || body.len() < 10, "{got}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_aborted_when_it_is_cut_short() {
    let short = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n";
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (answer, expected) in [(short, Err(std::io::ErrorKind::ConnectionReset)), (whole, Ok(0))] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sidecar = Mesh::new().client();
        let at = listener.local_addr().unwrap();
        sidecar.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", at)]);
        let mut client = tokio::net::TcpStream::connect(sidecar.outbound).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\nHost: cart\r\n\r\n").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut space = [0; 1024];
        assert!(stream.read(&mut space).await.unwrap() > 0);
        let (first, rest) = answer.split_at(answer.find("hello").unwrap() + 7);
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"hello") {
            let read = client.read(&mut space).await.unwrap();
            assert!(read > 0, "{got:?}");
            got.extend_from_slice(&space[..read]);
        }
        stream.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(client.read(&mut space).await.map_err(|e| e.kind()), expected);
    }
}

#[tokio::test]
async fn what_comes_behind_a_refused_upgrade_is_the_next_request() {
    let (sidecar, _origin) = before_origin().await;
    let upgrade = "GET / HTTP/1.1\r\nHost: cart\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let next = "GET / HTTP/1.1\r\nHost: cart\r\n\r\n";
    let (answer, _) = exchange(&sidecar, &format!("{upgrade}{next}{next}"), usize::MAX).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}
