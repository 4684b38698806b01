//! What the benches measure on: services, routes and requests of a given size. The measurements stand in `benches/`,
//! the comparison with other proxies in `peers/`, the figures in `README.md`.

use http::HeaderName;
use outrigger_mesh::{
    Backend, Between, Endpoint, EndpointPort, EndpointState, EndpointUid, HeaderMatch, Hostname, Label,
    MtlsMode, PathMatch, Pattern, Port, PortNumber, Protocol, Route, RouteMatch, RouteName, Service,
    ServiceName, SpiffeId, TrafficPolicy, Transport, TrustDomain, Version, Weight,
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
        cluster_addresses: vec![],
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

/// Routes that all match every path, each for one value of a header.
pub fn routes_by_header(routes: usize) -> Vec<Route> {
    let matches = |i| RouteMatch {
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("x-tenant"),
            value: format!("tenant-{i}").as_str().into(),
        }],
        ..RouteMatch::default()
    };
    (0..routes).map(|i| route(i, matches(i))).collect()
}

/// Routes of expressions, each for an area of its own.
#[allow(clippy::expect_used, reason = "constants of a bench")]
pub fn routes_by_expression(routes: usize) -> Vec<Route> {
    let pattern = |i| Pattern::new(&format!("/area-{i}/items/[0-9]+/.*")).expect("an expression");
    let matches = |i| RouteMatch { path: Some(PathMatch::Regex(pattern(i))), ..RouteMatch::default() };
    (0..routes).map(|i| route(i, matches(i))).collect()
}

#[allow(clippy::expect_used, reason = "constants of a bench")]
fn route(i: usize, conditions: RouteMatch) -> Route {
    let name = RouteName::new(&format!("shop/cart/{i}")).expect("a name");
    let backends = vec![Backend::to("shop/cart".parse().expect("a name"))];
    Route { matches: vec![conditions], backends, ..Route::new(name) }
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
