//! The access log: a line for each request and each opaque connection that passes here, or only for those that access
//! policies refuse. A taker of what is observed ([`observe`](super::observe)).
//!
//! Deliberately elsewhere: how a line is written, and where it goes ([`writer`]).

mod line;
pub mod select;
pub mod template;
pub mod writer;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;
use tokio::sync::mpsc;

use crate::live::Millis;
use crate::telemetry::observe::{Record, Taker};
use select::Select;

/// What gets a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lines {
    /// Nothing.
    Off,
    /// What access policies refuse, or would refuse if they were not on trial: ten a second of each worker.
    #[default]
    Denied,
    /// Everything.
    All,
}

/// The access log of a process.
#[derive(Debug, Default)]
pub struct AccessLog {
    queue: OnceLock<Queue>,
    off: AtomicBool,
    counts: Arc<Counts>,
}

/// The way to the writer.
#[derive(Debug)]
struct Queue {
    to: To,
    select: Select,
}

/// Who makes lines of records.
#[derive(Debug)]
enum To {
    /// The thread that writes them.
    Writer(SyncSender<Arc<Record>>),
    /// The task that sends them to a collector.
    Collector(mpsc::Sender<Arc<Record>>),
}

/// What is counted of it.
#[derive(Debug, Default)]
pub struct Counts {
    /// Lines that were written.
    pub written: AtomicU64,
    /// Lines that were not, since there was no room in the queue or at the place where they go.
    pub dropped: AtomicU64,
}

impl AccessLog {
    /// Begins to write; once. What is refused while nothing is written here is told in the log of the process.
    fn begin(&self, select: Select, queue: SyncSender<Arc<Record>>) {
        let _only_once = self.queue.set(Queue { to: To::Writer(queue), select });
    }

    /// Begins to send; once. The same as to write, but to whoever has the other end of `queue`.
    pub fn send(&self, select: Select, queue: mpsc::Sender<Arc<Record>>) {
        let _only_once = self.queue.set(Queue { to: To::Collector(queue), select });
    }

    /// Tells nothing, not even what is refused.
    pub fn turn_off(&self) {
        self.off.store(true, Relaxed);
    }

    /// Whether what is refused is told in the log of the process.
    pub fn is_elsewhere(&self) -> bool {
        self.queue.get().is_none() && !self.off.load(Relaxed)
    }

    /// What is counted.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Its metrics.
    pub fn write(&self, out: &mut String) {
        use std::fmt::Write as _;
        for (name, help, count) in [
            ("outrigger_access_log_lines_total", "Lines written.", &self.counts.written),
            ("outrigger_access_log_dropped_total", "Lines there was no room for.", &self.counts.dropped),
        ] {
            let _never =
                writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", count.load(Relaxed));
        }
    }
}

impl Taker for AccessLog {
    fn offer(&self, record: &Arc<Record>) {
        let Some(queue) = self.queue.get() else { return };
        let all = queue.select.lines == Lines::All;
        let refused = record.is_refused() && (all || within_bound());
        if !refused && !queue.select.takes(record) {
            return;
        }
        let record = Arc::clone(record);
        let room = match &queue.to {
            To::Writer(queue) => queue.try_send(record).is_ok(),
            To::Collector(queue) => queue.try_send(record).is_ok(),
        };
        if !room {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Whether a thread may tell one refusal more in this second.
pub fn within_bound() -> bool {
    thread_local! {
        static WINDOW: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    }
    let second = Millis::now().0 / 1000;
    let (window, count) = WINDOW.get();
    let count = if window == second { count + 1 } else { 1 };
    WINDOW.set((second, count));
    count <= REFUSALS
}

/// How many refusals a thread tells in a second.
const REFUSALS: u32 = 10;
