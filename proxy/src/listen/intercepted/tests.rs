//! Decisions by address. The sockets themselves: `proxy/init/tests/matrix`.

use std::sync::Arc;

use outrigger_mesh::{EndpointPort, IpRange, Resource, ServiceName, TrustDomain};
use outrigger_testkit::resources;

use super::*;
use crate::config::registry::Change;
use crate::http::edges::Edges;
use crate::live::{Live, OwnPorts};
use crate::worker::Shared;

#[tokio::test(start_paused = true)]
async fn a_virtual_address_is_its_service_whatever_the_host() {
    let mesh = Mesh::new(Discovery::Connected, OutboundMode::AllowAny);
    mesh.knows("shop/cart", "240.0.0.7", "10.0.0.7:8080");
    let host = mesh.service("240.0.0.7:81").await;
    assert_eq!(host.name.as_str(), "7.0.0.240.in-addr.arpa");
    assert_eq!(host.port.map(PortNumber::get), Some(81), "the port is part of the address");
    assert_eq!(host.name.socket(), None, "any instance will do");
}

#[tokio::test(start_paused = true)]
async fn the_address_that_a_cluster_gives_a_service_is_its_service() {
    // Applications of a cluster ask its DNS, which knows no other: what they called was passed on, in plaintext.
    for mode in [OutboundMode::AllowAny, OutboundMode::RegistryOnly] {
        let mesh = Mesh::new(Discovery::Connected, mode);
        let service = |ips: &[&str]| {
            let mut service = resources::service("shop/cart");
            service.cluster_addresses = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            Change::Set(Resource::Service(service))
        };
        mesh.apply(service(&["10.96.0.7", "fd00:96::7"]));
        assert_eq!(
            mesh.refusal("10.96.0.7:80").await,
            Reason::DiscoveryUnavailable,
            "its instances are not told"
        );
        mesh.apply(Change::NoEndpoints("shop/cart".parse().unwrap()));
        for at in ["10.96.0.7:80", "[fd00:96::7]:80"] {
            let (host, at) = (mesh.service(at).await, at.parse::<SocketAddr>().unwrap());
            assert_eq!((host.name.clone(), host.name.socket()), (Hostname::of_address(at.ip()), None));
        }
        // One that is told only when it is asked for.
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            mesh.apply(service(&["10.96.0.8"]));
        };
        let (host, ()) = tokio::join!(mesh.service("10.96.0.8:81"), late);
        assert_eq!(host.port.map(PortNumber::get), Some(81));
        // What it has no more, and what no service of the mesh has, is outside.
        for outside in ["10.96.0.7:80", "10.96.0.9:80"] {
            mesh.answers_nobody(outside);
            let course = mesh.course(outside).await;
            assert!(matches!(course, Course::Outside(_) | Course::Egress), "{outside}: {course:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_address_of_an_instance_is_that_instance_and_the_port_it_serves_there() {
    let mesh = Mesh::new(Discovery::Connected, OutboundMode::AllowAny);
    mesh.knows("shop/cart", "240.0.0.7", "10.0.0.7:8080");
    for at in ["10.0.0.7:8080", "[::ffff:10.0.0.7]:8080"] {
        let host = mesh.service(at).await;
        assert_eq!(host.name.socket(), Some("10.0.0.7:8080".parse().unwrap()));
        assert_eq!(host.port.map(PortNumber::get), Some(80));
    }
    // Another port of the same address is none of it.
    mesh.answers_nobody("10.0.0.7:9999");
    assert!(matches!(mesh.course("10.0.0.7:9999").await, Course::Outside(_)));
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_address_is_told_before_it_is_waited_for() {
    // It was taken for one that has just gone: refused, or called in plaintext outside the ranges of the mesh.
    let mesh = Mesh::new(Discovery::Connected, OutboundMode::AllowAny);
    mesh.knows("shop/cart", "240.0.0.7", "10.0.0.7:8080");
    let (new, service) = ("10.0.0.9:8080".parse().unwrap(), "shop/cart".parse().unwrap());
    mesh.apply(Change::HostIs { host: Hostname::of_socket(new), service });
    let told = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        mesh.apply(Change::Set(Resource::Endpoint(resources::endpoint("shop/cart", "i-9", new))));
    };
    let (host, ()) = tokio::join!(mesh.service("10.0.0.9:8080"), told);
    assert_eq!(host.name.socket(), Some(new));
    // One that does not come has gone; where not everything is told, nobody can say.
    let gone: SocketAddr = "10.0.0.10:8080".parse().unwrap();
    mesh.apply(Change::HostIs { host: Hostname::of_socket(gone), service: "shop/cart".parse().unwrap() });
    assert_eq!(mesh.refusal("10.0.0.10:8080").await, Reason::DiscoveryUnavailable);
    mesh.apply(Change::HostUnknown(Hostname::of_address(gone.ip())));
    assert!(matches!(mesh.course("10.0.0.10:8080").await, Course::Outside(_)));
}

#[tokio::test(start_paused = true)]
async fn an_address_of_the_mesh_is_never_passed_on() {
    for mode in [OutboundMode::AllowAny, OutboundMode::RegistryOnly] {
        let mesh = Mesh::new(Discovery::Connected, mode);
        assert_eq!(mesh.refusal("240.0.0.8:80").await, Reason::DiscoveryUnavailable, "nobody answers");
        mesh.answers_nobody("240.0.0.8:80");
        assert_eq!(mesh.refusal("240.0.0.8:80").await, Reason::UnknownService);
        let mesh = Mesh::new(Discovery::Away, mode);
        assert_eq!(mesh.refusal("240.0.0.8:80").await, Reason::DiscoveryUnavailable);
        assert_eq!(mesh.refusal("[fd6f:7574:7269::8]:80").await, Reason::DiscoveryUnavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_outside_passes_or_not_as_the_mesh_says() {
    let outside = "198.51.100.7:443";
    let mesh = Mesh::new(Discovery::Connected, OutboundMode::AllowAny);
    mesh.answers_nobody(outside);
    assert!(matches!(mesh.course(outside).await, Course::Outside(to) if to.to_string() == outside));
    // Not asked again for a while, though the registry has forgotten the answer.
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(matches!(mesh.course(outside).await, Course::Outside(_)));

    let mesh = Mesh::new(Discovery::Connected, OutboundMode::RegistryOnly);
    mesh.answers_nobody(outside);
    assert!(matches!(mesh.course(outside).await, Course::Egress));

    let mesh = Mesh::new(Discovery::Away, OutboundMode::AllowAny);
    let began = Instant::now();
    assert!(matches!(mesh.course(outside).await, Course::Outside(_)));
    assert_eq!(began.elapsed(), Duration::ZERO, "it is not held up for somebody who is away");
}

#[tokio::test(start_paused = true)]
async fn while_the_ranges_of_the_mesh_are_not_known_nothing_passes() {
    let mesh = Mesh::without_settings(Discovery::Connecting);
    assert_eq!(mesh.refusal("198.51.100.7:443").await, Reason::DiscoveryUnavailable);
    // Without a control plane there is nobody to tell them.
    let mesh = Mesh::without_settings(Discovery::Complete);
    assert!(matches!(mesh.course("198.51.100.7:443").await, Course::Outside(_)));
    assert_eq!(mesh.refusal("240.0.0.8:80").await, Reason::UnknownService);
}

#[tokio::test(start_paused = true)]
async fn the_sidecars_own_ports_are_a_loop() {
    let mesh = Mesh::new(Discovery::Connected, OutboundMode::AllowAny);
    assert_eq!(mesh.refusal("127.0.0.1:15001").await, Reason::LoopDetected);
}

/// A worker with a registry to which a control plane would speak.
struct Mesh {
    worker: Rc<Worker>,
}

impl Mesh {
    fn new(discovery: Discovery, mode: OutboundMode) -> Self {
        let mesh = Self::without_settings(discovery);
        let domain = TrustDomain::new("mesh.local").unwrap();
        let mut settings = MeshSettings { outbound_mode: mode, ..MeshSettings::new(domain) };
        settings.ranges.push("10.1.0.0/16".parse::<IpRange>().unwrap());
        mesh.apply(Change::Set(Resource::Mesh(settings)));
        mesh
    }

    fn without_settings(discovery: Discovery) -> Self {
        let live = Arc::new(Live::default());
        let registry = Arc::new(Registry::new("shop".parse().unwrap(), Arc::clone(&live)));
        registry.set_discovery(discovery);
        let own_ports = OwnPorts(vec!["127.0.0.1:15001".parse().unwrap()]);
        let shared = Shared {
            registry,
            live,
            tls: None,
            applications: vec![],
            own_ports,
            edges: Edges::default(),
            edge: None,
        };
        Self { worker: Worker::new(Arc::new(shared)) }
    }

    fn apply(&self, change: Change) {
        self.worker.shared.registry.apply(change).unwrap();
    }

    /// A service with a virtual address and one instance, of which the control plane has told.
    fn knows(&self, name: &str, address: &str, instance: &str) {
        let at: SocketAddr = instance.parse().unwrap();
        let port = PortNumber::new(at.port());
        let mut service = resources::service(name);
        service.addresses = vec![address.parse().unwrap()];
        self.apply(Change::Set(Resource::Service(service)));
        let inbound = SocketAddr::new(at.ip(), 15_006);
        let mut endpoint = resources::endpoint(name, "one", inbound);
        endpoint.ports = endpoint.ports.iter().map(|p| EndpointPort { target: port, ..*p }).collect();
        self.apply(Change::Set(Resource::Endpoint(endpoint)));
        let service: ServiceName = name.parse().unwrap();
        self.apply(Change::HostIs { host: Hostname::of_socket(at), service });
    }

    /// The control plane says that no service has an address.
    fn answers_nobody(&self, at: &str) {
        let at: SocketAddr = at.parse().unwrap();
        for host in [Hostname::of_socket(at), Hostname::of_address(at.ip())] {
            self.apply(Change::HostUnknown(host));
        }
    }

    async fn course(&self, to: &str) -> Course {
        course(&self.worker, OriginalDst::assumed(to.parse().unwrap())).await
    }

    async fn service(&self, to: &str) -> Host {
        match self.course(to).await {
            Course::Service(host) => host,
            other => panic!("{to}: {other:?}"),
        }
    }

    async fn refusal(&self, to: &str) -> Reason {
        match self.course(to).await {
            Course::Refused(error) => error.reason,
            other => panic!("{to}: {other:?}"),
        }
    }
}
