//! Orders over connections that die at random moments: none is processed twice, and none is lost that nobody can have
//! processed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test tells what it measured"
)]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use outrigger_testkit::{Client, Owned};
use support::{Mesh, open_service, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What servers did with orders.
#[derive(Debug, Default)]
struct Ledger {
    /// How often each was processed.
    processed: Mutex<HashMap<usize, u32>>,
    /// Those that were written, at least in part, to a connection that died.
    touched: Mutex<HashMap<usize, u32>>,
    killed: AtomicU64,
    killed_with_body: AtomicU64,
}

/// A server whose connections die: before the request, in its middle, after the whole of it, after it was processed, in
/// the middle of the answer, or behind it.
async fn start(ledger: &Arc<Ledger>) -> (SocketAddr, Owned) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let ledger = Arc::clone(ledger);
    let task = Owned::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let ledger = Arc::clone(&ledger);
            connections.spawn(async move {
                let _died = serve(stream, &ledger).await;
            });
        }
    });
    (addr, task)
}

/// `None` when the connection has died.
async fn serve(mut stream: TcpStream, ledger: &Ledger) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    if fastrand::u32(..100) < 10 {
        return close_unread(stream, Vec::new(), ledger).await;
    }
    let mut held = Vec::new();
    loop {
        let dies_at = fastrand::u32(..100);
        let head = loop {
            if let Some(at) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            read(&mut stream, &mut held).await?;
        };
        let text = String::from_utf8_lossy(&held[..head]).to_ascii_lowercase();
        let order: usize = text.split(' ').nth(1)?.trim_start_matches('/').parse().ok()?;
        let length = text.split("content-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok()?;
        let note = || *ledger.touched.lock().unwrap().entry(order).or_default() += 1;
        if dies_at < 2 {
            note();
            return kill(stream, ledger);
        }
        while held.len() < head + length {
            read(&mut stream, &mut held).await?;
        }
        held.drain(..head + length);
        if dies_at < 6 {
            note();
            ledger.killed_with_body.fetch_add(1, SeqCst);
            return kill(stream, ledger);
        }
        *ledger.processed.lock().unwrap().entry(order).or_default() += 1;
        if dies_at < 9 {
            note();
            ledger.killed_with_body.fetch_add(1, SeqCst);
            return kill(stream, ledger);
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
        if dies_at < 11 {
            note();
            stream.write_all(&answer[..fastrand::usize(1..answer.len())]).await.ok()?;
            return kill(stream, ledger);
        }
        stream.write_all(answer).await.ok()?;
        if dies_at < 15 {
            return close_unread(stream, held, ledger).await;
        }
    }
}

async fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(into).await.ok()? > 0).then_some(())
}

/// Closes before a request. What the other side has written by then is lost, and it can not know whether it was read.
async fn close_unread(mut stream: TcpStream, mut held: Vec<u8>, ledger: &Ledger) -> Option<()> {
    stream.shutdown().await.ok()?;
    if read(&mut stream, &mut held).await.is_some() {
        let text = String::from_utf8_lossy(&held);
        let order = text.split(' ').nth(1)?.trim_start_matches('/').parse().ok()?;
        *ledger.touched.lock().unwrap().entry(order).or_default() += 1;
    }
    kill(stream, ledger)
}

/// Half of them with a reset.
fn kill(stream: TcpStream, ledger: &Ledger) -> Option<()> {
    ledger.killed.fetch_add(1, SeqCst);
    if fastrand::bool() {
        stream.set_zero_linger().ok()?;
    }
    drop(stream);
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_posts_none_is_processed_twice_and_none_is_lost_that_was_not_touched() {
    let orders: usize = if std::env::var_os("OUTRIGGER_SOAK").is_some() { 100_000 } else { 10_000 };
    let (mesh, ledger) = (Mesh::new(), Arc::<Ledger>::default());
    let ((one, _one), (two, _two)) = (start(&ledger).await, start(&ledger).await);
    let sidecar = mesh.client_with(&[], 2);
    sidecar
        .knows(open_service("shop/cart"), [plain("shop/cart", "one", one), plain("shop/cart", "two", two)]);
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (next, at) = (Arc::clone(&next), sidecar.outbound);
        clients.spawn(async move {
            let (mut client, mut answered) = (Client::h1(at).await, Vec::new());
            loop {
                let order = usize::try_from(next.fetch_add(1, SeqCst)).unwrap();
                if order >= orders {
                    return answered;
                }
                if client.is_closed() {
                    client = Client::h1(at).await;
                }
                // An answer that breaks off in its middle does so here, too.
                let reply = client.post("cart", &format!("/{order}"), vec![b'x'; 500]).await;
                if reply.is_ok_and(|r| r.status == StatusCode::OK) {
                    answered.push(order);
                }
            }
        });
    }
    let mut good = vec![false; orders];
    for order in clients.join_all().await.into_iter().flatten() {
        good[order] = true;
    }
    let processed = ledger.processed.lock().unwrap().clone();
    let touched = ledger.touched.lock().unwrap().clone();
    let (killed, with_body) = (ledger.killed.load(SeqCst), ledger.killed_with_body.load(SeqCst));
    let untouched: Vec<usize> = (0..orders).filter(|order| !touched.contains_key(order)).collect();
    let lost = untouched.iter().filter(|order| !good[**order]).count();
    println!(
        "{killed} connections killed, {with_body} after the body; {lost} of {} untouched lost",
        untouched.len()
    );
    assert!(killed >= 1_000 && with_body >= 300, "{killed} killed, {with_body} after the body");
    let twice = processed.values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "processed twice");
    assert!(
        good.iter().zip(0..).all(|(good, order)| !good || processed.contains_key(&order)),
        "answered by nobody"
    );
    assert!(lost * 100 <= untouched.len(), "{lost} of {} that no server has touched", untouched.len());
}
