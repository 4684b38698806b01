use outrigger_mesh::{
    Abort, CallerMatch, ConsumerRoutes, Fraction, HashKey, Label, PathMatch, Resource, ResourceName, Route,
    Service, TcpRoute, Unresolved,
};

use crate::compile::resource;
use crate::spec::{Code, Object, Problem, Severity};
use crate::testing::{gateway, name, object, put, put_dangling, service, touch, world};
use crate::world::World;

/// An object of the Gateway API in a namespace, with its specification in flow style.
fn of(namespace: &str, kind: &str, name: &str, spec: &str) -> Object {
    let version = match kind {
        "RouteFilter" | "MeshService" => "outrigger.dev/v1alpha1",
        "TCPRoute" => "gateway.networking.k8s.io/v1alpha2",
        _ => "gateway.networking.k8s.io/v1",
    };
    object(&format!(
        "{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}"
    ))
}

fn grant(name: &str, kind: &str, to: &str) -> Object {
    let spec = format!(
        "from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}], to: [{{group: '', kind: Service{to}}}]"
    );
    of("bank", "ReferenceGrant", name, &spec)
}

fn to_bank(kind: &str) -> Object {
    let spec = "parentRefs: [{kind: Service, group: '', name: cart}], \
                rules: [{backendRefs: [{name: cart}, {name: vault, namespace: bank}]}]";
    of("shop", kind, "r", spec)
}

/// A world with `cart` and `prices` of `shop`, `vault` of `bank`, and a database.
fn mesh() -> World {
    let mut world = world();
    put(&mut world, service("cart", "")).unwrap();
    put(&mut world, service("prices", "ports: [{port: 80}, {port: 81, protocol: grpc}]")).unwrap();
    put(&mut world, service("db", "ports: [{port: 5432, protocol: tcp}]")).unwrap();
    put(&mut world, service("replica", "ports: [{port: 5432, protocol: tcp}]")).unwrap();
    put(&mut world, of("bank", "MeshService", "vault", "")).unwrap();
    world
}

fn compiled(world: &World, text: &str) -> Service {
    match resource(world, &ResourceName::Service(name(text))) {
        Some(Resource::Service(service)) => service.checked().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn consumer(world: &World, of: &str, text: &str) -> Option<ConsumerRoutes> {
    match resource(world, &ResourceName::ConsumerRoutes(Label::new(of).unwrap(), name(text))) {
        Some(Resource::ConsumerRoutes(routes)) => Some(routes.checked().unwrap()),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn states(route: &Route) -> Vec<Option<Unresolved>> {
    route.backends.iter().map(|b| b.unresolved).collect()
}

fn told(problems: &[Problem]) -> Vec<(&str, Code)> {
    problems.iter().map(|p| (p.pointer.as_str(), p.code)).collect()
}

#[test]
fn a_service_of_another_namespace_is_a_backend_with_a_grant_and_only_with_it() {
    let mut world = mesh();
    let problems = put(&mut world, to_bank("HTTPRoute")).unwrap_err();
    assert_eq!(told(&problems), [("/spec/rules/0/backendRefs/1/namespace", Code::Reference)]);
    assert!(problems[0].hint.as_deref().unwrap().contains("ReferenceGrant in bank"), "{problems:?}");
    for other in [grant("g", "GRPCRoute", ""), grant("g", "HTTPRoute", ", name: other")] {
        put(&mut world, other).unwrap();
        assert!(put(&mut world, to_bank("HTTPRoute")).is_err());
    }
    put(&mut world, grant("g", "HTTPRoute", ", name: vault")).unwrap();
    put(&mut world, to_bank("HTTPRoute")).unwrap();
    assert_eq!(states(&compiled(&world, "shop/cart").routes[0]), [None, None]);
    world.remove_grant(&grant("g", "HTTPRoute", "").key());
    let refused = [None, Some(Unresolved::RefNotPermitted)];
    assert_eq!(states(&compiled(&world, "shop/cart").routes[0]), refused);
    // Of two grants it is enough that one is left.
    put(&mut world, grant("h", "HTTPRoute", "")).unwrap();
    assert_eq!(states(&compiled(&world, "shop/cart").routes[0]), [None, None]);
}

#[test]
fn what_a_grant_says_of_other_kinds_is_told_to_mean_nothing() {
    let spec = "from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}, \
                {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], \
                to: [{group: '', kind: Secret}, {group: outrigger.dev, kind: MeshService, name: vault}]";
    let warnings = put(&mut mesh(), of("bank", "ReferenceGrant", "g", spec)).unwrap();
    assert_eq!(told(&warnings), [("/spec/from/0", Code::Reference), ("/spec/to/0", Code::Reference)]);
    let old = "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, namespace: bank}, \
               spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], \
               to: [{group: '', kind: Service}]}}";
    put(&mut mesh(), object(old)).unwrap();
}

#[test]
fn what_is_not_there_is_a_state_where_that_is_allowed() {
    let mut world = mesh();
    let spec = "parentRefs: [{kind: Service, group: '', name: later}], \
                rules: [{backendRefs: [{name: cart}, {name: gone}, {name: cart, port: 99}, {name: db}, \
                {name: vault, namespace: bank}], filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone}}}]}]";
    let warnings = put_dangling(&mut world, of("shop", "HTTPRoute", "r", spec)).unwrap();
    assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
    assert_eq!(resource(&world, &ResourceName::Service(name("shop/later"))), None);
    put(&mut world, service("later", "")).unwrap();
    let route = compiled(&world, "shop/later").routes.remove(0);
    let expected = [
        None,
        Some(Unresolved::BackendNotFound),
        Some(Unresolved::BackendNotFound),
        Some(Unresolved::UnsupportedProtocol),
        Some(Unresolved::RefNotPermitted),
    ];
    assert_eq!(states(&route), expected);
    assert_eq!(route.filters.mirrors, [], "nobody waits for a copy");
    put(&mut world, service("gone", "")).unwrap();
    let route = compiled(&world, "shop/later").routes.remove(0);
    assert_eq!((states(&route)[1], route.filters.mirrors.len()), (None, 1));
}

fn with_filter(filters: &str) -> Object {
    let spec = format!(
        "parentRefs: [{{kind: Service, group: '', name: cart}}], rules: [{{matches: [{{path: {{value: /a}}}}], \
         backendRefs: [{{name: cart}}, {{name: prices, weight: 3}}], filters: [{filters}]}}]"
    );
    of("shop", "HTTPRoute", "r", &spec)
}

fn named(name: &str) -> String {
    format!("{{type: ExtensionRef, extensionRef: {{group: outrigger.dev, kind: RouteFilter, name: {name}}}}}")
}

fn filter(name: &str, spec: &str) -> Object {
    of("shop", "RouteFilter", name, spec)
}

#[test]
fn a_filter_of_our_own_adds_what_it_says_to_the_rule_that_names_it() {
    let mut world = mesh();
    let says = "match: {claims: [{claim: role, values: [beta]}], callers: [{serviceAccount: web}], \
           cookies: [{name: tier, value: gold}], sourceLabels: {team: blue}}, \
         fault: {delay: 2s, abort: {grpcStatus: 14}, percent: 10, match: {method: GET, headers: [{name: x-f, value: '1'}]}}, \
         limits: {maxBody: 1Ki, requests: [{name: few, requests: 3, per: 1s}]}, splitBy: {header: x-user}, \
         partition: {by: {claim: sub}, ranges: [{from: a, to: m, backend: cart}, {from: n, backend: prices}]}";
    put(&mut world, filter("beta", says)).unwrap();
    put(&mut world, with_filter(&named("beta"))).unwrap();
    let route = compiled(&world, "shop/cart").routes.remove(0);
    let m = &route.matches[0];
    assert!(matches!(m.path, Some(PathMatch::Prefix(_))));
    assert_eq!((m.claims.len(), m.cookies.len(), m.labels.len()), (1, 1, 1));
    assert!(matches!(&m.callers[..], [CallerMatch::Id(id)] if id.to_string().ends_with("/ns/shop/sa/web")));
    let fault = &route.filters.faults[0];
    assert_eq!((fault.share, fault.abort), (Fraction { of: 10, out_of: 100 }, Some(Abort::Grpc(14))));
    assert_eq!((fault.matches.len(), fault.matches[0].headers.len()), (1, 1));
    assert_eq!((route.filters.max_body, route.filters.rate_limits.len()), (Some(1024), 1));
    assert!(matches!(route.choice.by, Some(HashKey::Header(_))));
    let ranges = &route.choice.partition.as_ref().unwrap().ranges;
    assert_eq!(ranges.iter().map(|r| r.backend).collect::<Vec<_>>(), [0, 1]);
    // It changes with the filter, without being written anew.
    put(&mut world, filter("beta", "directResponse: {status: 404, headers: {x-a: b}, body: gone}")).unwrap();
    let route = compiled(&world, "shop/cart").routes.remove(0);
    assert_eq!(route.filters.direct.as_ref().map(|d| d.status), Some(404));
    assert!(route.matches[0].claims.is_empty());
}

#[test]
fn a_filter_that_is_not_there_refuses_what_it_would_have_seen() {
    let mut world = mesh();
    let problems = put(&mut world, with_filter(&named("beta"))).unwrap_err();
    assert_eq!(told(&problems), [("/spec/rules/0/filters", Code::Reference)]);
    let foreign = "{type: ExtensionRef, extensionRef: {group: other.dev, kind: Lua, name: x}}";
    assert_eq!(told(&put(&mut world, with_filter(foreign)).unwrap_err())[0].1, Code::Reference);
    put(&mut world, filter("beta", "limits: {maxBody: 1Ki}")).unwrap();
    put(&mut world, with_filter(&named("beta"))).unwrap();
    world.remove_filter(&filter("beta", "").key());
    let route = compiled(&world, "shop/cart").routes.remove(0);
    assert!(route.filters.is_empty() && !route.matches.is_empty());
    assert_eq!(states(&route), [Some(Unresolved::InvalidKind)]);
    put_dangling(&mut world, with_filter(foreign)).unwrap();
    assert_eq!(states(&compiled(&world, "shop/cart").routes[0]), [Some(Unresolved::InvalidKind)]);
}

#[test]
fn filters_that_do_not_go_together_are_refused_with_the_rule() {
    let mut world = mesh();
    put(&mut world, filter("a", "directResponse: {status: 200}, match: {callers: [{serviceAccount: a}]}"))
        .unwrap();
    put(&mut world, filter("b", "match: {callers: [{serviceAccount: b}]}")).unwrap();
    put(&mut world, filter("c", "partition: {by: {header: x}, ranges: [{backend: other}]}")).unwrap();
    let redirect = "{type: RequestRedirect, requestRedirect: {port: 81}}";
    for (filters, word) in [
        (format!("{}, {}", named("a"), named("b")), "who may send"),
        (named("c"), "other"),
        (format!("{}, {}", named("a"), named("a")), "twice"),
    ] {
        let problems = put(&mut world, with_filter(&filters)).unwrap_err();
        assert!(problems[0].message.contains(word) && problems[0].hint.is_some(), "{word}: {problems:#?}");
    }
    let spec = format!(
        "parentRefs: [{{kind: Service, group: '', name: cart}}], rules: [{{filters: [{redirect}, {}]}}]",
        named("a")
    );
    let problems = put(&mut world, of("shop", "HTTPRoute", "r", &spec)).unwrap_err();
    assert!(problems[0].message.contains("two answers"), "{problems:#?}");
}

#[test]
fn all_mistakes_of_a_filter_are_told_at_once() {
    let wrong = "match: {callers: [{}], cookies: [{type: RegularExpression, name: a, value: '('}]}, \
         fault: {delay: 301s, abort: {httpStatus: 500, reset: true}, match: {path: {value: x}}}, \
         directResponse: {status: 204, body: x, headers: {connection: close, 'a b': c}}, \
         limits: {requests: [{name: a, requests: 1, per: 1s, by: header}]}, splitBy: {}, \
         partition: {by: {header: x, cookie: y}, ranges: [{from: z, to: a, backend: cart}]}";
    let problems = put(&mut mesh(), filter("f", wrong)).unwrap_err();
    let pointers: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
    let expected = [
        "/spec/match/callers/0",
        "/spec/match/cookies/0/value",
        "/spec/fault/delay",
        "/spec/fault/abort",
        "/spec/fault/match/path/value",
        "/spec/directResponse/body",
        "/spec/directResponse/headers/a b",
        "/spec/directResponse/headers/connection",
        "/spec/limits/requests/0",
        "/spec/splitBy",
        "/spec/partition/ranges/0",
        "/spec/partition/by",
    ];
    assert_eq!(pointers, expected, "{problems:#?}");
    let problems = put(&mut mesh(), filter("f", "fault: {percent: 3}")).unwrap_err();
    assert_eq!(told(&problems), [("/spec/fault", Code::MissingField)]);
}

fn grpc(rules: &str) -> Object {
    let spec = format!("parentRefs: [{{kind: Service, group: '', name: prices}}], rules: [{rules}]");
    of("shop", "GRPCRoute", "r", &spec)
}

#[test]
fn a_grpc_route_is_a_route_of_requests_on_their_paths() {
    let mut world = mesh();
    let methods = [
        ("service: shop.Cart, method: Get", PathMatch::Exact("/shop.Cart/Get".into())),
        ("service: shop.Cart", PathMatch::Prefix("/shop.Cart".into())),
        ("method: Get", PathMatch::Method("Get".into())),
    ];
    for (method, path) in methods {
        let rule = format!(
            "{{matches: [{{method: {{{method}}}, headers: [{{name: x, value: y}}]}}], backendRefs: [{{name: prices}}]}}"
        );
        put(&mut world, grpc(&rule)).unwrap();
        let route = compiled(&world, "shop/prices").routes.remove(0);
        assert_eq!((route.matches[0].path.as_ref(), route.matches[0].grpc), (Some(&path), true), "{method}");
        assert_eq!(route.name.as_str(), "shop/grpc:r/0");
    }
    let regex = "{matches: [{method: {type: RegularExpression, service: 'shop\\.(Cart|Prices)'}}], backendRefs: [{name: prices}]}";
    put(&mut world, grpc(regex)).unwrap();
    let route = compiled(&world, "shop/prices").routes.remove(0);
    let Some(PathMatch::Regex(pattern)) = &route.matches[0].path else { panic!("{route:?}") };
    assert!(
        pattern.holds(b"/shop.Cart/Get")
            && !pattern.holds(b"/shop.Cart/Get/x")
            && !pattern.holds(b"/shop.Web/Get")
    );
    put(&mut world, grpc("{backendRefs: [{name: prices}]}")).unwrap();
    assert!(compiled(&world, "shop/prices").routes[0].matches[0].grpc, "every call, and nothing else");
}

#[test]
fn mistakes_of_a_grpc_route_are_told_at_once() {
    let wrong = "{matches: [{method: {}}, {method: {service: shop/Cart}}, {method: {method: 1Get}}, \
                 {method: {type: RegularExpression, method: '('}}], backendRefs: [{name: db}]}";
    let problems = put(&mut mesh(), grpc(wrong)).unwrap_err();
    let at = |rest: &str| format!("/spec/rules/0/{rest}");
    let expected = [
        (at("matches/0/method"), Code::MissingField),
        (at("matches/1/method/service"), Code::BadValue),
        (at("matches/2/method/method"), Code::BadValue),
        (at("matches/3/method/method"), Code::BadValue),
        (at("backendRefs/0/name"), Code::Contradiction),
    ];
    let expected: Vec<_> = expected.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    assert_eq!(told(&problems), expected, "{problems:#?}");
    let redirect = "{filters: [{type: RequestRedirect}]}";
    let text =
        serde_json::to_string(&grpc("{}").to_json()).unwrap().replace("[{}]", &format!("[{redirect}]"));
    assert!(crate::spec::read(&text, "x").is_err(), "a call is not redirected");
}

fn tcp(annotation: &str, backends: &str) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: TCPRoute, metadata: {{name: r, namespace: shop{annotation}}}, \
         spec: {{parentRefs: [{{kind: Service, group: '', name: db}}], rules: [{{backendRefs: [{backends}]}}]}}}}"
    ))
}

#[test]
fn a_tcp_route_divides_connections_and_says_whose() {
    let mut world = mesh();
    let callers = ", annotations: {outrigger.dev/callers: 'web, bank/batch'}";
    put(&mut world, tcp(callers, "{name: db, weight: 9}, {name: replica, port: 5432}")).unwrap();
    let route: TcpRoute = compiled(&world, "shop/db").tcp_routes.remove(0);
    assert_eq!((route.name.as_str(), route.callers.len()), ("shop/tcp:r/0", 2));
    assert!(
        matches!(&route.callers[1], CallerMatch::Id(id) if id.to_string().ends_with("/ns/bank/sa/batch"))
    );
    assert_eq!(route.backends.iter().map(|b| b.weight).collect::<Vec<_>>(), [9, 1]);
    assert_eq!(compiled(&world, "shop/db").routes, []);
    let problems =
        put(&mut world, tcp(", annotations: {outrigger.dev/callers: 'web, Web, web'}", "{name: cart}"));
    let pointers: Vec<_> = problems.unwrap_err().iter().map(|p| p.pointer.clone()).collect();
    let annotation = "/metadata/annotations/outrigger.dev~1callers";
    assert_eq!(pointers, [annotation, annotation, "/spec/rules/0/backendRefs/0/name"]);
}

#[test]
fn a_route_for_a_service_of_another_namespace_is_for_its_own_callers_alone() {
    let mut world = mesh();
    let spec = "parentRefs: [{kind: Service, group: '', name: vault, namespace: bank}], \
                rules: [{timeouts: {request: 1s}, backendRefs: [{name: cart}]}]";
    put(&mut world, of("shop", "HTTPRoute", "r", spec)).unwrap();
    let own =
        "parentRefs: [{kind: Service, group: '', name: vault}], rules: [{backendRefs: [{name: vault}]}]";
    put(&mut world, of("bank", "HTTPRoute", "r", own)).unwrap();
    let producer: Vec<_> = compiled(&world, "bank/vault").routes.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(producer, ["bank/r/0"]);
    let routes = consumer(&world, "shop", "bank/vault").unwrap();
    assert_eq!(routes.routes.iter().map(|r| r.name.to_string()).collect::<Vec<_>>(), ["shop/r/0"]);
    assert_eq!(states(&routes.routes[0]), [None], "its own service needs no grant");
    assert_eq!(
        (consumer(&world, "other", "bank/vault"), consumer(&world, "bank", "bank/vault")),
        (None, None)
    );
    world.remove_route(&of("shop", "HTTPRoute", "r", spec).key());
    assert_eq!(consumer(&world, "shop", "bank/vault"), None);
}

#[test]
fn of_routes_with_one_match_the_older_comes_first() {
    let mut world = mesh();
    let backends = "rules: [{backendRefs: [{name: prices}]}]";
    let parent = "parentRefs: [{kind: Service, group: '', name: prices}]";
    for name in ["z", "b", "a"] {
        put(&mut world, of("shop", "HTTPRoute", name, &format!("{parent}, {backends}"))).unwrap();
    }
    let names: Vec<_> = compiled(&world, "shop/prices").routes.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["shop/z/0", "shop/b/0", "shop/a/0"]);
}

#[test]
fn a_port_that_a_grpc_route_is_for_is_no_http_routes() {
    let mut world = mesh();
    put(&mut world, service("prices", "ports: [{port: 80}, {port: 81, name: rpc, protocol: grpc}]")).unwrap();
    let route = |kind: &str, name: &str, port: &str| {
        let parent = format!("parentRefs: [{{kind: Service, group: '', name: prices{port}}}]");
        of("shop", kind, name, &format!("{parent}, rules: [{{backendRefs: [{{name: prices}}]}}]"))
    };
    let in_force = |world: &World| -> Vec<(String, Vec<u16>)> {
        let ports = |r: &Route| r.ports.iter().map(|p| p.get()).collect();
        compiled(world, "shop/prices").routes.iter().map(|r| (r.name.to_string(), ports(r))).collect()
    };
    let is = |name: &str, ports: &[u16]| (name.to_owned(), ports.to_vec());
    put(&mut world, route("HTTPRoute", "all", "")).unwrap();
    put(&mut world, route("HTTPRoute", "one", ", port: 81")).unwrap();
    assert_eq!(in_force(&world), [is("shop/all/0", &[]), is("shop/one/0", &[81])]);
    put(&mut world, route("GRPCRoute", "calls", ", sectionName: rpc")).unwrap();
    assert_eq!(in_force(&world), [is("shop/all/0", &[80]), is("shop/grpc:calls/0", &[81])]);
    put(&mut world, route("GRPCRoute", "calls", "")).unwrap();
    assert_eq!(in_force(&world), [is("shop/grpc:calls/0", &[])]);
    world.remove_route(&route("GRPCRoute", "calls", "").key());
    assert_eq!(in_force(&world).len(), 2);
}

#[test]
fn a_backend_of_another_kind_is_refused_and_where_it_may_dangle_its_share_leads_nowhere() {
    let bucket = "{group: example.com, kind: Bucket, name: some.thing, weight: 3}";
    let mirror =
        "{type: RequestMirror, requestMirror: {backendRef: {group: example.com, kind: Service, name: cart}}}";
    let spec = format!(
        "parentRefs: [{{kind: Service, group: '', name: cart}}], \
         rules: [{{filters: [{mirror}], backendRefs: [{bucket}, {{name: cart}}]}}]"
    );
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let mut world = mesh();
        let problems = put(&mut world, of("shop", kind, "r", &spec)).unwrap_err();
        let at =
            ["/spec/rules/0/filters/0/requestMirror/backendRef/group", "/spec/rules/0/backendRefs/0/kind"];
        assert_eq!(problems.iter().map(|p| p.pointer.as_str()).collect::<Vec<_>>(), at, "{problems:#?}");
        assert!(problems.iter().all(|p| p.hint.is_some()), "{problems:#?}");
        put_dangling(&mut world, of("shop", kind, "r", &spec)).unwrap();
        let route = compiled(&world, "shop/cart").routes.remove(0);
        assert_eq!(states(&route), [Some(Unresolved::InvalidKind), None]);
        assert_eq!((route.backends[0].weight, route.filters.mirrors.len()), (3, 0));
    }
}

#[test]
fn at_a_listener_a_host_name_belongs_to_the_older_of_two_kinds() {
    let mut world = mesh();
    let listeners = "{name: web, port: 80, protocol: HTTP}, {name: other, port: 81, protocol: HTTP, hostname: b.example.com}";
    put(&mut world, gateway("edge", listeners)).unwrap();
    let route = |kind: &str, name: &str, hosts: &str| {
        let spec = format!(
            "parentRefs: [{{name: edge}}], hostnames: [{hosts}], rules: [{{backendRefs: [{{name: prices}}]}}]"
        );
        of("shop", kind, name, &spec)
    };
    put(&mut world, route("HTTPRoute", "old", "'*.example.com'")).unwrap();
    put(&mut world, route("GRPCRoute", "new", "a.example.com")).unwrap();
    put(&mut world, route("GRPCRoute", "apart", "a.example.org")).unwrap();
    put(&mut world, route("HTTPRoute", "same", "a.example.com")).unwrap();
    let taken = |world: &World| -> Vec<Vec<String>> {
        let found = resource(world, &ResourceName::Gateway(name("shop/edge")));
        let Some(Resource::Gateway(gateway)) = found else { panic!("{found:?}") };
        let names =
            |l: &outrigger_mesh::Listener| l.routes.iter().map(|r| r.route.name.to_string()).collect();
        gateway.checked().unwrap().listeners.iter().map(names).collect()
    };
    let web = ["shop/old/0", "shop/grpc:apart/0", "shop/same/0"].map(String::from).to_vec();
    assert_eq!(taken(&world), [web, vec!["shop/old/0".to_owned()]]);
    world.remove_route(&route("HTTPRoute", "old", "").key());
    let web = ["shop/grpc:new/0", "shop/grpc:apart/0"].map(String::from).to_vec();
    assert_eq!(taken(&world)[0], web);
}

#[test]
fn what_is_touched_is_recorded() {
    let world = mesh();
    let mut touched = crate::compile::Touched::default();
    for object in [grant("g", "HTTPRoute", ""), filter("f", ""), tcp("", "{name: db}"), grpc("{}")] {
        touch(&mut touched, &world, &object.key());
    }
    assert_eq!((touched.routes.len(), touched.filters.len(), touched.grants.len()), (2, 1, 1));
}

#[test]
fn every_example_of_the_page_on_routing_holds_and_is_compiled() {
    let page = include_str!("../../../docs/routing.md");
    let (mut world, mut block, mut count) = (world(), String::new(), 0);
    for line in page.lines().chain([""]) {
        match line.strip_prefix("    ") {
            Some(code) => block.extend([code, "\n"]),
            None if line.is_empty() && block.is_empty() => {}
            None => {
                let text = std::mem::take(&mut block);
                if text.starts_with("apiVersion:") {
                    for document in
                        crate::spec::read(&text, "routing.md").unwrap_or_else(|p| panic!("{p:#?}"))
                    {
                        put(&mut world, document.object).unwrap_or_else(|p| panic!("{text}: {p:#?}"));
                        count += 1;
                    }
                }
            }
        }
    }
    assert!(count > 12, "{count}");
    let cart = compiled(&world, "shop/cart");
    assert!(cart.routes.len() > 5 && cart.routes.iter().all(|r| states(r).iter().all(Option::is_none)));
    assert!(consumer(&world, "bank", "shop/cart").is_some());
    assert_eq!(compiled(&world, "shop/db").tcp_routes.len(), 1);
}

#[test]
fn a_match_is_met_where_a_filter_or_a_port_tells_it_from_an_older_one() {
    let mut world = mesh();
    let route = |name: &str, parent: &str, extension: &str| {
        object(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: shop}}, spec: {{\
             parentRefs: [{{kind: Service, group: '', name: prices{parent}}}], rules: [{{matches: [{{path: {{value: /a}}}}], \
             backendRefs: [{{name: prices}}]{extension}}}]}}}}"
        ))
    };
    let named = |name: &str| {
        format!(
            ", filters: [{{type: ExtensionRef, extensionRef: {{group: outrigger.dev, kind: RouteFilter, name: {name}}}}}]"
        )
    };
    let of = |team: &str| format!("match: {{sourceLabels: {{team: {team}}}}}");
    put(&mut world, filter("blue", &of("blue"))).unwrap();
    put(&mut world, filter("red", &of("red"))).unwrap();
    let mut warned = |object| {
        let found = put(&mut world, object).unwrap();
        found.iter().any(|problem| problem.code == Code::Unreachable)
    };
    assert!(!warned(route("a-blue", ", port: 80", &named("blue"))));
    assert!(!warned(route("b-red", ", port: 80", &named("red"))));
    assert!(!warned(route("c-all", ", port: 80", "")));
    assert!(!warned(route("d-other-port", ", port: 81", "")));
    assert!(!warned(route("e-every-port", "", "")));
    assert!(warned(route("f-blue-again", ", port: 80", &named("blue"))));
    assert!(warned(route("g-again", ", port: 81", "")));
}
