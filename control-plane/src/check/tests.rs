use crate::spec::{Code, Problem, Severity};
use crate::testing::{instance, name, put, route, service, world};
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
        ("/spec/hostnames/2", Code::Unsupported),
        ("/spec/hostnames/4", Code::Duplicate),
        ("/spec/hostnames/0", Code::Conflict),
        ("/spec/ports/1/port", Code::Duplicate),
        ("/spec/identities/0", Code::Unsupported),
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
        assert!(
            told(&problems).contains(&("/spec/hostnames/0", Code::Unsupported)),
            "{namespace} {hostname}"
        );
    }
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
        ("/spec/rules/0/backendRefs/3/namespace", Code::Unsupported),
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
