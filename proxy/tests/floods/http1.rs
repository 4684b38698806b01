//! Floods over HTTP/1.1.

use std::time::Duration;

use outrigger_proxy::http::edges::Cut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Ground;

/// Writes `begin` and then `more` for ever; what the sidecar said before it closed.
async fn endless(begin: &str, more: &str) -> String {
    let ground = Ground::new().await;
    let more = more.repeat((16 * 1024 / more.len()).max(1));
    let attack = async {
        let (mut read, mut write) = TcpStream::connect(ground.at()).await.unwrap().into_split();
        let mut all = Vec::new();
        let writing = async {
            let _cut = write.write_all(begin.as_bytes()).await;
            while write.write_all(more.as_bytes()).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        tokio::select! { _ = read.read_to_end(&mut all) => {}, () = writing => {} }
        String::from_utf8_lossy(&all).into_owned()
    };
    let answer = ground.during(attack).await;
    ground.is_quiet().await;
    assert!(ground.cart.requests() <= 3, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_flood() {
    let answer = endless("GET / HTTP/1.1\r\nHost: cart\r\n", "X-N: v\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_header_without_an_end() {
    let answer = endless("GET / HTTP/1.1\r\nHost: cart\r\nX: ", "v").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_without_an_end() {
    let answer = endless("GET /", "a").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_extension_without_an_end() {
    let begin = "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n1;";
    let answer = endless(begin, "a").await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extensions_of_many_chunks() {
    let begin = "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = endless(begin, &format!("1;{}\r\nx\r\n", "a".repeat(200))).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_without_an_end() {
    let begin = "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
    let answer = endless(begin, "X-N: v\r\n").await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
}

/// Requests without end, and nobody reads an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_whose_answers_are_not_read() {
    let ground = Ground::new().await.answers(6);
    let attack = async {
        let mut client = TcpStream::connect(ground.at()).await.unwrap();
        let round = "GET / HTTP/1.1\r\nHost: cart\r\n\r\n".repeat(500);
        while client.write_all(round.as_bytes()).await.is_ok() {}
    };
    ground.during(attack).await;
    assert_eq!(ground.cuts(Cut::SlowReader), 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(ground.cart.requests() < 1_000, "{}", ground.cart.requests());
}
