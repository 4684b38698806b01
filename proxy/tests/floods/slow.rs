//! Peers that are slow, silent, or many.

use std::time::Duration;

use outrigger_proxy::http::edges::Cut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Ground;
use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, frame, get, opening, post};

const WHOLE: u8 = END_HEADERS | END_STREAM;

/// Writes `begin`, then `drop` every 50 ms until the sidecar closes. All that it said until then.
async fn drip(ground: &Ground, begin: Vec<u8>, drop: &[u8]) -> Vec<u8> {
    let attack = async {
        let (mut read, mut write) = TcpStream::connect(ground.at()).await.unwrap().into_split();
        write.write_all(&begin).await.unwrap();
        let mut all = Vec::new();
        let dripping = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _closed = write.write_all(drop).await;
            }
        };
        tokio::select! { _ = read.read_to_end(&mut all) => {}, () = dripping => {} }
        all
    };
    ground.during(attack).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_drips() {
    let ground = Ground::new().await;
    drip(&ground, b"GET / HTTP/1.1\r\nHost: cart\r\nX: ".to_vec(), b"x").await;
    assert_eq!(ground.cuts(Cut::SlowHead), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_head_that_drips() {
    let ground = Ground::new().await;
    let head = frame(HEADERS, WHOLE, 1, &get("cart", &format!("/{}", "a".repeat(100))));
    let begin = [&opening(&[])[..], &head[..20]].concat();
    drip(&ground, begin, b"a").await;
    assert_eq!(ground.cuts(Cut::SlowHead), 1);
}

/// Another request is being answered all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_head_block_that_is_not_continued() {
    let ground = Ground::new().await.delays(Duration::from_secs(10));
    let request = frame(HEADERS, WHOLE, 1, &get("cart", "/"));
    let half = frame(HEADERS, END_STREAM, 3, &get("cart", "/"));
    drip(&ground, [opening(&[]), request, half].concat(), b"").await;
    assert_eq!(ground.cuts(Cut::SlowHead), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_preface_and_a_preface_without_settings() {
    let ground = Ground::new().await;
    drip(&ground, PREFACE[..10].to_vec(), b"").await;
    drip(&ground, PREFACE.to_vec(), b"").await;
    assert_eq!(ground.cuts(Cut::SlowHead), 2);
    drip(&ground, b"PR".to_vec(), b"").await;
}

/// It says hello and pings, and never asks for anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_connection_without_requests_ends() {
    let ground = Ground::new().await;
    drip(&ground, opening(&[]), &frame(PING, 0, 0, &[0; 8])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stops() {
    let ground = Ground::new().await;
    let head = b"POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 1000\r\n\r\nbegun";
    let answer = drip(&ground, head.to_vec(), b"").await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("timeout_idle"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_body_that_stops() {
    let ground = Ground::new().await;
    let request = frame(HEADERS, END_HEADERS, 1, &post("cart", "/"));
    let attack = async {
        let mut client = TcpStream::connect(ground.at()).await.unwrap();
        let all = [opening(&[]), request, frame(DATA, 0, 1, b"begun")].concat();
        client.write_all(&all).await.unwrap();
        let (mut frames, mut buffer) = (crate::frames::Frames::default(), vec![0; 16 * 1024]);
        loop {
            let read = client.read(&mut buffer).await.unwrap();
            assert!(read > 0);
            if frames.feed(&buffer[..read]).iter().any(|f| f.0 == HEADERS) {
                return;
            }
        }
    };
    ground.during(attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing() {
    let ground = Ground::new().await.answers(4_096);
    let attack = async {
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = TcpStream::connect(ground.at()).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await.unwrap();
            clients.push(client);
        }
        while ground.cuts(Cut::SlowReader) < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    ground.during(attack).await;
}

/// The windows are wide open, and the socket is not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_reader_that_takes_nothing() {
    let ground = Ground::new().await.answers(4_096);
    let wide = (u32::MAX >> 1) - 65_535;
    let attack = async {
        let mut client = TcpStream::connect(ground.at()).await.unwrap();
        let requests = (0..100).flat_map(|n| frame(HEADERS, WHOLE, 2 * n + 1, &get("cart", "/")));
        let widen = frame(crate::frames::WINDOW_UPDATE, 0, 0, &wide.to_be_bytes());
        let all = [opening(&[(4, u32::MAX >> 1)]), widen, requests.collect()].concat();
        client.write_all(&all).await.unwrap();
        while ground.cuts(Cut::SlowReader) < 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    ground.during(attack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_silent_connections() {
    let ground = Ground::new().await;
    let attack = async {
        let mut clients = Vec::new();
        for n in 0..1_500 {
            let mut client = TcpStream::connect(ground.at()).await.unwrap();
            // Half of them say what HTTP/2 begins with.
            if n % 2 == 0 {
                client.write_all(&opening(&[])).await.unwrap();
            }
            clients.push(client);
        }
        for mut client in clients {
            let mut all = Vec::new();
            let _reset = client.read_to_end(&mut all).await;
        }
    };
    ground.during(attack).await;
    ground.is_quiet().await;
}
