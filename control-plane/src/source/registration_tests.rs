//! Leases that end, one by one and many together.

use outrigger_certs::RootHash;
use outrigger_mesh::{Endpoint, EndpointPort, EndpointState, PortNumber, Transport, TrustDomain, Weight};

use super::*;
use crate::spec::Document;
use crate::state::Write;
use crate::store::{EmbeddedStore, Expect};
use crate::testing::{Nobody, instance, service};

/// A control plane whose leases end, in a folder that outlives it.
struct Plane {
    state: Arc<State>,
    registrations: Arc<Registrations>,
    sweeping: tokio::task::JoinHandle<()>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.sweeping.abort();
    }
}

const LEASE: Duration = Duration::from_secs(15);

impl Plane {
    async fn open(folder: &std::path::Path) -> Self {
        let store = Arc::new(EmbeddedStore::open(folder).await.unwrap());
        let domain = TrustDomain::new("mesh.local").unwrap();
        let state = State::open(store, domain, RootHash::of(b"root"), Arc::new(Nobody)).await.unwrap();
        let registrations = Arc::new(Registrations::new(state.clone(), Arc::new(Nobody), LEASE));
        let swept = registrations.clone();
        let sweeping = tokio::spawn(async move { swept.expire().await });
        Self { state, registrations, sweeping }
    }

    async fn write(&self, object: crate::spec::Object) {
        let write = Write::Put { document: Document::made(object), expect: Expect::Anything };
        self.state.apply(vec![write], &Author::system("a test"), false).await.unwrap();
    }

    async fn register(&self, which: std::ops::Range<u16>) {
        for number in which {
            let id: SpiffeId = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
            let author = Author::workload(&id, "127.0.0.1:9");
            let endpoint = endpoint(number);
            self.registrations.register_as(&author, Registration { endpoint }).await.unwrap();
        }
    }

    /// Lets time pass, in which these renew their leases and nobody else does.
    async fn passes(&self, time: Duration, renewing: std::ops::Range<u16>) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.register(renewing.clone()).await;
            tokio::time::sleep(LEASE / 3).await;
        }
    }

    fn listed(&self) -> usize {
        self.state.world().all_instances().count()
    }
}

fn endpoint(number: u16) -> Endpoint {
    Endpoint {
        service: "shop/cart".parse().unwrap(),
        uid: format!("i-{number}").parse().unwrap(),
        ip: [127, 0, 0, 1].into(),
        ports: [EndpointPort { port: PortNumber::HTTP, listen: PortNumber::HTTP, target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    }
}

async fn with_instances(count: u16) -> (tempfile::TempDir, Plane) {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.write(service("cart", "ports: [{port: 80}]")).await;
    plane.register(0..count).await;
    (folder, plane)
}

#[tokio::test(start_paused = true)]
async fn a_minority_whose_leases_end_is_taken_away_at_once() {
    let (_folder, plane) = with_instances(20).await;
    plane.passes(LEASE + LEASE / 2, 0..12).await;
    assert_eq!((plane.listed(), plane.registrations.held_back()), (12, None));
}

#[tokio::test(start_paused = true)]
async fn most_leases_that_end_together_are_held_back_until_the_others_have_renewed_once_more() {
    let (_folder, plane) = with_instances(20).await;
    plane.passes(LEASE + LEASE / 3, 0..5).await;
    let held = plane.registrations.held_back().expect("fifteen of twenty");
    assert_eq!((held.instances, held.of, plane.listed()), (15, 20, 20));
    assert!(plane.registrations.metrics().contains("outrigger_control_leases_held_back 15\n"));
    plane.passes(LEASE + LEASE / 3, 0..5).await;
    assert_eq!((plane.listed(), plane.registrations.held_back()), (5, None));
}

/// Instances that renew their leases one after the other, as they do in a mesh, and then fall silent together.
async fn fall_silent_together(plane: &Plane, count: u16) {
    for number in 0..count {
        plane.register(number..number + 1).await;
        tokio::time::sleep(LEASE / 3 / u32::from(count)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_that_fall_silent_together_none_goes_though_their_leases_end_one_by_one() {
    // Half of them went before it was seen that most of them would.
    let (_folder, plane) = with_instances(20).await;
    fall_silent_together(&plane, 20).await;
    plane.passes(LEASE * 2, 0..0).await;
    let held = plane.registrations.held_back().expect("all of them");
    assert_eq!((held.instances, held.of, plane.listed()), (20, 20, 20));
}

#[tokio::test(start_paused = true)]
async fn an_operator_gives_up_all_that_are_silent_when_the_first_leases_have_ended() {
    let (_folder, plane) = with_instances(20).await;
    fall_silent_together(&plane, 20).await;
    tokio::time::sleep(LEASE * 2 / 3 + Duration::from_secs(2)).await;
    let held = plane.registrations.held_back().expect("the first");
    assert!(held.instances < 10, "{held:?}");
    assert!(plane.registrations.confirm());
    plane.passes(LEASE * 2 / 3, 0..0).await;
    assert_eq!((plane.listed(), plane.registrations.held_back()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn when_nobody_can_renew_nothing_goes_and_everybody_may_come_back() {
    let (_folder, plane) = with_instances(20).await;
    plane.passes(LEASE * 20, 0..0).await;
    assert_eq!(plane.listed(), 20, "the control plane is cut off, and the callers go on");
    plane.passes(LEASE / 2, 0..20).await;
    assert_eq!((plane.listed(), plane.registrations.held_back()), (20, None));
}

#[tokio::test(start_paused = true)]
async fn who_withdraws_in_a_cluster_is_told_so_when_the_cluster_knows_it_too_or_after_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    let found = |state: &str| {
        instance(
            "pod-7",
            &format!("service: cart, address: 10.0.0.7, ports: [{{port: 80, listen: 8080}}]{state}"),
        )
    };
    plane.write(service("cart", "ports: [{port: 80}], discovery: kubernetes")).await;
    plane.write(found("")).await;
    let withdraw = |ip: [u8; 4]| {
        let registrations = plane.registrations.clone();
        let id: SpiffeId = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
        let (service, uid) = ("shop/cart".parse().unwrap(), "its-own-name".parse().unwrap());
        let withdrawal = Withdrawal { service, uid, wait: Duration::from_secs(60) };
        let began = Instant::now();
        tokio::spawn(async move {
            let author = Author::workload(&id, "10.0.0.7:9");
            registrations.withdraw_as(&author, ip.into(), withdrawal).await.unwrap();
            began.elapsed()
        })
    };
    assert!(withdraw([10, 0, 0, 8]).await.unwrap() < Duration::from_secs(1), "no instance is there");
    assert_eq!(withdraw([10, 0, 0, 7]).await.unwrap().as_secs(), 5, "the cluster never says so");
    let asked = withdraw([10, 0, 0, 7]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!asked.is_finished());
    plane.write(found(", state: draining")).await;
    let took = asked.await.unwrap();
    assert!((2..4).contains(&took.as_secs()), "{took:?}");
}

/// Such an instance had a lease, though none of the sort was there: it was kept for as long as its sidecar renewed it, and
/// counted among those that are.
#[tokio::test(start_paused = true)]
async fn a_sidecar_whose_instance_the_cluster_finds_is_answered_and_has_no_lease() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.write(service("cart", "ports: [{port: 80}], discovery: kubernetes")).await;
    plane.register(0..20).await;
    plane.register(0..20).await;
    assert_eq!((plane.listed(), plane.registrations.deadlines().len()), (0, 0));
    assert!(plane.registrations.metrics().contains("outrigger_control_leases 0\n"));
    plane.passes(LEASE * 2, 0..5).await;
    assert_eq!(plane.registrations.held_back(), None);
    // What nothing is held of is withdrawn as anything else.
    let id: SpiffeId = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
    let Endpoint { service, uid, .. } = endpoint(0);
    let withdrawal = Withdrawal { service, uid, wait: Duration::from_secs(60) };
    let author = Author::workload(&id, "10.0.0.7:9");
    let reply = plane.registrations.withdraw_as(&author, [10, 0, 0, 7].into(), withdrawal).await.unwrap();
    assert_eq!((reply.subscribers, reply.acknowledged), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_operator_says_that_they_are_gone() {
    let (_folder, plane) = with_instances(20).await;
    assert!(!plane.registrations.confirm(), "nothing is held back");
    plane.passes(LEASE * 2, 0..0).await;
    assert_eq!(plane.listed(), 20);
    assert!(plane.registrations.confirm());
    plane.passes(LEASE / 3, 0..0).await;
    assert_eq!(plane.listed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_mesh_loses_what_it_loses() {
    let (_folder, plane) = with_instances(9).await;
    plane.passes(LEASE + LEASE / 3, 0..0).await;
    assert_eq!(plane.listed(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_takes_away_himself_is_never_held_back() {
    let (_folder, plane) = with_instances(20).await;
    let author = Author::system("a test");
    for number in 0..18 {
        let Endpoint { service, uid, .. } = endpoint(number);
        plane.state.remove_instance(&service, &uid, &author).await.unwrap();
    }
    plane.write(instance("by-hand", "service: cart, address: 127.0.0.2")).await;
    assert_eq!(plane.listed(), 3);
    let key = service("cart", "").key();
    let gone = Write::Delete { key, expect: Expect::Anything };
    plane.state.apply(vec![gone], &author, false).await.unwrap();
    assert_eq!(plane.listed(), 0);
    plane.passes(LEASE * 2, 0..0).await;
    assert_eq!(plane.registrations.held_back(), None, "their leases ended, too");
}

#[tokio::test(start_paused = true)]
async fn after_a_start_every_lease_begins_anew() {
    let (folder, plane) = with_instances(5).await;
    plane.passes(LEASE * 14 / 15, 0..0).await;
    plane.state.store().close().await;
    drop(plane);
    let plane = Plane::open(folder.path()).await;
    plane.passes(LEASE * 2 / 3, 0..0).await;
    assert_eq!(plane.listed(), 5);
    plane.passes(LEASE, 0..0).await;
    assert_eq!(plane.listed(), 0);
}
