//! `Inbound`.

use outrigger_mesh::{Inbound, InboundService};

use super::field::{self, Fault};
use super::{bulkhead, token};
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
        mtls: field::mtls_to_pb(service.mtls),
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
    }
}

fn service_from_pb(service: pb::InboundService) -> Result<InboundService, Fault> {
    if service.ports.is_empty() {
        return Err(Fault::missing("a port").within(service.name));
    }
    let port = |p: &pb::Port| Ok((field::port_number(p.number)?, field::protocol_from_pb(p.protocol)?));
    Ok(InboundService {
        name: field::name(&service.name)?,
        mtls: field::mtls_from_pb(service.mtls)?,
        ports: service.ports.iter().map(port).collect::<Result<_, Fault>>()?,
        http: field::http_from_pb(service.http),
        between: field::between_from_pb(service.between)?,
        protection: bulkhead::protection_from_pb(service.caller_bulkhead, service.rate_limits)?,
        tokens: service.tokens.map(token::rules_from_pb).transpose()?,
    })
}
