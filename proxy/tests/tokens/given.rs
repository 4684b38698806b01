//! What the application gets of a token, and which requests need one.

use http::{HeaderMap, HeaderName, Method, header};
use outrigger_mesh::{
    ClaimHeader, PathMatch, Protection, RateKey, RateLimit, Resource, RouteMatch, ToApplication, TokenNeed,
    TokenRule,
};
use outrigger_testkit::{Client, Origin, Reply, request, resources};
use serde_json::json;

use crate::mint::{ISS, Mint, claims};
use crate::support::{Mesh, Sidecar};
use crate::{issuer, login, pair, rules, want};

async fn ask(client: &Sidecar, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut asked = request(Method::GET, "cart", path, "".into());
    for (name, value) in headers {
        asked.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    Client::h1(client.outbound).await.send(asked).await.unwrap()
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn claims_become_headers_that_nobody_else_can_set() {
    let (mint, mesh, origin) = (Mint::new(), Mesh::new(), Origin::start().await);
    let header = |claim: &str, header: &'static str| ClaimHeader {
        claim: claim.parse().unwrap(),
        header: HeaderName::from_static(header),
    };
    let mut wanted = rules(TokenNeed::Optional);
    wanted.claim_headers =
        vec![header("sub", "x-user"), header("groups", "x-groups"), header("odd", "x-odd")];
    let (client, server) = pair(&mesh, origin.addr(), Some(wanted));
    server.set(issuer(login(), ISS, mint.keys()));
    let bearer = format!("Bearer {}", mint.token(&claims(json!({"odd": "a\r\nx-groups: root"}))));
    let forged = [("x-user", "root"), ("x_user", "root"), ("X-Groups", "root"), ("x-odd", "root")];
    let with_token = [&forged[..], &[("authorization", bearer.as_str())]].concat();
    assert_eq!(ask(&client, "/", &with_token).await.status, 200);
    let seen = origin.seen().pop().unwrap().headers;
    assert_eq!(values(&seen, "x-user"), ["ada"]);
    assert_eq!(values(&seen, "x-groups"), ["admin", "ops"]);
    assert!(values(&seen, "x_user").is_empty() && values(&seen, "x-odd").is_empty());
    assert_eq!(values(&seen, "authorization"), [bearer.as_str()], "kept, as is the default");
    assert_eq!(ask(&client, "/", &forged).await.status, 200);
    let seen = origin.seen().pop().unwrap().headers;
    assert!(
        ["x-user", "x_user", "x-groups", "x-odd"].iter().all(|n| values(&seen, n).is_empty()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_token_is_kept_stripped_or_replaced() {
    let (mint, mesh, origin) = (Mint::new(), Mesh::new(), Origin::start().await);
    let (client, server) = pair(&mesh, origin.addr(), None);
    server.set(issuer(login(), ISS, mint.keys()));
    let token = mint.token(&claims(json!({})));
    let bearer = format!("Bearer {token}");
    let name = HeaderName::from_static("x-token-claims");
    for (given, kept, replaced) in [
        (ToApplication::Keep, true, false),
        (ToApplication::Strip, false, false),
        (ToApplication::Replace(name.clone()), false, true),
    ] {
        let mut wanted = rules(TokenNeed::Required);
        wanted.to_application = given;
        want(&server, "shop/cart", Some(wanted));
        let asked = [("authorization", bearer.as_str()), ("x-token-claims", "forged")];
        assert_eq!(ask(&client, "/", &asked).await.status, 200);
        let seen = origin.seen().pop().unwrap().headers;
        assert_eq!(seen.contains_key(header::AUTHORIZATION), kept);
        let payload = token.split('.').nth(1).unwrap().to_owned();
        if replaced && !kept {
            assert_eq!(values(&seen, "x-token-claims"), [payload]);
        }
    }
}

#[tokio::test]
async fn the_first_rule_for_a_request_decides() {
    let (mint, mesh, origin) = (Mint::new(), Mesh::new(), Origin::start().await);
    let mut wanted = rules(TokenNeed::Required);
    let prefix =
        |path: &str| RouteMatch { path: Some(PathMatch::Prefix(path.into())), ..RouteMatch::default() };
    let rule = |path: &str, need| TokenRule { matches: vec![prefix(path)], need, ..wanted.rules[0].clone() };
    wanted.rules = vec![
        rule("/open", TokenNeed::Nothing),
        rule("/either", TokenNeed::Optional),
        wanted.rules[0].clone(),
    ];
    let (client, server) = pair(&mesh, origin.addr(), Some(wanted));
    server.set(issuer(login(), ISS, mint.keys()));
    let bad = [("authorization", "Bearer a.b.c")];
    for (path, none, wrong) in [
        ("/open/x", 200, 200),
        ("/opened", 401, 401),
        ("/either", 200, 401),
        ("/", 401, 401),
        ("/OPEN", 401, 401),
        ("//open", 200, 200),
        ("/open/../x", 401, 401),
        ("/%6fpen", 200, 200),
    ] {
        assert_eq!(ask(&client, path, &[]).await.status, none, "{path}");
        assert_eq!(ask(&client, path, &bad).await.status, wrong, "{path}");
    }
}

#[tokio::test]
async fn each_user_has_a_rate_limit_of_its_own() {
    let (mint, mesh, origin) = (Mint::new(), Mesh::new(), Origin::start().await);
    let (client, server) = pair(&mesh, origin.addr(), None);
    server.set(issuer(login(), ISS, mint.keys()));
    let limit = RateLimit {
        name: "user".into(),
        matches: vec![],
        key: RateKey::Claim("sub".parse().unwrap()),
        requests: 1,
        per: std::time::Duration::from_secs(600),
        burst: 1,
    };
    let mut inbound =
        resources::inbound(&resources::identity("shop", "cart"), &[&resources::service("shop/cart")]);
    inbound.services[0].tokens = Some(rules(TokenNeed::Required));
    inbound.services[0].protection = Protection { rate_limits: vec![limit], ..Protection::default() };
    server.set(Resource::Inbound(inbound));
    let send = async |sub: &str, jti: &str| {
        let bearer = format!("Bearer {}", mint.token(&claims(json!({"sub": sub, "jti": jti}))));
        ask(&client, "/", &[("authorization", &bearer)]).await.status.as_u16()
    };
    assert_eq!((send("ada", "1").await, send("bob", "2").await), (200, 200));
    assert_eq!((send("ada", "3").await, send("bob", "4").await), (429, 429));
}

#[tokio::test]
async fn a_planted_token_stands_in_no_metric_no_dump_and_no_refusal() {
    let (mint, mesh, origin) = (Mint::new(), Mesh::new(), Origin::start().await);
    let (client, server) = pair(&mesh, origin.addr(), Some(rules(TokenNeed::Required)));
    server.set(issuer(login(), ISS, mint.keys()));
    let marker = "planted-marker-7c1f";
    let good = mint.token(&claims(json!({"sub": marker})));
    let bad = Mint::new().token(&claims(json!({"sub": marker})));
    let mut all = vec![];
    for token in [&good, &bad] {
        let bearer = format!("Bearer {token}");
        let reply = ask(&client, "/", &[("authorization", &bearer), ("accept", "application/json")]).await;
        if reply.status != 200 {
            all.push(format!("{:?}{}", reply.headers, reply.text()));
        }
    }
    for sidecar in [&client, &server] {
        all.extend([sidecar.live.prometheus(), sidecar.registry.dump().to_string()]);
        all.push(sidecar.registry.clusters().to_string());
        all.push(format!("{:?} {:?}", sidecar.live.tokens, sidecar.live.handles));
    }
    let all = all.concat();
    let parts = [&good, &bad].into_iter().flat_map(|t| t.split('.')).chain([marker]);
    for part in parts.filter(|p| p.len() > 20 || *p == marker) {
        assert!(!all.contains(part), "{part}");
    }
    // The search finds what is there.
    assert!(all.contains("outrigger_refusals_total{reason=\"jwt_invalid\",hop=\"server\"} 1"), "{all}");
    let seen = format!("{:?}", origin.seen().pop().unwrap().headers);
    assert!(seen.contains(good.split('.').nth(1).unwrap()), "the application got it");
}
