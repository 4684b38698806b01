//! Routes with their conditions and filters, and divisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use outrigger_mesh::{
    Abort, Backend, Choice, ConsumerRoutes, CookieMatch, Cors, DirectResponse, Division, Fault, Filters,
    Fraction, HeaderChanges, HeaderMatch, KeyRange, Labels, Mirror, Partition, PathChange, PathMatch,
    Pattern, QueryMatch, Redirect, Rewrite, Route, RouteMatch, RouteName, TcpRoute, Unresolved, ValueMatch,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::{access, hostname, label, policy, port_number, service_name, token, version};

/// Its name is to be replaced.
pub(super) fn route() -> BoxedStrategy<Route> {
    (
        (vec(port_number(), 0..3), vec(route_match(), 0..3), vec(backend(), 0..3)),
        prop_oneof![Just(Filters::default()), filters()],
        (policy::timeouts(), of(policy::retry()), policy::of_route()),
        (of(policy::hash()), of(policy::hash()), of(policy::sticky())),
    )
        .prop_map(|((ports, matches, backends), filters, (timeouts, retry, policy), (by, key, session))| {
            let range = |backend| KeyRange { from: Some("a".into()), to: None, backend };
            let ranges = (0..backends.len()).map(range).collect();
            let partition = key.map(|key| Partition { key, ranges });
            let choice = Choice { by, partition, session };
            let name = RouteName::new("replaced").unwrap();
            Route { name, ports, matches, filters, backends, choice, timeouts, retry, policy }
        })
        .boxed()
}

pub(super) fn named(routes: BTreeMap<String, Route>) -> Vec<Route> {
    let named = |(name, route): (String, Route)| Route { name: RouteName::new(&name).unwrap(), ..route };
    routes.into_iter().map(named).collect()
}

/// Its name is to be replaced.
pub(super) fn tcp() -> impl Strategy<Value = TcpRoute> {
    (vec(port_number(), 0..3), vec(access::caller(), 0..3), vec(backend(), 0..3)).prop_map(
        |(ports, callers, backends)| TcpRoute {
            name: RouteName::new("replaced").unwrap(),
            ports,
            callers,
            backends,
        },
    )
}

/// Names that no other route has, which all have at most 9 characters.
pub(super) fn tcp_named(routes: Vec<TcpRoute>) -> Vec<TcpRoute> {
    let name = |i: usize| RouteName::new(&format!("shop/database/{i}")).unwrap();
    routes.into_iter().enumerate().map(|(i, route)| TcpRoute { name: name(i), ..route }).collect()
}

pub(super) fn consumer() -> impl Strategy<Value = ConsumerRoutes> {
    (label(), service_name(), btree_map("[!-~]{1,9}", route(), 0..3), vec(tcp(), 0..2)).prop_map(
        |(namespace, service, routes, tcp_routes)| {
            let (routes, tcp_routes) = (named(routes), tcp_named(tcp_routes));
            ConsumerRoutes { namespace, service, routes, tcp_routes }.checked().unwrap()
        },
    )
}

pub(super) fn division() -> impl Strategy<Value = Division> {
    (version(), version(), 0..=Division::WHOLE, vec(route_match(), 0..2), of(policy::hash())).prop_filter_map(
        "one version",
        |(stable, candidate, share, preview, by)| {
            (stable != candidate).then_some(Division { stable, candidate, share, preview, by })
        },
    )
}

pub(super) fn route_match() -> impl Strategy<Value = RouteMatch> {
    let method = "[A-Z]{1,9}".prop_map(|text| Method::from_bytes(text.as_bytes()).unwrap());
    let header = (header_name(), value_match()).prop_map(|(name, value)| HeaderMatch { name, value });
    let query =
        ("\\PC{0,9}", value_match()).prop_map(|(name, value)| QueryMatch { name: name.into(), value });
    let cookie =
        ("[a-z]{1,9}", value_match()).prop_map(|(name, value)| CookieMatch { name: name.into(), value });
    (
        (of(path()), of(method), vec(header, 0..3), vec(query, 0..3)),
        (vec(token::claim_match(), 0..2), vec(cookie, 0..2), vec(access::caller(), 0..2)),
        (btree_map("[a-z]{1,4}", "[a-z]{0,4}", 0..3), any::<bool>()),
    )
        .prop_map(|((path, method, headers, query), (claims, cookies, callers), (labels, grpc))| {
            let labels: Labels = labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
            RouteMatch { path, method, headers, query, claims, cookies, callers, labels, grpc }
        })
}

fn path() -> impl Strategy<Value = PathMatch> {
    let text = || "(/[^\\pC/%?#.]{1,4}){1,3}".prop_map(Arc::from);
    prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        pattern().prop_map(PathMatch::Regex),
        "[A-Za-z]{1,9}".prop_map(|text| PathMatch::Method(text.into())),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "/[a-z]{1,5}(\\[0-9\\]\\+)?(/\\.\\*)?".prop_map(|text| Pattern::new(&text).unwrap())
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        "\\PC{0,9}".prop_map(|text| ValueMatch::Exact(text.into())),
        pattern().prop_map(ValueMatch::Regex),
        Just(ValueMatch::Present),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9-]{0,9}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap())
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    vec((header_name(), "[!-~]{0,9}".prop_map(|text| text.parse().unwrap())), 0..3)
}

fn changes() -> impl Strategy<Value = HeaderChanges> {
    (vec(header_name(), 0..3), headers(), headers()).prop_map(|(remove, set, add)| HeaderChanges {
        remove,
        set,
        add,
    })
}

fn backend() -> impl Strategy<Value = Backend> {
    let unresolved = select(
        &[
            Unresolved::BackendNotFound,
            Unresolved::RefNotPermitted,
            Unresolved::InvalidKind,
            Unresolved::UnsupportedProtocol,
        ][..],
    );
    let to = (service_name(), of(version()), of(port_number()), 0..=Backend::MAX_WEIGHT);
    (to, changes(), changes(), of(unresolved)).prop_map(
        |((service, version, port, weight), request, response, unresolved)| Backend {
            service,
            version,
            port,
            weight,
            request,
            response,
            unresolved,
        },
    )
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (1_u32..1000).prop_flat_map(|out_of| (0..=out_of).prop_map(move |of| Fraction { of, out_of }))
}

fn filters() -> impl Strategy<Value = Filters> {
    let rewrite = (of(hostname()), of(change())).prop_map(|(host, path)| Rewrite { host, path });
    let mirror = (service_name(), of(version()), of(port_number()), fraction())
        .prop_map(|(service, version, port, share)| Mirror { service, version, port, share });
    (
        (vec(policy::rate_limit(), 0..2), of(any::<u64>()), of(cors()), vec(fault(), 0..3)),
        prop_oneof![
            of(redirect()).prop_map(|redirect| (redirect, None, None)),
            (of(direct()), of(rewrite)).prop_map(|(direct, rewrite)| (None, direct, rewrite)),
        ],
        (changes(), vec(mirror, 0..3), changes()),
    )
        .prop_map(|((rate_limits, max_body, cors, faults), answer, (request, mirrors, response))| {
            let (redirect, direct, rewrite) = answer;
            Filters {
                rate_limits,
                max_body,
                cors,
                faults,
                redirect,
                direct,
                request,
                rewrite,
                mirrors,
                response,
            }
        })
}

fn cors() -> impl Strategy<Value = Cors> {
    let words = || vec("[a-z*:/.]{1,9}".prop_map(Arc::from), 0..3);
    (words(), any::<bool>(), words(), words(), words(), any::<u32>()).prop_map(
        |(origins, credentials, methods, headers, expose, max_age)| Cors {
            origins,
            credentials,
            methods,
            headers,
            expose,
            max_age,
        },
    )
}

fn fault() -> impl Strategy<Value = Fault> {
    let abort = prop_oneof![
        (200_u16..600).prop_map(Abort::Http),
        (0_u8..=16).prop_map(Abort::Grpc),
        Just(Abort::Reset),
    ];
    let delay = (1_u64..300_000).prop_map(std::time::Duration::from_millis);
    (fraction(), vec(route_match(), 0..2), of(delay), abort)
        .prop_map(|(share, matches, delay, abort)| Fault { share, matches, delay, abort: Some(abort) })
}

fn change() -> impl Strategy<Value = PathChange> {
    ("(/[a-z]{1,4}){1,3}", any::<bool>()).prop_map(|(path, full)| {
        if full { PathChange::Full(path.into()) } else { PathChange::Prefix(path.into()) }
    })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let status = select(&Redirect::STATUSES[..]);
    (of(any::<bool>()), of(hostname()), of(change()), of(port_number()), status)
        .prop_map(|(https, host, path, port, status)| Redirect { https, host, path, port, status })
}

fn direct() -> impl Strategy<Value = DirectResponse> {
    (200_u16..600, headers(), vec(any::<u8>(), 0..9)).prop_map(|(status, headers, body)| DirectResponse {
        status,
        headers,
        body: body.into(),
    })
}
