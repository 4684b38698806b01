//! Which service a pod is an instance of, and at which ports.
//!
//! An annotation says so, or the Services of the namespace: the one whose selector fits. A pod of no service is a client
//! only: the connections that arrive at it are its own.

use serde_json::Value;

use crate::decision::Warning;
use crate::json::{list, text, texts};
use crate::namespace::{ServiceFacts, ServiceTarget};
use crate::options::Options;
use crate::{NamespaceFacts, Problem};

/// The service of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) name: String,
    /// Its first port.
    pub(crate) first: ServedPort,
    /// The others.
    pub(crate) more: Vec<ServedPort>,
}

/// A port of the service at this pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServedPort {
    /// What callers use; `None`: the first port of the service.
    pub(crate) service: Option<u16>,
    /// Where the application listens.
    pub(crate) application: u16,
}

impl Served {
    /// Every port where the application listens.
    pub(crate) fn application_ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.first.application).chain(self.more.iter().map(|port| port.application))
    }

    /// Finds the service of the pod. `None`: it has none.
    pub(crate) fn find(
        pod: &Value,
        namespace: &NamespaceFacts,
        options: &Options,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Self>, Problem> {
        let facts = match &options.service {
            Some(name) => namespace.services.iter().find(|service| service.name == *name),
            None => selecting(pod, namespace, warnings),
        };
        let Some(name) = options.service.clone().or_else(|| facts.map(|service| service.name.clone())) else {
            warnings.push(Warning {
                code: "no_service",
                message: "no Service selects the pod: it calls through the mesh, and what arrives at it does not come \
                          by its sidecar. Make the Service first, or name it with outrigger.dev/service"
                    .into(),
            });
            return Ok(None);
        };
        let mut ports = facts.map_or_else(Vec::new, |service| reachable(pod, service, warnings));
        if let Some(port) = options.port {
            let service = ports.first().and_then(|first| first.service);
            ports = vec![ServedPort { service, application: port }];
        }
        if ports.is_empty() {
            ports.extend(first_port(pod).map(|application| ServedPort { service: None, application }));
        }
        let mut ports = ports.into_iter();
        match ports.next() {
            Some(first) => Ok(Some(Self { name, first, more: ports.collect() })),
            None if options.service.is_none() => Ok(None),
            None => Err(Problem {
                pointer: "/spec/containers".into(),
                code: "no_port",
                message: format!("nobody says where the pod listens for its service {name}"),
                hint: "declare a containerPort, or set outrigger.dev/port".into(),
            }),
        }
    }
}

/// The Service that selects the pod: of several the first by name, so that it is always the same. None of a namespace that
/// the mesh leaves out, where only an annotation makes a pod an instance of anything.
fn selecting<'a>(
    pod: &Value,
    namespace: &'a NamespaceFacts,
    warnings: &mut Vec<Warning>,
) -> Option<&'a ServiceFacts> {
    let metadata = pod.get("metadata")?;
    let has = |name: &str, value: &str| texts(metadata, "labels").any(|(n, v)| n == name && v == value);
    let selects = |service: &&ServiceFacts| {
        !service.selector.is_empty() && service.selector.iter().all(|(name, value)| has(name, value))
    };
    let services = if namespace.is_left_out() { &[][..] } else { &namespace.services[..] };
    let mut found: Vec<&ServiceFacts> = services.iter().filter(selects).collect();
    found.sort_by_key(|service| &service.name);
    if let [first, others @ ..] = found.as_slice()
        && !others.is_empty()
    {
        let names: Vec<&str> = found.iter().map(|service| service.name.as_str()).collect();
        let message = format!(
            "{} Services select the pod ({}): it is an instance of {}. outrigger.dev/service names another",
            found.len(),
            names.join(", "),
            first.name
        );
        warnings.push(Warning { code: "several_services", message });
    }
    found.first().copied()
}

/// The ports of `service` for which this pod listens somewhere.
fn reachable(pod: &Value, service: &ServiceFacts, warnings: &mut Vec<Warning>) -> Vec<ServedPort> {
    let mut ports = Vec::new();
    for port in &service.ports {
        let application = match &port.target {
            ServiceTarget::Number(number) => Some(*number),
            ServiceTarget::Name(name) => named_port(pod, name),
        };
        if let Some(application) = application {
            ports.push(ServedPort { service: Some(port.port), application });
        } else {
            let message = format!(
                "port {} of the Service {} leads to a name that no container port has",
                port.port, service.name
            );
            warnings.push(Warning { code: "unknown_port_name", message });
        }
    }
    ports.truncate(MOST_PORTS);
    ports
}

/// As many ports of one service as get a port of their own at the sidecar.
const MOST_PORTS: usize = 50;

fn named_port(pod: &Value, name: &str) -> Option<u16> {
    container_ports(pod).find(|port| text(port, "name") == Some(name)).and_then(number)
}

fn first_port(pod: &Value) -> Option<u16> {
    container_ports(pod).find_map(number)
}

/// The TCP ports that the containers declare.
fn container_ports(pod: &Value) -> impl Iterator<Item = &Value> {
    let containers = pod.get("spec").map_or(&[][..], |spec| list(spec, "containers"));
    let ports = containers.iter().flat_map(|container| list(container, "ports"));
    ports.filter(|port| text(port, "protocol").is_none_or(|protocol| protocol == "TCP"))
}

fn number(port: &Value) -> Option<u16> {
    port.get("containerPort")?.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}
