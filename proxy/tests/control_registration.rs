//! How an instance becomes known and goes, over real connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod control_common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control_common::{Sidecar, web};
use outrigger_mesh::{Division, Endpoint, PortNumber, Service, Side, TrafficKey, Version, Weight};
use outrigger_proxy::admin::Readiness;
use outrigger_proxy::attempt::balance::Known;
use outrigger_proxy::registration::{Instance, InstancePort, Registrar, RegistrationRefused, Withdrawer};
use outrigger_proxy::telemetry::reports;
use outrigger_testkit::{Origin, PlanServer, eventually, resources};
use outrigger_wire::rpc::{RpcError, RpcErrorKind};
use tokio::task::JoinHandle;

type Running = (Withdrawer, Readiness, JoinHandle<Result<(), RegistrationRefused>>);

fn start(sidecar: &Sidecar, application: SocketAddr) -> Running {
    start_as(false, sidecar, application)
}

fn start_in_cluster(sidecar: &Sidecar, application: SocketAddr) -> Running {
    start_as(true, sidecar, application)
}

fn start_as(in_cluster: bool, sidecar: &Sidecar, application: SocketAddr) -> Running {
    let instance = Instance {
        service: "shop/web".parse().unwrap(),
        uid: "web-1".parse().unwrap(),
        ip: [127, 0, 0, 1].into(),
        ports: vec![InstancePort {
            listen: PortNumber::new(15006).unwrap(),
            service_port: None,
            application,
        }],
        version: Some("v1".parse().unwrap()),
        zone: None,
        weight: Weight::default(),
        in_cluster,
    };
    let readiness = Readiness::default();
    let (registrar, withdrawer) = Registrar::new(
        instance,
        sidecar.control.clone(),
        Arc::clone(&sidecar.registry),
        readiness.clone(),
        sidecar.link.connections(),
    );
    (withdrawer, readiness, tokio::spawn(registrar.run()))
}

/// Whether it gives this as a reason for not being ready.
fn says(readiness: &Readiness, what: &'static str) -> impl Fn() -> std::future::Ready<bool> {
    let readiness = readiness.clone();
    move || std::future::ready(readiness.reasons().iter().any(|reason| reason.contains(what)))
}

#[tokio::test]
async fn an_instance_registers_once_rules_and_application_are_there() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut application = Origin::start().await;
    application.refuse().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.linked().await;
    let (_withdrawer, readiness, _task) = start(&sidecar, application.addr());
    let says = |what| says(&readiness, what);
    eventually("it waits for the application", says("does not accept connections")).await;
    application.listen_again().await;
    eventually("it waits for its rules", says("rules of the inbound side")).await;
    assert_eq!(server.registrations(), 0);

    let mut service = resources::service("shop/web");
    service.ports[0].number = PortNumber::new(8080).unwrap();
    server.set(resources::inbound(&web(), &[&service]));
    eventually("it registers", || async { server.registered().len() == 1 }).await;
    let endpoint = &server.registered()[0];
    let ports: Vec<_> = endpoint.ports.iter().map(|p| (p.port.get(), p.listen.get())).collect();
    assert_eq!(ports, [(8080, 15006)], "the first port of the service");
    eventually("it is ready", || async { readiness.is_ready() }).await;
}

#[tokio::test]
async fn a_lease_is_renewed_and_a_forgetful_control_plane_is_told_again_at_once() {
    let mut server = PlanServer::start().await;
    server.set_lease(Duration::from_millis(600));
    server.set(resources::inbound(&web(), &[&resources::service("shop/web")]));
    let folder = tempfile::tempdir().unwrap();
    let application = Origin::start().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    let (_withdrawer, readiness, _task) = start(&sidecar, application.addr());
    eventually("it renews", || async { server.registrations() >= 3 }).await;

    server.set_lease(Duration::from_secs(3600));
    let before = server.registrations();
    eventually("it has the long lease", || async { server.registrations() > before }).await;
    server.kill().await;
    server.revive(false).await;
    eventually("it is registered again", || async { server.registered().len() == 1 }).await;
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn a_workload_that_may_not_serve_the_service_is_told_why_and_ends() {
    let server = PlanServer::start().await;
    server.set(resources::inbound(&web(), &[]));
    let why = "spiffe://mesh.local/ns/shop/sa/web may not serve shop/web";
    server.refuse_registration(Some(RpcError::new(RpcErrorKind::Denied, why)));
    let folder = tempfile::tempdir().unwrap();
    let application = Origin::start().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    let (_withdrawer, _readiness, task) = start(&sidecar, application.addr());
    let refused = task.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains(why) && refused.contains("shop/web"), "{refused}");
}

/// A pod behind a Service with a port at which it does not listen was ready without the mesh, and never with it.
#[tokio::test]
async fn a_pod_is_ready_once_its_rules_are_there_whether_or_not_it_can_register() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut application = Origin::start().await;
    application.refuse().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.linked().await;
    let (withdrawer, readiness, task) = start_in_cluster(&sidecar, application.addr());
    let says = |what| says(&readiness, what);
    eventually("it waits for its rules", says("rules of the inbound side have not come")).await;
    server.set(resources::inbound(&web(), &[]));
    eventually("those of others are not its own", says("do not name shop/web")).await;
    server.set(resources::inbound(&web(), &[&resources::service("shop/web")]));
    eventually("it is ready", || async { readiness.is_ready() }).await;
    assert_eq!(server.registrations(), 0, "nobody listens");
    // It leaves as any other does, registered or not.
    withdrawer.withdraw(Duration::from_secs(5)).await;
    drop(withdrawer);
    task.await.unwrap().unwrap();
}

/// The control plane may not have seen the slice in which a pod is when the pod registers. The first refusal ended its sidecar.
#[tokio::test]
async fn a_pod_that_is_refused_goes_on_and_tries_again() {
    let server = PlanServer::start().await;
    server.set(resources::inbound(&web(), &[&resources::service("shop/web")]));
    let folder = tempfile::tempdir().unwrap();
    let application = Origin::start().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    for kind in [RpcErrorKind::Denied, RpcErrorKind::Invalid] {
        let why = "spiffe://mesh.local/ns/shop/sa/web may not serve shop/web";
        server.refuse_registration(Some(RpcError::new(kind, why)));
        let (withdrawer, readiness, task) = start_in_cluster(&sidecar, application.addr());
        eventually("it is ready all the same", || async { readiness.is_ready() }).await;
        // More than one try fails.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!task.is_finished() && readiness.is_ready());
        assert_eq!(server.registered(), []);
        server.refuse_registration(None);
        eventually("it registers", || async { server.registered().len() == 1 }).await;
        withdrawer.withdraw(Duration::from_secs(5)).await;
        assert_eq!(server.registered(), []);
    }
}

#[tokio::test]
async fn a_service_that_does_not_exist_yet_is_waited_for() {
    let server = PlanServer::start().await;
    server.set(resources::inbound(&web(), &[]));
    server.refuse_registration(Some(RpcError::new(RpcErrorKind::NotFound, "there is no service shop/web")));
    let folder = tempfile::tempdir().unwrap();
    let application = Origin::start().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    let (_withdrawer, readiness, _task) = start(&sidecar, application.addr());
    let says = || async { readiness.reasons().iter().any(|r| r.contains("no service")) };
    eventually("/ready says why", says).await;
    server.refuse_registration(None);
    eventually("it registers", || async { server.registered().len() == 1 }).await;
}

#[tokio::test]
async fn a_withdrawal_returns_when_the_subscribers_know_and_nothing_registers_after_it() {
    let server = PlanServer::start().await;
    server.set_lease(Duration::from_millis(300));
    server.set(resources::service("shop/web"));
    server.set(resources::inbound(&web(), &[&resources::service("shop/web")]));
    let folder = tempfile::tempdir().unwrap();
    let application = Origin::start().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    let (withdrawer, _readiness, task) = start(&sidecar, application.addr());
    sidecar.learns("web").await;
    eventually("callers see it", || async { sidecar.shape("shop/web") == Some((1, 0)) }).await;

    withdrawer.withdraw(Duration::from_secs(5)).await;
    assert_eq!(server.registered(), []);
    withdrawer.withdraw(Duration::from_secs(5)).await;
    let before = server.registrations();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((server.registrations(), server.registered().len()), (before, 0));
    drop(withdrawer);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_withdrawal_without_a_control_plane_does_not_hang() {
    let mut server = PlanServer::start().await;
    server.set(resources::inbound(&web(), &[&resources::service("shop/web")]));
    let folder = tempfile::tempdir().unwrap();
    let application = Origin::start().await;
    let sidecar = Sidecar::start(&server, folder.path()).await;
    let (withdrawer, readiness, _task) = start(&sidecar, application.addr());
    eventually("it is registered", || async { readiness.is_ready() }).await;
    server.kill().await;
    let start = std::time::Instant::now();
    withdrawer.withdraw(Duration::from_secs(5)).await;
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn traffic_is_reported_once_and_after_an_absence() {
    let mut server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.linked().await;
    let key = TrafficKey {
        side: Side::Client,
        service: "shop/cart".parse().unwrap(),
        version: None,
        caller: Some(web()),
    };
    let handle = sidecar.live.traffic.handle(&key);
    let registry = Arc::clone(&sidecar.registry);
    sidecar.tasks.spawn(reports::report(Arc::clone(&sidecar.live), registry, sidecar.control.clone()));
    handle.record(true, Duration::from_millis(3));
    let told = |server: &PlanServer| -> u64 {
        server.reports().iter().flat_map(|(_, r)| &r.traffic).map(|(_, s)| s.requests).sum()
    };
    eventually("it is told", || async { told(&server) == 1 }).await;
    server.kill().await;
    handle.record(true, Duration::from_millis(3));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    server.revive(true).await;
    eventually("it is told later", || async { told(&server) == 2 }).await;
}

#[tokio::test]
async fn that_nothing_of_a_divided_services_version_is_well_is_told_without_traffic_and_so_is_its_end() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (stable, candidate): (Version, Version) = ("v1".parse().unwrap(), "v2".parse().unwrap());
    let division = Division {
        stable: stable.clone(),
        candidate: candidate.clone(),
        share: 0,
        preview: vec![],
        by: None,
    };
    server.set(Service { division: Some(division), ..resources::service("shop/cart") });
    for (uid, version) in [("cart-1", &stable), ("cart-2", &candidate)] {
        let endpoint = resources::endpoint("shop/cart", uid, ([127, 0, 0, 1], 9).into());
        server.set(Endpoint { version: Some(version.clone()), ..endpoint });
    }
    let mut sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.linked().await;
    eventually("it knows the service", || async { sidecar.knows("cart.shop") }).await;
    let registry = Arc::clone(&sidecar.registry);
    let cart = move || registry.live_service(&"shop/cart".parse().unwrap());
    eventually("with its endpoints", || async { cart().is_some_and(|cart| cart.is_loaded()) }).await;
    let finds = |known| {
        let endpoints = cart().unwrap().endpoints.load_full();
        endpoints.subset(Some(&candidate)).members.iter().for_each(|view| view.live.health.set(known));
    };
    finds(Known::Unwell);
    let (of_live, registry) = (Arc::clone(&sidecar.live), Arc::clone(&sidecar.registry));
    let control = sidecar.control.clone();
    sidecar.tasks.spawn(reports::report(of_live, registry, control));
    let told = || -> Vec<(String, u32, u32)> {
        let last = server.reports().pop().map(|(_, report)| report.seen).unwrap_or_default();
        last.into_iter().map(|seen| (seen.version.to_string(), seen.endpoints, seen.well)).collect()
    };
    let bad = [("v1".to_owned(), 1, 1), ("v2".to_owned(), 1, 0)];
    eventually("it is told", || async { told() == bad }).await;
    finds(Known::Well);
    let good = [("v1".to_owned(), 1, 1), ("v2".to_owned(), 1, 1)];
    eventually("its end is told", || async { told() == good }).await;
    let before = server.reports().len();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(server.reports().len(), before, "no news, and no traffic");
}
