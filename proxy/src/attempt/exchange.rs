//! One request at one endpoint, from its sending to the end of the answer's body.
//!
//! The value is the evidence that something is in flight: whatever way it is dropped, the endpoint's load goes down and
//! the connection is given back or closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::attempt::pool::Lease;
use crate::http::body::Replay;
use crate::http::upgrade::Handed;
use crate::live::{EndpointLive, Millis};
use crate::request::places::Places;
use crate::telemetry::metrics::Traffic;

/// One request at one endpoint.
#[derive(Debug)]
pub struct Exchange {
    endpoint: Arc<EndpointLive>,
    started: Instant,
    lease: Option<Lease>,
    /// The request's body: a connection that still sends it can not serve another.
    upload: Option<Replay>,
    /// Set while the answer's success is not known before its end (gRPC).
    pending: Option<(Arc<Traffic>, Duration)>,
    /// The upstream after it has switched to another protocol.
    switched: Option<Box<Handed>>,
    ended: bool,
    /// Its places in bulkheads.
    places: Places,
}

impl Exchange {
    /// Begins: the endpoint has one more in flight.
    pub fn begin(endpoint: Arc<EndpointLive>, upload: Option<Replay>) -> Self {
        endpoint.load.begin();
        let started = Instant::now();
        let places = Places::default();
        Self { endpoint, started, lease: None, upload, pending: None, switched: None, ended: false, places }
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

    /// Holds the upstream that has switched to another protocol.
    pub fn hold_switched(&mut self, stream: Handed) {
        self.switched = Some(Box::new(stream));
    }

    /// The upstream that has switched, if it has.
    pub fn switched(&mut self) -> Option<Handed> {
        self.switched.take().map(|stream| *stream)
    }

    /// The endpoint answered; whether the answer is a failure is known.
    pub fn answered(&self, failed: bool) {
        let now = Instant::now();
        if failed {
            self.endpoint.load.failed(Millis::at(now), fastrand::u64(..));
        } else {
            self.endpoint.load.succeeded(now - self.started, Millis::at(now));
        }
    }

    /// The request is counted when the body ends, since only the trailers tell whether it succeeded.
    pub fn count_at_end(&mut self, traffic: Arc<Traffic>, latency: Duration) {
        self.pending = Some((traffic, latency));
    }

    /// The trailers of the answer have come.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some((traffic, latency)) = self.pending.take() {
            let failed = grpc_failure(trailers).unwrap_or(true);
            if failed {
                self.endpoint.load.failed(Millis::now(), fastrand::u64(..));
            }
            traffic.record(!failed, latency);
        }
    }

    /// The answer broke off.
    pub fn broken(&mut self) {
        self.endpoint.load.failed(Millis::now(), fastrand::u64(..));
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
        if let Some((traffic, latency)) = self.pending.take() {
            // An end without a status is what a broken server sends.
            traffic.record(false, latency);
        }
        self.end();
    }

    fn end(&mut self) {
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
        self.end();
    }
}

/// Whether a gRPC status in `headers` is the server's fault; `None` when there is no status.
pub fn grpc_failure(headers: &HeaderMap) -> Option<bool> {
    let status = headers.get("grpc-status")?.as_bytes();
    // DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS. Not UNKNOWN: many servers' word for an exception.
    Some(matches!(status, b"4" | b"13" | b"14" | b"15"))
}
