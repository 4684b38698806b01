//! The embedded store read whole, and made of an image.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, ReadableTable};

use super::super::Image;
use super::super::error::{StoreError, StoreErrorKind};
use super::super::{AuditLine, Space};
use super::tables::{AUDIT, At, COUNTS, REVISIONS, records_of};
use super::{EmbeddedStore, FILE, blocking, io_error, make_folder, opening, publish, tables};

impl EmbeddedStore {
    /// Makes the store in `folder` of `image`, whole or not at all. One that has something already is refused unless it is to
    /// be replaced; then it is kept beside under another name, which comes back.
    pub async fn restore(folder: &Path, image: &Image, replace: bool) -> Result<Option<PathBuf>, StoreError> {
        let (folder, image) = (folder.to_owned(), image.clone());
        blocking(move || {
            make_folder(&folder)?;
            let path = folder.join(FILE);
            let there = path.try_exists().map_err(|e| io_error(&path, &e))?;
            if there {
                refuse_in_use(&path, replace)?;
            }
            let aside = there.then(|| path.with_extension(format!("redb.before-{}", now())));
            publish(
                &path,
                |database| fill(database, &path, &image),
                || {
                    aside
                        .as_ref()
                        .map_or(Ok(()), |aside| fs::rename(&path, aside).map_err(|e| io_error(&path, &e)))
                },
            )?;
            Ok(aside)
        })
        .await
    }
}

/// All of it, as of one moment.
pub(super) fn read(database: &Database, path: &Path) -> Result<Image, StoreError> {
    let at = At { path };
    let read = database.begin_read().map_err(at.fault())?;
    let counts = at.counts(&read.open_table(COUNTS).map_err(at.fault())?)?;
    let mut image = Image { counts, ..Image::default() };
    for space in Space::ALL {
        let table = read.open_table(records_of(space)).map_err(at.fault())?;
        for row in table.iter().map_err(at.fault())? {
            let (key, value) = row.map_err(at.fault())?;
            let record = at.unseal(key.value(), value.value())?;
            image.records.push((space, key.value().to_owned(), record));
        }
    }
    let revisions = read.open_table(REVISIONS).map_err(at.fault())?;
    for row in revisions.iter().map_err(at.fault())? {
        let (number, value) = row.map_err(at.fault())?;
        image.revisions.push(at.unseal(&number.value().to_string(), value.value())?);
    }
    let audit = read.open_table(AUDIT).map_err(at.fault())?;
    for row in audit.iter().map_err(at.fault())? {
        let (line, value) = row.map_err(at.fault())?;
        let line = line.value();
        image.audit.push(AuditLine { line, entry: at.unseal(&line.to_string(), value.value())? });
    }
    Ok(image)
}

fn fill(database: &Database, path: &Path, image: &Image) -> Result<(), StoreError> {
    let at = At { path };
    let write = database.begin_write().map_err(at.fault())?;
    {
        let mut counts = write.open_table(COUNTS).map_err(at.fault())?;
        for space in Space::ALL {
            counts.insert(space.as_str(), image.counts.of(space)).map_err(at.fault())?;
            let mut table = write.open_table(records_of(space)).map_err(at.fault())?;
            for (_, key, record) in image.records.iter().filter(|(of, ..)| *of == space) {
                table.insert(key.as_str(), &*at.seal(record)?).map_err(at.fault())?;
            }
        }
        let mut revisions = write.open_table(REVISIONS).map_err(at.fault())?;
        for revision in &image.revisions {
            revisions.insert(revision.revision, &*at.seal(revision)?).map_err(at.fault())?;
        }
        let mut audit = write.open_table(AUDIT).map_err(at.fault())?;
        for AuditLine { line, entry } in &image.audit {
            audit.insert(*line, &*at.seal(entry)?).map_err(at.fault())?;
        }
    }
    write.commit().map_err(at.fault())
}

/// What a control plane has open is never replaced. What is damaged may be: that is what a backup is for.
fn refuse_in_use(path: &Path, replace: bool) -> Result<(), StoreError> {
    let database = match Builder::new().open(path) {
        Ok(database) => database,
        Err(e) => {
            let e = opening(path, e);
            return if replace && e.kind() == StoreErrorKind::Corrupt { Ok(()) } else { Err(e) };
        }
    };
    let written = match tables::prepare(&database, path) {
        Ok(counts) => Space::ALL.iter().any(|space| counts.of(*space) > 0),
        Err(_) => true,
    };
    if written && !replace {
        let detail = "it is not empty; nothing was changed in it";
        return Err(StoreError::new(StoreErrorKind::Locked, path.display(), detail));
    }
    Ok(())
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
