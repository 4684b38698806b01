//! Writes the lines of the access log, on a thread of its own: what can not take them holds up nobody but it.
//!
//! The queue is bounded, and so is what a line can weigh; what finds no room is counted and gone. A file that was moved
//! away is opened anew under its name within a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Counts;
use super::select::Select;
use super::template::Format;
use crate::live::Live;
use crate::telemetry::observe::{Record, Taker, Taking};

/// Where lines go.
pub enum Output {
    /// To a file, at its end.
    File(PathBuf),
    /// To something that is open already.
    To(Box<dyn Write + Send>),
}

/// The running writer.
#[derive(Debug)]
pub struct Writer {
    ending: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
    _taking: Taking,
}

impl Writer {
    /// Begins to write the lines of what passes, of which `room` may wait. An error is one of opening the file.
    pub fn start(
        live: &Live,
        select: impl Into<Select>,
        format: Format,
        output: Output,
        room: usize,
    ) -> io::Result<Self> {
        let (place, log) = (Place::open(output)?, &live.access_log);
        let (queue, records) = sync_channel(room);
        let ending = Arc::new(AtomicBool::new(false));
        let (tell_ended, ended) = oneshot::channel();
        let (counts, end) = (Arc::clone(&log.counts), Arc::clone(&ending));
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            run(&records, &format, place, &counts, &end);
            let _nobody_waits = tell_ended.send(());
        })?;
        log.begin(select.into(), queue);
        let taking = live.observe.add(Arc::clone(log) as Arc<dyn Taker>);
        Ok(Self { ending, ended, _taking: taking })
    }

    /// Writes what waits, for as long as `limit`. What does not take its lines is left behind with the process.
    pub async fn finish(mut self, limit: Duration) {
        self.ending.store(true, Relaxed);
        let _too_late = tokio::time::timeout(limit, &mut self.ended).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
    }
}

/// As many lines as may wait: some megabytes at most.
pub const ROOM: usize = 4_096;

fn run(
    records: &Receiver<Arc<Record>>,
    format: &Format,
    mut place: Place,
    counts: &Counts,
    ending: &AtomicBool,
) {
    let mut batch = Vec::new();
    loop {
        match records.recv_timeout(WAIT) {
            Ok(record) => {
                let mut lines = 0;
                for record in std::iter::once(record).chain(records.try_iter()).take(BATCH) {
                    record.write_to(format, &mut batch);
                    lines += 1;
                }
                place.write(&batch, lines, counts);
                batch.clear();
            }
            Err(RecvTimeoutError::Timeout) if ending.load(Relaxed) => return,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Where lines go, opened.
struct Place {
    to: Box<dyn Write + Send>,
    /// Which file it is, to see when that is another.
    file: Option<Known>,
    looked: Instant,
    /// The last write broke off, perhaps within a line.
    broken: bool,
}

struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    fn open(output: Output) -> io::Result<Self> {
        let looked = Instant::now();
        match output {
            Output::To(to) => Ok(Self { to, file: None, looked, broken: false }),
            Output::File(path) => {
                let file = open(&path)?;
                let of = file.metadata()?;
                let known = Known { path, device: of.dev(), inode: of.ino() };
                Ok(Self { to: Box::new(file), file: Some(known), looked, broken: false })
            }
        }
    }

    fn write(&mut self, batch: &[u8], lines: u64, counts: &Counts) {
        self.look();
        let mut write = || {
            if self.broken {
                self.to.write_all(b"\n")?;
            }
            self.to.write_all(batch)?;
            self.to.flush()
        };
        match write() {
            Ok(()) => {
                self.broken = false;
                counts.written.fetch_add(lines, Relaxed);
            }
            Err(error) => {
                counts.dropped.fetch_add(lines, Relaxed);
                if !std::mem::replace(&mut self.broken, true) {
                    tracing::warn!(%error, "the access log can not be written");
                }
            }
        }
    }

    /// Opens the file anew where it is no longer the one under its name.
    fn look(&mut self) {
        let Some(known) = self.file.as_mut().filter(|_| self.looked.elapsed() >= LOOK) else { return };
        self.looked = Instant::now();
        let same = |of: &std::fs::Metadata| (of.dev(), of.ino()) == (known.device, known.inode);
        if std::fs::metadata(&known.path).as_ref().is_ok_and(same) {
            return;
        }
        match open(&known.path).and_then(|file| Ok((file.metadata()?, file))) {
            Ok((of, file)) => {
                (known.device, known.inode) = (of.dev(), of.ino());
                (self.to, self.broken) = (Box::new(file), false);
            }
            // Lines go on to where they went.
            Err(error) => tracing::warn!(%error, "the access log can not be opened anew"),
        }
    }
}

/// For its owner only: paths tell much of whoever asks.
fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// How many lines are written at once.
const BATCH: usize = 256;
const LOOK: Duration = Duration::from_secs(1);
/// How soon the end is seen.
const WAIT: Duration = Duration::from_millis(200);
