use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;

use super::super::conformance::{Tried, put, suite, transaction};
use super::super::{KEPT_REVISIONS, StoreErrorKind};
use super::*;

impl Tried for EmbeddedStore {}

suite!(|folder: PathBuf| async move { Some((EmbeddedStore::open(&folder).await.unwrap(), ())) });

fn write(n: u64) -> Transaction {
    transaction(vec![put(Space::Config, "a", n)])
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_store_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    for i in 1..=5 {
        let store = EmbeddedStore::open(folder.path()).await.unwrap();
        assert_eq!(store.list(Space::Config, "").await.unwrap().position, i - 1);
        store.commit(write(i)).await.unwrap();
        // Dropped as it is: there is no orderly end to rely on.
    }
    let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half made is left");
}

#[tokio::test]
async fn a_store_that_another_has_open_is_locked_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let _first = EmbeddedStore::open(folder.path()).await.unwrap();
    let error = EmbeddedStore::open(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Locked);
    assert!(error.to_string().contains(FILE), "{error}");
}

#[tokio::test]
async fn a_closed_store_can_be_opened_by_another_while_handles_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedStore::open(folder.path()).await.unwrap();
    first.commit(write(1)).await.unwrap();
    first.close().await;
    let second = EmbeddedStore::open(folder.path()).await.unwrap();
    assert_eq!(second.get(Space::Config, "a").await.unwrap().unwrap().value, 1);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_as_it_was() {
    for content in [b"hello".to_vec(), vec![0; 8192], vec![7; 100_000]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, &content).unwrap();
        let error = EmbeddedStore::open(folder.path()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn flipped_and_missing_bytes_are_an_error_or_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).await.unwrap();
    for i in 0..50 {
        let key = format!("key-{i}");
        store.commit(transaction(vec![put(Space::Config, &key, i)])).await.unwrap();
    }
    drop(store);
    let sound = fs::read(folder.path().join(FILE)).unwrap();
    // Where the values lie, from one end to the other.
    for part in 0..24 {
        let mut damaged = sound.clone();
        let at = damaged.len() / 24 * part + 700;
        let end = (at + 64).min(damaged.len());
        damaged[at..end].iter_mut().for_each(|b| *b ^= 0x55);
        check_damaged(&damaged, &format!("flipped at {at}")).await;
    }
    check_damaged(&sound[..sound.len() / 2], "cut in half").await;
    check_damaged(&sound[..100], "cut to its head").await;
}

/// Whatever is read is right; else the error is of damage.
async fn check_damaged(bytes: &[u8], how: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), bytes).unwrap();
    let listed = match EmbeddedStore::open(folder.path()).await {
        Ok(store) => store.list(Space::Config, "").await,
        Err(e) => Err(e),
    };
    match listed {
        Ok(listed) => {
            assert_eq!(listed.records.len(), 50, "{how}");
            for (key, record) in listed.records {
                assert_eq!(key, format!("key-{}", record.value), "{how}");
            }
        }
        Err(e) => assert_eq!(e.kind(), StoreErrorKind::Corrupt, "{how}: {e}"),
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(folder.path()).await.unwrap());
    let database = Builder::new().open(folder.path().join(FILE)).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(tables::COUNTS).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = EmbeddedStore::open(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NewerFormat);
    assert!(error.to_string().contains(FILE) && error.to_string().contains("restore a backup"), "{error}");
}

#[tokio::test]
async fn history_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).await.unwrap();
    for i in 0..KEPT_REVISIONS + 5 {
        store.commit(write(i)).await.unwrap();
    }
    assert_eq!(store.revisions(None, usize::MAX).await.unwrap().len() as u64, KEPT_REVISIONS);
    assert_eq!(store.revision(5).await.unwrap(), None);
    assert!(store.revision(6).await.unwrap().is_some());
}

/// A disk that can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_file_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, full) = (folder.path().join(FILE), Arc::new(AtomicBool::new(false)));
    let name = path.display().to_string();
    let disk_full = full.clone();
    let backend = move || {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        Disk { file: FileBackend::new(file).unwrap(), full: disk_full.clone() }
    };
    let store = EmbeddedStore::open_on(&name, backend).await.unwrap();
    store.commit(write(1)).await.unwrap();
    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store.commit(write(2)).await.unwrap_err().to_string();
        assert!(error.contains(&name), "{error}");
    }
    full.store(false, Ordering::SeqCst);
    let record = store.get(Space::Config, "a").await.unwrap().unwrap();
    assert_eq!(record.value, 1);
    store.commit(write(3)).await.unwrap();
    assert_eq!(store.get(Space::Config, "a").await.unwrap().unwrap().value, 3);
}
