//! A hostile peer with a raw socket, on both sides of the sidecars. Every case has an id and belongs to a clause of
//! `clauses.txt`; the judge is what a raw backend received byte for byte, read by a reading of its own (`reading.rs`), and
//! a bystander who asks the same sidecar afterwards.
//!
//! `STRICT_ONLY=H1-CL cargo test -p outrigger-proxy --test strict` runs the cases whose id begins so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::format_collect,
    unreachable_pub,
    reason = "a test"
)]

mod backend;
mod case;
mod clauses;
mod frames;
mod h1_chunks;
mod h1_expect;
mod h1_framing;
mod h1_headers;
mod h1_hop;
mod h1_host;
mod h1_upstream;
mod h2_frames;
mod h2_headers;
mod h2_upstream;
mod hpack;
mod limits;
mod paths;
mod reading;
mod stand;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::case::Case;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_requests() {
    run([h1_framing::cases(), h1_chunks::cases()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_heads() {
    run([h1_host::cases(), h1_headers::cases(), h1_hop::cases()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_answers() {
    run([h1_upstream::cases(), h1_expect::cases()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_connections() {
    run([h2_headers::cases(), h2_frames::cases(), h2_upstream::cases()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path() {
    run([paths::cases()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit() {
    run([limits::cases()]).await;
}

/// Every case there is.
fn all() -> Vec<Case> {
    let all = [
        h1_framing::cases(),
        h1_chunks::cases(),
        h1_host::cases(),
        h1_headers::cases(),
        h1_hop::cases(),
        h1_upstream::cases(),
        h1_expect::cases(),
        h2_headers::cases(),
        h2_frames::cases(),
        h2_upstream::cases(),
        paths::cases(),
        limits::cases(),
    ];
    all.into_iter().flatten().collect()
}

/// Tries every case by each of its ways, some at a time.
async fn run(cases: impl IntoIterator<Item = Vec<Case>>) {
    let only = std::env::var("STRICT_ONLY").unwrap_or_default();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut trials = JoinSet::new();
    for case in cases.into_iter().flatten().filter(|case| case.id.starts_with(&only)) {
        let case = Arc::new(case);
        for way in case.ways {
            let (case, at_once) = (Arc::clone(&case), Arc::clone(&at_once));
            trials.spawn(async move {
                let _turn = at_once.acquire().await.unwrap();
                stand::try_case(&case, *way).await.err()
            });
        }
    }
    let mut wrong: Vec<String> = trials.join_all().await.into_iter().flatten().collect();
    wrong.sort();
    assert!(wrong.is_empty(), "{} failed:\n{}", wrong.len(), wrong.join("\n"));
}

const AT_ONCE: usize = 16;
