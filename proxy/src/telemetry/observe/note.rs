//! The note that goes along with a request, and what each on its way writes into it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Method, Response};
use outrigger_mesh::{
    Because, Decision, Endpoint, Reason, RouteName, RuleName, ServiceName, SpiffeId, TraceShare, Version,
};

use super::Observe;
use super::record::{Attempt, BodyEnd, By, Caller, Direction, Record, Rule};
use crate::error::Error;
use crate::http::body::ResponseBody;
use crate::http::grpc_status;
use crate::http::headers as ours;
use crate::request::trace_context;
use crate::telemetry::ports::Ended;
use crate::telemetry::trace::Place;

/// A request or an opaque connection under way.
#[derive(Debug)]
pub struct Note {
    observe: Arc<Observe>,
    record: RefCell<Option<Record>>,
}

impl Note {
    pub(super) fn new(observe: &Arc<Observe>, direction: Direction, place: Option<Place>) -> Self {
        Self { observe: Arc::clone(observe), record: RefCell::new(Some(Record::new(direction, place))) }
    }

    /// What was asked for, as the mesh reads it.
    pub fn asked(&self, parts: &Parts, host: &str, path: Option<&str>) {
        let path = path.map(|path| self.observe.redaction().apply(path));
        self.with(|r| {
            r.host = Some(cut(host, HOST));
            r.path_cut = path.as_ref().is_some_and(|path| path.len() > PATH);
            r.path = path.map(|path| cut(&path, PATH));
            r.trace = trace_context::trace_id(&parts.headers);
        });
    }

    /// How it is asked; all that is known of what can not be read.
    pub fn began(&self, method: &Method) {
        self.with(|r| r.method = Some(cut(method.as_str(), METHOD)));
    }

    /// Who asks; `None` for somebody who proved nothing.
    pub fn of(&self, caller: Option<&SpiffeId>) {
        self.with(|r| r.caller = caller.cloned().map_or(Caller::Nobody, Caller::Proven));
    }

    /// Which service is asked.
    pub fn to(&self, service: &ServiceName, version: Option<&Version>) {
        self.with(|r| (r.service, r.version) = (Some(service.clone()), version.cloned()));
    }

    /// By which route; that may decide that it is not traced after all, which its headers say then.
    /// A share that is `pushed` stands in place of the sidecar's own.
    pub fn by(&self, route: Option<&RouteName>, pushed: Option<TraceShare>, headers: &mut HeaderMap) {
        self.with(|r| {
            r.route = route.cloned();
            r.place = r.place.take().and_then(|place| match self.observe.settle(place, route, pushed) {
                Ok(place) => Some(place),
                Err(place) => {
                    place.write(headers, place.own.span);
                    None
                }
            });
        });
    }

    /// An endpoint is tried, the how manieth it is, `at` its address.
    pub fn tries(&self, attempt: u32, endpoint: &Endpoint, at: SocketAddr) {
        self.with(|r| {
            (r.attempts, r.version, r.endpoint) =
                (attempt, endpoint.version.clone(), Some(endpoint.uid.clone()));
            r.backend = (r.service.as_ref() != Some(&endpoint.service)).then(|| endpoint.service.clone());
            if r.tried.len() < Record::ATTEMPTS {
                r.tried.push(Attempt {
                    number: attempt,
                    service: endpoint.service.clone(),
                    endpoint: endpoint.uid.clone(),
                    version: endpoint.version.clone(),
                    address: Some(at),
                    peer: None,
                    began: r.began.elapsed(),
                    head: None,
                    status: None,
                    reason: None,
                    span: r.place.map_or(0, |_| fastrand::u64(1..)),
                    again: None,
                });
            }
        });
    }

    /// The id of the trace that it is part of, where that is kept, whatever route it takes.
    pub fn kept_trace(&self) -> Option<u128> {
        let record = self.record.borrow();
        let settled = record.as_ref()?.place.as_ref().filter(|place| place.drawn.is_none());
        settled.map(|place| place.own.trace)
    }

    /// Writes the span of the attempt under way into its headers, where it is traced: what comes of it hangs under it.
    pub fn write_trace(&self, headers: &mut HeaderMap) {
        self.with(|r| {
            let under_way = r.tried.last().filter(|attempt| attempt.number == r.attempts);
            if let Some(place) = &r.place {
                place.write(headers, under_way.map_or(place.own.span, |attempt| attempt.span));
            }
        });
    }

    /// The attempt under way was answered, by whoever proved to be `peer`.
    pub fn attempt_answered<B>(&self, answer: &Response<B>, peer: Option<&SpiffeId>) {
        self.attempt(|attempt| {
            attempt.status = Some(answer.status().as_u16());
            attempt.peer = peer.cloned();
            attempt.reason = told(answer.headers());
        });
    }

    /// The attempt under way failed.
    pub fn attempt_failed(&self, error: &Error) {
        self.attempt(|attempt| attempt.reason = Some(error.reason));
    }

    /// Another attempt follows the one under way, for the sake of `cause`.
    pub fn again(&self, cause: &'static str) {
        self.with(|r| {
            if let Some(attempt) = r.tried.last_mut().filter(|attempt| attempt.number == r.attempts) {
                attempt.again = Some(cause);
            }
        });
    }

    /// What the access policies say.
    pub fn decided(&self, decision: &Decision<'_>) {
        let by = match decision.because {
            Because::Rule(name) => By::Rule(rule(name)),
            Because::NoneAllows => By::NoneAllows,
            Because::Default => By::Default,
        };
        self.with(|r| r.decision = Some((decision.allowed, by)));
    }

    /// A rule on trial would refuse it.
    pub fn audited(&self, name: &RuleName) {
        self.with(|r| {
            if r.audited.len() < AUDITED {
                r.audited.push(rule(name));
            }
        });
    }

    /// It was refused, or failed.
    pub fn failed(&self, error: &Error) {
        self.with(|r| (r.reason, r.who) = (Some(error.reason), Some(error.who)));
    }

    /// It is answered; to the end of the answer the note goes with its body.
    pub fn answered(self: Rc<Self>, answer: &mut Response<ResponseBody>) {
        self.with(|r| {
            r.head = Some(r.began.elapsed());
            r.status = Some(answer.status().as_u16());
            r.grpc_status = status_of_grpc(answer.headers());
            r.hop = answer.headers().get(ours::HOP).and_then(|hop| match hop.as_bytes() {
                b"client" => Some("client"),
                b"server" => Some("server"),
                _ => None,
            });
            r.reason = r.reason.or_else(|| told(answer.headers()));
        });
        answer.body_mut().hold_note(self);
    }

    /// So many bytes more have gone to the caller.
    pub fn sent(&self, bytes: usize) {
        self.with(|r| r.sent = Some(r.sent.unwrap_or(0) + bytes as u64));
    }

    /// The status of gRPC, which came behind the answer.
    pub fn trailers(&self, trailers: &HeaderMap) {
        self.with(|r| r.grpc_status = status_of_grpc(trailers).or(r.grpc_status));
    }

    /// How the answer's body ended. One that goes on when the note ends was let go by the caller.
    pub fn body(&self, end: BodyEnd) {
        self.with(|r| r.body = end);
    }

    /// An opaque connection begins.
    pub fn is_opaque(&self) {
        self.with(|r| r.opaque = true);
    }

    /// An opaque connection begins, to a place outside the mesh.
    pub fn goes_outside(&self, to: SocketAddr) {
        self.with(|r| (r.opaque, r.host) = (true, Some(to.to_string().into())));
    }

    /// An opaque connection has ended.
    pub fn ended(&self, ended: Ended, received: u64, sent: u64) {
        self.with(|r| (r.ended, r.received, r.sent) = (Some(ended), Some(received), Some(sent)));
    }

    /// The attempt under way has come to the head of its answer, or to its end.
    fn attempt(&self, work: impl FnOnce(&mut Attempt)) {
        self.with(|r| {
            let now = r.began.elapsed();
            if let Some(attempt) = r.tried.last_mut().filter(|attempt| attempt.number == r.attempts) {
                attempt.head = Some(now);
                work(attempt);
            }
        });
    }

    fn with(&self, work: impl FnOnce(&mut Record)) {
        if let Some(record) = self.record.borrow_mut().as_mut() {
            work(record);
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.took = record.began.elapsed();
            record.place = record.place.and_then(|place| self.observe.settle(place, None, None).ok());
            self.observe.offer(record);
        }
    }
}

fn rule(name: &RuleName) -> Rule {
    Rule { policy: name.policy.clone(), name: Arc::clone(&name.rule) }
}

/// The reason that an answer names.
fn told(headers: &HeaderMap) -> Option<Reason> {
    let told = headers.get(ours::REASON)?.to_str().ok()?;
    Reason::ALL.into_iter().find(|r| r.as_str() == told)
}

fn status_of_grpc(headers: &HeaderMap) -> Option<u8> {
    grpc_status::of(headers)?.try_into().ok()
}

/// So much of `text` as a record has room for.
fn cut(text: &str, most: usize) -> Box<str> {
    text[..text.floor_char_boundary(most)].into()
}

/// How much of each a record has room for.
const METHOD: usize = 32;
const HOST: usize = 260;
const PATH: usize = 1_024;
const AUDITED: usize = 8;
