//! One request at one endpoint, from its sending to the end of the answer's body.
//!
//! The value is the evidence that something is in flight: whatever way it is dropped, the endpoint's load goes down and
//! the connection is given back or closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use outrigger_certs::Peer;

use crate::attempt::endpoint_breaker;
use crate::attempt::pool::Lease;
use crate::breaker::{Outcome, Pass};
use crate::http::body::Replay;
use crate::http::upgrade::Handed;
use crate::live::{EndpointLive, Millis};
use crate::request::handle::Held;
use crate::request::places::Places;
use crate::request::service_breaker::Watched;
use crate::telemetry::metrics::Traffic;
use crate::telemetry::metrics::requests::{Ended, Timing};

/// One request at one endpoint.
#[derive(Debug)]
pub struct Exchange {
    endpoint: Arc<EndpointLive>,
    started: Instant,
    /// What the endpoint's breaker let pass.
    pass: Pass,
    /// Whether only the end of the answer tells how it went.
    undecided: bool,
    /// Breakers of the service that wait for the end of the answer, too.
    watched: Vec<Watched>,
    lease: Option<Lease>,
    /// The request's body: a connection that still sends it can not serve another.
    upload: Option<Replay>,
    /// Set while the answer's success is not known before its end (gRPC).
    pending: Option<(Arc<Traffic>, Duration)>,
    /// Its request, to be counted when the answer has ended.
    timing: Option<Timing>,
    /// The upstream after it has switched to another protocol.
    switched: Option<Box<Handed>>,
    /// By what the application's own calls are known while it serves this.
    handle: Option<Held>,
    ended: bool,
    /// Its places in bulkheads.
    places: Places,
}

impl Exchange {
    /// Begins: the endpoint has one more in flight.
    pub fn begin(endpoint: Arc<EndpointLive>, upload: Option<Replay>) -> Self {
        endpoint.load.begin();
        let started = Instant::now();
        Self {
            endpoint,
            started,
            pass: Pass::regardless(),
            undecided: false,
            watched: Vec::new(),
            lease: None,
            upload,
            pending: None,
            timing: None,
            switched: None,
            handle: None,
            ended: false,
            places: Places::default(),
        }
    }

    /// Holds places in bulkheads until the end, which may have come.
    pub fn hold_places(&mut self, places: Places) {
        if !self.ended {
            self.places.join(places);
        }
    }

    /// It has become long-lived.
    pub fn age(&mut self) {
        self.places.age();
    }

    /// The endpoint it is at.
    pub fn endpoint(&self) -> &Arc<EndpointLive> {
        &self.endpoint
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Whether the caller was silent for too long in the middle of its body.
    pub fn caller_is_silent(&self) -> bool {
        self.upload.as_ref().is_some_and(Replay::is_silent)
    }

    /// Holds the connection until the end.
    pub fn hold(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// Who is at the other end, where it proved that.
    pub fn peer(&self) -> Option<&Peer> {
        self.lease.as_ref().and_then(Lease::peer)
    }

    /// Holds the handle until the end.
    pub fn hold_handle(&mut self, handle: Option<Held>) {
        self.handle = handle;
    }

    /// Holds the upstream that has switched to another protocol.
    pub fn hold_switched(&mut self, stream: Handed) {
        self.switched = Some(Box::new(stream));
    }

    /// The upstream that has switched, if it has.
    pub fn switched(&mut self) -> Option<Handed> {
        self.switched.take().map(|stream| *stream)
    }

    /// Under which pass of the endpoint's breaker it is.
    pub fn under(&mut self, pass: Pass) {
        self.pass = pass;
    }

    /// Tells these, too, when the end of the answer tells how it went.
    pub fn watch(&mut self, watched: Vec<Watched>) {
        self.watched.extend(watched);
    }

    /// How long it has taken until now.
    pub fn latency(&self) -> Duration {
        self.started.elapsed()
    }

    /// The endpoint answered; `None` where only the end of the answer tells how.
    pub fn answered(&mut self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            self.note(outcome);
        } else {
            self.undecided = true;
            self.endpoint.load.succeeded(self.latency(), Millis::now());
        }
    }

    /// Something of the answer's body has come. Of a probe that is enough: a stream may last for hours.
    pub fn moved(&mut self) {
        if !self.undecided {
            return;
        }
        let latency = self.started.elapsed();
        for watched in self.watched.iter_mut().filter(|w| w.is_probe()) {
            watched.note(Outcome::Success(latency));
        }
        if self.pass.is_probe() {
            let outcome = Outcome::Success(self.latency());
            self.endpoint.breaker.note(&mut self.pass, outcome, Millis::now(), fastrand::u64(..));
        }
    }

    /// The request is counted when the body ends, since only the trailers tell whether it succeeded.
    pub fn count_at_end(&mut self, traffic: Arc<Traffic>, latency: Duration) {
        self.pending = Some((traffic, latency));
    }

    /// The request is counted with all its time when the body ends.
    pub fn time(&mut self, timing: Timing) {
        self.timing = Some(timing);
    }

    /// The trailers of the answer have come.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(timing) = &mut self.timing {
            timing.trailers(trailers);
        }
        let failed = grpc_failure(trailers).unwrap_or(true);
        self.decided(failed);
        if let Some((traffic, latency)) = self.pending.take() {
            traffic.record(!failed, latency);
        }
    }

    /// The answer broke off.
    pub fn broken(&mut self) {
        self.undecided = false;
        self.timed(Ended::Broken);
        self.note(endpoint_breaker::FAILURE);
        self.tell(endpoint_breaker::FAILURE);
        if let Some((traffic, latency)) = self.pending.take() {
            traffic.record(false, latency);
        }
    }

    /// The answer is there to its end: the connection can serve another.
    pub fn finish(&mut self) {
        let sent = self.upload.as_ref().is_none_or(|upload| upload.ended_at().is_some());
        match self.lease.take() {
            Some(lease) if sent => lease.give_back(),
            // Nobody needs the rest of the upload. Its caller is told by the end of the connection, or of the stream.
            _ => self.upload.iter().filter(|_| !sent).for_each(Replay::give_up),
        }
        self.decided(true);
        if let Some((traffic, latency)) = self.pending.take() {
            // An end without a status is what a broken server sends.
            traffic.record(false, latency);
        }
        self.timed(Ended::Whole);
        self.end();
    }

    /// The end of the answer told how it went, where nothing did before.
    fn decided(&mut self, failed: bool) {
        if std::mem::take(&mut self.undecided) {
            let success = Outcome::Success(self.latency());
            self.tell(if failed { endpoint_breaker::FAILURE } else { success });
            if failed {
                self.note(endpoint_breaker::FAILURE);
            } else {
                let outcome = Outcome::Success(self.latency());
                self.endpoint.breaker.note(&mut self.pass, outcome, Millis::now(), 0);
            }
        }
    }

    fn timed(&mut self, ended: Ended) {
        if let Some(timing) = self.timing.take() {
            timing.end(ended);
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        for mut watched in self.watched.drain(..) {
            watched.note(outcome);
        }
    }

    fn note(&mut self, outcome: Outcome) {
        endpoint_breaker::note(&self.endpoint, &mut self.pass, outcome);
    }

    fn end(&mut self) {
        self.handle = None;
        if !std::mem::replace(&mut self.ended, true) {
            self.endpoint.load.end();
            self.places = Places::default();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((traffic, latency)) = self.pending.take() {
            // The caller went away before the end: not the server's fault.
            traffic.record(true, latency);
        }
        self.timed(Ended::Left);
        self.end();
    }
}

/// Whether a gRPC status in `headers` is the server's fault; `None` when there is no status.
pub fn grpc_failure(headers: &HeaderMap) -> Option<bool> {
    let status = headers.get("grpc-status")?.as_bytes();
    // DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS. Not UNKNOWN: many servers' word for an exception.
    Some(matches!(status, b"4" | b"13" | b"14" | b"15"))
}
