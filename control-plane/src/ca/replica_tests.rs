//! One authority for several control planes on one etcd.

use std::sync::Arc;

use outrigger_certs::{LeafLifetime, RootHash, WorkloadKey};
use outrigger_mesh::{SpiffeId, Trust, TrustDomain};
use outrigger_testkit::{Etcd, eventually};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::keeper::{Fleet, Holding, Keeper, NotIssued, Wanted};
use super::ledger::Attested;
use super::turn::{Place, Turner, Turning, Wish, open};
use crate::audit::Author;
use crate::compile::ResourceChange;
use crate::state::{Publish, State};
use crate::store::etcd::{EtcdAddress, EtcdSecrets, EtcdStore};
use crate::store::{Store, StoreErrorKind};

/// No sidecar is connected.
struct Nobody(watch::Sender<u64>);

impl Fleet for Nobody {
    fn publish_trust(&self, _: Trust) {}

    fn holdings(&self) -> Vec<Holding> {
        vec![]
    }

    fn reconnect(&self, _: &str) {}

    fn is_revoked(&self, _: &SpiffeId) -> bool {
        false
    }

    fn progress(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Publish for Nobody {
    fn publish(&self, _: u64, _: Vec<ResourceChange>) {}
}

struct Plane {
    keeper: Arc<Keeper>,
    turning: Turning,
    state: Arc<State>,
    turner: Option<Turner>,
    running: Option<AbortOnDropHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Plane {
    async fn on(etcd: &Etcd) -> Self {
        let address: EtcdAddress = etcd.url("mesh").parse().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(EtcdStore::open(&address, &EtcdSecrets::default()).await.unwrap());
        let (folder, domain) = (tempfile::tempdir().unwrap(), TrustDomain::new("mesh.local").unwrap());
        let nobody = Arc::new(Nobody(watch::Sender::new(0)));
        let place = Place { folder: folder.path(), given: None };
        let (keeper, turning, turner) =
            open(store.clone(), nobody.clone(), place, &domain, LeafLifetime::default()).await.unwrap();
        let state = State::open(store, domain, keeper.root(), nobody).await.unwrap();
        Self { keeper, turning, state, turner: Some(turner), running: None, _folder: folder }
    }

    /// Lets it take note of what happens, from here on.
    fn run(&mut self) {
        let running = tokio::spawn(self.turner.take().unwrap().run(self.state.clone()));
        self.running = Some(AbortOnDropHandle::new(running));
    }

    async fn wish(&self, wish: Wish) {
        self.turning.ask(wish, Author::new("tester", "127.0.0.1:1")).await.unwrap();
    }

    fn intermediate(&self) -> String {
        self.keeper.signing().authority.intermediate_sha256()
    }

    async fn issue(&self) -> Result<RootHash, NotIssued> {
        let id: SpiffeId = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
        let (by, lifetime) = (Attested::JoinToken, LeafLifetime::default());
        let wanted = Wanted { id: &id, by, before: None, from: String::new(), lifetime, audit: None };
        let csr = WorkloadKey::generate().unwrap().csr().unwrap();
        self.keeper.issue(&csr, wanted).await.map(|_| self.keeper.root())
    }
}

#[tokio::test]
async fn replicas_that_start_at_the_same_time_have_one_authority_and_one_account() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (mut here, mut there) = tokio::join!(Plane::on(&etcd), Plane::on(&etcd));
    assert_eq!(here.keeper.root(), there.keeper.root());
    assert_eq!(here.intermediate(), there.intermediate());
    here.run();
    there.run();
    here.issue().await.unwrap();
    there.issue().await.unwrap();
    for plane in [&here, &there] {
        eventually("it counts both", || async { plane.keeper.certificates() == 2 }).await;
    }
}

#[tokio::test]
async fn a_replica_that_does_not_know_of_a_change_yet_hands_out_nothing() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (mut here, mut behind) = (Plane::on(&etcd).await, Plane::on(&etcd).await);
    here.run();
    here.wish(Wish::NewIntermediate).await;
    match behind.issue().await {
        Err(NotIssued::Store(e)) => assert_eq!(e.kind(), StoreErrorKind::Behind),
        other => panic!("{:?}", other.map(|_| ())),
    }
    behind.run();
    eventually("it takes it over", || async { behind.intermediate() == here.intermediate() }).await;
    behind.issue().await.unwrap();
}

#[tokio::test]
async fn a_change_of_the_root_is_carried_out_by_one_and_in_force_at_all() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let mut planes = [Plane::on(&etcd).await, Plane::on(&etcd).await];
    planes.iter_mut().for_each(Plane::run);
    let old = planes[0].keeper.root();
    eventually("one leads", || async { planes.iter().any(|plane| plane.state.leads()) }).await;
    // Asked of the one that does not lead.
    let other = planes.iter().find(|plane| !plane.state.leads()).unwrap();
    other.wish(Wish::Rotate(None)).await;
    for plane in &planes {
        eventually("it has ended", || async {
            let inner = plane.keeper.inner();
            inner.rotation.is_none() && inner.last.is_some()
        })
        .await;
        assert_ne!(plane.keeper.root(), old);
        assert_eq!(plane.keeper.root(), planes[0].keeper.root());
        eventually("tokens carry it", || async { plane.state.root() == planes[0].keeper.root() }).await;
    }
}
