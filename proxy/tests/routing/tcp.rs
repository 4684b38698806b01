//! Routes of connections whose bytes nobody looks into.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::Duration;

use outrigger_mesh::{Backend, Hop, Port, Protocol, Reason, RouteName, Service, Side, TcpRoute, Unresolved};
use outrigger_testkit::{Origin, eventually};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::{Mesh, open_service, plain};
use crate::{Shop, ask, backend, caller, get, in_turns, who};

fn tcp(name: &str, callers: &[&str], backends: Vec<Backend>) -> TcpRoute {
    let callers = callers.iter().map(|c| caller(c)).collect();
    TcpRoute { name: RouteName::new(name).unwrap(), ports: vec![], callers, backends }
}

fn opaque(tcp_routes: Vec<TcpRoute>) -> Service {
    let service = in_turns();
    let ports = vec![Port { protocol: Protocol::Tcp, ..service.ports[0] }];
    Service { ports, tcp_routes, ..service }.checked().unwrap()
}

async fn shop(tcp_routes: Vec<TcpRoute>) -> Shop {
    let mesh = Mesh::new();
    let client = mesh.client_with(&["cart"], 1);
    Shop::seen_by(mesh, client, opaque(tcp_routes)).await
}

/// What becomes of so many connections.
async fn connections(shop: &Shop, times: usize) -> HashMap<String, usize> {
    let mut all = HashMap::new();
    for _ in 0..times {
        *all.entry(who(&ask(shop.client.upstreams[0], get("/", &[])).await)).or_default() += 1;
    }
    all
}

async fn is_refused(shop: &Shop) -> bool {
    let Ok(mut stream) = TcpStream::connect(shop.client.upstreams[0]).await else { return true };
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap();
    read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn the_first_route_whose_callers_hold_takes_a_connection_by_weight() {
    let shop = shop(vec![
        tcp("admins", &["admin"], vec![backend("shop/cart", Some("v2"), 1)]),
        tcp("web", &["web"], vec![backend("shop/cart", Some("v1"), 9), backend("shop/cart", Some("v2"), 1)]),
        tcp("rest", &[], vec![backend("shop/cart", Some("v2"), 1)]),
    ])
    .await;
    let all = connections(&shop, 600).await;
    // A tenth of 600, six sigma around.
    assert!((16..=104).contains(&all["v2"]) && all["v1"] + all["v2"] == 600, "{all:?}");
}

#[tokio::test]
async fn a_connection_for_which_no_route_is_and_one_that_leads_nowhere_are_refused_and_counted() {
    let shop = shop(vec![tcp("admins", &["admin"], vec![backend("shop/cart", Some("v2"), 1)])]).await;
    let stats = shop.client.live.ports.handle(Side::Client, &"shop/cart".parse().unwrap(), 80);
    assert!(is_refused(&shop).await);
    eventually("it is counted", || async {
        shop.client.live.counters.refusals(Reason::NoRoute, Hop::Client) == 1
    })
    .await;
    let gone = Backend { unresolved: Some(Unresolved::RefNotPermitted), ..backend("shop/gone", None, 1) };
    shop.change(opaque(vec![tcp("gone", &[], vec![gone])]));
    assert!(is_refused(&shop).await);
    eventually("it is counted", || async {
        shop.client.live.counters.refusals(Reason::UnresolvedBackend, Hop::Client) == 1
    })
    .await;
    assert_eq!((shop.v1.connections(), shop.v2.connections(), stats.open()), (0, 0, 0));
    // Without a route everything goes to all again.
    shop.change(opaque(vec![]));
    assert_eq!(connections(&shop, 40).await.len(), 2);
}

#[tokio::test]
async fn a_route_for_another_port_is_none_and_a_backend_may_be_another_service() {
    let other = Origin::named("other").await;
    let number = |n| outrigger_mesh::PortNumber::new(n).unwrap();
    let mut elsewhere = tcp("elsewhere", &[], vec![backend("shop/other", None, 1)]);
    elsewhere.ports = vec![number(9_999)];
    let shop = shop(vec![elsewhere.clone()]).await;
    assert_eq!(connections(&shop, 40).await.len(), 2, "no route is for this port");
    elsewhere.ports = vec![number(80)];
    let service = open_service("shop/other");
    let ports = vec![Port { protocol: Protocol::Tcp, ..service.ports[0] }];
    shop.client.knows(Service { ports, ..service }, [plain("shop/other", "o", other.addr())]);
    shop.change(opaque(vec![elsewhere]));
    assert_eq!(connections(&shop, 5).await, HashMap::from([("other".into(), 5)]));
}
