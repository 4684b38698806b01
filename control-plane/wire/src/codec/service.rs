//! `Service` with its routes.

use http::{HeaderName, Method};
use outrigger_mesh::{
    Backend, HeaderMatch, PathMatch, Port, QueryMatch, Route, RouteMatch, RoutePolicy, Service,
};

use super::field::{self, Fault};
use super::{breaker, bulkhead, location, policy, token};
use crate::pb;

pub(super) fn to_pb(service: &Service, required_features: Vec<String>) -> pb::Service {
    pb::Service {
        required_features,
        name: service.name.to_string(),
        hostnames: service.hostnames.iter().map(ToString::to_string).collect(),
        ports: service.ports.iter().copied().map(port_to_pb).collect(),
        identities: service.identities.iter().map(ToString::to_string).collect(),
        mtls: field::mtls_to_pb(service.mtls.of_service()),
        port_mtls: field::port_mtls_to_pb(&service.mtls),
        between: field::between_to_pb(service.between),
        routes: service.routes.iter().map(route_to_pb).collect(),
        policy: Some(policy::to_pb(&service.policy)),
        addresses: service.addresses.iter().map(|a| field::ip_to_pb(*a)).collect(),
        dns: location::to_pb(&service.location),
        http: field::http_to_pb(&service.http),
        for_callers: service.for_callers.iter().map(policy::caller_to_pb).collect(),
        overrides: service.overrides.iter().map(breaker::override_to_pb).collect(),
        tokens: token::travel_to_pb(service.tokens),
    }
}

pub(super) fn from_pb(service: pb::Service) -> Result<Service, Fault> {
    let policy = service.policy.ok_or_else(|| Fault::missing("policy"))?;
    Service {
        name: field::name(&service.name)?,
        hostnames: service.hostnames.iter().map(|h| canonical(h)).collect::<Result<_, _>>()?,
        ports: service.ports.into_iter().map(port_from_pb).collect::<Result<_, _>>()?,
        identities: service.identities.iter().map(|i| field::name(i)).collect::<Result<_, _>>()?,
        mtls: field::mtls_modes_from_pb(service.mtls, &service.port_mtls)?,
        between: field::between_from_pb(service.between)?,
        routes: service.routes.into_iter().map(route_from_pb).collect::<Result<_, _>>()?,
        policy: policy::from_pb(policy)?,
        addresses: service.addresses.iter().map(|a| field::ip_from_pb(a)).collect::<Result<_, _>>()?,
        location: location::from_pb(service.dns)?,
        http: field::http_from_pb(service.http),
        for_callers: service.for_callers.into_iter().map(policy::caller_from_pb).collect::<Result<_, _>>()?,
        overrides: service.overrides.iter().map(breaker::override_from_pb).collect::<Result<_, _>>()?,
        tokens: token::travel_from_pb(service.tokens)?,
    }
    .checked()
    .map_err(|e| Fault::new(e.to_string()))
}

/// A host name in its one spelling: what folds or loses a dot on reading would not write back as it was.
pub(super) fn canonical(text: &str) -> Result<outrigger_mesh::Hostname, Fault> {
    let host: outrigger_mesh::Hostname = field::name(text)?;
    if host.as_str() == text {
        Ok(host)
    } else {
        Err(Fault::new(format!("host name {text:?} is not written as {host}")))
    }
}

fn port_to_pb(port: Port) -> pb::Port {
    pb::Port { number: port.number.get().into(), protocol: field::protocol_to_pb(port.protocol) }
}

fn port_from_pb(port: pb::Port) -> Result<Port, Fault> {
    Ok(Port { number: field::port_number(port.number)?, protocol: field::protocol_from_pb(port.protocol)? })
}

pub(super) fn route_to_pb(route: &Route) -> pb::Route {
    pb::Route {
        name: route.name.to_string(),
        matches: route.matches.iter().map(match_to_pb).collect(),
        backends: route.backends.iter().map(backend_to_pb).collect(),
        timeouts: Some(policy::timeouts_to_pb(&route.timeouts)),
        retry: route.retry.as_ref().map(policy::retry_to_pb),
        breaker: route.policy.breaker.as_ref().map(breaker::service_to_pb),
        bulkhead: route.policy.bulkhead.map(bulkhead::to_pb),
    }
}

pub(super) fn route_from_pb(route: pb::Route) -> Result<Route, Fault> {
    let name: outrigger_mesh::RouteName = field::name(&route.name)?;
    let read = || {
        Ok(Route {
            name: name.clone(),
            matches: route.matches.into_iter().map(match_from_pb).collect::<Result<_, _>>()?,
            backends: route.backends.iter().map(backend_from_pb).collect::<Result<_, _>>()?,
            timeouts: policy::timeouts_from_pb(route.timeouts)?,
            retry: route.retry.map(policy::retry_from_pb).transpose()?,
            policy: RoutePolicy {
                breaker: route.breaker.map(breaker::service_from_pb).transpose()?,
                bulkhead: route.bulkhead.map(bulkhead::from_pb).transpose()?,
            },
        })
    };
    read().map_err(|fault: Fault| fault.within(format_args!("route {name}")))
}

pub(super) fn match_to_pb(rule: &RouteMatch) -> pb::RouteMatch {
    let path = rule.path.as_ref().map(|path| pb::PathMatch {
        path: Some(match path {
            PathMatch::Exact(text) => pb::path_match::Path::Exact(text.to_string()),
            PathMatch::Prefix(text) => pb::path_match::Path::Prefix(text.to_string()),
        }),
    });
    pb::RouteMatch {
        path,
        method: rule.method.as_ref().map(ToString::to_string),
        headers: rule.headers.iter().map(|h| pair(h.name.as_str(), &h.value)).collect(),
        query: rule.query.iter().map(|q| pair(&q.name, &q.value)).collect(),
        claims: rule.claims.iter().map(token::match_to_pb).collect(),
    }
}

pub(super) fn match_from_pb(rule: pb::RouteMatch) -> Result<RouteMatch, Fault> {
    let path = rule.path.map(|p| p.path.ok_or_else(|| Fault::missing("the path of a match"))).transpose()?;
    let method = |text: String| {
        Method::from_bytes(text.as_bytes()).map_err(|_| Fault::new(format!("{text:?} is not a method")))
    };
    Ok(RouteMatch {
        path: path.map(|path| match path {
            pb::path_match::Path::Exact(text) => PathMatch::Exact(text.into()),
            pb::path_match::Path::Prefix(text) => PathMatch::Prefix(text.into()),
        }),
        method: rule.method.map(method).transpose()?,
        headers: rule.headers.into_iter().map(header_from_pb).collect::<Result<_, _>>()?,
        query: rule
            .query
            .into_iter()
            .map(|q| QueryMatch { name: q.name.into(), value: q.value.into() })
            .collect(),
        claims: rule.claims.into_iter().map(token::match_from_pb).collect::<Result<_, _>>()?,
    })
}

fn header_from_pb(header: pb::NameValue) -> Result<HeaderMatch, Fault> {
    let name = HeaderName::from_bytes(header.name.as_bytes())
        .map_err(|_| Fault::new(format!("{:?} is not a header's name", super::shortened(&header.name))))?;
    Ok(HeaderMatch { name, value: header.value.into() })
}

fn pair(name: &str, value: &str) -> pb::NameValue {
    pb::NameValue { name: name.to_owned(), value: value.to_owned() }
}

fn backend_to_pb(backend: &Backend) -> pb::Backend {
    pb::Backend {
        service: backend.service.to_string(),
        version: backend.version.as_ref().map(ToString::to_string),
        weight: backend.weight,
        port: backend.port.map(|port| port.get().into()),
    }
}

fn backend_from_pb(backend: &pb::Backend) -> Result<Backend, Fault> {
    Ok(Backend {
        service: field::name(&backend.service)?,
        version: field::name_if(backend.version.as_deref())?,
        weight: backend.weight,
        port: backend.port.map(field::port_number).transpose()?,
    })
}
