//! Services found by name, against a name server that changes its mind and its mood.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use outrigger_mesh::{
    DnsTarget, Location, MeshSettings, MtlsMode, PortNumber, Resource, ResourceName, Service, SrvName,
};
use outrigger_proxy::config::registry::Change;
use outrigger_proxy::live::OwnPorts;
use outrigger_proxy::settings::DnsSettings;
use outrigger_testkit::{Client, DnsServer, DnsTransport, Mood, Origin, Owned, eventually, resources};
use serde_json::Value;
use support::{Mesh, Sidecar};

/// A client's sidecar that asks `dns`.
fn asking(mesh: &Mesh, dns: &DnsServer) -> (Sidecar, Owned) {
    let sidecar = mesh.client();
    let settings = DnsSettings { servers: vec![dns.addr()], listen: vec![] };
    let own_ports = OwnPorts(vec![sidecar.outbound]);
    let names = outrigger_proxy::dns::start(
        &settings,
        &sidecar.registry,
        &sidecar.live,
        &own_ports,
        vec![],
        domain(),
    );
    (sidecar, Owned::spawn(names))
}

fn domain() -> outrigger_mesh::TrustDomain {
    resources::TRUST_DOMAIN.parse().unwrap()
}

fn found_at(name: &str, targets: Vec<DnsTarget>) -> Service {
    let location = Location::Dns { targets, tls: None, outside: false };
    Service { location, mtls: MtlsMode::Off.into(), identities: vec![], ..resources::service(name) }
}

fn host(name: &str, at: SocketAddr) -> DnsTarget {
    DnsTarget::Host { name: name.parse().unwrap(), port: PortNumber::new(at.port()) }
}

fn srv(name: &str) -> DnsTarget {
    DnsTarget::Srv(SrvName::new(name).unwrap())
}

fn local() -> [std::net::IpAddr; 1] {
    ["127.0.0.1".parse().unwrap()]
}

async fn get(sidecar: &Sidecar) -> (u16, Option<String>, String) {
    let reply = Client::h1(sidecar.outbound).await.get("db", "/").await.unwrap();
    let reason = reply.header("x-outrigger-reason").map(str::to_owned);
    (reply.status.as_u16(), reason, reply.text())
}

fn cluster(sidecar: &Sidecar) -> Value {
    let clusters = sidecar.registry.clusters();
    clusters.as_array().unwrap().iter().find(|c| c["service"] == "shop/db").unwrap().clone()
}

fn addresses(sidecar: &Sidecar) -> Vec<String> {
    let cluster = cluster(sidecar);
    let all = cluster["endpoints"].as_array().unwrap().iter();
    all.map(|e| e["addresses"][0].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_service_found_by_name_serves_and_follows_its_time_to_live() {
    let (mesh, dns) = (Mesh::new(), DnsServer::start().await);
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    dns.host("a.test", 300, &local());
    dns.srv("_db._tcp.test", 1, &[(0, 0, first.addr().port(), "a.test")]);
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![srv("_db._tcp.test")]), []);
    assert_eq!(get(&sidecar).await.0, 200);
    dns.srv("_db._tcp.test", 1, &[(0, 0, second.addr().port(), "a.test")]);
    let moved = Instant::now();
    eventually("the new port is used", || async {
        assert_eq!(get(&sidecar).await.0, 200, "nothing fails on the way");
        second.requests() > 0
    })
    .await;
    assert!(moved.elapsed() < Duration::from_secs(8), "{:?}", moved.elapsed());
    assert_eq!(dns.asked_for("a.test", "A"), 1, "300 s are 300 s");
}

#[tokio::test]
async fn the_first_request_waits_for_the_first_answer() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.host("db.test", 60, &local());
    dns.mood(Mood::Slow(Duration::from_millis(400)));
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    let began = Instant::now();
    assert_eq!(get(&sidecar).await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(get(&sidecar).await.0, 200);
}

#[tokio::test]
async fn answers_are_kept_while_the_server_is_away_and_what_is_gone_is_gone() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.host("db.test", 1, &local());
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    assert_eq!(get(&sidecar).await.0, 200);
    dns.mood(Mood::ServFail);
    eventually("it shows as stale", || async { cluster(&sidecar)["lookup"]["stale"] == true }).await;
    assert!(sidecar.live.prometheus().contains("outrigger_dns_stale_services 1\n"));
    assert!(cluster(&sidecar)["lookup"]["error"].as_str().unwrap().contains("db.test"));
    assert_eq!(get(&sidecar).await.0, 200, "and serves on");
    dns.mood(Mood::Silent);
    assert_eq!(get(&sidecar).await.0, 200);
    dns.mood(Mood::Normal);
    eventually("it is fresh again", || async { cluster(&sidecar)["lookup"]["stale"] == false }).await;
    assert_eq!(sidecar.live.dns.stale_services.load(Relaxed), 0);
    dns.forget("db.test");
    eventually("there is no endpoint", || async {
        let (status, reason, _) = get(&sidecar).await;
        (status, reason.as_deref()) == (503, Some("no_endpoint"))
    })
    .await;
    dns.host("db.test", 1, &local());
    eventually("it is back", || async { get(&sidecar).await.0 == 200 }).await;
}

#[tokio::test]
async fn without_any_answer_the_reason_is_told_and_only_the_first_caller_waits() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.host("db.test", 60, &local());
    dns.mood(Mood::ServFail);
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    let (status, reason, text) = get(&sidecar).await;
    assert_eq!((status, reason.as_deref()), (503, Some("no_endpoint")));
    assert!(text.contains("db.test"), "{text}");
    let began = Instant::now();
    assert_eq!(get(&sidecar).await.0, 503);
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert!(sidecar.live.dns.lookup_failures.load(Relaxed) >= 2);
    dns.mood(Mood::Normal);
    eventually("it is found", || async { get(&sidecar).await.0 == 200 }).await;
}

#[tokio::test]
async fn a_silent_name_server_costs_the_first_caller_two_seconds_at_most() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.mood(Mood::Silent);
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    let began = Instant::now();
    let (status, reason, _) = get(&sidecar).await;
    assert_eq!((status, reason.as_deref()), (503, Some("no_endpoint")));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    dns.host("db.test", 60, &local());
    dns.mood(Mood::Normal);
    eventually("it is found once the server speaks", || async { get(&sidecar).await.0 == 200 }).await;
}

#[tokio::test]
async fn a_long_answer_is_asked_for_again_over_tcp() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.host("db.test", 60, &local());
    dns.mood(Mood::Truncated);
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    assert_eq!(get(&sidecar).await.0, 200);
    assert!(dns.asked_over("db.test", DnsTransport::Tcp) >= 1);
}

#[tokio::test]
async fn a_forged_answer_that_guesses_the_id_wrong_is_passed_over() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.host("db.test", 60, &local());
    dns.mood(Mood::ForgedFirst);
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    assert_eq!(get(&sidecar).await.0, 200);
}

#[tokio::test]
async fn weights_of_srv_records_share_the_traffic_within_the_lowest_priority() {
    let (mesh, dns) = (Mesh::new(), DnsServer::start().await);
    let (heavy, light, spare) = (Origin::start().await, Origin::start().await, Origin::start().await);
    dns.host("a.test", 60, &local());
    dns.srv(
        "_db._tcp.test",
        60,
        &[
            (10, 90, heavy.addr().port(), "a.test"),
            (10, 10, light.addr().port(), "a.test"),
            (20, 100, spare.addr().port(), "a.test"),
        ],
    );
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![srv("_db._tcp.test")]), []);
    for _ in 0..100 {
        assert_eq!(get(&sidecar).await.0, 200);
    }
    assert_eq!(spare.requests(), 0);
    let weights: Vec<_> =
        cluster(&sidecar)["endpoints"].as_array().unwrap().iter().map(|e| e["weight"].clone()).collect();
    assert!(weights.contains(&9000.into()) && weights.contains(&1000.into()), "{weights:?}");
    assert!(heavy.requests() > light.requests(), "{} {}", heavy.requests(), light.requests());
}

#[tokio::test]
async fn a_name_that_leads_into_the_mesh_or_back_to_the_sidecar_is_refused() {
    let (mesh, dns) = (Mesh::new(), DnsServer::start().await);
    let (sidecar, _names) = asking(&mesh, &dns);
    let own = ["127.0.0.1", "240.0.0.7", "0.0.0.0", "224.0.0.1"].map(|ip| ip.parse().unwrap());
    dns.host("db.test", 60, &own);
    sidecar.knows(found_at("shop/db", vec![host("db.test", sidecar.outbound)]), []);
    let (status, reason, _) = get(&sidecar).await;
    assert_eq!((status, reason.as_deref()), (503, Some("no_endpoint")));
    assert_eq!(cluster(&sidecar)["lookup"]["refusedAddresses"], 4);
    assert!(addresses(&sidecar).is_empty());
}

#[tokio::test]
async fn a_name_of_the_mesh_is_never_asked_for_outside() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.set(Resource::Mesh(MeshSettings::new(resources::TRUST_DOMAIN.parse().unwrap())));
    sidecar.knows(found_at("shop/db", vec![host("db.shop.mesh", origin.addr())]), []);
    assert!(get(&sidecar).await.2.contains("name of the mesh"));
    assert_eq!(dns.questions(), 0);
}

#[tokio::test]
async fn only_services_in_use_are_looked_up_and_only_for_as_long_as_they_are_there() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.host("db.test", 1, &local());
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(dns.questions(), 0, "nobody has called it");
    assert_eq!(get(&sidecar).await.0, 200);
    eventually("it is kept up", || async { dns.asked("db.test") > 2 }).await;
    sidecar.registry.apply(Change::Remove(ResourceName::Service("shop/db".parse().unwrap()))).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = dns.questions();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(dns.questions(), asked, "its task ended with it");
}

#[tokio::test]
async fn endpoints_that_stay_keep_their_connections_and_what_was_learnt() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    dns.host("db.test", 1, &local());
    let (sidecar, _names) = asking(&mesh, &dns);
    sidecar.knows(found_at("shop/db", vec![host("db.test", origin.addr())]), []);
    assert_eq!(get(&sidecar).await.0, 200);
    dns.host("db.test", 1, &["127.0.0.1", "127.0.0.2"].map(|ip| ip.parse().unwrap()));
    eventually("there are two", || async { addresses(&sidecar).len() == 2 }).await;
    dns.host("db.test", 1, &local());
    eventually("there is one", || async { addresses(&sidecar).len() == 1 }).await;
    assert_eq!(get(&sidecar).await.0, 200);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_service_that_is_found_in_another_way_from_now_on_leaves_nothing_behind() {
    let (mesh, dns) = (Mesh::new(), DnsServer::start().await);
    let (named, pushed) = (Origin::named("named").await, Origin::named("pushed").await);
    dns.host("db.test", 60, &local());
    let (sidecar, _names) = asking(&mesh, &dns);
    let by_name = found_at("shop/db", vec![host("db.test", named.addr())]);
    let registered = Service { location: Location::Mesh, ..by_name.clone() };
    for round in 1..=2 {
        sidecar.knows(by_name.clone(), [support::plain("shop/db", "i-1", pushed.addr())]);
        assert_eq!(get(&sidecar).await.0, 200);
        assert_eq!((named.requests(), pushed.requests()), (round, round - 1));
        sidecar.knows(registered.clone(), []);
        assert_eq!(get(&sidecar).await.0, 200);
        assert_eq!((named.requests(), pushed.requests()), (round, round));
    }
}

#[tokio::test]
async fn addresses_need_no_name_server() {
    let (mesh, dns, origin) = (Mesh::new(), DnsServer::start().await, Origin::start().await);
    let (sidecar, _names) = asking(&mesh, &dns);
    let target = DnsTarget::Address { ip: origin.addr().ip(), port: PortNumber::new(origin.addr().port()) };
    sidecar.knows(found_at("shop/db", vec![target]), []);
    assert_eq!((get(&sidecar).await.0, dns.questions()), (200, 0));
}
