//! A user's token on its way through a mesh of processes: exchanged at each hop for one of the mesh, verified by libraries
//! of others, revoked by what the user began with, and what happens while the control plane is away.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, header};
use outrigger_certs::jwt::TokenSigner;
use outrigger_testkit::{CallsOn, Client, Onward, Reply, Trace, eventually, real, request};
use serde_json::{Value, json};

use crate::support::{Mesh, Sidecar};

const PACKAGES: [&str; 3] = ["PyJWT==2.10.1", "jwcrypto==1.5.6", "cryptography==44.0.0"];

/// A browser calls `web`, which calls `cart`, which calls `prices`; each passes on the trace context and nothing else.
struct Chain {
    mesh: Mesh,
    login: TokenSigner,
    browser: Sidecar,
    apps: [CallsOn; 3],
    sidecars: [Sidecar; 3],
}

impl Chain {
    async fn start(more: &str) -> Self {
        let mesh = Mesh::start();
        mesh.services(&["web", "cart", "prices", "browser"]);
        let (login, _) = TokenSigner::generate().unwrap();
        mesh.apply(&policies(&login, more));
        let apps = [CallsOn::start().await, CallsOn::start().await, CallsOn::start().await];
        let start =
            |name: &str, app: &CallsOn| mesh.sidecar(name, "v1", app.addr()).token(mesh.token(name)).start();
        let sidecars = [start("web", &apps[0]), start("cart", &apps[1]), start("prices", &apps[2])];
        for (i, host) in [(0, "cart"), (1, "prices")] {
            apps[i].calls(Onward {
                sidecar: sidecars[i].outbound,
                host,
                think: Duration::ZERO,
                trace: Trace::PassedOn,
                headers: HeaderMap::new(),
            });
        }
        let browser = mesh.caller("browser").token(mesh.token("browser")).start();
        let chain = Self { mesh, login, browser, apps, sidecars };
        let token = chain.token("warm-up", "read");
        eventually("the whole chain answers", || async { chain.visit(&token).await.status == 200 }).await;
        chain
    }

    fn token(&self, jti: &str, scope: &str) -> String {
        let now = now();
        let claims = json!({
            "iss": "https://login.example", "aud": "shop", "sub": "ada", "jti": jti, "scope": scope,
            "iat": now, "exp": now + 3_600,
        });
        self.login.sign(claims.to_string().as_bytes()).unwrap().to_string()
    }

    async fn visit(&self, token: &str) -> Reply {
        let mut asked = request(Method::GET, "web", "/", "".into());
        asked.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        Client::h1(self.browser.outbound).await.send(asked).await.unwrap()
    }

    /// The token that an application got last, and what it says.
    fn got(&self, app: usize) -> (String, Value) {
        let headers = self.apps[app].latest();
        let value = headers.get(header::AUTHORIZATION).expect("a token came").to_str().unwrap().to_owned();
        let token = value.strip_prefix("Bearer ").unwrap().to_owned();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        (token, serde_json::from_slice(&claims).unwrap())
    }

    async fn metric(&self, sidecar: usize, line: &str) -> u64 {
        let admin = self.sidecars[sidecar].admin;
        let text = Client::h1(admin).await.get(&admin.to_string(), "/stats/prometheus").await.unwrap().text();
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.unwrap_or_else(|| panic!("{line}: {text}")).trim().parse().unwrap()
    }
}

fn policies(login: &TokenSigner, more: &str) -> String {
    let material = login.key().material.clone();
    let outrigger_mesh::KeyMaterial::P256(x, y) = material else { panic!("P-256") };
    let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
    let kid = login.key().kid.clone().unwrap();
    let issuers = format!(
        "issuers: [{{name: login, issuer: 'https://login.example', audiences: [shop], jwks: {{inline: '{{\"keys\":[{{\
         \"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"{kid}\",\"x\":\"{x}\",\"y\":\"{y}\"}}]}}'}}}}]"
    );
    let policy = |name: &str, rest: &str| {
        format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: TokenPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: MeshService, name: {name}}}], {rest}}}\n---\n"
        )
    };
    let access = "apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: readers, namespace: shop}\n\
                  spec:\n  targetRefs: [{group: outrigger.dev, kind: MeshService, name: prices}]\n  action: allow\n  \
                  rules: [{claims: [{claim: scope, values: [read]}]}]\n";
    [
        policy("web", &issuers),
        policy(
            "cart",
            &format!("{issuers}, propagation: exchange, exchange: {{scopes: [read, write]{more}}}"),
        ),
        policy("prices", "propagation: exchange, exchange: {scopes: [read]}"),
        access.to_owned(),
    ]
    .concat()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_narrowed_at_each_hop_and_verified_by_the_libraries_of_others() {
    let chain = Chain::start("").await;
    let token = chain.token("j-1", "read write admin");
    let reply = chain.visit(&token).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (web, cart) = ("spiffe://mesh.local/ns/shop/sa/web", "spiffe://mesh.local/ns/shop/sa/cart");
    assert_eq!(chain.got(0).0, token, "what came from outside is kept for the application that it is for");
    let (at_cart, claims) = chain.got(1);
    assert_eq!(
        (&claims["sub"], &claims["aud"], &claims["scope"]),
        (&json!("ada"), &json!("shop/cart"), &json!("read write"))
    );
    assert_eq!(claims["act"], json!({"sub": web}));
    let (at_prices, claims) = chain.got(2);
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["scope"]),
        (&json!("spiffe://mesh.local"), &json!("shop/prices"), &json!("read"))
    );
    assert_eq!(claims["act"], json!({"sub": cart, "act": {"sub": web}}));
    assert_eq!(claims["origin"]["jti"], "j-1");

    // The same user again: nothing is asked anew.
    let issued = "outrigger_token_exchanges_total{outcome=\"issued\"}";
    let before = chain.metric(0, issued).await;
    for _ in 0..20 {
        assert_eq!(chain.visit(&token).await.status, 200);
    }
    assert_eq!(chain.metric(0, issued).await, before);
    assert_eq!(chain.got(1).0, at_cart);

    // Fifty at once of a new user: one exchange for all of them.
    let new = chain.token("j-2", "read");
    let all = futures_util::future::join_all((0..50).map(|_| chain.visit(&new))).await;
    assert!(all.iter().all(|reply| reply.status == 200));
    assert_eq!(chain.metric(0, issued).await, before + 1, "one flight");

    // Whoever lacks the scope is refused by the last, and no service had to know.
    let weak = chain.visit(&chain.token("j-3", "write")).await;
    assert_eq!((weak.status.as_u16(), weak.header("x-seen-reason")), (403, None));
    assert_eq!(chain.got(1).1["scope"], "write");

    // A token of the mesh is good at its own service alone, and nobody can put one in.
    for stolen in [&at_cart, &at_prices] {
        assert_eq!(chain.visit(stolen).await.status, 401);
    }

    let jwks = chain.mesh.admin("/.well-known/jwks.json").await;
    assert_eq!(jwks["keys"][0]["alg"], "ES256");
    assert!(jwks["keys"][0].get("d").is_none());
    let verified = tokio::task::spawn_blocking(move || {
        let python = real::venv(&PACKAGES)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories/verify.py");
        let mut command = Command::new(python);
        command.arg(script).args([&jwks.to_string(), &at_prices, "spiffe://mesh.local", "shop/prices"]);
        let ran = real::run(&mut command, Duration::from_secs(60));
        assert!(ran.ok, "{}", ran.stderr);
        Some(serde_json::from_str::<Value>(&ran.stdout).unwrap())
    });
    let Some(verified) = verified.await.unwrap() else { return };
    for library in ["pyjwt", "jwcrypto"] {
        assert_eq!(verified[library]["act"], json!({"sub": cart, "act": {"sub": web}}), "{library}");
        assert_eq!(verified[library]["sub"], "ada");
    }
    assert_eq!(verified["refused"], 4, "another audience, issuer, key and one bit: {verified}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_began_with_can_be_revoked_at_every_hop() {
    let chain = Chain::start("").await;
    let token = chain.token("stolen", "read");
    assert_eq!(chain.visit(&token).await.status, 200);
    let (at_cart, _) = chain.got(1);
    let seen = chain.apps[1].requests();
    chain.mesh.apply(
        "apiVersion: outrigger.dev/v1alpha1\nkind: Denylist\nmetadata: {name: gone, namespace: shop}\n\
         spec: {tokens: [{issuer: 'https://login.example', jti: stolen}]}\n",
    );
    assert_eq!(chain.visit(&token).await.status, 401);
    // The one that `web` got for it is still in its time, and is revoked with it.
    let mut asked = request(Method::GET, "cart", "/", "".into());
    asked.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {at_cart}").parse().unwrap());
    let reply = Client::h1(chain.sidecars[0].outbound).await.send(asked).await.unwrap();
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").unwrap().contains("revoked"), "{:?}", reply.headers);
    assert_eq!(chain.apps[1].requests(), seen);
    assert_eq!(chain.visit(&chain.token("other", "read")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_control_plane_what_is_known_goes_on_and_what_is_not_is_refused_or_goes_as_it_came() {
    let mut chain = Chain::start("").await;
    let known = chain.token("known", "read");
    assert_eq!(chain.visit(&known).await.status, 200);
    chain.mesh.kill_control();
    assert_eq!(chain.visit(&known).await.status, 200);
    let refused = chain.visit(&chain.token("new", "read")).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("x-seen-reason")),
        (503, Some("token_exchange_unavailable"))
    );
    chain.mesh.start_control();
    let again = chain.token("new", "read");
    eventually("it is exchanged again", || async { chain.visit(&again).await.status == 200 }).await;
    drop(chain);

    let mut chain = Chain::start(", unavailable: original").await;
    let token = chain.token("j-1", "read");
    chain.mesh.kill_control();
    // `cart` takes tokens of the login itself; `prices` does not, and its sidecar's caller can not exchange.
    let reply = chain.visit(&token).await;
    assert_eq!(chain.got(1).0, token);
    assert_eq!((reply.status.as_u16(), reply.header("x-seen-reason")), (503, None));
}
