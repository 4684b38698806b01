//! What every store must do, told as tests over the trait. `suite!` runs them all on one kind of store. Where a store promises
//! less ([`Promises`]), the rules say what it does promise; they leave nothing out.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{
    Change, CommitError, Compacted, Expect, KEPT_CHANGES, Listed, Promises, Revision, RevisionChange, Space,
    Store, Transaction, Watch, Write,
};
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
            an_image_is_all_of_it,
            what_was_decided_on_an_earlier_revision_is_not_written,
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

/// A store as the rules see it: records of a name and a number, whatever they are in it.
pub(super) trait Tried: Store {
    /// The key of a record. Keys are in the order of their names, and with their prefixes.
    fn key(&self, space: Space, name: &str) -> String {
        let _ = space;
        name.to_owned()
    }

    /// A record that says a number.
    fn value(&self, space: Space, name: &str, number: u64) -> Json {
        let _ = (space, name);
        json!(number)
    }

    /// What it says.
    fn number(&self, value: &Json) -> u64 {
        value.as_u64().unwrap()
    }

    /// The write that has a record say a number.
    fn put(&self, space: Space, name: &str, number: u64) -> Write {
        Write { value: Some(self.value(space, name, number)), ..self.delete(space, name) }
    }

    /// The write that deletes it.
    fn delete(&self, space: Space, name: &str) -> Write {
        Write { space, key: self.key(space, name), value: None, expect: Expect::Anything }
    }
}

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

async fn value(store: &impl Tried, space: Space, name: &str) -> Option<u64> {
    let record = store.get(space, &store.key(space, name)).await.unwrap();
    record.map(|record| store.number(&record.value))
}

async fn commit(store: &impl Tried, writes: Vec<Write>) -> Result<super::Committed, CommitError> {
    store.commit(transaction(writes)).await
}

async fn position(store: &impl Tried, space: Space) -> u64 {
    store.list(space, "").await.unwrap().position
}

/// Whether a count went as far as it was promised to, by this many changes.
fn went_on(promises: Promises, before: u64, now: u64, by: u64) -> bool {
    if promises.gapless { now == before + by } else { now >= before + by }
}

/// The next records that a watch tells of, whether as one change or as several: key, and whether it is there. The last is the
/// position.
async fn told(watch: &mut Watch, records: usize) -> (Vec<(String, bool)>, Vec<u64>) {
    let (mut all, mut positions) = (vec![], vec![]);
    while all.len() < records {
        let Change { position, records } = &*watch.next().await.unwrap();
        positions.push(*position);
        all.extend(records.iter().map(|(key, record)| (key.clone(), record.is_some())));
    }
    (all, positions)
}

pub(super) async fn what_is_written_is_read(store: &impl Tried) {
    assert_eq!(value(store, Space::Config, "s/a").await, None);
    for space in
        [Space::Config, Space::Instances, Space::Tokens, Space::Certificates, Space::Rollouts, Space::Status]
    {
        for number in [1, 2] {
            let write = store.put(space, "s/a", number);
            commit(store, vec![write.clone()]).await.unwrap();
            assert_eq!(value(store, space, "s/a").await, Some(number), "{space:?}");
            let read = store.get(space, &write.key).await.unwrap().map(|record| record.value);
            assert_eq!(read, write.value, "to the last field");
        }
        commit(store, vec![store.delete(space, "s/a")]).await.unwrap();
        assert_eq!(value(store, space, "s/a").await, None, "{space:?}");
        // What is not there is deleted without a fault.
        commit(store, vec![store.delete(space, "s/a")]).await.unwrap();
    }
}

pub(super) async fn each_space_counts_its_own_changes(store: &impl Tried) {
    use Space::{Config, Instances, Tokens};
    let counts = |c: super::Committed| [c.revision, c.generation, c.tokens];
    let mut last = [0; 3];
    for (i, space) in [Config, Instances, Tokens].into_iter().enumerate() {
        last[i] = position(store, space).await;
    }
    for (n, spaces) in
        [vec![Config], vec![Instances], vec![Instances, Instances], vec![Config, Tokens]].iter().enumerate()
    {
        let writes =
            spaces.iter().enumerate().map(|(i, s)| store.put(*s, &format!("s/k{i}"), n as u64)).collect();
        let now = counts(commit(store, writes).await.unwrap());
        for (i, space) in [Config, Instances, Tokens].into_iter().enumerate() {
            if spaces.contains(&space) {
                assert!(went_on(store.promises(), last[i], now[i], 1), "{space:?}: {last:?} to {now:?}");
            } else {
                assert_eq!(now[i], last[i], "{space:?} was not written to");
            }
            assert_eq!(position(store, space).await, now[i]);
        }
        last = now;
    }
}

pub(super) async fn a_transaction_is_whole_or_absent(store: &impl Tried) {
    let before = position(store, Space::Config).await;
    let wrong = Write { expect: Expect::Present, ..store.put(Space::Config, "s/c", 3) };
    let writes = vec![store.put(Space::Config, "s/a", 1), store.put(Space::Instances, "s/b", 2), wrong];
    assert!(matches!(commit(store, writes).await, Err(CommitError::Conflict { .. })));
    assert_eq!(value(store, Space::Config, "s/a").await, None);
    assert_eq!(value(store, Space::Instances, "s/b").await, None);
    let listed = store.list(Space::Config, "").await.unwrap();
    assert_eq!((listed.position, listed.records.len()), (before, 0), "and no count has moved");
}

pub(super) async fn expectations_are_kept(store: &impl Tried) {
    let write = || store.put(Space::Config, "s/a", 1);
    let key = store.key(Space::Config, "s/a");
    for refused in [Expect::Present, Expect::Version(0), Expect::Version(1)] {
        let error = store.commit(expecting(refused, write())).await.unwrap_err();
        assert_eq!(error, CommitError::Conflict { key: key.clone(), current: None }, "{refused:?}");
    }
    let version = store.commit(expecting(Expect::Absent, write())).await.unwrap().revision;
    match store.commit(expecting(Expect::Absent, write())).await.unwrap_err() {
        CommitError::Conflict { current: Some(current), .. } => assert_eq!(current.changed, version),
        other => panic!("{other:?}"),
    }
    let other = || store.put(Space::Config, "s/a", 2);
    store.commit(expecting(Expect::Version(version), other())).await.unwrap();
    assert!(store.commit(expecting(Expect::Version(version), write())).await.is_err());
    store.commit(expecting(Expect::Present, write())).await.unwrap();
}

pub(super) async fn a_version_is_the_count_of_its_last_change(store: &impl Tried) {
    let first = commit(store, vec![store.put(Space::Config, "s/a", 1)]).await.unwrap().revision;
    let second = commit(store, vec![store.put(Space::Config, "s/b", 1)]).await.unwrap().revision;
    let created = store.get(Space::Config, &store.key(Space::Config, "s/a")).await.unwrap().unwrap().created;
    let third = commit(store, vec![store.put(Space::Config, "s/a", 2)]).await.unwrap().revision;
    let (mut found, wanted) = (vec![], [("s/a", third), ("s/b", second)]);
    for (name, _) in wanted {
        let record = store.get(Space::Config, &store.key(Space::Config, name)).await.unwrap().unwrap();
        found.push((name, record.changed));
        assert!(record.created >= created, "of two the older came first");
        if store.promises().gapless {
            assert_eq!(record.created, if name == "s/a" { first } else { second });
        }
    }
    assert_eq!(found, wanted);
}

pub(super) async fn of_parallel_writers_with_one_expectation_one_wins(store: &impl Tried) {
    for space in [Space::Tokens, Space::Config] {
        commit(store, vec![store.put(space, "s/t", 0)]).await.unwrap();
        let version = store.get(space, &store.key(space, "s/t")).await.unwrap().unwrap().changed;
        let tries =
            (1..=16).map(|i| store.commit(expecting(Expect::Version(version), store.put(space, "s/t", i))));
        let results = futures_util::future::join_all(tries).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "{space:?}: {results:?}");
        let conflict =
            |r: &Result<_, CommitError>| matches!(r, Err(CommitError::Conflict { current: Some(_), .. }));
        assert_eq!(
            results.iter().filter(|r| conflict(r)).count(),
            15,
            "{space:?}: the others know what is there"
        );
        assert_ne!(value(store, space, "s/t").await, Some(0));
    }
}

pub(super) async fn a_watch_sees_every_change_in_order(store: &impl Tried) {
    let start = position(store, Space::Config).await;
    let first = commit(store, vec![store.put(Space::Config, "s/a", 1)]).await.unwrap().revision;
    let mut from_start = store.watch(Space::Config, start);
    let mut from_now = store.watch(Space::Config, first);
    commit(store, vec![store.put(Space::Instances, "s/i", 1)]).await.unwrap();
    let writes = vec![store.put(Space::Config, "s/b", 2), store.delete(Space::Config, "s/a")];
    let second = commit(store, writes).await.unwrap().revision;

    assert_eq!(from_start.next().await.unwrap().position, first);
    let key = |name| store.key(Space::Config, name);
    for watch in [&mut from_start, &mut from_now] {
        let (records, positions) = told(watch, 2).await;
        assert_eq!(records, [(key("s/b"), true), (key("s/a"), false)]);
        assert!(positions.is_sorted() && positions.last() == Some(&second), "{positions:?}, not {second}");
        assert_eq!(positions.len(), if store.promises().whole { 1 } else { 2 });
    }
    let nothing = timeout(Duration::from_millis(20), from_now.next()).await;
    assert!(nothing.is_err(), "a watch waits when there is nothing");
    let third = commit(store, vec![store.put(Space::Config, "s/c", 1)]).await.unwrap().revision;
    assert_eq!(from_now.next().await.unwrap().position, third);
}

pub(super) async fn a_watch_that_lies_too_far_behind_is_told(store: &impl Tried) {
    let start = position(store, Space::Instances).await;
    let mut watch = store.watch(Space::Instances, start);
    for i in 0..=KEPT_CHANGES as u64 {
        let write = transaction(vec![store.put(Space::Instances, "s/i", i)]);
        store.commit(Transaction { audit: vec![], ..write }).await.unwrap();
    }
    assert_eq!(watch.next().await, Err(Compacted { after: start }));
    let mut ahead = store.watch(Space::Instances, 1_000_000);
    assert!(ahead.next().await.is_err(), "a count that was never reached is of another store");
}

pub(super) async fn history_tells_who_changed_what(store: &impl Tried) {
    let mut made = vec![];
    for i in 1..=3 {
        made.insert(0, commit(store, vec![store.put(Space::Config, "s/a", i)]).await.unwrap().revision);
    }
    commit(store, vec![store.put(Space::Instances, "s/i", 1)]).await.unwrap();
    let numbers = |revisions: Vec<Revision>| revisions.iter().map(|r| r.revision).collect::<Vec<_>>();
    assert_eq!(numbers(store.revisions(None, 10).await.unwrap()), made);
    assert_eq!(numbers(store.revisions(Some(made[0]), 1).await.unwrap()), [made[1]]);
    let second = store.revision(made[1]).await.unwrap().unwrap();
    assert_eq!((second.who.as_str(), second.why.as_deref()), ("tester", Some("a test")));
    let value = |number| Some(store.value(Space::Config, "s/a", number));
    let change = RevisionChange { key: store.key(Space::Config, "s/a"), before: value(1), after: value(2) };
    assert_eq!(second.changes, [change]);
    assert_eq!(store.revision(made[0] + 9).await.unwrap(), None);
}

pub(super) async fn the_audit_log_is_written_with_the_change_and_never_without(store: &impl Tried) {
    commit(store, vec![store.put(Space::Config, "s/a", 1), store.put(Space::Tokens, "s/t", 1)])
        .await
        .unwrap();
    assert!(store.commit(expecting(Expect::Absent, store.put(Space::Config, "s/a", 2))).await.is_err());
    let lines = store.audit(None, 10).await.unwrap();
    let told: Vec<_> = lines.iter().map(|l| (l.line, l.entry.object.clone(), l.entry.who.as_str())).collect();
    let key = |space, name| store.key(space, name);
    assert_eq!(told, [(2, key(Space::Tokens, "s/t"), "tester"), (1, key(Space::Config, "s/a"), "tester")]);
    assert_eq!(store.audit(Some(2), 10).await.unwrap().len(), 1);
}

pub(super) async fn keys_are_listed_in_order_and_by_prefix(store: &impl Tried) {
    let names = ["b/2", "a/1", "b/1", "b/10", "c/1"];
    commit(store, names.iter().map(|name| store.put(Space::Config, name, 0)).collect()).await.unwrap();
    let listed = |prefix: String| async move {
        let listed = store.list(Space::Config, &prefix).await.unwrap();
        listed.records.into_iter().map(|(k, _)| k).collect::<Vec<_>>()
    };
    let keys = |names: &[&str]| names.iter().map(|name| store.key(Space::Config, name)).collect::<Vec<_>>();
    assert_eq!(listed(String::new()).await, keys(&["a/1", "b/1", "b/10", "b/2", "c/1"]));
    assert_eq!(listed(store.key(Space::Config, "b/")).await, keys(&["b/1", "b/10", "b/2"]));
    assert!(listed(store.key(Space::Config, "d")).await.is_empty());
}

pub(super) async fn a_scan_tells_in_portions_what_a_list_tells_at_once(store: &impl Tried) {
    // Where every record is a call of its own, there are fewer of them.
    let many = if store.promises().whole { 900 } else { 90 };
    for part in 0..3 {
        let writes = (0..many).map(|i| store.put(Space::Instances, &format!("i/{i:04}-{part}"), i)).collect();
        commit(store, writes).await.unwrap();
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
    assert_eq!(scanned.records.len() as u64, 3 * many);
    // Who stops taking stops the reading, and that is no fault.
    let (portions, read) = mpsc::channel(1);
    drop(read);
    assert_eq!(store.scan(Space::Instances, portions).await, Ok(scanned.position));
}

pub(super) async fn an_image_is_all_of_it(store: &impl Tried) {
    let spaces =
        [Space::Config, Space::Instances, Space::Tokens, Space::Certificates, Space::Rollouts, Space::Status];
    for space in spaces {
        commit(store, vec![store.put(space, "s/a", 1)]).await.unwrap();
    }
    let image = store.image().await.unwrap();
    let told: Vec<_> = image.records.iter().map(|(space, key, _)| (space.as_str(), key.clone())).collect();
    let wanted: Vec<_> = Space::ALL.iter().map(|space| (space.as_str(), store.key(*space, "s/a"))).collect();
    assert_eq!(told, wanted);
    for space in spaces {
        assert_eq!(image.counts.of(space), position(store, space).await, "{space:?}");
    }
    assert_eq!((image.revisions.len(), image.audit.len()), (1, 6));
}

pub(super) async fn what_was_decided_on_an_earlier_revision_is_not_written(store: &impl Tried) {
    let first = commit(store, vec![store.put(Space::Config, "s/a", 1)]).await.unwrap().revision;
    let second = transaction(vec![store.put(Space::Config, "s/b", 1)]);
    store.commit_on(first, second).await.unwrap();
    if store.replicas().is_none() {
        // What one process alone writes to is never behind.
        return;
    }
    let late =
        store.commit_on(first, transaction(vec![store.put(Space::Config, "s/c", 1)])).await.unwrap_err();
    assert!(matches!(late, CommitError::Store(ref e) if e.kind() == super::StoreErrorKind::Behind), "{late}");
    assert_eq!(value(store, Space::Config, "s/c").await, None);
}

pub(super) async fn what_is_closed_answers_with_an_error(store: &impl Tried) {
    commit(store, vec![store.put(Space::Config, "s/a", 1)]).await.unwrap();
    store.close().await;
    assert!(store.get(Space::Config, &store.key(Space::Config, "s/a")).await.is_err());
    assert!(store.list(Space::Config, "").await.is_err() && store.image().await.is_err());
    assert!(commit(store, vec![store.put(Space::Config, "s/a", 2)]).await.is_err());
    store.close().await;
}
