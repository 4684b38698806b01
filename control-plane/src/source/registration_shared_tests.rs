//! Leases on a store that other control planes share, or could.

use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_certs::RootHash;
use outrigger_mesh::TrustDomain;

use super::*;
use crate::spec::Document;
use crate::state::Write;
use crate::store::{
    AuditLine, CommitError, Committed, EmbeddedStore, Expect, Image, Listed, Record, Replicas, Revision,
    Space, Store, Transaction, Watch,
};
use crate::testing::{Nobody, service};

/// A store whose replicas are as the test says.
struct Shared {
    kept: EmbeddedStore,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    cut_off: AtomicBool,
    elsewhere: AtomicBool,
    mine: Mutex<HashSet<String>>,
}

impl Replicas for Told {
    fn leads(&self) -> bool {
        !self.cut_off()
    }
    fn count(&self) -> usize {
        2
    }
    fn lost(&self) -> Option<String> {
        None
    }
    fn cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }
    fn tell(&self, _: String) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
    fn others(&self) -> Vec<String> {
        vec![]
    }
    fn hold(&self, names: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.mine.lock().unwrap().extend(names);
        Box::pin(async { Ok(()) })
    }
    fn let_go<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.mine.lock().unwrap().remove(name);
        Box::pin(async { Ok(()) })
    }
    fn holder(&self, name: &str) -> Holder {
        match self.mine.lock().unwrap().contains(name) {
            _ if self.elsewhere.load(Ordering::Relaxed) => Holder::Another,
            true => Holder::This,
            false => Holder::Nobody,
        }
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl Store for Shared {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Answer<'a, Option<Record>> {
        self.kept.get(space, key)
    }
    fn list<'a>(&'a self, space: Space, prefix: &'a str) -> Answer<'a, Listed> {
        self.kept.list(space, prefix)
    }
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        self.kept.commit(transaction)
    }
    fn replicas(&self) -> Option<Arc<dyn Replicas>> {
        Some(self.told.clone())
    }
    fn watch(&self, space: Space, after: u64) -> Watch {
        self.kept.watch(space, after)
    }
    fn revisions(&self, before: Option<u64>, limit: usize) -> Answer<'_, Vec<Revision>> {
        self.kept.revisions(before, limit)
    }
    fn revision(&self, number: u64) -> Answer<'_, Option<Revision>> {
        self.kept.revision(number)
    }
    fn audit(&self, before: Option<u64>, limit: usize) -> Answer<'_, Vec<AuditLine>> {
        self.kept.audit(before, limit)
    }
    fn image(&self) -> Answer<'_, Image> {
        self.kept.image()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.kept.close()
    }
}

const LEASE: Duration = Duration::from_secs(3);

/// Two instances of `shop/cart`, with leases from now on.
async fn two_instances() -> (Arc<Told>, Arc<State>, Registrations, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (kept, told) = (EmbeddedStore::open(folder.path()).await.unwrap(), Arc::new(Told::default()));
    let store = Arc::new(Shared { kept, told: told.clone() });
    let domain = TrustDomain::new("mesh.local").unwrap();
    let state = State::open(store, domain, RootHash::of(b"root"), Arc::new(Nobody)).await.unwrap();
    let document = Document::made(service("cart", "ports: [{port: 80, protocol: http}]"));
    let write = Write::Put { document, expect: Expect::Anything };
    state.apply(vec![write], &Author::new("test", ""), false).await.unwrap();
    let registrations = Registrations::new(state.clone(), Arc::new(Nobody), LEASE);
    for uid in ["a", "b"] {
        renew(&state, &registrations, uid).await;
    }
    (told, state, registrations, folder)
}

async fn renew(state: &State, registrations: &Registrations, uid: &str) {
    let at = SocketAddr::from(([127, 0, 0, 1], 15_006));
    let endpoint = outrigger_testkit::resources::endpoint("shop/cart", uid, at);
    let key = (endpoint.service.clone(), endpoint.uid.clone());
    let id = "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap();
    let author = Author::workload(&id, SocketAddr::from(([127, 0, 0, 1], 1)));
    state.register_instance(endpoint, &author).await.unwrap();
    registrations.hold(&key).await.unwrap();
    registrations.deadlines().insert(key, Instant::now() + LEASE);
}

fn left(state: &State) -> usize {
    state.world().all_instances().count()
}

/// Lets it run for so long.
async fn runs(registrations: &Registrations, time: Duration) {
    let _ = tokio::time::timeout(time, registrations.expire()).await;
}

#[tokio::test(start_paused = true)]
async fn while_it_is_cut_off_no_lease_runs_and_afterwards_everybody_has_a_whole_one() {
    let (told, state, registrations, _folder) = two_instances().await;
    told.cut_off.store(true, Ordering::Relaxed);
    runs(&registrations, 10 * LEASE).await;
    assert_eq!(left(&state), 2, "nobody is taken away");
    told.cut_off.store(false, Ordering::Relaxed);
    runs(&registrations, BACK_WITHIN + LEASE / 2).await;
    assert_eq!(left(&state), 2, "who was sent elsewhere, or waits, has time");
    renew(&state, &registrations, "a").await;
    runs(&registrations, LEASE * 9 / 10).await;
    assert_eq!(left(&state), 1, "leases run again");
    runs(&registrations, LEASE).await;
    assert_eq!(left(&state), 0);
}

/// The names of pods piled up in what a replica tells the others that it holds.
#[tokio::test(start_paused = true)]
async fn what_the_cluster_finds_is_held_by_no_replica_and_withdrawn_all_the_same() {
    let (told, state, registrations, _folder) = two_instances().await;
    let document = Document::made(service("web", "ports: [{port: 80}], discovery: kubernetes"));
    let write = Write::Put { document, expect: Expect::Anything };
    state.apply(vec![write], &Author::new("test", ""), false).await.unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], 15_006));
    let id = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
    let author = Author::workload(&id, SocketAddr::from(([127, 0, 0, 1], 1)));
    let endpoint = outrigger_testkit::resources::endpoint("shop/web", "c", at);
    let (service, uid) = (endpoint.service.clone(), endpoint.uid.clone());
    registrations.register_as(&author, Registration { endpoint }).await.unwrap();
    let held = || told.mine.lock().unwrap().len();
    assert_eq!((held(), registrations.deadlines().len()), (2, 2), "those of cart");
    let withdrawal = Withdrawal { service, uid, wait: Duration::from_secs(60) };
    registrations.withdraw_as(&author, at.ip(), withdrawal).await.unwrap();
    assert_eq!((held(), registrations.deadlines().len(), left(&state)), (2, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_went_elsewhere_while_it_was_cut_off_it_leaves_alone() {
    let (told, state, registrations, _folder) = two_instances().await;
    told.cut_off.store(true, Ordering::Relaxed);
    runs(&registrations, 2 * LEASE).await;
    told.elsewhere.store(true, Ordering::Relaxed);
    told.cut_off.store(false, Ordering::Relaxed);
    runs(&registrations, 10 * LEASE).await;
    assert_eq!(left(&state), 2);
}
