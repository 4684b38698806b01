//! Whether hosts outside the mesh are outside indeed, and nobody else's.

use outrigger_certs::certificates_from_pem;
use outrigger_mesh::{
    Between, DnsTarget, Hostname, HttpRules, Label, Location, MtlsMode, Origination, OutsideRoots, Protocol,
    Service, ServiceName, TokenTravel, TrafficPolicy,
};

use super::{CheckedService, Found, location, service};
use crate::spec::{Code, EgressService, EgressTlsMode, EgressTokens, Object, Problem};
use crate::world::World;

/// For everybody else an egress service is a service like any other: it can be a route's backend, and has policies.
pub(super) fn check(
    object: &Object,
    spec: &EgressService,
    world: &World,
    found: &mut Found,
) -> Option<CheckedService> {
    let label = Label::new(object.metadata.name.as_str())
        .map_err(|e| found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string())))
        .ok()?;
    let name = ServiceName::new(object.metadata.namespace.clone(), label);
    service::no_other_kind(object, &name, world, found);
    let hostnames = hosts(&name, spec, world, found);
    let ports = service::ports(&spec.ports, found);
    for (i, _) in spec.ports.iter().enumerate().filter(|(_, port)| port.mtls.is_some()) {
        let message = "what is outside the mesh proves no identity of it";
        let problem = Problem::error(format!("/spec/ports/{i}/mtls"), Code::Contradiction, message);
        found.add(problem.hint("TLS to a server outside is tls: {mode: simple}"));
    }
    let inline = service::inline(spec.timeouts.as_ref(), spec.retry.as_ref(), found);
    let targets = if spec.targets.is_empty() {
        hostnames.iter().map(|name| DnsTarget::Host { name: name.clone(), port: None }).collect()
    } else {
        location::targets(&spec.targets, world, found)
    };
    let tls = tls(spec, found);
    if tls.is_some() && ports.iter().any(|p| p.protocol == Protocol::Tls) {
        let message = "a port that speaks tls already gets no TLS of the sidecar's around it";
        found.add(Problem::error("/spec/tls/mode", Code::Contradiction, message));
    }
    if found.is_fatal() {
        return None;
    }
    let base = Service {
        name,
        hostnames,
        addresses: vec![],
        cluster_addresses: vec![],
        ports,
        location: Location::Dns { targets, tls, outside: true },
        identities: vec![],
        mtls: MtlsMode::Off.into(),
        between: Between::Auto,
        http: HttpRules::default(),
        routes: vec![],
        tcp_routes: vec![],
        division: None,
        policy: TrafficPolicy::default(),
        for_callers: Vec::new(),
        overrides: Vec::new(),
        tokens: match spec.tokens {
            None | Some(EgressTokens::Strip) => TokenTravel::Strip,
            Some(EgressTokens::Keep) => TokenTravel::Keep,
        },
    };
    match base.checked() {
        Ok(base) => Some(CheckedService { base, inline, address: None }),
        Err(e) => {
            found.add(Problem::error("/spec", Code::Contradiction, e.to_string()));
            None
        }
    }
}

fn hosts(name: &ServiceName, spec: &EgressService, world: &World, found: &mut Found) -> Vec<Hostname> {
    let mut all = vec![];
    if spec.hosts.is_empty() {
        found.add(Problem::error("/spec/hosts", Code::MissingField, "it has no host"));
    }
    for (i, text) in spec.hosts.iter().enumerate() {
        let pointer = format!("/spec/hosts/{i}");
        let host = match Hostname::new(text) {
            Ok(host) => host,
            Err(e) => {
                found.add(Problem::error(pointer, Code::BadValue, e.to_string()));
                continue;
            }
        };
        if !host.as_str().contains('.') {
            let message = format!("{host} is a short name, which is one of the mesh's own services");
            found.add(Problem::error(pointer, Code::BadValue, message).hint("write the whole name"));
        } else if world.settings().owns(&host) {
            let message = format!("{host} is a name of the mesh itself, not of a place outside");
            found.add(Problem::error(pointer, Code::Conflict, message).hint("a MeshService has such names"));
        } else if all.contains(&host) {
            found.add(Problem::error(pointer, Code::Duplicate, format!("{host} is there twice")));
        } else if let Some(other) = world.host(&host).filter(|other| *other != name) {
            let message = format!("the host name {host} belongs to the service {other}");
            found.add(Problem::error(pointer, Code::Conflict, message));
        } else {
            all.push(host);
        }
    }
    all
}

fn tls(spec: &EgressService, found: &mut Found) -> Option<Origination> {
    let tls = spec.tls.as_ref()?;
    if tls.mode == EgressTlsMode::None {
        for (field, written) in
            [("serverName", tls.server_name.is_some()), ("caBundle", tls.ca_bundle.is_some())]
        {
            if written {
                let message = format!("{field} means nothing with mode: none");
                found.add(Problem::error(format!("/spec/tls/{field}"), Code::Contradiction, message));
            }
        }
        return None;
    }
    let mut bad = |field: &str, message: String| {
        found.add(Problem::error(format!("/spec/tls/{field}"), Code::BadValue, message));
    };
    let server_name = tls.server_name.as_deref().map(Hostname::new).transpose();
    let server_name = server_name.map_err(|e| bad("serverName", e.to_string())).ok()?;
    let roots = match tls.ca_bundle.as_deref().map(certificates_from_pem).transpose() {
        Ok(Some(roots)) => OutsideRoots::Only(roots),
        Ok(None) => OutsideRoots::System,
        Err(message) => {
            bad("caBundle", message);
            return None;
        }
    };
    Some(Origination { server_name, roots })
}
