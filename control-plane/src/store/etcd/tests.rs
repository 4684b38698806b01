//! The rules of every store on a real etcd, and what only a shared store has to stand.

use std::path::PathBuf;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_testkit::{Client, Etcd, OutsideAuthority};
use outrigger_wire::etcd::{Keys, Op, Range, Txn};
use serde_json::json;

use super::super::conformance::{Tried, put, suite, transaction};
use super::super::{Compacted, Expect, KEPT_REVISIONS, Write};
use super::*;

impl Tried for EtcdStore {}

suite!(|_: PathBuf| async {
    let etcd = Etcd::start(1).await?;
    Some((open(&etcd, "mesh").await, etcd))
});

async fn open(etcd: &Etcd, prefix: &str) -> EtcdStore {
    let address: EtcdAddress = etcd.url(prefix).parse().unwrap();
    EtcdStore::open(&address, &EtcdSecrets::default()).await.unwrap()
}

async fn read(store: &EtcdStore, key: &str) -> Option<u64> {
    store.get(Space::Config, key).await.unwrap().map(|r| r.value.as_u64().unwrap())
}

fn one(key: &str, value: u64) -> Transaction {
    transaction(vec![put(Space::Config, key, value)])
}

#[tokio::test]
async fn what_one_replica_writes_the_others_read_and_watch() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (here, there) = (open(&etcd, "mesh").await, open(&etcd, "mesh").await);
    let mut watch = there.watch(Space::Config, 0);
    for i in 1..=20 {
        let writer = if i % 2 == 0 { &here } else { &there };
        writer.commit(one("a", i)).await.unwrap();
        assert_eq!(read(&here, "a").await, Some(i));
        assert_eq!(watch.next().await.unwrap().position, i);
    }
    assert_eq!(there.list(Space::Config, "").await.unwrap().position, 20);
    assert_eq!(here.revisions(None, 100).await.unwrap().len(), 20);
}

#[tokio::test]
async fn of_replicas_that_add_to_one_record_none_loses_what_another_added() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let first = open(&etcd, "mesh").await;
    first.commit(one("sum", 0)).await.unwrap();
    let add = |store: EtcdStore| async move {
        let mut added = 0;
        for _ in 0..25 {
            let record = store.get(Space::Config, "sum").await.unwrap().unwrap();
            let sum = record.value.as_u64().unwrap() + 1;
            let write = Write { expect: Expect::Version(record.changed), ..put(Space::Config, "sum", sum) };
            added += u64::from(store.commit(transaction(vec![write])).await.is_ok());
        }
        added
    };
    let stores = futures_util::future::join_all((0..4).map(|_| open(&etcd, "mesh"))).await;
    let added: u64 = futures_util::future::join_all(stores.into_iter().map(add)).await.iter().sum();
    assert!(added > 0);
    assert_eq!(read(&first, "sum").await, Some(added));
    let listed = first.list(Space::Config, "").await.unwrap();
    assert_eq!(listed.position, added + 1, "no count is given twice, none is left out");
    assert_eq!(first.audit(None, 1_000).await.unwrap().len() as u64, added + 1);
}

#[tokio::test]
async fn two_meshes_share_a_cluster_and_know_nothing_of_each_other() {
    let Some(etcd) = Etcd::start(1).await else { return };
    // One prefix is the beginning of the other.
    let (shop, shops) = (open(&etcd, "shop").await, open(&etcd, "shop-two").await);
    let mut watch = shops.watch(Space::Config, 0);
    shop.commit(one("a", 1)).await.unwrap();
    shop.commit(one("b", 1)).await.unwrap();
    assert_eq!(read(&shops, "a").await, None);
    shops.commit(one("a", 7)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().records.len(), 1);
    assert_eq!(read(&shop, "a").await, Some(1));
    assert_eq!(shops.list(Space::Config, "").await.unwrap().position, 1);
    assert_eq!(shops.audit(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_too_large_for_etcd_is_refused_whole_and_what_is_many_is_written_whole() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let store = open(&etcd, "mesh").await;
    let mut watch = store.watch(Space::Instances, 0);
    let many = |n| (0..n).map(|i| put(Space::Instances, &format!("i{i:04}"), 1)).collect::<Vec<_>>();
    store.commit(transaction(many(1_000))).await.unwrap();
    assert_eq!(watch.next().await.unwrap().records.len(), 1_000);
    assert_eq!(store.list(Space::Instances, "").await.unwrap().records.len(), 1_000);
    let lines: Vec<_> = store.audit(None, 5_000).await.unwrap().iter().map(|l| l.line).collect();
    assert_eq!(lines, (1..=1_000).rev().collect::<Vec<_>>());
    let some: Vec<_> = store.audit(Some(500), 40).await.unwrap().iter().map(|l| l.line).collect();
    assert_eq!(some, (460..500).rev().collect::<Vec<_>>());

    let large = Write { value: Some(json!("x".repeat(900_000))), ..put(Space::Config, "large", 0) };
    for refused in [vec![large], many(5_000)] {
        match store.commit(transaction(refused)).await.unwrap_err() {
            CommitError::Store(e) => assert_eq!(e.kind(), StoreErrorKind::TooLarge, "{e}"),
            other @ CommitError::Conflict { .. } => panic!("{other}"),
        }
    }
    assert_eq!(store.list(Space::Config, "").await.unwrap().position, 0);
    assert_eq!(store.list(Space::Instances, "").await.unwrap().position, 1);
}

#[tokio::test]
async fn a_list_of_many_pages_is_of_one_moment() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let store = open(&etcd, "mesh").await;
    for part in 0..3 {
        let writes = (0..1_000).map(|i| put(Space::Instances, &format!("{part}-{i}"), 0)).collect();
        store.commit(Transaction { audit: vec![], ..transaction(writes) }).await.unwrap();
    }
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for i in 1..=100 {
            let writes = vec![put(Space::Instances, "0-0", i), put(Space::Instances, "2-999", i)];
            writer.commit(transaction(writes)).await.unwrap();
        }
    });
    while !writing.is_finished() {
        let listed = store.list(Space::Instances, "").await.unwrap();
        assert_eq!(listed.records.len(), 3_000);
        let value = |key: &str| listed.records.iter().find(|(k, _)| k == key).unwrap().1.value.clone();
        assert_eq!(value("0-0"), value("2-999"));
        assert_eq!(value("0-0").as_u64().unwrap() + 3, listed.position);
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn history_is_bounded_here_too() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let store = open(&etcd, "mesh").await;
    for i in 0..KEPT_REVISIONS + 5 {
        store.commit(one("a", i)).await.unwrap();
    }
    assert_eq!(store.revisions(None, usize::MAX).await.unwrap().len() as u64, KEPT_REVISIONS);
    assert_eq!(store.revision(5).await.unwrap(), None);
    assert!(store.revision(6).await.unwrap().is_some());
}

#[tokio::test]
async fn a_watch_that_etcd_has_forgotten_begins_anew_and_says_so() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (writer, reader) = (open(&etcd, "mesh").await, open(&etcd, "mesh").await);
    writer.commit(one("a", 1)).await.unwrap();
    let mut watch = reader.watch(Space::Config, 0);
    watch.next().await.unwrap();
    let before = *reader.inner.seen.borrow();
    // As if it had been cut off all the while.
    reader.tasks[0].abort();
    for i in 2..=5 {
        writer.commit(one("a", i)).await.unwrap();
    }
    etcd.client(0).compact(*writer.inner.seen.borrow()).await.unwrap();
    let following = tokio::spawn(follow::follow(Arc::clone(&reader.inner), before));
    assert_eq!(watch.next().await, Err(Compacted { after: 1 }));
    let mut anew = reader.inner.changes_of(Space::Config).watch(5);
    writer.commit(one("a", 6)).await.unwrap();
    assert_eq!(anew.next().await.unwrap().position, 6);
    following.abort();
}

#[tokio::test]
async fn an_etcd_that_hangs_is_an_error_in_time_and_nothing_is_half() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let store = open(&etcd, "mesh").await;
    store.commit(one("a", 1)).await.unwrap();
    etcd.pause(0);
    let began = Instant::now();
    let error =
        match store.commit(transaction(vec![put(Space::Config, "a", 2), put(Space::Tokens, "t", 2)])).await {
            Err(CommitError::Store(e)) => e,
            other => panic!("{other:?}"),
        };
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.is_retryable() && error.to_string().contains("does not answer"), "{error}");
    assert_eq!(store.get(Space::Config, "a").await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    etcd.go_on(0);
    let (config, token) = (read(&store, "a").await.unwrap(), store.get(Space::Tokens, "t").await.unwrap());
    assert_eq!(config == 2, token.is_some());
    let mut watch = store.watch(Space::Config, 1);
    store.commit(one("a", 3)).await.unwrap();
    let position = if config == 2 { 3 } else { 2 };
    while watch.next().await.unwrap().position < position {}
}

#[tokio::test]
async fn an_etcd_that_was_killed_has_what_it_acknowledged_and_the_watch_goes_on() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let store = open(&etcd, "mesh").await;
    let mut watch = store.watch(Space::Config, 0);
    for i in 1..=5 {
        store.commit(one("a", i)).await.unwrap();
        etcd.kill(0);
        assert_eq!(store.get(Space::Config, "a").await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        etcd.run(0);
        assert!(etcd.answers(Duration::from_secs(20)).await);
        assert_eq!(read(&store, "a").await, Some(i));
        assert_eq!(watch.next().await.unwrap().position, i, "without a gap");
    }
}

#[tokio::test]
async fn with_one_of_three_members_killed_or_paused_writing_goes_on_and_none_is_made_twice() {
    let Some(mut etcd) = Etcd::start(3).await else { return };
    let store = open(&etcd, "mesh").await;
    store.commit(one("sum", 0)).await.unwrap();
    let (mut made, mut open) = (0, 0);
    // Each member is the one that is asked at some time, and one of them leads.
    for round in 0..6 {
        let member = round % 3;
        if round < 3 {
            etcd.kill(member);
        } else {
            etcd.pause(member);
        }
        for _ in 0..10 {
            // Without an expectation: what is made twice adds a revision.
            match store.commit(one("sum", made)).await {
                Ok(_) => made += 1,
                Err(CommitError::Store(e)) if e.kind() == StoreErrorKind::Unavailable => open += 1,
                Err(e) => panic!("{e}"),
            }
        }
        if round < 3 {
            etcd.run(member);
        } else {
            etcd.go_on(member);
        }
        assert!(etcd.answers(Duration::from_secs(20)).await);
    }
    let revision = store.list(Space::Config, "").await.unwrap().position - 1;
    assert!((made..=made + open).contains(&revision), "{revision} of {made} made, {open} not known");
    assert!(made >= 50, "{made} made, {open} not known");
}

#[tokio::test]
async fn keys_that_are_not_ours_are_an_error_and_stay() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let client = etcd.client(0);
    let put = |key: &str, value: &str| Txn {
        then: vec![Op::Put { key: key.into(), value: value.into(), lease: 0 }],
        ..Txn::default()
    };
    client.txn(put("/mesh/somebody", "else")).await.unwrap();
    let address: EtcdAddress = etcd.url("mesh").parse().unwrap();
    let error = EtcdStore::open(&address, &EtcdSecrets::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    client.txn(put("/other/live/head", r#"{"format":2,"counts":{},"audit":0,"by":""}"#)).await.unwrap();
    let address: EtcdAddress = etcd.url("other").parse().unwrap();
    let error = EtcdStore::open(&address, &EtcdSecrets::default()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NewerFormat, "{error}");
    let store = open(&etcd, "third").await;
    store.commit(one("a", 1)).await.unwrap();
    client.txn(put("/third/live/record/config/a", "{}")).await.unwrap();
    let error = store.get(Space::Config, "a").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("/third/live/record/config/a"), "{error}");
    let stray = Op::Put { key: b"/third/live/record/tokens/\xff".into(), value: b"{}".into(), lease: 0 };
    client.txn(Txn { then: vec![stray], ..Txn::default() }).await.unwrap();
    let error = store.list(Space::Tokens, "").await.unwrap_err().to_string();
    assert!(
        error.contains("the key /third/live/record/tokens/") && error.contains("outrigger restore"),
        "{error}"
    );
    assert_eq!(client.range(&Range::of(Keys::under("/mesh/"))).await.unwrap().pairs.len(), 1);
}

#[tokio::test]
async fn over_tls_both_sides_prove_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (OutsideAuthority::default(), OutsideAuthority::default());
    let file = |name: &str| folder.path().join(name);
    authority.write(folder.path(), "etcd", "localhost");
    authority.write(folder.path(), "control", "control");
    std::fs::write(file("ca.pem"), authority.root_pem()).unwrap();
    std::fs::write(file("stranger.pem"), stranger.root_pem()).unwrap();
    let Some(etcd) = Etcd::start_tls(folder.path()).await else { return };
    let address: EtcdAddress = etcd.url("mesh").parse().unwrap();
    let secrets = EtcdSecrets {
        roots: Some(file("ca.pem")),
        certificate: Some((file("control.crt"), file("control.key"))),
        user: None,
    };
    let store = EtcdStore::open(&address, &secrets).await.unwrap();
    store.commit(one("a", 1)).await.unwrap();
    assert_eq!(read(&store, "a").await, Some(1));

    let shows_nothing = EtcdSecrets { certificate: None, ..secrets.clone() };
    let believes_another = EtcdSecrets { roots: Some(file("stranger.pem")), ..secrets.clone() };
    // Whether etcd's word comes before the end of the connection is its own race.
    let no_word = ["ertificate", "connection closed", "broken pipe", "connection reset"];
    for (refused, whys) in [(shows_nothing, &no_word[..]), (believes_another, &["no root that is trusted"])] {
        let cluster = Cluster::of(&address, &refused).unwrap();
        let error = read::prepare(&cluster, &Layout::under("/mesh")).await.unwrap_err();
        assert!(whys.iter().any(|why| error.to_string().contains(why)), "{error}");
    }
    let absent = EtcdSecrets { roots: Some(file("nothing.pem")), ..secrets };
    let error = EtcdStore::open(&address, &absent).await.unwrap_err();
    assert!(error.to_string().contains("nothing.pem"), "{error}");
}

#[tokio::test]
async fn a_user_logs_in_with_his_password_and_needs_no_more_than_the_prefix() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let at = etcd.addresses()[0];
    let key = |text: &str| STANDARD.encode(text);
    let permission = json!({ "permType": "READWRITE", "key": key("/mesh/"), "range_end": key("/mesh0") });
    for (path, body) in [
        ("user/add", json!({ "name": "root", "password": "r" })),
        ("role/add", json!({ "name": "root" })),
        ("user/grant", json!({ "user": "root", "role": "root" })),
        ("user/add", json!({ "name": "control", "password": "right" })),
        ("role/add", json!({ "name": "mesh" })),
        ("role/grant", json!({ "name": "mesh", "perm": permission })),
        ("user/grant", json!({ "user": "control", "role": "mesh" })),
        ("enable", json!({})),
    ] {
        let reply =
            Client::h1(at).await.post("etcd", &format!("/v3/auth/{path}"), body.to_string()).await.unwrap();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let folder = tempfile::tempdir().unwrap();
    let password = |text: &str| {
        let file = folder.path().join(text);
        std::fs::write(&file, format!("{text}\n")).unwrap();
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, closed).unwrap();
        EtcdSecrets { user: Some(("control".into(), file)), ..EtcdSecrets::default() }
    };
    let address: EtcdAddress = etcd.url("mesh").parse().unwrap();
    let store = EtcdStore::open(&address, &password("right")).await.unwrap();
    let mut watch = store.watch(Space::Config, 0);
    store.commit(one("a", 1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().position, 1);
    outrigger_testkit::eventually("it leads", || async { store.inner.leads() }).await;
    store.close().await;

    for refused in [password("wrong"), EtcdSecrets::default()] {
        let error = EtcdStore::open(&address, &refused).await.unwrap_err();
        assert!(!error.to_string().contains("wrong"), "{error}");
        assert_eq!(error.kind(), StoreErrorKind::Io, "{error}");
    }
    let elsewhere: EtcdAddress = etcd.url("other").parse().unwrap();
    let error = EtcdStore::open(&elsewhere, &password("right")).await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
}
