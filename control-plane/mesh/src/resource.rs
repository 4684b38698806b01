//! The resources of the push protocol: one enum, their kinds and their names.

use std::fmt;

use crate::endpoint::{Endpoint, EndpointUid};
use crate::feature::{Feature, FeatureSet};
use crate::gateway::Gateway;
use crate::http_rules::HttpRules;
use crate::identity::TrustDomain;
use crate::inbound::{Inbound, MtlsMode};
use crate::location::Location;
use crate::name::{InvalidName, Label, ServiceName};
use crate::policy::{
    Access, Algorithm, Balance, Bulkheads, ConnectionLimits, EndpointBreaker, HashKey, Protection, RateKey,
    RateLimit, RetryPolicy, RoutePolicy, ServiceBreaker, SessionEnd, Sticky, Timeouts, TrafficPolicy,
};
use crate::route::{Backend, Choice, ConsumerRoutes, PathMatch, Route, RouteMatch, TcpRoute, ValueMatch};
use crate::service::{Between, Protocol, Service};
use crate::settings::MeshSettings;
use crate::token::{Denylist, Issuer, IssuerName, TokenTravel};
use crate::trust::Trust;

/// What can be pushed.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "moved a few times a change, never on the way of a request")]
pub enum Resource {
    /// A service as its callers see it.
    Service(Service),
    /// One instance of a service.
    Endpoint(Endpoint),
    /// What protects one workload.
    Inbound(Inbound),
    /// Whom the mesh believes.
    Trust(Trust),
    /// What holds for the mesh as a whole.
    Mesh(MeshSettings),
    /// What a proxy at the edge serves.
    Gateway(Gateway),
    /// Who issues tokens.
    Issuer(Issuer),
    /// What is no longer believed.
    Denylist(Denylist),
    /// What the callers of one namespace say of a service of another.
    ConsumerRoutes(ConsumerRoutes),
}

impl Resource {
    /// Its name.
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Service(s) => ResourceName::Service(s.name.clone()),
            Self::Endpoint(e) => ResourceName::Endpoint(e.service.clone(), e.uid.clone()),
            Self::Inbound(i) => {
                ResourceName::Inbound(i.identity.namespace().clone(), i.identity.service_account().clone())
            }
            Self::Trust(t) => ResourceName::Trust(t.trust_domain.clone()),
            Self::Mesh(m) => ResourceName::Mesh(m.trust_domain.clone()),
            Self::Gateway(g) => ResourceName::Gateway(g.name.clone()),
            Self::Issuer(i) => ResourceName::Issuer(i.name.clone()),
            Self::Denylist(d) => ResourceName::Denylist(d.name.clone()),
            Self::ConsumerRoutes(c) => ResourceName::ConsumerRoutes(c.namespace.clone(), c.service.clone()),
        }
    }

    /// What a reader must know to obey it.
    pub fn required_features(&self) -> FeatureSet {
        let mut features = FeatureSet::default();
        match self {
            Self::Service(s) => service_features(s, &mut features),
            Self::Inbound(i) => inbound_features(i, &mut features),
            Self::Gateway(g) => {
                for attached in g.listeners.iter().flat_map(|l| &l.routes) {
                    route_features(&attached.route, &mut features);
                }
            }
            Self::ConsumerRoutes(c) => {
                c.routes.iter().for_each(|route| route_features(route, &mut features));
                c.tcp_routes.iter().for_each(|route| tcp_route_features(route, &mut features));
            }
            Self::Endpoint(_) | Self::Trust(_) | Self::Mesh(_) | Self::Issuer(_) | Self::Denylist(_) => {}
        }
        features
    }
}

fn service_features(service: &Service, features: &mut FeatureSet) {
    for route in &service.routes {
        route_features(route, features);
    }
    service.tcp_routes.iter().for_each(|route| tcp_route_features(route, features));
    if let Some(division) = &service.division {
        features.insert(Feature::Division);
        match_features(&division.preview, features);
        need(features, Feature::Claims, division.looks_at_claims());
    }
    let foreign = service.routes.iter().flat_map(|r| &r.backends).any(|b| b.service != service.name);
    need(features, Feature::ForeignBackend, foreign);
    for policy in std::iter::once(&service.policy).chain(service.for_callers.iter().map(|c| &c.policy)) {
        policy_features(policy, features);
    }
    need(features, Feature::CallerPolicies, !service.for_callers.is_empty());
    need(features, Feature::BreakerOverrides, !service.overrides.is_empty());
    need(features, Feature::Between, service.between != Between::Auto);
    need(features, Feature::MtlsMode, service.mtls.of_service() != MtlsMode::Strict);
    need(features, Feature::PortMtls, !service.mtls.ports().is_empty());
    need(features, Feature::Opaque, service.ports.iter().any(|p| p.protocol.is_opaque()));
    need(features, Feature::Dns, service.location != Location::Mesh);
    need(features, Feature::HttpRules, service.http != HttpRules::default());
    need(features, Feature::TokenTravel, service.tokens != TokenTravel::Keep);
    need(features, Feature::TokenExchange, matches!(service.tokens, TokenTravel::Exchange { .. }));
}

fn policy_features(policy: &TrafficPolicy, features: &mut FeatureSet) {
    need(features, Feature::Timeouts, policy.timeouts != Timeouts::default());
    need(features, Feature::Retry, policy.retry != RetryPolicy::default());
    need(features, Feature::RetryCodes, !policy.retry.codes.is_empty());
    need(features, Feature::MinBackoff, !policy.retry.min_backoff.is_zero());
    let breakers = policy.endpoint_breaker != EndpointBreaker::default()
        || policy.service_breaker != ServiceBreaker::default();
    need(features, Feature::Breakers, breakers);
    let bulkheads =
        policy.bulkheads != Bulkheads::default() || policy.connections != ConnectionLimits::default();
    need(features, Feature::Bulkheads, bulkheads);
    need(features, Feature::Balance, policy.balance != Balance::default());
    let ends = |sticky: &Sticky| sticky.end != SessionEnd::default();
    need(features, Feature::SessionEnds, policy.balance.sticky.as_ref().is_some_and(ends));
    need(features, Feature::Claims, matches!(policy.balance.algorithm, Algorithm::Maglev(HashKey::Claim(_))));
    need(features, Feature::HealthChecks, policy.health.is_some());
    need(features, Feature::TraceSampling, policy.traced.is_some());
}

fn route_features(route: &Route, features: &mut FeatureSet) {
    need(features, Feature::RouteMatch, !route.matches.is_empty());
    need(features, Feature::Claims, route.looks_at_claims());
    match_features(&route.matches, features);
    let filters = &route.filters;
    need(features, Feature::RouteFilters, !filters.is_empty());
    filters.faults.iter().for_each(|fault| match_features(&fault.matches, features));
    filters.rate_limits.iter().for_each(|limit| match_features(&limit.matches, features));
    need(features, Feature::RoutePorts, !route.ports.is_empty());
    need(features, Feature::RouteChoice, route.choice != Choice::default());
    let ends = |sticky: &Sticky| sticky.end != SessionEnd::default();
    need(features, Feature::SessionEnds, route.choice.session.as_ref().is_some_and(ends));
    backend_features(&route.backends, features);
    need(features, Feature::Timeouts, route.timeouts != Timeouts::default());
    need(features, Feature::Retry, route.retry.is_some());
    need(features, Feature::RetryCodes, route.retry.as_ref().is_some_and(|r| !r.codes.is_empty()));
    need(features, Feature::MinBackoff, route.retry.as_ref().is_some_and(|r| !r.min_backoff.is_zero()));
    let RoutePolicy { breaker, bulkhead, traced } = &route.policy;
    need(features, Feature::Breakers, breaker.is_some());
    need(features, Feature::Bulkheads, bulkhead.is_some());
    need(features, Feature::TraceSampling, traced.is_some());
}

fn tcp_route_features(route: &TcpRoute, features: &mut FeatureSet) {
    features.insert(Feature::TcpRoutes);
    backend_features(&route.backends, features);
}

fn backend_features(backends: &[Backend], features: &mut FeatureSet) {
    need(features, Feature::Split, backends.len() > 1);
    for backend in backends {
        need(features, Feature::BackendPort, backend.port.is_some());
        need(features, Feature::UnresolvedBackend, backend.unresolved.is_some());
        need(features, Feature::RouteFilters, !backend.request.is_empty() || !backend.response.is_empty());
    }
}

fn match_features(matches: &[RouteMatch], features: &mut FeatureSet) {
    let is_new = |value: &ValueMatch| !matches!(value, ValueMatch::Exact(_));
    let beyond = matches.iter().any(|m| {
        matches!(m.path, Some(PathMatch::Regex(_) | PathMatch::Method(_)))
            || m.headers.iter().any(|h| is_new(&h.value))
            || m.query.iter().any(|q| is_new(&q.value))
            || !(m.cookies.is_empty() && m.callers.is_empty() && m.labels.is_empty())
            || m.grpc
    });
    need(features, Feature::RouteConditions, beyond);
}

fn inbound_features(inbound: &Inbound, features: &mut FeatureSet) {
    for service in &inbound.services {
        need(features, Feature::MtlsMode, service.mtls.of_service() != MtlsMode::Strict);
        need(features, Feature::PortMtls, !service.mtls.ports().is_empty());
        need(features, Feature::Opaque, service.ports.iter().any(|(_, p): &(_, Protocol)| p.is_opaque()));
        need(features, Feature::HttpRules, service.http != HttpRules::default());
        need(features, Feature::Between, service.between != Between::Auto);
        let Protection { caller, rate_limits } = &service.protection;
        need(features, Feature::Bulkheads, caller.is_some());
        need(features, Feature::RateLimits, !rate_limits.is_empty());
        for limit in rate_limits {
            match_features(&limit.matches, features);
        }
        let by_claim = |l: &RateLimit| matches!(l.key, RateKey::Claim(_)) || looks_at_claims(&l.matches);
        need(features, Feature::Claims, rate_limits.iter().any(by_claim));
        need(features, Feature::TokenRules, service.tokens.is_some());
        need(features, Feature::Access, service.access != Access::default());
    }
}

fn looks_at_claims(matches: &[RouteMatch]) -> bool {
    matches.iter().any(|m| !m.claims.is_empty())
}

fn need(features: &mut FeatureSet, feature: Feature, needed: bool) {
    if needed {
        features.insert(feature);
    }
}

/// The kinds of resources. Each has a type URL of its own on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the same words as in `Resource`")]
pub enum ResourceKind {
    Trust,
    Mesh,
    Issuer,
    Denylist,
    Inbound,
    Gateway,
    ConsumerRoutes,
    Service,
    Endpoint,
}

impl ResourceKind {
    /// Every kind, in the order in which a sidecar needs them.
    pub const ALL: [Self; 9] = [
        Self::Trust,
        Self::Mesh,
        Self::Issuer,
        Self::Denylist,
        Self::Inbound,
        Self::Gateway,
        Self::ConsumerRoutes,
        Self::Service,
        Self::Endpoint,
    ];

    /// Whether one may subscribe to every resource of the kind.
    pub fn is_general(self) -> bool {
        matches!(self, Self::Trust | Self::Mesh | Self::Issuer | Self::Denylist)
    }

    /// The kind's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "Trust",
            Self::Mesh => "Mesh",
            Self::Issuer => "Issuer",
            Self::Denylist => "Denylist",
            Self::Inbound => "Inbound",
            Self::Gateway => "Gateway",
            Self::ConsumerRoutes => "ConsumerRoutes",
            Self::Service => "Service",
            Self::Endpoint => "Endpoint",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a resource; unique with its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceName {
    /// `<trust domain>`
    Trust(TrustDomain),
    /// `<trust domain>`
    Mesh(TrustDomain),
    /// `<namespace>/<policy>/<issuer>`
    Issuer(IssuerName),
    /// `<namespace>/<denylist>`
    Denylist(ServiceName),
    /// `<namespace>/<gateway>`
    Gateway(ServiceName),
    /// `<namespace>/<service account>`
    Inbound(Label, Label),
    /// `<namespace of the callers>/<namespace>/<service>`
    ConsumerRoutes(Label, ServiceName),
    /// `<namespace>/<service>`
    Service(ServiceName),
    /// `<namespace>/<service>/<uid>`
    Endpoint(ServiceName, EndpointUid),
}

impl ResourceName {
    /// The kind of resource it names.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Trust(_) => ResourceKind::Trust,
            Self::Mesh(_) => ResourceKind::Mesh,
            Self::Issuer(_) => ResourceKind::Issuer,
            Self::Denylist(_) => ResourceKind::Denylist,
            Self::Gateway(_) => ResourceKind::Gateway,
            Self::Inbound(..) => ResourceKind::Inbound,
            Self::ConsumerRoutes(..) => ResourceKind::ConsumerRoutes,
            Self::Service(_) => ResourceKind::Service,
            Self::Endpoint(..) => ResourceKind::Endpoint,
        }
    }

    /// Reads the wire form back.
    pub fn parse(kind: ResourceKind, text: &str) -> Result<Self, InvalidName> {
        let bad = |rule| InvalidName::new("the name of a resource", text, rule);
        match kind {
            ResourceKind::Trust => text.parse().map(Self::Trust),
            ResourceKind::Mesh => text.parse().map(Self::Mesh),
            ResourceKind::Issuer => text.parse().map(Self::Issuer),
            ResourceKind::Denylist => text.parse().map(Self::Denylist),
            ResourceKind::Gateway => text.parse().map(Self::Gateway),
            ResourceKind::Service => text.parse().map(Self::Service),
            ResourceKind::ConsumerRoutes => {
                let (callers, service) =
                    text.split_once('/').ok_or_else(|| bad("write it as callers/namespace/service"))?;
                Ok(Self::ConsumerRoutes(Label::new(callers)?, service.parse()?))
            }
            ResourceKind::Inbound => {
                let (namespace, account) =
                    text.split_once('/').ok_or_else(|| bad("write it as namespace/account"))?;
                Ok(Self::Inbound(Label::new(namespace)?, Label::new(account)?))
            }
            ResourceKind::Endpoint => {
                let (service, uid) =
                    text.rsplit_once('/').ok_or_else(|| bad("write it as namespace/service/uid"))?;
                Ok(Self::Endpoint(service.parse()?, uid.parse()?))
            }
        }
    }
}

impl fmt::Display for ResourceName {
    /// The wire form, without the kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(domain) | Self::Mesh(domain) => domain.fmt(f),
            Self::Issuer(issuer) => issuer.fmt(f),
            Self::Denylist(list) => list.fmt(f),
            Self::Gateway(gateway) => gateway.fmt(f),
            Self::Inbound(namespace, account) => write!(f, "{namespace}/{account}"),
            Self::ConsumerRoutes(callers, service) => write!(f, "{callers}/{service}"),
            Self::Service(service) => service.fmt(f),
            Self::Endpoint(service, uid) => write!(f, "{service}/{uid}"),
        }
    }
}

/// What a sidecar can subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selector {
    /// Every resource of a kind that its reader may see. Only those for which
    /// [`ResourceKind::is_general`] holds.
    All(ResourceKind),
    /// One resource by its name.
    Named(ResourceName),
    /// The service that answers to a host name completed with a namespace; answered with an alias.
    Host(crate::Hostname),
    /// Every endpoint of a service: `<namespace>/<service>/*`.
    EndpointsOf(ServiceName),
}

impl Selector {
    /// The kind of resources it selects.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::All(kind) => *kind,
            Self::Named(name) => name.kind(),
            Self::Host(_) => ResourceKind::Service,
            Self::EndpointsOf(_) => ResourceKind::Endpoint,
        }
    }

    /// Reads the wire form back.
    pub fn parse(kind: ResourceKind, text: &str) -> Result<Self, InvalidName> {
        match kind {
            kind if kind.is_general() && text == "*" => Ok(Self::All(kind)),
            ResourceKind::Endpoint if text.ends_with("/*") => {
                text[..text.len() - 2].parse().map(Self::EndpointsOf)
            }
            ResourceKind::Service if !text.contains('/') => text.parse().map(Self::Host),
            _ => ResourceName::parse(kind, text).map(Self::Named),
        }
    }
}

impl fmt::Display for Selector {
    /// The wire form, without the kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(_) => f.write_str("*"),
            Self::Named(name) => name.fmt(f),
            Self::Host(host) => host.fmt(f),
            Self::EndpointsOf(service) => write!(f, "{service}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_selectors_read_back_as_written() {
        for (kind, text) in [
            (ResourceKind::Trust, "mesh.local"),
            (ResourceKind::Mesh, "mesh.local"),
            (ResourceKind::Gateway, "shop/edge"),
            (ResourceKind::Issuer, "shop/users/login"),
            (ResourceKind::Denylist, "shop/gone"),
            (ResourceKind::Inbound, "shop/cart"),
            (ResourceKind::ConsumerRoutes, "web/shop/cart"),
            (ResourceKind::Service, "shop/cart"),
            (ResourceKind::Endpoint, "shop/cart/i-1"),
        ] {
            let name = ResourceName::parse(kind, text).unwrap();
            assert_eq!((name.kind(), name.to_string().as_str()), (kind, text));
            assert_eq!(Selector::parse(kind, text).unwrap(), Selector::Named(name));
        }
        for (kind, text) in [
            (ResourceKind::Trust, "*"),
            (ResourceKind::Mesh, "*"),
            (ResourceKind::Issuer, "*"),
            (ResourceKind::Denylist, "*"),
            (ResourceKind::Service, "cart.shop"),
            (ResourceKind::Endpoint, "shop/cart/*"),
        ] {
            let selector = Selector::parse(kind, text).unwrap();
            assert!(!matches!(selector, Selector::Named(_)), "{selector:?}");
            assert_eq!((selector.kind(), selector.to_string().as_str()), (kind, text));
        }
    }

    #[test]
    fn nobody_subscribes_to_everything() {
        for kind in [
            ResourceKind::Inbound,
            ResourceKind::Gateway,
            ResourceKind::ConsumerRoutes,
            ResourceKind::Service,
            ResourceKind::Endpoint,
        ] {
            assert!(Selector::parse(kind, "*").is_err(), "{kind}");
        }
    }
}
