//! What browsers are told of pages of other origins (Fetch standard, CORS protocol).

use bytes::Bytes;
use http::{Method, Request};
use outrigger_mesh::{Cors, Filters, Route};
use outrigger_testkit::{Reply, RequestBody, request};

use crate::{Shop, ask, backend, cart, prefix, route, who, with};

fn cors(cors: Cors) -> Route {
    let filters = Filters { cors: Some(cors), ..Filters::default() };
    Route { filters, ..route("cors", vec![prefix("/")], vec![backend("shop/cart", Some("v1"), 1)]) }
}

fn preflight(origin: &str) -> Request<RequestBody> {
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-mine"),
    ];
    with(request(Method::OPTIONS, "cart", "/", Bytes::new()), &asked)
}

fn told(reply: &Reply, name: &str) -> Option<String> {
    reply.header(&format!("access-control-{name}")).map(str::to_owned)
}

#[tokio::test]
async fn a_preflight_is_answered_here_and_the_answer_to_the_request_says_who_may_read_it() {
    let allowed = Cors {
        origins: vec!["https://*.shop.example".into()],
        methods: vec!["GET".into(), "PUT".into()],
        headers: vec!["x-mine".into()],
        expose: vec!["x-total".into()],
        max_age: 60,
        ..Cors::default()
    };
    let shop = Shop::new(cart(vec![cors(allowed)])).await;
    let reply = ask(shop.client.outbound, preflight("https://a.shop.example")).await;
    assert_eq!((reply.status.as_u16(), shop.v1.requests()), (204, 0));
    assert_eq!(told(&reply, "allow-origin").as_deref(), Some("https://a.shop.example"));
    assert_eq!(told(&reply, "allow-methods").as_deref(), Some("GET, PUT"));
    assert_eq!(told(&reply, "allow-headers").as_deref(), Some("x-mine"));
    assert_eq!(told(&reply, "max-age").as_deref(), Some("60"));
    assert_eq!(told(&reply, "allow-credentials"), None);

    let stranger = ask(shop.client.outbound, preflight("https://evil.example")).await;
    assert!(told(&stranger, "allow-origin").is_none() && told(&stranger, "allow-methods").is_none());

    let reply = shop.ask("/", &[("origin", "https://a.shop.example")]).await;
    assert_eq!(told(&reply, "allow-origin").as_deref(), Some("https://a.shop.example"));
    assert_eq!(told(&reply, "expose-headers").as_deref(), Some("x-total"));
    assert_eq!((who(&reply).as_str(), reply.header("vary")), ("v1", Some("origin")));
    let stranger = shop.ask("/", &[("origin", "https://evil.example")]).await;
    assert_eq!((who(&stranger).as_str(), told(&stranger, "allow-origin")), ("v1", None));
    // An OPTIONS that is no preflight is the application's.
    let options = request(Method::OPTIONS, "cart", "/", Bytes::new());
    assert_eq!(who(&ask(shop.client.outbound, options).await), "v1");
}

#[tokio::test]
async fn with_credentials_no_wildcard_is_told() {
    let any = |credentials| Cors {
        origins: vec!["*".into()],
        methods: vec!["*".into()],
        headers: vec!["*".into()],
        credentials,
        max_age: 5,
        ..Cors::default()
    };
    let shop = Shop::new(cart(vec![cors(any(false))])).await;
    let names = ["allow-origin", "allow-methods", "allow-headers", "allow-credentials"];
    let reply = ask(shop.client.outbound, preflight("https://a.example")).await;
    let all = names.map(|name| told(&reply, name).unwrap_or_default());
    assert_eq!(all, ["*", "*", "*", ""]);
    shop.change(cart(vec![cors(any(true))]));
    let reply = ask(shop.client.outbound, preflight("https://a.example")).await;
    let all = names.map(|name| told(&reply, name).unwrap_or_default());
    assert_eq!(all, ["https://a.example", "PUT", "x-mine", "true"]);
}

#[tokio::test]
async fn a_refusal_can_be_read_by_the_page_that_gets_it() {
    let mut refused = cors(Cors { origins: vec!["https://a.example".into()], ..Cors::default() });
    refused.backends.clear();
    let shop = Shop::new(cart(vec![refused])).await;
    let reply = shop.ask("/", &[("origin", "https://a.example")]).await;
    assert_eq!(who(&reply), "unresolved_backend");
    assert_eq!(told(&reply, "allow-origin").as_deref(), Some("https://a.example"));
}
