//! Resources in one breath, with the values that most tests mean.

use std::net::SocketAddr;

use outrigger_mesh::{
    Between, Endpoint, EndpointPort, EndpointState, Hostname, Inbound, InboundService, Label, MtlsMode, Port,
    PortNumber, Protocol, Service, ServiceName, SpiffeId, TrafficPolicy, Transport, TrustDomain, Weight,
};

/// The trust domain of every test.
pub const TRUST_DOMAIN: &str = "mesh.local";

/// The identity of `account` in `namespace`.
pub fn identity(namespace: &str, account: &str) -> SpiffeId {
    let label = |text| Label::new(text).expect("a label");
    SpiffeId::new(TrustDomain::new(TRUST_DOMAIN).expect("a domain"), label(namespace), label(account))
}

/// The service `namespace/name`, which the service account of its own name may serve, on port 80, strict, without
/// routes. It answers to `name.namespace`, `name.namespace.mesh` and `name.namespace.svc.cluster.local`.
pub fn service(name: &str) -> Service {
    let name: ServiceName = name.parse().expect("namespace/name");
    let short = format!("{}.{}", name.name(), name.namespace());
    let host = |text: String| Hostname::new(&text).expect("a host name");
    Service {
        hostnames: vec![
            host(short.clone()),
            host(format!("{short}.mesh")),
            host(format!("{short}.svc.cluster.local")),
        ],
        ports: vec![Port { number: PortNumber::HTTP, protocol: Protocol::Detect }],
        identities: vec![identity(name.namespace().as_str(), name.name().as_str())],
        mtls: MtlsMode::Strict.into(),
        between: Between::Auto,
        addresses: vec![],
        cluster_addresses: vec![],
        location: outrigger_mesh::Location::Mesh,
        http: outrigger_mesh::HttpRules::default(),
        routes: vec![],
        tcp_routes: vec![],
        division: None,
        policy: TrafficPolicy::default(),
        name,
        for_callers: Vec::new(),
        overrides: Vec::new(),
        tokens: outrigger_mesh::TokenTravel::Keep,
    }
}

/// An instance `uid` of the service `namespace/name`, whose port 80 is reached at `at` through a sidecar.
pub fn endpoint(service: &str, uid: &str, at: SocketAddr) -> Endpoint {
    let listen = PortNumber::new(at.port()).expect("a port");
    Endpoint {
        service: service.parse().expect("namespace/name"),
        uid: uid.parse().expect("a uid"),
        ip: at.ip(),
        ports: [EndpointPort { port: PortNumber::HTTP, listen, target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    }
}

/// What protects the workload `id`, which may serve `services`.
pub fn inbound(id: &SpiffeId, services: &[&Service]) -> Inbound {
    let rules = |s: &&Service| InboundService {
        name: s.name.clone(),
        mtls: s.mtls.clone(),
        ports: s.ports.iter().map(|p| (p.number, p.protocol)).collect(),
        http: s.http.clone(),
        between: s.between,
        protection: outrigger_mesh::Protection::default(),
        tokens: None,
        longest: outrigger_mesh::Longest::of(&s.policy.timeouts),
        access: outrigger_mesh::Access::default(),
    };
    Inbound { identity: id.clone(), services: services.iter().map(rules).collect() }
}
