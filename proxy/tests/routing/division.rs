//! A service that is divided between two of its versions: who is on which side, and that nobody goes back.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use outrigger_mesh::{
    Backend, Balance, Division, Endpoint, EndpointState, HashKey, HeaderMatch, Port, Protocol, Resource,
    RouteMatch, Service, SessionEnd, SigningKey, Sticky, StickyBy, StickyTo, Version,
};
use outrigger_proxy::config::registry::{Change, Discovery};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, Reset, request};

use crate::support::{Mesh, open_service, plain};
use crate::{Shop, ask, backend, caller, cart, get, instance, prefix, route, version, who, with};

fn by_user() -> HashKey {
    HashKey::Header("x-user".parse().unwrap())
}

fn divided(share: u32, by: Option<HashKey>) -> Service {
    let (stable, candidate) = (version("v1"), version("v2"));
    let division = Some(Division { stable, candidate, share, preview: vec![], by });
    Service { division, ..open_service("shop/cart") }.checked().unwrap()
}

/// How many of `times` requests each version answers.
async fn shares(shop: &Shop, times: usize) -> HashMap<String, usize> {
    let mut client = Client::h1(shop.client.outbound).await;
    let mut shares = HashMap::new();
    for _ in 0..times {
        *shares.entry(who(&client.get("cart", "/").await.unwrap())).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn a_share_of_everything_goes_to_the_candidate_and_no_share_is_none() {
    let shop = Shop::new(divided(0, None)).await;
    assert_eq!(shares(&shop, 50).await, HashMap::from([("v1".into(), 50)]));
    shop.change(divided(1_000, None));
    let tenth = shares(&shop, 1_000).await["v2"];
    // Six sigma around a tenth.
    assert!((44..=156).contains(&tenth), "{tenth}");
    shop.change(divided(Division::WHOLE, None));
    assert_eq!(shares(&shop, 50).await, HashMap::from([("v2".into(), 50)]));
}

#[tokio::test]
async fn nobody_goes_back_while_the_share_grows() {
    const USERS: usize = 400;
    let shop = Shop::new(divided(0, Some(by_user()))).await;
    let mut client = Client::h2(shop.client.outbound).await;
    let mut before = vec![false; USERS];
    for share in [100, 1_000, 5_000, Division::WHOLE] {
        shop.change(divided(share, Some(by_user())));
        let mut on = 0;
        for (user, was) in before.iter_mut().enumerate() {
            let name = format!("user-{user}");
            let asked = with(request(Method::GET, "cart", "/", "".into()), &[("x-user", &name)]);
            let candidate = who(&client.send(asked).await.unwrap()) == "v2";
            assert!(candidate || !*was, "{name} went back at {share}");
            (*was, on) = (candidate, on + usize::from(candidate));
        }
        let (mean, part) = (USERS as f64 * f64::from(share) / 10_000.0, f64::from(share) / 10_000.0);
        let sigma = (mean * (1.0 - part)).sqrt();
        assert!((on as f64 - mean).abs() <= 4.0 * sigma, "{share}: {on}");
    }
}

#[tokio::test]
async fn a_preview_sees_the_candidate_and_a_route_that_names_a_version_is_not_touched() {
    let mut service = divided(0, None);
    let header = HeaderMatch { name: "x-preview".parse().unwrap(), value: "yes".into() };
    let by_header = RouteMatch { headers: vec![header], ..RouteMatch::default() };
    let by_caller = RouteMatch { callers: vec![caller("qa")], ..RouteMatch::default() };
    service.division.as_mut().unwrap().preview = vec![by_header, by_caller];
    service.routes = vec![
        route("named", vec![prefix("/named")], vec![backend("shop/cart", Some("v1"), 1)]),
        route("whole", vec![], vec![backend("shop/cart", None, 1)]),
    ];
    let shop = Shop::new(service.clone()).await;
    let preview = &[("x-preview", "yes")][..];
    assert_eq!(shop.who("/", &[]).await, "v1");
    assert_eq!(shop.who("/", preview).await, "v2");
    assert_eq!(shop.who("/named", preview).await, "v1");
    let qa = shop.mesh.client_as("qa");
    qa.knows(service, [instance("shop/cart", "v1", &shop.v1), instance("shop/cart", "v2", &shop.v2)]);
    assert_eq!(who(&ask(qa.outbound, get("/", &[])).await), "v2");
}

#[tokio::test]
async fn a_side_without_anybody_takes_nothing_from_the_other() {
    let shop = Shop::new(divided(Division::WHOLE, None)).await;
    let v2 = instance("shop/cart", "v2", &shop.v2);
    shop.client.set(Resource::Endpoint(Endpoint { state: EndpointState::Draining, ..v2.clone() }));
    assert_eq!(shares(&shop, 20).await, HashMap::from([("v1".into(), 20)]));
    shop.client.set(Resource::Endpoint(v2));
    assert_eq!(shares(&shop, 20).await, HashMap::from([("v2".into(), 20)]));
}

#[tokio::test]
async fn a_retry_stays_on_its_side() {
    let shop = Shop::new(divided(Division::WHOLE, None)).await;
    let twin = Origin::named("v2-twin").await;
    let endpoint = Endpoint { version: Some(version("v2")), ..plain("shop/cart", "v2-twin", twin.addr()) };
    shop.client.set(Resource::Endpoint(endpoint));
    shop.v2.behave(Behaviour { reset: Reset::BeforeHead, ..Behaviour::default() });
    for _ in 0..10 {
        assert_eq!(shop.who("/", &[]).await, "v2-twin");
    }
    assert_eq!(shop.v1.requests(), 0);
}

/// What the client counted of a version of the service: requests, successes, and attempts that nobody answered.
fn counted(shop: &Shop, version: Option<&str>) -> (u64, u64, u64) {
    let totals = shop.client.live.traffic.totals();
    let of = totals.into_iter().find(|(key, _)| key.version.as_ref().map(Version::as_str) == version);
    of.map_or((0, 0, 0), |(_, stats)| (stats.requests, stats.success, stats.unanswered))
}

#[tokio::test]
async fn what_can_not_be_reached_is_counted_to_its_version_whoever_answers_in_its_place() {
    let mut shop = Shop::new(divided(Division::WHOLE, None)).await;
    shop.v2.refuse().await;
    let seen = shares(&shop, 20).await;
    let (requests, success, unanswered) = counted(&shop, Some("v2"));
    // A few in a row open the breaker; from then on the other side takes what it would.
    assert_eq!((requests - success, success), (seen["connect_failed"] as u64, 0), "{seen:?}");
    assert!(unanswered >= 2 && requests + unanswered >= 3, "{requests} and {unanswered}");
    assert_eq!(counted(&shop, Some("v1")), (seen["v1"] as u64, seen["v1"] as u64, 0));
    assert_eq!(counted(&shop, None).0, 0, "everything went to somebody");
}

#[tokio::test]
async fn a_retry_that_helps_does_not_hide_that_an_endpoint_of_the_version_was_not_reached() {
    let mut service = divided(Division::WHOLE, None);
    service.policy.balance.algorithm = outrigger_mesh::Algorithm::RoundRobin;
    let mut shop = Shop::new(service).await;
    let twin = Origin::named("v2-twin").await;
    let endpoint = Endpoint { version: Some(version("v2")), ..plain("shop/cart", "v2-twin", twin.addr()) };
    shop.client.set(Resource::Endpoint(endpoint));
    shop.v2.refuse().await;
    assert_eq!(shares(&shop, 20).await, HashMap::from([("v2-twin".into(), 20)]));
    let (requests, success, unanswered) = counted(&shop, Some("v2"));
    assert_eq!((requests, success), (20, 20));
    assert!(unanswered >= 3, "{unanswered}");
}

#[tokio::test]
async fn who_has_a_place_keeps_it_whatever_the_division_says() {
    let sticky = Sticky {
        by: StickyBy::Cookie { name: "place".into(), ttl: None },
        to: StickyTo::Endpoint,
        end: SessionEnd::default(),
        key: SigningKey::new([7; 32]),
    };
    let with_place = |share| {
        let mut service = divided(share, None);
        service.policy.balance = Balance { sticky: Some(sticky.clone()), ..Balance::default() };
        service
    };
    let shop = Shop::new(with_place(0)).await;
    let first = shop.ask("/", &[]).await;
    assert_eq!(who(&first), "v1");
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    shop.change(with_place(Division::WHOLE));
    assert_eq!(shop.who("/", &[("cookie", &cookie)]).await, "v1");
    assert_eq!(shop.who("/", &[]).await, "v2");
}

#[tokio::test]
async fn a_candidate_that_went_back_keeps_nobody_who_has_a_place_there() {
    for to in [StickyTo::Endpoint, StickyTo::Subset] {
        let by = StickyBy::Cookie { name: "place".into(), ttl: None };
        let balance = Balance {
            sticky: Some(Sticky { by, to, end: SessionEnd::default(), key: SigningKey::new([7; 32]) }),
            ..Balance::default()
        };
        let with_place = |share| {
            let mut service = divided(share, None);
            service.policy.balance = balance.clone();
            let header = HeaderMatch { name: "x-preview".parse().unwrap(), value: "yes".into() };
            let by_header = RouteMatch { headers: vec![header], ..RouteMatch::default() };
            service.division.as_mut().unwrap().preview = vec![by_header];
            service
        };
        let shop = Shop::new(with_place(Division::WHOLE)).await;
        let first = shop.ask("/", &[]).await;
        assert_eq!(who(&first), "v2");
        let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        shop.change(with_place(100));
        assert_eq!(shop.who("/", &[("cookie", &cookie)]).await, "v2", "{to:?}: while it has any share");
        shop.change(with_place(0));
        let back = shop.ask("/", &[("cookie", &cookie)]).await;
        assert_eq!(who(&back), "v1", "{to:?}");
        assert!(back.header("set-cookie").is_some_and(|new| !new.starts_with(&cookie)), "{to:?}");
        assert_eq!(shop.who("/", &[("cookie", &cookie), ("x-preview", "yes")]).await, "v2", "{to:?}");
    }
}

#[tokio::test]
async fn a_divided_service_is_divided_also_for_those_who_are_led_to_it_by_another() {
    let shop = Shop::new(divided(Division::WHOLE, None)).await;
    let to_cart = |weight| Backend { weight, ..backend("shop/cart", None, 1) };
    let front =
        Service { routes: vec![route("all", vec![], vec![to_cart(1)])], ..open_service("shop/front") };
    shop.client.knows(front.checked().unwrap(), []);
    let mut client = Client::h1(shop.client.outbound).await;
    for share in [Division::WHOLE, 0] {
        shop.change(divided(share, None));
        let expected = if share == 0 { "v1" } else { "v2" };
        for _ in 0..10 {
            assert_eq!(who(&client.get("front", "/").await.unwrap()), expected);
        }
    }
}

#[tokio::test]
async fn endpoints_that_are_told_before_their_service_wait_for_it() {
    // Each kind of resource has answers of its own: a service's endpoints may overtake it.
    let (mesh, v1, v2) = (Mesh::new(), Origin::named("v1").await, Origin::named("v2").await);
    let client = mesh.client();
    client.registry.set_discovery(Discovery::Connected);
    let to_cart = route("all", vec![], vec![backend("shop/cart", None, 1)]);
    let front = Service { routes: vec![to_cart], ..open_service("shop/front") };
    client.knows(front.checked().unwrap(), []);
    client.registry.apply(Change::NoEndpoints("shop/front".parse().unwrap())).unwrap();
    for (name, origin) in [("v1", &v1), ("v2", &v2)] {
        client.set(Resource::Endpoint(instance("shop/cart", name, origin)));
    }
    let outbound = client.outbound;
    let asked = tokio::spawn(async move { Client::h1(outbound).await.get("front", "/").await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished(), "{:?}", asked.await.map(|reply| who(&reply)));
    client.set(Resource::Service(divided(Division::WHOLE, None)));
    assert_eq!(who(&asked.await.unwrap()), "v2");
}

#[tokio::test]
async fn a_backend_whose_endpoints_are_still_to_be_told_keeps_its_share() {
    // Everybody who had waited for the service to be told went to the other backend.
    let (mesh, v1, late) = (Mesh::new(), Origin::named("v1").await, Origin::named("late").await);
    let client = mesh.client();
    client.registry.set_discovery(Discovery::Connected);
    let both = vec![backend("shop/cart", None, 1), backend("shop/late", None, 1)];
    let front = Service { routes: vec![route("all", vec![], both)], ..open_service("shop/front") };
    client.knows(open_service("shop/cart"), [plain("shop/cart", "i-1", v1.addr())]);
    client.knows(front.checked().unwrap(), []);
    client.registry.apply(Change::NoEndpoints("shop/front".parse().unwrap())).unwrap();
    client.set(Resource::Service(open_service("shop/late")));
    let outbound = client.outbound;
    let ask = || tokio::spawn(async move { Client::h1(outbound).await.get("front", "/").await.unwrap() });
    let asked: Vec<_> = (0..40).map(|_| ask()).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.set(Resource::Endpoint(plain("shop/late", "i-2", late.addr())));
    let mut late = 0;
    for reply in asked {
        late += usize::from(who(&reply.await.unwrap()) == "late");
    }
    // Six sigma around a half, and to spare.
    assert!((1..40).contains(&late), "{late}");
}

#[tokio::test]
async fn a_connection_is_divided_too() {
    let opaque = |share, by| {
        let mut service = divided(share, by);
        service.ports = vec![Port { protocol: Protocol::Tcp, ..service.ports[0] }];
        service
    };
    let mesh = Mesh::new();
    let client = mesh.client_with(&["cart"], 1);
    let shop = Shop::seen_by(mesh, client, opaque(0, None)).await;
    for origin in [&shop.v1, &shop.v2] {
        origin.behave(Behaviour { body: BodyOf::Seen, ..Behaviour::default() });
    }
    for (share, by, expected) in [
        (0, None, "v1"),
        (Division::WHOLE, None, "v2"),
        (Division::WHOLE, Some(HashKey::SourceIdentity), "v2"),
    ] {
        shop.change(opaque(share, by));
        for _ in 0..5 {
            assert_eq!(who(&ask(shop.client.upstreams[0], get("/", &[])).await), expected);
        }
    }
    // Of one caller every connection goes to the same side.
    shop.change(opaque(5_000, Some(HashKey::SourceIdentity)));
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        seen.insert(who(&ask(shop.client.upstreams[0], get("/", &[])).await));
    }
    assert_eq!(seen.len(), 1);
    // A connection that is not made is counted to its side as a request is.
    let before = counted(&shop, Some("v2"));
    let mut shop = shop;
    shop.v2.refuse().await;
    shop.change(opaque(Division::WHOLE, None));
    let mut connection = tokio::net::TcpStream::connect(shop.client.upstreams[0]).await.unwrap();
    let _reset = tokio::io::AsyncReadExt::read(&mut connection, &mut [0]).await;
    let after = counted(&shop, Some("v2"));
    assert_eq!(after.1, before.1);
    assert!(after.0 > before.0 || after.2 > before.2, "{before:?} and {after:?}");
}

#[tokio::test]
async fn a_service_that_stands_in_is_divided_as_well() {
    let shop = Shop::new(cart(vec![])).await;
    let mut primary = open_service("shop/primary");
    primary.policy.service_breaker.mode = outrigger_mesh::BreakerMode::ForceOpen;
    primary.policy.service_breaker.fallback =
        Some(outrigger_mesh::Fallback::Service("shop/cart".parse().unwrap()));
    shop.client.knows(primary, [plain("shop/primary", "p", shop.v1.addr())]);
    shop.change(divided(Division::WHOLE, None));
    let mut client = Client::h1(shop.client.outbound).await;
    for _ in 0..10 {
        assert_eq!(who(&client.get("primary", "/").await.unwrap()), "v2");
    }
}
