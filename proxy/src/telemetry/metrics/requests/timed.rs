//! A request from its first byte to the last of its answer.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Response};
use tokio::time::Instant;

use super::method::MethodClass;
use super::outcome::{Ended, Outcome, status_of_grpc};
use super::series::{Series, Took};
use crate::http::glance::Glance;
use crate::request::trace_context;
use crate::telemetry::observe::Note;

/// A request that has come.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// When: the one look at the clock for everything that begins with it.
    pub began: Instant,
    method: MethodClass,
    /// Its trace, where that is kept by somebody.
    trace: Option<u128>,
}

impl Timed {
    /// A request that comes now.
    pub fn now(method: &Method, headers: &HeaderMap, seen: Glance) -> Self {
        let trace = if seen.saw(Glance::TRACE) { trace_context::sampled(headers) } else { None };
        Self { began: Instant::now(), method: MethodClass::of(method), trace }
    }

    /// What could not be read as a request.
    pub fn unread() -> Self {
        Self { began: Instant::now(), method: MethodClass::default(), trace: None }
    }

    /// It has this note, which knows of its trace where this process decides what is kept.
    #[must_use]
    pub fn noted(mut self, note: Option<&Note>) -> Self {
        self.trace = note.and_then(Note::kept_trace).or(self.trace);
        self
    }

    /// It is part of a trace that is kept.
    pub fn traced(&mut self, trace: u128) {
        self.trace = Some(trace);
    }

    /// Counts it as refused, or answered, by this proxy itself. A reason in the answer is its own.
    pub fn refused<B>(self, series: &Series, answer: &Response<B>) {
        let told = (true, true);
        let outcome = Outcome::of(self.method, answer.status().as_u16(), answer.headers(), told);
        series.record(outcome, self.began.elapsed(), self.trace);
    }

    /// Its time from now on, where somebody has answered `now`, after `upstream`. `told` is whether it is gRPC, and whether a reason
    /// in the answer is one of the mesh.
    pub fn answered<B>(
        self,
        series: Arc<Series>,
        answer: &Response<B>,
        (upstream, now): (Duration, Instant),
        told: (bool, bool),
    ) -> Timing {
        series.answered(Took {
            upstream,
            added: now.saturating_duration_since(self.began).saturating_sub(upstream),
        });
        let outcome = Outcome::of(self.method, answer.status().as_u16(), answer.headers(), told);
        Timing { series, arrival: self, outcome }
    }
}

/// A request whose answer is on its way.
#[derive(Debug)]
pub struct Timing {
    series: Arc<Series>,
    arrival: Timed,
    outcome: Outcome,
}

impl Timing {
    /// What comes behind an answer of gRPC.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.outcome.grpc = status_of_grpc(trailers).or(self.outcome.grpc);
    }

    /// The answer has ended.
    pub fn end(self, ended: Ended) {
        let Self { series, arrival, outcome } = self;
        series.record(Outcome { ended, ..outcome }, arrival.began.elapsed(), arrival.trace);
    }
}
