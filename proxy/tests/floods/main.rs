//! Floods and slow peers at the ports of a sidecar: memory stays bounded, a bystander is served, the abuser is cut.
//!
//! The bytes are written by hand. Sidecar, attacker and bystander share a process, so that what is measured as the
//! sidecar's growth is an upper bound.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod frames;
mod http1;
mod http2;
mod mesh;
mod ordinary;
mod slow;
#[path = "../support/mod.rs"]
mod support;
mod upstream;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger_mesh::{Service, Timeouts};
use outrigger_proxy::http::edges::{Cut, Edges};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin};
use support::{Mesh, Sidecar, open_service, plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard, oneshot};

use frames::{Frames, GOAWAY, RST_STREAM};

/// A sidecar before two services: `cart`, which is attacked, and `prices`, which the bystander asks.
struct Ground {
    sidecar: Sidecar,
    cart: Origin,
    _prices: Origin,
    _alone: MutexGuard<'static, ()>,
}

/// Everything that takes time, short enough for a test.
const EDGES: Edges = Edges {
    head: Duration::from_millis(500),
    idle: Duration::from_secs(600),
    unused: Duration::from_millis(500),
    stalled: Duration::from_millis(500),
    age: Duration::from_secs(3_600),
    finish: Duration::from_secs(600),
    closing: Duration::from_millis(500),
};

impl Ground {
    async fn new() -> Self {
        Self::within(EDGES, EDGES.stalled).await
    }

    /// Callers are held to `edges`, and bodies of `cart` may be silent for `idle`.
    async fn within(edges: Edges, idle: Duration) -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let sidecar = Mesh::new().client_within(edges);
        let (cart, prices) = (Origin::start().await, Origin::start().await);
        let mut service = open_service("shop/cart");
        service.policy.timeouts = Timeouts { idle: Some(idle), ..Timeouts::default() };
        sidecar.knows(service, [plain("shop/cart", "i-1", cart.addr())]);
        sidecar
            .knows(Service { ..open_service("shop/prices") }, [plain("shop/prices", "i-1", prices.addr())]);
        for host in ["cart", "prices"] {
            Client::h1(sidecar.outbound).await.get(host, "/").await.unwrap();
            Client::h2(sidecar.outbound).await.get(host, "/").await.unwrap();
        }
        Self { sidecar, cart, _prices: prices, _alone: alone }
    }

    /// Every answer of `cart` has so many pieces of 16 KiB, none of which exists before it is sent.
    fn answers(self, count: usize) -> Self {
        let body = BodyOf::Chunks { count, size: 16 * 1024, pause: Duration::ZERO };
        self.cart.behave(Behaviour { body, ..Behaviour::default() });
        self
    }

    /// Every answer of `cart` takes so long.
    fn delays(self, delay: Duration) -> Self {
        self.cart.behave(Behaviour { delay, ..Behaviour::default() });
        self
    }

    fn at(&self) -> SocketAddr {
        self.sidecar.outbound
    }

    fn cuts(&self, why: Cut) -> u64 {
        self.sidecar.live.counters.cuts(why)
    }

    /// Runs `attack` beside a bystander who asks `prices`.
    async fn during<T>(&self, attack: impl Future<Output = T>) -> T {
        beside(self.at(), "prices", attack).await
    }

    /// Writes `opening`, then round after round for as long as the sidecar takes it, reading all the while. Gives back what
    /// it was told.
    async fn flood(&self, opening: Vec<u8>, mut round: impl FnMut(u32) -> Vec<u8>) -> Told {
        let attack = async {
            let (mut read, mut write) = TcpStream::connect(self.at()).await.unwrap().into_split();
            let reading = tokio::spawn(async move { told(&mut read).await });
            let mut number = 0;
            let _cut = write.write_all(&opening).await;
            while !reading.is_finished() && write.write_all(&round(number)).await.is_ok() {
                number += 1;
                tokio::task::yield_now().await;
            }
            reading.await.unwrap()
        };
        self.during(attack).await
    }

    /// Waits until the connections of attackers are gone.
    async fn is_quiet(&self) {
        let open = &self.sidecar.live.counters.outbound_connections;
        outrigger_testkit::eventually("the abuser's connections are closed", || async {
            open.load(std::sync::atomic::Ordering::Relaxed) <= 2
        })
        .await;
    }
}

/// Runs `attack` beside a bystander who asks `host` at `at`; what the attack gives back. Fails when the bystander waits, or
/// memory grows.
async fn beside<T>(at: SocketAddr, host: &'static str, attack: impl Future<Output = T>) -> T {
    let (over, mut is_over) = oneshot::channel::<()>();
    let before = resident();
    let watch = tokio::spawn(async move {
        let (mut slowest, mut largest) = (Duration::ZERO, 0);
        let mut bystander = Client::h1(at).await;
        loop {
            let asked = Instant::now();
            let fresh = async { Client::h2(at).await.get(host, "/").await };
            let (kept, fresh) = tokio::join!(bystander.get(host, "/"), fresh);
            assert!(kept.unwrap().status.is_success() && fresh.unwrap().status.is_success());
            slowest = slowest.max(asked.elapsed());
            largest = largest.max(resident());
            let pause = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! { _ = &mut is_over => return (slowest, largest), () = pause => {} }
        }
    });
    let outcome = tokio::time::timeout(LONGEST, attack).await.expect("the attack was not ended");
    drop(over);
    let (slowest, largest) = watch.await.unwrap();
    let grown = largest.saturating_sub(before) / 1024;
    eprintln!("grew by {grown} MiB, the bystander waited for {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "the bystander waited for {slowest:?}");
    assert!(grown < 64, "grew by {grown} MiB");
    outcome
}

/// What a sidecar says to an attacker until it closes.
#[derive(Debug, Default)]
struct Told {
    /// Error codes of GOAWAY.
    goaway: Vec<u32>,
    /// How many streams it reset.
    resets: usize,
}

async fn told(read: &mut (impl AsyncReadExt + Unpin)) -> Told {
    let (mut frames, mut told, mut buffer) = (Frames::default(), Told::default(), vec![0; 64 * 1024]);
    while let Ok(read @ 1..) = read.read(&mut buffer).await {
        for (kind, _, _, payload) in frames.feed(&buffer[..read]) {
            match kind {
                GOAWAY => told.goaway.push(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                RST_STREAM => told.resets += 1,
                _ => {}
            }
        }
    }
    told
}

/// What the process holds, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// No attack lasts longer: by then it has been ended.
const LONGEST: Duration = Duration::from_secs(20);
