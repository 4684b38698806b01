use outrigger_testkit::Etcd;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audit::Author;
use crate::store::etcd::{EtcdAddress, EtcdSecrets, EtcdStore};
use crate::store::{EmbeddedStore, Expect, Store, StoreErrorKind, Transaction, Write};

async fn write_some(store: &dyn Store) {
    let put = |space, key: &str, value: Json| Write {
        space,
        key: key.into(),
        value: Some(value),
        expect: Expect::Anything,
    };
    for i in 0..70 {
        let author = Author::new("ada", "127.0.0.1:1");
        let audit = vec![AuditEntry::new(&author, "update", "MeshService shop/cart")];
        let mut writes = vec![
            put(Space::Config, &format!("services/shop/s{}", i % 7), json!({ "n": i })),
            put(Space::Tokens, "secret/api-token/1", json!({ "hash": i })),
        ];
        if i == 0 {
            writes.push(put(Space::Tokens, "secret/mesh", json!("the secret of the mesh")));
            writes.push(put(Space::Certificates, "authority", json!("the key of the authority")));
            writes.push(put(Space::Instances, "instances/shop/fixed", json!({ "spec": {} })));
            let registered = json!({ "status": { "registeredBy": "spiffe://mesh.local/ns/shop/sa/cart" } });
            writes.push(put(Space::Instances, "instances/shop/registered", registered));
        }
        store.commit(Transaction { author, writes, audit }).await.unwrap();
    }
    let author = Author::new("bob", "127.0.0.1:1");
    let gone =
        Write { space: Space::Config, key: "services/shop/s3".into(), value: None, expect: Expect::Present };
    store.commit(Transaction { author, writes: vec![gone], audit: vec![] }).await.unwrap();
}

fn text_of(image: Image, keys: bool) -> Vec<u8> {
    write(&of(image, keys), &"mesh.local".parse().unwrap(), keys, OffsetDateTime::UNIX_EPOCH)
}

async fn embedded() -> (EmbeddedStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (EmbeddedStore::open(folder.path()).await.unwrap(), folder)
}

#[tokio::test]
async fn from_a_file_to_etcd_and_back_everything_is_as_it_was() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (first, _folder) = embedded().await;
    write_some(&first).await;
    let before = of(first.image().await.unwrap(), true);
    let (about, image) = read(&text_of(first.image().await.unwrap(), true)).unwrap();
    assert!(about.keys && about.domain == "mesh.local");
    assert_eq!(image, before);
    assert_eq!((image.revisions.len(), image.audit.len()), (71, 70));

    let address: EtcdAddress = etcd.url("mesh").parse().unwrap();
    let secrets = EtcdSecrets::default();
    EtcdStore::restore(&address, &secrets, &image, false).await.unwrap();
    let shared = EtcdStore::open(&address, &secrets).await.unwrap();
    assert_eq!(shared.image().await.unwrap(), before);
    assert_eq!(shared.revision(71).await.unwrap(), first.revision(71).await.unwrap());
    assert_eq!(shared.audit(None, 100).await.unwrap(), first.audit(None, 100).await.unwrap());
    // It is written on.
    write_some(&shared).await;
    assert_eq!(shared.list(Space::Config, "").await.unwrap().position, 142);
    let later = of(shared.image().await.unwrap(), true);
    assert_eq!((later.revisions.len(), later.audit.len()), (142, 140));

    let folder = tempfile::tempdir().unwrap();
    EmbeddedStore::restore(folder.path(), &later, false).await.unwrap();
    let back = EmbeddedStore::open(folder.path()).await.unwrap();
    assert_eq!(back.image().await.unwrap(), later);
    write_some(&back).await;
    assert_eq!(back.audit(None, 1).await.unwrap()[0].line, 210);
}

#[tokio::test]
async fn a_store_that_has_something_is_replaced_only_when_that_is_said_and_never_under_a_control_plane() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let (first, folder) = embedded().await;
    write_some(&first).await;
    let image = of(first.image().await.unwrap(), false);
    let locked = EmbeddedStore::restore(folder.path(), &image, true).await.unwrap_err();
    assert_eq!(locked.kind(), StoreErrorKind::Locked, "{locked}");
    drop(first);
    let refused = EmbeddedStore::restore(folder.path(), &image, false).await.unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    EmbeddedStore::restore(folder.path(), &image, true).await.unwrap();
    let aside = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(aside, 2, "what was there is kept beside");

    let (address, secrets) = (etcd.url("mesh").parse::<EtcdAddress>().unwrap(), EtcdSecrets::default());
    let shared = EtcdStore::open(&address, &secrets).await.unwrap();
    outrigger_testkit::eventually("it lives", || async { shared.replicas().unwrap().count() == 1 }).await;
    let lives = EtcdStore::restore(&address, &secrets, &image, true).await.unwrap_err();
    assert_eq!(lives.kind(), StoreErrorKind::Locked, "{lives}");
    shared.close().await;
    let refused = EtcdStore::restore(&address, &secrets, &image, false).await.unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    EtcdStore::restore(&address, &secrets, &image, true).await.unwrap();
    let again = EtcdStore::open(&address, &secrets).await.unwrap();
    assert_eq!(again.image().await.unwrap(), image);
}

#[tokio::test]
async fn keys_are_in_it_only_when_they_are_asked_for_and_what_registers_itself_never() {
    let (store, _folder) = embedded().await;
    write_some(&store).await;
    let has = |text: &[u8], what: &str| String::from_utf8_lossy(text).contains(what);
    let without = text_of(store.image().await.unwrap(), false);
    assert!(!has(&without, "the key of the authority") && !has(&without, "the secret of the mesh"));
    assert!(has(&without, "secret/api-token/1") && has(&without, "instances/shop/fixed"));
    assert!(!has(&without, "instances/shop/registered"));
    let with = text_of(store.image().await.unwrap(), true);
    assert!(has(&with, "the key of the authority") && has(&with, "the secret of the mesh"));
}

fn a_backup() -> Vec<u8> {
    let entry = AuditEntry::new(&Author::new("ada", "here"), "update", "MeshService shop/cart");
    let record = |n: u64| Record { created: n, changed: n, value: json!({ "n": n }) };
    let image = Image {
        counts: Committed { revision: 3, ..Committed::default() },
        records: (1..4).map(|n| (Space::Config, format!("services/shop/s{n}"), record(n))).collect(),
        revisions: vec![],
        audit: vec![AuditLine { line: 1, entry }],
    };
    text_of(image, false)
}

proptest! {
    #[test]
    fn a_backup_that_is_damaged_anywhere_is_refused_with_the_place(at: prop::sample::Index, by in 1..=255u8) {
        let sound = a_backup();
        let mut damaged = sound.clone();
        let at = at.index(damaged.len());
        damaged[at] ^= by;
        let line = sound[..at].split(|b| *b == b'\n').count();
        let told = read(&damaged).unwrap_err();
        // A line that lost its end goes on into the next one.
        prop_assert!(told.line == line || told.line == line + 1, "{told}, damaged in line {line}");
    }

    #[test]
    fn a_backup_that_is_cut_off_anywhere_is_refused(at: prop::sample::Index) {
        let sound = a_backup();
        prop_assert!(read(&sound[..at.index(sound.len())]).is_err());
    }

    #[test]
    fn whatever_is_read_as_a_backup_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
    }
}

#[test]
fn lines_that_are_missing_twice_or_elsewhere_are_noticed_and_so_is_a_later_format() {
    let sound = String::from_utf8(a_backup()).unwrap();
    assert!(read(sound.as_bytes()).is_ok());
    let lines: Vec<&str> = sound.lines().collect();
    let again = |lines: &[&str]| read(format!("{}\n", lines.join("\n")).as_bytes()).unwrap_err().to_string();
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    let mut twice = lines.clone();
    twice.insert(1, lines[1]);
    let mut missing = lines.clone();
    missing.remove(2);
    for damaged in [swapped, twice, missing] {
        assert!(again(&damaged).contains("missing, or not where they were"), "{damaged:?}");
    }
    let behind = format!("{sound}{}\n", lines[1]);
    assert!(read(behind.as_bytes()).unwrap_err().to_string().contains("behind the end"));
    let later = lines[0].split_once(' ').unwrap().1.replace("\"format\":1", "\"format\":2");
    let later = format!("{} {later}", sum(later.as_bytes()));
    assert!(again(&[&later]).contains("a later version wrote it"));
}
