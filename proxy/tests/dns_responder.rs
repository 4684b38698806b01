//! Names of the mesh told to applications, and the rest passed on.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use outrigger_mesh::{MeshSettings, Resource, Service, TrustDomain};
use outrigger_proxy::config::registry::Change;
use outrigger_proxy::config::registry::{Discovery, Registry};
use outrigger_proxy::dns::respond::Sockets;
use outrigger_proxy::live::{Live, OwnPorts};
use outrigger_proxy::settings::DnsSettings;
use outrigger_testkit::{
    DnsAnswer, DnsClient, DnsServer, DnsTransport, Mood, Owned, dns_question, resources,
};
use tokio::net::UdpSocket;

/// A responder over a registry that the test fills, with `behind` behind it.
struct Responder {
    at: SocketAddr,
    registry: Arc<Registry>,
    live: Arc<Live>,
    _task: Owned,
}

impl Responder {
    async fn start(behind: &[SocketAddr], discovery: Discovery) -> Self {
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self::at(vec![sockets], behind, discovery)
    }

    fn at(sockets: Vec<Sockets>, behind: &[SocketAddr], discovery: Discovery) -> Self {
        let live = Arc::new(Live::default());
        let registry = Arc::new(Registry::new("shop".parse().unwrap(), Arc::clone(&live)));
        registry.set_discovery(discovery);
        let (at, domain) = (sockets[0].address, TrustDomain::new(resources::TRUST_DOMAIN).unwrap());
        let settings = DnsSettings { servers: behind.to_vec(), listen: vec![] };
        let own = OwnPorts::default();
        let names = outrigger_proxy::dns::start(&settings, &registry, &live, &own, sockets, domain);
        Self { at, registry, live, _task: Owned::spawn(names) }
    }

    fn knows(&self, service: Service) {
        self.registry.apply(Change::Set(Resource::Service(service))).unwrap();
    }

    async fn ask(&self, name: &str, kind: &str) -> DnsAnswer {
        DnsClient::udp(self.at).await.ask(name, kind).await.expect("an answer")
    }
}

fn cart() -> Service {
    let addresses = ["240.0.0.7", "fd6f:7574:7269::7"].map(|ip| ip.parse::<IpAddr>().unwrap()).to_vec();
    let mut service = Service { addresses, ..resources::service("shop/cart") };
    service.hostnames.push("cart.example.com".parse().unwrap());
    service
}

#[tokio::test]
async fn every_name_of_a_service_leads_to_its_virtual_addresses() {
    let behind = DnsServer::start().await;
    let responder = Responder::start(&[behind.addr()], Discovery::Complete).await;
    responder.knows(cart());
    for name in ["cart", "cart.shop", "Cart.Shop.MESH", "cart.shop.svc.cluster.local", "cart.example.com"] {
        let answer = responder.ask(name, "A").await;
        assert_eq!(
            (answer.code.as_str(), &answer.records[..]),
            ("No Error", &["240.0.0.7".to_owned()][..]),
            "{name}"
        );
        assert_eq!(answer.ttl, Some(5), "{name}");
        assert_eq!(responder.ask(name, "AAAA").await.records, ["fd6f:7574:7269::7"], "{name}");
        let nothing = responder.ask(name, "HTTPS").await;
        assert_eq!(
            (nothing.code.as_str(), nothing.records.len()),
            ("No Error", 0),
            "nothing leads around it"
        );
    }
    assert_eq!(responder.ask("7.0.0.240.in-addr.arpa", "PTR").await.records, ["cart.shop.mesh."]);
    assert_eq!(behind.questions(), 0);
}

#[tokio::test]
async fn unknown_names_of_the_mesh_do_not_exist_and_are_never_asked_for_outside() {
    let behind = DnsServer::start().await;
    let responder = Responder::start(&[behind.addr()], Discovery::Complete).await;
    responder.knows(cart());
    for (name, kind) in [
        ("nobody.shop.mesh", "A"),
        ("a.b.c.shop.svc.cluster.local", "AAAA"),
        ("_http._tcp.cart.shop.mesh", "SRV"),
        ("mesh", "A"),
        ("9.9.0.240.in-addr.arpa", "PTR"),
    ] {
        let answer = responder.ask(name, kind).await;
        assert_eq!((answer.code.as_str(), answer.soa), ("Non-Existent Domain", true), "{name}");
    }
    assert_eq!(responder.ask("cart.shop.mesh", "MX").await.code, "No Error");
    assert_eq!(behind.questions(), 0);
    assert!(responder.live.prometheus().contains("outrigger_dns_questions_total{became=\"unknown\"} 5\n"));
}

#[tokio::test]
async fn everything_else_is_passed_on_as_it_came() {
    let behind = DnsServer::start().await;
    behind.host("www.example.org", 77, &["192.0.2.1".parse().unwrap()]);
    behind.host("example", 77, &["192.0.2.2".parse().unwrap()]);
    let responder = Responder::start(&[behind.addr()], Discovery::Complete).await;
    let answer = responder.ask("WWW.example.org", "A").await;
    assert_eq!((&answer.records[..], answer.ttl), (&["192.0.2.1".to_owned()][..], Some(77)));
    assert_eq!(
        responder.ask("example", "A").await.records,
        ["192.0.2.2"],
        "a short name that is not of the mesh"
    );
    assert_eq!(responder.ask("gone.example.org", "A").await.code, "Non-Existent Domain");
    assert_eq!(behind.asked_over("www.example.org", DnsTransport::Udp), 1);
    // All but the id goes on to the byte, the option record included.
    let question = dns_question(4_711, "opt.example.org", "TXT", Some(1_400));
    let answer = DnsClient::udp(responder.at).await.send(&question).await.unwrap();
    assert_eq!(answer[..2], question[..2]);
    let seen = behind.latest().unwrap();
    assert_eq!(seen[2..], question[2..]);
}

#[tokio::test]
async fn what_is_too_long_for_udp_comes_over_tcp() {
    let behind = DnsServer::start().await;
    let many: Vec<IpAddr> = (1..=60).map(|i| IpAddr::from([192, 0, 2, i])).collect();
    behind.host("many.example.org", 60, &many);
    behind.host("cut.example.org", 60, &many[..1]);
    let responder = Responder::start(&[behind.addr()], Discovery::Complete).await;
    responder.knows(cart());
    let answer = responder.ask("many.example.org", "A").await;
    assert!(answer.truncated && answer.records.is_empty(), "more than 512 bytes");
    behind.mood(Mood::Truncated);
    assert!(responder.ask("cut.example.org", "A").await.truncated);
    let mut client = DnsClient::tcp(responder.at).await;
    assert_eq!(client.ask("many.example.org", "A").await.unwrap().records.len(), 60);
    assert_eq!(client.ask("cut.example.org", "A").await.unwrap().records, ["192.0.2.1"]);
    assert_eq!(client.ask("cart", "A").await.unwrap().records, ["240.0.0.7"], "on the same connection");
}

#[tokio::test]
async fn while_the_control_plane_is_away_the_mesh_can_not_say_and_the_rest_goes_on() {
    let behind = DnsServer::start().await;
    behind.host("www.example.org", 60, &["192.0.2.1".parse().unwrap()]);
    let responder = Responder::start(&[behind.addr()], Discovery::Away).await;
    responder.knows(cart());
    assert_eq!(responder.ask("new.shop.mesh", "A").await.code, "Server Failure");
    assert_eq!(responder.ask("www.example.org", "A").await.records, ["192.0.2.1"]);
    assert_eq!(behind.asked("new.shop.mesh"), 0);
}

#[tokio::test]
async fn a_name_that_is_looked_up_is_waited_for_but_not_for_ever() {
    let behind = DnsServer::start().await;
    behind.host("www.example.org", 60, &["192.0.2.1".parse().unwrap()]);
    let responder = Responder::start(&[behind.addr()], Discovery::Connected).await;
    let registry = Arc::clone(&responder.registry);
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        registry.apply(Change::Set(Resource::Service(cart()))).unwrap();
        registry.apply(Change::NoEndpoints("shop/cart".parse().unwrap())).unwrap();
    });
    assert_eq!(responder.ask("cart.shop.mesh", "A").await.records, ["240.0.0.7"]);
    late.await.unwrap();
    let began = Instant::now();
    assert_eq!(responder.ask("www.example.org", "A").await.records, ["192.0.2.1"]);
    assert!(began.elapsed() < Duration::from_millis(1_800), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(responder.ask("new.shop.mesh", "A").await.code, "Server Failure");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// An engine of containers knows `cart` too: asked when the control plane took more than 0.3 s to say whose the name is, it
/// answered with a container's own address, which applications keep.
#[tokio::test]
async fn a_slow_control_plane_does_not_leave_a_neighbours_name_to_the_engines_resolver() {
    let behind = DnsServer::start().await;
    for name in ["cart", "database"] {
        behind.host(name, 600, &["172.29.29.2".parse().unwrap()]);
    }
    let responder = Responder::start(&[behind.addr()], Discovery::Connected).await;
    let registry = Arc::clone(&responder.registry);
    let slow = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        registry.apply(Change::Set(Resource::Service(cart()))).unwrap();
        registry.apply(Change::NoEndpoints("shop/cart".parse().unwrap())).unwrap();
    });
    assert_eq!(responder.ask("cart", "A").await.records, ["240.0.0.7"]);
    assert_eq!(behind.asked("cart"), 0);
    slow.await.unwrap();
    // A neighbour of whom nobody says anything is asked for behind all the same.
    assert_eq!(responder.ask("database", "A").await.records, ["172.29.29.2"]);
}

#[tokio::test]
async fn another_server_is_asked_when_one_is_silent_or_can_not_say() {
    let (broken, good) = (DnsServer::start().await, DnsServer::start().await);
    good.host("www.example.org", 60, &["192.0.2.1".parse().unwrap()]);
    let responder = Responder::start(&[broken.addr(), good.addr()], Discovery::Complete).await;
    for mood in [Mood::ServFail, Mood::Silent, Mood::Garbage] {
        broken.mood(mood);
        assert_eq!(responder.ask("www.example.org", "A").await.records, ["192.0.2.1"], "{mood:?}");
    }
    good.mood(Mood::ForgedFirst);
    assert_eq!(
        responder.ask("www.example.org", "A").await.records,
        ["192.0.2.1"],
        "the forged one is passed over"
    );
    good.mood(Mood::ServFail);
    broken.mood(Mood::ServFail);
    assert_eq!(responder.ask("www.example.org", "A").await.code, "Server Failure");
}

#[tokio::test]
async fn a_question_never_goes_in_a_circle() {
    // Its only name server is itself: nothing is left to ask.
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let own = sockets.address;
    let responder = Responder::at(vec![sockets], &[own], Discovery::Complete);
    assert_eq!(responder.ask("www.example.org", "A").await.code, "Server Failure");
    // What it asks is led back to it from the same port, as by a redirection that does not spare it. Here the port of
    // the other family stands for that.
    let detour = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let behind = detour.local_addr().unwrap();
    let six = Sockets::bind("[::1]:0".parse().unwrap()).await.unwrap();
    let back = six.address;
    let four = Sockets::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let responder = Responder::at(vec![four, six], &[behind], Discovery::Complete);
    let at = responder.at;
    let asking = tokio::spawn(async move { DnsClient::udp(at).await.ask("www.example.org", "A").await });
    let mut buffer = [0; 600];
    let (length, from) = detour.recv_from(&mut buffer).await.unwrap();
    let same_port = UdpSocket::bind(SocketAddr::new("::1".parse().unwrap(), from.port())).await.unwrap();
    same_port.send_to(&buffer[..length], back).await.unwrap();
    let length = same_port.recv(&mut buffer).await.unwrap();
    assert_eq!((buffer[3] & 15, length > 12), (2, true), "it ends here");
    assert_eq!(responder.live.dns.loops.load(Relaxed), 1);
    detour.send_to(&buffer[..length], from).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().code, "Server Failure");
}

#[tokio::test]
async fn a_flood_is_bounded_and_names_of_the_mesh_are_answered_meanwhile() {
    let behind = DnsServer::start().await;
    behind.mood(Mood::Silent);
    let responder = Responder::start(&[behind.addr()], Discovery::Complete).await;
    responder.knows(cart());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for i in 0..2_000_u16 {
        let question = dns_question(i, &format!("n{i}.example.org"), "A", None);
        socket.send_to(&question, responder.at).await.unwrap();
        if i % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let began = Instant::now();
    assert_eq!(responder.ask("cart", "A").await.records, ["240.0.0.7"]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let dns = &responder.live.dns;
    let (passed_on, dropped) = (dns.passed_on.load(Relaxed), dns.dropped.load(Relaxed));
    assert!(passed_on <= 512, "{passed_on} at a time");
    assert!(dropped > 0 && passed_on + dropped <= 2_000, "{passed_on} {dropped}");
}

#[tokio::test]
async fn what_is_no_question_is_answered_as_such_or_not_at_all() {
    let responder = Responder::start(&[], Discovery::Complete).await;
    responder.knows(cart());
    let mut client = DnsClient::udp(responder.at).await;
    let good = dns_question(9, "cart", "A", None);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    for silent in [&answer[..], &good[..5], b""] {
        assert!(client.send(silent).await.is_none(), "{silent:?}");
    }
    let broken = client.send(&good[..14]).await.unwrap();
    assert_eq!((&broken[..2], broken[3] & 15), (&good[..2], 1), "a format error");
    assert_eq!(client.ask("cart", "A").await.unwrap().records, ["240.0.0.7"]);
}

#[tokio::test]
async fn the_suffixes_are_those_of_the_mesh() {
    let behind = DnsServer::start().await;
    behind.host("cart.shop.corp", 60, &["192.0.2.1".parse().unwrap()]);
    let responder = Responder::start(&[behind.addr()], Discovery::Complete).await;
    assert_eq!(responder.ask("cart.shop.corp", "A").await.records, ["192.0.2.1"]);
    let mut settings = MeshSettings::new(TrustDomain::new(resources::TRUST_DOMAIN).unwrap());
    settings.suffixes = vec!["corp".parse().unwrap()];
    responder.registry.apply(Change::Set(Resource::Mesh(settings))).unwrap();
    assert_eq!(responder.ask("cart.shop.corp", "A").await.code, "Non-Existent Domain");
}
