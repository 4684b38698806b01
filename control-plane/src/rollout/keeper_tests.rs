//! The keeper over a real store, with sidecars and their reports played, in time that passes at once.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_certs::RootHash;
use outrigger_mesh::{
    Histogram, Report, ServiceName, Side, TrafficKey, TrafficStats, TrustDomain, Version, bucket_of,
};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::audit::Author;
use crate::spec::{Document, Key, Object};
use crate::state::{State, Write};
use crate::store::{EmbeddedStore, Expect, Space};
use crate::testing::{Nobody, instance, name, rollout, service};

/// Two sidecars that obey at once, or one that does not.
#[derive(Default)]
struct Fleet {
    asked: Mutex<BTreeSet<ServiceName>>,
    deaf: Mutex<bool>,
}

impl Sidecars for Fleet {
    fn ask_for(&self, services: BTreeSet<ServiceName>) {
        *self.asked.lock().unwrap() = services;
    }

    fn acknowledged(&self, _: &ServiceName) -> Acknowledgements {
        let missing = if *self.deaf.lock().unwrap() {
            vec![("web-1".into(), "has not answered".into())]
        } else {
            vec![]
        };
        Acknowledgements { settled: true, holders: 2, missing }
    }
}

/// A control plane with a shop in it.
struct Plane {
    state: Arc<State>,
    fleet: Arc<Fleet>,
    counted: Arc<Counted>,
    rollouts: Rollouts,
    stop: CancellationToken,
    driver: JoinHandle<()>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

const SPEC: &str = "strategy: canary, gates: {successRate: {min: 99}, minRequests: 100, window: 10s}, \
                    steps: [{weight: 10, hold: 10s}, {weight: 50, hold: 10s}, {weight: 100, hold: 10s}]";

impl Plane {
    async fn open(folder: &Path) -> Self {
        Self::open_at(folder, OffsetDateTime::now_utc()).await
    }

    async fn open_at(folder: &Path, now: OffsetDateTime) -> Self {
        let store = Arc::new(EmbeddedStore::open(folder).await.unwrap());
        let domain = TrustDomain::new("mesh.local").unwrap();
        let state = State::open(store, domain, RootHash::of(b"root"), Arc::new(Nobody)).await.unwrap();
        let (fleet, counted) = (Arc::new(Fleet::default()), Arc::new(Counted::default()));
        let (rollouts, keeper) = keeper::open_at(state.clone(), fleet.clone(), counted.clone(), now);
        let stop = CancellationToken::new();
        let driver = tokio::spawn(keeper.run(stop.clone().cancelled_owned()));
        Self { state, fleet, counted, rollouts, stop, driver }
    }

    /// Ends in order.
    async fn end(mut self) {
        self.stop.cancel();
        (&mut self.driver).await.unwrap();
        self.state.store().close().await;
    }

    async fn close(self) {
        self.driver.abort();
        self.state.store().close().await;
    }

    async fn shop(&self) {
        let v1 = instance("cart-1", "service: cart, version: v1, address: 10.0.0.1");
        let v2 = instance("cart-2", "service: cart, version: v2, address: 10.0.0.2");
        self.put(vec![service("cart", "ports: [{port: 80}]"), v1, v2, rollout("cart", "cart", SPEC)]).await;
    }

    async fn put(&self, objects: Vec<Object>) {
        let put = |object| Write::Put { document: Document::made(object), expect: Expect::Anything };
        self.state.apply(objects.into_iter().map(put).collect(), &author(), false).await.unwrap();
    }

    async fn delete(&self, path: &str) {
        let write = Write::Delete { key: Key::from_path(path).unwrap(), expect: Expect::Anything };
        self.state.apply(vec![write], &author(), false).await.unwrap();
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        self.state.world().rollouts.progress(&name("shop/cart")).cloned()
    }

    /// Sidecars report so many requests to each version, every half second, until the rollout is where it is wanted.
    async fn serves_until(&self, failed: u64, word: &str) -> Arc<Progress> {
        for _ in 0..400 {
            if let Some(progress) = self.progress().filter(|p| p.word() == word) {
                return progress;
            }
            for (version, failed) in [("v1", 0), ("v2", failed)] {
                self.counted.take(&report(version, 20, failed), |_, _| true);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("it did not come to {word}: {:#?}", self.progress());
    }

    async fn audit(&self) -> Vec<(String, String)> {
        let mut lines = self.state.store().audit(None, 100).await.unwrap();
        lines.reverse();
        let of_rollouts = lines.into_iter().filter(|l| l.entry.action.starts_with("rollout-"));
        of_rollouts.map(|l| (l.entry.action, l.entry.why.unwrap_or_default())).collect()
    }
}

fn author() -> Author {
    Author::new("tester", "127.0.0.1:1")
}

fn report(version: &str, requests: u64, failed: u64) -> Report {
    let version = Version::new(version).ok();
    let key = TrafficKey { side: Side::Client, service: name("shop/cart"), version, caller: None };
    let mut latency = Histogram::default();
    latency.add(bucket_of(Duration::from_millis(3)), requests);
    Report {
        traffic: vec![(key, TrafficStats { requests, success: requests - failed, latency, unanswered: 0 })],
        ..Report::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_candidate_gets_everything_and_every_step_is_in_the_audit_log_with_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    let done = plane.serves_until(0, "Done").await;
    assert_eq!(done.share, WHOLE);
    let audit = plane.audit().await;
    let actions: Vec<_> = audit.iter().map(|(action, _)| action.as_str()).collect();
    let step = ["rollout-step", "rollout-hold"];
    let expected =
        [&["rollout-create", "rollout-start"], &step[..], &step, &step, &["rollout-done"]].concat();
    assert_eq!(actions, expected, "{audit:#?}");
    assert!(audit[4].1.contains("10 % was held for 10s: candidate 100.00 % of"), "{audit:#?}");
    assert!(plane.fleet.asked.lock().unwrap().contains(&name("shop/cart")));
    let metrics = plane.rollouts.metrics();
    let labels = "namespace=\"shop\",rollout=\"cart\",service=\"shop/cart\"";
    for line in [
        format!("outrigger_control_rollout_phase{{{labels},phase=\"Done\"}} 1"),
        format!("outrigger_control_rollout_weight{{{labels}}} 100"),
    ] {
        assert!(metrics.lines().any(|there| there == line), "{line}\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_candidate_goes_back_by_itself_as_soon_as_enough_is_known_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    let holding = plane.serves_until(0, "Holding").await;
    let back = plane.serves_until(10, "RolledBack").await;
    assert_eq!((back.share, back.step), (0, holding.step));
    assert!((back.since - holding.since).as_seconds_f64() < 5.0, "{back:#?}");
    let audit = plane.audit().await;
    let [.., (action, why), (last, _)] = &audit[..] else { panic!("{audit:?}") };
    assert_eq!((action.as_str(), last.as_str()), ("rollout-rollback", "rollout-rolled-back"));
    assert!(why.contains("at 10 %: success is") && why.contains("wanted at least 99 %"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_nobody_can_connect_to_goes_back_though_every_request_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    while plane.progress().is_none_or(|p| p.word() != "Holding") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let began = tokio::time::Instant::now();
    while plane.progress().is_none_or(|p| p.word() != "RolledBack") {
        assert!(began.elapsed() < Duration::from_secs(5), "{:#?}", plane.progress());
        plane.counted.take(&report("v1", 20, 0), |_, _| true);
        let mut lost = report("v2", 0, 0);
        lost.traffic[0].1.unanswered = 1;
        plane.counted.take(&lost, |_, _| true);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let why = plane.progress().unwrap().why.clone();
    assert!(why.contains("success is 0.00 %, wanted at least 99 %"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_goes_on_from_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    while plane.progress().is_none_or(|p| (p.step, p.word()) != (Some(1), "Holding")) {
        plane.serves_until(0, "Holding").await;
        plane.counted.take(&report("v2", 100, 0), |_, _| true);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let before = plane.progress().unwrap();
    plane.close().await;
    let plane = Plane::open(folder.path()).await;
    assert_eq!(plane.progress().unwrap(), before);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(plane.progress().unwrap().share, 5_000);
    assert_eq!(plane.serves_until(0, "Done").await.share, WHOLE);
    let steps = plane.audit().await.iter().filter(|(action, _)| action == "rollout-step").count();
    assert_eq!(steps, 3, "no step was made twice");
}

/// What of the store's space of rollouts is figures, and how often anything of it was written.
async fn kept_figures(plane: &Plane) -> (usize, u64) {
    let all = plane.state.store().list(Space::Rollouts, "figures:").await.unwrap();
    (all.records.len(), all.position)
}

#[tokio::test(start_paused = true)]
async fn what_failed_before_a_restart_counts_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    while plane.progress().is_none_or(|p| p.word() != "Holding") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What comes together with the step is not of it; one of a hundred may fail.
    tokio::time::sleep(Duration::from_secs(1)).await;
    plane.counted.take(&report("v2", 20, 1), |_, _| true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(plane.progress().unwrap().word(), "Holding");
    let back = plane.rollouts.now() + Duration::from_secs(1);
    plane.close().await;
    let plane = Plane::open_at(folder.path(), back).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(plane.progress().unwrap().word(), "Holding");
    plane.counted.take(&report("v2", 20, 1), |_, _| true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = plane.progress().unwrap();
    assert_eq!(after.word(), "RolledBack");
    assert!(after.why.contains("candidate 95.00 % of 40 requests succeeded"), "{}", after.why);
    // What has ended needs no figures any more.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kept_figures(&plane).await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_keeps_what_was_counted_a_moment_before() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    while plane.progress().is_none_or(|p| p.word() != "Holding") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    plane.counted.take(&report("v2", 20, 1), |_, _| true);
    let back = plane.rollouts.now() + Duration::from_secs(1);
    plane.end().await;
    let plane = Plane::open_at(folder.path(), back).await;
    // It is counted from the very beginning.
    plane.counted.take(&report("v2", 20, 1), |_, _| true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = plane.progress().unwrap();
    assert_eq!(after.word(), "RolledBack");
    assert!(after.why.contains("candidate 95.00 % of 40 requests succeeded"), "{}", after.why);
}

#[tokio::test(start_paused = true)]
async fn figures_are_written_at_a_pace_of_their_own_and_only_where_there_is_something_new() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    plane.serves_until(0, "Holding").await;
    *plane.fleet.deaf.lock().unwrap() = true;
    plane.counted.take(&report("v2", 1, 0), |_, _| true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (there, before) = kept_figures(&plane).await;
    assert_eq!(there, 1);
    let audit = plane.audit().await.len();
    for _ in 0..200 {
        plane.counted.take(&report("v2", 1, 0), |_, _| true);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, after) = kept_figures(&plane).await;
    assert!((3..=5).contains(&(after - before)), "{} writes in 20 seconds", after - before);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let settled = kept_figures(&plane).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(kept_figures(&plane).await, settled);
    assert_eq!(plane.audit().await.len(), audit, "nothing was decided");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_one_sidecar_does_not_acknowledge_is_paused_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    plane.serves_until(0, "Holding").await;
    *plane.fleet.deaf.lock().unwrap() = true;
    // What is held already is held; without it nothing begins.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(plane.progress().unwrap().share, 1_000);
    let key = Key::from_path("rollouts/shop/cart").unwrap();
    let refused = plane.rollouts.order(key.clone(), Verb::Promote { full: false }, None, author()).await;
    assert!(matches!(refused, Err(NotDone::Refused(why)) if why.contains("web-1")));
    plane.rollouts.order(key, Verb::Abort, None, author()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(plane.progress().unwrap().word(), "RollingBack", "until everybody knows");
    *plane.fleet.deaf.lock().unwrap() = false;
    plane.serves_until(0, "Aborted").await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_taken_away_unfinished_leaves_its_candidate_nothing_until_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    plane.serves_until(0, "Holding").await;
    plane.delete("rollouts/shop/cart").await;
    let left = plane.progress().unwrap();
    assert_eq!((left.word(), left.share), ("Aborted", 0));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(plane.progress().is_some());
    assert!(
        plane
            .audit()
            .await
            .iter()
            .any(|(action, why)| action == "rollout-aborted" && why.contains("taken away"))
    );
    // What comes back with the configuration begins anew, at nothing.
    plane.put(vec![rollout("cart", "cart", SPEC)]).await;
    assert_eq!(plane.serves_until(0, "Holding").await.share, 1_000);
    assert!(plane.progress().unwrap().past.iter().any(|p| p.phase == "Pending"));
    plane.delete("rollouts/shop/cart").await;
    plane.delete("instances/shop/cart-2").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(plane.progress(), None);
    plane.close().await;
    let plane = Plane::open(folder.path()).await;
    assert_eq!(plane.progress(), None, "and it does not come back");
}

#[tokio::test(start_paused = true)]
async fn a_new_one_from_the_old_candidate_takes_over_where_the_old_one_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let plane = Plane::open(folder.path()).await;
    plane.shop().await;
    plane.serves_until(0, "Done").await;
    let mut next = rollout("cart", "cart", SPEC);
    if let crate::spec::Spec::Rollout(spec) = &mut next.spec {
        (spec.stable, spec.candidate) = ("v2".into(), "v3".into());
    }
    plane.put(vec![next]).await;
    let waiting = plane.serves_until(0, "Waiting").await;
    assert_eq!((waiting.share, waiting.of.stable.as_str()), (0, "v2"));
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(plane.progress().unwrap().word(), "Paused", "v3 never came");
}
