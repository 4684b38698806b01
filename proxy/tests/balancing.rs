//! Which endpoint answers: weights, keys, zones, panic, places that callers keep, brown-outs, health checks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use outrigger_mesh::{
    Algorithm, Backend, Balance, Endpoint, HashKey, HealthCheck, Probe, Resource, Route, RouteName, Service,
    SessionEnd, SigningKey, Sticky, StickyBy, StickyTo, Version, Weight,
};
use outrigger_testkit::{Behaviour, BodyOf, Client, Origin, Reply, eventually, request};
use support::{Mesh, Sidecar, open_service, plain};

async fn origins(names: [&str; 3]) -> Vec<Origin> {
    let mut all = Vec::new();
    for name in names {
        all.push(Origin::named(name).await);
    }
    all
}

fn balanced(balance: Balance) -> Service {
    let mut service = open_service("shop/cart");
    service.policy.balance = balance;
    service
}

fn by(algorithm: Algorithm) -> Service {
    balanced(Balance { algorithm, ..Balance::default() })
}

fn endpoint(uid: &str, origin: &Origin) -> Endpoint {
    plain("shop/cart", uid, origin.addr())
}

fn three(origins: &[Origin]) -> [Endpoint; 3] {
    [endpoint("a", &origins[0]), endpoint("b", &origins[1]), endpoint("c", &origins[2])]
}

fn who(reply: &Reply) -> String {
    reply.json()["origin"].as_str().unwrap().to_owned()
}

async fn ask(client: &mut Client, times: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..times {
        *shares.entry(who(&client.get("cart", "/").await.unwrap())).or_default() += 1;
    }
    shares
}

async fn with_header(client: &mut Client, name: &str, value: &str) -> Reply {
    let mut get = request(Method::GET, "cart", "/", "".into());
    get.headers_mut().insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    client.send(get).await.unwrap()
}

#[tokio::test]
async fn round_robin_gives_each_endpoint_exactly_its_weight() {
    let (mesh, origins) = (Mesh::new(), origins(["a", "b", "c"]).await);
    let sidecar = mesh.client_with(&[], 2);
    let [mut a, b, c] = three(&origins);
    a.weight = Weight::new(300).unwrap();
    sidecar.knows(by(Algorithm::RoundRobin), [a, b, c]);
    let mut shares = HashMap::new();
    for _ in 0..10 {
        for (who, n) in ask(&mut Client::h1(sidecar.outbound).await, 10).await {
            *shares.entry(who).or_insert(0) += n;
        }
    }
    assert_eq!((shares["a"], shares["b"], shares["c"]), (60, 20, 20), "over both workers");
}

#[tokio::test]
async fn the_same_key_reaches_the_same_endpoint_from_every_sidecar() {
    let (mesh, origins) = (Mesh::new(), origins(["a", "b", "c"]).await);
    let sidecars = [mesh.client(), mesh.client()];
    let maglev = Algorithm::Maglev(HashKey::Header("x-user".parse().unwrap()));
    let mut clients = Vec::new();
    for sidecar in &sidecars {
        sidecar.knows(by(maglev.clone()), three(&origins));
        clients.push(Client::h1(sidecar.outbound).await);
    }
    let mut at = HashMap::new();
    for user in 0..30 {
        let user = format!("user-{user}");
        for client in clients.iter_mut().chain([&mut Client::h1(sidecars[0].outbound).await]) {
            let here = who(&with_header(client, "x-user", &user).await);
            assert_eq!(*at.entry(user.clone()).or_insert_with(|| here.clone()), here);
        }
    }
    // One goes: only its keys move.
    let gone = outrigger_mesh::ResourceName::Endpoint("shop/cart".parse().unwrap(), "b".parse().unwrap());
    let change = outrigger_proxy::config::registry::Change::Remove(gone);
    sidecars[0].registry.apply(change).unwrap();
    let mut moved = 0;
    for (user, before) in &at {
        let now = who(&with_header(&mut clients[0], "x-user", user).await);
        assert_ne!(now, "b");
        moved += usize::from(now != *before && before != "b");
    }
    assert!(moved <= 3, "{moved} of 30 keys moved without a reason");
}

fn sticky(by: StickyBy, to: StickyTo) -> Balance {
    let (end, key) = (SessionEnd::default(), SigningKey::new([7; 32]));
    Balance { algorithm: Algorithm::Random, sticky: Some(Sticky { by, to, end, key }), ..Balance::default() }
}

fn cookie() -> StickyBy {
    StickyBy::Cookie { name: "place".into(), ttl: Some(Duration::from_secs(60)) }
}

#[tokio::test]
async fn a_caller_with_a_cookie_stays_whatever_the_weights_until_its_endpoint_is_gone() {
    let (mesh, origins) = (Mesh::new(), origins(["a", "b", "c"]).await);
    let sidecar = mesh.client();
    sidecar.knows(balanced(sticky(cookie(), StickyTo::Endpoint)), three(&origins));
    let mut client = Client::h1(sidecar.outbound).await;
    let first = client.get("cart", "/").await.unwrap();
    let set = first.header("set-cookie").unwrap().to_owned();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=60"), "{set}");
    let (home, value) = (who(&first), set.split(';').next().unwrap().to_owned());
    let with = format!("theme=dark; {value}");
    for change in [1, u16::MAX] {
        for endpoint in three(&origins) {
            let weight = Weight::new(if endpoint.uid.as_str() == home { 1 } else { change }).unwrap();
            sidecar.set(Resource::Endpoint(Endpoint { weight, ..endpoint }));
        }
        for _ in 0..20 {
            let reply = with_header(&mut client, "cookie", &with).await;
            assert_eq!((who(&reply), reply.header("set-cookie")), (home.clone(), None));
        }
    }
    let all = origins.iter().flat_map(Origin::seen);
    let seen: Vec<_> = all.filter_map(|seen| seen.header("cookie").map(str::to_owned)).collect();
    assert!(
        seen.len() == 40 && seen.iter().all(|cookie| cookie == "theme=dark"),
        "only the application's own"
    );

    let forged = with.replace(&value[..value.len() - 4], &value[..value.len() - 5]);
    for forged in [&*forged, "place=e.a", "place="] {
        let reply = with_header(&mut client, "cookie", forged).await;
        assert!(reply.status == StatusCode::OK && reply.header("set-cookie").is_some(), "{forged}");
    }
    let gone = outrigger_mesh::ResourceName::Endpoint("shop/cart".parse().unwrap(), home.parse().unwrap());
    sidecar.registry.apply(outrigger_proxy::config::registry::Change::Remove(gone)).unwrap();
    let reply = with_header(&mut client, "cookie", &with).await;
    assert!(who(&reply) != home && reply.header("set-cookie").is_some());
    let metrics = sidecar.live.prometheus();
    for (outcome, count) in [("kept", 40), ("forged", 3), ("moved", 1)] {
        let line = format!(
            "outrigger_balance_sticky_total{{service=\"shop/cart\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_caller_can_stay_in_a_version_while_the_split_moves_away_from_it() {
    let (mesh, origins) = (Mesh::new(), origins(["v1", "v2", "v2"]).await);
    let sidecar = mesh.client();
    let by_header = StickyBy::Header("x-place".parse().unwrap());
    let split = |weights: [u32; 2]| {
        let backend = |(version, weight): (&str, u32)| Backend {
            version: Some(Version::new(version).unwrap()),
            weight,
            ..Backend::to("shop/cart".parse().unwrap())
        };
        let route = Route {
            backends: vec![backend(("v1", weights[0])), backend(("v2", weights[1]))],
            ..Route::new(RouteName::new("r").unwrap())
        };
        Service { routes: vec![route], ..balanced(sticky(by_header.clone(), StickyTo::Subset)) }
    };
    let versions = ["v1", "v2", "v2"].map(|v| Some(Version::new(v).unwrap()));
    let endpoints = three(&origins).into_iter().zip(versions);
    sidecar.knows(split([100, 0]), endpoints.map(|(e, version)| Endpoint { version, ..e }));
    let mut client = Client::h1(sidecar.outbound).await;
    let place = client.get("cart", "/").await.unwrap().header("x-place").unwrap().to_owned();
    sidecar.set(Resource::Service(split([0, 100])));
    for _ in 0..20 {
        assert_eq!(who(&with_header(&mut client, "x-place", &place).await), "v1");
        assert_eq!(who(&client.get("cart", "/").await.unwrap()), "v2");
    }
}

fn in_zones(origins: &[Origin], zones: [&str; 3]) -> impl Iterator<Item = Endpoint> {
    three(origins).into_iter().zip(zones).map(|(e, zone)| Endpoint { zone: Some(zone.into()), ..e })
}

fn checked(mut service: Service) -> Service {
    service.policy.health = Some(HealthCheck {
        probe: Probe::Http { path: "/healthz".into(), expect: (200, 299) },
        port: None,
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(90),
        healthy: 2,
        unhealthy: 2,
    });
    service
}

fn sick() -> Behaviour {
    Behaviour { fail: Some((StatusCode::NOT_FOUND, 100)), ..Behaviour::default() }
}

async fn until_unwell(sidecar: &Sidecar, count: u64) {
    let service = sidecar.registry.live_service(&"shop/cart".parse().unwrap()).unwrap();
    eventually("health is known", || async { service.balance.unwell.load(Relaxed) == count }).await;
    // How many are well is looked at twenty times a second.
    tokio::time::sleep(Duration::from_millis(60)).await;
}

#[tokio::test]
async fn the_own_zone_is_called_first_and_what_it_does_not_carry_spills_over() {
    let (mesh, origins) = (Mesh::new(), origins(["a", "b", "c"]).await);
    let sidecar = mesh.client_in("here");
    sidecar.knows(checked(by(Algorithm::Random)), in_zones(&origins, ["here", "here", "there"]));
    let mut client = Client::h1(sidecar.outbound).await;
    assert_eq!(ask(&mut client, 100).await.get("c"), None);
    origins[0].behave(sick());
    until_unwell(&sidecar, 1).await;
    // Half of the zone carries 70 %.
    let shares = ask(&mut client, 300).await;
    assert!(!shares.contains_key("a") && (50..130).contains(&shares["c"]), "{shares:?}");
    origins[0].behave(Behaviour::default());
    until_unwell(&sidecar, 0).await;
    assert_eq!(ask(&mut client, 100).await.get("c"), None);
    assert!(sidecar.live.prometheus().contains("outrigger_balance_spilled_total{service=\"shop/cart\"}"));
}

#[tokio::test]
async fn health_checks_take_an_endpoint_out_and_back_and_in_panic_all_are_called() {
    let (mesh, origins) = (Mesh::new(), origins(["a", "b", "c"]).await);
    let sidecar = mesh.client();
    let service = checked(by(Algorithm::RoundRobin));
    sidecar.knows(service.clone(), three(&origins));
    let mut client = Client::h1(sidecar.outbound).await;
    assert_eq!(ask(&mut client, 30).await.len(), 3);
    origins[1].behave(sick());
    until_unwell(&sidecar, 1).await;
    assert_eq!(ask(&mut client, 30).await.get("b"), None);
    let clusters = sidecar.registry.clusters().to_string();
    assert!(
        clusters.contains("\"health\":\"unwell\"") && clusters.contains("\"health\":\"well\""),
        "{clusters}"
    );

    origins[0].behave(sick());
    until_unwell(&sidecar, 2).await;
    assert_eq!(ask(&mut client, 30).await.len(), 3, "one of three is less than half");
    assert!(sidecar.live.prometheus().contains("outrigger_balance_panic_total{service=\"shop/cart\"} 30\n"));
    let off = Balance { panic_percent: 0, ..service.policy.balance.clone() };
    let mut calm = service.clone();
    calm.policy.balance = off;
    sidecar.set(Resource::Service(calm));
    assert_eq!(ask(&mut client, 30).await.get("c"), Some(&30), "the change has lost no state");
    origins[2].behave(sick());
    until_unwell(&sidecar, 3).await;
    let reply = client.get("cart", "/").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (503, Some("no_endpoint")));

    for origin in &origins {
        origin.behave(Behaviour::default());
    }
    until_unwell(&sidecar, 0).await;
    assert_eq!(ask(&mut client, 30).await.len(), 3);
    // Without the policy nobody is asked any more.
    sidecar.set(Resource::Service(by(Algorithm::RoundRobin)));
    tokio::time::sleep(Duration::from_millis(250)).await;
    let before: u64 = origins.iter().map(Origin::requests).sum();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(origins.iter().map(Origin::requests).sum::<u64>(), before);
}

#[tokio::test]
async fn health_checks_go_through_the_sidecar_of_the_endpoint() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    let server = mesh.server("shop/cart", origin.addr());
    let client = mesh.client();
    let service = checked(outrigger_testkit::resources::service("shop/cart"));
    client.knows(service, [server.endpoint("shop/cart", "i-1")]);
    Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
    let asked = || async { origin.seen().iter().filter(|seen| seen.target == "/healthz").count() > 2 };
    eventually("the application is asked", asked).await;
    assert!(
        client
            .live
            .prometheus()
            .contains("outrigger_health_checks_total{service=\"shop/cart\",outcome=\"passed\"}")
    );
    origin.behave(sick());
    until_unwell(&client, 1).await;
}

#[tokio::test]
async fn health_is_asked_by_the_protocol_of_grpc_and_by_connecting() {
    let (mesh, mut origin) = (Mesh::new(), Origin::start().await);
    let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "12".parse().unwrap())]);
    origin.behave(Behaviour { trailers, ..Behaviour::default() });
    let sidecar = mesh.client();
    let asks = |probe: Probe| {
        let mut service = checked(open_service("shop/cart"));
        service.policy.health.as_mut().unwrap().probe = probe;
        service
    };
    sidecar.knows(asks(Probe::Grpc { service: "cart.Cart".into() }), [endpoint("a", &origin)]);
    let mut client = Client::h1(sidecar.outbound).await;
    client.get("cart", "/").await.unwrap();
    until_unwell(&sidecar, 1).await;
    let seen =
        origin.seen().into_iter().find(|seen| seen.target.ends_with("/grpc.health.v1.Health/Check")).unwrap();
    assert_eq!((seen.method, seen.body), (Method::POST, 5 + 2 + 9));
    sidecar.set(Resource::Service(asks(Probe::Tcp)));
    until_unwell(&sidecar, 0).await;
    origin.refuse().await;
    until_unwell(&sidecar, 1).await;
}

#[tokio::test]
async fn what_an_application_says_of_itself_over_grpc_comes_through_its_sidecar() {
    let (mesh, origin) = (Mesh::new(), Origin::start().await);
    // HealthCheckResponse { status }, as one message of gRPC.
    let says = |status: u8| Behaviour {
        headers: vec![("content-type".parse().unwrap(), "application/grpc".parse().unwrap())],
        body: BodyOf::Exactly(vec![0, 0, 0, 0, 2, 8, status].into()),
        trailers: http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]),
        ..Behaviour::default()
    };
    let (serving, not_serving) = (says(1), says(2));
    let server = mesh.server("shop/cart", origin.addr());
    let client = mesh.client();
    let mut service = checked(outrigger_testkit::resources::service("shop/cart"));
    service.policy.health.as_mut().unwrap().probe = Probe::Grpc { service: "cart.Cart".into() };
    origin.behave(serving.clone());
    client.knows(service, [server.endpoint("shop/cart", "i-1")]);
    Client::h1(client.outbound).await.get("cart", "/").await.unwrap();
    let passed = "outrigger_health_checks_total{service=\"shop/cart\",outcome=\"passed\"} ";
    let checks = || {
        let text = client.live.prometheus();
        text.lines().find_map(|l| l.strip_prefix(passed)?.parse::<u64>().ok()).unwrap_or(0)
    };
    eventually("it is asked and says that it serves", || async { checks() > 2 }).await;
    until_unwell(&client, 0).await;
    origin.behave(not_serving);
    until_unwell(&client, 1).await;
    let before = checks();
    origin.behave(serving);
    until_unwell(&client, 0).await;
    assert!(checks() > before);
}

#[tokio::test]
async fn traffic_leaves_an_endpoint_that_has_become_slow() {
    let (mesh, origins) = (Mesh::new(), origins(["a", "b", "c"]).await);
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), three(&origins));
    let mut client = Client::h1(sidecar.outbound).await;
    assert_eq!(ask(&mut client, 60).await.len(), 3);
    origins[0].behave(Behaviour { delay: Duration::from_millis(300), ..Behaviour::default() });
    let began = Instant::now();
    loop {
        let slow = ask(&mut client, 50).await.get("a").copied().unwrap_or(0);
        if slow <= 1 {
            break;
        }
        let on_time = began.elapsed() < Duration::from_secs(15);
        assert!(on_time, "{slow} of the last 50 still waited for the slow one");
    }
    let all: u64 = origins[0].requests();
    assert!(all < 80, "{all} requests reached the slow one");
}

#[tokio::test]
async fn an_endpoint_that_answers_429_gets_less_and_not_more_for_being_quick() {
    let (mesh, origins) = (Mesh::new(), origins(["a", "b", "c"]).await);
    let sidecar = mesh.client();
    sidecar.knows(open_service("shop/cart"), three(&origins));
    origins[0].behave(Behaviour { fail: Some((StatusCode::TOO_MANY_REQUESTS, 100)), ..Behaviour::default() });
    for well in &origins[1..] {
        well.behave(Behaviour { delay: Duration::from_millis(3), ..Behaviour::default() });
    }
    let (mut client, mut limited) = (Client::h1(sidecar.outbound).await, 0);
    for _ in 0..200 {
        let reply = client.get("cart", "/").await.unwrap();
        limited += u32::from(reply.status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(limited >= 1, "it was never asked");
    assert!(limited <= 66, "{limited} of 200 answers came from the one that has no room");
}
