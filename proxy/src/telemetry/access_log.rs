//! The access log: a line for each request and each opaque connection that passes here, or only for those that access
//! policies refuse.
//!
//! A [`Note`] is taken when a request comes, goes along with it, and becomes its line when the last who holds it lets go:
//! with the last byte of the answer, or when the caller has gone. So there is one line whatever way a request ends. Where
//! nothing is written there is no note, and a request pays one look.
//!
//! What is noted is what the mesh itself knows: names, the canonical path, numbers. Never a header's value, a token, a query
//! or a byte of a body. Deliberately elsewhere: how a line is written, and where it goes ([`writer`]).

mod line;
pub mod writer;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use outrigger_mesh::{
    AccessPolicyName, Because, Decision, Endpoint, EndpointUid, Reason, RouteName, RuleName, ServiceName,
    SpiffeId, Version,
};

use crate::error::{Error, Who};
use crate::http::body::ResponseBody;
use crate::http::headers;
use crate::live::Millis;
use crate::request::trace_context;
use crate::telemetry::ports::Ended;

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
    lines: SyncSender<Box<Record>>,
    /// Whether everything gets a line.
    all: bool,
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
    fn begin(&self, lines: Lines, queue: SyncSender<Box<Record>>) {
        let all = lines == Lines::All;
        let _only_once = self.queue.set(Queue { lines: queue, all });
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
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes a note of what has come just now, where lines are written.
    pub fn note(self: &Arc<Self>, direction: Direction) -> Option<Rc<Note>> {
        self.queue.get()?;
        Some(Rc::new(Note {
            log: Arc::clone(self),
            record: RefCell::new(Some(Box::new(Record::new(direction)))),
        }))
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

    fn take(&self, mut record: Box<Record>) {
        let Some(queue) = self.queue.get() else { return };
        let meant = queue.all || (record.is_refused() && within_bound());
        if !meant {
            return;
        }
        record.took = record.began.elapsed();
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.lines.try_send(record) {
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

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the application into the mesh.
    Outbound,
    /// From the mesh to the application.
    Inbound,
    /// From outside into the mesh.
    Gateway,
}

/// A request or an opaque connection under way, of which a line will be written.
#[derive(Debug)]
pub struct Note {
    log: Arc<AccessLog>,
    record: RefCell<Option<Box<Record>>>,
}

impl Note {
    /// What was asked for, as the mesh reads it.
    pub fn asked(&self, parts: &Parts, host: &str, path: Option<&str>) {
        self.with(|r| {
            r.host = Some(cut(host, HOST));
            r.path = path.map(|path| cut(path, PATH));
            r.path_cut = path.is_some_and(|path| path.len() > PATH);
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

    /// By which route.
    pub fn by(&self, route: Option<&RouteName>) {
        self.with(|r| r.route = route.cloned());
    }

    /// An endpoint is tried, the how manieth it is.
    pub fn tries(&self, attempt: u32, at: &Endpoint) {
        self.with(|r| {
            (r.attempts, r.version, r.endpoint) = (attempt, at.version.clone(), Some(at.uid.clone()));
            r.backend = (r.service.as_ref() != Some(&at.service)).then(|| at.service.clone());
        });
    }

    /// What the access policies say.
    pub fn decided(&self, decision: &Decision<'_>) {
        let by = match decision.because {
            Because::Rule(name) => By::Rule(name.policy.clone(), Arc::clone(&name.rule)),
            Because::NoneAllows => By::NoneAllows,
            Because::Default => By::Default,
        };
        self.with(|r| r.decision = Some((decision.allowed, by)));
    }

    /// A rule on trial would refuse it.
    pub fn audited(&self, name: &RuleName) {
        self.with(|r| {
            if r.audited.len() < AUDITED {
                r.audited.push((name.policy.clone(), Arc::clone(&name.rule)));
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
            r.status = Some(answer.status().as_u16());
            r.grpc_status = grpc_status(answer.headers());
            r.hop = answer.headers().get(headers::HOP).and_then(|hop| match hop.as_bytes() {
                b"client" => Some("client"),
                b"server" => Some("server"),
                _ => None,
            });
            let reason = answer.headers().get(headers::REASON).and_then(|v| v.to_str().ok());
            let told = reason.and_then(|told| Reason::ALL.into_iter().find(|r| r.as_str() == told));
            r.reason = r.reason.or(told);
        });
        answer.body_mut().hold_note(self);
    }

    /// So many bytes more have gone to the caller.
    pub fn sent(&self, bytes: usize) {
        self.with(|r| r.sent = Some(r.sent.unwrap_or(0) + bytes as u64));
    }

    /// The status of gRPC, which came behind the answer.
    pub fn trailers(&self, trailers: &HeaderMap) {
        self.with(|r| r.grpc_status = grpc_status(trailers).or(r.grpc_status));
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

    fn with(&self, work: impl FnOnce(&mut Record)) {
        if let Some(record) = self.record.borrow_mut().as_deref_mut() {
            work(record);
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.log.take(record);
        }
    }
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// It goes on.
    Open,
    /// As it should.
    Whole,
    /// In the middle.
    Broken,
}

/// What a line tells.
#[derive(Debug)]
struct Record {
    at: SystemTime,
    began: Instant,
    direction: Direction,
    opaque: bool,
    method: Option<Box<str>>,
    host: Option<Box<str>>,
    path: Option<Box<str>>,
    path_cut: bool,
    trace: Option<[u8; 32]>,
    caller: Caller,
    service: Option<ServiceName>,
    backend: Option<ServiceName>,
    version: Option<Version>,
    endpoint: Option<EndpointUid>,
    route: Option<RouteName>,
    attempts: u32,
    status: Option<u16>,
    grpc_status: Option<u8>,
    reason: Option<Reason>,
    who: Option<Who>,
    hop: Option<&'static str>,
    body: BodyEnd,
    ended: Option<Ended>,
    received: Option<u64>,
    sent: Option<u64>,
    decision: Option<(bool, By)>,
    audited: Vec<(AccessPolicyName, Arc<str>)>,
    took: Duration,
}

/// Who asks.
#[derive(Debug)]
enum Caller {
    /// The own application, or somebody outside.
    Unknown,
    /// Somebody who proved nothing.
    Nobody,
    Proven(SpiffeId),
}

/// What decided.
#[derive(Debug)]
enum By {
    Rule(AccessPolicyName, Arc<str>),
    NoneAllows,
    Default,
}

impl Record {
    fn new(direction: Direction) -> Self {
        Self {
            at: SystemTime::now(),
            began: Instant::now(),
            direction,
            opaque: false,
            method: None,
            host: None,
            path: None,
            path_cut: false,
            trace: None,
            caller: Caller::Unknown,
            service: None,
            backend: None,
            version: None,
            endpoint: None,
            route: None,
            attempts: 0,
            status: None,
            grpc_status: None,
            reason: None,
            who: None,
            hop: None,
            body: BodyEnd::Whole,
            ended: None,
            received: None,
            sent: None,
            decision: None,
            audited: Vec::new(),
            took: Duration::ZERO,
        }
    }

    fn is_refused(&self) -> bool {
        self.decision.as_ref().is_some_and(|(allowed, _)| !allowed) || !self.audited.is_empty()
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// So much of `text` as a line has room for.
fn cut(text: &str, most: usize) -> Box<str> {
    text[..text.floor_char_boundary(most)].into()
}

/// How many refusals a thread tells in a second.
const REFUSALS: u32 = 10;
/// How much of each a line has room for.
const METHOD: usize = 32;
const HOST: usize = 260;
const PATH: usize = 1_024;
const AUDITED: usize = 8;
