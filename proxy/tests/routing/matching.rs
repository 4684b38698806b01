//! What a route is for: callers, labels, ports, and what leads nowhere.

use outrigger_mesh::{Port, PortNumber, Protocol, RouteMatch, Service, Unresolved};
use outrigger_testkit::{Client, Origin};

use crate::support::{Mesh, open_service, plain};
use crate::{Shop, ask, backend, caller, cart, get, in_turns, instance, prefix, route, who};

#[tokio::test]
async fn who_calls_decides_and_where_nobody_told_them_there_are_no_labels() {
    let by_caller = RouteMatch { callers: vec![caller("admin"), caller("web")], ..RouteMatch::default() };
    let canary = RouteMatch {
        labels: [("tier".into(), "canary".into())].into_iter().collect(),
        ..prefix("/labelled")
    };
    let service = cart(vec![
        route("labelled", vec![canary], vec![backend("shop/cart", Some("v2"), 1)]),
        route("callers", vec![by_caller], vec![backend("shop/cart", Some("v1"), 1)]),
        route("others", vec![], vec![backend("shop/cart", Some("v2"), 1)]),
    ]);
    let shop = Shop::new(service.clone()).await;
    assert_eq!(shop.who("/", &[]).await, "v1");
    assert_eq!(shop.who("/labelled", &[]).await, "v1", "this instance has no label");

    let stranger = shop.mesh.client_as("stranger");
    let labelled = shop.mesh.client_labelled(&[("tier", "canary"), ("zone", "a")]);
    for sidecar in [&stranger, &labelled] {
        sidecar.knows(
            service.clone(),
            [instance("shop/cart", "v1", &shop.v1), instance("shop/cart", "v2", &shop.v2)],
        );
    }
    assert_eq!(who(&ask(stranger.outbound, get("/", &[])).await), "v2");
    assert_eq!(who(&ask(labelled.outbound, get("/labelled", &[])).await), "v2");
}

#[tokio::test]
async fn a_route_for_a_port_is_for_no_other_and_a_port_without_routes_takes_everything() {
    let number = |n| PortNumber::new(n).unwrap();
    let port = |n| Port { number: number(n), protocol: Protocol::Http };
    let mut only_81 = route("only-81", vec![prefix("/a")], vec![backend("shop/cart", Some("v2"), 1)]);
    only_81.ports = vec![number(81)];
    let mut both = route("both", vec![prefix("/b")], vec![backend("shop/cart", Some("v1"), 1)]);
    both.ports = vec![number(80), number(81)];
    let ports = vec![port(80), port(81), port(82)];
    let service = Service { ports, routes: vec![only_81, both], ..in_turns() };
    let (mesh, v1, v2) = (Mesh::new(), Origin::named("v1").await, Origin::named("v2").await);
    let sidecar = mesh.client();
    let at = |name: &str, origin: &Origin| {
        let mut endpoint = instance("shop/cart", name, origin);
        let one = endpoint.ports[0];
        endpoint.ports = [80, 81, 82].map(|n| outrigger_mesh::EndpointPort { port: number(n), ..one }).into();
        endpoint
    };
    sidecar.knows(service.checked().unwrap(), [at("v1", &v1), at("v2", &v2)]);
    let mut client = Client::h1(sidecar.outbound).await;
    for (host, path, expected) in [
        ("cart:81", "/a", "v2"),
        ("cart:80", "/a", "no_route"),
        ("cart:80", "/b", "v1"),
        ("cart:81", "/b", "v1"),
        ("cart:81", "/c", "no_route"),
    ] {
        for _ in 0..4 {
            assert_eq!(who(&client.get(host, path).await.unwrap()), expected, "{host}{path}");
        }
    }
    let mut seen = std::collections::HashSet::new();
    for _ in 0..40 {
        seen.insert(who(&client.get("cart:82", "/a").await.unwrap()));
    }
    assert_eq!(seen.len(), 2, "the port without routes goes to all: {seen:?}");
}

#[tokio::test]
async fn the_share_of_a_backend_that_is_not_there_is_refused_with_500_and_nobody_elses() {
    let gone = outrigger_mesh::Backend {
        unresolved: Some(Unresolved::BackendNotFound),
        ..backend("shop/gone", None, 1)
    };
    let half = vec![backend("shop/cart", Some("v1"), 1), gone.clone()];
    let none = vec![backend("shop/cart", Some("v1"), 0), backend("shop/cart", Some("v2"), 0)];
    let shop = Shop::new(cart(vec![
        route("half", vec![prefix("/half")], half),
        route("gone", vec![prefix("/gone")], vec![gone]),
        route("none", vec![prefix("/none")], none),
        route("empty", vec![prefix("/empty")], vec![]),
        route("away", vec![prefix("/away")], vec![backend("shop/cart", Some("v3"), 1)]),
    ]))
    .await;
    let mut refused = 0;
    for _ in 0..200 {
        let reply = shop.ask("/half", &[]).await;
        match who(&reply).as_str() {
            "v1" => {}
            "unresolved_backend" => refused += u32::from(reply.status == 500),
            other => panic!("{other}"),
        }
    }
    // Half of 200, four sigma around.
    assert!((72..=128).contains(&refused), "{refused}");
    for path in ["/gone", "/none", "/empty"] {
        let reply = shop.ask(path, &[]).await;
        assert_eq!((reply.status.as_u16(), who(&reply).as_str()), (500, "unresolved_backend"), "{path}");
    }
    let away = shop.ask("/away", &[]).await;
    assert_eq!(
        (away.status.as_u16(), who(&away).as_str()),
        (503, "no_endpoint"),
        "it is there, and nobody serves it"
    );
    let grpc = crate::with(get("/gone", &[]), &[("content-type", "application/grpc")]);
    let reply = Client::h2(shop.client.outbound).await.send(grpc).await.unwrap();
    assert_eq!(reply.header("grpc-status"), Some("14"));
}

#[tokio::test]
async fn a_backend_of_another_service_that_is_not_known_yet_is_refused_and_not_waited_for_without_a_control_plane()
 {
    let (mesh, other) = (Mesh::new(), Origin::named("other").await);
    let sidecar = mesh.client();
    let routes = vec![route("away", vec![], vec![backend("shop/other", None, 1)])];
    sidecar.knows(cart(routes), []);
    assert_eq!(who(&ask(sidecar.outbound, get("/", &[])).await), "no_endpoint");
    sidecar.knows(open_service("shop/other"), [plain("shop/other", "o", other.addr())]);
    assert_eq!(who(&ask(sidecar.outbound, get("/", &[])).await), "other");
}
