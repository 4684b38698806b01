//! Live requests and who calls whom, over a small running mesh.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use http::{HeaderValue, Method};
use outrigger_testkit::{Client, eventually, request};
use serde_json::Value;

use crate::support::{Instance, Load, Mesh, binary, split, text};

/// What must show nowhere.
const PLANTED: &str = "pl4nted-s3cret";

/// `outrigger tap`, while it runs.
struct Tapping {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: mpsc::Receiver<String>,
}

impl Tapping {
    /// Begins and waits until the control plane has asked the sidecars.
    fn start(mesh: &Mesh, args: &[&str]) -> Self {
        let mut child = Command::new(binary("outrigger"))
            .arg("tap")
            .args(args)
            .args(["-n", "shop", "-o", "json"])
            .env("OUTRIGGER_ADMIN", format!("http://{}", mesh.admin))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = told(child.stdout.take().unwrap());
        let said = told(child.stderr.take().unwrap());
        let first = said.recv_timeout(PATIENCE).unwrap();
        assert!(first.contains("1 sidecars tell"), "{first}");
        Self { child, lines, said }
    }

    /// The next request, or nothing yet.
    fn next(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    fn ends(mut self) -> (Vec<String>, Vec<String>) {
        assert!(self.child.wait().unwrap().success());
        (self.lines.iter().collect(), self.said.iter().collect())
    }
}

impl Drop for Tapping {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn told(out: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (line, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|text| line.send(text))
    });
    lines
}

const PATIENCE: Duration = Duration::from_secs(20);

/// `web` calls `cart`, and both can be asked.
async fn shop(mesh: &Mesh) -> (Instance, Instance) {
    mesh.services(&["cart", "web"]);
    let (cart, web) = (mesh.instance("cart", "v1").await, mesh.instance("web", "v1").await);
    mesh.reachable(&web.sidecar, "cart").await;
    mesh.node_of("web").await;
    mesh.node_of("cart").await;
    (cart, web)
}

/// One request of web's application, with a secret wherever one can be.
async fn asks(web: &Instance, path: &str) -> u16 {
    let mut asked = request(Method::POST, "cart", &format!("{path}?token={PLANTED}"), PLANTED.into());
    let secret = HeaderValue::from_static(PLANTED);
    for name in ["authorization", "cookie", "x-api-key", "traceparent"] {
        asked.headers_mut().insert(name, secret.clone());
    }
    Client::h1(web.sidecar.outbound).await.send(asked).await.unwrap().status.as_u16()
}

/// Waits until so many taps are open at the sidecar.
async fn taps_are(instance: &Instance, open: usize) {
    let line = format!("\noutrigger_taps {open}\n");
    eventually("so many taps are open", || async {
        let mut client = Client::h1(instance.sidecar.admin).await;
        client.get("localhost", "/stats/prometheus").await.unwrap().text().contains(&line)
    })
    .await;
}

/// The first request that is told, while `ask` is asked again and again: a tap begins a moment after it was asked for.
async fn first(tapping: &Tapping, ask: impl AsyncFn()) -> String {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        ask().await;
        if let Some(line) = tapping.next() {
            return line;
        }
        assert!(std::time::Instant::now() < end, "nothing is told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_tells_a_failing_request_with_its_reason_and_nothing_that_is_secret() {
    let mesh = Mesh::start();
    let (mut cart, web) = shop(&mesh).await;
    let tapping = Tapping::start(&mesh, &["web", "--to", "cart", "--path", "/items*", "--status", "5xx"]);
    taps_are(&web, 1).await;
    cart.origin.refuse().await;
    let line = first(&tapping, async || {
        assert!(asks(&web, "/items/7").await >= 500);
        assert!(asks(&web, "/other").await >= 500);
    })
    .await;
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&told["reason"], &told["hop"], &told["path"], &told["method"], &told["direction"]),
        (&"connect_failed".into(), &"server".into(), &"/items/7".into(), &"POST".into(), &"outbound".into()),
        "{told:#}"
    );
    assert_eq!((&told["service"], &told["version"]), (&"shop/cart".into(), &"v1".into()), "{told:#}");
    assert!(told["from"].as_str().unwrap().ends_with("/ns/shop/sa/web"), "{told:#}");
    assert!(told["tried"][0]["peer"].as_str().unwrap().ends_with("/ns/shop/sa/cart"), "{told:#}");
    assert!(told["durationMs"].as_f64().unwrap() > 0.0, "{told:#}");

    // The service's own sidecars tell what comes in, whoever asks.
    let inside = Tapping::start(&mesh, &["--to", "cart", "--reason", "any"]);
    let other = first(&inside, async || {
        asks(&web, "/other").await;
    })
    .await;
    let seen: Value = serde_json::from_str(&other).unwrap();
    assert_eq!(
        (&seen["direction"], &seen["reason"]),
        (&"inbound".into(), &"connect_failed".into()),
        "{seen:#}"
    );
    assert!(seen["from"].as_str().unwrap().ends_with("/ns/shop/sa/web"), "{seen:#}");

    // When those who look have gone, nothing is observed any more.
    cart.origin.listen_again().await;
    mesh.reachable(&web.sidecar, "cart").await;
    let rest: Vec<String> = tapping.lines.try_iter().chain(inside.lines.try_iter()).collect();
    drop((tapping, inside));
    taps_are(&web, 0).await;
    taps_are(&cart, 0).await;
    for line in rest.iter().chain([&line, &other]) {
        assert!(!line.contains(PLANTED), "{line}");
    }
    for line in rest.iter().filter(|line| line.contains("outbound")) {
        let told: Value = serde_json::from_str(line).unwrap();
        assert!(told["path"].as_str().unwrap().starts_with("/items"), "{told:#}");
    }
    let audit = text(&mesh.cli(&["audit", "--action", "tap"]));
    assert!(audit.contains("live requests at shop/web:") && audit.contains("status=5xx"), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_ends_after_its_number_and_a_sidecar_has_so_many_at_once() {
    let mesh = Mesh::start();
    let (_cart, web) = shop(&mesh).await;
    let tapping = Tapping::start(&mesh, &["web", "--limit", "3", "-X", "POST"]);
    let one = first(&tapping, async || {
        asks(&web, "/items/1").await;
    })
    .await;
    for _ in 0..5 {
        asks(&web, "/items/1").await;
    }
    let (rest, said) = tapping.ends();
    assert_eq!(rest.len(), 2, "{one} {rest:?}");
    assert!(said.iter().any(|line| line.contains("--limit")), "{said:?}");

    // On the spot, over the sidecar's own port, and as many as there may be.
    let here = || {
        let admin = web.sidecar.admin;
        tokio::spawn(async move {
            let path = "/tap?status=2xx&limit=1&for=60s&path=%2Fitems*";
            Client::h1(admin).await.get("localhost", path).await.unwrap()
        })
    };
    let taps: Vec<_> = (0..4).map(|_| here()).collect();
    let text_of =
        async |path: &str| Client::h1(web.sidecar.admin).await.get("localhost", path).await.unwrap();
    taps_are(&web, 4).await;
    let full = text_of("/tap").await;
    assert_eq!(
        (full.status.as_u16(), full.text().contains("4 taps are open")),
        (429, true),
        "{}",
        full.text()
    );
    let bad = text_of("/tap?status=x").await;
    assert_eq!((bad.status.as_u16(), bad.text().contains("503 or 5xx")), (400, true), "{}", bad.text());
    asks(&web, "/items/2").await;
    for tap in taps {
        let told: Value = serde_json::from_str(&tap.await.unwrap().text()).unwrap();
        assert_eq!(told["path"], "/items/2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_whom_is_told_with_what_is_refused_and_why() {
    let mesh = Mesh::start();
    let (_cart, web) = shop(&mesh).await;
    for _ in 0..20 {
        assert_eq!(asks(&web, "/items/1").await, 200);
    }
    let of_cart = |told: &Value| -> Option<Value> {
        let edges = told["edges"].as_array().unwrap().iter();
        let edge =
            edges.clone().find(|edge| edge["from"]["name"] == "web" && edge["to"]["name"] == "cart")?;
        Some(edge.clone())
    };
    let path = "/v1/topology?window=1m&namespace=shop";
    let told = mesh
        .until("web calls cart", path, |told| {
            let seconds = told["seconds"].as_f64().unwrap();
            of_cart(told).is_some_and(|edge| edge["rps"].as_f64().unwrap() * seconds > 19.0)
        })
        .await;
    let edge = of_cart(&told).unwrap();
    // What was asked before the first endpoint was known may have been refused.
    assert!(edge["success"].as_f64().unwrap() > 0.8, "{edge:#}");
    assert!(edge["p99Ms"].as_f64().unwrap() > 0.0, "{edge:#}");
    let nodes = told["nodes"].as_array().unwrap();
    let cart = nodes.iter().find(|node| node["name"] == "cart").unwrap();
    assert_eq!((&cart["kind"], &cart["versions"][0]), (&"service".into(), &"v1".into()), "{cart:#}");

    let opened = ["breaker", "open", "cart", "-n", "shop", "--for", "10m", "--why", "a story"];
    assert!(mesh.cli(&opened).status.success());
    eventually("the breaker is open", || async { asks(&web, "/items/1").await == 503 }).await;
    let told = mesh
        .until("the refusals are told", "/v1/topology/shop/cart?window=1m", |told| {
            told["refusals"].as_array().unwrap().iter().any(|one| one["reason"] == "breaker_open")
        })
        .await;
    assert!(told["now"]["success"].as_f64().unwrap() < 1.0, "{told:#}");
    assert_eq!((&told["callers"][0]["from"]["name"], &told["step"]), (&"web".into(), &10.into()), "{told:#}");

    let graph = text(&mesh.cli(&["topology", "-n", "shop", "--window", "1m"]));
    assert!(graph.contains("shop/web\n└─ shop/cart  ") && graph.contains("refused"), "{graph}");
    let one = text(&mesh.cli(&["topology", "shop/cart"]));
    assert!(one.contains("─ breaker_open  "), "{one}");
    let top = text(&mesh.cli(&["top", "-n", "shop", "--window", "1m"]));
    let row = top.lines().find(|line| line.contains(" cart ")).unwrap_or_else(|| panic!("{top}"));
    assert!(row.starts_with("shop") && row.contains('%'), "{top}");
    let wrong = mesh.cli(&["topology", "shop/nobody"]);
    assert!(!wrong.status.success() && text(&wrong).contains("no service shop/nobody"), "{}", text(&wrong));
    let wrong = mesh.cli(&["topology", "--window", "2h"]);
    assert!(!wrong.status.success() && text(&wrong).contains("10s to 1h"), "{}", text(&wrong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_tells_how_it_goes_along_each_route() {
    let mesh = Mesh::start();
    let (_cart, web) = shop(&mesh).await;
    mesh.apply(&split("cart", 1, 0));
    let load = Load::start(web.sidecar.outbound, "cart", 2);
    load.goes_on(20).await;
    let told = mesh.cli(&["top", "--routes", "--window", "1s", "-n", "shop", "-o", "json"]);
    let all: Value = serde_json::from_str(&text(&told)).unwrap();
    let of_route = |route: &&Value| route["route"] == "shop/cart/0" && route["name"] == "cart";
    let route = all.as_array().unwrap().iter().find(of_route).unwrap_or_else(|| panic!("{all:#}"));
    assert!(route["rps"].as_f64().unwrap() > 0.0 && route["success"] == 1.0, "{all:#}");
    assert!(route["p99Ms"].as_f64().unwrap() >= route["p50Ms"].as_f64().unwrap(), "{all:#}");
    let table = text(&mesh.cli(&["top", "--routes", "--window", "1s", "--once"]));
    assert!(table.contains("ROUTE") && table.contains("shop/cart/0"), "{table}");
    assert_eq!(mesh.cli(&["top", "--routes", "--window", "2h"]).status.code(), Some(2));
    load.end().await;
}
