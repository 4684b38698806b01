//! One version takes the place of another under load: what fails or is slow goes back by itself, what is healthy gets
//! everything, and nobody who calls has a failed request of it beyond the share that was stated.

use std::time::{Duration, Instant};

use outrigger_testkit::{Behaviour, Client, request};
use serde_json::Value;

use crate::support::{Instance, Load, Mesh, Sidecar, text};

const STATUS: &str = "/v1/rollouts/shop/cart";

/// A shop with `cart` in version 1, somebody who calls it, and no version 2 yet.
pub(crate) struct Shop {
    pub(crate) mesh: Mesh,
    old: Instance,
    pub(crate) web: Sidecar,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let mesh = Mesh::start();
        mesh.services(&["cart", "web"]);
        let old = mesh.instance("cart", "v1").await;
        let web = mesh.caller("web").token(mesh.token("web")).start();
        mesh.reachable(&web, "cart").await;
        Self { mesh, old, web }
    }

    pub(crate) fn start(&self, flags: &str) {
        let words = "rollout start cart -n shop --from v1 --to v2 --min-requests 20 --window 5s";
        let words: Vec<&str> = words.split(' ').chain(flags.split(' ')).collect();
        let out = self.mesh.cli(&words);
        assert!(out.status.success(), "{}", text(&out));
    }

    async fn until(&self, phase: &str) -> Value {
        self.mesh.until(phase, STATUS, |told| told["status"]["phase"] == phase).await
    }

    /// Waits until the candidate gets something, and then until it is back: how long that took, and where it is.
    async fn back(&self) -> (Duration, Value) {
        self.mesh.until("it begins", STATUS, |told| told["status"]["weight"] != 0.0).await;
        let began = Instant::now();
        let told = self.until("RolledBack").await;
        (began.elapsed(), told)
    }

    /// How many requests the old version has had, once what was under way has ended.
    async fn old_at_rest(&self) -> u64 {
        let origin = &self.old.origin;
        let (mut had, mut since) = (origin.requests(), Instant::now());
        let end = since + Duration::from_secs(20);
        while since.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = origin.requests();
            if now != had || origin.in_flight() > 0 {
                assert!(Instant::now() < end, "requests still reach the old version: {now}");
                (had, since) = (now, Instant::now());
            }
        }
        had
    }

    /// The lines of the audit log that are about rollouts, the oldest first: what was done, and why.
    async fn audit(&self) -> Vec<(String, String)> {
        let told = self.mesh.admin("/v1/audit?limit=1000").await;
        let mut lines = vec![];
        for line in told["items"].as_array().unwrap().iter().rev() {
            let (action, why) = (line["action"].as_str().unwrap(), line["why"].as_str().unwrap_or_default());
            if action.starts_with("rollout-") {
                assert_eq!(line["object"], "Rollout shop/cart");
                lines.push((action.to_owned(), why.to_owned()));
            }
        }
        lines
    }
}

fn erring() -> Behaviour {
    Behaviour { fail: Some((http::StatusCode::INTERNAL_SERVER_ERROR, 100)), ..Behaviour::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_errs_goes_back_by_itself_and_costs_no_more_than_its_share() {
    let shop = Shop::open().await;
    shop.start("--steps 5,50,100 --hold 30s --min-success 95");
    shop.until("Waiting").await;
    let load = Load::start(shop.web.outbound, "cart", 8);
    load.goes_on(100).await;
    let new = shop.mesh.instance("cart", "v2").await;
    new.origin.behave(erring());
    let before = shop.old.origin.requests();
    let (took, told) = shop.back().await;
    let (stable, after) = (shop.old.origin.requests() - before, new.origin.requests());
    load.goes_on(300).await;
    assert_eq!(new.origin.requests(), after, "nothing reaches it any more");
    let (good, bad) = load.end().await;
    println!("{} of {} failed; back after {took:?}: {}", bad.len(), good, told["status"]["why"]);
    assert!(took < Duration::from_secs(20), "by the gate, long before the step is over: {took:?}");
    assert!(bad.iter().all(|why| why.starts_with("50")), "{bad:?}");
    // Of what was called in that time, one of twenty; by chance six sigma more, and what was under way.
    let all = (stable + after) as f64;
    let most = all * 0.05 + 6.0 * (all * 0.05 * 0.95).sqrt() + 8.0;
    assert!(bad.len() as u64 <= after && (after as f64) < most, "{after} reached it, {stable} the other");
    let audit = shop.audit().await;
    // It may fail before the last sidecar has acknowledged the step, which is then not held.
    let actions = audit.iter().map(|(action, _)| action.as_str()).filter(|action| *action != "rollout-hold");
    let wanted =
        ["create", "start", "step", "rollback", "rolled-back"].map(|action| format!("rollout-{action}"));
    assert_eq!(actions.collect::<Vec<_>>(), wanted, "{audit:#?}");
    let why = &audit[audit.len() - 2].1;
    assert!(why.contains("at 5 %: success is") && why.contains("candidate 0.00 %"), "{audit:#?}");
    let watched = shop.mesh.cli(&["rollout", "status", "cart", "-n", "shop", "--watch"]);
    assert_eq!(watched.status.code(), Some(6), "{}", text(&watched));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_refuses_every_connection_goes_back_by_itself() {
    let shop = Shop::open().await;
    shop.start("--steps 20,100 --hold 30s --min-success 95");
    shop.until("Waiting").await;
    let load = Load::start(shop.web.outbound, "cart", 8);
    load.goes_on(100).await;
    // It is registered, and nobody listens there: no sidecar of its own tells anything.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    shop.mesh.apply(&format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Instance\nmetadata: {{name: cart-v2, namespace: shop}}\n\
         spec: {{service: cart, version: v2, address: 127.0.0.1, ports: [{{port: 80, listen: {}}}]}}\n",
        nobody.port()
    ));
    let (took, told) = shop.back().await;
    load.goes_on(100).await;
    let (good, bad) = load.end().await;
    let why = told["status"]["why"].as_str().unwrap();
    println!("{} of {} failed; back after {took:?}: {why}", bad.len(), good);
    assert!(why.contains("at 20 %: success is 0.00 %, wanted at least 95 %"), "{why}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    // Before its breaker opens, which a few attempts do; those under way at that moment are all there are.
    assert!(bad.len() <= 16, "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_is_slow_goes_back_by_itself() {
    let shop = Shop::open().await;
    shop.start("--steps 20,100 --hold 30s --max-p99 100ms --slower 2");
    shop.until("Waiting").await;
    let load = Load::start(shop.web.outbound, "cart", 8);
    load.goes_on(100).await;
    let new = shop.mesh.instance("cart", "v2").await;
    new.origin.behave(Behaviour { delay: Duration::from_millis(200), ..Behaviour::default() });
    let (took, told) = shop.back().await;
    let (_, bad) = load.end().await;
    assert!(bad.is_empty(), "slow is not failed: {bad:?}");
    let why = shop.audit().await.into_iter().find(|(action, _)| action == "rollout-rollback").unwrap().1;
    assert!(why.contains(": p99 is") && why.contains("wanted at most 100 ms"), "{why}");
    assert!(took < Duration::from_secs(20), "{took:?}: {told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_candidate_gets_everything_without_a_failed_request() {
    let shop = Shop::open().await;
    shop.start("--steps 10,50,100 --hold 2s --min-success 99");
    let load = Load::start(shop.web.outbound, "cart", 8);
    let new = shop.mesh.instance("cart", "v2").await;
    let watched = shop.mesh.cli(&["rollout", "status", "cart", "-n", "shop", "--watch"]);
    let told = text(&watched);
    assert!(watched.status.success(), "{told}");
    for line in ["v1 to v2: Holding, 10 % on v2", "Holding, 50 % on v2", "v1 to v2: Done, 100 % on v2"] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    let (old, young) = (shop.old.origin.requests(), new.origin.requests());
    load.goes_on(300).await;
    assert_eq!(shop.old.origin.requests(), old, "everything goes to the new version");
    assert!(new.origin.requests() > young);
    let (good, bad) = load.end().await;
    println!("{good} answered, {} failed", bad.len());
    assert!(bad.is_empty(), "{bad:?}");
    let whole = text(&shop.mesh.cli(&["rollout", "status", "cart", "-n", "shop"]));
    assert!(whole.contains("shop/cart: v1 to v2, canary   Done"), "{whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let mut shop = Shop::open().await;
    shop.start("--steps 10,50,100 --hold 2s --min-success 99");
    let load = Load::start(shop.web.outbound, "cart", 8);
    let new = shop.mesh.instance("cart", "v2").await;
    let half = |told: &Value| told["status"]["weight"] == 50.0 && told["status"]["phase"] == "Holding";
    shop.mesh.until("half", STATUS, half).await;
    shop.mesh.kill_control();
    let before = new.origin.requests();
    load.goes_on(200).await;
    assert!(new.origin.requests() > before + 50, "the sidecars keep the share they have");
    shop.mesh.start_control();
    let told = shop.mesh.admin(STATUS).await;
    assert_eq!(told["status"]["weight"], 50.0, "{told:#}");
    // Its sidecars have to come back first.
    let end = Instant::now() + Duration::from_secs(60);
    while shop.mesh.admin(STATUS).await["status"]["phase"] != "Done" {
        assert!(Instant::now() < end, "{:#}", shop.mesh.admin(STATUS).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, bad) = load.end().await;
    assert!(bad.is_empty(), "{bad:?}");
    let steps = shop.audit().await.iter().filter(|(action, _)| action == "rollout-step").count();
    assert_eq!(steps, 3, "no step twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blue_green_switches_at_once_and_nothing_reaches_the_old_version_once_everybody_knows() {
    let shop = Shop::open().await;
    shop.start("--blue-green --match x-preview=1 --preview 6s --max-drain 3s --min-success 99");
    let load = Load::start(shop.web.outbound, "cart", 8);
    let new = shop.mesh.instance("cart", "v2").await;
    shop.until("Holding").await;
    assert_eq!(new.origin.requests(), 0, "nobody sees it but who asks for it");
    let mut asks = request(http::Method::GET, "cart", "/preview", bytes::Bytes::new());
    asks.headers_mut().insert("x-preview", http::HeaderValue::from_static("1"));
    let seen = Client::h1(shop.web.outbound).await.send(asks).await.unwrap();
    assert_eq!(seen.json()["origin"], "cart-v2");
    shop.until("Draining").await;
    let old = shop.old_at_rest().await;
    load.goes_on(300).await;
    assert_eq!(shop.old.origin.requests(), old, "everybody has acknowledged the switch");
    shop.until("Done").await;
    let (good, bad) = load.end().await;
    println!("{good} answered, {} failed", bad.len());
    assert!(bad.is_empty(), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_seen_the_candidate_stays_with_it_and_an_abort_brings_everybody_back() {
    let shop = Shop::open().await;
    shop.start("--steps 1,10,50,100 --hold 1h --min-success 50 --sticky header:x-user");
    let _new = shop.mesh.instance("cart", "v2").await;
    let mut on_new: Vec<bool> = vec![false; 200];
    for weight in [1.0, 10.0, 50.0, 100.0] {
        let at = |told: &Value| told["status"]["weight"] == weight && told["status"]["phase"] == "Holding";
        shop.mesh.until("the step", STATUS, at).await;
        let mut client = Client::h1(shop.web.outbound).await;
        for (user, before) in on_new.iter_mut().enumerate() {
            let mut asks = request(http::Method::GET, "cart", "/", bytes::Bytes::new());
            asks.headers_mut().insert("x-user", user.to_string().parse().unwrap());
            let now = client.send(asks).await.unwrap().json()["origin"] == "cart-v2";
            assert!(now || !*before, "user {user} went back at {weight} %");
            *before = now;
        }
        if weight < 100.0 {
            let out = shop.mesh.cli(&["rollout", "promote", "cart", "-n", "shop"]);
            assert!(out.status.success(), "{}", text(&out));
        }
    }
    assert!(on_new.iter().all(|on_new| *on_new));
    let again = shop.mesh.cli(&["rollout", "start", "cart", "-n", "shop", "--from", "v1", "--to", "v2"]);
    assert!(text(&again).contains("under way already"), "{}", text(&again));
    let out =
        shop.mesh.cli(&["rollout", "abort", "cart", "-n", "shop", "--why", "the release was called off"]);
    assert!(out.status.success(), "{}", text(&out));
    shop.until("Aborted").await;
    assert_eq!(shop.web.get("cart", "/").await.json()["origin"], "cart-v1");
    let audit = shop.audit().await;
    assert!(audit.contains(&("rollout-abort".into(), "the release was called off".into())), "{audit:#?}");
}
