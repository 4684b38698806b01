use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use outrigger_mesh::{
    EndpointPort, EndpointState, PortNumber, Resource, ResourceName, SpiffeId, Transport, Weight,
};

use super::*;
use crate::addresses::VirtualAddress;
use crate::spec::{Code, read};
use crate::store::{EmbeddedStore, Space};
use crate::testing::{
    defaults, egress, gateway, gateway_route, instance, name, policy, route, route_policy, service,
};

/// What was published, as a subscriber to everything would have it.
#[derive(Default)]
struct Seen {
    live: Mutex<BTreeMap<ResourceName, Resource>>,
    calls: Mutex<Vec<(u64, usize)>>,
}

impl Publish for Seen {
    fn publish(&self, revision: u64, changes: Vec<ResourceChange>) {
        self.calls.lock().unwrap().push((revision, changes.len()));
        let mut live = self.live.lock().unwrap();
        for change in changes {
            match change {
                ResourceChange::Set(resource) => drop(live.insert(resource.name(), resource)),
                ResourceChange::Remove(name) => drop(live.remove(&name)),
            }
        }
    }
}

impl Seen {
    /// What is there besides the settings of the mesh, which always are.
    fn count(&self) -> usize {
        let live = self.live.lock().unwrap();
        live.keys().filter(|n| !matches!(n, ResourceName::Mesh(_))).count()
    }

    fn endpoints(&self) -> usize {
        let live = self.live.lock().unwrap();
        live.keys().filter(|n| matches!(n, ResourceName::Endpoint(..))).count()
    }
}

struct Plane {
    state: Arc<State>,
    seen: Arc<Seen>,
    _folder: Option<tempfile::TempDir>,
}

async fn open(folder: &Path) -> Plane {
    let store = Arc::new(EmbeddedStore::open(folder).await.unwrap());
    let seen = Arc::new(Seen::default());
    let domain = TrustDomain::new("mesh.local").unwrap();
    let state = State::open(store, domain, RootHash::of(b"root"), seen.clone()).await.unwrap();
    Plane { state, seen, _folder: None }
}

async fn fresh() -> Plane {
    let folder = tempfile::tempdir().unwrap();
    let plane = open(folder.path()).await;
    Plane { _folder: Some(folder), ..plane }
}

fn me() -> Author {
    Author::new("tester", "127.0.0.1:1")
}

fn put(object: crate::spec::Object) -> Write {
    Write::Put { document: Document::made(object), expect: Expect::Anything }
}

fn delete(object: &crate::spec::Object) -> Write {
    Write::Delete { key: object.key(), expect: Expect::Anything }
}

impl Plane {
    async fn apply(&self, writes: Vec<Write>) -> Result<Applied, ApplyError> {
        let applied = self.state.apply(writes, &me(), false).await;
        // Whatever happens, subscribers have what the world says.
        let all = compile::everything(&self.state.world());
        let all: BTreeMap<_, _> = all.into_iter().map(|r| (r.name(), r)).collect();
        assert_eq!(*self.seen.live.lock().unwrap(), all);
        // What is kept of the status of routes is what would be found by looking at all of them.
        let mut world = (*self.state.world()).clone();
        assert_eq!(crate::status::note_read(&mut world, crate::spec::Time::now()), []);
        applied
    }

    async fn actions(&self, writes: Vec<Write>) -> Vec<&'static str> {
        self.apply(writes).await.unwrap().changes.iter().map(|c| c.action).collect()
    }

    async fn refused(&self, writes: Vec<Write>) -> Vec<(String, Code)> {
        match self.apply(writes).await {
            Err(ApplyError::Refused(problems)) => problems.into_iter().map(|p| (p.message, p.code)).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn workload(account: &str) -> Author {
    let id: SpiffeId = format!("spiffe://mesh.local/ns/shop/sa/{account}").parse().unwrap();
    Author::workload(&id, "127.0.0.1:2")
}

fn endpoint(uid: &str, service: &str) -> Endpoint {
    let port = |n| PortNumber::new(n).unwrap();
    Endpoint {
        service: name(service),
        uid: uid.parse().unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
        ports: [EndpointPort { port: port(80), listen: port(15006), target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    }
}

#[tokio::test]
async fn one_change_is_one_revision_whatever_the_order_of_its_parts() {
    let plane = fresh().await;
    let writes = vec![
        put(instance("i", "service: cart, address: 127.0.0.1")),
        put(route("r", "cart", "backendRefs: [{name: cart}]")),
        put(service("cart", "")),
    ];
    let applied = plane.apply(writes.clone()).await.unwrap();
    assert_eq!((applied.revision, applied.generation), (1, 1));
    assert!(applied.changes.iter().all(|c| c.action == "created"));
    assert_eq!(plane.seen.count(), 3, "service, endpoint, inbound");

    assert_eq!(plane.actions(writes).await, ["unchanged"; 3]);
    assert_eq!(plane.state.world().revision(), 1, "nothing new is no revision");
    assert_eq!(plane.state.store().audit(None, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_change_with_one_mistake_changes_nothing_and_tells_all_mistakes() {
    let plane = fresh().await;
    let problems = plane
        .refused(vec![
            put(service("cart", "ports: [{port: 80}, {port: 80}]")),
            put(service("prices", "")),
            put(route("r", "cart", "backendRefs: [{name: cart}, {name: nowhere}]")),
        ])
        .await;
    let codes: Vec<_> = problems.iter().map(|p| p.1).collect();
    assert_eq!(codes, [Code::Duplicate, Code::Reference], "{problems:?}");
    assert_eq!(plane.state.world().revision(), 0);
    assert_eq!(plane.seen.count(), 0);
    assert!(plane.state.store().list(Space::Config, "").await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let plane = fresh().await;
    let applied = plane.state.apply(vec![put(service("cart", ""))], &me(), true).await.unwrap();
    assert_eq!((applied.revision, applied.changes[0].action), (0, "created"));
    assert_eq!((plane.seen.count(), plane.state.world().count(crate::spec::Kind::MeshService)), (0, 0));
}

#[tokio::test]
async fn of_two_writers_with_one_version_the_second_is_told_what_is_there() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", ""))]).await.unwrap();
    let update = |spec: &str| Write::Put {
        document: Document::made(service("cart", spec)),
        expect: Expect::Version(1),
    };
    let me = me();
    let (one, two) = tokio::join!(
        plane.state.apply(vec![update("owner: a")], &me, false),
        plane.state.apply(vec![update("owner: b")], &me, false),
    );
    let mut both = [one, two];
    both.sort_by_key(Result::is_err);
    let [Ok(applied), Err(ApplyError::Precondition { current: Some(current), .. })] = both else {
        panic!("exactly one wins")
    };
    assert_eq!((applied.revision, current.changed()), (2, 2));
}

#[tokio::test]
async fn a_resource_version_in_the_object_is_held_to() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", ""))]).await.unwrap();
    let mut stale = service("cart", "owner: me");
    stale.metadata.resource_version = Some("7".into());
    assert!(matches!(plane.apply(vec![put(stale)]).await, Err(ApplyError::Precondition { .. })));
}

#[tokio::test]
async fn a_service_that_routes_need_stays_until_they_go() {
    let plane = fresh().await;
    let (cart, prices) = (service("cart", ""), service("prices", ""));
    let canary = route("r", "cart", "backendRefs: [{name: prices}]");
    plane.apply(vec![put(cart.clone()), put(prices.clone()), put(canary.clone())]).await.unwrap();
    let problems = plane.refused(vec![delete(&prices)]).await;
    assert!(problems[0].0.contains("HTTPRoute shop/r would no longer hold"), "{problems:?}");
    assert_eq!(plane.actions(vec![delete(&prices), delete(&canary)]).await, ["deleted"; 2]);
    assert_eq!(plane.actions(vec![delete(&cart)]).await, ["deleted"]);
    assert_eq!(plane.seen.count(), 0);
}

#[tokio::test]
async fn a_grant_stays_while_a_service_lives_by_it_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let plane = open(folder.path()).await;
    let granted = |pattern: &str| {
        put(defaults(&format!("hostnameGrants: [{{namespace: shop, hostnames: ['{pattern}']}}]")))
    };
    let api = service("api", "hostnames: [api.example.com]");
    plane.apply(vec![put(api.clone()), granted("*.example.com")]).await.unwrap();
    drop(plane);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let plane = open(folder.path()).await;
    for write in [granted("www.example.com"), delete(&defaults(""))] {
        let problems = plane.refused(vec![write]).await;
        assert!(problems[0].0.contains("MeshService shop/api would no longer hold"), "{problems:?}");
    }
    plane.apply(vec![granted("api.example.com")]).await.unwrap();
    plane.apply(vec![delete(&defaults("")), put(service("api", ""))]).await.unwrap();
}

#[tokio::test]
async fn instances_go_with_their_service() {
    let plane = fresh().await;
    let cart = service("cart", "");
    plane.apply(vec![put(cart.clone())]).await.unwrap();
    plane.state.register_instance(endpoint("a", "shop/cart"), &workload("cart")).await.unwrap();
    assert_eq!(plane.actions(vec![delete(&cart)]).await, ["deleted", "deleted"]);
    assert_eq!((plane.seen.count(), plane.state.world().generation()), (0, 2));
}

#[tokio::test]
async fn a_host_name_passes_from_one_service_to_another_in_one_change() {
    let plane = fresh().await;
    plane.apply(vec![put(service("a", "hostnames: [x.shop]")), put(service("b", ""))]).await.unwrap();
    let swap = vec![put(service("b", "hostnames: [x.shop]")), put(service("a", ""))];
    assert_eq!(plane.actions(swap).await, ["updated", "updated"]);
    let host = outrigger_mesh::Hostname::new("x.shop").unwrap();
    assert_eq!(plane.state.world().host(&host), Some(&name("shop/b")));
}

#[tokio::test]
async fn a_workload_registers_only_as_what_it_may_serve() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", "")), put(service("prices", ""))]).await.unwrap();
    let register = |e: Endpoint, who: Author| {
        let state = plane.state.clone();
        async move { state.register_instance(e, &who).await.map_err(|r| r.kind) }
    };
    let cart = || endpoint("a", "shop/cart");
    assert_eq!(register(cart(), workload("prices")).await, Err(RefusalKind::NotAllowed));
    assert_eq!(register(cart(), me()).await, Err(RefusalKind::NotAllowed));
    assert_eq!(
        register(endpoint("a", "shop/none"), workload("none")).await,
        Err(RefusalKind::UnknownService)
    );
    let unreachable = Endpoint { ip: "0.0.0.0".parse().unwrap(), ..cart() };
    assert_eq!(register(unreachable, workload("cart")).await, Err(RefusalKind::Invalid));
    assert_eq!(plane.seen.endpoints(), 0);

    assert_eq!(register(cart(), workload("cart")).await, Ok(()));
    assert_eq!(register(cart(), workload("cart")).await, Ok(()), "a renewal");
    assert_eq!(plane.state.world().generation(), 1, "a renewal is no change");
    assert_eq!(
        register(endpoint("a", "shop/prices"), workload("prices")).await,
        Err(RefusalKind::NotAllowed)
    );
    let draining = Endpoint { state: EndpointState::Draining, ..cart() };
    assert_eq!(register(draining, workload("cart")).await, Ok(()));
    assert_eq!((plane.seen.endpoints(), plane.state.world().generation()), (1, 2));
    assert_eq!(plane.state.world().revision(), 1, "instances make no revisions");
}

#[tokio::test]
async fn an_instance_is_withdrawn_by_its_own_workload_or_ended_by_the_control_plane() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", "identities: [cart, other]"))]).await.unwrap();
    let (cart, uid) = (name("shop/cart"), EndpointUid::new("a").unwrap());
    for (ends, expected) in [
        (workload("cart"), Ok(())),
        (Author::system("lease"), Ok(())),
        (workload("other"), Err(RefusalKind::NotAllowed)),
    ] {
        plane.state.register_instance(endpoint("a", "shop/cart"), &workload("cart")).await.unwrap();
        let ended = plane.state.remove_instance(&cart, &uid, &ends).await.map_err(|r| r.kind);
        assert_eq!(ended, expected, "{}", ends.who);
    }
    assert_eq!(plane.seen.endpoints(), 1);
    let lines = plane.state.store().audit(None, 20).await.unwrap();
    let actions: Vec<_> = lines.iter().rev().map(|l| l.entry.action.as_str()).collect();
    assert_eq!(actions, ["create", "register", "withdraw", "register", "expire", "register"]);
}

#[tokio::test]
async fn an_identity_that_may_no_longer_serve_takes_its_endpoints_along() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", "identities: [a, b]"))]).await.unwrap();
    plane.state.register_instance(endpoint("i", "shop/cart"), &workload("b")).await.unwrap();
    plane.apply(vec![put(service("cart", "identities: [a]"))]).await.unwrap();
    assert_eq!(plane.seen.endpoints(), 0);
    plane.apply(vec![put(service("cart", "identities: [a, b]"))]).await.unwrap();
    assert_eq!(plane.seen.endpoints(), 1);
}

#[tokio::test]
async fn what_registered_itself_is_not_edited_behind_its_back() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", ""))]).await.unwrap();
    plane.state.register_instance(endpoint("i", "shop/cart"), &workload("cart")).await.unwrap();
    let problems = plane.refused(vec![put(instance("i", "service: cart, address: 127.0.0.2"))]).await;
    assert_eq!(problems[0].1, Code::Conflict);
    plane.apply(vec![put(instance("hand", "service: cart, address: 127.0.0.2"))]).await.unwrap();
    let taken = plane.state.register_instance(endpoint("hand", "shop/cart"), &workload("cart")).await;
    assert_eq!(taken.unwrap_err().kind, RefusalKind::NotAllowed);
}

#[tokio::test]
async fn many_instances_at_once_are_all_in_force_and_cost_few_commits() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", ""))]).await.unwrap();
    let author = workload("cart");
    let all =
        (0..300).map(|i| plane.state.register_instance(endpoint(&format!("i-{i}"), "shop/cart"), &author));
    let results = futures_util::future::join_all(all).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(plane.seen.endpoints(), 300);
    assert!(plane.state.world().generation() < 30, "{}", plane.state.world().generation());
}

#[tokio::test]
async fn a_restart_finds_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let plane = open(folder.path()).await;
    let writes = vec![
        put(service("cart", "ports: [{port: 80}, {port: 81}]")),
        put(instance("i", "service: cart, address: 127.0.0.1")),
        put(route("b", "cart", "backendRefs: [{name: cart}]")),
    ];
    plane.apply(writes).await.unwrap();
    plane.apply(vec![put(route("a", "cart", "backendRefs: [{name: cart}]"))]).await.unwrap();
    plane.state.register_instance(endpoint("r", "shop/cart"), &workload("cart")).await.unwrap();
    // The instance that a person wrote loses a port, which is no reason to forget it.
    plane.apply(vec![put(service("cart", "ports: [{port: 80}]"))]).await.unwrap();
    let before = plane.seen.live.lock().unwrap().clone();
    let counts = (plane.state.world().revision(), plane.state.world().generation());
    drop(plane);
    tokio::time::sleep(Duration::from_millis(50)).await;

    let plane = open(folder.path()).await;
    assert_eq!(*plane.seen.live.lock().unwrap(), before);
    assert_eq!((plane.state.world().revision(), plane.state.world().generation()), counts);
    let other = workload("other");
    let uid = EndpointUid::new("r").unwrap();
    let refused = plane.state.remove_instance(&name("shop/cart"), &uid, &other).await;
    assert_eq!(refused.unwrap_err().kind, RefusalKind::NotAllowed, "who registered it is remembered");
}

#[tokio::test]
async fn a_token_is_used_once_in_time_and_whatever_else_is_told_apart_only_in_the_log() {
    let plane = fresh().await;
    let label = |text| Label::new(text).unwrap();
    let me = me();
    let create = |ttl| plane.state.create_join_token(label("shop"), label("cart"), ttl, &me);
    let token = create(Duration::from_mins(10)).await.unwrap();
    let tries = (0..16).map(|_| plane.state.consume_join_token(&token));
    let results = futures_util::future::join_all(tries).await;
    let mut won: Vec<_> = results.iter().flatten().collect();
    assert_eq!(won.pop(), Some(&(label("shop"), label("cart"))));
    assert!(won.is_empty(), "exactly one of the parallel uses wins");

    let late = create(Duration::ZERO).await.unwrap();
    let unknown = JoinToken::generate(RootHash::of(b"root")).unwrap();
    let mut told = vec![];
    for (token, kind) in [
        (&token, RefusalKind::TokenUsed),
        (&late, RefusalKind::TokenExpired),
        (&unknown, RefusalKind::TokenUnknown),
    ] {
        let refusal = plane.state.consume_join_token(token).await.unwrap_err();
        assert_eq!(refusal.kind, kind);
        told.push(refusal.told().to_owned());
        assert!(!refusal.reason.contains(token.expose().as_str()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    let kept = plane.state.store().list(Space::Tokens, "").await.unwrap();
    let text = format!("{:?}", kept.records);
    assert!(!text.contains(token.expose().as_str()) && text.contains(&token.hash().to_hex()));
}

#[tokio::test]
async fn problems_of_a_text_keep_their_lines_through_the_check() {
    let plane = fresh().await;
    let text = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {name: cart}\nspec:\n  ports:\n  \
                - port: 80\n  - port: 80\n";
    let documents = read(text, "shop.yaml").unwrap();
    let writes = documents.into_iter().map(|document| Write::Put { document, expect: Expect::Anything });
    let Err(ApplyError::Refused(problems)) = plane.apply(writes.collect()).await else { panic!() };
    assert_eq!((problems[0].file.as_deref(), problems[0].line), (Some("shop.yaml"), Some(7)));
}

fn address_of(plane: &Plane, service: &str) -> String {
    let world = plane.state.world();
    world.service(&name(service)).unwrap().checked.address().unwrap().v4().to_string()
}

#[tokio::test]
async fn a_virtual_address_stays_whatever_else_comes_and_goes_and_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let plane = open(folder.path()).await;
    plane.apply(vec![put(service("cart", "")), put(service("prices", ""))]).await.unwrap();
    let before = (address_of(&plane, "shop/cart"), address_of(&plane, "shop/prices"));
    assert_ne!(before.0, before.1);
    // Another takes the place that the name of the third would point to: the third has to look further, and keeps
    // what it found when the other is gone.
    let wanted = VirtualAddress::find(&name("shop/web"), |_| true).unwrap().v4();
    plane.apply(vec![put(service("first", &format!("address: {wanted}")))]).await.unwrap();
    plane.apply(vec![put(service("web", ""))]).await.unwrap();
    let web = address_of(&plane, "shop/web");
    assert_ne!(web, wanted.to_string());
    plane
        .apply(vec![delete(&service("first", "")), put(service("web", "ports: [{port: 81}]"))])
        .await
        .unwrap();
    let store = Arc::downgrade(&plane.state.store);
    drop(plane);
    // The writer's task ends soon after its owner, and with it the last hold on the store.
    while store.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let again = open(folder.path()).await;
    assert_eq!(address_of(&again, "shop/web"), web);
    assert_eq!((address_of(&again, "shop/cart"), address_of(&again, "shop/prices")), before);
}

#[tokio::test]
async fn no_two_services_have_one_virtual_address() {
    let plane = fresh().await;
    plane.apply(vec![put(service("cart", "address: 240.0.3.7"))]).await.unwrap();
    let refused = plane.refused(vec![put(service("prices", "address: 240.0.3.7"))]).await;
    assert_eq!(refused[0].1, Code::Conflict, "{refused:?}");
    // It passes from one to the other in one change.
    let moved =
        vec![put(service("cart", "address: 240.0.3.8")), put(service("prices", "address: 240.0.3.7"))];
    plane.apply(moved).await.unwrap();
    assert_eq!(address_of(&plane, "shop/prices"), "240.0.3.7");
}

#[tokio::test]
async fn a_meshservice_and_an_egressservice_do_not_share_a_name() {
    let plane = fresh().await;
    let out = || egress("cart", "hosts: [cart.example.com], ports: [{port: 443}]");
    plane.apply(vec![put(out())]).await.unwrap();
    let refused = plane.refused(vec![put(service("cart", ""))]).await;
    assert!(refused.iter().any(|(_, code)| *code == Code::Conflict), "{refused:?}");
    assert_eq!(plane.actions(vec![delete(&out())]).await, ["deleted"]);
    plane.apply(vec![put(service("cart", ""))]).await.unwrap();
}

#[tokio::test]
async fn what_holds_for_the_mesh_is_pushed_when_it_changes() {
    let plane = fresh().await;
    let mode = |plane: &Plane| {
        let live = plane.seen.live.lock().unwrap();
        live.values().find_map(|r| match r {
            Resource::Mesh(settings) => Some(settings.outbound_mode),
            _ => None,
        })
    };
    assert_eq!(mode(&plane), Some(outrigger_mesh::OutboundMode::AllowAny));
    plane.apply(vec![put(defaults("outboundMode: registryOnly"))]).await.unwrap();
    assert_eq!(mode(&plane), Some(outrigger_mesh::OutboundMode::RegistryOnly));
    plane.apply(vec![delete(&defaults(""))]).await.unwrap();
    assert_eq!(mode(&plane), Some(outrigger_mesh::OutboundMode::AllowAny));
}

#[tokio::test]
async fn a_gateway_that_routes_need_stays_until_they_go() {
    let plane = fresh().await;
    let edge = || gateway("edge", "{name: web, port: 80, protocol: HTTP}");
    let out = || gateway_route("r", "edge", "rules: [{backendRefs: [{name: cart}]}]");
    plane.apply(vec![put(out()), put(edge()), put(service("cart", ""))]).await.unwrap();
    let refused = plane.refused(vec![delete(&edge())]).await;
    assert_eq!(refused[0].1, Code::Reference, "{refused:?}");
    plane.apply(vec![delete(&edge()), delete(&out())]).await.unwrap();
}

#[tokio::test]
async fn layers_that_contradict_each_other_are_refused_where_the_change_makes_them() {
    let plane = fresh().await;
    let first = vec![
        put(service("cart", "timeouts: {request: 2s}")),
        put(service("web", "timeouts: {request: 1s}")),
        put(route("r", "cart", "backendRefs: [{name: cart}]")),
        put(policy("p", "cart", "timeouts: {perTry: 500ms}")),
    ];
    plane.apply(first).await.unwrap();
    let refused = async |write| match plane.apply(vec![write]).await {
        Err(ApplyError::Refused(problems)) => problems,
        other => panic!("{other:?}"),
    };
    let problems = refused(put(policy("p", "cart", "timeouts: {perTry: 3s}"))).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].pointer, "/spec/timeouts/perTry");
    assert!(problems[0].hint.as_deref().unwrap().contains("services/shop/cart says /spec/timeouts/request"));
    // The wider one is written: it is told where it no longer fits the narrower.
    let problems = refused(put(service("cart", "timeouts: {request: 400ms}"))).await;
    assert_eq!(problems[0].pointer, "/spec/timeouts/request");
    assert!(
        problems[0].hint.as_deref().unwrap().contains("trafficpolicies/shop/p says /spec/timeouts/perTry")
    );
    // All that the mesh's own would break, each mistake once, with how many services it is about.
    let mesh = "trafficPolicy: {timeouts: {perTry: 5s}, connections: {perEndpoint: 9, perService: 3}}";
    let problems = refused(put(defaults(mesh))).await;
    let mut pointers: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
    pointers.sort_unstable();
    let expected = ["/spec/trafficPolicy/connections/perEndpoint", "/spec/trafficPolicy/timeouts/perTry"];
    assert_eq!(pointers, expected, "{problems:?}");
    assert!(problems.iter().any(|p| p.message.contains("and 1 more")), "{problems:?}");
    let problems = refused(put(route_policy("r", "r", "timeouts: {request: 300ms}"))).await;
    assert_eq!(problems[0].pointer, "/spec/timeouts/request", "{problems:?}");
    let both = vec![
        put(service("cart", "timeouts: {request: 400ms}")),
        put(policy("p", "cart", "timeouts: {perTry: 300ms}")),
    ];
    plane.apply(both).await.unwrap();
}

#[tokio::test]
async fn what_signs_places_outlives_a_restart_and_is_nowhere_to_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let sticky = "balance: {sticky: {cookie: {name: place}}}";
    let key_of = |plane: &Plane| match plane
        .seen
        .live
        .lock()
        .unwrap()
        .get(&ResourceName::Service(name("shop/cart")))
    {
        Some(Resource::Service(cart)) => *cart.policy.balance.sticky.as_ref().unwrap().key.secret(),
        other => panic!("{other:?}"),
    };
    let before = {
        let plane = open(folder.path()).await;
        plane.apply(vec![put(service("cart", "")), put(policy("p", "cart", sticky))]).await.unwrap();
        let key = key_of(&plane);
        let hex = key.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
        let told = format!(
            "{:?} {:?} {:?}",
            plane.state.store().revisions(None, 100).await.unwrap(),
            plane.state.store().audit(None, 100).await.unwrap(),
            plane.state.world(),
        );
        assert!(!told.contains(&hex) && !told.contains(&format!("{key:?}")), "{told}");
        plane.state.store().close().await;
        key
    };
    let plane = open(folder.path()).await;
    assert_eq!(key_of(&plane), before);
}

mod references;
mod replicas;
mod shut;
