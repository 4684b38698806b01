//! The domain of the mesh: names, the resources that a sidecar obeys, and the pure decisions over them.
//!
//! The text in which both programs tell what they count is here, too (`exposition`), since neither may import the other.
//! What is here runs alike in the sidecar, in `outrigger explain`, in checks and in tests: which route a request meets,
//! how a split divides, which reason a refusal carries. Every type is proven when it is made: a [`SpiffeId`] that
//! exists is valid, a [`Service`] whose constructor returned holds together.
//!
//! Deliberately elsewhere: the protobuf form of a resource (`outrigger-wire`), what people write
//! (`outrigger-control`, `spec`), certificates (`outrigger-certs`), and anything that waits, reads a clock, a file
//! or a socket. This crate imports nothing of ours.

mod canonical_path;
mod division;
mod endpoint;
mod exposition;
mod feature;
mod gateway;
mod histogram;
mod http_rules;
mod identity;
mod inbound;
mod location;
mod name;
mod policy;
mod port_ranges;
mod reason;
mod report;
mod resource;
mod route;
mod service;
mod settings;
mod tap;
mod token;
mod trust;

pub use canonical_path::canonical_path;
pub use division::{Division, Part};
pub use endpoint::{Endpoint, EndpointPort, EndpointState, EndpointUid, Transport, Weight};
pub use exposition::{
    ExpositionForm, Family, MetricKind, ProcessFigures, Sample, exposition_as, label_value,
    merged_exposition, parse_exposition, write_family, write_process,
};
pub use feature::{Feature, FeatureSet};
pub use gateway::{Gateway, GatewayRoute, HostPattern, InvalidGateway, Listener, ListenerKind};
pub use histogram::{BUCKETS, Histogram, bucket_bounds, bucket_of};
pub use http_rules::HttpRules;
pub use identity::{SpiffeId, TrustDomain};
pub use inbound::{Inbound, InboundService, MtlsMode, MtlsModes};
pub use location::{DnsTarget, Location, Origination, OutsideRoots, SrvName};
pub use name::{Host, Hostname, InvalidName, Label, PortNumber, ServiceName, Version};
pub use policy::{
    Access, AccessAction, AccessDefault, AccessHeader, AccessIndex, AccessPath, AccessPolicy,
    AccessPolicyName, AccessRule, Algorithm, AskedBy, Balance, Because, BreakerMode, BreakerOverride,
    Bulkhead, Bulkheads, CallerMatch, CallerPolicy, ConnectionLimits, Decision, EndpointBreaker,
    FailureRatio, Fallback, HashKey, HealthCheck, InvalidPolicy, Locality, Longest, Probe, Protection,
    RateKey, RateLimit, Recovery, RetryPolicy, RoutePolicy, RuleName, ServiceBreaker, SessionEnd, SigningKey,
    SlowCalls, Sticky, StickyBy, StickyTo, Timeouts, TraceShare, TrafficPolicy, Trip,
};
pub use port_ranges::{InvalidPorts, PortRanges};
pub use reason::{Hop, Reason};
pub use report::{RefusalKey, Report, Seen, Side, TrafficKey, TrafficStats};
pub use resource::{Resource, ResourceKind, ResourceName, Selector};
pub use route::{
    Abort, Backend, Choice, ConsumerRoutes, CookieMatch, Cors, DirectResponse, Fault, Filters, Fraction,
    HeaderChanges, HeaderMatch, Hit, InvalidPattern, KeyRange, Labels, Mirror, Partition, PathChange,
    PathMatch, Pattern, QueryMatch, Redirect, RequestHead, Rewrite, Route, RouteIndex, RouteMatch, RouteName,
    Source, Split, TcpRoute, Unresolved, ValueMatch, bounded_routes, key_hash,
};
pub use service::{Between, InvalidService, Port, Protocol, Service};
pub use settings::{IpRange, MeshSettings, OutboundMode};
pub use tap::{BadTap, StatusRange, TapFacts, TapFilter, TapReason, TapSide};
pub use token::{
    AcceptedIssuer, ClaimHeader, ClaimMatch, ClaimPath, ClaimTest, ClaimValue, Claims, DeniedToken, Denylist,
    EXCHANGED_LIFETIME, InvalidDenylist, InvalidIssuer, Issuer, IssuerKeys, IssuerName, KeyMaterial, ORIGIN,
    ToApplication, TokenAlgorithm, TokenKey, TokenNeed, TokenRule, TokenRules, TokenTravel, iss_of_the_mesh,
};
pub use trust::Trust;
