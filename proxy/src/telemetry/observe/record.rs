//! What is known of a request or an opaque connection once it has ended.
//!
//! It is what the mesh itself knows: names, the canonical path, numbers. Never a header's value, a token, a query or a byte
//! of a body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use outrigger_mesh::{AccessPolicyName, EndpointUid, Reason, RouteName, ServiceName, SpiffeId, Version};

use crate::error::Who;
use crate::telemetry::ports::Ended;
use crate::telemetry::trace::Place;

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

impl Direction {
    /// Its name in lines, spans and taps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Gateway => "gateway",
        }
    }
}

/// A request or an opaque connection that has ended.
#[derive(Debug)]
pub struct Record {
    /// When it came, by the clock on the wall.
    pub at: SystemTime,
    /// When it came.
    pub began: Instant,
    /// How long after that the head of its answer was ready for the caller.
    pub head: Option<Duration>,
    /// How long it took to its end.
    pub took: Duration,
    /// Which way it went.
    pub direction: Direction,
    /// Whether it is an opaque connection.
    pub opaque: bool,
    /// The method, cut to 32 bytes.
    pub method: Option<Box<str>>,
    /// What it named as its host, cut to 260 bytes.
    pub host: Option<Box<str>>,
    /// The canonical path without the query, cut to 1,024 bytes.
    pub path: Option<Box<str>>,
    /// Whether the path was longer.
    pub path_cut: bool,
    /// Its place in its trace, where it is sampled.
    pub place: Option<Place>,
    /// The id of its trace: hex digits.
    pub trace: Option<[u8; 32]>,
    /// Who asked.
    pub caller: Caller,
    /// Which service was asked.
    pub service: Option<ServiceName>,
    /// Where the last attempt went, if to another service.
    pub backend: Option<ServiceName>,
    /// The version that was asked last.
    pub version: Option<Version>,
    /// The instance that was asked last.
    pub endpoint: Option<EndpointUid>,
    /// The route it took.
    pub route: Option<RouteName>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Each of them, the first [`ATTEMPTS`](Self::ATTEMPTS).
    pub tried: Vec<Attempt>,
    /// The status of its answer.
    pub status: Option<u16>,
    /// The status of gRPC.
    pub grpc_status: Option<u8>,
    /// Why it was refused, or failed.
    pub reason: Option<Reason>,
    /// Who was at fault, where this proxy knows.
    pub who: Option<Who>,
    /// Whose proxy refused: `client` or `server`.
    pub hop: Option<&'static str>,
    /// How the answer's body ended.
    pub body: BodyEnd,
    /// How an opaque connection ended.
    pub ended: Option<Ended>,
    /// Bytes that came from the caller; of opaque connections only.
    pub received: Option<u64>,
    /// Bytes that went to the caller.
    pub sent: Option<u64>,
    /// Whether the access policies allowed it, and which said so.
    pub decision: Option<(bool, By)>,
    /// Rules on trial that would have refused it, 8 at most.
    pub audited: Vec<Rule>,
}

/// One attempt of a request.
#[derive(Debug)]
pub struct Attempt {
    /// The how manieth it was, from 1.
    pub number: u32,
    /// The service of the endpoint.
    pub service: ServiceName,
    /// The endpoint.
    pub endpoint: EndpointUid,
    /// Its version.
    pub version: Option<Version>,
    /// Where it was reached.
    pub address: Option<SocketAddr>,
    /// Who proved to be there, once it has answered.
    pub peer: Option<SpiffeId>,
    /// When it began, after the request came.
    pub began: Duration,
    /// When it failed, or the head of its answer came.
    pub head: Option<Duration>,
    /// The status of its answer.
    pub status: Option<u16>,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// Its span; 0 where it is not traced.
    pub span: u64,
    /// Why another followed.
    pub again: Option<&'static str>,
}

/// Who asks.
#[derive(Debug)]
pub enum Caller {
    /// The own application, or somebody outside.
    Unknown,
    /// Somebody who proved nothing.
    Nobody,
    /// Whoever this is.
    Proven(SpiffeId),
}

/// What decided.
#[derive(Debug)]
pub enum By {
    /// A rule.
    Rule(Rule),
    /// That none allows it.
    NoneAllows,
    /// The mesh's default.
    Default,
}

/// A rule of an access policy.
#[derive(Debug)]
pub struct Rule {
    /// The policy.
    pub policy: AccessPolicyName,
    /// The rule's name in it.
    pub name: Arc<str>,
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

impl Record {
    /// As many attempts are told one by one.
    pub const ATTEMPTS: usize = 16;

    /// What has come just now.
    pub(super) fn new(direction: Direction, place: Option<Place>) -> Self {
        Self {
            at: SystemTime::now(),
            began: Instant::now(),
            head: None,
            took: Duration::ZERO,
            direction,
            opaque: false,
            method: None,
            host: None,
            path: None,
            path_cut: false,
            place,
            trace: None,
            caller: Caller::Unknown,
            service: None,
            backend: None,
            version: None,
            endpoint: None,
            route: None,
            attempts: 0,
            tried: Vec::new(),
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
        }
    }

    /// Whether access policies refused it, or one on trial would have.
    pub fn is_refused(&self) -> bool {
        self.decision.as_ref().is_some_and(|(allowed, _)| !allowed) || !self.audited.is_empty()
    }

    /// Who proved to be there when the last attempt was answered.
    pub fn called(&self) -> Option<&SpiffeId> {
        self.tried.last().and_then(|attempt| attempt.peer.as_ref())
    }

    /// The id of its trace, where it belongs to one.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace.as_ref().and_then(|digits| std::str::from_utf8(digits).ok())
    }

    /// How it ended, where that is not plain from the rest: `broken` in the middle of the answer, `cut` by the caller.
    pub fn ending(&self) -> Option<&'static str> {
        match self.ended {
            Some(ended) => Some(ended.as_str()),
            None if self.opaque => self.reason.is_none().then_some("cut"),
            None if self.body == BodyEnd::Broken => Some("broken"),
            None if self.body == BodyEnd::Open || self.status.is_none() => Some("cut"),
            None => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(direction: Direction) -> Self {
        Self::new(direction, None)
    }

    /// One that has everything there is to tell.
    #[cfg(test)]
    pub(crate) fn filled_for_test() -> Self {
        use crate::request::trace_context::{Context, b3::Forms};
        let service: ServiceName = "shop/cart".parse().unwrap();
        let id: SpiffeId = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        let rule = || Rule { policy: "shop/p".parse().unwrap(), name: "0".into() };
        let (endpoint, version) = ("cart-1".parse::<EndpointUid>().unwrap(), Version::new("v1").unwrap());
        let own = Context { trace: 1, span: 2, sampled: true, debug: false };
        let tried = Attempt {
            number: 1,
            service: service.clone(),
            endpoint: endpoint.clone(),
            version: Some(version.clone()),
            address: Some(([127, 0, 0, 1], 80).into()),
            peer: Some(id.clone()),
            began: Duration::ZERO,
            head: Some(Duration::from_millis(1)),
            status: Some(503),
            reason: Some(Reason::UpstreamReset),
            span: 3,
            again: None,
        };
        Self {
            head: Some(Duration::from_millis(2)),
            took: Duration::from_millis(3),
            method: Some("GET".into()),
            host: Some("cart:80".into()),
            path: Some("/items/7".into()),
            path_cut: true,
            place: Some(Place { own, parent: Some(4), forms: Forms::default(), drawn: None }),
            trace: Some(*b"00000000000000000000000000000001"),
            caller: Caller::Proven(id),
            service: Some(service.clone()),
            backend: Some(service),
            version: Some(version),
            endpoint: Some(endpoint),
            route: Some("shop/cart/0".parse().unwrap()),
            attempts: 1,
            tried: vec![tried],
            status: Some(503),
            grpc_status: Some(14),
            reason: Some(Reason::UpstreamReset),
            who: Some(Who::Upstream),
            hop: Some("client"),
            body: BodyEnd::Broken,
            received: Some(1),
            sent: Some(2),
            decision: Some((true, By::Rule(rule()))),
            audited: vec![rule()],
            ..Self::new(Direction::Outbound, None)
        }
    }
}
