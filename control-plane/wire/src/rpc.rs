//! The gRPC client and server that carry registrations, certificates, reports and the sessions of [`crate::session`].
//!
//! Connections are the caller's: [`ControlClient::new`] takes a closure that makes them, [`serve`] a stream of accepted
//! ones. Messages are bounded in both directions and HTTP/2 pings notice a peer that hangs.

mod client;
mod convert;
mod inspect;
mod io;
mod server;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use outrigger_mesh::{Endpoint, EndpointUid, FeatureSet, ServiceName, SpiffeId, Trust};
use zeroize::Zeroizing;

pub use client::{ControlClient, DiscoverStream};
pub use inspect::{Inspected, Inspection, PageAnswer, PageAsk, Piece};
pub use io::{Accepted, Hangup};
pub use server::{Caller, ControlHandler, ServerStream, serve};

/// A request for a certificate.
#[derive(Clone)]
pub struct SignRequest {
    /// The request, PKCS#10, DER.
    pub csr_der: Vec<u8>,
    /// What attests a workload that has no certificate yet. Without it, the certificate of the connection does.
    pub attestation: Option<Attestation>,
}

/// What attests a workload to the control plane. A secret: its text shows its kind alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Attestation {
    /// A join token.
    JoinToken(String),
    /// A projected service-account token of Kubernetes.
    Kubernetes(String),
}

impl fmt::Debug for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JoinToken(_) => "JoinToken(redacted)",
            Self::Kubernetes(_) => "Kubernetes(redacted)",
        })
    }
}

impl fmt::Debug for SignRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignRequest").field("attestation", &self.attestation).finish_non_exhaustive()
    }
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignReply {
    /// The certificates, DER, the leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Whom to believe.
    pub trust: Trust,
}

/// An instance that registers, or renews its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The instance.
    pub endpoint: Endpoint,
}

/// The answer to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterReply {
    /// How long it holds. To be renewed well before.
    pub lease: Duration,
}

/// An instance that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub uid: EndpointUid,
    /// How long to wait for the acknowledgements.
    pub wait: Duration,
}

/// The answer to a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithdrawReply {
    /// How many sidecars were subscribed to the service's endpoints.
    pub subscribers: u32,
    /// How many of them have acknowledged that the instance is gone.
    pub acknowledged: u32,
}

/// A token of a user that shall become one of the mesh.
#[derive(Clone)]
pub struct ExchangeRequest {
    /// The token.
    pub token: Zeroizing<String>,
    /// Where the new one shall be good.
    pub service: ServiceName,
}

impl fmt::Debug for ExchangeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeRequest").field("service", &self.service).finish_non_exhaustive()
    }
}

/// A token of the mesh.
#[derive(Clone)]
pub struct ExchangeReply {
    /// The token.
    pub token: Zeroizing<String>,
    /// Its end, in seconds since 1970.
    pub expires: u64,
}

impl fmt::Debug for ExchangeReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeReply").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Who opens a discovery stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The identity the sidecar believes it has. The connection's certificate decides.
    pub identity: SpiffeId,
    /// Its name, one for every process.
    pub node: String,
    /// Its version.
    pub version: String,
    /// The service it stands beside.
    pub service: Option<ServiceName>,
    /// The instance it registers.
    pub endpoint: Option<EndpointUid>,
    /// What it knows to obey.
    pub features: FeatureSet,
    /// Whether it knows other control planes of the mesh that it could go to.
    pub elsewhere: bool,
    /// How many requests tell all that it wants and holds: before the last of them nobody knows what it obeys. One where it
    /// does not say.
    pub requests: u32,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// What kind of failure it is.
    pub kind: RpcErrorKind,
    /// What happened, for people.
    pub message: String,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RpcErrorKind {
    /// The caller did not prove who it is.
    Unauthenticated,
    /// It did, and may not do this.
    Denied,
    /// The request makes no sense, and will not later.
    Invalid,
    /// What it names is not there.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// Too much of it.
    Exhausted,
    /// The other side is away, too slow or stopping.
    Unavailable,
    /// The other side works, but another one of its kind is to be asked.
    Elsewhere,
    /// The other side failed.
    Internal,
}

impl RpcError {
    /// A failure of a kind.
    pub fn new(kind: RpcErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            RpcErrorKind::Exhausted
                | RpcErrorKind::Unavailable
                | RpcErrorKind::Elsewhere
                | RpcErrorKind::Internal
        )
    }
}

/// What one message of a call may weigh.
const CALL_BYTES: usize = 1024 * 1024;
/// What one request of a discovery stream may weigh.
const REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// What one response of a discovery stream may weigh.
const RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// How often a quiet connection is asked whether it is alive.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
