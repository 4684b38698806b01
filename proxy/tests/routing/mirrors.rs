//! Copies of requests: what they are, and that the request never hears of them.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use outrigger_mesh::{Filters, Fraction, Mirror, Route};
use outrigger_testkit::{Behaviour, Origin, eventually, request};

use crate::support::{open_service, plain};
use crate::{Shop, ask, backend, cart, route, who, with};

fn mirrored(share: Fraction) -> Route {
    let mirror = Mirror { service: "shop/copy".parse().unwrap(), version: None, port: None, share };
    let filters = Filters { mirrors: vec![mirror], ..Filters::default() };
    Route { filters, ..route("all", vec![], vec![backend("shop/cart", Some("v1"), 1)]) }
}

async fn shop(share: Fraction) -> (Shop, Origin) {
    let (shop, copy) = (Shop::new(cart(vec![])).await, Origin::named("copy").await);
    shop.client.knows(open_service("shop/copy"), [plain("shop/copy", "c", copy.addr())]);
    shop.change(cart(vec![mirrored(share)]));
    (shop, copy)
}

fn count(shop: &Shop, outcome: &str) -> u64 {
    let text = shop.client.live.prometheus();
    let line = format!("outrigger_mirrored_requests_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&line)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_copy_has_head_and_body_of_the_request_and_no_part_in_its_trace() {
    let (shop, copy) = shop(Fraction::ALL).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let post = request(Method::POST, "cart", "/a?b=1", "hello".into());
    let post = with(post, &[("traceparent", trace), ("x-user", "ada")]);
    assert_eq!(who(&ask(shop.client.outbound, post).await), "v1");
    eventually("the copy is there", || async { copy.requests() == 1 }).await;
    eventually("it is read", || async { !copy.seen().is_empty() }).await;
    let (seen, own) = (copy.seen().pop().unwrap(), shop.v1.seen().pop().unwrap());
    assert_eq!((seen.method.as_str(), seen.body, seen.header("x-user")), ("POST", 5, Some("ada")));
    assert!(seen.target.ends_with("/a?b=1") && seen.header("traceparent").is_none());
    assert_eq!(seen.header("x-outrigger-mirror"), Some("1"));
    assert!(own.header("x-outrigger-mirror").is_none() && own.header("traceparent").is_some());
    eventually("it is counted", || async { count(&shop, "answered") == 1 }).await;
}

#[tokio::test]
async fn a_copy_that_is_slow_or_fails_is_nothing_to_the_request() {
    let (shop, copy) = shop(Fraction::ALL).await;
    let fail = Some((StatusCode::INTERNAL_SERVER_ERROR, 100));
    copy.behave(Behaviour { delay: Duration::from_secs(5), fail, ..Behaviour::default() });
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(shop.who("/", &[]).await, "v1");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let (shop, mut copy) = self::shop(Fraction::ALL).await;
    copy.refuse().await;
    for _ in 0..20 {
        assert_eq!(shop.who("/", &[]).await, "v1");
    }
    eventually("they failed", || async { count(&shop, "failed") == 20 }).await;
}

#[tokio::test]
async fn a_copy_leaves_when_the_body_has_and_does_not_wait_for_the_answer() {
    let (shop, copy) = shop(Fraction::ALL).await;
    shop.v1.behave(Behaviour { delay: Duration::from_secs(2), ..Behaviour::default() });
    for body in ["", "hello"] {
        let (before, began) = (copy.requests(), Instant::now());
        let asked = ask(shop.client.outbound, request(Method::POST, "cart", "/", body.into()));
        let copied = async {
            eventually("the copy is there", || async { copy.requests() == before + 1 }).await;
            began.elapsed()
        };
        let (reply, copied) = tokio::join!(asked, copied);
        assert_eq!(who(&reply), "v1");
        assert!(copied < Duration::from_secs(1), "{copied:?}");
        assert!(began.elapsed() >= Duration::from_secs(2));
    }
    eventually("both are answered", || async { count(&shop, "answered") == 2 }).await;
    let lengths: Vec<_> = copy.seen().iter().map(|seen| seen.body).collect();
    assert_eq!(lengths, [0, 5]);
}

#[tokio::test]
async fn a_share_is_copied_and_a_body_that_is_too_long_is_not() {
    let (shop, copy) = shop(Fraction { of: 1, out_of: 4 }).await;
    for _ in 0..200 {
        assert_eq!(shop.who("/", &[]).await, "v1");
    }
    eventually("all are answered", || async { count(&shop, "answered") == copy.requests() }).await;
    // A quarter of 200, six sigma around.
    assert!((14..=86).contains(&copy.requests()), "{}", copy.requests());
    let (shop, copy) = self::shop(Fraction::ALL).await;
    let long = request(Method::POST, "cart", "/", vec![b'x'; 200_000].into());
    assert_eq!(who(&ask(shop.client.outbound, long).await), "v1");
    eventually("it is counted", || async { count(&shop, "too_large") == 1 }).await;
    assert_eq!(copy.requests(), 0);
}
