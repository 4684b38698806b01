//! Whether the listeners of a gateway hold together.

use outrigger_mesh::{HostPattern, Label, Listener, ListenerKind, PortNumber, ServiceName};

use super::Found;
use crate::spec::{self, Code, Object, Problem};

/// A gateway that holds, without its routes, which are objects of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedGateway {
    /// As its proxy will see it, without routes.
    pub(crate) base: outrigger_mesh::Gateway,
    /// Whose routes each listener takes, in the order of the listeners.
    pub(crate) from: Vec<spec::From>,
}

impl CheckedGateway {
    /// Its full name.
    pub fn name(&self) -> &ServiceName {
        &self.base.name
    }
}

pub(super) fn check(object: &Object, spec: &spec::Gateway, found: &mut Found) -> Option<CheckedGateway> {
    let label = Label::new(object.metadata.name.as_str())
        .map_err(|e| found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string())))
        .ok()?;
    let name = ServiceName::new(object.metadata.namespace.clone(), label);
    if spec.listeners.is_empty() {
        found.add(Problem::error(
            "/spec/listeners",
            Code::MissingField,
            "a gateway without listeners serves nothing",
        ));
    }
    let mut listeners: Vec<Listener> = vec![];
    let mut from = vec![];
    for (i, written) in spec.listeners.iter().enumerate() {
        let pointer = format!("/spec/listeners/{i}");
        let Some(listener) = listener(&pointer, written, found) else { continue };
        agrees(&pointer, &listener, &listeners, found);
        listeners.push(listener);
        let namespaces = written.allowed_routes.as_ref().and_then(|a| a.namespaces.as_ref());
        from.push(namespaces.map_or(spec::From::Same, |n| n.from));
    }
    if found.is_fatal() {
        return None;
    }
    match (outrigger_mesh::Gateway { name, listeners }).checked() {
        Ok(base) => Some(CheckedGateway { base, from }),
        Err(e) => {
            found.add(Problem::error("/spec", Code::Contradiction, e.to_string()));
            None
        }
    }
}

fn listener(pointer: &str, written: &spec::Listener, found: &mut Found) -> Option<Listener> {
    let before = found.problems.len();
    let mut bad = |at: &str, code, message: String| {
        found.add(Problem::error(format!("{pointer}{at}"), code, message));
    };
    let name = Label::new(&written.name).map_err(|e| bad("/name", Code::BadValue, e.to_string())).ok();
    let hostname = written.hostname.as_deref().map(str::parse::<HostPattern>).transpose();
    let hostname = hostname.map_err(|e| bad("/hostname", Code::BadValue, e.to_string())).ok();
    let port = PortNumber::new(written.port);
    if port.is_none() {
        bad("/port", Code::BadValue, "a port is a number from 1 to 65535".into());
    }
    let kind = match (written.protocol, &written.tls) {
        (spec::ListenerProtocol::Http, None) => ListenerKind::Http,
        (spec::ListenerProtocol::Http, Some(_)) => {
            bad("/tls", Code::Contradiction, "a listener with certificates speaks HTTPS, not HTTP".into());
            ListenerKind::Http
        }
        (spec::ListenerProtocol::Https, None) => {
            bad("/tls", Code::MissingField, "HTTPS needs a certificate: tls.certificateRefs".into());
            ListenerKind::Http
        }
        (spec::ListenerProtocol::Https, Some(tls)) => {
            if tls.certificate_refs.is_empty() {
                bad("/tls/certificateRefs", Code::MissingField, "HTTPS needs a certificate".into());
            }
            let names = tls.certificate_refs.iter().filter_map(|c| Label::new(&c.name).ok());
            ListenerKind::Https { certificates: names.collect() }
        }
    };
    let sound = found.problems[before..].iter().all(|p| p.severity != spec::Severity::Error);
    sound.then(|| Some(Listener { name: name?, port: port?, hostname: hostname?, kind, routes: vec![] }))?
}

fn agrees(pointer: &str, listener: &Listener, others: &[Listener], found: &mut Found) {
    for other in others {
        if other.name == listener.name {
            let message = format!("listener {} is there twice", listener.name);
            found.add(Problem::error(format!("{pointer}/name"), Code::Duplicate, message));
        }
        if other.port != listener.port {
            continue;
        }
        if other.hostname == listener.hostname {
            let message = format!("the listener {} has this port and host name already", other.name);
            found.add(Problem::error(format!("{pointer}/port"), Code::Conflict, message));
        }
        if (other.kind == ListenerKind::Http) != (listener.kind == ListenerKind::Http) {
            let message = format!("port {} speaks HTTP and HTTPS", listener.port);
            found.add(Problem::error(format!("{pointer}/protocol"), Code::Contradiction, message));
        }
    }
}
