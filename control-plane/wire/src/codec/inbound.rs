//! `Inbound`.

use outrigger_mesh::{Inbound, InboundService, Longest};

use super::field::{self, Fault, duration, duration_from_pb, duration_to_pb};
use super::{access, bulkhead, token};
use crate::pb;

pub(super) fn to_pb(inbound: &Inbound, required_features: Vec<String>) -> pb::Inbound {
    pb::Inbound {
        required_features,
        identity: inbound.identity.to_string(),
        services: inbound.services.iter().map(service_to_pb).collect(),
    }
}

pub(super) fn from_pb(inbound: pb::Inbound) -> Result<Inbound, Fault> {
    let services: Vec<InboundService> =
        inbound.services.into_iter().map(service_from_pb).collect::<Result<_, _>>()?;
    if !services.is_sorted_by(|a, b| a.name < b.name) {
        return Err(Fault::new("its services are not in order, or one is there twice"));
    }
    Ok(Inbound { identity: field::name(&inbound.identity)?, services })
}

fn service_to_pb(service: &InboundService) -> pb::InboundService {
    pb::InboundService {
        name: service.name.to_string(),
        mtls: field::mtls_to_pb(service.mtls.of_service()),
        port_mtls: field::port_mtls_to_pb(&service.mtls),
        ports: service
            .ports
            .iter()
            .map(|(number, protocol)| pb::Port {
                number: number.get().into(),
                protocol: field::protocol_to_pb(*protocol),
            })
            .collect(),
        http: field::http_to_pb(&service.http),
        between: field::between_to_pb(service.between),
        caller_bulkhead: service.protection.caller.map(bulkhead::to_pb),
        rate_limits: bulkhead::rates_to_pb(&service.protection),
        tokens: service.tokens.as_ref().map(token::rules_to_pb),
        longest: longest_to_pb(service.longest),
        access: access::to_pb(&service.access),
    }
}

fn service_from_pb(service: pb::InboundService) -> Result<InboundService, Fault> {
    if service.ports.is_empty() {
        return Err(Fault::missing("a port").within(service.name));
    }
    let port = |p: &pb::Port| Ok((field::port_number(p.number)?, field::protocol_from_pb(p.protocol)?));
    Ok(InboundService {
        name: field::name(&service.name)?,
        mtls: field::mtls_modes_from_pb(service.mtls, &service.port_mtls)?,
        ports: service.ports.iter().map(port).collect::<Result<_, Fault>>()?,
        http: field::http_from_pb(service.http),
        between: field::between_from_pb(service.between)?,
        protection: bulkhead::protection_from_pb(service.caller_bulkhead, service.rate_limits)?,
        tokens: service.tokens.map(token::rules_from_pb).transpose()?,
        longest: longest_from_pb(service.longest)?,
        access: access::from_pb(service.access)?,
    })
}

/// The defaults, which most services have, cost nothing. No feature of its own: who does not know the field goes by the
/// defaults, and the sidecars of the callers keep to their limits in any case.
fn longest_to_pb(longest: Longest) -> Option<pb::Longest> {
    (longest != Longest::default()).then(|| pb::Longest {
        request: Some(duration_to_pb(longest.request)),
        grpc: longest.grpc.map(duration_to_pb),
        idle: Some(duration_to_pb(longest.idle)),
        stream: longest.stream.map(duration_to_pb),
    })
}

fn longest_from_pb(longest: Option<pb::Longest>) -> Result<Longest, Fault> {
    let Some(longest) = longest else { return Ok(Longest::default()) };
    let longest = Longest {
        request: duration("request", longest.request)?,
        grpc: longest.grpc.map(duration_from_pb).transpose()?,
        idle: duration("idle", longest.idle)?,
        stream: longest.stream.map(duration_from_pb).transpose()?,
    };
    longest.check().map_err(|e| Fault::new(e.to_string()))?;
    Ok(longest)
}
