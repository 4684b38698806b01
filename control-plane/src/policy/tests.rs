use std::time::Duration;

use outrigger_mesh::{BreakerMode, Label, MeshSettings, Resource, ResourceName, Service};

use super::*;
use crate::testing::{breaker_override, defaults, name, policy, put, route, route_policy, service, world};

fn compiled(world: &World) -> Service {
    match crate::compile::resource(world, &ResourceName::Service(name("shop/cart"))) {
        Some(Resource::Service(service)) => service.checked().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_layer_says_what_it_says_and_the_narrowest_is_heard() {
    let mut world = world();
    let mesh = "trafficPolicy: {timeouts: {request: 9s, idle: 60s}, retry: {retries: 1, budgetPercent: 5}, \
                serviceBreaker: {mode: auto}}";
    put(&mut world, defaults(mesh)).unwrap();
    put(&mut world, service("cart", "timeouts: {request: 8s, perTry: 2s}, retry: {retries: 3}")).unwrap();
    put(&mut world, route("r", "cart", "timeouts: {request: 3s}, backendRefs: [{name: cart}]")).unwrap();
    put(&mut world, policy("p", "cart", "timeouts: {request: 7s}, bulkhead: {maxQueue: 9}")).unwrap();
    put(&mut world, policy("web", "cart", "callers: [web], timeouts: {request: 6s}, retry: {retries: 0}"))
        .unwrap();
    let rest =
        "retry: {idempotent: true}, serviceBreaker: {consecutiveFailures: 2}, bulkhead: {maxInFlight: 4}";
    put(&mut world, route_policy("r", "r", rest)).unwrap();

    let cart = compiled(&world);
    let secs = |s| Some(Duration::from_secs(s));
    let (all, web) = (&cart.policy, &cart.for_callers[0].policy);
    assert_eq!((all.timeouts.request, all.timeouts.per_try, all.timeouts.idle), (secs(7), secs(2), secs(60)));
    assert_eq!((web.timeouts.request, web.timeouts.per_try, web.timeouts.idle), (secs(6), secs(2), secs(60)));
    assert_eq!((all.retry.retries, all.retry.budget_percent), (3, 5));
    assert_eq!((web.retry.retries, web.retry.budget_percent), (0, 5));
    assert_eq!(cart.for_callers[0].callers[0].to_string(), "spiffe://mesh.local/ns/shop/sa/web");
    let rule = &cart.routes[0];
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.retries, retry.idempotent, rule.timeouts.request), (3, true, secs(3)));
    let breaker = rule.policy.breaker.as_ref().unwrap();
    assert_eq!((breaker.mode, breaker.trip.consecutive), (BreakerMode::Auto, Some(2)));
    let bulkhead = rule.policy.bulkhead.unwrap();
    assert_eq!((bulkhead.max_in_flight, bulkhead.max_queue), (4, 9));
}

#[test]
fn how_much_is_traced_is_what_the_narrowest_layer_says() {
    let mut world = world();
    put(&mut world, service("cart", "")).unwrap();
    put(&mut world, route("r", "cart", "backendRefs: [{name: cart}]")).unwrap();
    let traced = |world: &World| {
        let cart = compiled(world);
        let told = |share: Option<outrigger_mesh::TraceShare>| {
            share.map(|share| share.to_string()).unwrap_or_default()
        };
        let web = cart.for_callers.first().and_then(|callers| callers.policy.traced);
        [told(cart.policy.traced), told(web), told(cart.routes[0].policy.traced)]
    };
    assert_eq!(traced(&world), ["", "", ""]);
    put(&mut world, defaults("trafficPolicy: {tracing: {sample: 1%}}")).unwrap();
    assert_eq!(traced(&world), ["1%", "", ""]);
    put(&mut world, policy("web", "cart", "callers: [web], timeouts: {request: 6s}")).unwrap();
    assert_eq!(traced(&world), ["1%", "1%", ""]);
    put(&mut world, policy("p", "cart", "tracing: {sample: 5%}")).unwrap();
    assert_eq!(traced(&world), ["5%", "5%", ""]);
    put(&mut world, policy("web", "cart", "callers: [web], tracing: {sample: 100%}")).unwrap();
    put(&mut world, route_policy("r", "r", "tracing: {sample: 0%}")).unwrap();
    assert_eq!(traced(&world), ["5%", "100%", "0%"]);
}

#[test]
fn every_setting_that_can_be_written_arrives() {
    let mut world = world();
    put(&mut world, service("cart", "")).unwrap();
    put(&mut world, service("web", "")).unwrap();
    let rest = "timeouts: {request: 5s, perTry: 1s, idle: 30s, connect: 2s, stream: 1h}, \
        retry: {retries: 4, idempotent: true, budgetPercent: 7, budgetFloor: 8, replayBytes: 9, backoff: 1ms, maxBackoff: 2ms}, \
        balance: {hash: {header: x-user}, locality: 'off', panicPercent: 11, sticky: {cookie: {name: place, ttl: 1h}, to: subset}}, \
        endpointBreaker: {consecutiveFailures: 0, connectFailures: 2, failureRatio: {percent: 33, minRequests: 44}, \
          slowCalls: {over: 3s, percent: 60, minRequests: 5}, window: 20s, open: 2s, maxOpen: 40s, successes: 3, ramp: 0s, \
          maxOpenPercent: 90, allowAllOpen: true}, slowStart: true, \
        serviceBreaker: {mode: forceClosed, fallback: {service: web}}, \
        bulkhead: {maxInFlight: 12, maxQueue: 0, queueTimeout: 4s, endpoint: {maxInFlight: 13}, caller: {maxInFlight: 14}, maxStreams: 15}, \
        connections: {perEndpoint: 16, perService: 17}, \
        healthCheck: {http: {path: /healthz, expect: 200-399}, interval: 3s, timeout: 2s, healthy: 1, unhealthy: 2, port: 80}, \
        tracing: {sample: 0.5%}, \
        rateLimits: [{name: keys, by: header, header: x-api-key, requests: 18, per: 1m, burst: 19, matches: [{method: GET}]}]";
    put(&mut world, policy("p", "cart", rest)).unwrap();
    let told = format!("{:?}", compiled(&world).policy);
    for word in [
        "request: Some(5s), per_try: Some(1s), idle: Some(30s), connect: Some(2s), stream: Some(3600s)",
        "retries: 4, idempotent: true, budget_percent: 7, budget_floor: 8, codes: [], replay_bytes: 9, backoff: 1ms, max_backoff: 2ms",
        "Maglev(Header(\"x-user\")), locality: Off, panic_percent: 11",
        "Cookie { name: \"place\", ttl: Some(3600s) }, to: Subset, ",
        "key: SigningKey(..)",
        "consecutive: None, connect_failures: Some(2), ratio: Some(FailureRatio { percent: 33, min_requests: 44 })",
        "slow: Some(SlowCalls { over: 3s, percent: 60, min_requests: 5 }), window: 20s",
        "open: 2s, max_open: 40s, successes: 3, ramp: 0ns }, slow_start: true, max_open_percent: 90, allow_all_open: true",
        "mode: ForceClosed",
        "fallback: Some(Service(shop/web))",
        "max_in_flight: 12, max_queue: 0, queue_timeout: 4s }, endpoint: 13, max_streams: 15",
        "per_endpoint: Some(16), per_service: Some(17)",
        "Http { path: \"/healthz\", expect: (200, 399) }",
        "interval: 3s, timeout: 2s, healthy: 1, unhealthy: 2",
        "traced: Some(TraceShare(5000))",
    ] {
        assert!(told.contains(word), "{word} is not in\n{told}");
    }
    let label = |text| Label::new(text).unwrap();
    let inbound = ResourceName::Inbound(label("shop"), label("cart"));
    let Some(Resource::Inbound(inbound)) = crate::compile::resource(&world, &inbound) else { panic!() };
    let told = format!("{:?}", inbound.services[0].protection);
    for word in ["max_in_flight: 14", "Header(\"x-api-key\")", "requests: 18, per: 60s, burst: 19", "GET"] {
        assert!(told.contains(word), "{word} is not in\n{told}");
    }
    assert_eq!(MeshSettings::new("mesh.local".parse().unwrap()), **world.settings());
}

#[test]
fn an_override_of_a_route_is_one_for_each_of_its_rules_and_an_expired_one_is_none() {
    let mut world = world();
    put(&mut world, service("cart", "")).unwrap();
    put(&mut world, route("r", "cart", "backendRefs: [{name: cart}]")).unwrap();
    put(&mut world, breaker_override("a", "cart", "mode: forceOpen, version: v2")).unwrap();
    put(&mut world, breaker_override("b", "cart", "mode: forceOpen, route: r")).unwrap();
    let overrides = compiled(&world).overrides;
    assert_eq!(overrides.len(), 2);
    assert_eq!(overrides[0].version.as_ref().unwrap().as_str(), "v2");
    assert_eq!(overrides[1].route.as_ref().unwrap().as_str(), "shop/r/0");
}

#[test]
fn a_policy_and_an_override_may_be_of_a_grpc_route() {
    let grpc = |name: &str| {
        crate::testing::object(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{parentRefs: [{{kind: Service, group: '', name: cart, port: 81}}], \
             rules: [{{name: one, backendRefs: [{{name: cart}}]}}, {{name: two, backendRefs: [{{name: cart}}]}}]}}}}"
        ))
    };
    let of_grpc = |name: &str, target: &str, rest: &str| {
        crate::testing::object(&format!(
            "{{apiVersion: outrigger.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{targetRef: {{kind: GRPCRoute, {target}}}, {rest}}}}}"
        ))
    };
    let mut world = world();
    put(&mut world, service("cart", "ports: [{port: 80}, {port: 81, protocol: grpc}]")).unwrap();
    put(&mut world, grpc("calls")).unwrap();
    put(&mut world, of_grpc("p", "name: calls", "retry: {retries: 1}, timeouts: {request: 4s}")).unwrap();
    put(&mut world, of_grpc("two", "name: calls, sectionName: two", "bulkhead: {maxInFlight: 3}")).unwrap();
    put(&mut world, breaker_override("b", "cart", "mode: forceOpen, route: calls")).unwrap();
    let cart = compiled(&world);
    let rules: Vec<_> =
        cart.routes.iter().map(|r| (r.name.as_str(), r.retry.as_ref().unwrap().retries)).collect();
    assert_eq!(rules, [("shop/grpc:calls/0", 1), ("shop/grpc:calls/1", 1)]);
    assert_eq!(cart.routes[0].timeouts.request, Some(Duration::from_secs(4)));
    let places: Vec<_> = cart.routes.iter().map(|r| r.policy.bulkhead.map(|b| b.max_in_flight)).collect();
    assert_eq!(places, [None, Some(3)]);
    let overridden: Vec<_> = cart.overrides.iter().map(|o| o.route.as_ref().unwrap().as_str()).collect();
    assert_eq!(overridden, ["shop/grpc:calls/0", "shop/grpc:calls/1"]);
    // What is not there is told with what is near.
    for (target, pointer) in [
        ("name: call", "/spec/targetRef/name"),
        ("name: calls, sectionName: tow", "/spec/targetRef/sectionName"),
    ] {
        let problems = put(&mut world, of_grpc("q", target, "retry: {retries: 1}")).unwrap_err();
        assert_eq!(problems[0].pointer, pointer);
        assert!(problems[0].hint.as_deref().unwrap().starts_with("did you mean"), "{problems:#?}");
    }
    // Of two routes of one name the kind tells which is meant.
    put(&mut world, route("calls", "cart", "backendRefs: [{name: cart}]")).unwrap();
    let other = |kind: &str| breaker_override("c", "cart", &format!("mode: observe, route: calls{kind}"));
    let problems = put(&mut world, other("")).unwrap_err();
    assert!(problems[0].hint.as_deref().unwrap().contains("routeKind"), "{problems:#?}");
    put(&mut world, other(", routeKind: HTTPRoute")).unwrap();
    let named: Vec<_> =
        compiled(&world).overrides.iter().map(|o| o.route.as_ref().unwrap().to_string()).collect();
    assert!(named.contains(&"shop/calls/0".to_owned()), "{named:?}");
    let problems = put(&mut world, breaker_override("d", "cart", "mode: observe, routeKind: GRPCRoute"));
    assert_eq!(problems.unwrap_err()[0].pointer, "/spec/routeKind");
}
