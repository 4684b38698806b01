//! Whether an instance is one of a service that exists, on ports the service has.

use std::collections::HashSet;

use outrigger_mesh::{
    Endpoint, EndpointPort, EndpointState, EndpointUid, Label, Location, MtlsMode, PortNumber, ServiceName,
    SpiffeId, Transport, Version, Weight,
};

use super::{CheckedService, Found};
use crate::spec::{self, Code, Instance, Metadata, Object, ObjectName, Problem, Spec};
use crate::world::World;

/// An instance that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedInstance {
    /// As callers will see it.
    pub endpoint: Endpoint,
    /// The workload that registered it; `None` where a person wrote it.
    pub registered_by: Option<SpiffeId>,
}

pub(super) fn check(
    object: &Object,
    spec: &Instance,
    world: &World,
    found: &mut Found,
) -> Option<CheckedInstance> {
    let uid = EndpointUid::new(object.metadata.name.as_str())
        .map_err(|e| found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string())))
        .ok()?;
    let name = Label::new(&spec.service)
        .map_err(|e| found.add(Problem::error("/spec/service", Code::BadValue, e.to_string())))
        .ok()?;
    let service = ServiceName::new(object.metadata.namespace.clone(), name);
    let Some(entry) = world.service(&service) else {
        let message = format!("there is no service {service}");
        found.add(Problem::error("/spec/service", Code::Reference, message));
        return None;
    };
    // The same text as the service's own: there may be very many instances.
    let service = entry.checked.name().clone();
    let version = match spec.version.as_deref().map(Version::new).transpose() {
        Ok(version) => version,
        Err(e) => {
            found.add(Problem::error("/spec/version", Code::BadValue, e.to_string()));
            None
        }
    };
    if let Location::Dns { .. } = entry.checked.service().location {
        let message = format!("the instances of {service} are looked up by DNS");
        found.add(Problem::error("/spec/service", Code::Contradiction, message));
    }
    let ports = ports(spec, &entry.checked, found);
    let transport = spec.transport.map_or(Transport::Mesh, transport);
    let mtls = &entry.checked.service().mtls;
    let strict = |port: &EndpointPort| mtls.at(port.port) == MtlsMode::Strict;
    if transport == Transport::Plaintext && ports.iter().any(strict) {
        let message = format!("{service} takes mutual TLS only, so an instance in plaintext gets no request");
        let problem = Problem::warning("/spec/transport", Code::NoTraffic, message);
        found.add(problem.hint("set mtls: permissive at the service while it has such instances"));
    }
    let endpoint = Endpoint {
        service,
        uid,
        ip: spec.address,
        ports: ports.into(),
        version,
        zone: spec.zone.as_deref().map(Into::into),
        weight: spec.weight.and_then(Weight::new).unwrap_or_default(),
        transport,
        state: spec.state.map_or(EndpointState::Ready, state),
    };
    Some(CheckedInstance { endpoint, registered_by: None })
}

fn ports(spec: &Instance, service: &CheckedService, found: &mut Found) -> Vec<EndpointPort> {
    let declared = &service.service().ports;
    if spec.ports.is_empty() {
        return declared
            .iter()
            .map(|p| EndpointPort { port: p.number, listen: p.number, target: None })
            .collect();
    }
    let (mut seen, mut ports) = (HashSet::new(), vec![]);
    for (i, port) in spec.ports.iter().enumerate() {
        let pointer = format!("/spec/ports/{i}/port");
        let numbers = PortNumber::new(port.port).zip(PortNumber::new(port.listen.unwrap_or(port.port)));
        let target = port.target.and_then(PortNumber::new);
        let Some((number, listen)) = numbers else {
            found.add(Problem::error(pointer, Code::BadValue, "a port is a number from 1 to 65535"));
            continue;
        };
        if !declared.iter().any(|p| p.number == number) {
            let all: Vec<_> = declared.iter().map(|p| p.number.to_string()).collect();
            let message = format!("the service {} has no port {number}", service.name());
            let problem = if found.stored { Problem::warning } else { Problem::error };
            let problem = problem(pointer.clone(), Code::Reference, message);
            found.add(problem.hint(format!("it has: {}", all.join(", "))));
        }
        if !seen.insert(number) {
            let message = format!("port {number} is there twice");
            found.add(Problem::error(pointer, Code::Duplicate, message));
        }
        ports.push(EndpointPort { port: number, listen, target });
    }
    ports
}

fn transport(written: spec::Transport) -> Transport {
    match written {
        spec::Transport::Mesh => Transport::Mesh,
        spec::Transport::Plaintext => Transport::Plaintext,
    }
}

fn state(written: spec::InstanceState) -> EndpointState {
    match written {
        spec::InstanceState::Ready => EndpointState::Ready,
        spec::InstanceState::Draining => EndpointState::Draining,
    }
}

/// The written form of an endpoint that registered itself.
pub fn instance_of(endpoint: &Endpoint) -> Object {
    let ports = endpoint.ports.iter();
    let spec = Instance {
        service: endpoint.service.name().to_string(),
        address: endpoint.ip,
        ports: ports
            .map(|p| spec::InstancePort {
                port: p.port.get(),
                listen: Some(p.listen.get()),
                target: p.target.map(PortNumber::get),
            })
            .collect(),
        version: endpoint.version.as_ref().map(ToString::to_string),
        zone: endpoint.zone.as_deref().map(str::to_owned),
        weight: (endpoint.weight != Weight::default()).then(|| endpoint.weight.get()),
        transport: match endpoint.transport {
            Transport::Mesh => None,
            Transport::Plaintext => Some(spec::Transport::Plaintext),
        },
        state: match endpoint.state {
            EndpointState::Ready => None,
            EndpointState::Draining => Some(spec::InstanceState::Draining),
        },
    };
    let metadata = Metadata::new(endpoint.service.namespace().clone(), ObjectName::from(&endpoint.uid));
    Object { metadata, spec: Spec::Instance(spec) }
}
