//! `Service` with its routes and policies.

use std::time::Duration;

use http::{HeaderName, Method};
use outrigger_mesh::{
    Backend, HeaderMatch, PathMatch, Port, QueryMatch, RetryPolicy, Route, RouteMatch, Service, Timeouts,
    TrafficPolicy,
};

use super::field::{self, Fault, duration_from_pb, duration_to_pb};
use super::location;
use crate::pb;

pub(super) fn to_pb(service: &Service, required_features: Vec<String>) -> pb::Service {
    pb::Service {
        required_features,
        name: service.name.to_string(),
        hostnames: service.hostnames.iter().map(ToString::to_string).collect(),
        ports: service.ports.iter().copied().map(port_to_pb).collect(),
        identities: service.identities.iter().map(ToString::to_string).collect(),
        mtls: field::mtls_to_pb(service.mtls),
        between: field::between_to_pb(service.between),
        routes: service.routes.iter().map(route_to_pb).collect(),
        policy: Some(pb::TrafficPolicy {
            timeouts: Some(timeouts_to_pb(&service.policy.timeouts)),
            retry: Some(retry_to_pb(&service.policy.retry)),
        }),
        addresses: service.addresses.iter().map(|a| field::ip_to_pb(*a)).collect(),
        dns: location::to_pb(&service.location),
        http: field::http_to_pb(&service.http),
    }
}

pub(super) fn from_pb(service: pb::Service) -> Result<Service, Fault> {
    let policy = service.policy.ok_or_else(|| Fault::missing("policy"))?;
    Service {
        name: field::name(&service.name)?,
        hostnames: service.hostnames.iter().map(|h| canonical(h)).collect::<Result<_, _>>()?,
        ports: service.ports.into_iter().map(port_from_pb).collect::<Result<_, _>>()?,
        identities: service.identities.iter().map(|i| field::name(i)).collect::<Result<_, _>>()?,
        mtls: field::mtls_from_pb(service.mtls)?,
        between: field::between_from_pb(service.between)?,
        routes: service.routes.into_iter().map(route_from_pb).collect::<Result<_, _>>()?,
        policy: TrafficPolicy {
            timeouts: timeouts_from_pb(policy.timeouts)?,
            retry: retry_from_pb(&policy.retry.ok_or_else(|| Fault::missing("policy.retry"))?),
        },
        addresses: service.addresses.iter().map(|a| field::ip_from_pb(a)).collect::<Result<_, _>>()?,
        location: location::from_pb(service.dns)?,
        http: field::http_from_pb(service.http),
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
        timeouts: Some(timeouts_to_pb(&route.timeouts)),
        retry: route.retry.as_ref().map(retry_to_pb),
    }
}

pub(super) fn route_from_pb(route: pb::Route) -> Result<Route, Fault> {
    let name: outrigger_mesh::RouteName = field::name(&route.name)?;
    let read = || {
        Ok(Route {
            name: name.clone(),
            matches: route.matches.into_iter().map(match_from_pb).collect::<Result<_, _>>()?,
            backends: route.backends.iter().map(backend_from_pb).collect::<Result<_, _>>()?,
            timeouts: timeouts_from_pb(route.timeouts)?,
            retry: route.retry.as_ref().map(retry_from_pb),
        })
    };
    read().map_err(|fault: Fault| fault.within(format_args!("route {name}")))
}

fn match_to_pb(rule: &RouteMatch) -> pb::RouteMatch {
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
    }
}

fn match_from_pb(rule: pb::RouteMatch) -> Result<RouteMatch, Fault> {
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
    }
}

fn backend_from_pb(backend: &pb::Backend) -> Result<Backend, Fault> {
    Ok(Backend {
        service: field::name(&backend.service)?,
        version: field::name_if(backend.version.as_deref())?,
        weight: backend.weight,
    })
}

fn timeouts_to_pb(timeouts: &Timeouts) -> pb::Timeouts {
    let duration = |d: Option<Duration>| d.map(duration_to_pb);
    pb::Timeouts {
        request: duration(timeouts.request),
        per_try: duration(timeouts.per_try),
        idle: duration(timeouts.idle),
        connect: duration(timeouts.connect),
    }
}

fn timeouts_from_pb(timeouts: Option<pb::Timeouts>) -> Result<Timeouts, Fault> {
    let timeouts = timeouts.ok_or_else(|| Fault::missing("timeouts"))?;
    let duration = |d: Option<pb::Duration>| d.map(duration_from_pb).transpose();
    Ok(Timeouts {
        request: duration(timeouts.request)?,
        per_try: duration(timeouts.per_try)?,
        idle: duration(timeouts.idle)?,
        connect: duration(timeouts.connect)?,
    })
}

fn retry_to_pb(retry: &RetryPolicy) -> pb::RetryPolicy {
    pb::RetryPolicy {
        retries: retry.retries,
        idempotent: retry.idempotent,
        budget_percent: retry.budget_percent,
        budget_floor: retry.budget_floor,
        replay_bytes: retry.replay_bytes,
    }
}

fn retry_from_pb(retry: &pb::RetryPolicy) -> RetryPolicy {
    RetryPolicy {
        retries: retry.retries,
        idempotent: retry.idempotent,
        budget_percent: retry.budget_percent,
        budget_floor: retry.budget_floor,
        replay_bytes: retry.replay_bytes,
    }
}
