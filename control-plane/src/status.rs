//! What has become of a route: `status.parents` as the Gateway API words it; and how many routes a listener of a gateway has.
//!
//! It is made of the world whenever somebody asks, so that it is never behind; only since when it is so is kept (`since`).
//! What a client sends as `status` is not looked at.

mod gateway;
mod since;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use outrigger_mesh::{Label, PortNumber, ServiceName};
use serde_json::{Map, Value as Json, json};

use crate::check::{CheckedRoute, GatewayParent, taken_by};
use crate::routes::{self, Claimed, Dangling, INCOMPATIBLE};
use crate::spec::{Key, Kind, ParentRef, Spec, Time};
use crate::world::{Entry, World};

pub(crate) use gateway::attached_routes;
pub(crate) use since::{Since, note, note_read};

/// Who says it.
pub(crate) const CONTROLLER: &str = "outrigger.dev/controller";

/// The status of a route.
pub(crate) fn of_route(world: &World, entry: &Entry<CheckedRoute>) -> Json {
    let since = world.since(&entry.object.key());
    let told = Look::at(world).parents(entry).into_iter().map(|(parent, conditions)| {
        let at = |c: &Condition| since?.at(&parent.to_string(), c.kind);
        let conditions: Vec<Json> = conditions.iter().map(|c| c.json(entry.changed, at(c))).collect();
        json!({ "parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions })
    });
    json!({ "parents": told.collect::<Vec<_>>() })
}

/// A look at the routes of a world. What holds for several of them is found once.
struct Look<'a> {
    world: &'a World,
    /// The routes at each listener of a gateway.
    attached: RefCell<BTreeMap<ServiceName, Rc<Vec<BTreeSet<Key>>>>>,
    claimed: RefCell<BTreeMap<(Label, ServiceName), Rc<Claimed>>>,
}

impl<'a> Look<'a> {
    fn at(world: &'a World) -> Self {
        Self { world, attached: RefCell::default(), claimed: RefCell::default() }
    }

    /// Each parent of a route as it is written, with what it says.
    fn parents(&self, entry: &Entry<CheckedRoute>) -> Vec<(Json, Vec<Condition>)> {
        let (filters, refers): (Vec<_>, Vec<_>) = routes::dangling(self.world, entry)
            .into_iter()
            .filter(|(at, _)| !at.starts_with("/spec/parentRefs"))
            .partition(|(_, wrong)| wrong.why == INCOMPATIBLE);
        let told = parents(&entry.object.spec).iter().map(|parent| {
            let taken = self.accepted(entry, parent, &filters);
            let partially = (taken.holds && !filters.is_empty()).then(|| partially(&filters));
            let conditions = [taken, resolved(&refers)].into_iter().chain(partially).collect();
            (written(parent), conditions)
        });
        told.collect()
    }

    /// The same as what is kept of it: the parent, the type of the condition, and whether it holds.
    fn told(&self, entry: &Entry<CheckedRoute>) -> impl Iterator<Item = (String, &'static str, bool)> {
        let all = self.parents(entry).into_iter();
        all.flat_map(|(parent, conditions)| {
            let parent = parent.to_string();
            conditions.into_iter().map(move |c| (parent.clone(), c.kind, c.holds))
        })
    }

    fn attached(&self, gateway: &ServiceName) -> Rc<Vec<BTreeSet<Key>>> {
        let mut known = self.attached.borrow_mut();
        let at = known.entry(gateway.clone()).or_insert_with(|| {
            let listeners = routes::attached(self.world, gateway).into_iter();
            Rc::new(listeners.map(|all| all.iter().map(|(e, _)| e.object.key()).collect()).collect())
        });
        at.clone()
    }

    fn claimed(&self, namespace: &Label, service: &ServiceName) -> Rc<Claimed> {
        let mut known = self.claimed.borrow_mut();
        let of = known.entry((namespace.clone(), service.clone()));
        of.or_insert_with(|| Rc::new(Claimed::of(self.world, namespace, service))).clone()
    }

    fn accepted(
        &self,
        entry: &Entry<CheckedRoute>,
        parent: &ParentRef,
        filters: &[(String, Dangling)],
    ) -> Condition {
        let (world, rules) = (self.world, entry.checked.rules.len());
        if rules > 0 && filters.len() >= rules {
            return is_not(INCOMPATIBLE, all(filters));
        }
        let namespace = &entry.object.metadata.namespace;
        let named = parent.namespace.as_deref().map_or_else(|| Ok(namespace.clone()), Label::new);
        let (Ok(of), Ok(name)) = (named, Label::new(&parent.name)) else {
            return is_not("NoMatchingParent", format!("{} is no name", parent.name));
        };
        let name = ServiceName::new(of, name);
        if matches!(parent.kind.as_deref(), None | Some("Gateway")) {
            let section = parent.section_name.as_deref().and_then(|s| Label::new(s).ok());
            let port = parent.port.and_then(PortNumber::new);
            return self.at_gateway(entry, &GatewayParent { gateway: name, section, port });
        }
        let Some(service) = world.service(&name) else {
            return is_not("NoMatchingParent", format!("there is no service {name}"));
        };
        let ports = service.checked.service().ports.iter().map(|p| p.number);
        let ports: Vec<PortNumber> = ports.collect();
        let lost = entry.checked.parent(&name).is_none_or(|own| own.lost) && parent.section_name.is_some();
        match entry.checked.ports_of(&name).iter().find(|port| !ports.contains(port)) {
            _ if lost => is_not("NoMatchingParent", format!("{name} has no port of this name")),
            Some(port) => is_not("NoMatchingParent", format!("{name} has no port {port}")),
            None if let Some(by) = self.taken_by_grpc(entry, parent, &name) => is_not(
                "Conflicted",
                format!("the port belongs to {by}: of the kinds of routes GRPCRoutes come first"),
            ),
            None if name.namespace() == namespace => is_accepted("it takes the requests to the service"),
            None => {
                is_accepted(&format!("it takes what callers of the namespace {namespace} ask of the service"))
            }
        }
    }

    /// The GRPCRoute that has all ports which this parent of an HTTPRoute means.
    fn taken_by_grpc(
        &self,
        entry: &Entry<CheckedRoute>,
        parent: &ParentRef,
        service: &ServiceName,
    ) -> Option<Key> {
        if entry.object.kind() != Kind::HttpRoute {
            return None;
        }
        let written = self.world.service(service)?.object.spec.ports();
        let named = |section: &str| written.iter().find(|port| port.name.as_deref() == Some(section));
        let section = parent.section_name.as_deref().and_then(named).map(|port| port.port);
        let port = parent.port.or(section).and_then(PortNumber::new);
        let ports: Vec<_> = port.into_iter().collect();
        self.claimed(&entry.object.metadata.namespace, service).by(&ports).cloned()
    }

    /// At a gateway: the best that any of the listeners says that are meant.
    fn at_gateway(&self, entry: &Entry<CheckedRoute>, parent: &GatewayParent) -> Condition {
        let name = &parent.gateway;
        let Some(gateway) = self.world.gateway(name).map(|entry| &entry.checked) else {
            return is_not("NoMatchingParent", format!("there is no gateway {name}"));
        };
        let namespace = &entry.object.metadata.namespace;
        let listeners = gateway.base.listeners.iter().zip(&gateway.from).enumerate();
        let meant: Vec<_> = listeners.filter(|(_, (listener, _))| parent.means(listener)).collect();
        if meant.is_empty() {
            return is_not("NoMatchingParent", format!("no listener of {name} has that name and port"));
        }
        let allowed =
            |from: crate::spec::From| from == crate::spec::From::All || namespace == name.namespace();
        if !meant.iter().any(|(_, (_, from))| allowed(**from)) {
            let message = format!("the listeners of {name} take no routes of the namespace {namespace}");
            return is_not("NotAllowedByListeners", message);
        }
        let taken = |listener, from| taken_by(&entry.checked, parent, namespace, listener, from, name);
        if !meant.iter().any(|(_, (listener, from))| taken(listener, **from).is_some()) {
            let message = format!("the listeners of {name} are for other host names");
            return is_not("NoMatchingListenerHostname", message);
        }
        let (attached, key) = (self.attached(name), entry.object.key());
        let is_there = |at: &usize| attached.get(*at).is_some_and(|all| all.contains(&key));
        if meant.iter().any(|(at, _)| is_there(at)) {
            return is_accepted("it takes the requests of the gateway");
        }
        let message = format!("an older route of another kind has its host names at {name}");
        is_not("NotAllowedByListeners", message)
    }
}

/// A condition, as Kubernetes has them.
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Condition {
    fn json(&self, generation: u64, since: Option<Time>) -> Json {
        let mut told = json!({
            "type": self.kind,
            "status": if self.holds { "True" } else { "False" },
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": generation,
        });
        if let Some(at) = since {
            told["lastTransitionTime"] = at.to_string().into();
        }
        told
    }
}

fn is_accepted(message: &str) -> Condition {
    Condition { kind: "Accepted", holds: true, reason: "Accepted", message: message.into() }
}

fn is_not(reason: &'static str, message: String) -> Condition {
    Condition { kind: "Accepted", holds: false, reason, message }
}

/// Of several reasons the first in the Gateway API's own order stands for all; the message tells each.
fn resolved(refers: &[(String, Dangling)]) -> Condition {
    const ORDER: [&str; 4] = ["RefNotPermitted", "InvalidKind", "BackendNotFound", "UnsupportedProtocol"];
    let reason = ORDER.into_iter().find(|reason| refers.iter().any(|(_, wrong)| wrong.why == *reason));
    let (holds, message) = match reason {
        None => (true, "everything that it refers to is there".to_owned()),
        Some(_) => (false, all(refers)),
    };
    Condition { kind: "ResolvedRefs", holds, reason: reason.unwrap_or("ResolvedRefs"), message }
}

fn partially(filters: &[(String, Dangling)]) -> Condition {
    let message = format!("Dropped Rule: its requests are refused. {}", all(filters));
    Condition { kind: "PartiallyInvalid", holds: true, reason: INCOMPATIBLE, message }
}

fn all(wrong: &[(String, Dangling)]) -> String {
    let told: Vec<String> = wrong.iter().map(|(at, wrong)| format!("{at}: {}", wrong.message)).collect();
    told.join("; ")
}

fn parents(spec: &Spec) -> &[ParentRef] {
    match spec {
        Spec::HttpRoute(route) => &route.parent_refs,
        Spec::GrpcRoute(route) => &route.parent_refs,
        Spec::TcpRoute(route) => &route.parent_refs,
        _ => &[],
    }
}

/// The reference as it was written, with the defaults of the Gateway API.
fn written(parent: &ParentRef) -> Json {
    let mut json =
        serde_json::to_value(parent).unwrap_or_default().as_object().cloned().unwrap_or_else(Map::new);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let group = match kind {
        "Gateway" => "gateway.networking.k8s.io",
        "Service" => "",
        _ => "outrigger.dev",
    };
    json.insert("kind".into(), kind.into());
    json.insert("group".into(), group.into());
    Json::Object(json)
}

#[cfg(test)]
mod tests;
