//! By what a backend is chosen beside chance: a key, ranges of a key, the place where a caller was; and what is retried.

use std::time::{Duration, Instant};

use http::StatusCode;
use outrigger_mesh::{
    BreakerMode, BreakerOverride, Choice, HashKey, KeyRange, Partition, RetryPolicy, Route, Service,
    SessionEnd, SigningKey, Sticky, StickyBy, StickyTo,
};
use outrigger_testkit::{Behaviour, Reply};

use crate::{Shop, backend, cart, route, version, who};

fn user() -> HashKey {
    HashKey::Header("x-user".parse().unwrap())
}

fn split(choice: Choice, weights: [u32; 2]) -> Route {
    let [v1, v2] = weights;
    let backends = vec![backend("shop/cart", Some("v1"), v1), backend("shop/cart", Some("v2"), v2)];
    Route { choice, ..route("split", vec![], backends) }
}

#[tokio::test]
async fn a_key_keeps_its_backend_and_goes_only_to_one_that_grows() {
    let by = || Choice { by: Some(user()), ..Choice::default() };
    let shop = Shop::new(cart(vec![split(by(), [1, 1])])).await;
    let mut before = Vec::new();
    for n in 0..100 {
        let name = format!("user-{n}");
        let first = shop.who("/", &[("x-user", &name)]).await;
        assert_eq!(shop.who("/", &[("x-user", &name)]).await, first);
        before.push(first);
    }
    let on_v2 = before.iter().filter(|who| *who == "v2").count();
    assert!((30..=70).contains(&on_v2), "{on_v2}");
    shop.change(cart(vec![split(by(), [1, 4])]));
    let mut moved = 0;
    for (n, was) in before.iter().enumerate() {
        let now = shop.who("/", &[("x-user", &format!("user-{n}"))]).await;
        assert!(now == *was || now == "v2", "user-{n} went from {was} to {now}");
        moved += usize::from(now != *was);
    }
    assert!(moved > 0);
}

#[tokio::test]
async fn ranges_of_a_key_go_where_they_are_said_to_and_nowhere_else() {
    let range =
        |from: &str, to: &str, backend| KeyRange { from: Some(from.into()), to: Some(to.into()), backend };
    let partition = Partition { key: user(), ranges: vec![range("a", "m", 0), range("n", "z", 1)] };
    let choice = Choice { partition: Some(partition), ..Choice::default() };
    let shop = Shop::new(cart(vec![split(choice, [1, 0])])).await;
    for (name, expected) in [("ada", "v1"), ("mike", "v1"), ("nora", "v2"), ("zoe", "v2"), ("7", "v1")] {
        for _ in 0..3 {
            assert_eq!(shop.who("/", &[("x-user", name)]).await, expected, "{name}");
        }
    }
    assert_eq!(shop.who("/", &[]).await, "v1", "without a key by weight");
}

#[tokio::test]
async fn a_session_of_a_route_keeps_a_caller_whatever_the_weights_become() {
    let sticky = Sticky {
        by: StickyBy::Cookie { name: "session".into(), ttl: None },
        to: StickyTo::Endpoint,
        end: SessionEnd::default(),
        key: SigningKey::new([9; 32]),
    };
    let with = |weights| {
        let choice = Choice { session: Some(sticky.clone()), ..Choice::default() };
        cart(vec![split(choice, weights)])
    };
    let shop = Shop::new(with([1, 0])).await;
    let first = shop.ask("/", &[]).await;
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert!(who(&first) == "v1" && cookie.starts_with("session="), "{cookie}");
    shop.change(with([0, 1]));
    assert_eq!(shop.who("/", &[("cookie", &cookie)]).await, "v1");
    assert_eq!(shop.who("/", &[]).await, "v2");
}

#[tokio::test]
async fn who_has_a_place_at_a_version_that_is_shut_is_moved_and_not_refused() {
    let sticky = |to| {
        let by = StickyBy::Cookie { name: "place".into(), ttl: None };
        Sticky { by, to, end: SessionEnd::default(), key: SigningKey::new([9; 32]) }
    };
    let shut = |service: Service| {
        let version = Some(version("v1"));
        let over = BreakerOverride { route: None, version, mode: BreakerMode::ForceOpen, until: None };
        Service { overrides: vec![over], ..service }
    };
    let of_route = |weights| {
        let choice = Choice { session: Some(sticky(StickyTo::Endpoint)), ..Choice::default() };
        cart(vec![split(choice, weights)])
    };
    let of_service = || {
        let mut service = cart(vec![]);
        service.policy.balance.sticky = Some(sticky(StickyTo::Subset));
        service
    };
    for (before, after) in [(of_route([1, 0]), of_route([1, 1])), (of_service(), of_service())] {
        let shop = Shop::new(before).await;
        let mut cookie = None;
        while cookie.is_none() {
            let answer = shop.ask("/", &[]).await;
            cookie = answer.header("set-cookie").filter(|_| who(&answer) == "v1").map(str::to_owned);
        }
        let cookie = cookie.unwrap().split(';').next().unwrap().to_owned();
        let again = async || shop.who("/", &[("cookie", &cookie)]).await;
        shop.change(after.clone());
        assert_eq!((again().await, again().await), ("v1".into(), "v1".into()));
        shop.change(shut(after));
        let now = [again().await, again().await];
        assert!(now.contains(&"v2".into()) && !now.contains(&"breaker_open".into()), "{now:?}");
    }
}

#[tokio::test]
async fn a_session_ends_when_nobody_uses_it_and_when_its_time_is_over_whoever_uses_it() {
    let ms = Duration::from_millis;
    for by in
        [StickyBy::Cookie { name: "session".into(), ttl: None }, StickyBy::Header("x-place".parse().unwrap())]
    {
        let end = SessionEnd { absolute: Some(ms(3_000)), idle: Some(ms(1_000)) };
        let cookie = matches!(by, StickyBy::Cookie { .. });
        let sticky = Sticky { by, to: StickyTo::Endpoint, end, key: SigningKey::new([9; 32]) };
        let with = |weights| {
            let choice = Choice { session: Some(sticky.clone()), ..Choice::default() };
            cart(vec![split(choice, weights)])
        };
        let said = |reply: &Reply| match reply.header("set-cookie") {
            Some(told) => ("cookie", told.split(';').next().unwrap().to_owned()),
            None => ("x-place", reply.header("x-place").unwrap().to_owned()),
        };
        let shop = Shop::new(with([1, 0])).await;
        let (began, first) = (Instant::now(), shop.ask("/", &[]).await);
        let mut kept = said(&first);
        assert_eq!((who(&first), kept.0 == "cookie"), ("v1".to_owned(), cookie));
        shop.change(with([0, 1]));
        let idle = kept.clone();
        // Each answer says it anew, so that it is not idle; but it does not begin anew.
        let (mut stayed, mut last) = (0, Instant::now());
        loop {
            tokio::time::sleep(ms(200)).await;
            let asked = began.elapsed();
            let reply = shop.ask("/", &[(kept.0, &kept.1)]).await;
            match who(&reply).as_str() {
                "v1" => stayed += 1,
                // A busy machine may make it idle.
                _ if asked + ms(100) >= ms(3_000) || last.elapsed() >= ms(1_000) => break,
                other => panic!("{other} after {asked:?}"),
            }
            assert!(asked < ms(3_100), "it goes on for {asked:?}");
            (kept, last) = (said(&reply), Instant::now());
        }
        assert!(stayed > 0, "{stayed}");
        tokio::time::sleep(ms(1_000).saturating_sub(began.elapsed())).await;
        assert_eq!(shop.who("/", &[(idle.0, &idle.1)]).await, "v2", "what nobody said again is over");
    }
}

#[tokio::test]
async fn a_status_that_a_route_names_is_tried_again() {
    let with = |codes: &[u16]| {
        let retry = RetryPolicy { codes: codes.to_vec(), budget_floor: 100, ..RetryPolicy::default() };
        let all = route("all", vec![], vec![backend("shop/cart", None, 1)]);
        cart(vec![Route { retry: Some(retry), ..all }])
    };
    let shop = Shop::new(with(&[])).await;
    shop.v1.behave(Behaviour { fail: Some((StatusCode::CONFLICT, 100)), ..Behaviour::default() });
    let mut seen = std::collections::HashSet::new();
    for _ in 0..8 {
        seen.insert(shop.ask("/", &[]).await.status.as_u16());
    }
    assert!(seen.contains(&409), "{seen:?}");
    shop.change(with(&[409]));
    for _ in 0..8 {
        assert_eq!(shop.ask("/", &[]).await.status, 200);
    }
}
