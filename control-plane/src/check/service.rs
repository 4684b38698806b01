//! Whether a service holds together and takes no name of another.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use outrigger_mesh::{
    Between, Hostname, HttpRules, InvalidPolicy, Label, Location, MeshSettings, MtlsMode, MtlsModes, Port,
    PortNumber, Protocol, Service, ServiceName, SpiffeId, Timeouts, TrafficPolicy,
};

use super::{Found, federation, grants, location};
use crate::addresses::VirtualAddress;
use crate::spec::{self, Code, Discovery, MeshService, Object, PolicySettings, Problem};
use crate::world::World;

/// A service that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedService {
    /// As its callers will see it, but for its routes, which are objects of their own.
    pub(crate) base: Service,
    /// What stands in it of timeouts and retries.
    pub(super) inline: PolicySettings,
    /// Its virtual address: the one it asked for, until it is given one.
    pub(crate) address: Option<VirtualAddress>,
}

impl CheckedService {
    /// Its full name.
    pub fn name(&self) -> &ServiceName {
        &self.base.name
    }

    /// What stands in it of timeouts and retries: one layer of its policy.
    pub(crate) fn inline(&self) -> &PolicySettings {
        &self.inline
    }

    /// As its callers will see it, without routes and policy.
    pub fn service(&self) -> &Service {
        &self.base
    }

    /// Its virtual address, once it was given one.
    pub fn address(&self) -> Option<VirtualAddress> {
        self.address
    }

    /// With the virtual address it is given.
    pub(crate) fn at(&mut self, address: VirtualAddress) {
        self.address = Some(address);
        self.base.addresses = address.both();
    }

    /// With the addresses that the cluster gives it.
    pub(crate) fn in_cluster(&mut self, addresses: Vec<IpAddr>) {
        self.base.cluster_addresses = addresses;
    }

    /// Whether `identity` may serve it.
    pub fn may_be_served_by(&self, identity: &SpiffeId) -> bool {
        self.base.identities.contains(identity)
    }
}

pub(super) fn check(
    object: &Object,
    spec: &MeshService,
    world: &World,
    found: &mut Found,
) -> Option<CheckedService> {
    let name = match Label::new(object.metadata.name.as_str()) {
        Ok(label) => ServiceName::new(object.metadata.namespace.clone(), label),
        Err(e) => {
            found.add(Problem::error("/metadata/name", Code::BadValue, e.to_string()));
            return None;
        }
    };
    no_other_kind(object, &name, world, found);
    let hostnames = hostnames(&name, spec, world, found);
    let ports = ports(&spec.ports, found);
    let identities = identities(&name, spec, world, found);
    let inline = inline(spec.timeouts.as_ref(), spec.retry.as_ref(), found);
    let location = whereabouts(spec, world, found);
    let http = http(spec, &ports, found);
    api(spec, &ports, found);
    let address = address(&name, spec, world, found);
    if found.is_fatal() {
        return None;
    }
    let base = Service {
        name,
        hostnames,
        ports,
        identities,
        mtls: modes(spec),
        between: spec.between.map_or(Between::default(), between),
        addresses: vec![],
        cluster_addresses: vec![],
        location,
        http,
        routes: vec![],
        tcp_routes: vec![],
        division: None,
        policy: TrafficPolicy::default(),
        for_callers: Vec::new(),
        overrides: Vec::new(),
        tokens: outrigger_mesh::TokenTravel::Keep,
    };
    match base.checked() {
        Ok(base) => Some(CheckedService { base, inline, address }),
        Err(e) => {
            found.add(Problem::error("/spec", Code::Contradiction, e.to_string()));
            None
        }
    }
}

/// The names every service has, and its own. A service takes names of its own namespace, and what an operator has granted
/// it: a name of another would take that namespace's traffic.
fn hostnames(name: &ServiceName, spec: &MeshService, world: &World, found: &mut Found) -> Vec<Hostname> {
    let mut all = default_hostnames(name);
    for (i, text) in spec.hostnames.iter().enumerate() {
        let pointer = format!("/spec/hostnames/{i}");
        let hostname = match Hostname::new(text) {
            Ok(hostname) => hostname.complete(name.namespace()),
            Err(e) => {
                found.add(Problem::error(pointer, Code::BadValue, e.to_string()));
                continue;
            }
        };
        if all.contains(&hostname) {
            let message = format!("the service has the host name {hostname} already");
            found.add(Problem::error(pointer, Code::Duplicate, message));
        } else if !grants::allow(world, name.namespace(), &hostname) {
            let namespace = name.namespace();
            let message = format!(
                "{hostname} is not a name of the namespace {namespace}; names outside it need an operator's grant"
            );
            let hint = format!(
                "end it with .{namespace}, .{namespace}.mesh or .{namespace}.svc.cluster.local, or have it granted: \
                 hostnameGrants in MeshDefaults"
            );
            found.add(Problem::error(pointer, Code::Conflict, message).hint(hint));
        } else {
            all.push(hostname);
        }
    }
    for (i, hostname) in all.iter().enumerate() {
        if let Some(other) = world.host(hostname).filter(|other| *other != name) {
            let own = i.checked_sub(default_hostnames(name).len());
            let pointer = own.map_or("/metadata/name".to_owned(), |i| format!("/spec/hostnames/{i}"));
            let message = format!("the host name {hostname} belongs to the service {other}");
            found.add(Problem::error(pointer, Code::Conflict, message));
        }
    }
    all
}

const SUFFIXES: [&str; 3] = ["", ".mesh", ".svc.cluster.local"];

fn default_hostnames(name: &ServiceName) -> Vec<Hostname> {
    let texts = SUFFIXES.map(|suffix| format!("{}.{}{suffix}", name.name(), name.namespace()));
    // Two labels with a suffix are a host name, but for a namespace of digits, which reads as an address.
    texts.iter().filter_map(|text| Hostname::new(text).ok()).collect()
}

/// The namespace whose name a host name is. The longest suffix decides, so that no namespace called `mesh` can take
/// the names of all others.
pub(super) fn namespace_of(hostname: &Hostname) -> Option<&str> {
    let bare = SUFFIXES.iter().rev().find_map(|suffix| hostname.as_str().strip_suffix(suffix))?;
    bare.rsplit_once('.').map(|(_, namespace)| namespace)
}

/// A MeshService and an EgressService of one name would be one service twice.
pub(super) fn no_other_kind(object: &Object, name: &ServiceName, world: &World, found: &mut Found) {
    let other = world.service(name).map(|e| e.object.kind()).filter(|kind| *kind != object.kind());
    if let Some(kind) = other {
        let message = format!("there is a {kind} {name} already");
        found.add(Problem::error("/metadata/name", Code::Conflict, message));
    }
}

fn whereabouts(spec: &MeshService, world: &World, found: &mut Found) -> Location {
    match spec.discovery {
        Some(Discovery::Dns) => {
            if !matches!(spec.mtls, Some(spec::Mtls::Permissive | spec::Mtls::Off)) {
                let message = "what is found by DNS has no sidecar, so it can not prove who it is";
                let problem = Problem::error("/spec/mtls", Code::Contradiction, message);
                found.add(problem.hint("write mtls: off, or permissive while sidecars are being added"));
            }
            for (i, _) in (0..).zip(&spec.ports).filter(|(_, port)| port.mtls == Some(spec::Mtls::Strict)) {
                let message = "what is found by DNS has no sidecar, so it can not prove who it is";
                let pointer: String = format!("/spec/ports/{i}/mtls");
                found.add(Problem::error(pointer, Code::Contradiction, message));
            }
            if spec.targets.is_empty() {
                let message = "discovery: dns needs something to look up";
                let problem = Problem::error("/spec/targets", Code::MissingField, message);
                found.add(problem.hint("write targets: [{host: cart.example.com}]"));
            }
            Location::Dns {
                targets: location::targets(&spec.targets, world, found),
                tls: None,
                outside: false,
            }
        }
        None | Some(Discovery::Registered | Discovery::Static | Discovery::Kubernetes) => {
            if !spec.targets.is_empty() {
                let message = "targets are looked up with discovery: dns only";
                found.add(Problem::error("/spec/targets", Code::Contradiction, message));
            }
            Location::Mesh
        }
    }
}

fn http(spec: &MeshService, ports: &[Port], found: &mut Found) -> HttpRules {
    let defaults = HttpRules::default();
    let Some(written) = &spec.http else { return defaults };
    if !ports.is_empty() && ports.iter().all(|p| p.protocol.is_opaque()) {
        let message = "no port of the service speaks HTTP, so its rules would never be asked";
        found.add(Problem::warning("/spec/http", Code::Contradiction, message));
    }
    let upgrades = written.upgrades.as_ref().map(|all| all.iter().map(|u| u.as_str().into()).collect());
    HttpRules {
        upgrades: upgrades.unwrap_or(defaults.upgrades),
        connect: written.connect.unwrap_or(defaults.connect),
        max_body: written.max_body.map(spec::Size::get),
    }
}

/// Where its document is must be a port that speaks HTTP in the clear: a request for it is one like any other.
fn api(spec: &MeshService, ports: &[Port], found: &mut Found) {
    let Some(api) = &spec.api else { return };
    let meant = match api.port.and_then(PortNumber::new) {
        None => ports.first(),
        Some(number) => ports.iter().find(|port| port.number == number),
    };
    match meant {
        None => {
            let message = "the service has no such port";
            found.add(Problem::error("/spec/api/port", Code::Reference, message));
        }
        Some(port) if port.protocol.is_opaque() => {
            let message = "nobody speaks HTTP at that port, so there is no document to ask for";
            found.add(Problem::error("/spec/api", Code::Contradiction, message));
        }
        Some(_) => {}
    }
}

/// The virtual address it asks for, if it does. One that is not asked for is given when it is put in force.
fn address(
    name: &ServiceName,
    spec: &MeshService,
    world: &World,
    found: &mut Found,
) -> Option<VirtualAddress> {
    let ip = spec.address?;
    let Some(address) = VirtualAddress::of(ip) else {
        let message = format!("{ip} is no address that a service can have");
        let hint = format!("choose one of {}, or leave it out", MeshSettings::VIRTUAL_V4);
        found.add(Problem::error("/spec/address", Code::BadValue, message).hint(hint));
        return None;
    };
    if let Some(other) = world.at_address(address).filter(|other| *other != name) {
        let message = format!("the address {ip} belongs to the service {other}");
        found.add(Problem::error("/spec/address", Code::Conflict, message).hint("choose another, or none"));
    }
    Some(address)
}

pub(super) fn ports(written: &[spec::ServicePort], found: &mut Found) -> Vec<Port> {
    if written.is_empty() {
        return vec![Port { number: PortNumber::HTTP, protocol: Protocol::Detect }];
    }
    let mut seen = HashSet::new();
    let mut ports = vec![];
    for (i, port) in written.iter().enumerate() {
        let pointer = format!("/spec/ports/{i}/port");
        let Some(number) = PortNumber::new(port.port) else {
            found.add(Problem::error(pointer, Code::BadValue, "a port is a number from 1 to 65535"));
            continue;
        };
        if !seen.insert(number) {
            let message = format!("port {number} is declared twice");
            found.add(Problem::error(pointer, Code::Duplicate, message));
        }
        if let Some(name) = &port.name
            && written[..i].iter().any(|other| other.name.as_ref() == Some(name))
        {
            let message = format!("there are two ports {name:?}");
            found.add(Problem::error(format!("/spec/ports/{i}/name"), Code::Duplicate, message));
        }
        ports.push(Port { number, protocol: port.protocol.map_or(Protocol::Detect, protocol) });
    }
    ports
}

fn identities(name: &ServiceName, spec: &MeshService, world: &World, found: &mut Found) -> Vec<SpiffeId> {
    let account = |label| SpiffeId::new(world.trust_domain().clone(), name.namespace().clone(), label);
    if spec.identities.is_empty() {
        return vec![account(name.name().clone())];
    }
    let mut all = vec![];
    for (i, text) in spec.identities.iter().enumerate() {
        let pointer = format!("/spec/identities/{i}");
        let identity = if text.contains(':') { text.parse() } else { Label::new(text).map(account) };
        match identity {
            Err(e) => found.add(Problem::error(pointer, Code::BadValue, e.to_string())),
            Ok(id) if !federation::is_believed(world, id.trust_domain()) => {
                found.add(federation::stranger(world, &id, pointer));
            }
            Ok(id) if all.contains(&id) => {
                found.add(Problem::error(pointer, Code::Duplicate, format!("{id} is there twice")));
            }
            Ok(id) => all.push(id),
        }
    }
    all
}

/// What stands in the service itself of what its policy may say.
pub(super) fn inline(
    timeouts: Option<&spec::ServiceTimeouts>,
    retry: Option<&spec::Retry>,
    found: &mut Found,
) -> PolicySettings {
    let settings =
        PolicySettings { timeouts: timeouts.cloned(), retry: retry.cloned(), ..PolicySettings::default() };
    let get = |d: fn(&spec::ServiceTimeouts) -> Option<spec::Duration>| {
        timeouts.and_then(d).map(spec::Duration::get)
    };
    let both = Timeouts { request: get(|t| t.request), per_try: get(|t| t.per_try), ..Timeouts::default() };
    if let Err(e) = (TrafficPolicy { timeouts: both.clone(), ..TrafficPolicy::default() }).check() {
        found.add(Problem::error(pointer_of(&e), Code::Contradiction, e.to_string()));
    } else if both.request.is_none() && both.per_try.is_some_and(|per_try| per_try >= Timeouts::REQUEST) {
        found.add(beyond_default("/spec/timeouts/perTry", "perTry", Timeouts::REQUEST));
    }
    settings
}

/// An attempt that is given as long as the whole request by default.
pub(super) fn beyond_default(pointer: &str, field: &str, request: Duration) -> Problem {
    let message = format!(
        "{field} is not shorter than the {request:?} the whole request has, so no second attempt fits"
    );
    Problem::warning(pointer, Code::Contradiction, message)
}

fn pointer_of(e: &InvalidPolicy) -> String {
    format!("/spec/{}", e.field.replace('.', "/"))
}

fn protocol(written: spec::Protocol) -> Protocol {
    match written {
        spec::Protocol::Http => Protocol::Http,
        spec::Protocol::Http2 => Protocol::Http2,
        spec::Protocol::Grpc => Protocol::Grpc,
        spec::Protocol::Tcp => Protocol::Tcp,
        spec::Protocol::Tls => Protocol::Tls,
    }
}

/// The mode of a port wins over the service's.
fn modes(spec: &MeshService) -> MtlsModes {
    let of_port = |port: &spec::ServicePort| Some((PortNumber::new(port.port)?, mtls(port.mtls?)));
    MtlsModes::new(spec.mtls.map_or(MtlsMode::default(), mtls), spec.ports.iter().filter_map(of_port))
}

fn mtls(written: spec::Mtls) -> MtlsMode {
    match written {
        spec::Mtls::Strict => MtlsMode::Strict,
        spec::Mtls::Permissive => MtlsMode::Permissive,
        spec::Mtls::Off => MtlsMode::Off,
    }
}

fn between(written: spec::Between) -> Between {
    match written {
        spec::Between::Auto => Between::Auto,
        spec::Between::Http1 => Between::Http1,
        spec::Between::Http2 => Between::Http2,
    }
}
