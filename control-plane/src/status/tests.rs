use serde_json::Value as Json;

use super::of_route;
use crate::spec::Object;
use crate::testing::{gateway, object, put, put_dangling, service, world};
use crate::world::World;

fn of(namespace: &str, kind: &str, name: &str, spec: &str) -> Object {
    let group = if kind == "RouteFilter" { "outrigger.dev/v1alpha1" } else { "gateway.networking.k8s.io/v1" };
    object(&format!(
        "{{apiVersion: {group}, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}"
    ))
}

fn mesh() -> World {
    let mut world = world();
    put(&mut world, service("cart", "ports: [{port: 80, name: web}]")).unwrap();
    put(&mut world, service("prices", "")).unwrap();
    put(&mut world, service("db", "ports: [{port: 5432, protocol: tcp}]")).unwrap();
    let listeners = "{name: web, port: 80, protocol: HTTP, hostname: '*.example.com', allowedRoutes: {namespaces: {from: All}}}, \
                     {name: own, port: 81, protocol: HTTP}";
    put(&mut world, gateway("edge", listeners)).unwrap();
    world
}

/// The status of the conditions of each parent: `Accepted` and `ResolvedRefs`, with their reasons.
fn told(world: &mut World, route: Object) -> Vec<(String, String)> {
    let key = route.key();
    put_dangling(world, route).unwrap_or_else(|p| panic!("{p:#?}"));
    let status = of_route(world, world.route(&key).unwrap());
    let word = |c: &Json| format!("{} {}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap());
    status["parents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parent| {
            assert_eq!(parent["controllerName"], "outrigger.dev/controller");
            (word(&parent["conditions"][0]), word(&parent["conditions"][1]))
        })
        .collect()
}

const CART: &str = "{kind: Service, group: '', name: cart}";

#[test]
fn what_a_parent_says_of_a_route_is_one_of_the_gateway_apis_reasons() {
    for (namespace, parent, hosts, expected) in [
        ("shop", CART, "", "True Accepted"),
        ("bank", "{kind: Service, group: '', name: cart, namespace: shop}", "", "True Accepted"),
        ("shop", "{kind: Service, group: '', name: carts}", "", "False NoMatchingParent"),
        ("shop", "{kind: Service, group: '', name: cart, port: 81}", "", "False NoMatchingParent"),
        ("shop", "{kind: Service, group: '', name: cart, sectionName: rpc}", "", "False NoMatchingParent"),
        ("shop", "{name: edge}", "hostnames: [a.example.com], ", "True Accepted"),
        ("shop", "{name: edges}", "", "False NoMatchingParent"),
        ("shop", "{name: edge, sectionName: none}", "", "False NoMatchingParent"),
        ("shop", "{name: edge, port: 82}", "", "False NoMatchingParent"),
        (
            "shop",
            "{name: edge, sectionName: web}",
            "hostnames: [a.other.com], ",
            "False NoMatchingListenerHostname",
        ),
        ("bank", "{name: edge, namespace: shop, port: 80}", "", "True Accepted"),
        ("bank", "{name: edge, namespace: shop, port: 81}", "", "False NotAllowedByListeners"),
    ] {
        let spec = format!("parentRefs: [{parent}], {hosts}rules: [{{}}]");
        let all = told(&mut mesh(), of(namespace, "HTTPRoute", "r", &spec));
        let expected = vec![(expected.to_owned(), "True ResolvedRefs".to_owned())];
        assert_eq!(all, expected, "{namespace} {parent} {hosts}");
    }
}

#[test]
fn what_a_route_refers_to_is_resolved_or_told_by_the_gateway_apis_reasons() {
    for (backends, expected) in [
        ("{name: cart}", "True ResolvedRefs"),
        ("{name: carts}", "False BackendNotFound"),
        ("{name: prices, port: 99}", "False BackendNotFound"),
        ("{name: cart, namespace: bank}", "False RefNotPermitted"),
        ("{name: db}", "False UnsupportedProtocol"),
        ("{name: cart}, {name: db}, {name: carts}", "False BackendNotFound"),
    ] {
        let spec = format!("parentRefs: [{CART}], rules: [{{backendRefs: [{backends}]}}]");
        let all = told(&mut mesh(), of("shop", "HTTPRoute", "r", &spec));
        assert_eq!(all, [("True Accepted".to_owned(), expected.to_owned())], "{backends}");
    }
    for (kind, group, expected) in
        [("RouteFilter", "outrigger.dev", "False BackendNotFound"), ("Lua", "other.dev", "False InvalidKind")]
    {
        let filter =
            format!("{{type: ExtensionRef, extensionRef: {{group: {group}, kind: {kind}, name: x}}}}");
        let spec =
            format!("parentRefs: [{CART}], rules: [{{filters: [{filter}], backendRefs: [{{name: cart}}]}}]");
        let all = told(&mut mesh(), of("shop", "HTTPRoute", "r", &spec));
        assert_eq!(all, [("True Accepted".to_owned(), expected.to_owned())], "{kind}");
    }
}

#[test]
fn the_older_of_two_kinds_has_a_host_name_and_the_other_is_told_so() {
    let mut world = mesh();
    let spec = "parentRefs: [{name: edge, sectionName: own}], hostnames: [a.b], rules: [{}]";
    let older = told(&mut world, of("shop", "HTTPRoute", "old", spec));
    let younger = told(&mut world, of("shop", "GRPCRoute", "new", spec));
    assert_eq!(
        (older[0].0.as_str(), younger[0].0.as_str()),
        ("True Accepted", "False NotAllowedByListeners")
    );
}

#[test]
fn rules_whose_filters_contradict_each_other_are_told_and_the_others_hold() {
    let mut world = mesh();
    for name in ["a", "b"] {
        put(&mut world, of("shop", "RouteFilter", name, "splitBy: {header: x}")).unwrap();
    }
    let named = |name: &str| {
        format!(
            "{{type: ExtensionRef, extensionRef: {{group: outrigger.dev, kind: RouteFilter, name: {name}}}}}"
        )
    };
    let wrong = format!("{{filters: [{}, {}], backendRefs: [{{name: cart}}]}}", named("a"), named("b"));
    let right = "{backendRefs: [{name: cart}]}";
    let spec = |rules: &str| of("shop", "HTTPRoute", "r", &format!("parentRefs: [{CART}], rules: [{rules}]"));
    assert_eq!(told(&mut world, spec(&wrong))[0].0, "False IncompatibleFilters");
    let both = spec(&format!("{wrong}, {right}"));
    let key = both.key();
    assert_eq!(told(&mut world, both)[0], ("True Accepted".into(), "True ResolvedRefs".into()));
    let status = of_route(&world, world.route(&key).unwrap());
    let third = &status["parents"][0]["conditions"][2];
    assert_eq!((&third["type"], &third["status"]), (&"PartiallyInvalid".into(), &"True".into()));
    assert!(third["message"].as_str().unwrap().starts_with("Dropped Rule"), "{third}");
}
