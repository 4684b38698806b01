//! What every store must do, told as tests over the trait. `suite!` runs them all on one kind of store.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{CommitError, Compacted, Expect, KEPT_CHANGES, Listed, Space, Store, Transaction, Write};
use crate::audit::{AuditEntry, Author};

/// Makes a test of each rule below for the store that `$open` makes, given a folder, beside what the store stands on. None
/// where that is not installed.
macro_rules! suite {
    ($open:expr) => {
        $crate::store::conformance::suite!($open;
            what_is_written_is_read,
            each_space_counts_its_own_changes,
            a_transaction_is_whole_or_absent,
            expectations_are_kept,
            a_version_is_the_count_of_its_last_change,
            of_parallel_writers_with_one_expectation_one_wins,
            a_watch_sees_every_change_in_order,
            a_watch_that_lies_too_far_behind_is_told,
            history_tells_who_changed_what,
            the_audit_log_is_written_with_the_change_and_never_without,
            keys_are_listed_in_order_and_by_prefix,
            a_scan_tells_in_portions_what_a_list_tells_at_once,
            what_is_closed_answers_with_an_error
        );
    };
    ($open:expr; $($rule:ident),*) => {$(
        #[tokio::test]
        async fn $rule() {
            let folder = tempfile::tempdir().unwrap();
            let open = $open;
            let opened: Option<_> = open(folder.path().to_owned()).await;
            let Some((store, _beside)) = opened else { return };
            $crate::store::conformance::$rule(&store).await;
        }
    )*};
}
pub(super) use suite;

pub(super) fn put(space: Space, key: &str, value: u64) -> Write {
    Write { space, key: key.into(), value: Some(json!(value)), expect: Expect::Anything }
}

pub(super) fn transaction(writes: Vec<Write>) -> Transaction {
    let author = Author { why: Some("a test".into()), ..Author::new("tester", "127.0.0.1:1") };
    let audit = writes.iter().map(|w| AuditEntry::new(&author, "update", &w.key)).collect();
    Transaction { author, writes, audit }
}

fn expecting(expect: Expect, write: Write) -> Transaction {
    transaction(vec![Write { expect, ..write }])
}

async fn value(store: &impl Store, space: Space, key: &str) -> Option<u64> {
    store.get(space, key).await.unwrap().map(|r| r.value.as_u64().unwrap())
}

pub(super) async fn what_is_written_is_read(store: &impl Store) {
    assert_eq!(store.get(Space::Config, "a").await.unwrap(), None);
    store.commit(transaction(vec![put(Space::Config, "a", 1)])).await.unwrap();
    assert_eq!(value(store, Space::Config, "a").await, Some(1));
    store.commit(transaction(vec![put(Space::Config, "a", 2)])).await.unwrap();
    assert_eq!(value(store, Space::Config, "a").await, Some(2));
    let delete = Write { value: None, ..put(Space::Config, "a", 0) };
    store.commit(transaction(vec![delete])).await.unwrap();
    assert_eq!(value(store, Space::Config, "a").await, None);
}

pub(super) async fn each_space_counts_its_own_changes(store: &impl Store) {
    let mut last = (0, 0, 0);
    for (spaces, expected) in [
        (vec![Space::Config], (1, 0, 0)),
        (vec![Space::Instances], (1, 1, 0)),
        (vec![Space::Instances, Space::Instances], (1, 2, 0)),
        (vec![Space::Config, Space::Tokens], (2, 2, 1)),
    ] {
        let writes = spaces.iter().enumerate().map(|(i, s)| put(*s, &format!("k{i}"), 0)).collect();
        let done = store.commit(transaction(writes)).await.unwrap();
        last = (done.revision, done.generation, done.tokens);
        assert_eq!(last, expected);
    }
    assert_eq!(store.list(Space::Instances, "").await.unwrap().position, last.1);
}

pub(super) async fn a_transaction_is_whole_or_absent(store: &impl Store) {
    let wrong = Write { expect: Expect::Present, ..put(Space::Config, "c", 3) };
    let writes = vec![put(Space::Config, "a", 1), put(Space::Instances, "b", 2), wrong];
    assert!(matches!(store.commit(transaction(writes)).await, Err(CommitError::Conflict { .. })));
    assert_eq!(value(store, Space::Config, "a").await, None);
    assert_eq!(value(store, Space::Instances, "b").await, None);
    let listed = store.list(Space::Config, "").await.unwrap();
    assert_eq!((listed.position, listed.records.len()), (0, 0), "and no count has moved");
}

pub(super) async fn expectations_are_kept(store: &impl Store) {
    let write = || put(Space::Config, "a", 1);
    for refused in [Expect::Present, Expect::Version(0), Expect::Version(1)] {
        let error = store.commit(expecting(refused, write())).await.unwrap_err();
        assert_eq!(error, CommitError::Conflict { key: "a".into(), current: None }, "{refused:?}");
    }
    store.commit(expecting(Expect::Absent, write())).await.unwrap();
    match store.commit(expecting(Expect::Absent, write())).await.unwrap_err() {
        CommitError::Conflict { current: Some(current), .. } => assert_eq!(current.changed, 1),
        other => panic!("{other:?}"),
    }
    store.commit(expecting(Expect::Version(1), write())).await.unwrap();
    assert!(store.commit(expecting(Expect::Version(1), write())).await.is_err());
    store.commit(expecting(Expect::Present, write())).await.unwrap();
}

pub(super) async fn a_version_is_the_count_of_its_last_change(store: &impl Store) {
    store.commit(transaction(vec![put(Space::Config, "a", 1)])).await.unwrap();
    store.commit(transaction(vec![put(Space::Config, "b", 1)])).await.unwrap();
    store.commit(transaction(vec![put(Space::Config, "a", 2)])).await.unwrap();
    let record = |r: super::Record| (r.created, r.changed);
    assert_eq!(store.get(Space::Config, "a").await.unwrap().map(record), Some((1, 3)));
    assert_eq!(store.get(Space::Config, "b").await.unwrap().map(record), Some((2, 2)));
}

pub(super) async fn of_parallel_writers_with_one_expectation_one_wins(store: &impl Store) {
    store.commit(transaction(vec![put(Space::Tokens, "t", 0)])).await.unwrap();
    let tries = (1..=16).map(|i| store.commit(expecting(Expect::Version(1), put(Space::Tokens, "t", i))));
    let results = futures_util::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert_ne!(value(store, Space::Tokens, "t").await, Some(0));
}

pub(super) async fn a_watch_sees_every_change_in_order(store: &impl Store) {
    store.commit(transaction(vec![put(Space::Config, "a", 1)])).await.unwrap();
    let mut from_start = store.watch(Space::Config, 0);
    let mut from_now = store.watch(Space::Config, 1);
    store.commit(transaction(vec![put(Space::Instances, "i", 1)])).await.unwrap();
    let delete = Write { value: None, ..put(Space::Config, "a", 0) };
    store.commit(transaction(vec![put(Space::Config, "b", 2), delete])).await.unwrap();

    assert_eq!(from_start.next().await.unwrap().position, 1);
    for watch in [&mut from_start, &mut from_now] {
        let change = watch.next().await.unwrap();
        assert_eq!(change.position, 2);
        let told: Vec<_> = change.records.iter().map(|(k, r)| (k.as_str(), r.is_some())).collect();
        assert_eq!(told, [("b", true), ("a", false)]);
    }
    let nothing = timeout(Duration::from_millis(20), from_now.next()).await;
    assert!(nothing.is_err(), "a watch waits when there is nothing");
    store.commit(transaction(vec![put(Space::Config, "c", 1)])).await.unwrap();
    assert_eq!(from_now.next().await.unwrap().position, 3);
}

pub(super) async fn a_watch_that_lies_too_far_behind_is_told(store: &impl Store) {
    let mut watch = store.watch(Space::Instances, 0);
    for i in 0..=KEPT_CHANGES as u64 {
        store
            .commit(Transaction { audit: vec![], ..transaction(vec![put(Space::Instances, "i", i)]) })
            .await
            .unwrap();
    }
    assert_eq!(watch.next().await, Err(Compacted { after: 0 }));
    let mut ahead = store.watch(Space::Instances, 1_000_000);
    assert!(ahead.next().await.is_err(), "a count that was never reached is of another store");
}

pub(super) async fn history_tells_who_changed_what(store: &impl Store) {
    for i in 1..=3 {
        store.commit(transaction(vec![put(Space::Config, "a", i)])).await.unwrap();
    }
    store.commit(transaction(vec![put(Space::Instances, "i", 1)])).await.unwrap();
    let numbers = |revisions: Vec<super::Revision>| revisions.iter().map(|r| r.revision).collect::<Vec<_>>();
    assert_eq!(numbers(store.revisions(None, 10).await.unwrap()), [3, 2, 1]);
    assert_eq!(numbers(store.revisions(Some(3), 1).await.unwrap()), [2]);
    let second = store.revision(2).await.unwrap().unwrap();
    assert_eq!((second.who.as_str(), second.why.as_deref()), ("tester", Some("a test")));
    assert_eq!((&second.changes[0].before, &second.changes[0].after), (&Some(json!(1)), &Some(json!(2))));
    assert_eq!(store.revision(9).await.unwrap(), None);
}

pub(super) async fn the_audit_log_is_written_with_the_change_and_never_without(store: &impl Store) {
    store.commit(transaction(vec![put(Space::Config, "a", 1), put(Space::Tokens, "t", 1)])).await.unwrap();
    assert!(store.commit(expecting(Expect::Absent, put(Space::Config, "a", 2))).await.is_err());
    let lines = store.audit(None, 10).await.unwrap();
    let told: Vec<_> =
        lines.iter().map(|l| (l.line, l.entry.object.as_str(), l.entry.who.as_str())).collect();
    assert_eq!(told, [(2, "t", "tester"), (1, "a", "tester")]);
    assert_eq!(store.audit(Some(2), 10).await.unwrap().len(), 1);
}

pub(super) async fn keys_are_listed_in_order_and_by_prefix(store: &impl Store) {
    let keys = ["b/2", "a/1", "b/1", "b/10", "c"];
    let writes = keys.iter().map(|k| put(Space::Config, k, 0)).collect();
    store.commit(transaction(writes)).await.unwrap();
    let listed = |prefix| async move {
        let listed = store.list(Space::Config, prefix).await.unwrap();
        listed.records.into_iter().map(|(k, _)| k).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, ["a/1", "b/1", "b/10", "b/2", "c"]);
    assert_eq!(listed("b/").await, ["b/1", "b/10", "b/2"]);
    assert!(listed("d").await.is_empty());
}

pub(super) async fn a_scan_tells_in_portions_what_a_list_tells_at_once(store: &impl Store) {
    for part in 0..3 {
        let writes = (0..900).map(|i| put(Space::Instances, &format!("i/{i:04}-{part}"), i)).collect();
        store.commit(transaction(writes)).await.unwrap();
    }
    let (portions, mut read) = mpsc::channel(1);
    let collect = async {
        let mut all = vec![];
        while let Some(portion) = read.recv().await {
            all.extend(portion);
        }
        all
    };
    let (position, records) = tokio::join!(store.scan(Space::Instances, portions), collect);
    let scanned = Listed { records, position: position.unwrap() };
    assert_eq!(scanned, store.list(Space::Instances, "").await.unwrap());
    // Who stops taking stops the reading, and that is no fault.
    let (portions, read) = mpsc::channel(1);
    drop(read);
    assert_eq!(store.scan(Space::Instances, portions).await, Ok(scanned.position));
}

pub(super) async fn what_is_closed_answers_with_an_error(store: &impl Store) {
    store.commit(transaction(vec![put(Space::Config, "a", 1)])).await.unwrap();
    store.close().await;
    assert!(store.get(Space::Config, "a").await.is_err());
    assert!(store.commit(transaction(vec![put(Space::Config, "a", 2)])).await.is_err());
    store.close().await;
}
