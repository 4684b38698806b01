//! What the benches measure on: services, routes and requests of a given size. The measurements stand in `benches/`,
//! the comparison with other proxies in `peers/`, the figures in `README.md`.

use outrigger_mesh::{
    Backend, Between, Endpoint, EndpointPort, EndpointState, EndpointUid, Hostname, Label, MtlsMode,
    PathMatch, Port, PortNumber, Protocol, Route, RouteMatch, RouteName, Service, ServiceName, SpiffeId,
    TrafficPolicy, Transport, TrustDomain, Version, Weight,
};

/// The service `shop/cart` with `routes` routes, each a prefix of its own with a split in two.
#[allow(clippy::expect_used, reason = "constants of a bench")]
pub fn service(routes: usize) -> Service {
    let name: ServiceName = "shop/cart".parse().expect("a name");
    let domain = TrustDomain::new("mesh.local").expect("a domain");
    let backend = |version: &str, weight| Backend {
        version: Version::new(version).ok(),
        weight,
        ..Backend::to(name.clone())
    };
    Service {
        hostnames: ["cart.shop", "cart.shop.mesh"]
            .into_iter()
            .filter_map(|h| Hostname::new(h).ok())
            .collect(),
        ports: vec![Port { number: PortNumber::HTTP, protocol: Protocol::Http }],
        identities: vec![SpiffeId::new(domain, label("shop"), label("cart"))],
        mtls: MtlsMode::Strict.into(),
        between: Between::Auto,
        addresses: vec![],
        location: outrigger_mesh::Location::Mesh,
        http: outrigger_mesh::HttpRules::default(),
        routes: (0..routes)
            .map(|i| Route {
                matches: vec![RouteMatch {
                    path: Some(PathMatch::Prefix(format!("/area-{i}/items").as_str().into())),
                    ..RouteMatch::default()
                }],
                backends: vec![backend("v1", 90), backend("v2", 10)],
                ..Route::new(RouteName::new(&format!("shop/cart/{i}")).expect("a name"))
            })
            .collect(),
        policy: TrafficPolicy::default(),
        name,
        for_callers: Vec::new(),
        overrides: Vec::new(),
        tcp_routes: vec![],
        division: None,
        tokens: outrigger_mesh::TokenTravel::Keep,
    }
}

/// Endpoint number `i` of `shop/cart`.
#[allow(clippy::expect_used, reason = "constants of a bench")]
pub fn endpoint(i: u16) -> Endpoint {
    Endpoint {
        service: "shop/cart".parse().expect("a name"),
        uid: EndpointUid::new(&format!("cart-{i:05}-7f3a9c")).expect("a name"),
        ip: std::net::Ipv4Addr::new(
            10,
            1,
            u8::try_from(i >> 8).unwrap_or(0),
            u8::try_from(i & 255).unwrap_or(0),
        )
        .into(),
        ports: [EndpointPort {
            port: PortNumber::HTTP,
            listen: PortNumber::new(15006).expect("not 0"),
            target: None,
        }]
        .into(),
        version: Version::new(if i.is_multiple_of(2) { "v1" } else { "v2" }).ok(),
        zone: Some("eu-1a".into()),
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    }
}

#[allow(clippy::expect_used, reason = "constants of a bench")]
fn label(text: &str) -> Label {
    Label::new(text).expect("a label")
}
