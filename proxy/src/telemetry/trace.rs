//! Which requests are traced, and their place in the trace.
//!
//! A request whose trace is sampled goes on with it; one that belongs to no trace begins one, and a share of these is
//! sampled. A stranger's word counts for the ids, not for the sampling: else anybody could have everything kept. What is not
//! sampled is not observed, and its trace context goes on as it came: it costs a look; where it had none, whoever sends it on says so.
//!
//! Deliberately elsewhere: how context is written in headers ([`trace_context`]), what a span says ([`span`]), and how it
//! reaches a collector ([`otlp`](super::otlp)).

pub mod sample;
pub mod span;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderMap;
use outrigger_mesh::{RouteName, TraceShare};
use tokio::sync::mpsc::{self, error::TrySendError};

use self::sample::{Share, Shares};
use crate::http::glance::Glance;
use crate::http::headers::UNTRACED;
use crate::request::trace_context::b3::{self, Forms};
use crate::request::trace_context::{self, Context};
use crate::telemetry::observe::{Record, Taker};

/// The tracing of a process.
#[derive(Debug)]
pub struct Tracing {
    /// How much of what begins a trace here is sampled.
    shares: Shares,
    /// The largest of these shares.
    most: Share,
    queue: mpsc::Sender<Arc<Record>>,
    counts: Arc<Counts>,
}

/// What is counted of it.
#[derive(Debug, Default)]
pub struct Counts {
    /// Spans that a collector took.
    pub exported: AtomicU64,
    /// Spans there was no room for in the queue.
    pub no_room: AtomicU64,
    /// Spans that no collector took.
    pub failed: AtomicU64,
}

/// The place of a sampled request in its trace.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its own span.
    pub own: Context,
    /// The span it came from.
    pub parent: Option<u64>,
    /// In which forms B3 came.
    pub forms: Forms,
    /// What it drew, until its route is known: that may have a smaller share than others.
    pub drawn: Option<u64>,
}

/// A request belongs to no trace and begins none that is kept, and nothing says so yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untraced;

impl Tracing {
    /// Traces a share of what begins here. Up to `room` requests wait for whoever gets the other end.
    pub fn new(
        shares: impl Into<Shares>,
        room: usize,
        counts: &Arc<Counts>,
    ) -> (Self, mpsc::Receiver<Arc<Record>>) {
        let (queue, records) = mpsc::channel(room);
        let shares = shares.into();
        let most = shares.most();
        (Self { shares, most, queue, counts: Arc::clone(counts) }, records)
    }

    /// A request has come with these headers, of a caller whose word counts if it is `trusted`. Its place in its trace, if
    /// it is sampled, where a share of `pushed` may be once its route is known; then the headers name its own span from here on.
    pub fn arrive(
        &self,
        headers: &mut HeaderMap,
        seen: Glance,
        trusted: bool,
        pushed: Share,
    ) -> Option<Place> {
        let brought = if seen.saw(Glance::TRACE) { trace_context::read(headers) } else { None };
        let w3c = brought.is_some();
        if !w3c && seen.saw(Glance::TRACE) {
            trace_context::drop_state(headers);
        }
        let said = b3::read(headers, seen);
        let of_b3 =
            |(trace, span)| Context { trace, span, sampled: said.sampled == Some(true), debug: false };
        let brought = brought.or(said.ids.map(of_b3));
        let wish = match (w3c, brought) {
            (true, Some(context)) => Some(context.sampled),
            _ => said.sampled,
        };
        let wish_that_counts = wish.filter(|_| trusted);
        let drawn = wish_that_counts.is_none().then(|| fastrand::u64(..));
        let sampled = wish_that_counts
            .unwrap_or_else(|| drawn.is_some_and(|drawn| self.most.has(drawn) || pushed.has(drawn)));
        let ids = brought.unwrap_or_else(|| Context::begun(sampled));
        let forms = said.forms;
        if sampled {
            let own = Context { span: fastrand::u64(1..), sampled, debug: said.debug, ..ids };
            let place = Place { own, parent: brought.map(|context| context.span), forms, drawn };
            place.write(headers, own.span);
            return Some(place);
        }
        // As it came, unless whoever gets it would decide again, or otherwise.
        if !(w3c && wish == Some(false)) {
            trace_context::write(headers, &Context { sampled, debug: false, ..ids });
        }
        if forms.any() && said.sampled != Some(false) && !w3c {
            b3::write(headers, forms, &Context { sampled, debug: false, ..ids });
        }
        None
    }

    /// As [`arrive`](Self::arrive), for a request of the application, which goes on to sidecars: where it belongs to no trace
    /// and begins none that is kept, nothing is written. Whoever sends it on says so then.
    pub fn set_out(
        &self,
        headers: &mut HeaderMap,
        seen: Glance,
        pushed: Share,
    ) -> Result<Option<Place>, Untraced> {
        if seen.saw(Glance::TRACE) || seen.saw(Glance::B3) {
            return Ok(self.arrive(headers, seen, true, pushed));
        }
        let drawn = fastrand::u64(..);
        if !(self.most.has(drawn) || pushed.has(drawn)) {
            return Err(Untraced);
        }
        let place =
            Place { own: Context::begun(true), parent: None, forms: Forms::default(), drawn: Some(drawn) };
        place.write(headers, place.own.span);
        Ok(Some(place))
    }

    /// As [`arrive`](Self::arrive), for a request that takes no route here: it is decided now, by the own share alone, unless
    /// the sidecar it comes from has said that it is not traced.
    pub fn settled(&self, headers: &mut HeaderMap, seen: Glance, trusted: bool) -> Option<Place> {
        if trusted && is_untraced(headers, seen) {
            return None;
        }
        let place = self.arrive(headers, seen, trusted, Share::NONE)?;
        match self.settle(place, None, None) {
            Ok(place) => Some(place),
            Err(place) => {
                place.write(headers, place.own.span);
                None
            }
        }
    }

    /// Whether a request that took `route`, or none, is still sampled: its place from there on, else what its context is now.
    /// What is `pushed` for it counts, and where nothing is, the own share of the route.
    pub fn settle(
        &self,
        place: Place,
        route: Option<&RouteName>,
        pushed: Option<TraceShare>,
    ) -> Result<Place, Place> {
        let share = || pushed.map_or_else(|| self.shares.of(route), Share::from);
        let settled = Place { drawn: None, ..place };
        if place.drawn.is_none_or(|drawn| share().has(drawn)) {
            return Ok(settled);
        }
        let own = Context { sampled: false, debug: false, ..place.own };
        Err(Place { own, ..settled })
    }

    /// Its metrics.
    pub fn write(counts: &Counts, out: &mut String) {
        use std::fmt::Write as _;
        let _never = writeln!(
            out,
            "# HELP outrigger_spans_exported_total Spans that the collector took.\n\
             # TYPE outrigger_spans_exported_total counter\noutrigger_spans_exported_total {}\n\
             # HELP outrigger_spans_dropped_total Spans that were lost, by why.\n\
             # TYPE outrigger_spans_dropped_total counter\n\
             outrigger_spans_dropped_total{{why=\"no_room\"}} {}\n\
             outrigger_spans_dropped_total{{why=\"failed\"}} {}",
            counts.exported.load(Relaxed),
            counts.no_room.load(Relaxed),
            counts.failed.load(Relaxed),
        );
    }
}

impl Taker for Tracing {
    fn offer(&self, record: &Arc<Record>) {
        if record.place.is_none() {
            return;
        }
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.queue.try_send(Arc::clone(record))
        {
            self.counts.no_room.fetch_add(span::count(record), Relaxed);
        }
    }
}

impl Place {
    /// Writes `span` of this trace into the headers of what goes on: as W3C has it, and in the forms of B3 that came.
    pub fn write(&self, headers: &mut HeaderMap, span: u64) {
        let context = Context { span, ..self.own };
        trace_context::write(headers, &context);
        if self.forms.any() {
            b3::write(headers, self.forms, &context);
        }
    }
}

/// Whether a sidecar says that a request belongs to no trace, and that none is to begin.
pub fn is_untraced(headers: &HeaderMap, seen: Glance) -> bool {
    let bare = !seen.saw(Glance::TRACE) && !seen.saw(Glance::B3);
    bare && seen.saw(Glance::OURS) && headers.contains_key(UNTRACED)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn tracing(share: &str) -> Tracing {
        Tracing::new(share.parse::<Share>().unwrap(), 4, &Arc::default()).0
    }

    fn arrive(share: &str, trusted: bool, headers: &[(&'static str, &str)]) -> (Option<Place>, HeaderMap) {
        let mut map: HeaderMap =
            headers.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
        let seen = Glance::at(&map);
        (tracing(share).arrive(&mut map, seen, trusted, Share::NONE), map)
    }

    fn context(headers: &HeaderMap) -> Context {
        trace_context::read(headers).unwrap()
    }

    #[test]
    fn a_sampled_trace_goes_on_with_a_span_of_its_own() {
        let (place, headers) = arrive("0%", true, &[("traceparent", SAMPLED), ("tracestate", "a=1")]);
        let place = place.unwrap();
        assert_eq!((place.own.trace, place.parent), (TRACE, Some(0x00f0_67aa_0ba9_02b7)));
        assert_eq!(context(&headers), place.own);
        assert_ne!(Some(place.own.span), place.parent);
        assert_eq!(headers["tracestate"], "a=1");
        assert!(!headers.contains_key("b3") && !headers.contains_key("x-b3-traceid"), "nobody asked for B3");
    }

    #[test]
    fn what_is_not_sampled_goes_on_as_it_came() {
        let (place, headers) = arrive("100%", true, &[("traceparent", UNSAMPLED), ("b3", "0")]);
        assert!(place.is_none());
        assert_eq!(
            (&headers["traceparent"], &headers["b3"]),
            (&UNSAMPLED.parse().unwrap(), &"0".parse().unwrap())
        );
    }

    #[test]
    fn what_begins_here_is_sampled_by_share_and_says_so() {
        let (place, headers) = arrive("0%", true, &[]);
        assert!(place.is_none() && !context(&headers).sampled, "nobody behind decides again");
        let (place, headers) = arrive("100%", true, &[]);
        assert_eq!((place.unwrap().parent, context(&headers)), (None, place.unwrap().own));
        let tracing = tracing("25%");
        let kept = (0..4_000).filter(|_| {
            tracing.arrive(&mut HeaderMap::new(), Glance::at(&HeaderMap::new()), true, Share::NONE).is_some()
        });
        let kept = kept.count();
        assert!((800..1_200).contains(&kept), "{kept}");
    }

    #[test]
    fn what_sets_out_untraced_is_said_between_sidecars_and_begins_nothing_there() {
        let none = Glance::at(&HeaderMap::new());
        let mut headers = HeaderMap::new();
        assert_eq!(tracing("0%").set_out(&mut headers, none, Share::NONE).unwrap_err(), Untraced);
        assert!(headers.is_empty(), "whoever sends it says so");
        let place = tracing("0%").set_out(&mut headers, none, Share::ALL).unwrap().unwrap();
        assert_eq!((context(&headers), place.drawn.is_some(), place.parent), (place.own, true, None));
        let seen = Glance::at(&headers);
        assert!(tracing("0%").set_out(&mut headers, seen, Share::NONE).unwrap().is_some(), "it goes on");

        let said = HeaderMap::from_iter([(UNTRACED, "1".parse().unwrap())]);
        for (trusted, kept) in [(true, false), (false, true)] {
            let mut headers = said.clone();
            let place = tracing("100%").settled(&mut headers, Glance::at(&said), trusted);
            assert_eq!(place.is_some(), kept, "the word of a stranger counts for nothing");
        }
        let mut both = said.clone();
        both.insert("traceparent", SAMPLED.parse().unwrap());
        let seen = Glance::at(&both);
        assert!(
            tracing("0%").settled(&mut both, seen, true).is_some(),
            "what belongs to a trace goes on with it"
        );
    }

    #[test]
    fn a_stranger_says_who_it_is_and_not_what_is_kept() {
        let (place, headers) = arrive("0%", false, &[("traceparent", SAMPLED)]);
        assert!(place.is_none());
        assert_eq!((context(&headers).trace, context(&headers).sampled), (TRACE, false));
        let (place, _) = arrive("100%", false, &[("traceparent", UNSAMPLED)]);
        assert_eq!(place.unwrap().own.trace, TRACE);
    }

    #[test]
    fn b3_goes_on_as_b3_and_as_w3c() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let (place, headers) = arrive("0%", true, &[("b3", &format!("{ids}-1"))]);
        let own = place.unwrap().own;
        assert_eq!((own.trace, place.unwrap().parent), (TRACE, Some(0x00f0_67aa_0ba9_02b7)));
        assert_eq!(context(&headers), own);
        assert_eq!(headers["b3"], format!("{:032x}-{:016x}-1", own.trace, own.span));
        assert!(!headers.contains_key("x-b3-traceid"));

        let (place, headers) = arrive("100%", true, &[("b3", &format!("{ids}-0"))]);
        assert!(place.is_none());
        assert_eq!((context(&headers).trace, context(&headers).sampled), (TRACE, false));
        assert_eq!(headers["b3"], format!("{ids}-0"));

        let several = [("x-b3-traceid", "a3ce929d0e0e4736"), ("x-b3-spanid", "00f067aa0ba902b7")];
        let (place, headers) = arrive("0%", true, &several);
        assert!(place.is_none(), "it is left to us");
        assert_eq!(headers["x-b3-sampled"], "0", "and nobody behind decides again");
        let (place, headers) = arrive("100%", true, &several);
        assert_eq!(headers["x-b3-sampled"], "1");
        assert_eq!(headers["x-b3-traceid"], "a3ce929d0e0e4736");
        assert_eq!(headers["x-b3-spanid"], format!("{:016x}", place.unwrap().own.span));
        assert_eq!(context(&headers), place.unwrap().own);
    }

    #[test]
    fn a_state_without_a_trace_is_no_part_of_the_one_that_begins() {
        let handle = "or=00000000000000000000000000000007";
        let (place, headers) =
            arrive("100%", true, &[("traceparent", "00-x"), ("tracestate", &format!("{handle},a=1"))]);
        assert_eq!((place.unwrap().parent, &headers["tracestate"]), (None, &handle.parse().unwrap()));
        let (_, headers) = arrive("0%", true, &[("tracestate", "a=1")]);
        assert!(!headers.contains_key("tracestate") && headers.contains_key("traceparent"));
    }

    #[test]
    fn a_route_may_keep_less_or_more_than_others() {
        let routes = [sample::of_route("shop/pay=100%").unwrap()].into();
        let shares = Shares { others: Share::NONE, routes };
        let (tracing, _records) = Tracing::new(shares, 4, &Arc::default());
        let mut headers = HeaderMap::new();
        let place = tracing.arrive(&mut headers, Glance::at(&HeaderMap::new()), true, Share::NONE).unwrap();
        let paid = tracing.settle(place, Some(&"shop/pay/0".parse().unwrap()), None).unwrap();
        assert!(paid.drawn.is_none() && tracing.settle(paid, None, None).is_ok(), "it is settled once");
        let other = tracing.settle(place, Some(&"shop/list/0".parse().unwrap()), None).unwrap_err();
        other.write(&mut headers, other.own.span);
        assert_eq!(context(&headers), Context { sampled: false, ..place.own });
        let (of_a_trace, _) = arrive("0%", true, &[("traceparent", SAMPLED)]);
        assert!(tracing.settle(of_a_trace.unwrap(), None, None).is_ok(), "whoever began it has decided");
    }

    #[test]
    fn what_is_pushed_stands_in_place_of_the_own_share() {
        let (tracing, _records) = Tracing::new("0%".parse::<Share>().unwrap(), 4, &Arc::default());
        let arrive = |pushed| {
            let mut headers = HeaderMap::new();
            tracing.arrive(&mut headers, Glance::at(&HeaderMap::new()), true, pushed)
        };
        assert!(arrive(Share::NONE).is_none());
        let place = arrive(TraceShare::ALL.into()).unwrap();
        assert!(tracing.settle(place, None, Some(TraceShare::ALL)).is_ok());
        assert!(
            tracing.settle(place, None, None).is_err(),
            "of what nothing is pushed, nothing is traced here"
        );
        assert!(tracing.settle(place, None, TraceShare::of_millionths(0)).is_err());
    }

    /// What goes on says what is kept: an application does not hang its spans under one that is not told.
    #[test]
    fn what_takes_no_route_is_decided_when_it_comes() {
        let routes = [sample::of_route("shop/pay=100%").unwrap()].into();
        let (tracing, _records) = Tracing::new(Shares { others: Share::NONE, routes }, 4, &Arc::default());
        let mut headers = HeaderMap::new();
        assert!(tracing.settled(&mut headers, Glance::at(&HeaderMap::new()), false).is_none());
        assert!(!context(&headers).sampled);
    }

    #[test]
    fn a_full_queue_is_counted_and_holds_up_nobody() {
        use crate::telemetry::observe::Direction;
        let counts = Arc::<Counts>::default();
        let (tracing, _records) = Tracing::new(Share::ALL, 1, &counts);
        let place = tracing.arrive(&mut HeaderMap::new(), Glance::at(&HeaderMap::new()), true, Share::NONE);
        let record = || Arc::new(Record { place, ..Record::for_test(Direction::Outbound) });
        tracing.offer(&record());
        tracing.offer(&record());
        tracing.offer(&Arc::new(Record::for_test(Direction::Outbound)));
        assert_eq!(counts.no_room.load(Relaxed), 1);
    }
}
