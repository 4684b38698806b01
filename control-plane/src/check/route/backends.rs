//! Where a rule leads: services, versions and ports, for a share of its requests or for copies of them.
//!
//! A kind that is no backend here is refused when it is written; where references may dangle it is a backend that nothing
//! can ever go to.

use outrigger_mesh::{Backend, Label, Port, PortNumber, ServiceName, Unresolved, Version};

use super::parents::Parents;
use super::{Context, filters};
use crate::check::Found;
use crate::routes::{self, Referrer};
use crate::spec::{self, BackendRef, Code, Filter, Problem, Severity, Spec};

/// What a reference names: something that can be there, or a kind of thing that is no backend here.
pub(super) enum Named {
    Known(Place),
    Foreign,
}

/// A service, as a whole or in part.
pub(super) struct Place {
    pub(super) service: ServiceName,
    pub(super) version: Option<Version>,
    pub(super) port: Option<PortNumber>,
}

impl Context<'_> {
    /// A share of the traffic of a rule.
    pub(super) fn backend(
        &self,
        pointer: &str,
        backend: &BackendRef,
        parents: &Parents,
        found: &mut Found,
    ) -> Option<Backend> {
        let named = self.named_backend(pointer, backend, found);
        let changes = filters::of_backend(pointer, &backend.filters, found);
        let weight = backend.weight.unwrap_or(1);
        let named = match named? {
            Named::Known(named) => named,
            Named::Foreign => {
                let unresolved = Some(Unresolved::InvalidKind);
                let nowhere = routes::nameless(&self.key.namespace)?;
                return Some(Backend { weight, unresolved, ..Backend::to(nowhere) });
            }
        };
        if let Some(port) = named.port {
            self.keeps_its_port(&format!("{pointer}/port"), port, &named.service, parents, found);
        }
        Some(Backend {
            version: named.version,
            port: named.port,
            weight,
            request: changes.request,
            response: changes.response,
            ..Backend::to(named.service)
        })
    }

    /// What a reference names, if it is there.
    pub(super) fn named_backend(
        &self,
        pointer: &str,
        backend: &BackendRef,
        found: &mut Found,
    ) -> Option<Named> {
        let kind = backend.kind.as_deref().unwrap_or("Service");
        if !KINDS.contains(&kind) {
            let message = format!("{kind:?} is not allowed here");
            let problem = Problem::error(format!("{pointer}/kind"), Code::BadValue, message);
            found.missing(match spec::nearest(kind, KINDS) {
                Some(near) => problem.hint(format!("did you mean {near:?}?")),
                None => problem.hint(format!("write one of: {}", KINDS.join(", "))),
            });
            return Some(Named::Foreign);
        }
        if let Some(problem) = group(pointer, kind, backend.group.as_deref()) {
            match problem.severity {
                Severity::Error => {
                    found.missing(problem);
                    return Some(Named::Foreign);
                }
                Severity::Warning => found.add(problem),
            }
        }
        let at_name = format!("{pointer}/name");
        let (name, version) = split_name(&at_name, kind, &backend.name, found)?;
        let mut label = |field: &str, text: &str| {
            let wrong = |e: outrigger_mesh::InvalidName| {
                found.add(Problem::error(format!("{pointer}/{field}"), Code::BadValue, e.to_string()));
            };
            Label::new(text).map_err(wrong).ok()
        };
        let namespace = match backend.namespace.as_deref() {
            Some(text) => label("namespace", text)?,
            None => self.key.namespace.clone(),
        };
        let service = ServiceName::new(namespace, label("name", name)?);
        let port = backend.port.and_then(PortNumber::new);
        self.resolve(pointer, &service, port, found);
        Some(Named::Known(Place { service, version, port }))
    }

    /// What is referred to must be there, and granted.
    fn resolve(&self, pointer: &str, service: &ServiceName, port: Option<PortNumber>, found: &mut Found) {
        let Err((why, wrong)) = routes::leads(self.world, Referrer::of(self.key), service, port) else {
            return;
        };
        let code = match why {
            Unresolved::UnsupportedProtocol => Code::Contradiction,
            _ => Code::Reference,
        };
        let problem = Problem::error(format!("{pointer}/{}", wrong.field), code, wrong.message);
        found.missing(problem.hint(wrong.hint));
    }

    fn ports_of(&self, name: &ServiceName) -> Vec<Port> {
        self.world.service(name).map(|e| e.checked.service().ports.clone()).unwrap_or_default()
    }

    /// A request that stays at its service keeps the port its caller meant. So the port may be written, as the Gateway API
    /// wants it, where it is that one; elsewhere it would be ignored, and is refused instead.
    fn keeps_its_port(
        &self,
        pointer: &str,
        port: PortNumber,
        service: &ServiceName,
        parents: &Parents,
        found: &mut Found,
    ) {
        let Some(parent) = parents.services.iter().find(|p| p.service == *service) else { return };
        let all = || self.ports_of(service).iter().map(|p| p.number).collect::<Vec<_>>();
        let meant = if parent.ports.is_empty() { all() } else { parent.ports.clone() };
        if meant.iter().any(|other| *other != port) {
            let message = format!(
                "a request keeps the port its caller meant, and callers of {service} can mean other ports than {port}"
            );
            let problem = Problem::error(pointer, Code::Unsupported, message);
            found.add(problem.hint(format!("leave port out, or write port: {port} in the parentRef too")));
        }
    }
}

/// The name of a service, and of a version where the kind is one.
fn split_name<'a>(
    pointer: &str,
    kind: &str,
    name: &'a str,
    found: &mut Found,
) -> Option<(&'a str, Option<Version>)> {
    if kind != "ServiceVersion" {
        return Some((name, None));
    }
    let Some((service, version)) = name.split_once('.') else {
        let message = format!("{name:?} does not name a version");
        let hint = "write service.version, like cart.v2";
        found.add(Problem::error(pointer, Code::BadValue, message).hint(hint));
        return None;
    };
    match Version::new(version) {
        Ok(version) => Some((service, Some(version))),
        Err(e) => {
            found.add(Problem::error(pointer, Code::BadValue, e.to_string()));
            None
        }
    }
}

const KINDS: [&str; 3] = ["Service", "MeshService", "ServiceVersion"];

/// The group must be the one its kind is in. Left out it is understood here, but not on a cluster.
pub(super) fn group(pointer: &str, kind: &str, group: Option<&str>) -> Option<Problem> {
    let right = group_of(kind);
    let hint = format!("write group: {right:?}");
    match group {
        Some(group) if group != right => {
            let message = format!("the kind {kind} is not in the group {group:?}");
            Some(Problem::error(format!("{pointer}/group"), Code::Contradiction, message).hint(hint))
        }
        None if kind != "Service" => {
            let message = format!("without a group, Kubernetes looks for {kind} in another one");
            Some(Problem::warning(pointer, Code::Reference, message).hint(hint))
        }
        _ => None,
    }
}

fn group_of(kind: &str) -> &'static str {
    if kind == "Service" { "" } else { "outrigger.dev" }
}

/// The references of a route to what is of a kind that is no backend here: their places, and what they say of it.
pub(crate) fn foreign(spec: &Spec) -> Vec<(String, String)> {
    let rules: Vec<(&[Filter], &[BackendRef])> = match spec {
        Spec::HttpRoute(route) => route.rules.iter().map(|r| (&r.filters[..], &r.backend_refs[..])).collect(),
        Spec::GrpcRoute(route) => route.rules.iter().map(|r| (&r.filters[..], &r.backend_refs[..])).collect(),
        Spec::TcpRoute(route) => route.rules.iter().map(|r| (&[][..], &r.backend_refs[..])).collect(),
        _ => vec![],
    };
    let mut all = vec![];
    for (i, (filters, backends)) in rules.into_iter().enumerate() {
        let mirrors = filters.iter().filter_map(|filter| Some(&filter.request_mirror.as_ref()?.backend_ref));
        let mirrors = mirrors.map(|backend| ("filters".to_owned(), backend));
        let backends = backends.iter().enumerate().map(|(j, backend)| (format!("backendRefs/{j}"), backend));
        for (place, backend) in backends.chain(mirrors) {
            let kind = backend.kind.as_deref().unwrap_or("Service");
            let group = backend.group.as_deref().unwrap_or(group_of(kind));
            if !KINDS.contains(&kind) || group != group_of(kind) {
                let message = format!(
                    "{:?} is of the kind {kind} of the group {group:?}, which is no backend here",
                    backend.name
                );
                all.push((format!("/spec/rules/{i}/{place}"), message));
            }
        }
    }
    all
}
