//! What a Compose file says of the mesh: `x-outrigger` at its top and in its services, and labels `outrigger.dev/…`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::manifest::{Refusal, Warned};
use crate::telemetry::KEYS;
use crate::values;
use crate::values::Wrong;

const PREFIX: &str = "outrigger.dev/";
/// What can be said of a service, by the last part of the label or the key below `x-outrigger`.
const KNOWN: &[&str] = &[
    "inject",
    "service",
    "ports",
    "version",
    "mtls",
    "log",
    "access-log",
    "access-log-format",
    "otlp-endpoint",
    "otlp-metrics",
    "otlp-protocol",
    "trace-sample",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-outbound-networks",
    "opaque-ports",
];
/// The user of the sidecar, whose connections are not redirected.
const PROXY_UID: &str = "15001";

/// What the file says of all services.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) namespace: String,
    pub(super) trust_domain: String,
}

/// A service that is to be a member.
#[derive(Debug)]
pub(super) struct Wish {
    /// Its name in the file.
    pub(super) name: String,
    /// Its name in the mesh.
    pub(super) service: String,
    /// Where its application listens, the first first; none: it only calls others.
    pub(super) ports: Vec<Port>,
    pub(super) version: Option<String>,
    pub(super) log: Option<String>,
    /// Variables of the sidecar for its traces, metrics and access lines.
    pub(super) telemetry: Vec<(&'static str, String)>,
    pub(super) skip_inbound_ports: Option<String>,
    pub(super) skip_outbound_ports: Option<String>,
    pub(super) skip_outbound_networks: Option<String>,
    /// What nobody looks into, in the form that the sidecar takes.
    pub(super) opaque_ports: Option<String>,
    /// The networks it is in; none: the default one.
    pub(super) networks: Vec<String>,
    pub(super) profiles: Option<Value>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) number: u16,
    /// Its protocol; none: found out by what comes.
    pub(super) protocol: Option<String>,
    /// Whether plaintext is taken too: it is published, and who comes from outside has no certificate.
    pub(super) permissive: bool,
}

/// Why a service does not become a member.
#[derive(Debug)]
pub(super) enum Not {
    /// It is left as it is: code, words.
    Skipped(&'static str, String),
    /// What it says can not be obeyed.
    Refused(Vec<Refusal>),
}

impl Mesh {
    pub(super) fn read(file: &Value) -> Result<Self, Vec<Refusal>> {
        let mut mistakes = vec![];
        let mut mesh = Self { namespace: "default".into(), trust_domain: "mesh.local".into() };
        match file.get("x-outrigger") {
            None | Some(Value::Null) => {}
            Some(Value::Object(said)) => {
                for (key, value) in said {
                    let slot = match key.as_str() {
                        "namespace" => &mut mesh.namespace,
                        "trustDomain" => &mut mesh.trust_domain,
                        _ => {
                            let hint =
                                "write namespace or trustDomain; what is for one service stands below it";
                            mistakes.push(mistake(
                                &format!("/x-outrigger/{key}"),
                                "unknown_key",
                                format!("{key:?} is not known"),
                                hint,
                            ));
                            continue;
                        }
                    };
                    match value.as_str().filter(|text| is_name(text)) {
                        Some(text) => text.clone_into(slot),
                        None => mistakes.push(mistake(
                            &format!("/x-outrigger/{key}"),
                            "invalid_value",
                            format!("{value} is no name"),
                            "letters in lower case, digits, dots and dashes, 63 at most",
                        )),
                    }
                }
            }
            Some(_) => {
                mistakes.push(mistake("/x-outrigger", "invalid_value", "x-outrigger is no mapping", ""));
            }
        }
        if mistakes.is_empty() { Ok(mesh) } else { Err(mistakes) }
    }
}

impl Wish {
    /// Of the service `name`, which says `value`.
    pub(super) fn read(name: &str, value: &Value) -> Result<Self, Not> {
        let Some(service) = value.as_object() else {
            return Err(Not::Refused(vec![mistake("", "invalid_value", "a service is a mapping", "")]));
        };
        let mut mistakes = vec![];
        let said = said(service, &mut mistakes);
        if name.starts_with("outrigger-") {
            return Err(Not::Skipped("own", "it belongs to a mesh itself".into()));
        }
        match said.get("inject").map(String::as_str) {
            None | Some("enabled" | "true") => {}
            Some("disabled" | "false") => return Err(Not::Skipped("opted_out", "it says so".into())),
            Some(other) => mistakes.push(mistake(
                "/x-outrigger/inject",
                "invalid_value",
                format!("{other:?} is neither enabled nor disabled"),
                "write enabled or disabled",
            )),
        }
        skip(service)?;
        let wish = Self {
            name: name.to_owned(),
            service: said.get("service").cloned().unwrap_or_else(|| name.to_owned()),
            ports: ports(service, &said, &mut mistakes),
            version: said.get("version").cloned(),
            log: said.get("log").cloned(),
            telemetry: telemetry(&said, &mut mistakes),
            skip_inbound_ports: said.get("skip-inbound-ports").cloned(),
            skip_outbound_ports: said.get("skip-outbound-ports").cloned(),
            skip_outbound_networks: said.get("skip-outbound-networks").cloned(),
            opaque_ports: said.get("opaque-ports").cloned(),
            networks: networks(service),
            profiles: service.get("profiles").cloned(),
        };
        if !is_name(&wish.service) || wish.service.contains('.') {
            let message = format!("{:?} can not be the name of a service of the mesh", wish.service);
            let hint = "say x-outrigger: {service: NAME}, with letters in lower case, digits and dashes";
            mistakes.push(mistake("", "invalid_name", message, hint));
        }
        if service.get("user").map(plain).is_some_and(|user| user.split(':').next() == Some(PROXY_UID)) {
            let message = format!("it runs as {PROXY_UID}, the sidecar's user, and would go around the mesh");
            mistakes.push(mistake("/user", "proxy_uid", message, "choose another user"));
        }
        if mistakes.is_empty() { Ok(wish) } else { Err(Not::Refused(mistakes)) }
    }

    /// What its author should know.
    pub(super) fn warnings(&self) -> Vec<Warned> {
        let mut warnings = vec![];
        for port in self.ports.iter().filter(|port| port.permissive) {
            let message = format!(
                "port {} is published: what comes from outside is taken in plaintext (mtls: permissive)",
                port.number
            );
            warnings.push(Warned { code: "published".into(), message });
        }
        if self.ports.is_empty() {
            let message =
                "it says no port (ports, expose, or x-outrigger: {ports: [8080]}), so it only calls others";
            warnings.push(Warned { code: "no_port".into(), message: message.into() });
        }
        warnings
    }
}

/// Labels, and over them what stands below `x-outrigger`.
fn said(service: &Map<String, Value>, mistakes: &mut Vec<Refusal>) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    match service.get("labels") {
        Some(Value::Object(labels)) => {
            let ours =
                labels.iter().filter_map(|(k, v)| Some((k.strip_prefix(PREFIX)?.to_owned(), plain(v))));
            said.extend(ours);
        }
        Some(Value::Array(labels)) => {
            let ours = labels.iter().filter_map(Value::as_str).filter_map(|label| label.strip_prefix(PREFIX));
            said.extend(ours.map(|label| {
                let (key, value) = label.split_once('=').unwrap_or((label, ""));
                (key.to_owned(), value.to_owned())
            }));
        }
        _ => {}
    }
    match service.get("x-outrigger") {
        Some(Value::Object(own)) => said.extend(own.iter().map(|(key, value)| (key.clone(), plain(value)))),
        None | Some(Value::Null) => {}
        Some(_) => mistakes.push(mistake("/x-outrigger", "invalid_value", "x-outrigger is no mapping", "")),
    }
    for key in said.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        let hint = format!("known are {}", KNOWN.join(", "));
        mistakes.push(mistake(
            &format!("/x-outrigger/{key}"),
            "unknown_key",
            format!("{key:?} is not known"),
            &hint,
        ));
    }
    for key in ["skip-inbound-ports", "skip-outbound-ports", "opaque-ports"] {
        let Some(written) = said.get_mut(key) else { continue };
        match values::ports(written) {
            Ok(ports) => *written = ports.to_string(),
            Err(Wrong { message, hint }) => {
                mistakes.push(mistake(&format!("/x-outrigger/{key}"), "invalid_value", message, hint));
            }
        }
    }
    said
}

fn telemetry(said: &BTreeMap<String, String>, mistakes: &mut Vec<Refusal>) -> Vec<(&'static str, String)> {
    let mut set = vec![];
    for key in &KEYS {
        match said.get(key.name).map(|value| (key.check)(value)) {
            Some(Ok(value)) => set.push((key.variable, value)),
            Some(Err(Wrong { message, hint })) => {
                mistakes.push(mistake(&format!("/x-outrigger/{}", key.name), "invalid_value", message, hint));
            }
            None => {}
        }
    }
    set
}

fn skip(service: &Map<String, Value>) -> Result<(), Not> {
    if let Some(mode) = service.get("network_mode").map(plain).filter(|mode| mode != "bridge") {
        return Err(Not::Skipped(
            "network_mode",
            format!("network_mode is {mode}: the network is not its own"),
        ));
    }
    let replicas = [service.get("scale"), service.get("deploy").and_then(|deploy| deploy.get("replicas"))];
    if let Some(many) = replicas.into_iter().flatten().map(plain).find(|many| many != "1") {
        let message = format!("it runs {many} times, and a sidecar shares the network of one container");
        return Err(Not::Skipped("replicas", message));
    }
    Ok(())
}

fn ports(
    service: &Map<String, Value>,
    said: &BTreeMap<String, String>,
    mistakes: &mut Vec<Refusal>,
) -> Vec<Port> {
    let list = |key: &str| service.get(key).and_then(Value::as_array).into_iter().flatten();
    let published: Vec<u16> = list("ports").flat_map(target).collect();
    let permissive = match said.get("mtls").map(String::as_str) {
        None => None,
        Some("permissive") => Some(true),
        Some("strict") => Some(false),
        Some(other) => {
            let message = format!("{other:?} is neither strict nor permissive");
            mistakes.push(mistake(
                "/x-outrigger/mtls",
                "invalid_value",
                message,
                "write strict or permissive",
            ));
            None
        }
    };
    let mut ports = Vec::<Port>::new();
    let mut take = |number: u16, protocol: Option<String>| {
        if !ports.iter().any(|port| port.number == number) {
            let permissive = permissive.unwrap_or_else(|| published.contains(&number));
            ports.push(Port { number, protocol, permissive });
        }
    };
    if let Some(own) = said.get("ports") {
        for port in own.split(',').filter(|port| !port.is_empty()) {
            let (number, protocol) = port.split_once('/').map_or((port, None), |(n, p)| (n, Some(p)));
            let known = protocol.is_none_or(|p| ["http", "http2", "grpc", "tcp", "tls"].contains(&p));
            match number.parse::<u16>().ok().filter(|n| *n > 0 && known) {
                Some(number) => take(number, protocol.map(str::to_owned)),
                None => mistakes.push(mistake(
                    "/x-outrigger/ports",
                    "invalid_value",
                    format!("{port:?} is no port"),
                    "write 8080, or 8080/http, http2, grpc, tcp, tls",
                )),
            }
        }
    } else {
        list("expose").map(plain).filter_map(|port| port.parse().ok()).for_each(|number| take(number, None));
        for number in &published {
            take(*number, None);
        }
    }
    be_opaque(&mut ports, said, mistakes);
    if ports.iter().any(|port| (15_000..=15_199).contains(&port.number)) {
        let message = "the ports 15000 to 15199 are for the sidecar";
        mistakes.push(mistake("/ports", "reserved_port", message, "let the application listen elsewhere"));
    }
    ports
}

/// Ports that nobody is to look into are declared so; one that is declared for something else says two things.
fn be_opaque(ports: &mut [Port], said: &BTreeMap<String, String>, mistakes: &mut Vec<Refusal>) {
    let Some(opaque) = said.get("opaque-ports").and_then(|text| values::ports(text).ok()) else { return };
    for port in ports.iter_mut().filter(|port| opaque.contains(port.number)) {
        match port.protocol.as_deref() {
            None => port.protocol = Some("tcp".into()),
            Some("tcp" | "tls") => {}
            Some(other) => mistakes.push(mistake(
                "/x-outrigger/opaque-ports",
                "invalid_value",
                format!("port {} is opaque here, and {other} in ports", port.number),
                "say one of the two",
            )),
        }
    }
}

/// The ports of the container that an entry of `ports` publishes; UDP is not the mesh's.
fn target(entry: &Value) -> Vec<u16> {
    if let Value::Object(long) = entry {
        let tcp = long.get("protocol").is_none_or(|protocol| protocol == "tcp");
        return long
            .get("target")
            .map(plain)
            .filter(|_| tcp)
            .and_then(|n| n.parse().ok())
            .into_iter()
            .collect();
    }
    let text = plain(entry);
    let Some(text) = text.strip_suffix("/tcp").or_else(|| (!text.contains('/')).then_some(&*text)) else {
        return vec![];
    };
    let last = text.rsplit(':').next().unwrap_or("");
    match last.split_once('-') {
        Some((from, to)) => match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if from <= to && to - from < 64 => (from..=to).collect(),
            _ => vec![],
        },
        None => last.parse().ok().into_iter().collect(),
    }
}

fn networks(service: &Map<String, Value>) -> Vec<String> {
    match service.get("networks") {
        Some(Value::Array(names)) => names.iter().map(plain).collect(),
        Some(Value::Object(map)) => map.keys().cloned().collect(),
        _ => vec![],
    }
}

/// A value as one would write it: lists with commas, a port with its protocol behind a slash.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(edge)
        && text.ends_with(edge)
}

fn mistake(pointer: &str, code: &str, message: impl Into<String>, hint: &str) -> Refusal {
    Refusal { pointer: pointer.into(), code: code.into(), message: message.into(), hint: hint.into() }
}
