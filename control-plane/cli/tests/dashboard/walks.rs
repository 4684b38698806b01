//! What an operator does at three in the morning: find what fails and why, open its breaker, stop a canary, find who it was.

use http::StatusCode;
use outrigger_testkit::{Behaviour, BodyOf};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::support::{Instance, Load, Mesh, Sidecar, text};

/// A shop: `web` calls `cart` in version 1. Its services say whose they are.
pub(crate) struct Shop {
    pub(crate) mesh: Mesh,
    pub(crate) cart: Instance,
    pub(crate) web: Sidecar,
}

const SERVICES: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop, labels: {team: checkout}}
spec:
  owner: checkout
  description: Baskets of the shop
  links: [{title: handbook, url: 'https://handbook.example/cart'}]
  ports: [{port: 80, protocol: http}]
";

impl Shop {
    pub(crate) async fn open(more: &[&str]) -> Self {
        let mesh = Mesh::start_with(more);
        mesh.apply(SERVICES);
        let cart = mesh.instance("cart", "v1").await;
        let web = mesh.caller("web").token(mesh.token("web")).start();
        mesh.reachable(&web, "cart").await;
        Self { mesh, cart, web }
    }

    pub(crate) fn dashboard(&self) -> String {
        format!("http://{}/dashboard/", self.mesh.admin)
    }

    fn cli(&self, words: &str, more: &[&str]) {
        let args: Vec<&str> = words.split(' ').chain(more.iter().copied()).collect();
        let out = self.mesh.cli(&args);
        assert!(out.status.success(), "{words}: {}", text(&out));
    }

    /// The lines of the audit log about an object, the newest first.
    async fn audit_of(&self, object: &str) -> Vec<Value> {
        let told = self.mesh.admin("/v1/audit?limit=1000").await;
        let lines = told["items"].as_array().unwrap().iter();
        lines.filter(|line| line["object"] == object).cloned().collect()
    }
}

fn failing() -> Behaviour {
    Behaviour { fail: Some((StatusCode::INTERNAL_SERVER_ERROR, 100)), ..Behaviour::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_service_is_seen_its_reason_is_found_and_its_breaker_is_held_open() {
    let Some(mut browser) = Browser::start() else { return };
    let shop = Shop::open(&[]).await;
    let rude = Rude::start(&shop);
    browser.open(&shop.dashboard());
    browser.sees("Nothing needs a look.");
    browser.sees("checkout");

    // It begins to fail: the list says so, and where to look.
    shop.cart.origin.behave(failing());
    browser.sees("need a look");
    browser.sees_in("Services that need a look", "shop/cart");
    browser.follows("shop/cart");
    browser.sees("of its requests fail");
    // Why: it is the version itself that fails, and nothing refuses its callers.
    browser.sees_in("Versions", "v1");
    browser.sees_in("Callers", "shop/web");
    browser.sees_in("Breakers", "only counts");
    browser.shot("service-failing");

    // Its breaker is held open, with a reason; without one the button is no button.
    browser.presses("Open the breaker over the service");
    browser.sees("Nothing reaches shop/cart through any sidecar");
    assert_eq!(browser.does("disabled", json!({ "name": "Open the breaker", "exact": true })), json!(true));
    browser.fills("Why? The audit log keeps it.", "its database is gone — Jürgen looks");
    browser.shot("breaker-asked");
    browser.does("press", json!({ "keys": ["Tab", "Tab", "Enter"] }));
    browser.sees_in("Breakers", "held open");
    browser.sees_in("Breakers", "its database is gone — Jürgen looks");
    let said = shop.mesh.admin("/v1/breakeroverrides/shop/cart").await;
    assert_eq!(
        (&said["spec"]["mode"], &said["spec"]["service"]),
        (&json!("forceOpen"), &json!("cart")),
        "{said:#}"
    );
    assert_eq!(said["spec"]["why"], "its database is gone — Jürgen looks");
    assert!(said["spec"]["expiresAt"].is_string(), "for ten minutes, as was chosen: {said:#}");
    let line = shop.audit_of("BreakerOverride shop/cart").await.remove(0);
    assert_eq!((&line["action"], &line["who"]), (&json!("create"), &json!("local")), "{line:#}");
    assert_eq!(line["why"], "its database is gone — Jürgen looks", "{line:#}");
    let open = |told: &Value| told["items"].as_array().unwrap().iter().any(|b| b["states"]["open"] == 1);
    shop.mesh.until("it is open at the sidecar", "/v1/breakers?service=shop/cart", open).await;
    browser.sees_in("Breakers", "open at 1");
    // What its callers are told now stands there as the reason.
    browser.sees_in("Refusals by reason", "breaker_open");
    browser.sees_in("Refusals by reason", "an operator opened it");
    browser.shot("service-held-open");

    // And it is taken back.
    browser.presses("Take back what was said of the breaker over the service");
    browser.fills("Why? The audit log keeps it.", "the database is back");
    browser.presses("Take it back");
    browser.sees_in("Breakers", "nothing: the policy holds");
    let left = shop.mesh.admin("/v1/breakeroverrides/shop").await;
    assert_eq!(left["items"], json!([]));
    let line = shop.audit_of("BreakerOverride shop/cart").await.remove(0);
    assert_eq!((&line["action"], &line["why"]), (&json!("delete"), &json!("the database is back")));
    rude.end().await;
    browser.did_nothing_amiss();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_requests_of_a_service_are_watched_from_its_page() {
    let Some(mut browser) = Browser::start() else { return };
    let shop = Shop::open(&[]).await;
    browser.open(&shop.dashboard());
    browser.sees("shop/cart");
    browser.go("#/services/shop/cart");
    browser.sees("Golden signals");
    browser.follows("Watch its requests");
    browser.sees("Bodies and secrets are never shown");
    browser.fills("Path", "/items*");
    browser.does("click", json!({ "name": "Watch", "exact": true }));
    browser.sees("1 sidecar tells, 0 seen");

    // A request that fails is told while it happens; one that was not asked for is not.
    shop.cart.origin.behave(failing());
    assert_eq!(shop.web.get("cart", "/other").await.status, 500);
    assert_eq!(shop.web.get("cart", "/items/7?token=pl4nted").await.status, 500);
    browser.sees("1 seen");
    browser.sees("GET /items/7");
    browser.sees("500");
    browser.sees("shop/web");
    let page = browser.does("text", json!({}));
    assert!(
        !page.as_str().unwrap().contains("pl4nted") && !page.as_str().unwrap().contains("/other"),
        "{page}"
    );
    browser.shot("live-request");

    // Whoever looked is in the audit log, and when he stops the sidecars observe nothing.
    let told = shop.mesh.admin("/v1/audit?limit=1000").await;
    assert!(told["items"].as_array().unwrap().iter().any(|line| line["action"] == "tap"), "{told:#}");
    browser.presses("Stop");
    outrigger_testkit::eventually("nobody is told any more", || async {
        let mut client = outrigger_testkit::Client::h1(shop.cart.sidecar.admin).await;
        let page = client.get("localhost", "/stats/prometheus").await.unwrap().text();
        page.contains("\noutrigger_taps 0\n")
    })
    .await;
    browser.did_nothing_amiss();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_is_watched_and_aborted_and_who_changed_what_is_found() {
    let Some(mut browser) = Browser::start() else { return };
    let shop = Shop::open(&[]).await;
    let words = "rollout start cart -n shop --from v1 --to v2 --steps 20,100 --hold 60s --min-requests 20 --min-success 90";
    shop.cli(words, &["--why", "release 7 of the basket"]);
    let load = Load::start(shop.web.outbound, "cart", 1);
    let new = shop.mesh.instance("cart", "v2").await;
    browser.open(&shop.dashboard());
    browser.follows("Rollouts");
    browser.sees("v1 → v2");
    browser.follows("shop/cart");
    browser.sees("v2 gets 20 %");
    browser.sees("Holding");
    let at = |told: &Value| told["status"]["phase"] == "Holding" && told["status"]["weight"] == 20.0;
    shop.mesh.until("it is held", STATUS, at).await;
    browser.sees_in("Gates", "passes");
    browser.shot("rollout");
    // Its service tells of it, too.
    browser.go("#/services/shop/cart");
    browser.sees_in("Rollouts", "Holding");
    browser.sees_in("Changes", "release 7 of the basket");
    browser.sees_in("Versions", "v2");

    // It is called off, with a reason.
    browser.go("#/rollouts/shop/cart");
    browser.presses("Abort");
    browser.sees("Everything goes back to the stable version at once.");
    browser.fills("Why? The audit log keeps it.", "carts are lost");
    browser.does("press", json!({ "keys": ["Tab", "Tab", "Enter"] }));
    browser.sees("Aborted");
    browser.sees("v2 gets 0 %");
    let told = shop.mesh.until("it is aborted", STATUS, |told| told["status"]["phase"] == "Aborted").await;
    assert_eq!(told["status"]["weight"], 0.0, "{told:#}");
    let before = new.origin.requests();
    load.goes_on(50).await;
    assert_eq!(new.origin.requests(), before, "nothing reaches it any more");
    drop(load.end().await);
    assert_eq!(browser.does("disabled", json!({ "name": "Promote" })), json!(true));

    // Who changed what: each line with who and why.
    browser.follows("Audit");
    browser.sees("rollout-abort");
    browser.sees("carts are lost");
    browser.fills("Find by who, what, where or why", "carts are lost");
    browser.does("miss", json!({ "text": "release 7" }));
    let lines = shop.audit_of("Rollout shop/cart").await;
    let line = lines.iter().find(|line| line["action"] == "rollout-abort").unwrap();
    assert_eq!((&line["why"], &line["who"]), (&json!("carts are lost"), &json!("local")), "{line:#}");
    browser.shot("audit");
    browser.follows("Changes");
    browser.sees("release 7 of the basket");
    browser.sees("created rollouts/shop/cart");
    browser.did_nothing_amiss();
}

const DOCUMENT: &str = r##"{
  "openapi": "3.1.0", "info": {"title": "Baskets", "version": "7"},
  "paths": {"/items/{id}": {
    "parameters": [{"$ref": "#/components/parameters/Id"}],
    "put": {
      "summary": "Puts something into the basket.", "responses": {"200": {"description": "it is in it"}},
      "parameters": [{"name": "x-user", "in": "header"}, {"name": "gift", "in": "query"}],
      "requestBody": {"content": {"application/json": {"example": {"count": 2}}}}
    }
  }},
  "components": {"parameters": {"Id": {"name": "id", "in": "path", "required": true, "example": "sail"}}}
}"##;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_of_a_service_is_read_and_tried_in_place() {
    let Some(mut browser) = Browser::start() else { return };
    let shop = Shop::open(&[]).await;
    let body = BodyOf::Exactly(DOCUMENT.into());
    shop.cart.origin.behave(Behaviour { body, ..Behaviour::default() });
    browser.open(&format!("{}#/services/shop/cart/api", shop.dashboard()));
    browser.sees("shop/cart says nothing of an API: write spec.api");
    let asked = shop.cart.origin.requests();
    shop.mesh
        .apply(&SERVICES.replace("  owner: checkout\n", "  owner: checkout\n  api: {path: /openapi.json}\n"));
    browser.go("#/services");
    browser.follows("API");
    browser.sees("Baskets");
    browser.sees("Puts something into the basket.");
    assert_eq!(shop.cart.origin.requests(), asked + 1, "one request for the document");
    assert_eq!(shop.cart.origin.seen().last().unwrap().target, "/openapi.json");

    // It is tried with what was typed in, and with the identity of the control plane.
    browser.fills("x-user", "ada");
    browser.fills("gift", "yes & no");
    browser.presses("Try it PUT /items/{id}");
    browser.sees("from cart-");
    let seen = shop.cart.origin.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/items/sail?gift=yes+%26+no"));
    assert_eq!((seen.header("x-user"), seen.header("content-type")), (Some("ada"), Some("application/json")));
    assert!(seen.body > 0, "{seen:?}");
    let who = seen.header("x-forwarded-client-cert").unwrap();
    assert!(who.contains("control-plane"), "{who}");
    let lines = shop.audit_of("MeshService shop/cart: PUT /items/sail").await;
    assert_eq!(lines[0]["action"], "try", "{lines:#?}");
    browser.shot("api");

    // What a policy refuses it refuses here, too.
    shop.mesh.apply(
        "apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: web-only, namespace: shop}\nspec:\n  targetRefs: \
         [{group: outrigger.dev, kind: MeshService, name: cart}]\n  action: allow\n  rules: [{from: [{serviceAccount: web}]}]\n",
    );
    browser.presses("Try it PUT /items/{id}");
    browser.sees("authz_denied");
    browser.did_nothing_amiss();
}

const STATUS: &str = "/v1/rollouts/shop/cart";

/// A caller who goes on, whatever he hears; gently, so that the machine is left to the browser.
pub(crate) struct Rude {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Rude {
    pub(crate) fn start(shop: &Shop) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let outbound = shop.web.outbound;
        let task = tokio::spawn(async move {
            while !*stopped.borrow() {
                let mut client = outrigger_testkit::Client::h1(outbound).await;
                for _ in 0..50 {
                    if client.get("cart", "/items/7").await.is_err() || *stopped.borrow() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        });
        Self { stop, task }
    }

    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}
