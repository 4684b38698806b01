//! Limits, answers of the route's own, and changes to requests and responses.

use std::time::Duration;

use http::Method;
use outrigger_mesh::{
    Backend, BreakerMode, DirectResponse, Fallback, Filters, HeaderChanges, PathChange, RateKey, RateLimit,
    Redirect, Rewrite, Route,
};
use outrigger_testkit::{Behaviour, Client, request};

use crate::support::{open_service, plain};
use crate::{Shop, ask, backend, cart, prefix, route, who, with};

fn filtered(path: &str, filters: Filters) -> Route {
    let name = format!("at{path}");
    Route { filters, ..route(&name, vec![prefix(path)], vec![backend("shop/cart", Some("v1"), 1)]) }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(http::HeaderName, http::HeaderValue)> {
    all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn headers_are_removed_set_and_added_by_the_rule_and_then_by_the_backend() {
    let request = HeaderChanges {
        remove: vec!["x-secret".parse().unwrap()],
        set: pairs(&[("x-by", "rule"), ("x-set", "rule")]),
        add: pairs(&[("x-add", "rule")]),
    };
    let response = HeaderChanges { set: pairs(&[("x-from", "rule")]), ..HeaderChanges::default() };
    let of_backend = HeaderChanges { set: pairs(&[("x-by", "backend")]), ..HeaderChanges::default() };
    let back = HeaderChanges {
        remove: vec!["x-origin".parse().unwrap()],
        set: pairs(&[("x-from", "backend"), ("x-backend", "1")]),
        ..HeaderChanges::default()
    };
    let mut filtered = filtered("/a", Filters { request, response, ..Filters::default() });
    filtered.backends =
        vec![Backend { request: of_backend, response: back, ..backend("shop/cart", Some("v1"), 1) }];
    let shop = Shop::new(cart(vec![filtered])).await;
    shop.v1.behave(Behaviour {
        headers: pairs(&[("x-origin", "1"), ("x-from", "origin")]),
        ..Behaviour::default()
    });
    let reply = shop.ask("/a", &[("x-secret", "1"), ("x-set", "mine"), ("x-add", "mine")]).await;
    let seen = shop.v1.seen().pop().unwrap();
    let all =
        |name: &str| -> Vec<_> { seen.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
    assert_eq!(
        (seen.header("x-secret"), seen.header("x-by"), seen.header("x-set")),
        (None, Some("backend"), Some("rule"))
    );
    assert_eq!(all("x-add"), ["mine", "rule"]);
    let told = (reply.header("x-from"), reply.header("x-backend"), reply.header("x-origin"));
    assert_eq!(told, (Some("rule"), Some("1"), None));
}

#[tokio::test]
async fn host_and_path_are_rewritten_and_the_query_stays() {
    let rewrite = |path| Rewrite { host: Some("inside.example".parse().unwrap()), path: Some(path) };
    let with = |path| Filters { rewrite: Some(rewrite(path)), ..Filters::default() };
    let shop = Shop::new(cart(vec![
        filtered("/old", with(PathChange::Prefix("/new".into()))),
        filtered("/full", with(PathChange::Full("/whole".into()))),
    ]))
    .await;
    for (path, expected) in [("/old/x?a=1", "/new/x?a=1"), ("/full/x?b=2", "/whole?b=2"), ("/old", "/new")] {
        for h2 in [false, true] {
            let at = shop.client.outbound;
            let mut client = if h2 { Client::h2(at).await } else { Client::h1(at).await };
            assert_eq!(who(&client.get("cart", path).await.unwrap()), "v1");
            let seen = shop.v1.seen().pop().unwrap();
            assert!(seen.target.ends_with(expected), "{path}: {}", seen.target);
            assert_eq!(seen.header("host"), Some("inside.example"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_redirect_says_scheme_host_port_and_path_as_the_gateway_api_says() {
    let redirect = Redirect { https: None, host: None, path: None, port: None, status: 302 };
    let to = |redirect| Filters { redirect: Some(redirect), ..Filters::default() };
    let number = |n| outrigger_mesh::PortNumber::new(n);
    let host = Some("other.example".parse().unwrap());
    let path = Some(PathChange::Prefix("/z".into()));
    let shop = Shop::new(cart(vec![
        filtered("/host", to(Redirect { host, ..redirect.clone() })),
        filtered("/https", to(Redirect { https: Some(true), status: 301, ..redirect.clone() })),
        filtered("/port", to(Redirect { port: number(8_443), https: Some(true), ..redirect.clone() })),
        filtered("/path", to(Redirect { path, status: 307, ..redirect })),
    ]))
    .await;
    for (path, status, expected) in [
        ("/host/a?q=1", 302, "http://other.example/host/a?q=1"),
        ("/https", 301, "https://cart/https"),
        ("/port", 302, "https://cart:8443/port"),
        ("/path/b?q=2", 307, "http://cart/z/b?q=2"),
    ] {
        let reply = shop.ask(path, &[]).await;
        assert_eq!((reply.status.as_u16(), reply.header("location")), (status, Some(expected)));
    }
    assert_eq!(shop.v1.requests(), 0);
}

#[tokio::test]
async fn a_direct_response_is_the_answer_and_needs_no_backend() {
    let direct = DirectResponse {
        status: 503,
        headers: pairs(&[("x-why", "maintenance"), ("content-length", "999")]),
        body: b"back soon".as_slice().into(),
    };
    let mut route = filtered("/direct", Filters { direct: Some(direct), ..Filters::default() });
    route.backends.clear();
    let shop = Shop::new(cart(vec![route])).await;
    let reply = shop.ask("/direct", &[]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text().as_str(), reply.header("x-why")),
        (503, "back soon", Some("maintenance"))
    );
}

#[tokio::test]
async fn a_limit_of_a_route_is_not_filled_again_by_a_push_and_a_body_is_as_long_as_the_route_takes() {
    let limit = RateLimit {
        name: "few".into(),
        matches: vec![],
        key: RateKey::Header("x-key".parse().unwrap()),
        requests: 2,
        per: Duration::from_secs(600),
        burst: 2,
    };
    let limited = || filtered("/few", Filters { rate_limits: vec![limit.clone()], ..Filters::default() });
    let short = || filtered("/short", Filters { max_body: Some(10), ..Filters::default() });
    let shop = Shop::new(cart(vec![limited(), short()])).await;
    for (key, expected) in [("a", "v1"), ("a", "v1"), ("a", "rate_limited"), ("b", "v1")] {
        assert_eq!(shop.who("/few", &[("x-key", key)]).await, expected);
    }
    shop.change(cart(vec![limited(), short()]));
    let refused = shop.ask("/few", &[("x-key", "a")]).await;
    assert_eq!((refused.status.as_u16(), who(&refused).as_str()), (429, "rate_limited"));
    assert!(refused.header("retry-after").is_some());

    let post = |body: &'static str| request(Method::POST, "cart", "/short", body.into());
    assert_eq!(ask(shop.client.outbound, post("0123456789")).await.status, 200);
    let long = ask(shop.client.outbound, post("0123456789a")).await;
    assert_eq!((long.status.as_u16(), who(&long).as_str()), (413, "payload_too_large"));
}

#[tokio::test]
async fn a_service_that_stands_in_is_reached_through_all_filters_of_its_route() {
    let direct = DirectResponse { status: 203, headers: vec![], body: b"instead".as_slice().into() };
    let to_few = RateLimit {
        name: "few".into(),
        matches: vec![],
        key: RateKey::Header("x-key".parse().unwrap()),
        requests: 1,
        per: Duration::from_secs(600),
        burst: 1,
    };
    let shop = Shop::new(cart(vec![
        filtered("/direct", Filters { direct: Some(direct), ..Filters::default() }),
        filtered("/few", Filters { rate_limits: vec![to_few], ..Filters::default() }),
        filtered("/short", Filters { max_body: Some(10), ..Filters::default() }),
    ]))
    .await;
    let mut primary = open_service("shop/primary");
    primary.policy.service_breaker.mode = BreakerMode::ForceOpen;
    primary.policy.service_breaker.fallback = Some(Fallback::Service("shop/cart".parse().unwrap()));
    shop.client.knows(primary, [plain("shop/primary", "p", shop.v2.addr())]);
    let mut client = Client::h1(shop.client.outbound).await;
    let answered = client.get("primary", "/direct").await.unwrap();
    assert_eq!((answered.status.as_u16(), answered.text().as_str()), (203, "instead"));
    for expected in ["v1", "rate_limited"] {
        let few = with(request(Method::GET, "primary", "/few", "".into()), &[("x-key", "a")]);
        assert_eq!(who(&client.send(few).await.unwrap()), expected);
    }
    let long = request(Method::POST, "primary", "/short", "0123456789a".into());
    assert_eq!(who(&ask(shop.client.outbound, long).await), "payload_too_large");
}
