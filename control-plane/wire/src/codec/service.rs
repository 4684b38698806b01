//! `Service`. Its routes are in `route`.

use outrigger_mesh::{Port, Service};

use super::field::{self, Fault};
use super::{breaker, location, policy, route, token};
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
        routes: service.routes.iter().map(route::route_to_pb).collect(),
        policy: Some(policy::to_pb(&service.policy)),
        addresses: service.addresses.iter().map(|a| field::ip_to_pb(*a)).collect(),
        dns: location::to_pb(&service.location),
        http: field::http_to_pb(&service.http),
        for_callers: service.for_callers.iter().map(policy::caller_to_pb).collect(),
        overrides: service.overrides.iter().map(breaker::override_to_pb).collect(),
        tokens: token::travel_to_pb(service.tokens),
        tcp_routes: service.tcp_routes.iter().map(route::tcp_to_pb).collect(),
        division: service.division.as_ref().map(route::division_to_pb),
        cluster_addresses: service.cluster_addresses.iter().map(|a| field::ip_to_pb(*a)).collect(),
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
        routes: service.routes.into_iter().map(route::route_from_pb).collect::<Result<_, _>>()?,
        policy: policy::from_pb(policy)?,
        addresses: service.addresses.iter().map(|a| field::ip_from_pb(a)).collect::<Result<_, _>>()?,
        location: location::from_pb(service.dns)?,
        http: field::http_from_pb(service.http),
        for_callers: service.for_callers.into_iter().map(policy::caller_from_pb).collect::<Result<_, _>>()?,
        overrides: service.overrides.iter().map(breaker::override_from_pb).collect::<Result<_, _>>()?,
        tokens: token::travel_from_pb(service.tokens)?,
        tcp_routes: service.tcp_routes.into_iter().map(route::tcp_from_pb).collect::<Result<_, _>>()?,
        division: service.division.map(route::division_from_pb).transpose()?,
        cluster_addresses: (service.cluster_addresses.iter())
            .map(|a| field::ip_from_pb(a))
            .collect::<Result<_, _>>()?,
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
