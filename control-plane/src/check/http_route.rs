//! Whether a route's services exist, and whether its rules can be met.

use std::collections::HashSet;

use http::{HeaderName, Method};
use outrigger_mesh::{
    Backend, HeaderMatch, HostPattern, Label, Listener, PathMatch, Port, PortNumber, QueryMatch, Route,
    RouteMatch, RouteName, ServiceName, Timeouts, Version,
};

use super::Found;
use super::route_warnings;
use crate::spec::{self, BackendRef, Code, HttpRoute, Object, ParentRef, Problem};
use crate::world::World;

/// A route that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRoute {
    /// The services whose requests it takes.
    pub parents: Vec<ServiceName>,
    /// The gateways it is attached to.
    pub gateways: Vec<GatewayParent>,
    /// At a gateway: the host names it is for; none for all of the listener's.
    pub hostnames: Vec<HostPattern>,
    /// Its rules, in the order written.
    pub rules: Vec<Route>,
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

impl CheckedRoute {
    /// The services it sends requests to; one may come more than once.
    pub fn backends(&self) -> impl Iterator<Item = &ServiceName> {
        self.rules.iter().flat_map(|r| &r.backends).map(|b| &b.service)
    }
}

pub(super) fn check(
    object: &Object,
    spec: &HttpRoute,
    world: &World,
    found: &mut Found,
) -> Option<CheckedRoute> {
    let namespace = &object.metadata.namespace;
    let cx = Context { namespace, world };
    let (parents, gateways) = cx.parents(&spec.parent_refs, found);
    let hostnames = hostnames(spec, &parents, found);
    if spec.rules.is_empty() {
        found.add(Problem::error("/spec/rules", Code::MissingField, "a route without rules routes nothing"));
    }
    let rules: Vec<Route> = spec
        .rules
        .iter()
        .enumerate()
        .filter_map(|(i, rule)| {
            let name = format!("{namespace}/{}/{i}", object.metadata.name);
            cx.rule(&name, &format!("/spec/rules/{i}"), rule, (&parents, !gateways.is_empty()), found)
        })
        .collect();
    if found.is_fatal() {
        return None;
    }
    let checked = CheckedRoute { parents, gateways, hostnames, rules };
    attachments(&checked, namespace, world, found);
    route_warnings::add(&object.key(), &checked, world, found);
    Some(checked)
}

/// What the references of a route are resolved in.
struct Context<'a> {
    namespace: &'a Label,
    world: &'a World,
}

impl Context<'_> {
    fn parents(&self, refs: &[ParentRef], found: &mut Found) -> (Vec<ServiceName>, Vec<GatewayParent>) {
        if refs.is_empty() {
            let message = "a route without a parent takes no requests";
            found.add(Problem::error("/spec/parentRefs", Code::MissingField, message));
        }
        let (mut parents, mut gateways) = (vec![], vec![]);
        for (i, parent) in refs.iter().enumerate() {
            let pointer = format!("/spec/parentRefs/{i}");
            if matches!(parent.kind.as_deref(), None | Some("Gateway")) {
                match self.gateway(&pointer, parent, found) {
                    Some(same) if gateways.contains(&same) => {
                        let message = format!("the parent {} is there twice", same.gateway);
                        found.add(Problem::error(pointer, Code::Duplicate, message));
                    }
                    attached => gateways.extend(attached),
                }
                continue;
            }
            let Some(service) = self.parent(&pointer, parent, found) else { continue };
            if parents.contains(&service) {
                let message = format!("the parent {service} is there twice");
                found.add(Problem::error(pointer, Code::Duplicate, message));
            } else {
                parents.push(service);
            }
        }
        (parents, gateways)
    }

    fn gateway(&self, pointer: &str, parent: &ParentRef, found: &mut Found) -> Option<GatewayParent> {
        const GROUP: &str = "gateway.networking.k8s.io";
        if parent.group.as_deref().is_some_and(|g| g != GROUP) {
            let message = "the kind Gateway, which a parent without a kind is, is not in this group";
            let problem = Problem::error(format!("{pointer}/group"), Code::Contradiction, message);
            found.add(problem.hint(format!("write group: {GROUP}, or kind: Service and group: \"\"")));
            return None;
        }
        let mut bad = |at: &str, code, message: String| {
            found.add(Problem::error(format!("{pointer}{at}"), code, message));
        };
        let label = |text: &str| Label::new(text).map_err(|e| e.to_string());
        let named = label(&parent.name).map_err(|e| bad("/name", Code::BadValue, e)).ok()?;
        let namespace = parent.namespace.as_deref().map_or_else(|| Ok(self.namespace.clone()), label);
        let namespace = namespace.map_err(|e| bad("/namespace", Code::BadValue, e)).ok()?;
        let gateway = ServiceName::new(namespace, named);
        let Some(entry) = self.world.gateway(&gateway) else {
            found.add(self.no_gateway(&format!("{pointer}/name"), &gateway));
            return None;
        };
        let section = parent.section_name.as_deref().map(label).transpose();
        let section = section.map_err(|e| bad("/sectionName", Code::BadValue, e)).ok()?;
        let attached = GatewayParent { gateway, section, port: parent.port.and_then(PortNumber::new) };
        let listeners = &entry.checked.base.listeners;
        if !listeners.iter().any(|l| attached.means(l)) {
            let names: Vec<_> = listeners.iter().map(|l| format!("{} ({})", l.name, l.port)).collect();
            let written =
                attached.section.as_ref().map_or_else(|| "this port".to_owned(), ToString::to_string);
            let message = format!(
                "no listener of {} is meant by {written}; it has: {}",
                attached.gateway,
                names.join(", ")
            );
            let near = attached.section.as_ref().and_then(|written| {
                spec::nearest(written.as_str(), listeners.iter().map(|l| l.name.as_str()))
            });
            found.add(Problem::error(pointer, Code::Reference, message).hint(match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "leave sectionName and port out to take part at every listener".to_owned(),
            }));
            return None;
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

    fn parent(&self, pointer: &str, parent: &ParentRef, found: &mut Found) -> Option<ServiceName> {
        group(pointer, parent.kind.as_deref().unwrap_or_default(), parent.group.as_deref(), found);
        if parent.section_name.is_some() || parent.port.is_some() {
            let message = "a route to one port of a service is not supported yet";
            found.add(
                Problem::error(pointer, Code::Unsupported, message).hint("leave sectionName and port out"),
            );
        }
        if parent.namespace.as_deref().is_some_and(|n| n != self.namespace.as_str()) {
            let message = "a route for a service of another namespace is not supported yet";
            found.add(Problem::error(format!("{pointer}/namespace"), Code::Unsupported, message));
            return None;
        }
        self.service(&format!("{pointer}/name"), &parent.name, found)
    }

    /// The service `name` of the route's namespace, if there is one.
    fn service(&self, pointer: &str, name: &str, found: &mut Found) -> Option<ServiceName> {
        let label = match Label::new(name) {
            Ok(label) => label,
            Err(e) => {
                found.add(Problem::error(pointer, Code::BadValue, e.to_string()));
                return None;
            }
        };
        let service = ServiceName::new(self.namespace.clone(), label);
        if self.world.service(&service).is_some() {
            return Some(service);
        }
        let problem = Problem::error(pointer, Code::Reference, format!("there is no service {service}"));
        let names = self.world.services().map(|s| s.checked.name().clone());
        let names: Vec<_> = names.filter(|n| n.namespace() == self.namespace).collect();
        let near = spec::nearest(name, names.iter().map(|n| n.name().as_str()));
        found.add(match near {
            Some(near) => problem.hint(format!("did you mean {near:?}?")),
            None => problem,
        });
        None
    }

    fn rule(
        &self,
        name: &str,
        pointer: &str,
        rule: &spec::Rule,
        parents: (&[ServiceName], bool),
        found: &mut Found,
    ) -> Option<Route> {
        let before = found.problems.len();
        let matches = rule.matches.iter().enumerate();
        let matches: Vec<_> =
            matches.filter_map(|(i, m)| conditions(&format!("{pointer}/matches/{i}"), m, found)).collect();
        let backends = rule.backend_refs.iter().enumerate();
        let backends: Vec<_> = backends
            .filter_map(|(i, b)| self.backend(&format!("{pointer}/backendRefs/{i}"), b, parents, found))
            .collect();
        let timeouts = timeouts(pointer, rule, found);
        let name = match RouteName::new(name) {
            Ok(name) => name,
            Err(e) => {
                found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string()));
                return None;
            }
        };
        let sound = found.problems[before..].iter().all(|p| p.severity != spec::Severity::Error);
        sound.then_some(Route { matches, backends, timeouts, ..Route::new(name) })
    }

    fn backend(
        &self,
        pointer: &str,
        backend: &BackendRef,
        (parents, at_gateway): (&[ServiceName], bool),
        found: &mut Found,
    ) -> Option<Backend> {
        let kind = backend.kind.as_deref().unwrap_or("Service");
        group(pointer, kind, backend.group.as_deref(), found);
        if backend.namespace.as_deref().is_some_and(|n| n != self.namespace.as_str()) {
            let message = "a backend in another namespace needs a ReferenceGrant, which is not supported yet";
            found.add(Problem::error(format!("{pointer}/namespace"), Code::Unsupported, message));
            return None;
        }
        let at_name = format!("{pointer}/name");
        let (name, version) = match (kind, backend.name.split_once('.')) {
            ("ServiceVersion", Some((name, version))) => (name, Some(version)),
            ("ServiceVersion", None) => {
                let message = format!("{:?} does not name a version", backend.name);
                let hint = "write service.version, like cart.v2";
                found.add(Problem::error(at_name, Code::BadValue, message).hint(hint));
                return None;
            }
            _ => (backend.name.as_str(), None),
        };
        let version = match version.map(Version::new).transpose() {
            Ok(version) => version,
            Err(e) => {
                found.add(Problem::error(at_name, Code::BadValue, e.to_string()));
                return None;
            }
        };
        let service = self.service(&at_name, name, found)?;
        if let Some(port) = backend.port {
            self.port(&format!("{pointer}/port"), port, &service, parents, found);
        }
        // Elsewhere it is the port that callers mean anyway.
        let port = backend.port.filter(|_| at_gateway).and_then(PortNumber::new);
        let weight = backend.weight.unwrap_or(1);
        Some(Backend { version, port, weight, ..Backend::to(service) })
    }

    /// A request keeps the port its caller meant, but at a gateway, where it says which it is. So a backend's port may be
    /// written, as the Gateway API wants it, where it is that port; elsewhere it would be ignored, and is refused instead.
    fn port(
        &self,
        pointer: &str,
        port: u16,
        backend: &ServiceName,
        parents: &[ServiceName],
        found: &mut Found,
    ) {
        let ports_of = |name: &ServiceName| -> Vec<Port> {
            self.world.service(name).map(|e| e.checked.service().ports.clone()).unwrap_or_default()
        };
        let is_it = |p: &Port| p.number.get() == port;
        match ports_of(backend).into_iter().find(is_it) {
            None => {
                let message = format!("the service {backend} has no port {port}");
                return found.add(Problem::error(pointer, Code::Reference, message));
            }
            Some(found_port) if found_port.protocol.is_opaque() => {
                let message = format!(
                    "port {port} of {backend} is opaque ({}): no route leads there",
                    found_port.protocol
                );
                return found.add(Problem::error(pointer, Code::Contradiction, message));
            }
            Some(_) => {}
        }
        if let Some(other) = parents.iter().find(|p| !matches!(&ports_of(p)[..], [only] if is_it(only))) {
            let message = format!(
                "a request keeps the port its caller meant, and callers of {other} can mean other ports than {port}"
            );
            found.add(Problem::error(pointer, Code::Unsupported, message).hint("leave port out"));
        }
    }
}

/// The host names of a route, which only a gateway asks for: a service's callers named the service already.
fn hostnames(spec: &HttpRoute, parents: &[ServiceName], found: &mut Found) -> Vec<HostPattern> {
    if let Some(service) = parents.first().filter(|_| !spec.hostnames.is_empty()) {
        let message = format!("{service} is a service: a route takes its requests whatever name they used");
        let problem = Problem::error("/spec/hostnames", Code::Contradiction, message);
        found.add(problem.hint("leave hostnames out, or make two routes, one of them for the gateway"));
    }
    let mut all: Vec<HostPattern> = vec![];
    for (i, text) in spec.hostnames.iter().enumerate() {
        let pointer = format!("/spec/hostnames/{i}");
        match text.parse() {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, format!("{e}"))),
            Ok(pattern) if all.contains(&pattern) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{pattern} is there twice")));
            }
            Ok(pattern) => all.push(pattern),
        }
    }
    all
}

/// A route that no listener takes is allowed, since the gateway may change, but probably not meant.
fn attachments(route: &CheckedRoute, namespace: &Label, world: &World, found: &mut Found) {
    for (i, parent) in route.gateways.iter().enumerate() {
        let Some(entry) = world.gateway(&parent.gateway) else { continue };
        let taken = entry.checked.base.listeners.iter().enumerate().any(|(at, listener)| {
            let from = entry.checked.from.get(at).copied().unwrap_or_default();
            taken_by(route, parent, namespace, listener, from, &parent.gateway).is_some()
        });
        if !taken {
            let message = format!(
                "no listener of {} takes it: their host names are others, or routes of this namespace are not allowed",
                parent.gateway
            );
            found.add(Problem::warning(format!("/spec/parentRefs/{i}"), Code::NoTraffic, message));
        }
    }
}

/// The host names for which a listener takes a route; `None` when it does not. No name at all means all of its own.
pub(crate) fn taken_by(
    route: &CheckedRoute,
    parent: &GatewayParent,
    namespace: &Label,
    listener: &Listener,
    from: spec::From,
    gateway: &ServiceName,
) -> Option<Vec<HostPattern>> {
    let allowed = from == spec::From::All || namespace == gateway.namespace();
    if !allowed || !parent.means(listener) {
        return None;
    }
    match &listener.hostname {
        None => Some(route.hostnames.clone()),
        Some(_) if route.hostnames.is_empty() => Some(vec![]),
        Some(own) => {
            let met: Vec<_> = route.hostnames.iter().filter_map(|h| h.intersection(own)).collect();
            (!met.is_empty()).then_some(met)
        }
    }
}

/// The group must be the one its kind is in. Left out it is understood here, but not on a cluster.
fn group(pointer: &str, kind: &str, group: Option<&str>, found: &mut Found) {
    let right = if kind == "Service" { "" } else { "outrigger.dev" };
    let hint = format!("write group: {right:?}");
    match group {
        Some(group) if group != right => {
            let message = format!("the kind {kind} is not in the group {group:?}");
            found.add(Problem::error(format!("{pointer}/group"), Code::Contradiction, message).hint(hint));
        }
        None if kind != "Service" => {
            let message = format!("without a group, Kubernetes looks for {kind} in another one");
            found.add(Problem::warning(pointer, Code::Reference, message).hint(hint));
        }
        _ => {}
    }
}

/// A match that has passed its check.
pub(crate) fn read_match(written: &spec::Match) -> Option<RouteMatch> {
    conditions("", written, &mut Found::default())
}

pub(super) fn conditions(pointer: &str, written: &spec::Match, found: &mut Found) -> Option<RouteMatch> {
    let path = written.path.as_ref().map(|p| match p.kind {
        spec::PathMatchType::Exact => PathMatch::Exact(p.value.as_str().into()),
        spec::PathMatchType::PathPrefix => PathMatch::Prefix(p.value.as_str().into()),
    });
    let mut bad = |at: String, message: String| found.add(Problem::error(at, Code::BadValue, message));
    if written.path.as_ref().is_some_and(|p| !p.value.starts_with('/')) {
        bad(format!("{pointer}/path/value"), "a path begins with '/'".into());
        return None;
    }
    let method = match written.method.as_ref().map(|m| Method::from_bytes(m.as_bytes())).transpose() {
        Ok(method) => method,
        Err(e) => {
            bad(format!("{pointer}/method"), e.to_string());
            return None;
        }
    };
    let mut headers = vec![];
    for (i, header) in written.headers.iter().enumerate() {
        match HeaderName::from_bytes(header.name.as_bytes()) {
            Ok(name) => headers.push(HeaderMatch { name, value: header.value.as_str().into() }),
            Err(e) => bad(format!("{pointer}/headers/{i}/name"), e.to_string()),
        }
    }
    let query = written.query_params.iter();
    let query: Vec<_> =
        query.map(|q| QueryMatch { name: q.name.as_str().into(), value: q.value.as_str().into() }).collect();
    no_name_twice(&format!("{pointer}/headers"), headers.iter().map(|h| h.name.as_str()), found);
    no_name_twice(&format!("{pointer}/queryParams"), query.iter().map(|q| &*q.name), found);
    Some(RouteMatch { path, method, headers, query, ..RouteMatch::default() })
}

/// The Gateway API ignores the second condition on one name; here it is a mistake.
fn no_name_twice<'a>(pointer: &str, names: impl Iterator<Item = &'a str>, found: &mut Found) {
    let mut seen = HashSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            let message = format!("there are two conditions on {name:?}");
            found.add(Problem::error(format!("{pointer}/{i}/name"), Code::Duplicate, message));
        }
    }
}

fn timeouts(pointer: &str, rule: &spec::Rule, found: &mut Found) -> Timeouts {
    let written = rule.timeouts.clone().unwrap_or_default();
    let request = written.request.map(spec::Duration::get);
    let per_try = written.backend_request.map(spec::Duration::get);
    for (field, value) in [("request", request), ("backendRequest", per_try)] {
        if value.is_some_and(|v| v.is_zero()) {
            let message = format!("{field} must be longer than zero; leave it out for the default");
            found.add(Problem::error(format!("{pointer}/timeouts/{field}"), Code::BadValue, message));
        }
    }
    if let (Some(per_try), Some(request)) = (per_try, request)
        && per_try >= request
    {
        let message = format!(
            "backendRequest ({per_try:?}) must be shorter than request ({request:?}), else no second attempt fits"
        );
        let at = format!("{pointer}/timeouts/backendRequest");
        found.add(Problem::error(at, Code::Contradiction, message));
    }
    Timeouts { request, per_try, ..Timeouts::default() }
}
