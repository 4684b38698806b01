//! Services outside the mesh: TLS added on the application's behalf, and what never leaves the mesh.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Version};
use outrigger_mesh::{
    DnsTarget, Location, MtlsMode, Origination, OutsideRoots, Port, PortNumber, Protocol, Resource, Service,
    SrvName,
};
use outrigger_proxy::config::registry::Change;
use outrigger_proxy::live::OwnPorts;
use outrigger_proxy::settings::DnsSettings;
use outrigger_testkit::{
    Client, DnsServer, Hello, Origin, OutsideAuthority, Owned, RawBackend, Reply, eventually, request,
    resources,
};
use support::{Mesh, Sidecar};

/// A sidecar that finds `api.example` at 127.0.0.1.
struct World {
    sidecar: Sidecar,
    dns: DnsServer,
    _names: Owned,
}

impl World {
    async fn new() -> Self {
        let (sidecar, dns) = (Mesh::new().client(), DnsServer::start().await);
        dns.host("api.example", 60, &["127.0.0.1".parse().unwrap()]);
        let settings = DnsSettings { servers: vec![dns.addr()], listen: vec![] };
        let names = outrigger_proxy::dns::start(
            &settings,
            &sidecar.registry,
            &sidecar.live,
            &OwnPorts::default(),
            vec![],
            domain(),
        );
        Self { sidecar, dns, _names: Owned::spawn(names) }
    }

    async fn get(&self) -> Reply {
        Client::h1(self.sidecar.outbound).await.get("api.example", "/").await.unwrap()
    }

    /// Puts `service` in force and waits until its endpoint at `at` is the one in use.
    async fn knows(&self, service: Service, at: SocketAddr) {
        self.sidecar.knows(service, []);
        if self.sidecar.registry.clusters()[0]["endpoints"].as_array().unwrap().is_empty() {
            return; // Requests wait for the first.
        }
        eventually("the new endpoint is in use", || async {
            let clusters = self.sidecar.registry.clusters();
            clusters[0]["endpoints"][0]["addresses"][0] == at.to_string()
        })
        .await;
    }

    /// The refusal's reason and its text.
    async fn refused(&self, service: Service, at: SocketAddr) -> (String, String) {
        self.knows(service, at).await;
        let reply = self.get().await;
        (reply.header("x-outrigger-reason").unwrap_or_default().to_owned(), reply.text())
    }
}

fn domain() -> outrigger_mesh::TrustDomain {
    resources::TRUST_DOMAIN.parse().unwrap()
}

fn outside(at: SocketAddr, protocol: Protocol, tls: Option<Origination>) -> Service {
    let name = "api.example".parse().unwrap();
    let targets = vec![DnsTarget::Host { name, port: PortNumber::new(at.port()) }];
    Service {
        hostnames: vec!["api.example".parse().unwrap()],
        ports: vec![Port { number: PortNumber::new(443).unwrap(), protocol }],
        location: Location::Dns { targets, tls, outside: true },
        mtls: MtlsMode::Off.into(),
        identities: vec![],
        ..resources::service("shop/payments")
    }
}

#[allow(clippy::unnecessary_wraps, reason = "what a location holds")]
fn tls(authority: &OutsideAuthority) -> Option<Origination> {
    let roots = OutsideRoots::Only(vec![Arc::from(authority.root())]);
    Some(Origination { server_name: None, roots })
}

#[tokio::test]
async fn tls_is_added_for_the_application_and_nothing_of_the_mesh_is_shown() {
    let (world, authority, origin) = (World::new().await, OutsideAuthority::default(), Origin::start().await);
    for (protocol, alpn, version) in [
        (Protocol::Http, "http/1.1", Version::HTTP_11),
        (Protocol::Detect, "http/1.1", Version::HTTP_11),
        (Protocol::Http2, "h2", Version::HTTP_2),
    ] {
        let server = authority.server("api.example", &[alpn], origin.addr()).await;
        world.knows(outside(server.addr(), protocol, tls(&authority)), server.addr()).await;
        let mut client = Client::h1(world.sidecar.outbound).await;
        let mut call = request(Method::POST, "api.example:443", "/pay", "10".into());
        for ours in ["x-outrigger-deadline-ms", "x-outrigger-attempt", "x-forwarded-client-cert"] {
            call.headers_mut().insert(ours, "1".parse().unwrap());
        }
        let reply = client.send(call).await.unwrap();
        assert_eq!(reply.status, 200, "{protocol:?}: {}", reply.text());
        let seen = origin.seen().pop().unwrap();
        let host = (version == Version::HTTP_11).then_some("api.example:443");
        assert_eq!((seen.version, seen.header("host")), (version, host), "{protocol:?}");
        for ours in ["x-outrigger-deadline-ms", "x-outrigger-attempt", "x-forwarded-client-cert"] {
            assert_eq!(seen.header(ours), None, "{ours}");
        }
        let name = Some("api.example".to_owned());
        let hello = Hello { name, alpn: Some(alpn.to_owned()), client_certificate: false };
        assert_eq!(server.seen(), [hello], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_connection_outside_is_used_again_but_not_under_other_roots() {
    let (world, authority, origin) = (World::new().await, OutsideAuthority::default(), Origin::start().await);
    let server = authority.server("api.example", &[], origin.addr()).await;
    for _ in 0..2 {
        // The same service pushed again changes nothing.
        world.sidecar.knows(outside(server.addr(), Protocol::Http, tls(&authority)), []);
        assert_eq!(world.get().await.status, 200);
    }
    assert_eq!(server.seen().len(), 1);
    let stranger = OutsideAuthority::default();
    let (reason, text) =
        world.refused(outside(server.addr(), Protocol::Http, tls(&stranger)), server.addr()).await;
    assert_eq!(reason, "tls_failed", "{text}");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_nothing_and_the_fault_is_told() {
    let (world, authority, origin) = (World::new().await, OutsideAuthority::default(), Origin::start().await);
    let stranger = OutsideAuthority::default();
    let wrong = authority.server("other.example", &[], origin.addr()).await;
    let expired = authority.server_valid("api.example", &[], origin.addr(), -2..-1).await;
    let untrusted = stranger.server("api.example", &[], origin.addr()).await;
    let plain = RawBackend::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    for (at, part) in [
        (wrong.addr(), "not for api.example, but for"),
        (expired.addr(), "expired"),
        (untrusted.addr(), "no root that is trusted"),
        (plain.addr(), "TLS"),
    ] {
        let (reason, text) = world.refused(outside(at, Protocol::Http, tls(&authority)), at).await;
        assert_eq!(reason, "tls_failed", "{part}: {text}");
        assert!(text.contains(part), "{part}: {text}");
    }
    let (_, text) =
        world.refused(outside(wrong.addr(), Protocol::Http2, tls(&authority)), wrong.addr()).await;
    assert!(text.contains("other.example"), "{text}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn the_name_to_prove_can_be_another_than_the_one_looked_up() {
    let (world, authority, origin) = (World::new().await, OutsideAuthority::default(), Origin::start().await);
    let server = authority.server("edge.example", &[], origin.addr()).await;
    let roots = OutsideRoots::Only(vec![Arc::from(authority.root())]);
    let origination = Origination { server_name: Some("edge.example".parse().unwrap()), roots };
    world.sidecar.knows(outside(server.addr(), Protocol::Http, Some(origination)), []);
    assert_eq!(world.get().await.status, 200);
    assert_eq!(server.seen()[0].name.as_deref(), Some("edge.example"));
}

#[tokio::test]
async fn behind_an_srv_name_the_name_that_was_configured_is_proven_not_the_host_that_was_told() {
    let (world, authority, origin) = (World::new().await, OutsideAuthority::default(), Origin::start().await);
    let good = authority.server("shop.example", &[], origin.addr()).await;
    let told = authority.server("api.example", &[], origin.addr()).await;
    for (server, status) in [(&told, 502), (&good, 200)] {
        world.dns.srv("_pay._tcp.shop.example", 1, &[(0, 0, server.addr().port(), "api.example")]);
        let targets = vec![DnsTarget::Srv(SrvName::new("_pay._tcp.shop.example").unwrap())];
        let location = Location::Dns { targets, tls: tls(&authority), outside: true };
        let service = Service { location, ..outside(server.addr(), Protocol::Http, None) };
        world.knows(service, server.addr()).await;
        let reply = world.get().await;
        assert_eq!(reply.status, status, "{}", reply.text());
    }
    assert_eq!(good.seen()[0].name.as_deref(), Some("shop.example"));
}

#[tokio::test]
async fn a_service_outside_without_tls_is_plaintext_and_the_systems_roots_know_no_private_authority() {
    let (world, authority, origin) = (World::new().await, OutsideAuthority::default(), Origin::start().await);
    world.sidecar.knows(outside(origin.addr(), Protocol::Http, None), []);
    assert_eq!(world.get().await.status, 200);
    let server = authority.server("api.example", &[], origin.addr()).await;
    let origination = Origination { server_name: None, roots: OutsideRoots::System };
    let (reason, text) =
        world.refused(outside(server.addr(), Protocol::Http, Some(origination)), server.addr()).await;
    assert_eq!(reason, "tls_failed", "{text}");
}

#[tokio::test]
async fn a_service_with_roots_that_are_none_is_rejected() {
    let world = World::new().await;
    let roots = OutsideRoots::Only(vec![Arc::from(&b"nonsense"[..])]);
    let service = outside(
        "127.0.0.1:9".parse().unwrap(),
        Protocol::Http,
        Some(Origination { server_name: None, roots }),
    );
    let refused = world.sidecar.registry.apply(Change::Set(Resource::Service(service)));
    assert!(refused.unwrap_err().contains("shop/payments"));
}

#[tokio::test]
async fn a_host_with_a_dead_address_of_one_family_is_reached_at_the_other() {
    let (sidecar, dns, origin) = (Mesh::new().client(), DnsServer::start().await, Origin::start().await);
    // 100::/64 is the black hole of IPv6 by definition (RFC 6666); here there may be no route at all, which is quicker.
    dns.host("api.example", 60, &["100::1", "127.0.0.1"].map(|ip| ip.parse().unwrap()));
    let settings = DnsSettings { servers: vec![dns.addr()], listen: vec![] };
    let names = outrigger_proxy::dns::start(
        &settings,
        &sidecar.registry,
        &sidecar.live,
        &OwnPorts::default(),
        vec![],
        domain(),
    );
    let _names = Owned::spawn(names);
    sidecar.knows(outside(origin.addr(), Protocol::Http, None), []);
    for _ in 0..5 {
        let reply = Client::h1(sidecar.outbound).await.get("api.example", "/").await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(
        sidecar.registry.clusters()[0]["endpoints"].as_array().unwrap().len(),
        1,
        "one host, one endpoint"
    );
}
