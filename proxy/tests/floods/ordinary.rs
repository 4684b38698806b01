//! Ordinary clients, as fast as they can: none of what they send is a flood.

use std::process::Command;
use std::time::{Duration, Instant};

use outrigger_mesh::Timeouts;
use outrigger_proxy::http::edges::{Cut, Edges};
use outrigger_testkit::{Behaviour, BodyOf, Client, eventually, real};

use crate::Ground;

/// Runs `program` with `arguments`, in which `URL` stands for the outbound port, asking for `cart`. What it wrote.
async fn run(ground: &Ground, program: &'static str, arguments: &str) -> String {
    let url = format!("http://{}/", ground.at());
    let words: Vec<String> = arguments.split_whitespace().map(|word| word.replace("URL", &url)).collect();
    let mut command = Command::new(program);
    command.args(words).args(["-H", if program == "curl" { "Host: cart" } else { ":authority: cart" }]);
    let ran =
        tokio::task::spawn_blocking(move || real::run(&mut command, Duration::from_secs(60))).await.unwrap();
    assert!(ran.ok, "{program} {arguments}: {}{}", ran.stdout, ran.stderr);
    let cuts: Vec<Cut> = Cut::ALL.into_iter().filter(|cut| ground.cuts(*cut) > 0).collect();
    assert!(cuts.is_empty(), "{program} {arguments}: {cuts:?}");
    ran.stdout
}

/// A ground for programs that may be slow to start.
async fn ground(body: BodyOf) -> Option<Ground> {
    tokio::task::spawn_blocking(|| real::debian(&["nghttp2-client", "curl"])).await.unwrap()?;
    let ground = Ground::within(Edges::default(), Timeouts::IDLE).await;
    ground.cart.behave(Behaviour { body, ..Behaviour::default() });
    Some(ground)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_with_many_streams() {
    let Some(ground) = ground(BodyOf::Bytes(100)).await else { return };
    let told = run(&ground, "h2load", "-n 4000 -c 2 -m 100 URL").await;
    assert!(told.contains("4000 succeeded, 0 failed"), "{told}");
    // More streams than we allow: it keeps to what it is told.
    let told = run(&ground, "h2load", "-n 2000 -c 1 -m 1000 URL").await;
    assert!(told.contains("2000 succeeded, 0 failed"), "{told}");
}

/// Windows of 1 KiB for streams and connection: two WINDOW_UPDATEs for each KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_with_tiny_windows() {
    let Some(ground) = ground(BodyOf::Bytes(1 << 20)).await else { return };
    for windows in ["-w 10 -W 10", "-w 14 -W 14", "-w 16 -W 20"] {
        let told = run(&ground, "h2load", &format!("-n 20 -c 2 -m 4 {windows} URL")).await;
        assert!(told.contains("20 succeeded, 0 failed"), "{windows}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_that_uploads() {
    let Some(ground) = ground(BodyOf::Request).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    let told = run(&ground, "h2load", &format!("-n 40 -c 2 -m 10 -d {} URL", file.display())).await;
    assert!(told.contains("40 succeeded, 0 failed"), "{told}");
}

/// It builds a tree of priorities before it asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_with_its_priorities() {
    let Some(ground) = ground(BodyOf::Bytes(10_000)).await else { return };
    let told = run(&ground, "nghttp", "-n -v -m 50 URL").await;
    assert!(told.contains("PRIORITY") && told.matches(":status: 200").count() == 50, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_that_reads_slowly() {
    let Some(ground) = ground(BodyOf::Bytes(3 << 20)).await else { return };
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let arguments =
            format!("-sS --limit-rate 2M -o /dev/null -w %{{http_code}}:%{{size_download}} {protocol} URL");
        assert_eq!(run(&ground, "curl", &arguments).await, format!("200:{}", 3 << 20), "{protocol}");
    }
}

/// Half of all requests are cancelled before there is an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_often() {
    let ground = Ground::new().await.delays(Duration::from_millis(2));
    let one = Client::h2(ground.at()).await;
    let began = Instant::now();
    let mut client = one;
    while began.elapsed() < Duration::from_millis(1_500) {
        let _given_up = tokio::time::timeout(Duration::from_millis(1), client.get("cart", "/")).await;
        assert_eq!(client.get("cart", "/").await.unwrap().status, 200);
    }
    assert!(Cut::ALL.into_iter().all(|cut| ground.cuts(cut) == 0));
}

/// A connection that is old says goodbye: what it has is answered, and what is new goes over another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_http2_connection_finishes_what_it_has_and_takes_nothing_new() {
    let edges = Edges { age: Duration::from_millis(500), ..Edges::default() };
    let ground = Ground::within(edges, Timeouts::IDLE).await.delays(Duration::from_millis(2_500));
    let mut client = Client::h2(ground.at()).await;
    assert_eq!(client.get("cart", "/").await.unwrap().status, 200, "it was asked before it was old");
    assert!(client.get("cart", "/").await.is_err(), "the connection is closed");
    assert_eq!(Client::h2(ground.at()).await.get("prices", "/").await.unwrap().status, 200);
    assert!(Cut::ALL.into_iter().all(|cut| ground.cuts(cut) == 0), "nothing had to be cut");
    let open = &ground.sidecar.live.counters.outbound_connections;
    eventually("it is gone", || async { open.load(std::sync::atomic::Ordering::Relaxed) == 0 }).await;
}
