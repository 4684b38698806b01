//! The store in one file beside the control plane: redb, crash safe, on disk when a commit returns.
//!
//! All access goes through one mutex on threads for blocking work: there is one writer anyway, and reads are rare.
//! After a failure of the disk the file is opened anew at the next call, because redb rightly refuses to go on with
//! what it has in memory; the caller reads everything again then.

#[path = "embedded_image.rs"]
mod image;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt};
#[cfg(test)]
use redb::StorageBackend;
use redb::{Builder, Database, DatabaseError, StorageError};
use tokio::sync::mpsc;

use super::change_log::{Change, ChangeLog, Watch};
use super::embedded_tables as tables;
use super::error::{CommitError, StoreError, StoreErrorKind};
use super::{
    AuditLine, Committed, Image, KEPT_AUDIT_LINES, Listed, Record, Revision, Space, Store, Transaction,
};

/// The name of the file in the data folder.
const FILE: &str = "store.redb";
/// What is read again and again is in memory anyway, as the world; the library's own measure is a gigabyte.
const CACHE: usize = 32 << 20;

/// A store in a file that one process at a time may have open. Clones share it.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    open: Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>,
    database: Mutex<Slot>,
    changes: [Arc<ChangeLog>; Space::ALL.len()],
}

/// The database while nobody works with it.
enum Slot {
    Open(Database),
    /// It failed, and is opened anew when it is next needed.
    Failed,
    /// Nobody shall use it any more.
    Closed,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, which is made if it is not there. An existing file is never replaced: what can
    /// not be read is an error.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let folder = folder.to_owned();
        blocking(move || {
            make_folder(&folder)?;
            let path = folder.join(FILE);
            make_file(&path)?;
            let opened = path.clone();
            Self::open_with(path, Box::new(move || Builder::new().set_cache_size(CACHE).open(&opened)))
        })
        .await
    }

    /// Opens a store on a backend of the caller's, which a test can make fail.
    #[cfg(test)]
    pub(super) async fn open_on<B: StorageBackend>(
        name: &str,
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let path = PathBuf::from(name);
        blocking(move || {
            Self::open_with(path, Box::new(move || Builder::new().create_with_backend(backend())))
        })
        .await
    }

    fn open_with(
        path: PathBuf,
        open: Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>,
    ) -> Result<Self, StoreError> {
        let database = open().map_err(|e| opening(&path, e))?;
        let counts = tables::prepare(&database, &path)?;
        let changes = Space::ALL.map(|space| ChangeLog::new(counts.of(space)));
        Ok(Self {
            inner: Arc::new(Inner { path, open, database: Mutex::new(Slot::Open(database)), changes }),
        })
    }

    /// Runs `work` on the open database, on a thread that may block.
    async fn on_database<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Database, &Inner) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let inner = self.inner.clone();
        blocking(move || inner.with(work)).await
    }

    fn changes_of(&self, space: Space) -> &Arc<ChangeLog> {
        self.inner.changes_of(space)
    }
}

impl Inner {
    fn changes_of(&self, space: Space) -> &Arc<ChangeLog> {
        &self.changes[space as usize]
    }

    fn with<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&Database, &Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Slot::Closed) {
            return Err(StoreError::new(StoreErrorKind::Io, self.path.display(), "it is closed").into());
        }
        // Taken out while it works: after a failure or a panic in between it is not put back, and opened anew.
        let database = match std::mem::replace(&mut *slot, Slot::Failed) {
            Slot::Open(database) => database,
            Slot::Failed | Slot::Closed => self.reopen()?,
        };
        let result = work(&database, self);
        if tables::is_usable(&database) {
            *slot = Slot::Open(database);
        }
        result
    }

    fn reopen(&self) -> Result<Database, StoreError> {
        let database = (self.open)().map_err(|e| opening(&self.path, e))?;
        let counts = tables::prepare(&database, &self.path)?;
        for space in Space::ALL {
            self.changes_of(space).restart(counts.of(space));
        }
        Ok(database)
    }

    fn commit(&self, database: &Database, transaction: &Transaction) -> Result<Committed, CommitError> {
        let (counts, records) = tables::commit(database, &self.path, transaction)?;
        for space in Space::ALL {
            let of_space = |(write, record): (&super::Write, &Option<Record>)| {
                (write.space == space).then(|| (write.key.clone(), record.clone()))
            };
            let changed: Vec<_> = transaction.writes.iter().zip(&records).filter_map(of_space).collect();
            if !changed.is_empty() {
                self.changes_of(space).push(Change { position: counts.of(space), records: changed });
            }
        }
        Ok(counts)
    }
}

impl Store for EmbeddedStore {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        let key = key.to_owned();
        self.on_database(move |db, inner| tables::get(db, &inner.path, space, &key)).boxed()
    }

    fn list<'a>(&'a self, space: Space, prefix: &'a str) -> BoxFuture<'a, Result<Listed, StoreError>> {
        let prefix = prefix.to_owned();
        self.on_database(move |db, inner| tables::list(db, &inner.path, space, &prefix)).boxed()
    }

    fn scan(
        &self,
        space: Space,
        portions: mpsc::Sender<Vec<(String, Record)>>,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.on_database(move |db, inner| tables::scan(db, &inner.path, space, &portions)).boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        self.on_database(move |db, inner| inner.commit(db, &transaction)).boxed()
    }

    fn watch(&self, space: Space, after: u64) -> Watch {
        self.changes_of(space).watch(after)
    }

    fn revisions(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        self.on_database(move |db, inner| tables::revisions(db, &inner.path, before, limit)).boxed()
    }

    fn revision(&self, number: u64) -> BoxFuture<'_, Result<Option<Revision>, StoreError>> {
        let before = number.checked_add(1);
        let found = self.on_database(move |db, inner| tables::revisions(db, &inner.path, before, 1));
        async move { Ok(found.await?.pop().filter(|r| r.revision == number)) }.boxed()
    }

    fn audit(&self, before: Option<u64>, limit: usize) -> BoxFuture<'_, Result<Vec<AuditLine>, StoreError>> {
        let limit = limit.min(usize::try_from(KEPT_AUDIT_LINES).unwrap_or(usize::MAX));
        self.on_database(move |db, inner| tables::audit(db, &inner.path, before, limit)).boxed()
    }

    fn image(&self) -> BoxFuture<'_, Result<Image, StoreError>> {
        self.on_database(|db, inner| image::read(db, &inner.path)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let inner = self.inner.clone();
        let close = move || {
            *inner.database.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
            Ok::<_, StoreError>(())
        };
        // Closing what a panic has damaged is no worse than leaving it.
        blocking(close).map(drop).boxed()
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

async fn blocking<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // redb asserts what a sound file always holds; that it did not is damage.
        Err(e) => Err(StoreError::new(StoreErrorKind::Corrupt, FILE, e).into()),
    }
}

fn make_folder(folder: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| io_error(folder, &e))
}

/// Makes the file, if there is none.
fn make_file(path: &Path) -> Result<(), StoreError> {
    if path.try_exists().map_err(|e| io_error(path, &e))? {
        return Ok(());
    }
    publish(path, |_| Ok(()), || Ok(()))
}

/// Makes the file whole under another name, as `fill` says, and gives it its own name after `before`: a process killed while
/// it makes it leaves no half of one. A link, unlike a renaming, fails when another process was faster.
fn publish(
    path: &Path,
    fill: impl FnOnce(&Database) -> Result<(), StoreError>,
    before: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let half = path.with_extension(format!("new-{}", std::process::id()));
    let made = || -> Result<(), StoreError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&half);
        let file = file.map_err(|e| io_error(path, &e))?;
        let database = Builder::new().create_file(file).map_err(|e| opening(path, e))?;
        tables::prepare(&database, path)?;
        fill(&database)?;
        drop(database);
        before()?;
        match fs::hard_link(&half, path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(io_error(path, &e)),
            _ => sync_folder(path),
        }
    };
    let made = made();
    // It is a second name of the file, or worth nothing.
    let _ = fs::remove_file(&half);
    made
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| io_error(path, &e))
}

fn io_error(path: &Path, e: &io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::of_io(e), path.display(), e)
}

fn opening(path: &Path, e: DatabaseError) -> StoreError {
    let kind = match &e {
        DatabaseError::DatabaseAlreadyOpen => StoreErrorKind::Locked,
        DatabaseError::UpgradeRequired(_) => StoreErrorKind::NewerFormat,
        // redb says so of a file that is too short or does not begin as one of its own.
        DatabaseError::Storage(StorageError::Io(e))
            if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreErrorKind::Corrupt
        }
        DatabaseError::Storage(StorageError::Io(e)) => StoreErrorKind::of_io(e),
        _ => StoreErrorKind::Corrupt,
    };
    StoreError::new(kind, path.display(), e)
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
