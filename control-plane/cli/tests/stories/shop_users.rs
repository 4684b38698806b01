//! Users of the shop: one logs in, and what each service gets is narrowed by the mesh. The services are the shop's own
//! programs, which pass on the trace context and know nothing of tokens; the issuer is the shop's `login`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use http::{Method, header};
use outrigger_testkit::{Client, Reply, eventually, real, request};
use serde_json::{Value, json};

use crate::support::{Mesh, Process, Sidecar, binary};

/// The shop without `reviews` and `recommendations`.
struct Shop {
    mesh: Mesh,
    login: SocketAddr,
    browser: Sidecar,
    web: Sidecar,
    cart: Sidecar,
    _prices: Sidecar,
    _apps: Vec<Process>,
}

impl Shop {
    async fn open() -> Self {
        let mesh = Mesh::start();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/mesh");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        mesh.apply(&read("services.yaml"));
        let mut apps = vec![];
        let mut app = |program: &str, at: SocketAddr, sidecar: Option<&Sidecar>| {
            let mut command = Command::new(binary(program));
            command.env("PORT", at.port().to_string());
            command.envs(sidecar.map(|sidecar| ("OUTRIGGER_OUTBOUND", sidecar.outbound.to_string())));
            apps.push(Process::spawn(command, &mesh.path(&format!("{program}.log"))));
        };
        let login = real::free_port();
        app("shop-login", login, None);
        let mut service = |name: &str| {
            let at = real::free_port();
            let sidecar = mesh.sidecar(name, "v1", at).token(mesh.token(name)).start();
            app(&format!("shop-{name}"), at, Some(&sidecar));
            sidecar
        };
        let (web, cart, prices) = (service("web"), service("cart"), service("prices"));
        let browser = mesh.caller("browser").token(mesh.token("browser")).start();
        let shop = Self { mesh, login, browser, web, cart, _prices: prices, _apps: apps };
        shop.mesh.reachable(&shop.browser, "web").await;
        eventually("the shop sells without users", || async {
            shop.cart_of("ada", None).await.status == 200
        })
        .await;
        shop.mesh.apply(&read("users.yaml").replace("127.0.0.1:8090", &shop.login.to_string()));
        let ok = |told: &Value| {
            told["items"]
                .as_array()
                .is_some_and(|all| all.iter().any(|i| i["name"] == "shop/web/login" && i["state"] == "ok"))
        };
        shop.mesh.until("the keys of the login are fetched", "/v1/issuers", ok).await;
        shop
    }

    async fn logs_in(&self, user: &str, scope: &str) -> String {
        let login = json!({"user": user, "scope": scope}).to_string();
        let mut asked = request(Method::POST, "login", "/login", login.into());
        asked.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let reply = Client::h1(self.login).await.send(asked).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, method: Method, path: &str, body: &str, token: Option<&str>) -> Reply {
        let mut asked = request(method, "web", path, body.to_owned().into());
        asked.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        if let Some(token) = token {
            asked.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        Client::h1(self.browser.outbound).await.send(asked).await.unwrap()
    }

    async fn buys(&self, user: &str, token: Option<&str>) -> Reply {
        let path = format!("/cart/{user}/items");
        self.ask(Method::POST, &path, r#"{"id": "rope", "quantity": 2}"#, token).await
    }

    async fn cart_of(&self, user: &str, token: Option<&str>) -> Reply {
        self.ask(Method::GET, &format!("/cart/{user}"), "", token).await
    }
}

async fn exchanged(sidecar: &Sidecar) -> u64 {
    let admin = sidecar.admin;
    let text = Client::h1(admin).await.get(&admin.to_string(), "/stats/prometheus").await.unwrap().text();
    let line = "outrigger_token_exchanges_total{outcome=\"issued\"}";
    text.lines().find_map(|l| l.strip_prefix(line)).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_logs_in_and_each_service_of_the_shop_gets_what_it_needs() {
    let shop = Shop::open().await;
    assert_eq!(shop.ask(Method::GET, "/", "", None).await.status, 200, "the page is everybody's");

    // Whoever has not logged in gets no further than `web`.
    let nobody = shop.buys("ada", None).await;
    assert_eq!(nobody.status, 502);
    assert!(nobody.json()["reason"].as_str().unwrap().contains("401"), "{}", nobody.text());

    // The token says more than `cart` may see: one that says `admin` would be refused there.
    let ada = shop.logs_in("ada", "cart prices admin").await;
    let bought = shop.buys("ada", Some(&ada)).await;
    assert_eq!(bought.status, 200, "{}", bought.text());
    let total = shop.cart_of("ada", Some(&ada)).await;
    assert_eq!((total.status.as_u16(), &total.json()["pieces"]), (200, &json!(2)), "{}", total.text());
    assert_eq!((exchanged(&shop.web).await, exchanged(&shop.cart).await), (1, 1), "for cart, and for prices");

    // A user who may not see prices can fill a cart, but not look what it costs: `prices` refuses, two hops away.
    let bob = shop.logs_in("bob", "cart").await;
    assert_eq!(shop.buys("bob", Some(&bob)).await.status, 200);
    let refused = shop.cart_of("bob", Some(&bob)).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["dependency"]), (502, &json!("cart")));
    assert!(refused.text().contains("403"), "{}", refused.text());

    // A token that is not of the login ends at the door.
    let (said, signature) = ada.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{said}.{first}{}", &signature[1..]);
    assert_eq!(shop.cart_of("ada", Some(&forged)).await.status, 401);
}
