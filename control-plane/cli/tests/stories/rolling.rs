//! Every sidecar and every application is restarted, one after the other, under a load that never tries twice, and no
//! request is lost. `cart` calls `prices`, so that a restarted instance still needs its outbound side while it ends.
//!
//! `OUTRIGGER_SOAK=1` runs ten rounds instead of one.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use outrigger_testkit::{Client, Reply, request};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{Mesh, Process, Sidecar, binary};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sidecar_and_application_is_restarted_under_load_and_no_request_is_lost() {
    let rounds = if std::env::var_os("OUTRIGGER_SOAK").is_some() { 10 } else { 1 };
    let mesh = Mesh::start();
    mesh.services(&["prices", "cart", "web"]);
    let mut parts: Vec<Part> =
        ["prices", "cart", "prices", "cart"].into_iter().map(|service| Part::start(&mesh, service)).collect();
    all_are_registered(&mesh, &parts).await;
    let mut web = mesh.caller("web").token(mesh.token("web")).start();
    reaches_cart(&web).await;

    let callers = Callers::start(web.outbound);
    let (began, mut restarts) = (Instant::now(), 0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..rounds {
        for at in 0..parts.len() {
            parts[at].restart(&mesh);
            all_are_registered(&mesh, &parts).await;
            restarts += 1;
        }
        web = replaced(&mesh, web, &callers).await;
        restarts += 1;
    }
    let told = callers.end().await;
    let (good, bad): (u64, Vec<_>) =
        (told.iter().map(|t| t.good).sum(), told.iter().flat_map(|t| &t.bad).collect());
    println!("{restarts} restarts in {:?}: {good} requests answered, {} lost", began.elapsed(), bad.len());
    assert!(bad.is_empty(), "{} of {good} lost: {bad:#?}\n{}", bad.len(), web.log());
    assert!(told.iter().all(|t| t.good > 50), "everybody called: {told:?}");
}

/// An application with its sidecar beside it, as `outrigger run` runs them.
struct Part {
    service: &'static str,
    process: Process,
}

impl Part {
    fn start(mesh: &Mesh, service: &'static str) -> Self {
        let mut command = Command::new(binary("outrigger"));
        command
            .args(["run", "--namespace", "shop", "--service", service])
            .args(["--control", &mesh.push.to_string()])
            .args(["--", binary(&format!("shop-{service}")).to_str().unwrap()])
            .env("OUTRIGGER_ADMIN", format!("http://{}", mesh.admin))
            .env_remove("OUTRIGGER_JOIN_TOKEN")
            .env_remove("PORT");
        Self { service, process: Process::spawn(command, &mesh.path(&format!("{service}.log"))) }
    }

    /// Ends it as a platform would, and starts it again.
    fn restart(&mut self, mesh: &Mesh) {
        self.process.signal("TERM");
        let code = self.process.wait_exit();
        assert_eq!(code, Some(0), "{} ends in order:\n{}", self.service, self.log(mesh));
        *self = Self::start(mesh, self.service);
    }

    fn log(&self, mesh: &Mesh) -> String {
        std::fs::read_to_string(mesh.path(&format!("{}.log", self.service))).unwrap()
    }
}

async fn all_are_registered(mesh: &Mesh, parts: &[Part]) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let told = mesh.admin("/v1/instances/shop").await;
        if told["items"].as_array().unwrap().len() == parts.len() {
            return;
        }
        let logs = || parts.iter().map(|part| part.log(mesh)).collect::<Vec<_>>().join("\n");
        assert!(Instant::now() < end, "not every instance is registered: {told:#}\n{}", logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn reaches_cart(web: &Sidecar) {
    let healthy = || async { web.get("cart", "/healthz").await.status == 200 };
    outrigger_testkit::eventually("cart answers", healthy).await;
}

/// Another instance of the callers' application takes over. The old sidecar is told to end while the old application is
/// still at work: until that has gone it is served, old connections and new ones.
async fn replaced(mesh: &Mesh, old: Sidecar, callers: &Callers) -> Sidecar {
    let new = mesh.caller("web").token(mesh.token("web")).start();
    reaches_cart(&new).await;
    old.ask_to_end();
    tokio::time::sleep(Duration::from_millis(700)).await;
    callers.call_at(new.outbound);
    old.ended();
    new
}

/// Callers that count and never try twice.
struct Callers {
    at: watch::Sender<Option<SocketAddr>>,
    tasks: JoinSet<Told>,
}

#[derive(Debug, Default)]
struct Told {
    good: u64,
    bad: Vec<String>,
}

impl Callers {
    fn start(at: SocketAddr) -> Self {
        let at = watch::Sender::new(Some(at));
        let mut tasks = JoinSet::new();
        for number in 0..12 {
            tasks.spawn(call(number, at.subscribe()));
        }
        Self { at, tasks }
    }

    fn call_at(&self, at: SocketAddr) {
        self.at.send_replace(Some(at));
    }

    async fn end(self) -> Vec<Told> {
        self.at.send_replace(None);
        self.tasks.join_all().await
    }
}

/// One caller: GET or POST, over HTTP/1.1 or HTTP/2, one request after the other on a connection that it keeps.
async fn call(number: u32, at: watch::Receiver<Option<SocketAddr>>) -> Told {
    let (http2, post) = (number % 2 == 1, number % 4 >= 2);
    let mut told = Told::default();
    let mut connection: Option<(SocketAddr, Client)> = None;
    for serial in 0_u64.. {
        let Some(address) = *at.borrow() else { break };
        let kept = connection.take().filter(|(to, client)| *to == address && !client.is_closed());
        let mut client = match kept {
            Some((_, client)) => client,
            None if http2 => Client::h2(address).await,
            None => Client::h1(address).await,
        };
        // Who reads looks into the carts of who writes, so that `cart` has prices to ask for.
        match once(&mut client, &format!("u{}-{}", number | 2, serial / 4), post).await {
            Ok(reply) if reply.status.is_success() => told.good += 1,
            Ok(reply) => told.bad.push(format!("caller {number}: {} {}", reply.status, reply.text())),
            // The peer said goodbye between two requests: nothing is tried twice.
            Err(e) if was_not_sent(&e) => continue,
            Err(e) => told.bad.push(format!("caller {number}: {e:#}")),
        }
        connection = Some((address, client));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    told
}

/// Whether the connection was closed before the request went out, or over HTTP/2 a GOAWAY without an error came first.
fn was_not_sent(error: &anyhow::Error) -> bool {
    let goaway = "connection error received: not a result of an error";
    let unsent = |e: &hyper::Error| e.is_canceled();
    error.to_string() == "the connection"
        || error.chain().any(|e| e.to_string() == goaway || e.downcast_ref().is_some_and(unsent))
}

async fn once(client: &mut Client, user: &str, post: bool) -> anyhow::Result<Reply> {
    if !post {
        return client.get("cart", &format!("/cart/{user}")).await;
    }
    let body = r#"{"id":"rope","quantity":1}"#;
    let mut add = request(Method::POST, "cart", &format!("/cart/{user}/items"), body.into());
    add.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    client.send(add).await
}
