//! Who leads, and who lives.

use std::time::Duration;

use outrigger_kube::follow::{Subject, Told, follow};
use outrigger_kube::lease::{Contest, LEASES, Living, REPLICA, TERM, hide, show};
use outrigger_testkit::Owned;
use outrigger_testkit::kubernetes::Fault;
use tokio::time::{Instant, advance};

use crate::Cluster;

fn leads(contest: &Contest) -> bool {
    contest.until().is_some_and(|until| Instant::now() < until)
}

/// The clock stands from here on, until the value is dropped: only `advance` moves it. A clock that is merely paused goes on by
/// itself where the runtime has nothing to do, as while the kernel still carries an answer; not while something blocks.
#[must_use]
fn stop_the_clock() -> std::sync::mpsc::Sender<()> {
    let (held, hold) = std::sync::mpsc::channel();
    let _ends_with_the_value = tokio::task::spawn_blocking(move || hold.recv());
    tokio::time::pause();
    held
}

#[tokio::test]
async fn of_several_one_leads_and_after_its_end_another() {
    let cluster = Cluster::start().await;
    let contest = |who: &str| Contest::new("default", "outrigger-leader", who);
    let (mut a, mut b) = (contest("a"), contest("b"));
    a.round(&cluster.api).await.unwrap();
    b.round(&cluster.api).await.unwrap();
    assert!(leads(&a) && !leads(&b));
    let _stands = stop_the_clock();
    // While it renews, nobody else leads, however long.
    for _ in 0..10 {
        advance(Duration::from_secs(4)).await;
        a.round(&cluster.api).await.unwrap();
        b.round(&cluster.api).await.unwrap();
        assert!(leads(&a) && !leads(&b));
    }
    // It renews no more: first it believes no longer that it leads, and only then another one does.
    let began = Instant::now();
    let mut nobody = false;
    while !leads(&b) {
        assert!(began.elapsed() < 3 * TERM, "nobody takes it");
        nobody |= !leads(&a);
        advance(Duration::from_secs(1)).await;
        b.round(&cluster.api).await.unwrap();
        assert!(!(leads(&a) && leads(&b)), "two lead");
    }
    assert!(nobody && began.elapsed() >= TERM);
    a.round(&cluster.api).await.unwrap();
    assert!(!leads(&a) && leads(&b));
    let lease = cluster.server.get("coordination.k8s.io/v1", "Lease", "default", "outrigger-leader").unwrap();
    let spec = &lease["spec"];
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&"b".into(), &1.into()));
}

#[tokio::test]
async fn of_many_that_try_together_one_leads() {
    let cluster = Cluster::start().await;
    let mut tries = tokio::task::JoinSet::new();
    for i in 0..8 {
        let api = cluster.api.clone();
        tries.spawn(async move {
            let mut contest = Contest::new("default", "outrigger-leader", &i.to_string());
            contest.round(&api).await.unwrap();
            leads(&contest)
        });
    }
    let lead = tries.join_all().await;
    assert_eq!(lead.iter().filter(|leads| **leads).count(), 1, "{lead:?}");
}

#[tokio::test]
async fn who_gives_it_back_is_not_waited_for() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (Contest::new("default", "l", "a"), Contest::new("default", "l", "b"));
    a.round(&cluster.api).await.unwrap();
    a.end(&cluster.api).await.unwrap();
    assert!(!leads(&a));
    b.round(&cluster.api).await.unwrap();
    assert!(leads(&b));
    a.end(&cluster.api).await.unwrap();
    b.round(&cluster.api).await.unwrap();
    assert!(leads(&b), "what is another's is not given back");
}

#[tokio::test]
async fn who_can_not_renew_stops_leading_by_its_own_clock() {
    let cluster = Cluster::start().await;
    let mut a = Contest::new("default", "l", "a");
    a.round(&cluster.api).await.unwrap();
    cluster.server.fail("*", "leases", Fault::Status(503), usize::MAX);
    let _stands = stop_the_clock();
    for _ in 0..5 {
        advance(Duration::from_secs(3)).await;
        assert!(a.round(&cluster.api).await.is_err());
    }
    assert!(!leads(&a));
}

#[tokio::test]
async fn replicas_see_each_other_and_what_they_say() {
    let cluster = Cluster::start().await;
    show(&cluster.api, "default", "a", "one").await.unwrap();
    show(&cluster.api, "default", "b", "two").await.unwrap();
    show(&cluster.api, "default", "a", "three").await.unwrap();
    let mut living = Living::default();
    let subject = Subject {
        of: LEASES,
        namespace: Some("default".into()),
        labels: Some(format!("{REPLICA}=true")),
        optional: false,
        older: None,
    };
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let _task = Owned::spawn(follow(cluster.api.clone(), subject, move |told| drop(tell.send(told))));
    let mut hear = async |until: &[(&str, &str)]| {
        while living.living().collect::<Vec<_>>() != until {
            match told.recv().await.unwrap() {
                Told::All(all, _) => living.all_are(&all),
                Told::Changed(lease) => living.note(&lease),
                Told::Gone(lease) => living.forget(&lease),
                Told::At(_) => {}
                Told::Lost(e) => panic!("{e}"),
            }
        }
    };
    hear(&[("a", "three"), ("b", "two")]).await;
    hide(&cluster.api, "default", "b").await.unwrap();
    hear(&[("a", "three")]).await;
}
