//! `Endpoint`.

use std::sync::Arc;

use outrigger_mesh::{Endpoint, EndpointPort, EndpointState, Transport, Weight};

use super::field::{self, Fault};
use crate::pb;

pub(crate) fn endpoint_to_pb(endpoint: &Endpoint, required_features: Vec<String>) -> pb::Endpoint {
    pb::Endpoint {
        required_features,
        service: endpoint.service.to_string(),
        uid: endpoint.uid.to_string(),
        ip: field::ip_to_pb(endpoint.ip),
        ports: endpoint.ports.iter().copied().map(port_to_pb).collect(),
        version: endpoint.version.as_ref().map(ToString::to_string),
        zone: endpoint.zone.as_ref().map(ToString::to_string),
        weight: endpoint.weight.get().into(),
        transport: match endpoint.transport {
            Transport::Mesh => pb::Transport::Mesh,
            Transport::Plaintext => pb::Transport::Plaintext,
        }
        .into(),
        state: match endpoint.state {
            EndpointState::Ready => pb::EndpointState::Ready,
            EndpointState::Draining => pb::EndpointState::Draining,
        }
        .into(),
    }
}

pub(crate) fn endpoint_from_pb(endpoint: pb::Endpoint) -> Result<Endpoint, Fault> {
    if endpoint.ports.is_empty() {
        return Err(Fault::missing("a port"));
    }
    Ok(Endpoint {
        service: field::name(&endpoint.service)?,
        uid: field::name(&endpoint.uid)?,
        ip: field::ip_from_pb(&endpoint.ip)?,
        ports: endpoint.ports.into_iter().map(port_from_pb).collect::<Result<Arc<[_]>, _>>()?,
        version: field::name_if(endpoint.version.as_deref())?,
        zone: endpoint.zone.map(Arc::from),
        weight: u16::try_from(endpoint.weight)
            .ok()
            .and_then(Weight::new)
            .ok_or_else(|| Fault::new(format!("{} is not a weight, 1 to 65535", endpoint.weight)))?,
        transport: match field::value("transport", endpoint.transport)? {
            pb::Transport::Unspecified => return Err(Fault::missing("transport")),
            pb::Transport::Mesh => Transport::Mesh,
            pb::Transport::Plaintext => Transport::Plaintext,
        },
        state: match field::value("state", endpoint.state)? {
            pb::EndpointState::Unspecified => return Err(Fault::missing("state")),
            pb::EndpointState::Ready => EndpointState::Ready,
            pb::EndpointState::Draining => EndpointState::Draining,
        },
    })
}

fn port_to_pb(port: EndpointPort) -> pb::EndpointPort {
    pb::EndpointPort {
        port: port.port.get().into(),
        listen: port.listen.get().into(),
        target: port.target.map(|t| t.get().into()),
    }
}

fn port_from_pb(port: pb::EndpointPort) -> Result<EndpointPort, Fault> {
    Ok(EndpointPort {
        port: field::port_number(port.port)?,
        listen: field::port_number(port.listen)?,
        target: port.target.map(field::port_number).transpose()?,
    })
}
