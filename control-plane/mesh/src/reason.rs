//! Why a proxy refused: one closed list, the same in headers, metrics, logs and `explain`.

use std::fmt;

use http::StatusCode;

/// The code of a refusal, carried in `x-outrigger-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is its own word; docs/refusals.md tells what to do about it")]
pub enum Reason {
    NoRoute,
    UnknownService,
    NoEndpoint,
    Draining,
    DiscoveryUnavailable,
    ConnectFailed,
    TlsFailed,
    UpstreamReset,
    TimeoutRequest,
    TimeoutTry,
    TimeoutIdle,
    Deadline,
    BulkheadFull,
    RetryBudget,
    PeerUnauthenticated,
    AuthzDenied,
    BadRequest,
    HeaderTooLarge,
    PayloadTooLarge,
    UriTooLong,
    ExpectationFailed,
    LoopDetected,
    EgressDenied,
    UpgradeDenied,
    Overloaded,
    Misdirected,
    RateLimited,
    BreakerOpen,
    AuthnMissing,
    JwtInvalid,
    JwtExpired,
    JwtKeysUnavailable,
    TokenExchangeUnavailable,
    UnresolvedBackend,
    FaultInjected,
}

impl Reason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 35] = [
        Self::NoRoute,
        Self::UnknownService,
        Self::NoEndpoint,
        Self::Draining,
        Self::DiscoveryUnavailable,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::UpstreamReset,
        Self::TimeoutRequest,
        Self::TimeoutTry,
        Self::TimeoutIdle,
        Self::Deadline,
        Self::BulkheadFull,
        Self::RetryBudget,
        Self::PeerUnauthenticated,
        Self::AuthzDenied,
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::ExpectationFailed,
        Self::LoopDetected,
        Self::EgressDenied,
        Self::UpgradeDenied,
        Self::Overloaded,
        Self::Misdirected,
        Self::RateLimited,
        Self::BreakerOpen,
        Self::AuthnMissing,
        Self::JwtInvalid,
        Self::JwtExpired,
        Self::JwtKeysUnavailable,
        Self::TokenExchangeUnavailable,
        Self::UnresolvedBackend,
        Self::FaultInjected,
    ];

    /// The reason whose code this is.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == code)
    }

    /// The code as it stands in headers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::UnknownService => "unknown_service",
            Self::NoEndpoint => "no_endpoint",
            Self::Draining => "draining",
            Self::DiscoveryUnavailable => "discovery_unavailable",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::UpstreamReset => "upstream_reset",
            Self::TimeoutRequest => "timeout_request",
            Self::TimeoutTry => "timeout_try",
            Self::TimeoutIdle => "timeout_idle",
            Self::Deadline => "deadline",
            Self::BulkheadFull => "bulkhead_full",
            Self::RetryBudget => "retry_budget",
            Self::PeerUnauthenticated => "peer_unauthenticated",
            Self::AuthzDenied => "authz_denied",
            Self::BadRequest => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::ExpectationFailed => "expectation_failed",
            Self::LoopDetected => "loop_detected",
            Self::EgressDenied => "egress_denied",
            Self::UpgradeDenied => "upgrade_denied",
            Self::Overloaded => "overloaded",
            Self::Misdirected => "misdirected",
            Self::RateLimited => "rate_limited",
            Self::BreakerOpen => "breaker_open",
            Self::AuthnMissing => "authn_missing",
            Self::JwtInvalid => "jwt_invalid",
            Self::JwtExpired => "jwt_expired",
            Self::JwtKeysUnavailable => "jwt_keys_unavailable",
            Self::TokenExchangeUnavailable => "token_exchange_unavailable",
            Self::UnresolvedBackend => "unresolved_backend",
            Self::FaultInjected => "fault_injected",
        }
    }

    /// The HTTP status of the refusal. `retry_budget` has none of its own: it explains the last attempt's answer, and
    /// where there was none at all, 503. An injected fault has the status that its filter says.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoRoute | Self::UnknownService => StatusCode::NOT_FOUND,
            Self::NoEndpoint
            | Self::BreakerOpen
            | Self::Draining
            | Self::DiscoveryUnavailable
            | Self::BulkheadFull
            | Self::RetryBudget
            | Self::JwtKeysUnavailable
            | Self::TokenExchangeUnavailable
            | Self::FaultInjected
            | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnresolvedBackend => StatusCode::INTERNAL_SERVER_ERROR,
            Self::AuthnMissing | Self::JwtInvalid | Self::JwtExpired => StatusCode::UNAUTHORIZED,
            Self::ConnectFailed | Self::TlsFailed | Self::UpstreamReset => StatusCode::BAD_GATEWAY,
            Self::TimeoutRequest | Self::TimeoutTry | Self::TimeoutIdle | Self::Deadline => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::PeerUnauthenticated | Self::AuthzDenied | Self::EgressDenied | Self::UpgradeDenied => {
                StatusCode::FORBIDDEN
            }
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The gRPC status code of the refusal (`google.rpc.Code`).
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::NoRoute | Self::UnknownService => 12,
            Self::NoEndpoint
            | Self::BreakerOpen
            | Self::Draining
            | Self::DiscoveryUnavailable
            | Self::RetryBudget
            | Self::ConnectFailed
            | Self::TlsFailed
            | Self::UpstreamReset
            | Self::LoopDetected
            | Self::JwtKeysUnavailable
            | Self::TokenExchangeUnavailable
            | Self::UnresolvedBackend
            | Self::FaultInjected
            | Self::Misdirected => 14,
            Self::AuthnMissing | Self::JwtInvalid | Self::JwtExpired => 16,
            Self::TimeoutRequest | Self::TimeoutTry | Self::TimeoutIdle | Self::Deadline => 4,
            Self::BulkheadFull | Self::Overloaded | Self::RateLimited => 8,
            Self::PeerUnauthenticated | Self::AuthzDenied | Self::EgressDenied | Self::UpgradeDenied => 7,
            Self::BadRequest
            | Self::HeaderTooLarge
            | Self::PayloadTooLarge
            | Self::UriTooLong
            | Self::ExpectationFailed => 3,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which proxy of a request's way refused, carried in `x-outrigger-hop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// The caller's.
    Client,
    /// The service's.
    Server,
}

impl Hop {
    /// The word in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}
