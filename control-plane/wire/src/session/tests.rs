//! Both sessions against each other: a catalog that changes, a wire that delays and breaks, a sidecar that refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use outrigger_mesh::{
    Between, Endpoint, EndpointPort, EndpointState, FeatureSet, MtlsMode, Port, PortNumber, Protocol,
    Resource, Selector, Service, TrafficPolicy, Transport, Trust, Weight,
};
use proptest::prelude::*;

use super::*;
use crate::codec::ResourceVersion;

/// The weight of an endpoint that the sidecar of these tests refuses.
const POISON: u16 = 666;

#[derive(Default)]
struct World {
    resources: BTreeMap<ResourceName, Encoded>,
    hosts: BTreeMap<Hostname, ServiceName>,
    revision: u64,
}

impl World {
    fn set(&mut self, resource: &Resource) -> ResourceName {
        let encoded = Encoded::new(resource);
        self.revision += 1;
        self.resources.insert(encoded.name.clone(), encoded.clone());
        encoded.name
    }

    fn remove(&mut self, name: &ResourceName) {
        self.revision += 1;
        self.resources.remove(name);
    }

    fn expected(&self, interest: &BTreeSet<Selector>) -> BTreeMap<ResourceName, ResourceVersion> {
        let selected = |name: &ResourceName| {
            interest.iter().any(|selector| match selector {
                Selector::Named(wanted) => wanted == name,
                Selector::All(kind) => name.kind() == *kind,
                Selector::EndpointsOf(service) => {
                    matches!(name, ResourceName::Endpoint(s, _) if s == service)
                }
                Selector::Host(host) => {
                    self.hosts.get(host).is_some_and(|s| *name == ResourceName::Service(s.clone()))
                }
            })
        };
        let versions = self.resources.values().map(|e| (e.name.clone(), e.version.clone()));
        versions.filter(|(name, _)| selected(name)).collect()
    }
}

impl Catalog for World {
    fn get(&self, name: &ResourceName) -> Option<Encoded> {
        self.resources.get(name).cloned()
    }
    fn endpoints_of(&self, service: &ServiceName) -> Vec<Encoded> {
        let of_service = |n: &ResourceName| matches!(n, ResourceName::Endpoint(s, _) if s == service);
        self.resources.values().filter(|e| of_service(&e.name)).cloned().collect()
    }
    fn all(&self, kind: ResourceKind) -> Vec<Encoded> {
        self.resources.values().filter(|e| e.name.kind() == kind).cloned().collect()
    }
    fn host(&self, host: &Hostname) -> Option<ServiceName> {
        self.hosts
            .get(host)
            .filter(|s| self.resources.contains_key(&ResourceName::Service((*s).clone())))
            .cloned()
    }
    fn revision(&self) -> u64 {
        self.revision
    }
}

fn service_name(i: u8) -> ServiceName {
    format!("shop/s{i}").parse().unwrap()
}

fn hostname(i: u8) -> Hostname {
    Hostname::new(&format!("h{i}.shop")).unwrap()
}

fn service(i: u8, port: u16) -> Resource {
    Resource::Service(Service {
        name: service_name(i),
        hostnames: Vec::new(),
        ports: vec![Port { number: PortNumber::new(port).unwrap(), protocol: Protocol::Http }],
        identities: Vec::new(),
        mtls: MtlsMode::Strict.into(),
        between: Between::Auto,
        addresses: vec![],
        cluster_addresses: vec![],
        location: outrigger_mesh::Location::Mesh,
        http: outrigger_mesh::HttpRules::default(),
        routes: Vec::new(),
        policy: TrafficPolicy::default(),
        for_callers: Vec::new(),
        overrides: Vec::new(),
        tcp_routes: vec![],
        division: None,
        tokens: outrigger_mesh::TokenTravel::Keep,
    })
}

fn endpoint(i: u8, uid: u8, weight: u16) -> Resource {
    let port = PortNumber::HTTP;
    Resource::Endpoint(Endpoint {
        service: service_name(i),
        uid: format!("i-{uid}").parse().unwrap(),
        ip: [127, 0, 0, 1].into(),
        ports: [EndpointPort { port, listen: port, target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::new(weight).unwrap(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    })
}

fn trust(root: u8) -> Resource {
    let trust_domain = "mesh.local".parse().unwrap();
    Resource::Trust(Trust { trust_domain, roots: vec![[root].as_slice().into()] })
}

/// A sidecar, the wire and the control plane's session of it.
struct Pair {
    world: World,
    client: ClientSession,
    interest: BTreeSet<Selector>,
    /// What the sidecar has put in force, by what the deltas told it.
    applied: BTreeMap<ResourceName, ResourceVersion>,
    unknown: BTreeSet<Selector>,
    server: ServerSession,
    up: VecDeque<DeltaRequest>,
    down: VecDeque<DeltaResponse>,
    /// Full copies of resources that crossed the wire.
    carried: usize,
    poisoned: BTreeMap<ResourceName, ResourceVersion>,
}

fn server_session() -> ServerSession {
    // Small responses, so that they are split often.
    let limits = Limits { response_bytes: 400, ..Limits::default() };
    ServerSession::new(limits, |selector: &Selector| selector.kind() != ResourceKind::Inbound)
}

impl Pair {
    fn new() -> Self {
        let mut client = ClientSession::new(FeatureSet::all());
        client.on_connect();
        Self {
            world: World::default(),
            client,
            interest: BTreeSet::new(),
            applied: BTreeMap::new(),
            unknown: BTreeSet::new(),
            server: server_session(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            carried: 0,
            poisoned: BTreeMap::new(),
        }
    }

    fn subscribe(&mut self, selector: Selector) {
        self.interest.insert(selector.clone());
        self.client.subscribe(selector);
    }

    fn unsubscribe(&mut self, selector: &Selector) {
        self.interest.remove(selector);
        self.unknown.remove(selector);
        for name in self.client.unsubscribe(selector) {
            self.applied.remove(&name);
        }
    }

    fn changed(&mut self, names: &[ResourceName], hosts: &[Hostname]) {
        self.pump_server(Changed::Names { names, hosts });
    }

    fn set(&mut self, resource: &Resource) {
        let name = self.world.set(resource);
        let hosts = self.hosts_of(&name);
        self.changed(&[name], &hosts);
    }

    fn remove(&mut self, name: &ResourceName) {
        self.world.remove(name);
        let hosts = self.hosts_of(name);
        self.changed(std::slice::from_ref(name), &hosts);
    }

    fn hosts_of(&self, name: &ResourceName) -> Vec<Hostname> {
        let means = |s: &ServiceName| ResourceName::Service(s.clone()) == *name;
        self.world.hosts.iter().filter(|(_, s)| means(s)).map(|(h, _)| h.clone()).collect()
    }

    fn point(&mut self, host: &Hostname, service: Option<ServiceName>) {
        self.world.revision += 1;
        match service {
            Some(service) => self.world.hosts.insert(host.clone(), service),
            None => self.world.hosts.remove(host),
        };
        self.changed(&[], std::slice::from_ref(host));
    }

    fn pump_server(&mut self, changed: Changed<'_>) {
        let mut changed = changed;
        while let Some(response) =
            self.server.next_response(&self.world, std::mem::replace(&mut changed, Changed::Nothing))
        {
            self.carried += response.resources.iter().filter(|r| r.payload.is_some()).count();
            self.down.push_back(response);
        }
    }

    fn pump_client(&mut self) {
        self.up.extend(std::iter::from_fn(|| self.client.next_request()));
    }

    /// One message up, if there is one.
    fn step_up(&mut self) -> bool {
        self.pump_client();
        let Some(request) = self.up.pop_front() else {
            return false;
        };
        self.server.on_request(request).unwrap();
        self.pump_server(Changed::Nothing);
        true
    }

    /// One message down, if there is one. The sidecar refuses poison.
    fn step_down(&mut self) -> bool {
        let Some(response) = self.down.pop_front() else {
            return false;
        };
        let delta = self.client.on_response(response);
        let mut rejected = Vec::new();
        for (resource, version, _) in delta.set {
            if matches!(&resource, Resource::Endpoint(e) if e.weight.get() == POISON) {
                self.poisoned.insert(resource.name(), version.clone());
                rejected.push(Rejected {
                    name: resource.name().to_string(),
                    version: version.to_string(),
                    reason: "poison".into(),
                });
            } else {
                self.applied.insert(resource.name(), version);
            }
        }
        for (host, _) in delta.hosts {
            self.unknown.remove(&Selector::Host(host));
        }
        for removed in delta.removed {
            match removed {
                Removed::Name(name) => {
                    self.applied.remove(&name);
                }
                Removed::Selector(selector) => {
                    self.unknown.insert(selector);
                }
            }
        }
        assert_eq!(delta.undecodable, []);
        self.client.answer(delta.ticket, rejected);
        true
    }

    fn reconnect(&mut self) {
        self.up.clear();
        self.down.clear();
        self.server = server_session();
        self.client.on_connect();
    }

    fn settle(&mut self) {
        while self.step_up() || self.step_down() {}
    }

    fn check(&mut self) {
        self.settle();
        assert!(self.server.is_settled());
        let expected = self.world.expected(&self.interest);
        let poisoned = |name: &ResourceName| {
            self.world.resources.get(name).is_some_and(|e| self.poisoned.get(name) == Some(&e.version))
        };
        for (name, version) in &expected {
            if !poisoned(name) {
                assert_eq!(self.applied.get(name), Some(version), "{name}");
            }
        }
        for name in self.applied.keys() {
            assert!(expected.contains_key(name), "{name} should be gone");
        }
        let held: BTreeMap<_, _> = self.client.held().map(|(n, v)| (n.clone(), v.clone())).collect();
        assert_eq!(held, self.applied);
        for selector in &self.interest {
            if let Selector::Host(host) = selector {
                let known = self.world.host(host).is_some();
                assert_eq!(self.unknown.contains(selector), !known, "{host}");
            }
        }
        let rejected: BTreeSet<_> = self.server.rejected().map(|(_, r)| r.name.clone()).collect();
        let bad = expected.keys().filter(|n| poisoned(n)).map(ToString::to_string).collect();
        assert_eq!(rejected, bad);
    }
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a handful in a test")]
enum Op {
    Subscribe(Selector),
    Unsubscribe(Selector),
    Set(Resource),
    Remove(ResourceName),
    Point(u8, Option<u8>),
    Up,
    Down,
    Reconnect,
    Anything,
}

fn op() -> impl Strategy<Value = Op> {
    let selector = prop_oneof![
        Just(Selector::All(ResourceKind::Trust)),
        (0_u8..3).prop_map(|i| Selector::Named(ResourceName::Service(service_name(i)))),
        (0_u8..3).prop_map(|i| Selector::EndpointsOf(service_name(i))),
        (0_u8..3).prop_map(|i| Selector::Host(hostname(i))),
        (0_u8..3, 0_u8..3).prop_map(|(s, uid)| Selector::Named(endpoint(s, uid, 1).name())),
    ];
    let resource = prop_oneof![
        (0_u8..2).prop_map(trust),
        (0_u8..3, 1_u16..4).prop_map(|(i, port)| service(i, port)),
        (0_u8..3, 0_u8..3, prop_oneof![1_u16..4, Just(POISON)]).prop_map(|(s, uid, w)| endpoint(s, uid, w)),
    ];
    prop_oneof![
        3 => selector.clone().prop_map(Op::Subscribe),
        2 => selector.prop_map(Op::Unsubscribe),
        5 => resource.clone().prop_map(Op::Set),
        2 => resource.prop_map(|r| Op::Remove(r.name())),
        2 => (0_u8..3, proptest::option::of(0_u8..3)).prop_map(|(host, to)| Op::Point(host, to)),
        6 => Just(Op::Up),
        6 => Just(Op::Down),
        1 => Just(Op::Reconnect),
        1 => Just(Op::Anything),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_client_comes_to_hold_exactly_what_the_catalog_has_for_it(
        ops in proptest::collection::vec(op(), 0..60),
    ) {
        let mut pair = Pair::new();
        for op in ops {
            match op {
                Op::Subscribe(selector) => pair.subscribe(selector),
                Op::Unsubscribe(selector) => pair.unsubscribe(&selector),
                Op::Set(resource) => pair.set(&resource),
                Op::Remove(name) => pair.remove(&name),
                Op::Point(host, to) => pair.point(&hostname(host), to.map(service_name)),
                Op::Up => { pair.step_up(); }
                Op::Down => { pair.step_down(); }
                Op::Reconnect => pair.reconnect(),
                Op::Anything => pair.pump_server(Changed::Anything),
            }
        }
        pair.check();
        pair.reconnect();
        let before = pair.carried;
        let refused = pair.server_rejections();
        pair.check();
        prop_assert!(pair.carried - before <= refused, "what was held was sent again");
    }
}

impl Pair {
    /// How many resources in the catalog the sidecar refuses: those may be sent again on a new connection.
    fn server_rejections(&self) -> usize {
        let now = |name: &ResourceName| self.world.resources.get(name).map(|e| &e.version);
        self.poisoned.iter().filter(|(name, version)| now(name) == Some(version)).count()
    }
}

#[test]
fn a_reconnect_sends_only_what_differs() {
    let mut pair = Pair::new();
    for uid in 0..9 {
        pair.set(&endpoint(0, uid, 1));
    }
    pair.set(&service(0, 80));
    pair.point(&hostname(0), Some(service_name(0)));
    pair.subscribe(Selector::EndpointsOf(service_name(0)));
    pair.subscribe(Selector::Host(hostname(0)));
    pair.check();
    assert_eq!(pair.carried, 10);

    pair.reconnect();
    pair.set(&endpoint(0, 3, 2));
    pair.remove(&endpoint(0, 4, 1).name());
    pair.check();
    assert_eq!(pair.carried, 11);
}

#[test]
fn a_restarted_sidecar_goes_on_from_its_disk_copy() {
    let mut pair = Pair::new();
    pair.set(&service(0, 80));
    pair.set(&endpoint(0, 0, 1));
    pair.point(&hostname(0), Some(service_name(0)));
    let copies: Vec<_> = pair.world.resources.values().cloned().collect();

    pair.subscribe(Selector::Host(hostname(0)));
    pair.subscribe(Selector::EndpointsOf(service_name(0)));
    for copy in copies {
        pair.applied.insert(copy.name.clone(), copy.version.clone());
        pair.client.seed(copy.name, copy.version);
    }
    let gone = endpoint(0, 1, 1);
    pair.applied.insert(gone.name(), Encoded::new(&gone).version);
    pair.client.seed(gone.name(), Encoded::new(&gone).version);
    pair.client.seed_host(&hostname(0), &service_name(0));
    pair.reconnect();
    pair.check();
    assert_eq!(pair.carried, 0);
}

#[test]
fn a_change_costs_what_it_touches_however_large_the_mesh_is() {
    struct Counting<'a>(&'a World, std::cell::Cell<usize>);
    impl Catalog for Counting<'_> {
        fn get(&self, name: &ResourceName) -> Option<Encoded> {
            self.1.set(self.1.get() + 1);
            self.0.get(name)
        }
        fn endpoints_of(&self, _: &ServiceName) -> Vec<Encoded> {
            panic!("a change is no reason to list everything")
        }
        fn all(&self, _: ResourceKind) -> Vec<Encoded> {
            panic!("a change is no reason to list everything")
        }
        fn host(&self, host: &Hostname) -> Option<ServiceName> {
            self.0.host(host)
        }
        fn revision(&self) -> u64 {
            self.0.revision
        }
    }
    let mut pair = Pair::new();
    for uid in 0..200 {
        pair.set(&endpoint(0, uid, 1));
    }
    pair.subscribe(Selector::EndpointsOf(service_name(0)));
    pair.check();
    let name = pair.world.set(&endpoint(0, 7, 2));
    let foreign = endpoint(1, 7, 2).name();
    let counting = Counting(&pair.world, std::cell::Cell::new(0));
    let changed = Changed::Names { names: &[name, foreign], hosts: &[] };
    let response = pair.server.next_response(&counting, changed).unwrap();
    assert_eq!((response.resources.len(), counting.1.get()), (1, 1));
}

#[test]
fn what_a_client_may_not_read_is_answered_as_absent() {
    let mut pair = Pair::new();
    let inbound = Selector::parse(ResourceKind::Inbound, "shop/cart").unwrap();
    pair.subscribe(inbound.clone());
    pair.pump_client();
    let events = pair.server.on_request(pair.up.pop_front().unwrap()).unwrap();
    assert_eq!(events, [ClientEvent::Refused(inbound)]);
    let response = pair.server.next_response(&pair.world, Changed::Nothing).unwrap();
    assert_eq!((response.removed, response.resources), (vec!["shop/cart".to_owned()], vec![]));
}

#[test]
fn one_response_of_a_kind_is_under_way_and_a_stale_answer_is_ignored() {
    let mut pair = Pair::new();
    pair.subscribe(Selector::EndpointsOf(service_name(0)));
    pair.set(&endpoint(0, 0, 1));
    while pair.step_up() {}
    pair.set(&endpoint(0, 0, 2));
    pair.set(&endpoint(0, 1, 2));
    assert_eq!(pair.down.len(), 1, "the next waits for the answer");
    let stale = DeltaRequest {
        kind: ResourceKind::Endpoint,
        subscribe: Vec::new(),
        unsubscribe: Vec::new(),
        known: BTreeMap::new(),
        nonce: "77".into(),
        rejected: Vec::new(),
    };
    let events = pair.server.on_request(stale).unwrap();
    assert_eq!(events, [ClientEvent::Stale { nonce: "77".into() }]);
    pair.pump_server(Changed::Nothing);
    assert_eq!(pair.down.len(), 1);
    pair.check();
    assert_eq!(pair.server.acked_revision(ResourceKind::Endpoint), pair.world.revision);
}

#[test]
fn a_session_is_bounded() {
    let limits = Limits { subscriptions: 2, known: 1, name_length: 20, ..Limits::default() };
    let request = |subscribe: &[&str], known: &[&str]| DeltaRequest {
        kind: ResourceKind::Service,
        subscribe: subscribe.iter().map(ToString::to_string).collect(),
        unsubscribe: Vec::new(),
        known: known.iter().map(|k| ((*k).to_owned(), String::new())).collect(),
        nonce: String::new(),
        rejected: Vec::new(),
    };
    let answer = |request| ServerSession::new(limits, |_: &Selector| true).on_request(request);
    assert!(answer(request(&["a/b", "a/c"], &["a/b"])).is_ok());
    assert_eq!(answer(request(&["a/b", "a/c", "a/d"], &[])), Err(ProtocolError::TooManySubscriptions(2)));
    assert_eq!(answer(request(&[], &["a/b", "a/c"])), Err(ProtocolError::TooManyKnown(1)));
    let long = "a/bbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    assert_eq!(answer(request(&[long], &[])), Err(ProtocolError::NameTooLong { length: 30, max: 20 }));
    assert!(matches!(answer(request(&["A/b"], &[])), Err(ProtocolError::BadName(_))));
}

#[test]
fn what_was_handed_out_but_not_answered_when_the_connection_broke_is_sent_again() {
    let mut pair = Pair::new();
    pair.subscribe(Selector::EndpointsOf(service_name(0)));
    pair.set(&endpoint(0, 0, 1));
    while pair.step_up() {}
    let delta = pair.client.on_response(pair.down.pop_front().unwrap());
    pair.reconnect();
    pair.pump_client();
    pair.client.answer(delta.ticket, Vec::new());
    pair.check();
    assert_eq!(pair.carried, 2);
}

#[test]
fn what_was_under_way_when_a_selector_was_given_up_and_taken_up_again_leaves_no_ghost() {
    let mut pair = Pair::new();
    let selector = Selector::EndpointsOf(service_name(0));
    pair.set(&endpoint(0, 0, 1));
    pair.set(&endpoint(0, 1, 1));
    pair.subscribe(selector.clone());
    while pair.step_up() {}
    pair.unsubscribe(&selector);
    while pair.step_up() {}
    pair.remove(&endpoint(0, 1, 1).name());
    pair.subscribe(selector);
    pair.step_down();
    pair.check();
}
