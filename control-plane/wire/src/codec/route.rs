//! Routes: their conditions and where they lead. What they do on the way is in `filter`.

use std::sync::Arc;

use http::{HeaderName, Method};
use outrigger_mesh::{
    Backend, Choice, ConsumerRoutes, CookieMatch, Division, HeaderMatch, KeyRange, Labels, Partition,
    PathMatch, Pattern, QueryMatch, Route, RouteMatch, RouteName, RoutePolicy, TcpRoute, TraceShare,
    Unresolved, ValueMatch,
};

use super::field::{self, Fault};
use super::{access, breaker, bulkhead, filter, policy, token};
use crate::pb;

pub(super) fn route_to_pb(route: &Route) -> pb::Route {
    pb::Route {
        name: route.name.to_string(),
        matches: route.matches.iter().map(match_to_pb).collect(),
        backends: route.backends.iter().map(backend_to_pb).collect(),
        timeouts: Some(policy::timeouts_to_pb(&route.timeouts)),
        retry: route.retry.as_ref().map(policy::retry_to_pb),
        breaker: route.policy.breaker.as_ref().map(breaker::service_to_pb),
        bulkhead: route.policy.bulkhead.map(bulkhead::to_pb),
        ports: route.ports.iter().map(|port| port.get().into()).collect(),
        filters: filter::to_pb(&route.filters),
        by: route.choice.by.as_ref().map(policy::hash_to_pb),
        partition: route.choice.partition.as_ref().map(partition_to_pb),
        session: route.choice.session.as_ref().map(policy::sticky_to_pb),
        traced: route.policy.traced.map(TraceShare::millionths),
    }
}

pub(super) fn route_from_pb(route: pb::Route) -> Result<Route, Fault> {
    let name: RouteName = field::name(&route.name)?;
    let read = || {
        Ok(Route {
            name: name.clone(),
            ports: ports(&route.ports)?,
            matches: route.matches.into_iter().map(match_from_pb).collect::<Result<_, _>>()?,
            filters: filter::from_pb(route.filters)?,
            backends: route.backends.into_iter().map(backend_from_pb).collect::<Result<_, _>>()?,
            choice: Choice {
                by: key_if(route.by)?,
                partition: route.partition.map(partition_from_pb).transpose()?,
                session: route.session.map(policy::sticky_from_pb).transpose()?,
            },
            timeouts: policy::timeouts_from_pb(route.timeouts)?,
            retry: route.retry.map(policy::retry_from_pb).transpose()?,
            policy: RoutePolicy {
                breaker: route.breaker.map(breaker::service_from_pb).transpose()?,
                bulkhead: route.bulkhead.map(bulkhead::from_pb).transpose()?,
                traced: route.traced.map(policy::traced_from_pb).transpose()?,
            },
        })
    };
    read().map_err(|fault: Fault| fault.within(format_args!("route {name}")))
}

pub(super) fn tcp_to_pb(route: &TcpRoute) -> pb::TcpRoute {
    pb::TcpRoute {
        name: route.name.to_string(),
        ports: route.ports.iter().map(|port| port.get().into()).collect(),
        callers: route.callers.iter().map(access::caller_to_pb).collect(),
        backends: route.backends.iter().map(backend_to_pb).collect(),
    }
}

pub(super) fn tcp_from_pb(route: pb::TcpRoute) -> Result<TcpRoute, Fault> {
    Ok(TcpRoute {
        name: field::name(&route.name)?,
        ports: ports(&route.ports)?,
        callers: route.callers.into_iter().map(access::caller_from_pb).collect::<Result<_, _>>()?,
        backends: route.backends.into_iter().map(backend_from_pb).collect::<Result<_, _>>()?,
    })
}

pub(super) fn consumer_to_pb(routes: &ConsumerRoutes, required_features: Vec<String>) -> pb::ConsumerRoutes {
    pb::ConsumerRoutes {
        required_features,
        namespace: routes.namespace.to_string(),
        service: routes.service.to_string(),
        routes: routes.routes.iter().map(route_to_pb).collect(),
        tcp_routes: routes.tcp_routes.iter().map(tcp_to_pb).collect(),
    }
}

pub(super) fn consumer_from_pb(routes: pb::ConsumerRoutes) -> Result<ConsumerRoutes, Fault> {
    ConsumerRoutes {
        namespace: field::name(&routes.namespace)?,
        service: field::name(&routes.service)?,
        routes: routes.routes.into_iter().map(route_from_pb).collect::<Result<_, _>>()?,
        tcp_routes: routes.tcp_routes.into_iter().map(tcp_from_pb).collect::<Result<_, _>>()?,
    }
    .checked()
    .map_err(Fault::new)
}

pub(super) fn division_to_pb(division: &Division) -> pb::Division {
    pb::Division {
        stable: division.stable.to_string(),
        candidate: division.candidate.to_string(),
        share: division.share,
        preview: division.preview.iter().map(match_to_pb).collect(),
        by: division.by.as_ref().map(policy::hash_to_pb),
    }
}

pub(super) fn division_from_pb(division: pb::Division) -> Result<Division, Fault> {
    Ok(Division {
        stable: field::name(&division.stable)?,
        candidate: field::name(&division.candidate)?,
        share: division.share,
        preview: division.preview.into_iter().map(match_from_pb).collect::<Result<_, _>>()?,
        by: key_if(division.by)?,
    })
}

pub(super) fn match_to_pb(rule: &RouteMatch) -> pb::RouteMatch {
    let path = rule.path.as_ref().map(|path| pb::PathMatch {
        path: Some(match path {
            PathMatch::Exact(text) => pb::path_match::Path::Exact(text.to_string()),
            PathMatch::Prefix(text) => pb::path_match::Path::Prefix(text.to_string()),
            PathMatch::Regex(pattern) => pb::path_match::Path::Regex(pattern.as_str().to_owned()),
            PathMatch::Method(text) => pb::path_match::Path::GrpcMethod(text.to_string()),
        }),
    });
    pb::RouteMatch {
        path,
        method: rule.method.as_ref().map(ToString::to_string),
        headers: rule.headers.iter().map(|h| value_to_pb(h.name.as_str(), &h.value)).collect(),
        query: rule.query.iter().map(|q| value_to_pb(&q.name, &q.value)).collect(),
        claims: rule.claims.iter().map(token::match_to_pb).collect(),
        cookies: rule.cookies.iter().map(|c| value_to_pb(&c.name, &c.value)).collect(),
        callers: rule.callers.iter().map(access::caller_to_pb).collect(),
        labels: rule.labels.iter().map(|(name, value)| label_to_pb(name, value)).collect(),
        grpc: rule.grpc,
    }
}

pub(super) fn match_from_pb(rule: pb::RouteMatch) -> Result<RouteMatch, Fault> {
    let method = |text: String| {
        Method::from_bytes(text.as_bytes()).map_err(|_| Fault::new(format!("{text:?} is not a method")))
    };
    let query = |q: pb::ValueMatch| Ok(QueryMatch { value: value_from_pb(&q)?, name: q.name.into() });
    let cookie = |c: pb::ValueMatch| Ok(CookieMatch { value: value_from_pb(&c)?, name: c.name.into() });
    Ok(RouteMatch {
        path: rule.path.map(path_from_pb).transpose()?,
        method: rule.method.map(method).transpose()?,
        headers: rule.headers.iter().map(header_from_pb).collect::<Result<_, _>>()?,
        query: rule.query.into_iter().map(query).collect::<Result<_, Fault>>()?,
        claims: rule.claims.into_iter().map(token::match_from_pb).collect::<Result<_, _>>()?,
        cookies: rule.cookies.into_iter().map(cookie).collect::<Result<_, Fault>>()?,
        callers: rule.callers.into_iter().map(access::caller_from_pb).collect::<Result<_, _>>()?,
        labels: labels_from_pb(rule.labels)?,
        grpc: rule.grpc,
    })
}

fn path_from_pb(path: pb::PathMatch) -> Result<PathMatch, Fault> {
    Ok(match path.path.ok_or_else(|| Fault::missing("the path of a match"))? {
        pb::path_match::Path::Exact(text) => PathMatch::Exact(text.into()),
        pb::path_match::Path::Prefix(text) => PathMatch::Prefix(text.into()),
        pb::path_match::Path::Regex(text) => PathMatch::Regex(pattern(&text)?),
        pb::path_match::Path::GrpcMethod(text) => PathMatch::Method(text.into()),
    })
}

fn pattern(text: &str) -> Result<Pattern, Fault> {
    Pattern::new(text).map_err(|e| Fault::new(format!("{:?}: {e}", super::shortened(text))))
}

fn header_from_pb(header: &pb::ValueMatch) -> Result<HeaderMatch, Fault> {
    let name = HeaderName::from_bytes(header.name.as_bytes())
        .map_err(|_| Fault::new(format!("{:?} is not a header's name", super::shortened(&header.name))))?;
    Ok(HeaderMatch { name, value: value_from_pb(header)? })
}

fn value_to_pb(name: &str, wanted: &ValueMatch) -> pb::ValueMatch {
    let (value, kind) = match wanted {
        ValueMatch::Exact(text) => (text.to_string(), None),
        ValueMatch::Regex(pattern) => (pattern.as_str().to_owned(), Some(pb::ValueMatchKind::Regex)),
        ValueMatch::Present => (String::new(), Some(pb::ValueMatchKind::Present)),
    };
    pb::ValueMatch { name: name.to_owned(), value, kind: kind.map(i32::from) }
}

fn value_from_pb(wanted: &pb::ValueMatch) -> Result<ValueMatch, Fault> {
    let kind = wanted.kind.map(|kind| field::value("the kind of a value's match", kind)).transpose()?;
    match kind {
        None => Ok(ValueMatch::Exact(wanted.value.as_str().into())),
        Some(pb::ValueMatchKind::Regex) => pattern(&wanted.value).map(ValueMatch::Regex),
        Some(pb::ValueMatchKind::Present) if wanted.value.is_empty() => Ok(ValueMatch::Present),
        Some(pb::ValueMatchKind::Present) => Err(Fault::new("any value is wanted, and one is named")),
        Some(pb::ValueMatchKind::Unspecified) => Err(Fault::missing("the kind of a value's match")),
    }
}

fn label_to_pb(name: &str, value: &str) -> pb::NameValue {
    pb::NameValue { name: name.to_owned(), value: value.to_owned() }
}

fn labels_from_pb(written: Vec<pb::NameValue>) -> Result<Labels, Fault> {
    let count = written.len();
    let labels: Labels = written.into_iter().map(|l| (l.name.into(), l.value.into())).collect();
    if labels.len() == count { Ok(labels) } else { Err(Fault::new("a label is there twice")) }
}

fn key_if(key: Option<pb::HashKey>) -> Result<Option<outrigger_mesh::HashKey>, Fault> {
    key.map(|key| policy::hash_from_pb(Some(key))).transpose()
}

fn ports(written: &[u32]) -> Result<Vec<outrigger_mesh::PortNumber>, Fault> {
    written.iter().map(|port| field::port_number(*port)).collect()
}

fn partition_to_pb(partition: &Partition) -> pb::Partition {
    let text = |end: &Option<Arc<str>>| end.as_ref().map(ToString::to_string);
    let range = |range: &KeyRange| pb::KeyRange {
        from: text(&range.from),
        to: text(&range.to),
        backend: u32::try_from(range.backend).unwrap_or(u32::MAX),
    };
    pb::Partition {
        key: Some(policy::hash_to_pb(&partition.key)),
        ranges: partition.ranges.iter().map(range).collect(),
    }
}

fn partition_from_pb(partition: pb::Partition) -> Result<Partition, Fault> {
    let range = |range: pb::KeyRange| KeyRange {
        from: range.from.map(Into::into),
        to: range.to.map(Into::into),
        backend: usize::try_from(range.backend).unwrap_or(usize::MAX),
    };
    Ok(Partition {
        key: policy::hash_from_pb(partition.key)?,
        ranges: partition.ranges.into_iter().map(range).collect(),
    })
}

fn backend_to_pb(backend: &Backend) -> pb::Backend {
    let unresolved = backend.unresolved.map(|why| match why {
        Unresolved::BackendNotFound => pb::Unresolved::BackendNotFound,
        Unresolved::RefNotPermitted => pb::Unresolved::RefNotPermitted,
        Unresolved::InvalidKind => pb::Unresolved::InvalidKind,
        Unresolved::UnsupportedProtocol => pb::Unresolved::UnsupportedProtocol,
    });
    pb::Backend {
        service: backend.service.to_string(),
        version: backend.version.as_ref().map(ToString::to_string),
        weight: backend.weight,
        port: backend.port.map(|port| port.get().into()),
        request: filter::changes_to_pb(&backend.request),
        response: filter::changes_to_pb(&backend.response),
        unresolved: unresolved.map(i32::from),
    }
}

fn backend_from_pb(backend: pb::Backend) -> Result<Backend, Fault> {
    let unresolved = backend.unresolved.map(|why| field::value("why a backend leads nowhere", why));
    let unresolved = match unresolved.transpose()? {
        None => None,
        Some(pb::Unresolved::BackendNotFound) => Some(Unresolved::BackendNotFound),
        Some(pb::Unresolved::RefNotPermitted) => Some(Unresolved::RefNotPermitted),
        Some(pb::Unresolved::InvalidKind) => Some(Unresolved::InvalidKind),
        Some(pb::Unresolved::UnsupportedProtocol) => Some(Unresolved::UnsupportedProtocol),
        Some(pb::Unresolved::Unspecified) => return Err(Fault::missing("why a backend leads nowhere")),
    };
    Ok(Backend {
        service: field::name(&backend.service)?,
        version: field::name_if(backend.version.as_deref())?,
        weight: backend.weight,
        port: backend.port.map(field::port_number).transpose()?,
        request: filter::changes_from_pb(backend.request)?,
        response: filter::changes_from_pb(backend.response)?,
        unresolved,
    })
}
