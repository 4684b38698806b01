//! Features: what a reader must know to obey a resource.
//!
//! Protobuf lets an old reader drop a field it does not know. For a mesh that is a hole: an old sidecar would ignore
//! a new condition. So every resource names the features it uses, and a sidecar that lacks one rejects the resource
//! with that reason and keeps the last one it could obey.

use std::collections::BTreeSet;
use std::fmt;

/// One thing a resource can ask of its reader. The text form is the wire form and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// Routes that match on path, method, header or query.
    RouteMatch,
    /// Several weighted backends in one route.
    Split,
    /// Backends of another service than the route's own.
    ForeignBackend,
    /// Backends at a port of their own.
    BackendPort,
    /// Timeouts of the request and of its attempts.
    Timeouts,
    /// Retry rules other than the defaults.
    Retry,
    /// A choice of the protocol between sidecars.
    Between,
    /// A TLS mode other than strict.
    MtlsMode,
    /// Ports with a TLS mode of their own.
    PortMtls,
    /// Ports that speak no HTTP.
    Opaque,
    /// Endpoints that the sidecar finds by DNS.
    Dns,
    /// Upgrades, tunnels and body limits other than the defaults.
    HttpRules,
    /// Circuit breakers other than the defaults.
    Breakers,
    /// Bulkheads and limits of connections other than the defaults.
    Bulkheads,
    /// A way to choose endpoints other than the default.
    Balance,
    /// Active health checks.
    HealthChecks,
    /// Rate limits.
    RateLimits,
    /// Policies for some callers.
    CallerPolicies,
    /// What an operator has said of a breaker.
    BreakerOverrides,
    /// What a service wants of its callers' tokens.
    TokenRules,
    /// Conditions on and keys from claims of verified tokens.
    Claims,
    /// What becomes of tokens on calls, other than that they go as the application sends them.
    TokenTravel,
    /// Tokens of the mesh in place of those that came in.
    TokenExchange,
    /// Access policies.
    Access,
    /// Filters of routes and of their backends.
    RouteFilters,
    /// Conditions of routes on cookies, callers, labels and gRPC, and expressions.
    RouteConditions,
    /// Routes for some ports of a service.
    RoutePorts,
    /// Splits by a key, partitions and sessions of routes.
    RouteChoice,
    /// Backends that lead nowhere.
    UnresolvedBackend,
    /// Routes of opaque connections.
    TcpRoutes,
    /// A division between two versions.
    Division,
    /// Statuses that are tried again.
    RetryCodes,
    /// A shortest pause between attempts.
    MinBackoff,
    /// Sessions that end by themselves.
    SessionEnds,
    /// A share of requests that are traced.
    TraceSampling,
}

impl Feature {
    /// Every feature this version knows.
    pub const ALL: [Self; 35] = [
        Self::RouteMatch,
        Self::Split,
        Self::ForeignBackend,
        Self::BackendPort,
        Self::Timeouts,
        Self::Retry,
        Self::Between,
        Self::MtlsMode,
        Self::PortMtls,
        Self::Opaque,
        Self::Dns,
        Self::HttpRules,
        Self::Breakers,
        Self::Bulkheads,
        Self::Balance,
        Self::HealthChecks,
        Self::RateLimits,
        Self::CallerPolicies,
        Self::BreakerOverrides,
        Self::TokenRules,
        Self::Claims,
        Self::TokenTravel,
        Self::TokenExchange,
        Self::Access,
        Self::RouteFilters,
        Self::RouteConditions,
        Self::RoutePorts,
        Self::RouteChoice,
        Self::UnresolvedBackend,
        Self::TcpRoutes,
        Self::Division,
        Self::RetryCodes,
        Self::MinBackoff,
        Self::SessionEnds,
        Self::TraceSampling,
    ];

    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RouteMatch => "route-match",
            Self::Split => "split",
            Self::ForeignBackend => "foreign-backend",
            Self::BackendPort => "backend-port",
            Self::Timeouts => "timeouts",
            Self::Retry => "retry",
            Self::Between => "between",
            Self::MtlsMode => "mtls-mode",
            Self::PortMtls => "port-mtls",
            Self::Opaque => "opaque",
            Self::Dns => "dns",
            Self::HttpRules => "http-rules",
            Self::Breakers => "breakers",
            Self::Bulkheads => "bulkheads",
            Self::Balance => "balance",
            Self::HealthChecks => "health-checks",
            Self::RateLimits => "rate-limits",
            Self::CallerPolicies => "caller-policies",
            Self::BreakerOverrides => "breaker-overrides",
            Self::TokenRules => "token-rules",
            Self::Claims => "claims",
            Self::TokenTravel => "token-travel",
            Self::TokenExchange => "token-exchange",
            Self::Access => "access",
            Self::RouteFilters => "route-filters",
            Self::RouteConditions => "route-conditions",
            Self::RoutePorts => "route-ports",
            Self::RouteChoice => "route-choice",
            Self::UnresolvedBackend => "unresolved-backend",
            Self::TcpRoutes => "tcp-routes",
            Self::Division => "division",
            Self::RetryCodes => "retry-codes",
            Self::MinBackoff => "min-backoff",
            Self::SessionEnds => "session-ends",
            Self::TraceSampling => "trace-sampling",
        }
    }

    /// The feature of a wire form, `None` when this version does not know it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == text)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of features, in a stable order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureSet(BTreeSet<Feature>);

impl FeatureSet {
    /// Everything this version knows.
    pub fn all() -> Self {
        Feature::ALL.into_iter().collect()
    }

    /// The set without `feature`: what an older reader knows.
    #[must_use]
    pub fn without(mut self, feature: Feature) -> Self {
        self.0.remove(&feature);
        self
    }

    /// Adds `feature`.
    pub fn insert(&mut self, feature: Feature) {
        self.0.insert(feature);
    }

    /// Whether `feature` is in the set.
    pub fn contains(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }

    /// The features in order.
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Feature> for FeatureSet {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Self(features.into_iter().collect())
    }
}
