//! Whose requests a route takes.

use outrigger_mesh::{Label, Listener, PortNumber, ServiceName};

use super::Context;
use super::backends::group;
use crate::check::Found;
use crate::routes::{Dangling, no_service};
use crate::spec::{self, Code, ParentRef, Problem};

/// A service whose requests a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceParent {
    /// The service.
    pub service: ServiceName,
    /// Its ports that are meant, in the order written; none: all.
    pub ports: Vec<PortNumber>,
    /// Whether a port is meant by a name that none of them has. Where no other one is meant, no request is taken.
    pub lost: bool,
}

impl ServiceParent {
    /// Whether there is no port that it means.
    pub fn takes_nothing(&self) -> bool {
        self.lost && self.ports.is_empty()
    }
}

/// The ports of a service that one parent means.
enum Meant {
    All,
    One(PortNumber),
    /// It has a name that no port has.
    Lost,
}

/// A gateway that a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayParent {
    /// The gateway.
    pub gateway: ServiceName,
    /// The listener; `None` for every one.
    pub section: Option<Label>,
    /// The port; `None` for every one.
    pub port: Option<PortNumber>,
}

impl GatewayParent {
    /// Whether the route is attached to this listener, as far as the parent says.
    pub fn means(&self, listener: &Listener) -> bool {
        self.section.as_ref().is_none_or(|s| *s == listener.name)
            && self.port.is_none_or(|p| p == listener.port)
    }
}

/// All parents of a route.
#[derive(Debug, Default)]
pub(super) struct Parents {
    pub(super) services: Vec<ServiceParent>,
    pub(super) gateways: Vec<GatewayParent>,
}

/// Whether a parent says a section, and a port. Those that name the same thing all do, or none (CommonRouteSpec.parentRefs).
/// A route that was written before that was asked for stays in force.
type Form = (bool, bool);

impl Context<'_> {
    pub(super) fn parents(&self, refs: &[ParentRef], found: &mut Found) -> Parents {
        if refs.is_empty() {
            let message = "a route without a parent takes no requests";
            found.add(Problem::error("/spec/parentRefs", Code::MissingField, message));
        }
        let mut parents = Parents::default();
        let mut forms: Vec<(ServiceName, Form)> = vec![];
        let twice = |what: &ServiceName, pointer: String, found: &mut Found| {
            let problem = Problem::error(
                pointer,
                Code::Duplicate,
                format!("the parent {what} is there twice, and not told apart as the Gateway API wants it"),
            );
            found.add(problem.hint("write sectionName in each of them, or port in each, and no two alike"));
        };
        for (i, parent) in refs.iter().enumerate() {
            let pointer = format!("/spec/parentRefs/{i}");
            if matches!(parent.kind.as_deref(), None | Some("Gateway")) {
                let Some(attached) = self.gateway(&pointer, parent, found) else { continue };
                let whole = |p: &GatewayParent| p.section.is_none() && p.port.is_none();
                let same = |p: &&GatewayParent| p.gateway == attached.gateway;
                let form = |p: &GatewayParent| (p.section.is_some(), p.port.is_some());
                let differs = |p: &GatewayParent| form(p) != form(&attached) && !found.stored;
                let mut others = parents.gateways.iter().filter(same);
                if others.any(|p| *p == attached || whole(p) || whole(&attached) || differs(p)) {
                    twice(&attached.gateway, pointer, found);
                } else {
                    parents.gateways.push(attached);
                }
                continue;
            }
            let Some((service, meant)) = self.parent(&pointer, parent, found) else { continue };
            let form = (parent.section_name.is_some(), parent.port.is_some());
            if forms.iter().any(|(other, its)| *other == service && *its != form) && !found.stored {
                twice(&service, pointer, found);
                continue;
            }
            forms.push((service.clone(), form));
            let Some(known) = parents.services.iter_mut().find(|p| p.service == service) else {
                let (ports, lost) = match meant {
                    Meant::All => (vec![], false),
                    Meant::One(port) => (vec![port], false),
                    Meant::Lost => (vec![], true),
                };
                parents.services.push(ServiceParent { service, ports, lost });
                continue;
            };
            let whole = known.ports.is_empty() && !known.lost;
            match meant {
                // One for the whole service and one for a port of it would leave open which is meant.
                Meant::One(port) if !whole && !known.ports.contains(&port) => known.ports.push(port),
                Meant::Lost if !whole => known.lost = true,
                _ => twice(&service, pointer, found),
            }
        }
        parents
    }

    fn gateway(&self, pointer: &str, parent: &ParentRef, found: &mut Found) -> Option<GatewayParent> {
        const GROUP: &str = "gateway.networking.k8s.io";
        if parent.group.as_deref().is_some_and(|g| g != GROUP) {
            let message = "the kind Gateway, which a parent without a kind is, is not in this group";
            let problem = Problem::error(format!("{pointer}/group"), Code::Contradiction, message);
            found.add(problem.hint(format!("write group: {GROUP}, or kind: Service and group: \"\"")));
            return None;
        }
        let gateway = self.named(pointer, parent, found)?;
        let section = parent.section_name.as_deref().map(Label::new).transpose();
        let section = section.map_err(|e| {
            found.add(Problem::error(format!("{pointer}/sectionName"), Code::BadValue, e.to_string()));
        });
        let section = section.ok()?;
        let attached = GatewayParent { gateway, section, port: parent.port.and_then(PortNumber::new) };
        match self.world.gateway(&attached.gateway).map(|entry| &entry.checked.base.listeners) {
            None => found.missing(self.no_gateway(&format!("{pointer}/name"), &attached.gateway)),
            Some(listeners) if !listeners.iter().any(|l| attached.means(l)) => {
                found.missing(no_listener(pointer, &attached, listeners));
            }
            Some(_) => {}
        }
        Some(attached)
    }

    fn no_gateway(&self, pointer: &str, gateway: &ServiceName) -> Problem {
        let mut names: Vec<_> = self.world.gateways().map(|g| g.checked.name().clone()).collect();
        names.sort();
        let of_namespace = names.iter().filter(|n| n.namespace() == gateway.namespace());
        let near = spec::nearest(gateway.name().as_str(), of_namespace.map(|n| n.name().as_str()));
        Problem::error(pointer, Code::Reference, format!("there is no gateway {gateway}")).hint(match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => "apply a Gateway of this name first, or together with it".to_owned(),
        })
    }

    fn parent(&self, pointer: &str, parent: &ParentRef, found: &mut Found) -> Option<(ServiceName, Meant)> {
        let kind = parent.kind.as_deref().unwrap_or_default();
        found.problems.extend(group(pointer, kind, parent.group.as_deref()));
        let service = self.named(pointer, parent, found)?;
        if self.world.service(&service).is_none() {
            let Dangling { message, hint, .. } = no_service(self.world, &service);
            let problem = Problem::error(format!("{pointer}/name"), Code::Reference, message);
            found.missing(problem.hint(hint));
            let meant = by_number(parent);
            return Some((service, meant));
        }
        let meant = self.port_of(pointer, parent, &service, found);
        Some((service, meant))
    }

    fn named(&self, pointer: &str, parent: &ParentRef, found: &mut Found) -> Option<ServiceName> {
        let mut label = |field: &str, text: &str| {
            Label::new(text)
                .map_err(|e| {
                    found.add(Problem::error(format!("{pointer}/{field}"), Code::BadValue, e.to_string()));
                })
                .ok()
        };
        let name = label("name", &parent.name)?;
        let namespace = match parent.namespace.as_deref() {
            Some(text) => label("namespace", text)?,
            None => self.key.namespace.clone(),
        };
        Some(ServiceName::new(namespace, name))
    }

    /// The port of a service that a parent means.
    fn port_of(&self, pointer: &str, parent: &ParentRef, service: &ServiceName, found: &mut Found) -> Meant {
        if parent.port.is_none() && parent.section_name.is_none() {
            return Meant::All;
        }
        let ports = self.world.service(service).map(|e| e.object.spec.ports()).unwrap_or_default();
        // A service that writes no ports has the one that every service has.
        let numbers = self.world.service(service).map(|e| e.checked.service().ports.as_slice());
        let meant = numbers.unwrap_or_default().iter().find(|p| {
            let written = ports.iter().find(|w| w.port == p.number.get());
            parent.port.is_none_or(|port| port == p.number.get())
                && parent
                    .section_name
                    .as_deref()
                    .is_none_or(|name| written.is_some_and(|w| w.name.as_deref() == Some(name)))
        });
        if let Some(port) = meant {
            return Meant::One(port.number);
        }
        let field = if parent.section_name.is_some() { "sectionName" } else { "port" };
        let written =
            parent.section_name.clone().unwrap_or_else(|| parent.port.unwrap_or_default().to_string());
        let known: Vec<String> = numbers
            .unwrap_or_default()
            .iter()
            .map(|p| match ports.iter().find(|w| w.port == p.number.get()).and_then(|w| w.name.as_deref()) {
                Some(name) => format!("{} ({name})", p.number),
                None => p.number.to_string(),
            })
            .collect();
        let message = format!("the service {service} has no port {written}");
        let problem = Problem::error(format!("{pointer}/{field}"), Code::Reference, message);
        found.missing(problem.hint(format!("its ports are: {}", known.join(", "))));
        by_number(parent)
    }
}

/// What a parent means while its ports are not known: one that has a number is the one of that number.
fn by_number(parent: &ParentRef) -> Meant {
    match (parent.port.and_then(PortNumber::new), &parent.section_name) {
        (Some(port), None) => Meant::One(port),
        (None, None) => Meant::All,
        (_, Some(_)) => Meant::Lost,
    }
}

fn no_listener(pointer: &str, attached: &GatewayParent, listeners: &[Listener]) -> Problem {
    let names: Vec<_> = listeners.iter().map(|l| format!("{} ({})", l.name, l.port)).collect();
    let written = attached.section.as_ref().map_or_else(|| "this port".to_owned(), ToString::to_string);
    let message =
        format!("no listener of {} is meant by {written}; it has: {}", attached.gateway, names.join(", "));
    let near = attached
        .section
        .as_ref()
        .and_then(|written| spec::nearest(written.as_str(), listeners.iter().map(|l| l.name.as_str())));
    Problem::error(pointer, Code::Reference, message).hint(match near {
        Some(near) => format!("did you mean {near:?}?"),
        None => "leave sectionName and port out to take part at every listener".to_owned(),
    })
}
