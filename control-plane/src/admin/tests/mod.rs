//! The door: every role at every route, and those who are nobody. What the audit log says of it, client certificates, what
//! is explained to whom, and what routes refer to have files of their own.

mod audit;
mod cases;
mod clients;
mod explain;
mod house;
mod references;
mod tap;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode, header};
use outrigger_certs::{ApiToken, LeafLifetime, RootHash};
use outrigger_mesh::{Label, SpiffeId, TrustDomain};
use tower::ServiceExt;

use super::*;
use crate::audit::Author;
use crate::ca;
use crate::compile::ResourceChange;
use crate::push::Hub;
use crate::rollout;
use crate::state::Publish;
use crate::store::{EmbeddedStore, Store};
use crate::users::{Grant, Role, book};

use cases::{Case, OBJECT, ROLLOUT, cases};
pub(super) use house::House;
use house::Told;

fn root() -> RootHash {
    RootHash::of(b"root")
}

fn bearer(token: &ApiToken) -> String {
    format!("Bearer {}", token.expose().as_str())
}

const HOUR: Duration = Duration::from_secs(3600);

fn service(namespace: &str) -> String {
    let metadata = serde_json::json!({ "name": "cart", "namespace": namespace });
    serde_json::json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService", "metadata": metadata, "spec": {} })
        .to_string()
}

/// A policy for the tokens of an issuer whose keys are there.
fn policy(jwks: &str) -> String {
    let jwks: Json = serde_json::from_str(jwks).unwrap();
    let issuer = serde_json::json!({
        "name": "people", "issuer": "https://login.example", "audiences": ["cart"], "jwks": jwks
    });
    let spec =
        serde_json::json!({ "targetRefs": [{ "kind": "MeshService", "name": "cart" }], "issuers": [issuer] });
    let metadata = serde_json::json!({ "name": "users", "namespace": "shop" });
    serde_json::json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "TokenPolicy", "metadata": metadata, "spec": spec })
        .to_string()
}

#[test]
fn every_route_has_a_case() {
    let have: Vec<_> = cases().iter().map(|case| (case.0, case.1.clone())).collect();
    for (path, method, _) in routes::ROUTES {
        assert!(have.contains(&(*path, method.clone())), "{method} {path} is in no case: add one");
    }
    assert_eq!(have.len(), routes::ROUTES.len(), "and no case is for a route that is gone");
}

/// The router can not be asked what it has, so its text is: what stands there is in the table, and the other way round.
#[test]
fn every_route_of_the_router_has_a_permission() {
    let text = include_str!("../mod.rs");
    let router = &text[text.find("pub fn router").unwrap()..];
    let mut found = std::collections::BTreeSet::new();
    for route in router.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        let handlers = &route[route.find("\",").unwrap()..];
        let handlers = &handlers[..handlers.find("\n        .").unwrap_or(handlers.len())];
        for method in ["get", "post", "put", "patch", "delete", "head", "options", "any", "on"] {
            if [" ", "."].iter().any(|before| handlers.contains(&format!("{before}{method}("))) {
                found.insert((path.to_owned(), method.to_uppercase()));
            }
        }
    }
    let known =
        routes::ROUTES.iter().map(|(path, method, _)| ((*path).to_owned(), method.to_string())).collect();
    assert_eq!(found, known);
    assert!(!router.contains("nest") && !router.contains("merge"), "they would hide routes");
}

/// Whoever adds a route must write down whose it is, or nobody gets through; then the test above asks for a case.
#[tokio::test]
async fn a_route_that_nobody_wrote_a_permission_for_is_closed_to_everybody() {
    let house = House::with(Door::local()).await;
    let api = house.api.clone();
    let router = Router::new()
        .route("/v1/new/thing", get(|| async { "let in" }))
        .layer(middleware::from_fn_with_state(api.clone(), door::door))
        .with_state(api);
    let admin = house.token("admin", HOUR).await;
    let from: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    let request = Request::builder().uri("/v1/new/thing").header(header::AUTHORIZATION, bearer(&admin));
    let request = request.extension(ConnectInfo(from)).body(Body::empty()).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn every_role_gets_through_at_exactly_its_routes_and_nobody_without_proof() {
    let house = House::with(Door::closed()).await;
    for case in cases() {
        let Case(route, method, path, body, least) = &case;
        let expects: &[(&str, &str)] = match *method {
            Method::PUT => &[("if-none-match", "*")],
            Method::PATCH | Method::DELETE if *route == OBJECT => &[("if-match", "*")],
            _ => &[],
        };
        let nobody = house.sends(method, path, expects, body).await;
        // Many tries from one address: some are told to come back, none gets in.
        assert_eq!(matches!(nobody.status, 401 | 429), least.is_some(), "{method} {path}: {}", nobody.text);
        for role in Role::ALL {
            let token = house.token(role.as_str(), HOUR).await;
            let bearer = bearer(&token);
            let headers = [expects, &[("authorization", bearer.as_str())]].concat();
            let told = house.sends(method, path, &headers, body).await;
            let allowed = least.is_none_or(|least| role >= least);
            assert_eq!(
                !matches!(told.status, 401 | 403 | 429),
                allowed,
                "{role} {method} {path}: {}",
                told.text
            );
            assert!(told.status < 500 && told.status != 405, "{role} {method} {path}: {}", told.text);
            if let (false, Some(least)) = (allowed, least) {
                assert_eq!(told.status, 403);
                assert!(told.text.contains(least.as_str()), "it tells which role: {}", told.text);
                assert!(told.text.contains(&format!("yours is {role}")), "{}", told.text);
            }
            if method == Method::GET {
                let head = house.sends(&Method::HEAD, path, &headers, "").await;
                assert_eq!(head.status, told.status, "HEAD is no way around: {path}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_much_is_told_when_to_come_back_and_nobody_else_is() {
    let house = House::with(Door::closed().with_rate(5)).await;
    let [greedy, other] = [house.token("viewer", HOUR).await, house.token("viewer", HOUR).await];
    let mut statuses = vec![];
    for _ in 0..22 {
        statuses.push(house.get("/v1/whoami", &greedy).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 20, "{statuses:?}");
    let refused = house.get("/v1/whoami", &greedy).await;
    assert!(refused.status == 429 && refused.text.contains("come back in 1s"), "{}", refused.text);
    assert_eq!(house.get("/v1/whoami", &other).await.status, 200);
    assert_eq!(house.get("/healthz", &greedy).await.status, 200, "what is for everybody is not counted");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(house.get("/v1/whoami", &greedy).await.status, 200);
    let metrics = house.get("/metrics", &other).await.text;
    assert!(metrics.contains("outrigger_control_admin_limited_total 3\n"), "{metrics}");
}

#[tokio::test]
async fn other_methods_and_other_paths_are_no_way_in() {
    let house = House::with(Door::closed()).await;
    let admin = bearer(&house.token("admin", HOUR).await);
    for (method, path, with_proof) in [
        (Method::DELETE, "/v1/apply", 405),
        (Method::PATCH, "/v1/services/shop/cart", 428),
        (Method::PATCH, "/v1/services", 405),
        (Method::OPTIONS, "/v1/services", 405),
        (Method::TRACE, "/v1/tokens", 405),
        (Method::POST, "/", 405),
        (Method::GET, "/v1", 404),
        (Method::GET, "//v1/tokens", 404),
        (Method::GET, "/debug/pprof", 404),
        (Method::POST, "/healthz", 405),
    ] {
        // A method that carries a body says that it is JSON, or the guard refuses it before.
        let json = [("content-type", "application/json")];
        assert!(matches!(house.sends(&method, path, &json, "").await.status, 401 | 429), "{method} {path}");
        let headers = [json[0], ("authorization", admin.as_str())];
        let told = house.sends(&method, path, &headers, "").await;
        assert_eq!(told.status, with_proof, "{method} {path}: {}", told.text);
    }
}

#[tokio::test]
async fn what_is_no_good_token_gets_nobody_in_also_where_being_near_is_enough() {
    for local in [true, false] {
        let house = House::with(if local { Door::local() } else { Door::closed() }).await;
        let good = house.token("admin", HOUR).await;
        let expired = bearer(&house.token("admin", Duration::ZERO).await);
        let revoked = house.token("admin", HOUR).await;
        book::revoke(house.api.state.store(), &revoked.id(), &Author::system("a test")).await.unwrap();
        let other_mesh = bearer(&ApiToken::generate(RootHash::of(b"another root")).unwrap());
        let (good, revoked) = (bearer(&good), bearer(&revoked));
        // Of a good token, one character of its secret changed.
        let mut forged = good.clone().into_bytes();
        forged[40] = if forged[40] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        let (half, raw) = (&good[..good.len() - 9], good.trim_start_matches("Bearer "));
        let (basic, long) = (format!("Basic {raw}"), format!("Bearer oat1.{}", "A".repeat(6000)));
        let both = format!("{good}, {good}");
        let tries: &[(&str, &[&str])] = &[
            ("no such token", &[&other_mesh]),
            ("another secret", &[&forged]),
            ("expired", &[&expired]),
            ("revoked", &[&revoked]),
            ("half", &[half]),
            ("without its scheme", &[raw]),
            ("another scheme", &[&basic]),
            ("nothing", &[""]),
            ("only a scheme", &["Bearer"]),
            ("an empty token", &["Bearer "]),
            ("too long", &[&long]),
            ("two lines, the first good", &[&good, &forged]),
            ("two lines, both good", &[&good, &good]),
            ("two in one line", &[&both]),
            ("a join token's form", &["Bearer ojt1.AAAA"]),
        ];
        for (what, values) in tries {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            let told = house.sends(&Method::GET, "/v1/services", &headers, "").await;
            assert!(
                matches!(told.status, 401 | 429),
                "{what} (local: {local}): {} {}",
                told.status,
                told.text
            );
            assert!(
                !told.text.contains("oat1.A") && !told.text.contains(&raw[..40]),
                "{what}: {}",
                told.text
            );
        }
        for (header, value) in [("cookie", raw), ("x-api-key", raw), ("proxy-authorization", &good)] {
            let told = house.sends(&Method::GET, "/v1/tokens", &[(header, value)], "").await;
            assert_eq!(told.status == 200, local, "{header} proves nothing");
        }
        let told = house.sends(&Method::GET, &format!("/v1/tokens?access_token={raw}"), &[], "").await;
        assert_eq!(told.status == 200, local, "a query proves nothing");
        // A good token is taken in spite of all the bad ones from the same address.
        let told = house.sends(&Method::GET, "/v1/tokens", &[("authorization", &good)], "").await;
        assert_eq!(told.status, 200, "{}", told.text);
        assert!(!told.text.contains("hash") && !told.text.contains("oat1."), "{}", told.text);
        let audit = house.audit().await;
        assert!(
            audit.contains("the token was revoked") && audit.contains("the token has expired"),
            "{audit}"
        );
        assert!(!audit.contains("oat1."), "{audit}");
    }
}

#[tokio::test]
async fn who_is_bound_to_a_namespace_neither_writes_nor_sees_another() {
    let house = House::with(Door::closed()).await;
    let (editor, operator) = (house.token("editor:shop", HOUR).await, house.token("operator", HOUR).await);
    let bearers = (bearer(&editor), bearer(&operator));
    let both = format!("{{\"items\": [{}, {}]}}", service("shop"), service("bank"));
    let apply = |bearer: String, body: String| {
        let house = &house;
        async move { house.sends(&Method::POST, "/v1/apply", &[("authorization", &bearer)], &body).await }
    };
    let told = apply(bearers.0.clone(), both.clone()).await;
    assert_eq!(told.status, 403, "one foreign object spoils the whole: {}", told.text);
    assert!(
        told.text.contains("in namespace bank needs the role editor there; yours is editor:shop"),
        "{}",
        told.text
    );
    assert_eq!(house.get("/v1/services", &operator).await.json()["items"].as_array().unwrap().len(), 0);
    assert_eq!(apply(bearers.1, both).await.status, 200);

    for (path, status) in [
        ("/v1/services/shop/cart", 200),
        ("/v1/services/bank/cart", 403),
        ("/v1/services/bank/nothing", 403),
        ("/v1/services/b%61nk/cart", 403),
        ("/v1/services/bank", 403),
        ("/v1/services/shop", 200),
    ] {
        assert_eq!(house.get(path, &editor).await.status, status, "{path}");
    }
    for path in [
        "/v1/services",
        "/v1/proxies",
        "/v1/proxies/x",
        "/v1/proxies/x/breakers",
        "/v1/breakers",
        "/v1/stats",
        "/v1/issuers",
        "/v1/revisions",
        "/v1/revisions/1",
        "/v1/revisions/0/diff/now",
    ] {
        let told = house.get(path, &editor).await;
        assert!(told.status == 200 && told.text.contains("shop"), "{path}: {}", told.text);
        assert!(!told.text.contains("bank"), "{path}: {}", told.text);
        assert!(house.get(path, &operator).await.text.contains("bank"), "{path}");
    }
    for (method, expects) in [(Method::PUT, ("if-match", "*")), (Method::DELETE, ("if-match", "*"))] {
        let headers = [expects, ("authorization", bearers.0.as_str())];
        let body = if method == Method::PUT { service("bank") } else { String::new() };
        let told = house.sends(&method, "/v1/services/bank/cart", &headers, &body).await;
        assert_eq!(told.status, 403, "{method}: {}", told.text);
        let told = house.sends(&method, "/v1/services/bank/cart?dryRun=true", &headers, &body).await;
        assert_eq!(told.status, 403, "{method}, dry: {}", told.text);
    }
    // What makes the control plane read its own files, or ask where only it may, is not of any namespace.
    for (jwks, status) in [
        (r#"{"file": "/etc/hostname"}"#, 403),
        (r#"{"uri": "https://10.0.0.1/keys", "allowPrivate": true}"#, 403),
        (r#"{"uri": "https://login.example/keys"}"#, 200),
    ] {
        let policy = policy(jwks);
        let told = apply(bearers.0.clone(), format!("{{\"items\": [{policy}]}}")).await;
        assert_eq!(told.status, status, "{jwks}: {}", told.text);
        let headers = [("if-match", "*"), ("authorization", bearers.0.as_str())];
        let told = house.sends(&Method::PUT, "/v1/tokenpolicies/shop/users", &headers, &policy).await;
        assert_eq!(told.status == 403, status == 403, "{jwks}: {}", told.text);
    }
    let audit = house.audit().await;
    assert!(audit.contains("editor:shop may not: services/bank/cart"), "{audit}");
    assert!(audit.contains(&format!("token test ({})", editor.id())), "{audit}");
}

#[tokio::test]
async fn a_token_is_told_once_works_until_it_is_revoked_and_shows_its_last_use() {
    let house = House::with(Door::closed()).await;
    let admin = house.token("admin", HOUR).await;
    let authorized = bearer(&admin);
    let headers = [("authorization", authorized.as_str()), ("x-outrigger-why", "for the pipeline")];
    let wanted = r#"{"name": "pipeline", "role": "editor", "namespaces": ["shop"], "ttl": "1h"}"#;
    let made = house.sends(&Method::POST, "/v1/tokens", &headers, wanted).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let (text, id) =
        (made.json()["token"].as_str().unwrap().to_owned(), made.json()["id"].as_str().unwrap().to_owned());
    let token: ApiToken = text.parse().unwrap();
    let who = house.get("/v1/whoami", &token).await.json();
    assert_eq!((who["role"].as_str(), who["namespaces"][0].as_str()), (Some("editor"), Some("shop")));
    let listed = house.get("/v1/tokens", &admin).await;
    assert!(!listed.text.contains(&text[5..]), "{}", listed.text);
    let one = listed.json()["items"].as_array().unwrap().iter().find(|t| t["id"] == *id).cloned().unwrap();
    assert!(one["lastUsed"].is_string() && one["state"] == "live", "{one}");

    let told = house.sends(&Method::DELETE, &format!("/v1/tokens/{id}"), &headers, "").await;
    assert_eq!(told.status, 200, "{}", told.text);
    let refused = house.get("/v1/whoami", &token).await;
    assert!(refused.status == 401 && refused.text.contains("revoked"), "{}", refused.text);
    // Who sends a token where its id belongs does not get it back, nor into the audit log.
    let told = house.sends(&Method::DELETE, &format!("/v1/tokens/{text}"), &headers, "").await;
    assert!(told.status == 404 && !told.text.contains("oat1."), "{}", told.text);
    let metrics = house.get("/metrics", &admin).await.text;
    assert!(
        metrics.contains("outrigger_control_admin_refused_total{reason=\"unauthenticated\"} 1\n"),
        "{metrics}"
    );
    assert!(!metrics.contains("oat1.") && !metrics.contains(&id), "{metrics}");
    let audit = house.audit().await;
    assert!(audit.contains("for the pipeline") && audit.contains("create-api-token"), "{audit}");
    assert!(audit.contains("revoke-api-token") && !audit.contains("oat1."), "{audit}");

    for (wrong, hint) in [
        (r#"{"name": "x", "role": "root"}"#, "viewer, editor, operator or admin"),
        (r#"{"name": "x", "role": "admin", "namespaces": ["shop"]}"#, "of the whole mesh"),
        (r#"{"name": "x", "role": "editor", "namespaces": []}"#, "in no namespace"),
        (r#"{"name": "x", "role": "editor", "ttl": "9000h"}"#, "a year"),
        (r#"{"name": "x", "role": "editor", "nmespaces": ["shop"]}"#, "unknown field"),
    ] {
        let told = house.sends(&Method::POST, "/v1/tokens", &headers, wrong).await;
        assert!(told.status == 400 && told.text.contains(hint), "{wrong}: {}", told.text);
    }
}

#[tokio::test]
async fn a_rollout_tells_where_it_is_and_obeys_only_what_can_be_done() {
    let house = House::with(Door::closed()).await;
    let admin = house.token("admin", HOUR).await;
    let bearer = bearer(&admin);
    let headers = [("authorization", bearer.as_str())];
    let document = crate::spec::read(&service("bank"), "").unwrap().remove(0);
    let write = crate::state::Write::Put { document, expect: crate::store::Expect::Anything };
    house.api.state.apply(vec![write], &Author::system("a test"), false).await.unwrap();
    house.roll_out().await;
    let say = async |verb: &str, body: &str| {
        house.sends(&Method::POST, &format!("/v1/rollouts/bank/cart/{verb}"), &headers, body).await
    };
    let paused = say("pause", "{}").await;
    assert_eq!(
        (paused.status, &paused.json()["status"]["phase"]),
        (200, &"Paused".into()),
        "{}",
        paused.text
    );
    let told = house.get("/v1/rollouts/bank/cart", &admin).await.json();
    assert_eq!(told["status"]["weights"], serde_json::json!([1.0, 10.0, 50.0, 100.0]), "{told}");
    assert_eq!(house.get("/v1/rollouts", &admin).await.json()["items"][0]["status"]["phase"], "Paused");
    for (verb, body, status, says) in [
        ("pause", "{}", 409, "paused already"),
        ("promote", "{\"step\": 3}", 409, "gone on meanwhile"),
        ("promote", "{\"step\": 0}", 400, "count from 1"),
        ("promote", "{}", 409, "no ready endpoint"),
        ("pause", "{\"full\": true}", 400, "promote only"),
        ("hurry", "{}", 404, "promote, pause, resume and abort"),
        ("abort", "{}", 200, "RollingBack"),
        ("resume", "{}", 409, "RollingBack already"),
    ] {
        let told = say(verb, body).await;
        assert_eq!(told.status, status, "{verb} {body}: {}", told.text);
        assert!(told.text.contains(says), "{verb} {body}: {}", told.text);
    }
    let absent = house.sends(&Method::POST, "/v1/rollouts/bank/none/abort", &headers, "{}").await;
    assert_eq!(absent.status, 404, "{}", absent.text);
}
