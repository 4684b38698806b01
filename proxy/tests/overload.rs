//! A sidecar whose memory comes near its limit, as a real process: what is under way is finished, what is new is refused
//! with a reason, and all goes on when there is room again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::time::Duration;

use http::StatusCode;
use outrigger_testkit::{Behaviour, Client, Origin, eventually};
use tokio::task::JoinSet;

mod process_common;
use process_common::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_its_limit_of_memory_it_refuses_what_is_new_finishes_what_is_not_and_recovers() {
    let cart = Origin::start().await;
    let idle = Process::start(cart.addr(), "", "--memory-limit none");
    Client::h1(idle.outbound).await.get("cart", "/").await.unwrap();
    // Less than the calls below need, more than it has when it does nothing.
    let limit = idle.memory() + (5 << 20);
    drop(idle);
    let sidecar = Process::start(cart.addr(), "", &format!("--workers 1 --memory-limit {limit}"));

    cart.behave(Behaviour { delay: Duration::from_secs(2), ..Behaviour::default() });
    let mut calls = JoinSet::new();
    for _ in 0..400 {
        let outbound = sidecar.outbound;
        calls.spawn(async move {
            let body = vec![b'x'; 60 << 10];
            Client::h1(outbound).await.post("cart", "/", body).await.unwrap()
        });
        // It looks at its memory ten times a second; all at once would meet the bulkhead of the endpoint first.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(reply) = calls.join_next().await {
        let reply = reply.unwrap();
        if reply.status == StatusCode::OK {
            served += 1;
            continue;
        }
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.header("x-outrigger-reason"), Some("overloaded"), "{}", reply.text());
        assert_eq!(reply.header("retry-after"), Some("1"));
        refused += 1;
    }
    assert!(served > 20 && refused > 20, "{served} served, {refused} refused");
    let log = sidecar.log();
    assert!(log.contains("new requests are refused"), "{log}");

    cart.behave(Behaviour::default());
    eventually("it serves again", || async {
        Client::h1(sidecar.outbound).await.get("cart", "/").await.unwrap().status == StatusCode::OK
    })
    .await;
    let metrics = Client::h1(sidecar.admin).await.get("localhost", "/stats/prometheus").await.unwrap().text();
    assert!(metrics.contains("outrigger_memory_shedding_total "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_costs_little_memory() {
    const MANY: usize = 1_000;
    let cart = Origin::start().await;
    let sidecar = Process::start(cart.addr(), "", "--workers 1 --memory-limit none");
    let mut kept = Vec::with_capacity(MANY);
    let mut first = 0;
    for number in 0..MANY + 100 {
        // The first hundred fill what is shared.
        if number == 100 {
            first = sidecar.memory();
        }
        let mut client = Client::h1(sidecar.outbound).await;
        assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
        kept.push(client);
    }
    let each = (sidecar.memory() - first) / MANY as u64;
    println!("{each} bytes for an idle connection of the application");
    assert!(each < 32 << 10, "{each} bytes");
}
