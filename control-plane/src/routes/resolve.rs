//! What routes refer to, as it is just now.

use std::collections::BTreeSet;

use outrigger_mesh::{Backend, Label, PortNumber, ServiceName, Unresolved};

use super::extend;
use crate::check::{CheckedRoute, GatewayParent, ServiceParent, foreign};
use crate::spec::{self, Key, Kind};
use crate::world::{Entry, World};

/// Why a reference leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dangling {
    /// The field of the reference that is to blame.
    pub(crate) field: &'static str,
    /// The reason in the words of the Gateway API.
    pub(crate) why: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Who refers to something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Referrer<'a> {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace.
    pub(crate) namespace: &'a Label,
}

impl<'a> Referrer<'a> {
    pub(crate) fn of(key: &'a Key) -> Self {
        Self { kind: key.kind, namespace: &key.namespace }
    }

    /// Whether what it is about are connections that nobody looks into.
    fn is_opaque(self) -> bool {
        self.kind == Kind::TcpRoute
    }
}

/// Whether traffic can go to a service, at one of its ports where one is named.
pub(crate) fn leads(
    world: &World,
    from: Referrer<'_>,
    service: &ServiceName,
    port: Option<PortNumber>,
) -> Result<(), (Unresolved, Dangling)> {
    let wrong = |why: Unresolved, field, message, hint| {
        Err((why, Dangling { field, why: why.as_str(), message, hint }))
    };
    // First, so that nobody learns what there is in a namespace that grants nothing.
    if !world.is_granted(from.kind, from.namespace, service) {
        let message = format!(
            "the namespace {} does not let routes of the kind {} of {} refer to its service {}",
            service.namespace(),
            from.kind,
            from.namespace,
            service.name()
        );
        let hint = format!(
            "apply a ReferenceGrant in {}: from {{group: gateway.networking.k8s.io, kind: {}, namespace: {}}}, \
             to {{group: \"\", kind: Service, name: {}}}",
            service.namespace(),
            from.kind,
            from.namespace,
            service.name()
        );
        return wrong(Unresolved::RefNotPermitted, "namespace", message, hint);
    }
    let Some(entry) = world.service(service) else {
        let Dangling { field, message, hint, .. } = no_service(world, service);
        return wrong(Unresolved::BackendNotFound, field, message, hint);
    };
    let ports = &entry.checked.service().ports;
    match port {
        None if ports.iter().any(|p| p.protocol.is_opaque() == from.is_opaque()) => Ok(()),
        None => {
            let message = if from.is_opaque() {
                format!(
                    "{service} has no opaque port: what it speaks is looked into, and routed by an HTTPRoute"
                )
            } else {
                format!("every port of {service} is opaque: no route of requests leads there")
            };
            wrong(Unresolved::UnsupportedProtocol, "name", message, other_kind(from))
        }
        Some(port) => match ports.iter().find(|p| p.number == port) {
            None => {
                let known: Vec<String> = ports.iter().map(|p| p.number.to_string()).collect();
                let message = format!("the service {service} has no port {port}");
                let hint = format!("its ports are: {}", known.join(", "));
                wrong(Unresolved::BackendNotFound, "port", message, hint)
            }
            Some(known) if known.protocol.is_opaque() != from.is_opaque() => {
                let message = if from.is_opaque() {
                    format!(
                        "port {port} of {service} speaks {}: connections are not routed there",
                        known.protocol
                    )
                } else {
                    format!("port {port} of {service} is opaque ({}): no route leads there", known.protocol)
                };
                wrong(Unresolved::UnsupportedProtocol, "port", message, other_kind(from))
            }
            Some(_) => Ok(()),
        },
    }
}

fn other_kind(from: Referrer<'_>) -> String {
    let kind = if from.is_opaque() { "an HTTPRoute" } else { "a TCPRoute" };
    format!("write {kind}, or name another service")
}

/// There is no service of this name; perhaps one of nearly this name.
pub(crate) fn no_service(world: &World, name: &ServiceName) -> Dangling {
    let names: Vec<_> = world.services().map(|s| s.checked.name().clone()).collect();
    let same = names.iter().filter(|n| n.namespace() == name.namespace());
    let hint = match spec::nearest(name.name().as_str(), same.map(|n| n.name().as_str())) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "apply it first, or together with this".to_owned(),
    };
    let why = Unresolved::BackendNotFound.as_str();
    Dangling { field: "name", why, message: format!("there is no service {name}"), hint }
}

/// Everything that a route refers to and that is not so just now, with the place where it does.
pub(crate) fn dangling(world: &World, entry: &Entry<CheckedRoute>) -> BTreeSet<(String, Dangling)> {
    let key = entry.object.key();
    let from = Referrer::of(&key);
    let mut all = BTreeSet::new();
    for parent in &entry.checked.parents {
        all.extend(no_port(world, parent).map(|d| ("/spec/parentRefs".to_owned(), d)));
    }
    for parent in &entry.checked.gateways {
        all.extend(no_listener(world, parent).map(|d| ("/spec/parentRefs".to_owned(), d)));
    }
    all.extend(foreign(&entry.object.spec).into_iter().map(|(at, message)| {
        let (why, hint) = (Unresolved::InvalidKind.as_str(), "name a service, or a version of one".into());
        (at, Dangling { field: "kind", why, message, hint })
    }));
    for (i, rule) in entry.checked.rules.iter().enumerate() {
        for (j, backend) in known(&rule.route.backends) {
            let found = leads(world, from, &backend.service, backend.port).err();
            all.extend(found.map(|(_, d)| (format!("/spec/rules/{i}/backendRefs/{j}"), d)));
        }
        let at = format!("/spec/rules/{i}/filters");
        for mirror in &rule.route.filters.mirrors {
            let found = leads(world, from, &mirror.service, mirror.port).err();
            all.extend(found.map(|(_, d)| (at.clone(), d)));
        }
        all.extend(extend::apply(world, rule, &mut rule.route.clone()).err().map(|d| (at, d)));
    }
    for (i, rule) in entry.checked.tcp_rules.iter().enumerate() {
        for (j, backend) in known(&rule.backends) {
            let found = leads(world, from, &backend.service, backend.port).err();
            all.extend(found.map(|(_, d)| (format!("/spec/rules/{i}/backendRefs/{j}"), d)));
        }
    }
    all
}

/// The backends of kinds that can be there, with their places.
fn known(backends: &[Backend]) -> impl Iterator<Item = (usize, &Backend)> {
    backends.iter().enumerate().filter(|(_, backend)| backend.unresolved.is_none())
}

/// What is not there of a service whose requests a route takes.
fn no_port(world: &World, parent: &ServiceParent) -> Option<Dangling> {
    let Some(entry) = world.service(&parent.service) else { return Some(no_service(world, &parent.service)) };
    let ports = &entry.checked.service().ports;
    let gone = parent.ports.iter().find(|port| !ports.iter().any(|p| p.number == **port));
    let message = match gone {
        Some(port) => format!("{} has no port {port}", parent.service),
        None if parent.lost => format!("{} has no port of the name that is meant", parent.service),
        None => return None,
    };
    let hint = "add the port, or name another one".into();
    Some(Dangling { field: "name", why: NO_PARENT, message, hint })
}

fn no_listener(world: &World, parent: &GatewayParent) -> Option<Dangling> {
    let why = NO_PARENT;
    let message = match world.gateway(&parent.gateway).map(|entry| &entry.checked.base.listeners) {
        None => format!("there is no gateway {}", parent.gateway),
        Some(listeners) if !listeners.iter().any(|l| parent.means(l)) => {
            format!("no listener of {} is the one that it names", parent.gateway)
        }
        Some(_) => return None,
    };
    Some(Dangling { field: "name", why, message, hint: "apply it first, or together with this".into() })
}

/// The reason of a parent that is not there.
const NO_PARENT: &str = "NoMatchingParent";
