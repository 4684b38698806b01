//! What is observed of requests and opaque connections, for whoever takes it: the access log, spans, live taps.
//!
//! A [`Note`] is taken when a request comes, goes along with it, and ends when the last who holds it lets go: with the last
//! byte of the answer, or when the caller has gone. Then its [`Record`] is offered to each [`Taker`], so whatever way a
//! request ends, each is told once. Where nobody takes anything there is no note, and a request pays one look.
//!
//! Spans are a taker like the others, but for one thing: most requests are not traced, and of these no note is taken for
//! the sake of those that are.
//!
//! Takers are called on the thread of the request. They decide in an instant whether they want a record, and put it into a
//! bounded queue; what they make of it they make elsewhere.

mod note;
mod record;
pub mod redact;

use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use http::HeaderMap;
use outrigger_mesh::{RouteName, TraceShare};

pub use self::note::Note;
pub use self::record::{Attempt, BodyEnd, By, Caller, Direction, Record, Rule};

use self::redact::Redaction;
use crate::http::glance::Glance;
use crate::request::trace_context;
use crate::telemetry::trace::sample::{Largest, Share};
use crate::telemetry::trace::{self, Place, Tracing, Untraced};

/// Somebody who takes what is observed.
pub trait Taker: Send + Sync {
    /// Something has ended. Called on the data path: this neither blocks nor does more than it must.
    fn offer(&self, record: &Arc<Record>);
}

/// The takers of a process.
#[derive(Default)]
pub struct Observe {
    /// Who takes anything: [`ALL`] where somebody takes everything, [`TRACED`] where some requests are traced.
    wanted: AtomicU8,
    takers: ArcSwap<Vec<Arc<dyn Taker>>>,
    tracing: OnceLock<Arc<Tracing>>,
    redaction: OnceLock<Redaction>,
    /// The largest share that is pushed for any service or route.
    pushed: Largest,
    /// Held while the list changes.
    changing: Mutex<()>,
}

impl Observe {
    /// Offers what ends from now on to `taker`, too, for as long as the value that comes back lives.
    #[must_use = "dropped, nothing more is taken"]
    pub fn add(self: &Arc<Self>, taker: Arc<dyn Taker>) -> Taking {
        self.change(|takers| takers.push(Arc::clone(&taker)));
        Taking { of: Arc::downgrade(self), taker }
    }

    /// Traces requests from now on; once.
    pub fn trace(&self, tracing: Arc<Tracing>) {
        if self.tracing.set(tracing).is_ok() {
            self.wanted.fetch_or(TRACED, Relaxed);
        }
    }

    /// Takes a note of what has come just now and is no request, or has not become one, where anybody takes it.
    pub fn note(self: &Arc<Self>, direction: Direction) -> Option<Rc<Note>> {
        (self.wanted.load(Relaxed) & ALL != 0).then(|| Rc::new(Note::new(self, direction, None)))
    }

    /// Takes a note of a request that has come just now with these headers, where anybody takes it. Only the word of a
    /// caller who is `trusted` decides whether it is traced. Of one that is, the headers name its own span afterwards. Of one
    /// that is not, they may say nothing: then what is `seen` says it.
    pub fn request(
        self: &Arc<Self>,
        direction: Direction,
        headers: &mut HeaderMap,
        seen: &mut Glance,
        trusted: bool,
    ) -> Option<Rc<Note>> {
        let wanted = self.wanted.load(Relaxed);
        if wanted == 0 {
            return None;
        }
        let tracing = self.tracing.get().filter(|_| wanted & TRACED != 0);
        let place = tracing.and_then(|tracing| match direction {
            // No route comes that could have another share.
            Direction::Inbound => tracing.settled(headers, *seen, trusted),
            // Most requests by far, and the header that says so would cost more than all the rest of it.
            Direction::Outbound if wanted & ALL == 0 => {
                let set_out = tracing.set_out(headers, *seen, self.pushed.get());
                set_out.unwrap_or_else(|Untraced| {
                    *seen = seen.with(Glance::UNTRACED);
                    None
                })
            }
            Direction::Outbound | Direction::Gateway => {
                tracing.arrive(headers, *seen, trusted, self.pushed.get())
            }
        });
        let inbound = direction == Direction::Inbound;
        if wanted & ALL != 0 && inbound && trusted && trace::is_untraced(headers, *seen) {
            // So that the lines name what the application gets.
            trace_context::ensure(headers);
        }
        (wanted & ALL != 0 || place.is_some()).then(|| Rc::new(Note::new(self, direction, place)))
    }

    /// What of a request's headers says whether its trace is kept: nothing of them where that is decided here.
    pub fn of_trace(&self, seen: Glance) -> Glance {
        if self.wanted.load(Relaxed) & TRACED == 0 { seen } else { seen.without(Glance::TRACE) }
    }

    /// Says what of paths is told, before the first note; once.
    pub fn redact(&self, redaction: Redaction) {
        let _only_once = self.redaction.set(redaction);
    }

    /// Nothing that is pushed has a larger share of its requests traced.
    pub fn pushed(&self, largest: Option<TraceShare>) {
        self.pushed.set(largest.map_or(Share::NONE, Share::from));
    }

    fn settle(
        &self,
        place: Place,
        route: Option<&RouteName>,
        pushed: Option<TraceShare>,
    ) -> Result<Place, Place> {
        self.tracing.get().map_or(Ok(place), |tracing| tracing.settle(place, route, pushed))
    }

    fn redaction(&self) -> &Redaction {
        self.redaction.get_or_init(Redaction::default)
    }

    fn offer(&self, record: Record) {
        let record = Arc::new(record);
        if let Some(tracing) = self.tracing.get().filter(|_| record.place.is_some()) {
            tracing.offer(&record);
        }
        for taker in self.takers.load().iter() {
            taker.offer(&record);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<dyn Taker>>)) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut takers = self.takers.load().to_vec();
        change(&mut takers);
        let any = !takers.is_empty();
        self.takers.store(Arc::new(takers));
        if any {
            self.wanted.fetch_or(ALL, Relaxed);
        } else {
            self.wanted.fetch_and(!ALL, Relaxed);
        }
    }
}

impl fmt::Debug for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observe").field("takers", &self.takers.load().len()).finish_non_exhaustive()
    }
}

/// That somebody takes what is observed. Dropped, it is no longer offered.
#[must_use = "dropped, nothing more is taken"]
pub struct Taking {
    of: Weak<Observe>,
    taker: Arc<dyn Taker>,
}

impl Drop for Taking {
    fn drop(&mut self) {
        if let Some(observe) = self.of.upgrade() {
            observe.change(|takers| takers.retain(|taker| !Arc::ptr_eq(taker, &self.taker)));
        }
    }
}

impl fmt::Debug for Taking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taking(..)")
    }
}

const ALL: u8 = 1;
const TRACED: u8 = 2;

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Arc<Record>>>);

    impl Taker for Kept {
        fn offer(&self, record: &Arc<Record>) {
            self.0.lock().unwrap().push(Arc::clone(record));
        }
    }

    impl Kept {
        fn count(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    #[test]
    fn each_taker_gets_a_record_once_and_nobody_who_has_gone() {
        let observe = Arc::new(Observe::default());
        assert!(observe.note(Direction::Inbound).is_none(), "nobody takes anything");
        let (one, other) = (Arc::<Kept>::default(), Arc::<Kept>::default());
        let first = observe.add(one.clone());
        let second = observe.add(other.clone());
        let note = observe.note(Direction::Inbound).unwrap();
        let same = Rc::clone(&note);
        note.began(&Method::GET);
        drop(note);
        assert_eq!(one.count(), 0, "somebody still holds it");
        drop(same);
        assert_eq!((one.count(), other.count()), (1, 1));
        assert_eq!(one.0.lock().unwrap()[0].method.as_deref(), Some("GET"));
        drop(first);
        drop(observe.note(Direction::Outbound).unwrap());
        assert_eq!((one.count(), other.count()), (1, 2));
        drop(second);
        assert!(observe.note(Direction::Inbound).is_none());
    }
}
