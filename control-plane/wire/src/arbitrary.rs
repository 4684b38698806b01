//! Generators of sound resources for the property tests.

mod access;
mod policy;
mod route;
mod token;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use outrigger_mesh::{
    Between, DnsTarget, Endpoint, EndpointPort, EndpointState, EndpointUid, Gateway, GatewayRoute, Histogram,
    HostPattern, Hostname, HttpRules, Inbound, InboundService, IpRange, Label, Listener, ListenerKind,
    Location, MeshSettings, MtlsMode, MtlsModes, Origination, OutboundMode, OutsideRoots, Port, PortNumber,
    Protocol, Reason, RefusalKey, Report, Resource, Seen, Service, ServiceName, Side, SpiffeId, SrvName,
    TokenTravel, TrafficKey, TrafficStats, Transport, Trust, TrustDomain, Version, Weight,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        service().prop_map(Resource::Service).boxed(),
        endpoint().prop_map(Resource::Endpoint),
        inbound().prop_map(Resource::Inbound),
        trust().prop_map(Resource::Trust),
        settings().prop_map(Resource::Mesh),
        gateway().prop_map(Resource::Gateway).boxed(),
        token::issuer().prop_map(Resource::Issuer).boxed(),
        token::denylist().prop_map(Resource::Denylist),
        route::consumer().prop_map(Resource::ConsumerRoutes).boxed(),
    ]
}

pub(crate) fn report() -> impl Strategy<Value = Report> {
    let key = (select(&[Side::Client, Side::Server][..]), service_name(), of(version()), of(identity()));
    let stats = (0_u64..1000, 0_u64..1000, vec((0_usize..240, 1_u64..9), 0..5), 0_u64..9);
    let entry = (key, stats).prop_map(|((side, service, version, caller), stats)| {
        let (success, more, latencies, unanswered) = stats;
        let mut latency = Histogram::default();
        for (bucket, count) in latencies {
            latency.add(bucket, count);
        }
        let stats = TrafficStats { requests: success + more, success, latency, unanswered };
        (TrafficKey { side, service, version, caller }, stats)
    });
    let seen = (service_name(), version(), 0_u32..9, 0_u32..9)
        .prop_map(|(service, version, well, more)| Seen { service, version, endpoints: well + more, well });
    let key =
        (select(&[Side::Client, Side::Server][..]), service_name(), of(identity()), select(&Reason::ALL[..]));
    let refused = (key, 0_u64..1000).prop_map(|((side, service, caller, reason), count)| {
        (RefusalKey { side, service, caller, reason }, count)
    });
    (vec(entry, 0..4), vec(token::issuer_name(), 0..3), vec(seen, 0..3), vec(refused, 0..3))
        .prop_map(|(traffic, wanted_keys, seen, refusals)| Report { traffic, wanted_keys, seen, refusals })
}

fn label() -> impl Strategy<Value = Label> {
    "[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?".prop_map(|text| Label::new(&text).unwrap())
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    (label(), label()).prop_map(|(namespace, name)| ServiceName::new(namespace, name))
}

fn version() -> impl Strategy<Value = Version> {
    "[A-Za-z0-9]([A-Za-z0-9._-]{0,9}[A-Za-z0-9])?".prop_map(|text| Version::new(&text).unwrap())
}

fn trust_domain() -> impl Strategy<Value = TrustDomain> {
    "[a-z0-9._-]{1,12}".prop_map(|text| TrustDomain::new(&text).unwrap())
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    (trust_domain(), label(), label()).prop_map(|(domain, ns, account)| SpiffeId::new(domain, ns, account))
}

fn port_number() -> impl Strategy<Value = PortNumber> {
    (1_u16..).prop_map(|n| PortNumber::new(n).unwrap())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(
        &[Protocol::Detect, Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Tcp, Protocol::Tls][..],
    )
}

fn mtls() -> impl Strategy<Value = MtlsModes> {
    let mode = select(&[MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Off][..]);
    (mode.clone(), vec((port_number(), mode), 0..3))
        .prop_map(|(service, ports)| MtlsModes::new(service, ports))
}

fn service() -> impl Strategy<Value = Service> {
    let hostname = "[a-z][a-z0-9]{0,5}(\\.[a-z][a-z0-9]{0,5}){0,2}";
    (
        service_name(),
        btree_set(hostname, 0..4),
        btree_map(port_number(), protocol(), 1..4),
        vec(identity(), 0..3),
        mtls(),
        between(),
        (btree_map("[!-~]{1,9}", route::route(), 0..4), vec(route::tcp(), 0..2), of(route::division())),
        (policy::policy(), policy::for_callers(), policy::overrides(), token::travel()),
        (of(any::<Ipv4Addr>()), of(any::<Ipv6Addr>()), location(), http_rules()),
    )
        .prop_map(
            |(name, hosts, ports, identities, mtls, between, ways, policies, (v4, v6, location, http))| {
                let (routes, tcp_routes, division) = ways;
                let (policy, for_callers, overrides, tokens) = policies;
                let outside = matches!(location, Location::Dns { outside: true, .. });
                Service {
                    name,
                    hostnames: hosts.iter().map(|h| Hostname::new(h).unwrap()).collect(),
                    ports: ports.into_iter().map(|(number, protocol)| Port { number, protocol }).collect(),
                    addresses: v4.map(IpAddr::from).into_iter().chain(v6.map(IpAddr::from)).collect(),
                    cluster_addresses: v6.map(IpAddr::from).into_iter().chain(v4.map(IpAddr::from)).collect(),
                    identities,
                    mtls: if location == Location::Mesh { mtls } else { MtlsMode::Off.into() },
                    location,
                    http,
                    between,
                    routes: route::named(routes),
                    tcp_routes: route::tcp_named(tcp_routes),
                    division,
                    policy,
                    for_callers,
                    overrides,
                    tokens: if outside { TokenTravel::Strip } else { tokens },
                }
                .checked()
                .unwrap()
            },
        )
}

fn between() -> impl Strategy<Value = Between> {
    select(&[Between::Auto, Between::Http1, Between::Http2][..])
}

fn http_rules() -> impl Strategy<Value = HttpRules> {
    let usual = Just(HttpRules::default());
    let other = (vec("[a-g][a-z0-9/.-]{0,9}", 0..3), any::<bool>(), of(any::<u64>())).prop_map(
        |(upgrades, connect, max_body)| HttpRules {
            upgrades: upgrades.into_iter().map(Into::into).collect(),
            connect,
            max_body,
        },
    );
    prop_oneof![usual, other]
}

fn hostname() -> impl Strategy<Value = Hostname> {
    "[a-z][a-z0-9]{0,5}(\\.[a-z][a-z0-9]{0,5}){0,2}".prop_map(|text| Hostname::new(&text).unwrap())
}

fn location() -> impl Strategy<Value = Location> {
    let target = prop_oneof![
        (hostname(), of(port_number())).prop_map(|(name, port)| DnsTarget::Host { name, port }),
        hostname().prop_map(|h| DnsTarget::Srv(SrvName::new(&format!("_a._tcp.{h}")).unwrap())),
        (any::<IpAddr>(), of(port_number())).prop_map(|(ip, port)| DnsTarget::Address { ip, port }),
    ];
    let roots = prop_oneof![
        Just(OutsideRoots::System),
        vec(vec(any::<u8>(), 1..9), 1..3)
            .prop_map(|roots| OutsideRoots::Only(roots.into_iter().map(Arc::from).collect())),
    ];
    let tls = (of(hostname()), roots).prop_map(|(server_name, roots)| Origination { server_name, roots });
    let dns = (vec(target, 1..4), of(tls), any::<bool>()).prop_map(|(targets, tls, outside)| Location::Dns {
        targets,
        tls,
        outside,
    });
    prop_oneof![Just(Location::Mesh), dns]
}

fn settings() -> impl Strategy<Value = MeshSettings> {
    let range = (any::<Ipv4Addr>(), 0_u8..=32).prop_map(|(ip, prefix)| {
        let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
        IpRange::new(Ipv4Addr::from(u32::from(ip) & mask).into(), prefix).unwrap()
    });
    (trust_domain(), vec(range, 0..3), vec(hostname(), 0..3), any::<bool>()).prop_map(
        |(trust_domain, ranges, suffixes, any)| MeshSettings {
            trust_domain,
            ranges,
            suffixes,
            outbound_mode: if any { OutboundMode::AllowAny } else { OutboundMode::RegistryOnly },
        },
    )
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let pattern = |h: Hostname, wild: bool| -> HostPattern {
        format!("{}{h}", if wild { "*." } else { "" }).parse().unwrap()
    };
    let attached =
        (vec((hostname(), any::<bool>()), 0..3), route::route()).prop_map(move |(hosts, route)| {
            GatewayRoute { hostnames: hosts.into_iter().map(|(h, wild)| pattern(h, wild)).collect(), route }
        });
    let rest = (of((hostname(), any::<bool>())), vec(label(), 0..3), vec(attached, 0..3));
    let listeners = btree_map(label(), (port_number(), rest), 1..4);
    (service_name(), listeners).prop_filter_map("contradictory", move |(name, listeners)| {
        let listeners = listeners
            .into_iter()
            .map(|(name, (port, (host, certificates, routes)))| Listener {
                name,
                port,
                hostname: host.map(|(h, wild)| pattern(h, wild)),
                kind: if certificates.is_empty() {
                    ListenerKind::Http
                } else {
                    ListenerKind::Https { certificates }
                },
                routes,
            })
            .collect();
        Gateway { name, listeners }.checked().ok()
    })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let port = (port_number(), port_number(), of(port_number()))
        .prop_map(|(port, listen, target)| EndpointPort { port, listen, target });
    (
        service_name(),
        label().prop_map(|l| EndpointUid::new(l.as_str()).unwrap()),
        any::<IpAddr>(),
        vec(port, 1..3),
        of(version()),
        of("\\PC{0,9}"),
        (1_u16..).prop_map(|w| Weight::new(w).unwrap()),
        select(&[Transport::Mesh, Transport::Plaintext][..]),
        select(&[EndpointState::Ready, EndpointState::Draining][..]),
    )
        .prop_map(|(service, uid, ip, ports, version, zone, weight, transport, state)| Endpoint {
            service,
            uid,
            ip,
            ports: ports.into(),
            version,
            zone: zone.map(Arc::from),
            weight,
            transport,
            state,
        })
}

fn inbound() -> impl Strategy<Value = Inbound> {
    let rules = (
        mtls(),
        vec((port_number(), protocol()), 1..3),
        http_rules(),
        between(),
        (policy::protection(), policy::longest()),
        of(token::rules()),
        access::access(),
    );
    (identity(), btree_map(service_name(), rules, 0..4)).prop_map(|(identity, services)| Inbound {
        identity,
        services: services
            .into_iter()
            .map(|(name, (mtls, ports, http, between, (protection, longest), tokens, access))| {
                InboundService { name, mtls, ports, http, between, protection, tokens, longest, access }
            })
            .collect(),
    })
}

fn trust() -> impl Strategy<Value = Trust> {
    (trust_domain(), vec(vec(any::<u8>(), 1..40), 1..3)).prop_map(|(trust_domain, roots)| Trust {
        trust_domain,
        roots: roots.into_iter().map(Arc::from).collect(),
    })
}
