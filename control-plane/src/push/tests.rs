//! Sidecars in process: client sessions over channels instead of gRPC.

mod coming;
mod elsewhere;
mod figures;
mod obeyed;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{
    Between, Endpoint, EndpointPort, EndpointState, FeatureSet, Hostname, MtlsMode, Port, PortNumber,
    Protocol, Resource, ResourceName, Selector, Service, ServiceName, SpiffeId, TrafficPolicy, Transport,
    Weight,
};
use outrigger_wire::rpc::{Hello, RpcError, RpcErrorKind};
use outrigger_wire::session::{ClientSession, DeltaRequest, DeltaResponse, Rejected, Removed};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Hub;
use super::fleet::Proof;
use super::sessions::Stream;
use crate::compile::ResourceChange;
use crate::source::registration::Removal;

/// The control plane's end of a stream. A reader that takes nothing for ten seconds is given up, as in gRPC.
struct ServerEnd {
    requests: mpsc::Receiver<DeltaRequest>,
    responses: mpsc::Sender<DeltaResponse>,
}

impl Stream for ServerEnd {
    async fn next(&mut self) -> Result<Option<DeltaRequest>, RpcError> {
        Ok(self.requests.recv().await)
    }

    async fn send(&self, response: DeltaResponse) -> Result<usize, RpcError> {
        let bytes = response.resources.iter().filter_map(|r| r.payload.as_ref()).map(bytes::Bytes::len).sum();
        let failed = |_| RpcError::new(RpcErrorKind::Exhausted, "slow or gone");
        self.responses.send_timeout(response, Duration::from_secs(10)).await.map_err(failed)?;
        Ok(bytes)
    }

    fn hang_up(&self) {}
}

/// A sidecar: its session, and its end of the stream.
struct Sidecar {
    session: ClientSession,
    /// What it says first, as long as it has not.
    first: VecDeque<DeltaRequest>,
    requests: mpsc::Sender<DeltaRequest>,
    responses: mpsc::Receiver<DeltaResponse>,
    weights: BTreeMap<ResourceName, u16>,
    hosts: BTreeMap<Hostname, Option<ServiceName>>,
    refuse: bool,
    messages: usize,
}

struct Mesh {
    hub: Arc<Hub>,
    streams: JoinSet<Result<(), RpcError>>,
}

impl Mesh {
    fn new() -> Self {
        Self { hub: Arc::new(Hub::new()), streams: JoinSet::new() }
    }

    fn sidecar(&mut self, node: &str, selectors: &[Selector]) -> Sidecar {
        self.sidecar_with(None, node, selectors)
    }

    fn sidecar_with(&mut self, proof: Option<Proof>, node: &str, selectors: &[Selector]) -> Sidecar {
        self.sidecar_that(false, proof, node, selectors)
    }

    fn sidecar_that(
        &mut self,
        elsewhere: bool,
        proof: Option<Proof>,
        node: &str,
        selectors: &[Selector],
    ) -> Sidecar {
        let (requests, incoming) = mpsc::channel(4);
        let (outgoing, responses) = mpsc::channel(1);
        let mut session = ClientSession::new(FeatureSet::all());
        selectors.iter().cloned().for_each(|s| session.subscribe(s));
        session.on_connect();
        let first: VecDeque<_> = std::iter::from_fn(|| session.next_request()).collect();
        let hello = Hello {
            identity: identity("web"),
            node: node.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            service: None,
            endpoint: None,
            features: FeatureSet::all(),
            elsewhere,
            requests: u32::try_from(first.len()).unwrap(),
        };
        let hub = self.hub.clone();
        let from = SocketAddr::from(([127, 0, 0, 1], 9));
        self.streams.spawn(async move {
            hub.serve(hello, from, proof, ServerEnd { requests: incoming, responses: outgoing }).await
        });
        Sidecar {
            session,
            first,
            requests,
            responses,
            weights: BTreeMap::new(),
            hosts: BTreeMap::new(),
            refuse: false,
            messages: 0,
        }
    }

    fn publish(&self, revision: u64, change: ResourceChange) {
        self.hub.publish(revision, vec![change]);
    }
}

impl Sidecar {
    async fn say(&mut self) {
        for request in std::mem::take(&mut self.first) {
            self.requests.send(request).await.unwrap();
        }
        self.say_more().await;
    }

    async fn say_more(&mut self) {
        while let Some(request) = self.session.next_request() {
            self.requests.send(request).await.unwrap();
        }
    }

    /// Takes one response and answers it.
    async fn listen(&mut self) {
        let response = self.responses.recv().await.expect("the stream has ended");
        self.messages += 1;
        let delta = self.session.on_response(response);
        let mut rejected = Vec::new();
        for (resource, version, _) in delta.set {
            let name = resource.name();
            if self.refuse {
                let (name, version) = (name.to_string(), version.to_string());
                rejected.push(Rejected { name, version, reason: "not today".into() });
            } else if let Resource::Endpoint(endpoint) = resource {
                self.weights.insert(name, endpoint.weight.get());
            }
        }
        for (host, service) in delta.hosts {
            self.hosts.insert(host, Some(service));
        }
        for removed in delta.removed {
            match removed {
                Removed::Name(name) => drop(self.weights.remove(&name)),
                Removed::Selector(Selector::Host(host)) => drop(self.hosts.insert(host, None)),
                Removed::Selector(_) => {}
            }
        }
        self.session.answer(delta.ticket, rejected);
        self.say_more().await;
    }

    /// Goes on for as long as it has the runtime.
    async fn run(mut self) {
        self.say().await;
        loop {
            self.listen().await;
        }
    }
}

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://mesh.local/ns/shop/sa/{account}").parse().unwrap()
}

fn cart() -> ServiceName {
    "shop/cart".parse().unwrap()
}

fn endpoint(uid: &str, weight: u16) -> ResourceChange {
    let port = PortNumber::HTTP;
    ResourceChange::Set(Resource::Endpoint(Endpoint {
        service: cart(),
        uid: uid.parse().unwrap(),
        ip: [127, 0, 0, 1].into(),
        ports: [EndpointPort { port, listen: port, target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::new(weight).unwrap(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    }))
}

fn service(name: &str, hosts: &[&str]) -> ResourceChange {
    ResourceChange::Set(Resource::Service(Service {
        name: name.parse().unwrap(),
        hostnames: hosts.iter().map(|h| Hostname::new(h).unwrap()).collect(),
        ports: vec![Port { number: PortNumber::HTTP, protocol: Protocol::Http }],
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
    }))
}

fn all_of_cart() -> [Selector; 1] {
    [Selector::EndpointsOf(cart())]
}

#[tokio::test(start_paused = true)]
async fn a_thousand_subscribers_get_one_change_and_one_that_takes_nothing_delays_none() {
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    let mut sidecars = JoinSet::new();
    for i in 0..1000 {
        sidecars.spawn(mesh.sidecar(&format!("web-{i}"), &all_of_cart()).run());
    }
    let mut stuck = mesh.sidecar("stuck", &all_of_cart());
    stuck.say().await;
    stuck.listen().await;
    let first = mesh.hub.acknowledged(1, Duration::from_secs(1)).await;
    assert_eq!((first.acknowledged, first.proxies), (1001, 1001));

    // From here on the stuck one reads no more.
    mesh.publish(2, endpoint("i-1", 2));
    let second = mesh.hub.acknowledged(2, Duration::from_millis(200)).await;
    assert_eq!((second.acknowledged, second.proxies), (1000, 1001));
    assert_eq!(second.missing, [("stuck".to_owned(), "has not answered".to_owned())]);

    // It leaves its response unanswered for too long and loses its place.
    tokio::time::sleep(Duration::from_secs(31)).await;
    let now = mesh.hub.acknowledged(2, Duration::ZERO).await;
    assert_eq!((now.acknowledged, now.proxies, now.missing), (1000, 1000, vec![]));
    assert!(
        mesh.streams.try_join_next().unwrap().unwrap().unwrap_err().to_string().contains("does not answer")
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_changes_without_a_revision_is_waited_for_like_anything_else() {
    // Whoever had answered the revision before counted as one that knows.
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    let mut web = mesh.sidecar("web", &all_of_cart());
    web.say().await;
    web.listen().await;
    assert_eq!(mesh.hub.acknowledged(1, Duration::from_secs(1)).await.acknowledged, 1);
    mesh.publish(1, endpoint("i-1", 2));
    assert_eq!(mesh.hub.acknowledged(1, Duration::from_millis(200)).await.acknowledged, 0);
    web.listen().await;
    assert_eq!(mesh.hub.acknowledged(1, Duration::from_secs(1)).await.acknowledged, 1);
}

#[tokio::test(start_paused = true)]
async fn who_did_not_ask_is_not_woken_and_counts_as_up_to_date() {
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    let other = Selector::EndpointsOf("shop/prices".parse().unwrap());
    let mut bystander = mesh.sidecar("bystander", &[other]);
    bystander.say().await;
    bystander.listen().await;
    assert_eq!(mesh.hub.acknowledged(1, Duration::from_secs(1)).await.acknowledged, 1);
    mesh.publish(2, endpoint("i-1", 2));
    assert_eq!(mesh.hub.proxies()[0].acked_revision, 2);
    assert!(bystander.responses.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_something_new_while_others_are_waited_for_has_answered_all_the_same() {
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    let mut stuck = Vec::new();
    for i in 0..8 {
        stuck.push(mesh.sidecar(&format!("stuck-{i}"), &all_of_cart()));
    }
    let prices = Selector::EndpointsOf("shop/prices".parse().unwrap());
    let mut curious = mesh.sidecar("curious", &[prices]);
    for sidecar in stuck.iter_mut().chain([&mut curious]) {
        sidecar.say().await;
        sidecar.listen().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    mesh.publish(2, endpoint("i-1", 2));
    let hub = mesh.hub.clone();
    let waiting = tokio::spawn(async move { hub.acknowledged(2, Duration::from_secs(5)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What it is told now it does not answer in that time.
    curious.session.subscribe(Selector::EndpointsOf("shop/orders".parse().unwrap()));
    curious.say().await;
    let told = waiting.await.unwrap();
    assert_eq!((told.acknowledged, told.proxies), (1, 9), "{:?}", told.missing);
    assert!(told.missing.iter().all(|(node, _)| node.starts_with("stuck")), "{:?}", told.missing);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_changes_is_gathered_into_few_messages() {
    let mut mesh = Mesh::new();
    let mut web = mesh.sidecar("web", &all_of_cart());
    web.say().await;
    web.listen().await;
    let hub = mesh.hub.clone();
    let storm = tokio::spawn(async move {
        for i in 0..1000_u16 {
            hub.publish(1, vec![endpoint("i-1", i + 1)]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    while web.weights.values().next() != Some(&1000) {
        web.listen().await;
    }
    storm.await.unwrap();
    assert!((3..=15).contains(&web.messages), "{} messages for 1000 changes in 5 s", web.messages);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_told_with_its_reason_and_cleared_by_what_can_be_obeyed() {
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    let mut web = mesh.sidecar("web", &all_of_cart());
    web.refuse = true;
    web.say().await;
    web.listen().await;
    let told = mesh.hub.acknowledged(1, Duration::from_secs(1)).await;
    let reason = "rejected shop/cart/i-1: not today".to_owned();
    assert_eq!((told.acknowledged, told.missing), (0, vec![("web".to_owned(), reason)]));
    let status = mesh.hub.proxies()[0].to_json();
    assert_eq!(status["rejected"][0]["reason"], "not today");
    assert_eq!(status["rejected"][0]["kind"], "Endpoint");
    assert_eq!(status["ackedRevision"], 1);

    web.refuse = false;
    mesh.publish(2, endpoint("i-1", 2));
    web.listen().await;
    let told = mesh.hub.acknowledged(2, Duration::from_secs(1)).await;
    assert_eq!((told.acknowledged, told.missing), (1, vec![]));
    assert!(mesh.hub.proxies()[0].rejected.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_known_once_every_subscriber_has_answered_it() {
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    mesh.publish(1, endpoint("i-2", 1));
    let mut quick = mesh.sidecar("quick", &all_of_cart());
    let mut slow = mesh.sidecar("slow", &all_of_cart());
    for sidecar in [&mut quick, &mut slow] {
        sidecar.say().await;
        sidecar.listen().await;
    }
    let uid = "i-1".parse().unwrap();
    let gone = ResourceName::Endpoint(cart(), "i-1".parse().unwrap());
    mesh.publish(1, ResourceChange::Remove(gone.clone()));
    quick.listen().await;
    assert!(!quick.weights.contains_key(&gone));
    let waited = mesh.hub.removed(&cart(), &uid, Duration::from_secs(1)).await;
    assert_eq!(waited, (2, 1));
    let hub = mesh.hub.clone();
    let waiting = tokio::spawn(async move { hub.removed(&cart(), &uid, Duration::from_secs(5)).await });
    slow.listen().await;
    assert_eq!(waiting.await.unwrap(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_host_name_follows_the_service_that_has_it() {
    let mut mesh = Mesh::new();
    let host = Hostname::new("cart.shop").unwrap();
    let mut web = mesh.sidecar("web", &[Selector::Host(host.clone())]);
    web.say().await;
    web.listen().await;
    assert_eq!(web.hosts[&host], None);
    for (change, expected) in [
        (service("shop/cart", &["cart.shop"]), Some("shop/cart")),
        (service("shop/cart", &["old.shop"]), None),
        (service("shop/other", &["cart.shop"]), Some("shop/other")),
    ] {
        mesh.publish(1, change);
        web.listen().await;
        assert_eq!(web.hosts[&host].as_ref().map(ToString::to_string).as_deref(), expected);
    }
    mesh.publish(1, ResourceChange::Remove(ResourceName::Service("shop/other".parse().unwrap())));
    web.listen().await;
    assert_eq!(web.hosts[&host], None);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_connects_again_takes_the_place_of_its_old_session() {
    let mut mesh = Mesh::new();
    let mut old = mesh.sidecar("web", &all_of_cart());
    old.say().await;
    old.listen().await;
    let mut new = mesh.sidecar("web", &all_of_cart());
    new.say().await;
    new.listen().await;
    let end = mesh.streams.join_next().await.unwrap().unwrap();
    assert!(end.unwrap_err().to_string().contains("same process"));
    assert_eq!(mesh.hub.proxies().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_inbound_rules_of_another_workload_are_not_told() {
    let mut mesh = Mesh::new();
    let inbound = |account: &str| {
        let rules = outrigger_mesh::Inbound { identity: identity(account), services: Vec::new() };
        ResourceChange::Set(Resource::Inbound(rules))
    };
    mesh.publish(1, inbound("web"));
    mesh.publish(1, inbound("cart"));
    let selector =
        |account: &str| Selector::parse(outrigger_mesh::ResourceKind::Inbound, &format!("shop/{account}"));
    let mut web = mesh.sidecar("web", &[selector("web").unwrap(), selector("cart").unwrap()]);
    web.say().await;
    web.listen().await;
    let held: Vec<_> = web.session.held().map(|(name, _)| name.to_string()).collect();
    assert_eq!(held, ["shop/web"]);
}

fn denylist(accounts: &[&str]) -> ResourceChange {
    ResourceChange::Set(Resource::Denylist(outrigger_mesh::Denylist {
        name: "shop/stolen".parse().unwrap(),
        tokens: Vec::new(),
        identities: accounts.iter().map(|account| identity(account)).collect(),
    }))
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_revoked_identity_ends_at_once_and_no_other_begins() {
    let mut mesh = Mesh::new();
    let mut web = mesh.sidecar("web", &all_of_cart());
    web.say().await;
    mesh.publish(1, denylist(&["cart"]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mesh.hub.proxies().len(), 1, "somebody else is revoked");
    mesh.publish(1, denylist(&["web"]));
    let end = mesh.streams.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!((end.kind, end.to_string().as_str()), (RpcErrorKind::Denied, "this identity is revoked"));
    let _again = mesh.sidecar("web", &all_of_cart());
    assert_eq!(mesh.streams.join_next().await.unwrap().unwrap().unwrap_err().kind, RpcErrorKind::Denied);
    mesh.publish(1, denylist(&[]));
    let _again = mesh.sidecar("web", &all_of_cart());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mesh.hub.proxies().len(), 1, "the list was emptied");
}

fn proof(lives: Duration) -> Proof {
    Proof { certificate: "c1".into(), not_after: std::time::SystemTime::now() + lives }
}

#[tokio::test(start_paused = true)]
async fn one_certificate_opens_no_more_streams_than_a_process_needs() {
    let mut mesh = Mesh::new();
    let day = Duration::from_secs(24 * 3600);
    let all: Vec<_> =
        (0..5).map(|i| mesh.sidecar_with(Some(proof(day)), &format!("node-{i}"), &all_of_cart())).collect();
    let refused = mesh.streams.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.kind, RpcErrorKind::Exhausted);
    assert_eq!(mesh.hub.proxies().len(), 4);
    drop(all);
    while mesh.streams.join_next().await.is_some() {}
    let _again = mesh.sidecar_with(Some(proof(day)), "node", &all_of_cart());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mesh.hub.proxies().len(), 1, "the room of those that have gone is free");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_certificate_of_its_connection() {
    let mut mesh = Mesh::new();
    let mut web = mesh.sidecar_with(Some(proof(Duration::from_secs(60))), "web", &all_of_cart());
    web.say().await;
    web.listen().await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(mesh.hub.proxies().len(), 1);
    let end = mesh.streams.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(end.to_string().contains("has expired"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn the_address_of_an_instance_of_two_services_is_known_until_the_last_of_them_lets_it_go() {
    // A pod behind two Services was nobody's when one of them let it go, as when it was not ready for a while.
    let mut mesh = Mesh::new();
    let at = SocketAddr::from(([127, 0, 0, 1], PortNumber::HTTP.get()));
    let headless: ServiceName = "shop/cart-headless".parse().unwrap();
    let of_headless = |uid: &str| {
        let ResourceChange::Set(Resource::Endpoint(endpoint)) = endpoint(uid, 1) else { unreachable!() };
        ResourceChange::Set(Resource::Endpoint(Endpoint { service: headless.clone(), ..endpoint }))
    };
    let gone = |service: &ServiceName, uid: &str| {
        ResourceChange::Remove(ResourceName::Endpoint(service.clone(), uid.parse().unwrap()))
    };
    mesh.publish(1, service("shop/cart", &["cart.shop"]));
    mesh.publish(1, service("shop/cart-headless", &["cart-headless.shop"]));
    mesh.publish(1, endpoint("i-1", 1));
    mesh.publish(1, of_headless("i-1"));
    let mut web = mesh.sidecar("web", &[Selector::Host(Hostname::of_socket(at))]);
    web.say().await;
    web.listen().await;
    let meant = |web: &Sidecar| web.hosts.values().next().cloned().flatten();
    assert_eq!(meant(&web), Some(cart()));
    mesh.publish(2, gone(&cart(), "i-1"));
    web.listen().await;
    assert_eq!(meant(&web), Some(headless.clone()));
    // One of another name in its place, and then it: as a pod that is made anew.
    mesh.publish(3, of_headless("i-2"));
    mesh.publish(3, gone(&headless, "i-1"));
    mesh.publish(3, endpoint("i-1", 2));
    web.listen().await;
    assert_eq!(meant(&web), Some(cart()), "the first by name, always");
    mesh.publish(4, gone(&cart(), "i-1"));
    web.listen().await;
    assert_eq!(meant(&web), Some(headless.clone()));
    mesh.publish(5, gone(&headless, "i-2"));
    web.listen().await;
    assert_eq!(meant(&web), None);
}

#[tokio::test(start_paused = true)]
async fn roots_count_as_obeyed_when_the_answer_has_come_and_not_before() {
    use crate::ca::Fleet;
    let trust = |root: u8| outrigger_mesh::Trust {
        trust_domain: "mesh.local".parse().unwrap(),
        roots: vec![[root].as_slice().into()],
    };
    let mut mesh = Mesh::new();
    mesh.hub.publish_trust(trust(1));
    let all = [Selector::All(outrigger_mesh::ResourceKind::Trust)];
    let mut web = mesh.sidecar_with(Some(proof(Duration::from_secs(3600))), "web", &all);
    let obeyed = |mesh: &Mesh| mesh.hub.holdings()[0].trust.clone();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(obeyed(&mesh), None, "it has said nothing yet");
    web.say().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(obeyed(&mesh), None, "it has not answered yet");
    web.listen().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = obeyed(&mesh).expect("it has answered");
    mesh.hub.publish_trust(trust(2));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(obeyed(&mesh), None, "there are others by now");
    web.listen().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(obeyed(&mesh).is_some_and(|now| now != first));
}
