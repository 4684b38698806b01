use std::collections::BTreeMap;

use outrigger_mesh::{AccessDefault, Label, ResourceKind};
use proptest::prelude::*;

use super::*;
use crate::spec::{Kind, Object, ObjectName};
use crate::testing::{
    access, breaker_override, defaults, egress, gateway, gateway_route, instance, name, policy, put,
    put_dangling, rollout, route, route_policy, service, touch, world,
};

fn service_of(world: &World, text: &str) -> Service {
    match resource(world, &ResourceName::Service(name(text))) {
        Some(Resource::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_canary_becomes_weights_by_version() {
    let mut world = world();
    put(&mut world, service("prices", "")).unwrap();
    let backends = "backendRefs: [{kind: ServiceVersion, name: prices.v1, weight: 90}, \
                                  {kind: ServiceVersion, name: prices.v2, weight: 10}, {name: prices}]";
    put(&mut world, route("canary", "prices", backends)).unwrap();
    let service = service_of(&world, "shop/prices");
    let split: Vec<_> = service.routes[0]
        .backends
        .iter()
        .map(|b| (b.version.as_ref().map(ToString::to_string), b.weight))
        .collect();
    assert_eq!(split, [(Some("v1".into()), 90), (Some("v2".into()), 10), (None, 1)]);
    assert_eq!(service.routes[0].name.as_str(), "shop/canary/0");
}

#[test]
fn routes_stand_in_the_order_of_their_age_and_keep_it_when_they_change() {
    let mut world = world();
    put(&mut world, service("cart", "")).unwrap();
    for name in ["b", "a", "b"] {
        put(&mut world, route(name, "cart", "backendRefs: [{name: cart}]")).unwrap();
    }
    let names: Vec<_> = service_of(&world, "shop/cart").routes.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["shop/b/0", "shop/a/0"]);
}

#[test]
fn a_rollout_divides_its_service_from_its_first_moment_and_gives_its_candidate_nothing_yet() {
    let mut world = world();
    put(&mut world, service("cart", "")).unwrap();
    assert_eq!(service_of(&world, "shop/cart").division, None);
    let rest = "strategy: canary, sticky: {header: x-user}, match: [{headers: [{name: x-new, value: '1'}]}]";
    put(&mut world, rollout("cart", "cart", rest)).unwrap();
    let division = service_of(&world, "shop/cart").division.unwrap();
    assert_eq!((division.share, division.candidate.as_str(), division.preview.len()), (0, "v2", 1));
    assert!(division.by.is_some());
}

#[test]
fn timeouts_of_a_rule_are_those_of_its_route() {
    let mut world = world();
    put(&mut world, service("cart", "timeouts: {request: 9s}, retry: {retries: 0}")).unwrap();
    let rule = "timeouts: {request: 2s, backendRequest: 500ms}, backendRefs: [{name: cart}]";
    put(&mut world, route("r", "cart", rule)).unwrap();
    let service = service_of(&world, "shop/cart");
    let millis = |d: Option<std::time::Duration>| d.map(|d| d.as_millis());
    let (route, base) = (&service.routes[0].timeouts, &service.policy);
    assert_eq!((millis(route.request), millis(route.per_try)), (Some(2_000), Some(500)));
    assert_eq!((millis(base.timeouts.request), base.retry.retries), (Some(9_000), 0));
}

#[test]
fn an_instance_is_told_the_longest_that_anybody_may_take() {
    let mut world = world();
    put(&mut world, service("cart", "timeouts: {request: 2s, stream: 9s}")).unwrap();
    put(&mut world, service("web", "timeouts: {request: 3s}")).unwrap();
    let longest = |world: &World| {
        let label = Label::new("shop").unwrap();
        let account = Label::new("cart").unwrap();
        match resource(world, &ResourceName::Inbound(label, account)) {
            Some(Resource::Inbound(inbound)) => {
                let longest = inbound.services[0].longest;
                let seconds = |d: std::time::Duration| d.as_secs();
                (longest.request.as_secs(), longest.grpc.map(seconds), longest.stream.map(seconds))
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(longest(&world), (2, Some(2), Some(9)));
    put(&mut world, policy("reports", "cart", "callers: [reports], timeouts: {request: 60s}")).unwrap();
    assert_eq!(longest(&world), (60, Some(60), Some(9)));
    put(&mut world, route("own", "cart", "timeouts: {request: 90s}, backendRefs: [{name: cart}]")).unwrap();
    assert_eq!(longest(&world), (90, Some(90), Some(9)));
    // Who calls another service may end here, with that one's limits.
    put(&mut world, route("other", "web", "backendRefs: [{name: web}, {name: cart}]")).unwrap();
    assert_eq!(longest(&world), (90, Some(90), None));
    put(&mut world, policy("web", "web", "timeouts: {request: 2m}")).unwrap();
    assert_eq!(longest(&world), (120, Some(120), None));
}

#[test]
fn a_workload_is_protected_for_every_service_it_may_serve() {
    let mut world = world();
    put(&mut world, service("cart", "identities: [shared], mtls: permissive")).unwrap();
    put(&mut world, service("prices", "identities: [shared, prices]")).unwrap();
    let inbound = |account: &str| {
        let label = |text| Label::new(text).unwrap();
        resource(&world, &ResourceName::Inbound(label("shop"), label(account)))
    };
    let Some(Resource::Inbound(shared)) = inbound("shared") else { panic!() };
    let names: Vec<_> = shared.services.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["shop/cart", "shop/prices"]);
    assert_eq!(inbound("cart"), None, "an account that no service lists serves nothing");
}

#[test]
fn an_endpoint_that_its_service_no_longer_covers_is_not_pushed() {
    let mut world = world();
    put(&mut world, service("cart", "ports: [{port: 80}, {port: 81}]")).unwrap();
    put(&mut world, instance("i", "service: cart, address: 127.0.0.1")).unwrap();
    let endpoint = |world: &World| {
        resource(world, &ResourceName::Endpoint(name("shop/cart"), EndpointUid::new("i").unwrap()))
    };
    let ports = |world: &World| match endpoint(world) {
        Some(Resource::Endpoint(e)) => e.ports.len(),
        _ => 0,
    };
    assert_eq!(ports(&world), 2);
    put(&mut world, service("cart", "ports: [{port: 81}]")).unwrap();
    assert_eq!(ports(&world), 1);
    put(&mut world, service("cart", "ports: [{port: 82}]")).unwrap();
    assert_eq!(ports(&world), 0);
}

/// One step of a history: an object put, or one taken away.
#[derive(Clone, Debug)]
enum Step {
    Put(Box<Object>),
    Remove(Key),
}

fn any_step() -> impl Strategy<Value = Step> {
    let names = || proptest::sample::select(vec!["a", "b", "c"]);
    let service_spec = proptest::sample::select(vec![
        "",
        "identities: [a]",
        "identities: [a, b, c]",
        "ports: [{port: 81}]",
        "ports: [{port: 80}, {port: 81}], mtls: permissive",
        "timeouts: {request: 1s}, hostnames: [extra.shop]",
    ]);
    let services = (names(), service_spec).prop_map(|(n, spec)| Step::Put(Box::new(service(n, spec))));
    let routes = (names(), names(), names(), 0..3_u32).prop_map(|(n, parent, to, weight)| {
        Step::Put(Box::new(route(n, parent, &format!("backendRefs: [{{name: {to}, weight: {weight}}}]"))))
    });
    let instances = (names(), names(), proptest::sample::select(vec!["v1", "v2"])).prop_map(|(n, of, v)| {
        Step::Put(Box::new(instance(n, &format!("service: {of}, address: 127.0.0.1, version: {v}"))))
    });
    let removals = (names(), proptest::sample::select(Kind::ALL.to_vec())).prop_map(|(n, kind)| {
        let namespace = Label::new("shop").unwrap();
        Step::Remove(Key { kind, namespace, name: ObjectName::new(n).unwrap() })
    });
    let egress_spec = proptest::sample::select(vec![
        "hosts: [api.example.com], ports: [{port: 443}], tls: {mode: originate}",
        "hosts: [api.example.com, www.example.com], ports: [{port: 443, protocol: tls}]",
        "hosts: [db.example.com], ports: [{port: 80}], targets: [{address: 192.0.2.1}]",
    ]);
    let egresses = (names(), egress_spec).prop_map(|(n, spec)| Step::Put(Box::new(egress(n, spec))));
    let mode = proptest::sample::select(vec![
        "",
        "outboundMode: registryOnly",
        "trafficPolicy: {timeouts: {request: 9s}}",
        "access: {default: deny}",
    ]);
    let meshes = mode.prop_map(|spec| Step::Put(Box::new(defaults(spec))));
    let listeners = proptest::sample::select(vec![
        "{name: web, port: 80, protocol: HTTP}",
        "{name: web, port: 80, protocol: HTTP, hostname: '*.example.com'}, {name: other, port: 81, protocol: HTTP}",
    ]);
    let gateways = (names(), listeners).prop_map(|(n, all)| Step::Put(Box::new(gateway(n, all))));
    let hosts = proptest::sample::select(vec!["", "hostnames: [a.example.com], ", "hostnames: ['*.com'], "]);
    let attached = (names(), names(), names(), hosts).prop_map(|(n, at, to, hosts)| {
        let rest = format!("{hosts}rules: [{{backendRefs: [{{name: {to}}}]}}]");
        Step::Put(Box::new(gateway_route(n, at, &rest)))
    });
    let some = prop_oneof![3 => services, 3 => routes, 3 => instances, 2 => egresses];
    let settings = proptest::sample::select(vec![
        "timeouts: {request: 7s}",
        "retry: {retries: 1}, callers: [a]",
        "balance: {sticky: {cookie: {name: place}}}",
        "rateLimits: [{name: all, requests: 10, per: 1s}], bulkhead: {caller: {maxInFlight: 3}}",
    ]);
    let policies =
        (names(), names(), settings).prop_map(|(n, of, rest)| Step::Put(Box::new(policy(n, of, rest))));
    let of_routes = (
        names(),
        names(),
        proptest::sample::select(vec!["retry: {idempotent: true}", "serviceBreaker: {mode: auto}"]),
    )
        .prop_map(|(n, of, rest)| Step::Put(Box::new(route_policy(n, of, rest))));
    let overrides =
        (names(), names(), proptest::sample::select(vec!["mode: forceOpen", "mode: auto, version: v1"]))
            .prop_map(|(n, of, rest)| Step::Put(Box::new(breaker_override(n, of, rest))));
    let namespace = proptest::sample::select(vec!["shop", "outrigger", "other"]);
    let says = proptest::sample::select(vec![
        "action: deny, rules: [{}]",
        "action: allow, rules: [{from: [{serviceAccount: a}], paths: [{prefix: /x}]}]",
        "targetRefs: [{kind: MeshService, name: a}], action: audit, rules: [{methods: [GET]}]",
        "targetRefs: [{kind: MeshService, name: a}, {kind: MeshService, name: b}], action: allow",
    ]);
    let accesses = (names(), namespace, says)
        .prop_map(|(n, namespace, says)| Step::Put(Box::new(access(namespace, n, says))));
    let strategies =
        vec!["strategy: canary", "strategy: blueGreen, match: [{headers: [{name: x, value: y}]}]"];
    let rollouts = (names(), names(), proptest::sample::select(strategies))
        .prop_map(|(n, of, rest)| Step::Put(Box::new(rollout(n, of, rest))));
    let rules = prop_oneof![2 => policies, 1 => of_routes, 1 => overrides, 2 => accesses, 2 => rollouts];
    prop_oneof![11 => some, 4 => rules, 2 => gateways, 2 => attached, 1 => meshes, 2 => removals, 7 => any_reference()]
}

/// What refers from one namespace, or one object, to another.
fn any_reference() -> impl Strategy<Value = Step> {
    let names = || proptest::sample::select(vec!["a", "b", "c"]);
    let namespaces = || proptest::sample::select(vec!["shop", "other"]);
    let put = |text: String| Step::Put(Box::new(crate::testing::object(&text)));
    let kinds =
        proptest::sample::select(vec![("HTTPRoute", "v1"), ("GRPCRoute", "v1"), ("TCPRoute", "v1alpha2")]);
    let extended = proptest::sample::select(vec![
        "",
        ", filters: [{type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: RouteFilter, name: a}}]",
    ]);
    let routes = (kinds, (namespaces(), names()), names(), (namespaces(), names()), extended).prop_map(
        move |((kind, version), (namespace, n), parent, (of, to), extended)| {
            let extended = if kind == "TCPRoute" { "" } else { extended };
            put(format!(
                "{{apiVersion: gateway.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: {n}, namespace: {namespace}}}, \
                 spec: {{parentRefs: [{{kind: Service, group: '', name: {parent}, namespace: shop}}], \
                 rules: [{{backendRefs: [{{name: {to}, namespace: {of}, port: 80}}]{extended}}}]}}}}"
            ))
        },
    );
    let to = proptest::sample::select(vec!["", ", name: a"]);
    let grants = (names(), to).prop_map(move |(n, to)| {
        put(format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {{name: {n}, namespace: shop}}, spec: \
             {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}}], to: [{{group: '', kind: Service{to}}}]}}}}"
        ))
    });
    let says = proptest::sample::select(vec![
        "limits: {maxBody: 1Ki}",
        "match: {sourceLabels: {a: b}}",
        "partition: {by: {header: x}, ranges: [{backend: b}]}",
    ]);
    let filters = (names(), says).prop_map(move |(n, says)| {
        put(format!(
            "{{apiVersion: outrigger.dev/v1alpha1, kind: RouteFilter, metadata: {{name: {n}, namespace: shop}}, spec: {{{says}}}}}"
        ))
    });
    let opaque = names().prop_map(|n| Step::Put(Box::new(service(n, "ports: [{port: 80, protocol: tcp}]"))));
    let removed = proptest::sample::select(vec![
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TcpRoute,
        Kind::ReferenceGrant,
        Kind::RouteFilter,
        Kind::MeshService,
    ]);
    let removals = (names(), namespaces(), removed).prop_map(|(n, namespace, kind)| {
        let namespace = Label::new(namespace).unwrap();
        Step::Remove(Key { kind, namespace, name: ObjectName::new(n).unwrap() })
    });
    prop_oneof![4 => routes, 2 => grants, 2 => filters, 1 => opaque, 3 => removals]
}

fn take(world: &mut World, step: Step, touched: &mut Touched) {
    match step {
        Step::Put(object) => {
            let key = object.key();
            touch(touched, world, &key);
            // What is refused changes nothing. References that lead nowhere are not refused here.
            let _ = put_dangling(world, *object);
            touch(touched, world, &key);
        }
        Step::Remove(key) => {
            touch(touched, world, &key);
            match key.kind {
                Kind::MeshDefaults => world.put_defaults(None),
                Kind::Gateway => world.remove_gateway(&name(&format!("shop/{}", key.name))),
                Kind::MeshService | Kind::EgressService => {
                    if world.object(&key).is_some() {
                        world.remove_service(&name(&format!("{}/{}", key.namespace, key.name)));
                    }
                }
                Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => world.remove_route(&key),
                Kind::RouteFilter => world.remove_filter(&key),
                Kind::ReferenceGrant => world.remove_grant(&key),
                Kind::TrafficPolicy => world.remove_policy(&key),
                Kind::BreakerOverride => world.remove_override(&key),
                Kind::AccessPolicy => world.remove_access(&key),
                Kind::TokenPolicy => world.remove_token_policy(&key),
                Kind::Denylist => world.remove_denylist(&key),
                Kind::Rollout => world.rollouts.remove(&key),
                Kind::Instance => {
                    world.remove_instance(&key.namespace, &EndpointUid::new(key.name.as_str()).unwrap());
                }
            }
        }
    }
}

fn by_name(resources: Vec<Resource>) -> BTreeMap<ResourceName, Resource> {
    resources.into_iter().map(|r| (r.name(), r)).collect()
}

fn access_of(world: &World, workload: &str) -> Vec<(String, Vec<String>, AccessDefault)> {
    let (namespace, account) = workload.split_once('/').unwrap();
    let name = ResourceName::Inbound(Label::new(namespace).unwrap(), Label::new(account).unwrap());
    let Some(Resource::Inbound(inbound)) = resource(world, &name) else { return vec![] };
    let names = |s: &InboundService| s.access.policies.iter().map(|p| p.name.to_string()).collect();
    inbound.services.iter().map(|s| (s.name.to_string(), names(s), s.access.default)).collect()
}

#[test]
fn an_access_policy_is_for_the_services_it_names_for_its_namespace_or_for_the_mesh() {
    let mut world = world();
    for name in ["cart", "prices"] {
        put(&mut world, service(name, "")).unwrap();
    }
    let everything = "action: deny, rules: [{from: [{is: unauthenticated}]}]";
    put(&mut world, access("outrigger", "mesh-wide", everything)).unwrap();
    put(&mut world, access("shop", "of-shop", everything)).unwrap();
    put(&mut world, access("other", "of-other", everything)).unwrap();
    let named = format!("targetRefs: [{{kind: MeshService, name: cart}}], {everything}");
    put(&mut world, access("shop", "a-named", &named)).unwrap();
    let policies = |workload: &str| access_of(&world, workload).remove(0).1;
    assert_eq!(policies("shop/cart"), ["outrigger/mesh-wide", "shop/a-named", "shop/of-shop"]);
    assert_eq!(policies("shop/prices"), ["outrigger/mesh-wide", "shop/of-shop"]);
    put(&mut world, defaults("access: {default: deny}")).unwrap();
    assert_eq!(access_of(&world, "shop/prices").remove(0).2, AccessDefault::Deny);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn compiling_what_a_change_touches_gives_what_compiling_everything_gives(
        batches in proptest::collection::vec(proptest::collection::vec(any_step(), 1..5), 1..12)
    ) {
        let mut world = world();
        let mut live = by_name(everything(&world));
        for batch in batches {
            let (old, mut touched) = (world.clone(), Touched::default());
            for step in batch {
                take(&mut world, step, &mut touched);
            }
            for change in changes(&old, &world, &touched) {
                match change {
                    ResourceChange::Set(resource) => {
                        let before = live.insert(resource.name(), resource.clone());
                        prop_assert_ne!(before, Some(resource), "a change that changes nothing");
                    }
                    ResourceChange::Remove(name) => {
                        prop_assert!(live.remove(&name).is_some(), "{} was not there", name);
                    }
                }
            }
            prop_assert_eq!(&live, &by_name(everything(&world)));
        }
        for resource in live.into_values() {
            prop_assert_ne!(resource.name().kind(), ResourceKind::Trust);
            match resource {
                Resource::Service(service) => {
                    prop_assert!(service.checked().is_ok(), "proven parts make a proven whole");
                }
                Resource::ConsumerRoutes(routes) => prop_assert!(routes.checked().is_ok()),
                Resource::Gateway(gateway) => prop_assert!(gateway.checked().is_ok()),
                _ => {}
            }
        }
    }
}
