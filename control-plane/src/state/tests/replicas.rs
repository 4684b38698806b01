//! Several states on one store, as the replicas of a control plane have them.

use std::time::Duration;

use outrigger_testkit::{Etcd, eventually};

use super::*;
use crate::store::etcd::{EtcdAddress, EtcdSecrets, EtcdStore};
use crate::store::{Holder, Replicas};

async fn on(etcd: &Etcd) -> Plane {
    let address: EtcdAddress = etcd.url("mesh").parse().unwrap();
    let store = Arc::new(EtcdStore::open(&address, &EtcdSecrets::default()).await.unwrap());
    let seen = Arc::new(Seen::default());
    let domain = TrustDomain::new("mesh.local").unwrap();
    let state = State::open(store, domain, RootHash::of(b"root"), seen.clone()).await.unwrap();
    Plane { state, seen, _folder: None }
}

impl Plane {
    fn replicas(&self) -> Arc<dyn Replicas> {
        self.state.store().replicas().unwrap()
    }

    /// Waits until it is where the other is, and has published the same.
    async fn is_as(&self, other: &Self) {
        let at = |plane: &Self| {
            let world = plane.state.world();
            (world.revision(), world.generation(), plane.seen.live.lock().unwrap().clone())
        };
        eventually("both are at the same", || async { at(self) == at(other) }).await;
    }
}

#[tokio::test]
async fn what_one_replica_writes_the_others_push() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (here, there) = (on(&etcd).await, on(&etcd).await);
    here.apply(vec![put(service("cart", "")), put(service("web", ""))]).await.unwrap();
    there.is_as(&here).await;
    there.apply(vec![put(route("r", "cart", "backendRefs: [{name: web}]"))]).await.unwrap();
    here.is_as(&there).await;
    // Instances, of which many come and go.
    let register = |plane: &Plane, uid: &str| {
        let (state, endpoint) = (plane.state.clone(), endpoint(uid, "shop/cart"));
        async move { state.register_instance(endpoint, &workload("cart")).await.unwrap() }
    };
    for i in 0..10 {
        register(if i % 2 == 0 { &here } else { &there }, &format!("i{i}")).await;
    }
    there.is_as(&here).await;
    assert_eq!(there.seen.endpoints(), 10);
    here.state.remove_instance(&name("shop/cart"), &"i0".parse().unwrap(), &workload("cart")).await.unwrap();
    there.is_as(&here).await;
    assert_eq!(there.seen.endpoints(), 9);
    // A third that comes later has all of it.
    on(&etcd).await.is_as(&here).await;
}

#[tokio::test]
async fn what_was_checked_against_another_configuration_is_checked_again() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (here, there) = (on(&etcd).await, on(&etcd).await);
    here.apply(vec![put(service("cart", ""))]).await.unwrap();
    there.is_as(&here).await;
    for round in 0..5 {
        let of_route = put(route("r", "cart", "backendRefs: [{name: cart}]"));
        let author = me();
        // Either there is no service any more, or it is still referred to: never both.
        let (routed, deleted) = tokio::join!(
            here.state.apply(vec![of_route], &author, false),
            there.state.apply(vec![delete(&service("cart", ""))], &author, false)
        );
        assert!(routed.is_ok() != deleted.is_ok(), "{round}: {routed:?} {deleted:?}");
        let (first, second) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        first.is_as(second).await;
        let both = vec![put(service("cart", "")), put(route("r", "cart", "backendRefs: [{name: cart}]"))];
        first.apply(both).await.unwrap();
        first.apply(vec![delete(&route("r", "cart", "backendRefs: [{name: cart}]"))]).await.unwrap();
        second.is_as(first).await;
    }
}

#[tokio::test]
async fn replicas_that_write_at_the_same_time_all_get_through() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let planes = [on(&etcd).await, on(&etcd).await, on(&etcd).await];
    let writing = planes.iter().enumerate().map(|(at, plane)| async move {
        for i in 0..10 {
            let object = service(&format!("s{at}-{i}"), "");
            plane.state.apply(vec![put(object)], &me(), false).await.unwrap();
        }
    });
    futures_util::future::join_all(writing).await;
    for plane in &planes {
        eventually("it has all", || async { plane.state.world().services().count() == 30 }).await;
        plane.is_as(&planes[0]).await;
    }
    assert_eq!(planes[0].state.world().revision(), 30);
}

#[tokio::test]
async fn one_leads_and_when_it_ends_another_does_and_what_it_held_is_nobodys() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (first, second) = (on(&etcd).await, on(&etcd).await);
    eventually("one leads", || async { first.state.leads() || second.state.leads() }).await;
    assert!(first.state.leads() != second.state.leads());
    let (leader, other) = if first.state.leads() { (first, second) } else { (second, first) };
    leader.replicas().hold(vec!["shop/one".into(), "shop/two".into()]).await.unwrap();
    assert_eq!(leader.replicas().holder("shop/one"), Holder::This);
    eventually("the other knows", || async { other.replicas().holder("shop/one") == Holder::Another }).await;
    // One is taken over.
    other.replicas().hold(vec!["shop/two".into()]).await.unwrap();
    eventually("it is the other's", || async { leader.replicas().holder("shop/two") == Holder::Another })
        .await;

    leader.state.store().close().await;
    eventually("the other leads", || async { other.state.leads() }).await;
    assert_eq!(other.replicas().holder("shop/one"), Holder::Nobody);
    assert_eq!(other.replicas().holder("shop/two"), Holder::This);
}

#[tokio::test]
async fn while_the_store_is_away_everything_is_read_and_nothing_written_and_then_it_goes_on() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let (here, there) = (on(&etcd).await, on(&etcd).await);
    here.apply(vec![put(service("cart", ""))]).await.unwrap();
    here.state.register_instance(endpoint("i", "shop/cart"), &workload("cart")).await.unwrap();
    there.is_as(&here).await;
    etcd.kill(0);
    match here.state.apply(vec![put(service("web", ""))], &me(), false).await.unwrap_err() {
        ApplyError::Store(e) => assert_eq!(e.kind(), StoreErrorKind::Unavailable),
        other => panic!("{other:?}"),
    }
    // A renewal that says nothing new needs no store.
    here.state.register_instance(endpoint("i", "shop/cart"), &workload("cart")).await.unwrap();
    assert_eq!(there.state.world().services().count(), 1);
    eventually("it says so", || async { here.replicas().lost().is_some() }).await;
    etcd.run(0);
    assert!(etcd.answers(Duration::from_secs(20)).await);
    eventually("it answers again", || async { here.replicas().lost().is_none() }).await;
    here.state.apply(vec![put(service("web", ""))], &me(), false).await.unwrap();
    there.is_as(&here).await;
    assert_eq!(there.state.world().services().count(), 2);
}
