//! The counts of all requests between two, along one route.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::buckets::{ADDED, Buckets, WHOLE};
use super::exemplar::Exemplar;
use super::outcome::{OTHER, Outcome};
use super::routes::Totals;

/// The counts of all requests between two, along one route. How many different outcomes they may have is bounded, for
/// each of them and for all together.
#[derive(Debug)]
pub struct Series {
    codes: [AtomicU32; MOST_OUTCOMES],
    cells: [OnceLock<Box<Cell>>; MOST_OUTCOMES],
    other: Cell,
    upstream: Buckets,
    added: Buckets,
    /// How many outcomes more there is room for, in all.
    room: Arc<AtomicUsize>,
}

/// One outcome.
#[derive(Debug, Default)]
struct Cell {
    whole: Buckets,
    exemplar: Exemplar,
}

/// How long a request took where, until the head of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Until there was an answer, all attempts together.
    pub upstream: Duration,
    /// Beside that: in this proxy, with all its waiting.
    pub added: Duration,
}

impl Series {
    pub(super) fn new(room: &Arc<AtomicUsize>) -> Self {
        Self {
            codes: [const { AtomicU32::new(0) }; MOST_OUTCOMES],
            cells: [const { OnceLock::new() }; MOST_OUTCOMES],
            other: Cell::default(),
            upstream: Buckets::default(),
            added: Buckets::default(),
            room: Arc::clone(room),
        }
    }

    /// Counts a request that has ended `whole` after it came.
    pub fn record(&self, outcome: Outcome, whole: Duration, trace: Option<u128>) {
        let cell = self.cell(outcome.code());
        let bucket = cell.whole.record(&WHOLE, whole);
        if let Some(trace) = trace {
            cell.exemplar.put(trace, bucket, whole);
        }
    }

    /// Counts where the time of a request went, once there is an answer.
    pub fn answered(&self, took: Took) {
        self.upstream.record(&WHOLE, took.upstream);
        self.added.record(&ADDED, took.added);
    }

    fn cell(&self, code: u32) -> &Cell {
        for (slot, cell) in self.codes.iter().zip(&self.cells) {
            let mut there = slot.load(Ordering::Acquire);
            if there == 0 {
                let room = |n: usize| n.checked_sub(1);
                if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
                    return &self.other;
                }
                match slot.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => there = code,
                    Err(taken) => {
                        self.room.fetch_add(1, Ordering::Relaxed);
                        there = taken;
                    }
                }
            }
            if there == code {
                return cell.get_or_init(Box::default);
            }
        }
        &self.other
    }

    /// The sums of all outcomes.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (slot, cell) in self.codes.iter().zip(&self.cells) {
            let (code, Some(cell)) = (slot.load(Ordering::Acquire), cell.get()) else { continue };
            totals.add(cell.whole.counts(), Outcome::is_failure(code));
        }
        totals.add(self.other.whole.counts(), false);
        totals
    }

    /// The lines of how long requests took as a whole.
    pub(super) fn write_whole(&self, out: &mut String, name: &str, labels: &str, callers: bool) {
        for (slot, cell) in self.codes.iter().zip(&self.cells) {
            let (code, Some(cell)) = (slot.load(Ordering::Acquire), cell.get()) else { continue };
            let all = format!("{labels},{}", Outcome::labels(code, callers));
            cell.whole.write(out, name, (&all, &WHOLE), Some(&cell.exemplar));
        }
        let all = format!("{labels},{OTHER}");
        self.other.whole.write(out, name, (&all, &WHOLE), Some(&self.other.exemplar));
    }

    /// The lines of how long answers were waited for.
    pub(super) fn write_upstream(&self, out: &mut String, name: &str, labels: &str) {
        self.upstream.write(out, name, (labels, &WHOLE), None);
    }

    /// The lines of the time in this proxy.
    pub(super) fn write_added(&self, out: &mut String, name: &str, labels: &str) {
        self.added.write(out, name, (labels, &ADDED), None);
    }
}

/// How many outcomes one has: methods, statuses and reasons that occur together.
pub(super) const MOST_OUTCOMES: usize = 24;
