use outrigger_mesh::{
    Backend, Between, ConsumerRoutes, Endpoint, EndpointPort, EndpointState, MtlsMode, Port, PortNumber,
    Protocol, Route, RouteName, TrafficPolicy, Transport, Weight,
};

use super::hosts::MAX_HOSTS;
use super::*;

fn registry() -> Arc<Registry> {
    let registry = Registry::new("shop".parse().unwrap(), Arc::default());
    registry.set_discovery(Discovery::Connected);
    Arc::new(registry)
}

fn service(name: &str, backend: Option<&str>) -> Service {
    let name: ServiceName = name.parse().unwrap();
    let route = |to: &str| Route {
        backends: vec![Backend::to(to.parse().unwrap())],
        ..Route::new(RouteName::new("r").unwrap())
    };
    Service {
        hostnames: vec![format!("{}.{}", name.name(), name.namespace()).parse().unwrap()],
        ports: vec![Port { number: PortNumber::HTTP, protocol: Protocol::Detect }],
        identities: vec![],
        mtls: MtlsMode::Strict.into(),
        between: Between::Auto,
        addresses: vec![],
        cluster_addresses: vec![],
        location: outrigger_mesh::Location::Mesh,
        http: outrigger_mesh::HttpRules::default(),
        routes: backend.map(route).into_iter().collect(),
        policy: TrafficPolicy::default(),
        name,
        for_callers: Vec::new(),
        overrides: Vec::new(),
        tcp_routes: vec![],
        division: None,
        tokens: outrigger_mesh::TokenTravel::Keep,
    }
}

fn endpoint(service: &str, uid: &str, port: u16) -> Endpoint {
    Endpoint {
        service: service.parse().unwrap(),
        uid: uid.parse().unwrap(),
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        ports: [EndpointPort {
            port: PortNumber::HTTP,
            listen: PortNumber::new(port).unwrap(),
            target: None,
        }]
        .into(),
        version: None,
        zone: None,
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    }
}

fn set(registry: &Registry, resource: Resource) {
    registry.apply(Change::Set(resource)).unwrap();
}

#[test]
fn a_new_name_is_asked_for_once_and_known_when_service_and_endpoints_are_there() {
    let registry = registry();
    let host: Hostname = "cart".parse().unwrap();
    assert!(matches!(registry.find(&host), Found::Asked));
    assert!(matches!(registry.find(&host), Found::Asked));
    let mut wants = registry.wants();
    assert_eq!(wants.try_next(), Some(Want::Host("cart.shop".parse().unwrap())));
    assert_eq!(wants.try_next(), None);

    let name: ServiceName = "shop/cart".parse().unwrap();
    registry.apply(Change::HostIs { host: "cart.shop".parse().unwrap(), service: name.clone() }).unwrap();
    assert_eq!(wants.try_next(), Some(Want::Service(name.clone())));
    set(&registry, Resource::Service(service("shop/cart", None)));
    assert!(matches!(registry.find(&host), Found::Asked), "the endpoints are still to come");
    registry.apply(Change::NoEndpoints(name)).unwrap();
    assert!(matches!(registry.find(&host), Found::Known(_)));
}

#[test]
fn an_unknown_name_is_remembered_and_no_longer_subscribed() {
    let registry = registry();
    let host: Hostname = "nobody.shop".parse().unwrap();
    registry.find(&host);
    registry.apply(Change::HostUnknown(host.clone())).unwrap();
    assert!(matches!(registry.find(&host), Found::Unknown));
    let mut wants = registry.wants();
    assert_eq!(wants.try_next(), Some(Want::Host(host.clone())));
    assert_eq!(wants.try_next(), Some(Want::DropHost(host)));
}

#[test]
fn without_a_control_plane_what_is_not_there_is_unknown() {
    let registry = registry();
    registry.set_discovery(Discovery::Complete);
    set(&registry, Resource::Service(service("shop/cart", None)));
    assert!(matches!(registry.find(&"cart".parse().unwrap()), Found::Known(_)));
    assert!(matches!(registry.find(&"other".parse().unwrap()), Found::Unknown));
    assert_eq!(registry.wants().try_next(), None);
}

#[test]
fn the_services_a_route_names_are_wanted_too() {
    let registry = registry();
    set(&registry, Resource::Service(service("shop/cart", Some("shop/other"))));
    assert_eq!(registry.wants().try_next(), Some(Want::Service("shop/other".parse().unwrap())));
}

#[test]
fn a_service_whose_callers_routes_are_awaited_is_not_ready_before_they_are_told() {
    let registry = registry();
    let name: ServiceName = "stock/items".parse().unwrap();
    registry.apply(Change::ConsumerAwaited(name.clone())).unwrap();
    set(&registry, Resource::Service(service("stock/items", None)));
    set(&registry, Resource::Endpoint(endpoint("stock/items", "i-1", 1000)));
    assert!(matches!(registry.find_service(&name), Found::Asked));
    let own = ResourceName::ConsumerRoutes("shop".parse().unwrap(), name.clone());
    registry.apply(Change::Remove(own)).unwrap();
    assert!(matches!(registry.find_service(&name), Found::Known(_)));
    // Asked for again, for example by a new connection, it goes on.
    registry.apply(Change::ConsumerAwaited(name.clone())).unwrap();
    set(&registry, Resource::Service(service("stock/items", Some("shop/other"))));
    let Found::Known(items) = registry.find_service(&name) else { panic!("known") };
    assert_eq!(items.snapshot.load().as_ref().unwrap().service.routes.len(), 1);
}

#[test]
fn among_endpoints_that_prove_who_they_are_those_without_a_sidecar_are_not_chosen_where_all_must() {
    // While the pods of a workload started anew with their sidecars, every request to one of the others failed.
    let registry = registry();
    let mtls = |mode: MtlsMode| {
        set(&registry, Resource::Service(Service { mtls: mode.into(), ..service("shop/cart", None) }));
    };
    let bare = |uid: &str| Endpoint { transport: Transport::Plaintext, ..endpoint("shop/cart", uid, 1000) };
    mtls(MtlsMode::Strict);
    set(&registry, Resource::Endpoint(bare("i-1")));
    let Found::Known(cart) = registry.find(&"cart".parse().unwrap()) else { panic!("known") };
    let members = || {
        let set = cart.endpoints.load();
        set.subset(None).members.iter().map(|m| m.endpoint.uid.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(members(), ["i-1"], "alone it is chosen, and refused with a reason");
    set(&registry, Resource::Endpoint(endpoint("shop/cart", "i-2", 1001)));
    assert_eq!(members(), ["i-2"]);
    assert_eq!(cart.endpoints.load().everything.len(), 2);
    mtls(MtlsMode::Permissive);
    assert_eq!(members(), ["i-1", "i-2"]);
    mtls(MtlsMode::Strict);
    assert_eq!(members(), ["i-2"]);
}

#[test]
fn an_instance_is_known_by_its_address_while_the_control_plane_is_away() {
    // It was taken for a place outside, and called in plaintext.
    let registry = registry();
    set(&registry, Resource::Service(service("shop/cart", None)));
    set(&registry, Resource::Endpoint(endpoint("shop/cart", "i-1", 1000)));
    registry.set_discovery(Discovery::Away);
    let name: ServiceName = "shop/cart".parse().unwrap();
    let live = registry.live_service(&name).unwrap();
    let at = live.endpoints.load().everything[0].address(PortNumber::HTTP).unwrap();
    assert!(matches!(registry.find(&Hostname::of_socket(at)), Found::Known(_)));
    let beside = std::net::SocketAddr::new(at.ip(), 9);
    assert!(matches!(registry.find(&Hostname::of_socket(beside)), Found::Asked));
}

#[test]
fn state_of_an_endpoint_outlives_a_new_weight_but_not_a_new_address() {
    let registry = registry();
    set(&registry, Resource::Service(service("shop/cart", None)));
    set(&registry, Resource::Endpoint(endpoint("shop/cart", "i-1", 1000)));
    let Found::Known(cart) = registry.find(&"cart".parse().unwrap()) else { panic!("known") };
    let id = || cart.endpoints.load().everything[0].live.id;
    let (first, live) = (id(), Arc::clone(&cart.endpoints.load().everything[0].live));
    let heavier = Endpoint { weight: Weight::new(7).unwrap(), ..endpoint("shop/cart", "i-1", 1000) };
    set(&registry, Resource::Endpoint(heavier));
    assert_eq!(id(), first);
    set(&registry, Resource::Endpoint(endpoint("shop/cart", "i-1", 1001)));
    assert_ne!(id(), first);
    assert!(live.removed.load(Relaxed));
}

#[test]
fn names_of_applications_do_not_fill_the_memory() {
    let registry = registry();
    for i in 0..3 * MAX_HOSTS {
        registry.find(&format!("h{i}.shop").parse().unwrap());
    }
    let state = registry.state();
    assert!(state.hosts.len() <= MAX_HOSTS && state.wants.len() <= MAX_HOSTS);
}

#[test]
fn a_removed_service_is_unknown_and_its_endpoints_are_let_go() {
    let registry = registry();
    set(&registry, Resource::Service(service("shop/cart", None)));
    set(&registry, Resource::Endpoint(endpoint("shop/cart", "i-1", 1000)));
    registry.apply(Change::Remove(ResourceName::Service("shop/cart".parse().unwrap()))).unwrap();
    let found = registry.find_service(&"shop/cart".parse().unwrap());
    assert!(matches!(found, Found::Unknown), "{found:?}");
}

#[test]
fn routes_of_the_callers_that_are_too_many_are_rejected_and_never_the_service() {
    let name: ServiceName = "bank/cart".parse().unwrap();
    let to = |number: usize| Backend::to(format!("bank/s{number}").parse().unwrap());
    let route = Route { backends: (0..257).map(to).collect(), ..Route::new(RouteName::new("r").unwrap()) };
    let (namespace, tcp_routes) = ("shop".parse().unwrap(), vec![]);
    let own = ConsumerRoutes { namespace, service: name.clone(), routes: vec![route], tcp_routes };
    let (own, cart) = (Change::Set(Resource::ConsumerRoutes(own)), service("bank/cart", Some("bank/audit")));
    for routes_first in [true, false] {
        let registry = registry();
        registry.apply(Change::ConsumerAwaited(name.clone())).unwrap();
        let outcome = if routes_first {
            let outcome = registry.apply(own.clone());
            registry
                .apply(Change::Remove(ResourceName::ConsumerRoutes("shop".parse().unwrap(), name.clone())))
                .unwrap();
            set(&registry, Resource::Service(cart.clone()));
            outcome
        } else {
            set(&registry, Resource::Service(cart.clone()));
            let outcome = registry.apply(own.clone());
            registry
                .apply(Change::Remove(ResourceName::ConsumerRoutes("shop".parse().unwrap(), name.clone())))
                .unwrap();
            outcome
        };
        assert!(outcome.unwrap_err().contains("more than 256"));
        let live = registry.live_service(&name).unwrap();
        assert_eq!(live.snapshot.load().as_ref().unwrap().service, cart, "{routes_first}");
    }
}

#[test]
fn endpoints_that_are_told_together_are_in_force_together() {
    // The first of them was taken for all there are, and a route to another version found nobody.
    let registry = registry();
    set(&registry, Resource::Service(service("shop/cart", None)));
    let changed = registry.changed();
    let before = *changed.borrow();
    let outcomes =
        registry.set_endpoints(vec![endpoint("shop/cart", "i-1", 1000), endpoint("shop/cart", "i-2", 1001)]);
    assert_eq!(outcomes, [Ok(()), Ok(())]);
    assert_eq!(*changed.borrow(), before + 1, "whoever waits looks once");
    let cart = registry.live_service(&"shop/cart".parse().unwrap()).unwrap();
    assert_eq!(cart.endpoints.load().everything.len(), 2);
}

#[test]
fn an_address_that_was_an_instances_is_asked_for_again_when_the_instance_has_gone() {
    // It led to the service it was of before, for as long as nothing of that service changed.
    let name: ServiceName = "shop/cart".parse().unwrap();
    let instance = |port| endpoint("shop/cart", "i-1", port);
    let at = |port: u16| Hostname::of_socket(([127, 0, 0, 1], port).into());
    let gone = |registry: &Registry, way: usize| match way {
        0 => registry.apply(Change::Remove(ResourceName::Endpoint(name.clone(), "i-1".parse().unwrap()))),
        1 => registry.apply(Change::NoEndpoints(name.clone())),
        _ => registry.apply(Change::Set(Resource::Endpoint(instance(1001)))),
    };
    for way in 0..3 {
        let registry = registry();
        set(&registry, Resource::Service(service("shop/cart", None)));
        set(&registry, Resource::Endpoint(instance(1000)));
        registry.apply(Change::HostIs { host: at(1000), service: name.clone() }).unwrap();
        assert!(matches!(registry.find(&at(1000)), Found::Known(_)));
        let names = registry.names_generation();
        set(&registry, Resource::Endpoint(instance(1000)));
        assert_eq!(registry.names_generation(), names, "it is where it was");
        gone(&registry, way).unwrap();
        assert!(registry.names_generation() > names, "who has remembered it forgets it");
        assert!(matches!(registry.find(&at(1000)), Found::Asked), "{way}");
    }
}

#[test]
fn what_is_wanted_again_is_wanted_after_it_was_given_up() {
    let registry = registry();
    let (mut wants, name) = (registry.wants(), "shop/cart".parse::<ServiceName>().unwrap());
    for want in [Want::Service(name.clone()), Want::DropService(name.clone()), Want::Service(name.clone())] {
        registry.want(&mut registry.state(), want);
    }
    let all: Vec<_> = std::iter::from_fn(|| wants.try_next()).collect();
    assert_eq!(all, [Want::DropService(name.clone()), Want::Service(name)]);
}
