//! What a sidecar tells the control plane about its traffic.

use crate::histogram::Histogram;
use crate::identity::SpiffeId;
use crate::name::{ServiceName, Version};
use crate::reason::Reason;
use crate::token::IssuerName;

/// What passed since the last report of the same sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The traffic, by whom it was between. At most [`Report::MAX_ENTRIES`].
    pub traffic: Vec<(TrafficKey, TrafficStats)>,
    /// Issuers of which a token named a key that is not known. At most [`Report::MAX_ENTRIES`].
    pub wanted_keys: Vec<IssuerName>,
    /// What the sidecar finds of the versions of services that are divided. At most [`Report::MAX_ENTRIES`].
    pub seen: Vec<Seen>,
    /// What was refused, and how often. At most [`Report::MAX_ENTRIES`].
    pub refusals: Vec<(RefusalKey, u64)>,
}

/// What a sidecar finds of the endpoints of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: Version,
    /// How many endpoints that take requests it was told of.
    pub endpoints: u32,
    /// How many of them it finds well: they pass their health checks, as far as there are any, and no breaker holds
    /// requests back from them.
    pub well: u32,
}

impl Report {
    /// A report with more entries is refused: keys come partly from outside.
    pub const MAX_ENTRIES: usize = 4096;
}

/// What was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefusalKey {
    /// Who refused: the caller's sidecar, so that nothing of it came to the service, or the service's.
    pub side: Side,
    /// The service that was called.
    pub service: ServiceName,
    /// Who called, where it was authenticated. A caller's sidecar speaks for itself and names nobody.
    pub caller: Option<SpiffeId>,
    /// Why.
    pub reason: Reason,
}

/// Between whom traffic passed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrafficKey {
    /// Who saw it.
    pub side: Side,
    /// The service that was called.
    pub service: ServiceName,
    /// The version that answered, or that the last attempt went to, where there was an attempt and it has one.
    pub version: Option<Version>,
    /// Who called, where it was authenticated.
    pub caller: Option<SpiffeId>,
}

/// Which sidecar of a request's way counted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The caller's: counts requests, retries hidden, refusals included.
    Client,
    /// The service's: counts attempts that arrived.
    Server,
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Requests that were answered or given up.
    pub requests: u64,
    /// Those of them that were answered with a status below 500 (gRPC: other than a server's fault).
    pub success: u64,
    /// Time from the head of the request to the head of the response.
    pub latency: Histogram,
    /// Attempts beside `requests` that brought no answer and were followed by another: there was no connection, or it
    /// broke off, or it took too long. Only callers count them: who was not reached knows nothing of it.
    pub unanswered: u64,
}

impl TrafficStats {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.success = self.success.saturating_add(other.success);
        self.unanswered = self.unanswered.saturating_add(other.unanswered);
        self.latency.merge(&other.latency);
    }
}
