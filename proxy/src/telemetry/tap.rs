//! Live requests for whoever looks: a tap takes what is observed, keeps what its filter wants, and hands it on as lines of
//! JSON.
//!
//! It costs nothing while nobody taps. A tap has a bound on everything: how many there are at once, how many requests it
//! tells in a second, how many wait to be told, how long it lives. What had to be left out is counted, and told. Requests
//! wait for none of this.

mod told;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use outrigger_mesh::{SpiffeId, TapFacts, TapFilter, TapSide};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::live::Millis;
use crate::telemetry::observe::{Caller, Direction, Observe, Record, Taker, Taking};

/// The taps of a process.
#[derive(Debug, Default)]
pub struct Taps {
    open: Arc<AtomicUsize>,
}

/// There are as many taps as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MOST} taps are open here already: try again when one has ended")]
pub struct TooMany;

impl Taps {
    /// Begins to take what `filter` wants. `own` is who this sidecar's application is.
    pub fn open(
        &self,
        observe: &Arc<Observe>,
        filter: TapFilter,
        own: Option<Arc<SpiffeId>>,
    ) -> Result<Tap, TooMany> {
        let place = Place::take(&self.open).ok_or(TooMany)?;
        let (records, taken) = mpsc::channel(WAITING);
        let lasts = filter.lasts.unwrap_or(LASTS).min(TapFilter::LONGEST);
        let left = filter.limit.unwrap_or(TapFilter::MOST).min(TapFilter::MOST);
        let sieve =
            Arc::new(Sieve { filter, records, second: AtomicU64::new(0), left_out: AtomicU64::new(0) });
        let taking = observe.add(Arc::clone(&sieve) as Arc<dyn Taker>);
        let ends = Instant::now() + lasts;
        Ok(Tap { taken, sieve, own, left, ends, told_left_out: 0, _taking: taking, _place: place })
    }
}

impl Taps {
    /// Its metrics.
    pub fn write(&self, out: &mut String) {
        let open = self.open.load(Relaxed);
        out.push_str("# HELP outrigger_taps Taps of live requests that are open.\n");
        let _never = writeln!(out, "# TYPE outrigger_taps gauge\noutrigger_taps {open}");
    }
}

/// One of the places there are; dropped, it is free again.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |n| (n < MOST).then_some(n + 1);
        open.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Self(Arc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What decides on the thread of the request.
#[derive(Debug)]
struct Sieve {
    filter: TapFilter,
    records: mpsc::Sender<Arc<Record>>,
    /// The second of the process's clock, and how many were wanted in it.
    second: AtomicU64,
    left_out: AtomicU64,
}

impl Taker for Sieve {
    fn offer(&self, record: &Arc<Record>) {
        if !self.filter.wants(&facts(record)) {
            return;
        }
        if !self.has_room() || self.records.try_send(Arc::clone(record)).is_err() {
            self.left_out.fetch_add(1, Relaxed);
        }
    }
}

impl Sieve {
    fn has_room(&self) -> bool {
        let now = Millis::now().0 / 1_000;
        let next = |seen: u64| Some(if seen >> BITS == now { seen + 1 } else { (now << BITS) | 1 });
        let seen = self.second.fetch_update(Relaxed, Relaxed, next).unwrap_or(0);
        seen >> BITS != now || seen & ((1 << BITS) - 1) < A_SECOND
    }
}

/// Live requests as they end.
#[derive(Debug)]
pub struct Tap {
    taken: mpsc::Receiver<Arc<Record>>,
    sieve: Arc<Sieve>,
    own: Option<Arc<SpiffeId>>,
    left: u32,
    ends: Instant,
    told_left_out: u64,
    _taking: Taking,
    _place: Place,
}

impl Tap {
    /// The next lines, each with its end; `None` when the tap has ended. May be dropped while waiting.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        if self.left == 0 {
            return None;
        }
        // What was left out is told, be it that nothing else comes.
        let look = Instant::now() + LOOK;
        let record = tokio::select! {
            biased;
            record = self.taken.recv() => record?,
            () = sleep_until(self.ends) => return None,
            () = sleep_until(look) => return Some(self.left_out()),
        };
        self.left -= 1;
        let mut lines = self.left_out();
        told::write(&record, self.own.as_deref(), &mut lines);
        Some(lines)
    }

    /// A line of how many were left out, if any were since it was told last.
    fn left_out(&mut self) -> Vec<u8> {
        let now = self.sieve.left_out.load(Relaxed);
        let new = now - std::mem::replace(&mut self.told_left_out, now);
        if new == 0 { Vec::new() } else { format!("{}\n", json!({ "dropped": new })).into_bytes() }
    }
}

fn facts(record: &Record) -> TapFacts<'_> {
    TapFacts {
        side: match record.direction {
            Direction::Outbound | Direction::Gateway => TapSide::Caller,
            Direction::Inbound => TapSide::Service,
        },
        service: record.service.as_ref(),
        backend: record.backend.as_ref(),
        caller: match &record.caller {
            Caller::Proven(id) => Some(id),
            Caller::Nobody | Caller::Unknown => None,
        },
        path: record.path.as_deref(),
        status: record.status,
        method: record.method.as_deref(),
        reason: record.reason,
    }
}

/// Taps at once.
const MOST: usize = 4;
/// Requests a tap tells in a second.
const A_SECOND: u64 = 100;
/// Requests that wait to be told.
const WAITING: usize = 256;
/// How long a tap lives, unless somebody says so.
const LASTS: Duration = Duration::from_secs(60);
/// So often it is told what was left out.
const LOOK: Duration = Duration::from_secs(1);
/// The count in a second has so many bits.
const BITS: u32 = 32;

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn ends(observe: &Arc<Observe>, method: &Method) {
        if let Some(note) = observe.note(Direction::Outbound) {
            note.began(method);
        }
    }

    fn filter(fields: &[(&str, &str)]) -> TapFilter {
        let mut filter = TapFilter::default();
        for (field, text) in fields {
            filter.set(field, text).unwrap();
        }
        filter
    }

    async fn text(tap: &mut Tap) -> String {
        String::from_utf8(tap.next().await.unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_tap_tells_what_its_filter_wants_and_nothing_is_observed_when_it_is_gone() {
        let (observe, taps) = (Arc::new(Observe::default()), Taps::default());
        assert!(observe.note(Direction::Outbound).is_none(), "it costs nothing while nobody taps");
        let mut tap = taps.open(&observe, filter(&[("method", "GET")]), None).unwrap();
        ends(&observe, &Method::POST);
        ends(&observe, &Method::GET);
        let line: serde_json::Value = serde_json::from_str(&text(&mut tap).await).unwrap();
        assert_eq!((line["method"].as_str(), line["direction"].as_str()), (Some("GET"), Some("outbound")));
        drop(tap);
        assert!(observe.note(Direction::Outbound).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tap_ends_after_its_time_and_after_its_number() {
        let (observe, taps) = (Arc::new(Observe::default()), Taps::default());
        let mut tap = taps.open(&observe, filter(&[("for", "30s")]), None).unwrap();
        let began = Instant::now();
        while let Some(lines) = tap.next().await {
            assert!(lines.is_empty());
        }
        assert_eq!(began.elapsed().as_secs(), 30);
        let mut tap = taps.open(&observe, filter(&[("limit", "2")]), None).unwrap();
        (0..3).for_each(|_| ends(&observe, &Method::GET));
        assert!(tap.next().await.is_some() && tap.next().await.is_some() && tap.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_so_many_taps_and_no_more() {
        let (observe, taps) = (Arc::new(Observe::default()), Taps::default());
        let open: Vec<_> =
            (0..MOST).map(|_| taps.open(&observe, TapFilter::default(), None).unwrap()).collect();
        assert_eq!(taps.open(&observe, TapFilter::default(), None).unwrap_err(), TooMany);
        drop(open);
        taps.open(&observe, TapFilter::default(), None).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_left_out_beyond_the_bound_and_that_is_told() {
        let (observe, taps) = (Arc::new(Observe::default()), Taps::default());
        let mut tap = taps.open(&observe, TapFilter::default(), None).unwrap();
        let sent = 10_000_u64;
        (0..sent).for_each(|_| ends(&observe, &Method::GET));
        let (mut told, mut dropped) = (0, 0);
        while told + dropped < sent {
            for line in text(&mut tap).await.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                match line["dropped"].as_u64() {
                    Some(n) => dropped += n,
                    None => told += 1,
                }
            }
        }
        // The clock of the bound is that of the process: a test that takes long sees more seconds of it.
        assert!((A_SECOND..=WAITING as u64).contains(&told), "{told} told");
        assert_eq!(told + dropped, sent);
    }
}
