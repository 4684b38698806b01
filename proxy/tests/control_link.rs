//! The link to the control plane, over real connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod control_common;

use control_common::{Sidecar, source_settings, web};
use outrigger_mesh::{
    Backend, ConsumerRoutes, Resource, ResourceKind, ResourceName, Route, RouteName, Selector, Service,
    TrustDomain,
};
use outrigger_proxy::config::registry::{Discovery, Found};
use outrigger_proxy::config::source;
use outrigger_testkit::{PlanServer, eventually, resources};
use outrigger_wire::Encoded;

fn endpoint(service: &str, uid: &str) -> outrigger_mesh::Endpoint {
    resources::endpoint(service, uid, "127.0.0.1:9000".parse().unwrap())
}

fn routed(service: &str, to: &[&str]) -> Service {
    let backends = to.iter().map(|to| Backend::to(to.parse().unwrap()));
    let route = Route { backends: backends.collect(), ..Route::new(RouteName::new("r").unwrap()) };
    Service { routes: vec![route], ..resources::service(service) }
}

#[tokio::test]
async fn a_name_is_asked_for_at_its_first_use_and_nothing_else_is_sent() {
    let server = PlanServer::start().await;
    server.set(resources::service("shop/cart"));
    server.set(endpoint("shop/cart", "cart-1"));
    server.set(resources::service("shop/unused"));
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;

    sidecar.learns("cart").await;
    assert_eq!(sidecar.shape("shop/cart"), Some((1, 0)));
    assert!(sidecar.knows("cart.shop.svc.cluster.local"));
    eventually("a name that nobody has is unknown", || async { sidecar.is_unknown("nobody") }).await;

    let selectors = || server.proxy(&web()).map(|p| p.selectors).unwrap_or_default();
    let of_hosts = |s: &Selector| matches!(s, Selector::Host(_));
    eventually("answered names are no longer followed", || async { !selectors().iter().any(of_hosts) }).await;
    assert!(selectors().contains(&Selector::EndpointsOf("shop/cart".parse().unwrap())));
    assert!(!selectors().iter().any(|s| s.to_string().contains("unused")));

    // What was unknown is asked for again, and by then it is there.
    server.set(resources::service("shop/nobody"));
    sidecar.learns("nobody").await;
}

#[tokio::test]
async fn changes_arrive_and_are_acknowledged_by_revision() {
    let server = PlanServer::start().await;
    server.set(resources::service("shop/cart"));
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.learns("cart").await;
    assert_eq!(sidecar.shape("shop/cart"), Some((0, 0)));

    server.set(endpoint("shop/cart", "cart-1"));
    server.set(endpoint("shop/cart", "cart-2"));
    let revision = server.set(routed("shop/cart", &["shop/cart", "shop/other"]));
    server.acknowledged(&web(), revision).await;
    assert_eq!(sidecar.shape("shop/cart"), Some((2, 1)));
    let wanted = Selector::EndpointsOf("shop/other".parse().unwrap());
    let asked = || async { server.proxy(&web()).is_some_and(|p| p.selectors.contains(&wanted)) };
    eventually("the backends of its routes are followed too", asked).await;

    let cart = "shop/cart".parse().unwrap();
    let revision = server.remove(&ResourceName::Endpoint(cart, "cart-1".parse().unwrap()));
    server.acknowledged(&web(), revision).await;
    assert_eq!(sidecar.shape("shop/cart"), Some((1, 1)));
    let revision = server.remove(&ResourceName::Service("shop/cart".parse().unwrap()));
    server.acknowledged(&web(), revision).await;
    assert!(sidecar.shape("shop/cart").is_none());
}

#[tokio::test]
async fn what_the_own_namespace_says_of_a_service_of_another_is_asked_for_and_holds_from_the_first_request() {
    let server = PlanServer::start().await;
    server.set(routed("stock/items", &["stock/items", "stock/items", "stock/items"]));
    server.set(resources::service("stock/plain"));
    let routes = routed("stock/items", &["shop/cart", "stock/items"]).routes;
    let (namespace, service) = ("shop".parse().unwrap(), "stock/items".parse().unwrap());
    server.set(ConsumerRoutes { namespace, service, routes, tcp_routes: vec![] });
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;
    let targets = |name: &str| {
        let Found::Known(live) = sidecar.registry.find_service(&name.parse().unwrap()) else { return None };
        let snapshot = live.snapshot.load_full()?;
        Some(snapshot.service.routes.iter().flat_map(|r| &r.backends).count())
    };
    eventually("it is known", || async {
        targets("stock/items").is_some_and(|n| {
            assert_eq!(n, 2, "never the routes of the service itself");
            true
        })
    })
    .await;
    eventually("one of which nothing is said is ready, too", || async { targets("stock/plain") == Some(0) })
        .await;
    let own = ResourceName::ConsumerRoutes("shop".parse().unwrap(), "stock/items".parse().unwrap());
    server.remove(&own);
    eventually("they are gone", || async { targets("stock/items") == Some(3) }).await;
}

#[tokio::test]
async fn what_the_own_namespace_says_holds_after_a_restart_while_the_control_plane_is_away() {
    let mut server = PlanServer::start().await;
    server.set(routed("stock/items", &["stock/items", "stock/items", "stock/items"]));
    let routes = routed("stock/items", &["shop/cart", "stock/items"]).routes;
    let (namespace, service) = ("shop".parse().unwrap(), "stock/items".parse().unwrap());
    server.set(ConsumerRoutes { namespace, service, routes, tcp_routes: vec![] });
    let folder = tempfile::tempdir().unwrap();
    let targets = |sidecar: &Sidecar| {
        let Found::Known(live) = sidecar.registry.find_service(&"stock/items".parse().unwrap()) else {
            return None;
        };
        Some(live.snapshot.load_full()?.service.routes.iter().flat_map(|r| &r.backends).count())
    };
    let first = Sidecar::start(&server, folder.path()).await;
    eventually("it is known", || async { targets(&first) == Some(2) }).await;
    eventually("it is on disk", || async {
        let copy = source::load_copy(&source_settings(Some(folder.path().into()))).unwrap();
        copy.is_some_and(|c| c.resources.iter().any(|r| matches!(r, Resource::ConsumerRoutes(_))))
    })
    .await;
    drop(first);
    server.kill().await;

    let second = Sidecar::start_with(&server, folder.path(), None).await.unwrap();
    assert_eq!(targets(&second), Some(2), "from the first request on");
    // They are taken away while nobody can tell.
    server.remove(&ResourceName::ConsumerRoutes("shop".parse().unwrap(), "stock/items".parse().unwrap()));
    server.revive(true).await;
    eventually("it catches up", || async { targets(&second) == Some(3) }).await;
}

#[tokio::test]
async fn a_bad_resource_costs_only_itself_and_its_reason_arrives() {
    let server = PlanServer::start().await;
    server.set(resources::service("shop/cart"));
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.learns("cart").await;

    // One that can not be decoded, and at the same time a good one.
    let mut broken = Encoded::new(&Resource::Service(routed("shop/cart", &["shop/a"])));
    broken.payload = vec![0xff; 40].into();
    server.set_bytes(broken);
    let rejected = || server.proxy(&web()).map(|p| p.rejected).unwrap_or_default();
    eventually("the reason arrives", || async { !rejected().is_empty() }).await;
    let revision = server.set(endpoint("shop/cart", "cart-1"));
    server.acknowledged(&web(), revision).await;
    assert_eq!(rejected().len(), 1);
    assert_eq!((rejected()[0].0, rejected()[0].1.name.as_str()), (ResourceKind::Service, "shop/cart"));
    assert_eq!(sidecar.shape("shop/cart"), Some((1, 0)), "the last good one stays in force");
    assert_eq!(sidecar.link.dump()["rejected"][0]["name"], "shop/cart");

    // One that can be read and not be obeyed: more backends than any service may name.
    let names: Vec<String> = (0..300).map(|i| format!("shop/s{i}")).collect();
    let many: Vec<&str> = names.iter().map(String::as_str).collect();
    server.set(routed("shop/cart", &many));
    let told = || async { rejected().iter().any(|r| r.1.reason.contains("more than 256 services")) };
    eventually("the reason arrives, which is another", told).await;
    assert_eq!(sidecar.shape("shop/cart"), Some((1, 0)));

    // And it heals.
    let revision = server.set(routed("shop/cart", &["shop/cart"]));
    server.acknowledged(&web(), revision).await;
    assert_eq!((sidecar.shape("shop/cart"), rejected()), (Some((1, 1)), vec![]));
    assert_eq!(sidecar.link.dump()["rejected"], serde_json::json!([]));
}

#[tokio::test]
async fn a_killed_control_plane_costs_nothing_known_and_is_found_again() {
    let mut server = PlanServer::start().await;
    server.set(resources::service("shop/cart"));
    server.set(endpoint("shop/cart", "cart-1"));
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.learns("cart").await;

    server.kill().await;
    eventually("the loss is noticed", || async { sidecar.registry.discovery() == Discovery::Away }).await;
    assert_eq!(sidecar.shape("shop/cart"), Some((1, 0)));
    assert!(!sidecar.knows("prices"));

    server.set(endpoint("shop/cart", "cart-2"));
    server.set(resources::service("shop/prices"));
    server.revive(true).await;
    eventually("what changed meanwhile arrives", || async { sidecar.shape("shop/cart") == Some((2, 0)) })
        .await;
    sidecar.learns("prices").await;
    assert_eq!(*sidecar.link.connections().borrow(), 2);
}

#[tokio::test]
async fn a_sidecar_started_while_the_control_plane_is_away_serves_from_its_disk() {
    let mut server = PlanServer::start().await;
    server.set(resources::service("shop/cart"));
    server.set(resources::service("shop/empty"));
    server.set(endpoint("shop/cart", "cart-1"));
    server.set(resources::inbound(&web(), &[]));
    let folder = tempfile::tempdir().unwrap();
    let first = Sidecar::start(&server, folder.path()).await;
    first.learns("cart").await;
    first.learns("empty").await;
    eventually("the copy is complete", || async {
        let copy = source::load_copy(&source_settings(Some(folder.path().into()))).unwrap();
        copy.is_some_and(|c| c.resources.len() == 5)
    })
    .await;
    drop(first);
    server.kill().await;

    let second = Sidecar::start_with(&server, folder.path(), None).await.unwrap();
    assert!(second.knows("cart") && second.knows("empty"));
    assert_eq!(second.shape("shop/cart"), Some((1, 0)));
    assert_eq!(second.registry.inbound().unwrap().identity, web());

    // One of them goes, one comes, while nobody can tell.
    server.remove(&ResourceName::Endpoint("shop/cart".parse().unwrap(), "cart-1".parse().unwrap()));
    server.set(endpoint("shop/empty", "empty-1"));
    server.revive(true).await;
    let caught_up =
        || async { (second.shape("shop/cart"), second.shape("shop/empty")) == (Some((0, 0)), Some((1, 0))) };
    eventually("it catches up", caught_up).await;
}

#[tokio::test]
async fn a_copy_with_one_flipped_bit_is_refused_and_not_overwritten() {
    let server = PlanServer::start().await;
    server.set(resources::service("shop/cart"));
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.learns("cart").await;
    let file = folder.path().join("snapshot.bundle");
    eventually("it is stored", || async { file.exists() }).await;
    drop(sidecar);

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, &bytes).unwrap();
    let error = source::load_copy(&source_settings(Some(folder.path().into()))).unwrap_err().to_string();
    assert!(error.contains("snapshot.bundle") && error.contains("checksum"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn new_roots_are_believed_and_a_withdrawal_of_all_roots_is_not() {
    let server = PlanServer::start().await;
    server.set(resources::service("shop/cart"));
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.learns("cart").await;
    let domain = TrustDomain::new(resources::TRUST_DOMAIN).unwrap();
    let revision = server.remove(&ResourceName::Trust(domain.clone()));
    server.acknowledged(&web(), revision).await;
    assert!(sidecar.link.is_connected());
    // Roots that are no certificates are refused with a reason.
    server.set(outrigger_mesh::Trust { trust_domain: domain, roots: vec![b"nonsense".as_slice().into()] });
    let told = || async { server.proxy(&web()).is_some_and(|p| !p.rejected.is_empty()) };
    eventually("the reason arrives", told).await;
    // And a new connection still verifies the control plane.
    sidecar
        .control
        .client()
        .register(outrigger_wire::rpc::Registration { endpoint: endpoint("shop/web", "w") })
        .await
        .unwrap();
}
