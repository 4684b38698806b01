//! Exchanges through the state, with an issuer played by a key of our own.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_certs::RootHash;
use outrigger_certs::jwt::TokenSigner;
use outrigger_mesh::{SpiffeId, TrustDomain};
use outrigger_wire::rpc::{ExchangeRequest, RpcError, RpcErrorKind};
use serde_json::{Value, json};

use super::{Keys, TokenService, now};
use crate::audit::Author;
use crate::spec::Document;
use crate::state::{State, Write};
use crate::store::{EmbeddedStore, Expect};
use crate::testing::{Nobody, object, service};

/// `web` takes tokens of `https://i` for `shop`; `cart` and `prices` want exchanged ones.
struct Shop {
    state: Arc<State>,
    service: TokenService,
    login: TokenSigner,
    _folder: tempfile::TempDir,
}

impl Shop {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, nobody) = (Arc::new(EmbeddedStore::open(folder.path()).await.unwrap()), Arc::new(Nobody));
        let domain = TrustDomain::new("mesh.local").unwrap();
        let state =
            State::open(store.clone(), domain.clone(), RootHash::of(b"root"), nobody.clone()).await.unwrap();
        let keys = Arc::new(Keys::open(store, nobody, domain).await.unwrap());
        let (login, _) = TokenSigner::generate().unwrap();
        let jwks = crate::jwks::to_json(&[login.key().clone()]).to_string();
        let issuers = format!(
            "issuers: [{{name: login, issuer: \"https://i\", audiences: [shop], jwks: {{inline: '{jwks}'}}}}]"
        );
        let policy = |name: &str, rest: &str| {
            object(&format!(
                "{{apiVersion: outrigger.dev/v1alpha1, kind: TokenPolicy, metadata: {{name: {name}, namespace: shop}}, \
                 spec: {{targetRefs: [{{kind: MeshService, name: {name}}}], {rest}}}}}"
            ))
        };
        let shop = Self { service: TokenService::new(state.clone(), keys), state, login, _folder: folder };
        for name in ["web", "cart", "prices", "plain", "tail"] {
            shop.put(service(name, "ports: [{port: 80}]")).await;
        }
        shop.put(policy("web", &issuers)).await;
        shop.put(policy(
            "cart",
            "propagation: exchange, exchange: {scopes: [read, write], claims: [groups]}",
        ))
        .await;
        shop.put(policy("prices", "propagation: exchange, exchange: {scopes: [read]}")).await;
        shop.put(policy("tail", "propagation: exchange")).await;
        shop
    }

    async fn put(&self, object: crate::spec::Object) {
        let write = Write::Put { document: Document::made(object), expect: Expect::Anything };
        self.state.apply(vec![write], &Author::new("tester", "127.0.0.1:1"), false).await.unwrap();
    }

    fn token(&self, more: &Value) -> String {
        let mut claims = json!({
            "iss": "https://i", "aud": "shop", "sub": "ada", "jti": "first", "iat": now(), "exp": now() + 3_600,
            "scope": "read write admin", "groups": ["a"], "email": "ada@example", "act": {"sub": "made up"},
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.login.sign(claims.to_string().as_bytes()).unwrap().to_string()
    }

    fn exchange(&self, caller: &str, token: &str, service: &str) -> Result<(String, Value), RpcError> {
        let caller: SpiffeId = format!("spiffe://mesh.local/ns/shop/sa/{caller}").parse().unwrap();
        let service = format!("shop/{service}").parse().unwrap();
        let request = ExchangeRequest { token: token.to_owned().into(), service };
        let reply = self.service.exchange(&caller, "127.0.0.1:1".parse().unwrap(), &request)?;
        let claims = URL_SAFE_NO_PAD.decode(reply.token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["exp"], reply.expires);
        Ok((reply.token.to_string(), claims))
    }

    fn refused(&self, caller: &str, token: &str, service: &str) -> (RpcErrorKind, String) {
        let error = self.exchange(caller, token, service).unwrap_err();
        (error.kind, error.message)
    }
}

#[tokio::test]
async fn a_token_is_narrowed_and_says_who_called_whom() {
    let shop = Shop::new().await;
    let (token, claims) = shop.exchange("web", &shop.token(&json!({})), "cart").unwrap();
    let web = "spiffe://mesh.local/ns/shop/sa/web";
    assert_eq!(claims["iss"], "spiffe://mesh.local");
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("ada"), &json!("shop/cart")));
    assert_eq!(claims["scope"], "read write");
    assert_eq!(claims["act"], json!({"sub": web}), "what another issuer says of that ends here");
    assert_eq!(claims["origin"]["jti"], "first");
    assert_eq!(claims["groups"], json!(["a"]));
    assert!(claims.get("email").is_none());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    // A second hop: the token of the mesh is the subject now.
    let (second, next) = shop.exchange("cart", &token, "prices").unwrap();
    assert_eq!(next["act"], json!({"sub": "spiffe://mesh.local/ns/shop/sa/cart", "act": {"sub": web}}));
    assert_eq!((&next["scope"], &next["aud"]), (&json!("read"), &json!("shop/prices")));
    assert_eq!(next["origin"], claims["origin"]);
    assert!(next["jti"] != claims["jti"] && next.get("groups").is_none());
    assert!(next["exp"].as_u64() <= claims["exp"].as_u64(), "no chain lives longer than its beginning");
    let (_, third) = shop.exchange("prices", &second, "tail").unwrap();
    assert_eq!(third["act"]["act"]["act"], json!({"sub": web}));
    // It ends with the one that it is exchanged for.
    let (_, short) = shop.exchange("web", &shop.token(&json!({"exp": now() + 60})), "cart").unwrap();
    assert!(short["exp"].as_u64().unwrap() <= now() + 60);
}

#[tokio::test]
async fn nothing_is_exchanged_that_was_not_meant_for_the_caller_or_is_not_wanted() {
    let shop = Shop::new().await;
    let good = shop.token(&json!({}));
    let (of_cart, _) = shop.exchange("web", &good, "cart").unwrap();
    let denied = |caller: &str, token: &str, service: &str| {
        let (kind, why) = shop.refused(caller, token, service);
        assert_eq!(kind, RpcErrorKind::Denied, "{caller} {service}: {why}");
        assert!(!token.split('.').any(|part| part.len() > 8 && why.contains(part)), "{why}");
        why
    };
    assert!(denied("web", &good, "plain").contains("wants no exchanged tokens"));
    assert_eq!(shop.refused("web", &good, "nowhere").0, RpcErrorKind::NotFound);
    // Stolen: the token of another's caller, a token of the mesh for another, and one by a workload that serves nothing.
    denied("cart", &good, "prices");
    denied("web", &of_cart, "prices");
    denied("prices", &of_cart, "tail");
    denied("thief", &good, "cart");
    denied("plain", &good, "cart");
    for bad in [
        json!({"aud": "other"}),
        json!({"iss": "https://j"}),
        json!({"iss": "spiffe://mesh.local", "aud": "shop/cart"}),
        json!({"exp": now() - 100, "iat": now() - 200}),
        json!({"exp": now() - 30, "iat": now() - 200}),
        json!({"sub": null}),
        json!({"exp": null}),
    ] {
        denied("web", &shop.token(&bad), "cart");
    }
    for bad in ["", "x", "a.b.c", &good[..good.len() - 4], &format!("{good}="), &"a".repeat(70_000)] {
        denied("web", bad, "cart");
    }
}

#[tokio::test]
async fn what_is_revoked_by_its_first_jti_is_not_exchanged_at_any_hop() {
    let shop = Shop::new().await;
    let good = shop.token(&json!({}));
    let (of_cart, _) = shop.exchange("web", &good, "cart").unwrap();
    shop.put(object(
        "{apiVersion: outrigger.dev/v1alpha1, kind: Denylist, metadata: {name: gone, namespace: shop}, \
         spec: {tokens: [{issuer: \"https://i\", jti: first}]}}",
    ))
    .await;
    assert!(shop.refused("web", &good, "cart").1.contains("revoked"));
    assert!(shop.refused("cart", &of_cart, "prices").1.contains("revoked"));
    assert!(shop.exchange("web", &shop.token(&json!({"jti": "second"})), "cart").is_ok());
}

#[tokio::test]
async fn a_chain_is_bounded_and_so_is_what_one_identity_may_ask() {
    let shop = Shop::new().await;
    let (mut token, _) = shop.exchange("web", &shop.token(&json!({})), "tail").unwrap();
    let mut hops = 1;
    // A service that calls itself.
    let why = loop {
        match shop.exchange("tail", &token, "tail") {
            Ok((next, _)) => (token, hops) = (next, hops + 1),
            Err(error) => break error.message,
        }
    };
    assert!(why.contains("chain") && hops == 6, "{hops}: {why}");
    let many = (0..2_000).map(|_| shop.exchange("web", "x", "cart").unwrap_err().kind);
    let exhausted = many.filter(|kind| *kind == RpcErrorKind::Exhausted).count();
    assert!((500..1_500).contains(&exhausted), "{exhausted}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(shop.exchange("web", &shop.token(&json!({})), "cart").is_ok(), "time gives it back");
    assert!(shop.service.metrics().contains("outcome=\"issued\""));
}
