use crate::spec::{Code, Problem, Severity};
use crate::testing::{
    breaker_override, defaults, egress, gateway, gateway_route, instance, name, policy, put, route,
    route_policy, service, world,
};
use crate::world::World;

fn told(problems: &[Problem]) -> Vec<(&str, Code)> {
    problems.iter().map(|p| (p.pointer.as_str(), p.code)).collect()
}

fn shop() -> World {
    let mut world = world();
    for (name, spec) in [("cart", ""), ("prices", "ports: [{port: 80}, {port: 81, protocol: grpc}]")] {
        put(&mut world, service(name, spec)).unwrap();
    }
    world
}

#[test]
fn a_service_has_its_names_and_its_own_account_by_default() {
    let world = shop();
    let service = world.service(&name("shop/cart")).unwrap().checked.service().clone();
    let names: Vec<_> = service.hostnames.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["cart.shop", "cart.shop.mesh", "cart.shop.svc.cluster.local"]);
    assert_eq!(service.identities[0].to_string(), "spiffe://mesh.local/ns/shop/sa/cart");
    assert_eq!(service.ports[0].number.get(), 80);
}

#[test]
fn all_problems_of_a_service_are_told_at_once() {
    let wrong = service(
        "x",
        "ports: [{port: 80}, {port: 80}], timeouts: {request: 1s, perTry: 1s}, \
         hostnames: [cart.shop, x.shop, other.bank, basket, 'basket.shop'], \
         identities: ['spiffe://other.org/ns/a/sa/b', a, a]",
    );
    let problems = put(&mut shop(), wrong).unwrap_err();
    let expected = [
        ("/spec/hostnames/1", Code::Duplicate),
        ("/spec/hostnames/2", Code::Conflict),
        ("/spec/hostnames/4", Code::Duplicate),
        ("/spec/hostnames/0", Code::Conflict),
        ("/spec/ports/1/port", Code::Duplicate),
        ("/spec/identities/0", Code::Reference),
        ("/spec/identities/2", Code::Duplicate),
        ("/spec/timeouts/perTry", Code::Contradiction),
    ];
    assert_eq!(told(&problems), expected, "{problems:#?}");
}

#[test]
fn no_namespace_takes_the_names_of_another() {
    let mut world = shop();
    for (namespace, hostname) in [
        ("mesh", "cart.shop.mesh"),
        ("mesh", "cart.shop"),
        ("local", "cart.shop.svc.cluster.local"),
        ("cluster", "x.shop"),
        ("bank", "cart.shop.mesh"),
    ] {
        let text = format!(
            "{{apiVersion: outrigger.dev/v1alpha1, kind: MeshService, metadata: {{name: evil, namespace: {namespace}}}, \
             spec: {{hostnames: [{hostname}]}}}}"
        );
        let problems = put(&mut world, crate::testing::object(&text)).unwrap_err();
        assert!(told(&problems).contains(&("/spec/hostnames/0", Code::Conflict)), "{namespace} {hostname}");
    }
}

fn grants(text: &str) -> crate::spec::Object {
    defaults(&format!("hostnameGrants: [{text}]"))
}

#[test]
fn a_name_outside_the_namespace_is_taken_with_an_operators_grant_and_only_with_it() {
    let mut world = shop();
    let api = || service("api", "hostnames: [api.example.com]");
    let problems = put(&mut world, api()).unwrap_err();
    assert_eq!(told(&problems), [("/spec/hostnames/0", Code::Conflict)], "{problems:#?}");
    assert!(problems[0].to_string().contains("grant"), "{problems:#?}");

    put(&mut world, grants("{namespace: bank, hostnames: ['*.example.com']}")).unwrap();
    assert!(put(&mut world, api()).is_err(), "the grant is another namespace's");
    put(&mut world, grants("{namespace: shop, hostnames: ['*.example.com']}")).unwrap();
    put(&mut world, api()).unwrap();
    for other in ["other.example.org", "example.com", "notexample.com", "cart.bank.mesh"] {
        assert!(put(&mut world, service("evil", &format!("hostnames: [{other}]"))).is_err(), "{other}");
    }
    let com = "{apiVersion: outrigger.dev/v1alpha1, kind: MeshService, metadata: {name: evil, namespace: com}, spec: \
               {hostnames: [www.example.com]}}";
    assert!(
        put(&mut world, crate::testing::object(com)).is_err(),
        "a namespace that is called com owns no .com"
    );
    let problems = put(&mut world, service("late", "hostnames: [api.example.com]")).unwrap_err();
    assert!(problems[0].to_string().contains("belongs to the service shop/api"), "{problems:#?}");
}

#[test]
fn a_grant_of_names_of_the_mesh_is_refused_and_so_is_one_twice() {
    let at = |i: u8| format!("/spec/hostnameGrants/0/hostnames/{i}");
    let written =
        "{namespace: shop, hostnames: ['*.bank.mesh', cart.bank.svc.cluster.local, '*.x.org', '*.x.org']}";
    let problems = put(&mut shop(), grants(written)).unwrap_err();
    let expected = [(at(0), Code::Contradiction), (at(1), Code::Contradiction), (at(3), Code::Duplicate)];
    let expected: Vec<_> = expected.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    assert_eq!(told(&problems), expected, "{problems:#?}");
}

#[test]
fn a_name_that_another_service_took_is_refused_also_as_a_default() {
    let mut world = shop();
    put(&mut world, service("basket", "hostnames: [trolley.shop]")).unwrap();
    let problems = put(&mut world, service("trolley", "")).unwrap_err();
    assert_eq!(told(&problems), [("/metadata/name", Code::Conflict)]);
    put(&mut world, service("basket", "")).unwrap();
    put(&mut world, service("trolley", "")).unwrap();
}

#[test]
fn all_problems_of_a_route_are_told_at_once() {
    let wrong = route(
        "r",
        "cat",
        "timeouts: {request: 1s, backendRequest: 2s}, \
         matches: [{headers: [{name: a, value: x}, {name: A, value: y}]}], \
         backendRefs: [{name: cart, port: 99}, {kind: ServiceVersion, name: cart}, {name: price}, \
                       {name: cart, namespace: bank}, {kind: ServiceVersion, group: '', name: cart.v2}]",
    );
    let problems = put(&mut shop(), wrong).unwrap_err();
    let errors: Vec<Problem> = problems.into_iter().filter(|p| p.severity == Severity::Error).collect();
    let expected = [
        ("/spec/parentRefs/0/name", Code::Reference),
        ("/spec/rules/0/matches/0/headers/1/name", Code::Duplicate),
        ("/spec/rules/0/backendRefs/0/port", Code::Reference),
        ("/spec/rules/0/backendRefs/1/name", Code::BadValue),
        ("/spec/rules/0/backendRefs/2/name", Code::Reference),
        ("/spec/rules/0/backendRefs/3/namespace", Code::Reference),
        ("/spec/rules/0/backendRefs/4/group", Code::Contradiction),
        ("/spec/rules/0/timeouts/backendRequest", Code::Contradiction),
    ];
    assert_eq!(told(&errors), expected, "{errors:#?}");
    assert_eq!(errors[0].hint.as_deref(), Some("did you mean \"cart\"?"));
}

#[test]
fn a_port_that_would_be_ignored_is_refused() {
    let mut world = shop();
    put(&mut world, route("ok", "cart", "backendRefs: [{name: cart, port: 80}]")).unwrap();
    let problems =
        put(&mut world, route("r", "prices", "backendRefs: [{name: prices, port: 81}]")).unwrap_err();
    assert_eq!(told(&problems), [("/spec/rules/0/backendRefs/0/port", Code::Unsupported)]);
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let mut world = shop();
    let version = "{group: outrigger.dev, kind: ServiceVersion, name: cart.v2, weight: 0}";
    let rule = format!("timeouts: {{backendRequest: 20s}}, backendRefs: [{version}]");
    let warnings = put(&mut world, route("r", "cart", &rule)).unwrap();
    let expected = [
        ("/spec/rules/0/backendRefs", Code::NoTraffic),
        ("/spec/rules/0/backendRefs/0/name", Code::NoTraffic),
        ("/spec/rules/0/timeouts", Code::Contradiction),
    ];
    assert_eq!(told(&warnings), expected, "{warnings:#?}");

    put(&mut world, instance("c-1", "service: cart, address: 127.0.0.1, version: v2")).unwrap();
    let rule = "backendRefs: [{group: outrigger.dev, kind: ServiceVersion, name: cart.v2}]";
    assert_eq!(put(&mut world, route("r", "cart", rule)).unwrap(), []);
    let warnings = put(&mut world, route("s", "prices", "backendRefs: [{name: cart}]")).unwrap();
    assert_eq!(told(&warnings), [("/spec/rules/0/backendRefs/0", Code::NoTraffic)], "port 81");
}

#[test]
fn a_rule_that_no_request_can_reach_is_a_warning() {
    let mut world = shop();
    let cart = "backendRefs: [{name: cart}]";
    let twice = format!("matches: [{{path: {{value: /a}}}}, {{path: {{value: /a/}}}}], {cart}");
    let warnings = put(&mut world, route("one", "cart", &twice)).unwrap();
    assert_eq!(told(&warnings), [("/spec/rules/0/matches/1", Code::Unreachable)]);
    let again = format!("matches: [{{path: {{type: PathPrefix, value: /a}}}}], {cart}");
    let warnings = put(&mut world, route("two", "cart", &again)).unwrap();
    assert_eq!(told(&warnings), [("/spec/rules/0/matches/0", Code::Unreachable)]);
    assert!(warnings[0].message.contains("shop/one"), "{}", warnings[0].message);
    assert_eq!(
        told(&put(&mut world, route("one", "cart", &twice)).unwrap()).len(),
        1,
        "the older one is not told so"
    );
}

#[test]
fn an_instance_needs_its_service_and_its_ports() {
    let mut world = shop();
    let problems = put(&mut world, instance("i", "service: none, address: 127.0.0.1")).unwrap_err();
    assert_eq!(told(&problems), [("/spec/service", Code::Reference)]);
    let ports =
        "service: cart, address: 127.0.0.1, ports: [{port: 81}, {port: 80}, {port: 80, listen: 8080}]";
    let problems = put(&mut world, instance("i", ports)).unwrap_err();
    let expected = [("/spec/ports/0/port", Code::Reference), ("/spec/ports/2/port", Code::Duplicate)];
    assert_eq!(told(&problems), expected);
    let plain = "service: cart, address: 127.0.0.1, transport: plaintext";
    let warnings = put(&mut world, instance("i", plain)).unwrap();
    assert_eq!(told(&warnings), [("/spec/transport", Code::NoTraffic)]);
}

#[test]
fn what_is_looked_up_by_dns_says_what_and_can_not_be_strict() {
    let problems = put(&mut shop(), service("db", "discovery: dns")).unwrap_err();
    assert_eq!(told(&problems), [("/spec/mtls", Code::Contradiction), ("/spec/targets", Code::MissingField)]);
    let targets = "targets: [{host: a.example.com, srv: _x._tcp.example.com}, {host: cart.shop.mesh}, \
                   {srv: _x._tcp.example.com, port: 1}, {address: 240.0.0.9}, {host: a.example.com}, {host: a.example.com}]";
    let problems =
        put(&mut shop(), service("db", &format!("discovery: dns, mtls: off, {targets}"))).unwrap_err();
    let expected = [
        ("/spec/targets/0", Code::BadValue),
        ("/spec/targets/1/host", Code::BadValue),
        ("/spec/targets/2/port", Code::BadValue),
        ("/spec/targets/3/address", Code::BadValue),
        ("/spec/targets/5", Code::Duplicate),
    ];
    assert_eq!(told(&problems), expected, "{problems:#?}");
    let good =
        "discovery: dns, mtls: off, ports: [{port: 5432, protocol: tcp}], targets: [{host: db.example.com}]";
    assert_eq!(put(&mut shop(), service("db", good)).unwrap(), []);
}

#[test]
fn an_egress_service_has_names_of_the_outside_only() {
    let hosts = "hosts: [api, api.shop.mesh, api.example.com, api.example.com], ports: [{port: 443}]";
    let problems = put(&mut shop(), egress("api", hosts)).unwrap_err();
    let expected = [
        ("/spec/hosts/0", Code::BadValue),
        ("/spec/hosts/1", Code::Conflict),
        ("/spec/hosts/3", Code::Duplicate),
    ];
    assert_eq!(told(&problems), expected, "{problems:#?}");
    let tls = "hosts: [a.example.com], ports: [{port: 443, protocol: tls}], tls: {mode: originate}";
    assert_eq!(
        told(&put(&mut shop(), egress("api", tls)).unwrap_err()),
        [("/spec/tls/mode", Code::Contradiction)]
    );
    let mut world = shop();
    put(&mut world, egress("api", "hosts: [a.example.com], ports: [{port: 443}]")).unwrap();
    let again = egress("other", "hosts: [a.example.com], ports: [{port: 443}]");
    assert_eq!(told(&put(&mut world, again).unwrap_err()), [("/spec/hosts/0", Code::Conflict)]);
    let backend = route("out", "cart", "backendRefs: [{name: api}]");
    assert!(put(&mut world, backend).is_ok(), "an egress service is a service to routes");
}

#[test]
fn what_holds_for_the_mesh_agrees_with_what_is_there() {
    let mut world = shop();
    put(&mut world, egress("api", "hosts: [api.corp], ports: [{port: 443}]")).unwrap();
    let wrong = defaults("addressRanges: [10.0.0.0/8, 10.0.0.0/8, 0.0.0.0/0], suffixes: [mesh, corp]");
    let expected = [
        ("/spec/addressRanges/1", Code::Duplicate),
        ("/spec/addressRanges/2", Code::Contradiction),
        ("/spec/suffixes/0", Code::Duplicate),
        ("/spec/suffixes", Code::Conflict),
    ];
    assert_eq!(told(&put(&mut world, wrong).unwrap_err()), expected);
    let mut elsewhere = defaults("");
    elsewhere.metadata.name = crate::spec::ObjectName::new("other").unwrap();
    assert_eq!(told(&put(&mut world, elsewhere).unwrap_err()), [("/metadata/name", Code::BadValue)]);
}

#[test]
fn the_listeners_of_a_gateway_agree() {
    let wrong = "{name: a, port: 80, protocol: HTTP, tls: {certificateRefs: [{name: c}]}}, \
                 {name: b, port: 443, protocol: HTTPS}, {name: c, port: 81, protocol: HTTP}, \
                 {name: c, port: 81, protocol: HTTP}, {name: d, port: 81, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}";
    let problems = put(&mut shop(), gateway("edge", wrong)).unwrap_err();
    let expected = [
        ("/spec/listeners/0/tls", Code::Contradiction),
        ("/spec/listeners/1/tls", Code::MissingField),
        ("/spec/listeners/3/name", Code::Duplicate),
        ("/spec/listeners/3/port", Code::Conflict),
    ];
    assert_eq!(told(&problems)[..4], expected, "{problems:#?}");
    assert!(told(&problems).contains(&("/spec/listeners/4/protocol", Code::Contradiction)));
}

#[test]
fn a_route_attaches_itself_to_a_listener_that_takes_it() {
    let mut world = shop();
    let listeners = "{name: web, port: 80, protocol: HTTP, hostname: '*.example.com'}";
    put(&mut world, gateway("edge", listeners)).unwrap();
    let rules = "rules: [{backendRefs: [{name: cart, port: 80}]}]";
    let route = |hosts: &str| gateway_route("r", "edge", &format!("hostnames: [{hosts}], {rules}"));
    assert_eq!(put(&mut world, route("shop.example.com")).unwrap(), []);
    let warnings = put(&mut world, route("shop.other.com")).unwrap();
    assert_eq!(told(&warnings), [("/spec/parentRefs/0", Code::NoTraffic)]);
    let twice = put(&mut world, route("a.example.com, a.example.com")).unwrap_err();
    assert_eq!(told(&twice), [("/spec/hostnames/1", Code::Duplicate)]);
    assert_eq!(told(&put(&mut world, gateway_route("r", "none", rules)).unwrap_err())[0].1, Code::Reference);
    let port = |port: u16| {
        gateway_route("r", "edge", &format!("rules: [{{backendRefs: [{{name: prices, port: {port}}}]}}]"))
    };
    assert_eq!(put(&mut world, port(81)).unwrap(), [], "the second of its ports");
    let problems = put(&mut world, port(99)).unwrap_err();
    assert_eq!(told(&problems), [("/spec/rules/0/backendRefs/0/port", Code::Reference)]);
}

#[test]
fn what_makes_no_sense_where_it_stands_is_refused_with_a_hint() {
    let mut world = shop();
    put(&mut world, route("r", "cart", "backendRefs: [{name: cart}]")).unwrap();
    let limits = "rateLimits: [{name: a, requests: 1, per: 1s}], bulkhead: {caller: {maxInFlight: 1}}";
    let problems = put(&mut world, policy("p", "cart", &format!("callers: [web], {limits}"))).unwrap_err();
    let expected =
        [("/spec/bulkhead/caller", Code::Contradiction), ("/spec/rateLimits", Code::Contradiction)];
    assert_eq!(told(&problems), expected, "{problems:#?}");
    let rest =
        "balance: {}, connections: {perEndpoint: 1}, retry: {budgetFloor: 1}, bulkhead: {maxStreams: 1}";
    let problems = put(&mut world, route_policy("p", "r", rest)).unwrap_err();
    let pointers: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
    let expected =
        ["/spec/balance", "/spec/connections", "/spec/bulkhead/maxStreams", "/spec/retry/budgetFloor"];
    assert_eq!(pointers, expected);
    assert!(problems.iter().all(|p| p.hint.as_deref().is_some_and(|h| h.contains("policy of the service"))));
}

#[test]
fn settings_that_say_nothing_or_two_things_are_refused_all_at_once() {
    let rest = "balance: {algorithm: random, hash: {header: x-a, cookie: b}, sticky: {}}, \
                serviceBreaker: {fallback: {body: sorry, headers: {content-length: '3', 'a b': c}}}, \
                healthCheck: {http: {path: /}, tcp: {}, port: 7}, \
                rateLimits: [{name: a, requests: 1, per: 1s, by: header}, {name: a, requests: 1, per: 48h, header: x}]";
    let problems = put(&mut shop(), policy("p", "cart", rest)).unwrap_err();
    let pointers: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
    let expected = [
        "/spec/balance/hash",
        "/spec/balance/hash",
        "/spec/balance/sticky",
        "/spec/serviceBreaker/fallback",
        "/spec/serviceBreaker/fallback",
        "/spec/serviceBreaker/fallback/headers/a b",
        "/spec/serviceBreaker/fallback/headers/content-length",
        "/spec/healthCheck",
        "/spec/healthCheck/port",
        "/spec/rateLimits/0",
        "/spec/rateLimits/1/name",
        "/spec/rateLimits/1/header",
        "/spec/rateLimits/1/per",
    ];
    assert_eq!(pointers, expected, "{problems:#?}");
}

#[test]
fn a_second_policy_for_the_same_is_refused_and_names_the_first() {
    let mut world = shop();
    put(&mut world, policy("one", "cart", "slowStart: true")).unwrap();
    let problems = put(&mut world, policy("two", "cart", "slowStart: false")).unwrap_err();
    assert_eq!(told(&problems), [("/spec/targetRef", Code::Conflict)]);
    assert!(problems[0].hint.as_deref().unwrap().contains("shop/one"), "{problems:?}");
    put(&mut world, policy("web", "cart", "callers: [web, web2], slowStart: false")).unwrap();
    let problems = put(&mut world, policy("two", "cart", "callers: [x, web2], slowStart: true")).unwrap_err();
    assert_eq!(told(&problems), [("/spec/callers/1", Code::Conflict)]);
    put(&mut world, policy("one", "cart", "slowStart: false")).unwrap();
}

#[test]
fn a_policy_for_what_is_not_there_is_told_what_was_meant() {
    let mut world = shop();
    let problems = put(&mut world, policy("p", "carts", "slowStart: true")).unwrap_err();
    assert_eq!(problems[0].hint.as_deref(), Some("did you mean \"cart\"?"));
    put(&mut world, route("prices", "cart", "name: all, backendRefs: [{name: cart}]")).unwrap();
    let problems = put(&mut world, route_policy("p", "price", "retry: {retries: 1}")).unwrap_err();
    assert_eq!(problems[0].hint.as_deref(), Some("did you mean \"prices\"?"));
    let rule = "targetRef: {kind: HTTPRoute, name: prices, sectionName: al}";
    let text = format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p, namespace: shop}}, spec: {{{rule}}}}}"
    );
    let problems = put(&mut world, crate::testing::object(&text)).unwrap_err();
    assert_eq!(told(&problems), [("/spec/targetRef/sectionName", Code::Reference)]);
}

#[test]
fn an_override_names_a_breaker_that_is_there_and_a_time_to_come() {
    let mut world = shop();
    put(&mut world, route("r", "cart", "backendRefs: [{name: cart}]")).unwrap();
    put(&mut world, breaker_override("a", "cart", "mode: forceOpen")).unwrap();
    for (rest, pointer) in [
        ("mode: auto", "/spec/service"),
        ("mode: auto, route: x", "/spec/route"),
        ("mode: auto, route: r, version: v1", "/spec/version"),
        ("mode: auto, version: v1, expiresAt: '2020-01-01T00:00:00Z'", "/spec/expiresAt"),
        ("mode: auto, version: v1, for: 1m, expiresAt: '2220-01-01T00:00:00Z'", "/spec/for"),
    ] {
        let problems = put(&mut world, breaker_override("b", "cart", rest)).unwrap_err();
        assert_eq!(problems[0].pointer, pointer, "{rest}: {problems:?}");
    }
    put(&mut world, breaker_override("b", "cart", "mode: observe, route: r")).unwrap();
}
