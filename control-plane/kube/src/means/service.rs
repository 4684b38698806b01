//! What a Service means: a MeshService.

use std::collections::BTreeSet;
use std::net::IpAddr;

use outrigger_mesh::{Label, PortRanges};
use serde_json::{Map, Value, json};

use super::PREFIX;
use crate::api::place;

/// At most as many ports and identities as a MeshService may have.
const MOST: usize = 64;

/// Whether a Service is one of the mesh: it has a name that one can have, stands for endpoints, and nobody left it out
/// (`outrigger.dev/discover: disabled` on it or its namespace).
pub fn is_meant(service: &Value, namespace: &Value) -> bool {
    let (of, name) = place(service);
    let named = Label::new(of).is_ok() && Label::new(name).is_ok();
    // What the API server itself stands behind: a sidecar before it would stand between a cluster and its own parts.
    let own = (of, name) == ("default", "kubernetes");
    let outside = service["spec"]["type"] == "ExternalName";
    let left_out = [service, namespace].iter().any(|object| note(object, "discover") == Some("disabled"));
    named && !own && !outside && !left_out
}

/// What is known of the pods behind a Service, ready or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Their service accounts.
    pub accounts: BTreeSet<String>,
    /// The ports of the Service whose bytes one of them, at least, wants nobody to look into.
    pub opaque: BTreeSet<u64>,
    /// Whether one of them, at least, is reached by a sidecar of its own.
    pub meshed: bool,
    /// Whether one of them, at least, is not, or what is there is no pod.
    pub bare: bool,
}

/// The MeshService that a Service is.
///
/// - Ports: those of TCP. One is opaque (`tcp`) if `outrigger.dev/opaque-ports` of the Service has its number; or, where the
///   Service has no such annotation, that of its namespace; or that of a pod behind it the number where the pod listens. Bytes
///   that nobody looks into arrive whatever they are, so one that says so is enough. Else the protocol is the one that
///   `appProtocol` or the name of the port says.
/// - Who may serve it: the accounts of its pods. Without any pod it is `default`, the account of pods that name none.
/// - Mutual TLS: `strict` in a namespace whose pods get sidecars, else `permissive`; the annotation `outrigger.dev/mtls` of the
///   Service or its namespace says otherwise.
///
/// Its `status` has what the cluster calls it by, its ClusterIPs (a headless one has none), and whether it is in the mesh:
/// one of its pods is, or its namespace while nothing is behind it. Where all that is behind it has no sidecar (a gateway, what is
/// beyond the cluster, pods that are still to start anew with theirs) its callers are best off as they were without a mesh.
pub fn derive(service: &Value, namespace: &Value, behind: &Behind) -> Value {
    let (of, name) = place(service);
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    metadata.insert("namespace".into(), of.into());
    if let Some(labels) = service["metadata"]["labels"].as_object().filter(|labels| !labels.is_empty()) {
        metadata.insert("labels".into(), labels.clone().into());
    }
    let mut accounts: Vec<&str> =
        behind.accounts.iter().map(String::as_str).filter(|a| Label::new(a).is_ok()).take(MOST).collect();
    if accounts.is_empty() {
        accounts.push("default");
    }
    let mut spec = Map::new();
    let said = opaque_ports(service).or_else(|| opaque_ports(namespace)).unwrap_or_default();
    let is_opaque = |port: u64| {
        behind.opaque.contains(&port) || u16::try_from(port).is_ok_and(|port| said.contains(port))
    };
    let ports = ports(service, is_opaque);
    if !ports.is_empty() {
        spec.insert("ports".into(), ports.into());
    }
    spec.insert("identities".into(), json!(accounts));
    spec.insert("mtls".into(), mtls(service, namespace).into());
    spec.insert("discovery".into(), "kubernetes".into());
    for field in ["owner", "description"] {
        if let Some(text) = note(service, field).filter(|text| is_words(text)) {
            spec.insert(field.into(), text.into());
        }
    }
    let mut whole = json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService", "metadata": metadata, "spec": spec });
    let addresses = cluster_addresses(service);
    if !addresses.is_empty() {
        let meshed = behind.meshed || !behind.bare && label(namespace, "inject") == Some("enabled");
        whole["status"] = json!({ "clusterAddresses": addresses, "meshed": meshed });
    }
    whole
}

/// By which addresses the cluster calls a Service, whose pods have others. An API server of before 1.20 tells of one alone.
fn cluster_addresses(service: &Value) -> Vec<IpAddr> {
    let (spec, one) = (&service["spec"], std::slice::from_ref(&service["spec"]["clusterIP"]));
    let all = spec["clusterIPs"].as_array().map_or(one, Vec::as_slice);
    // A headless one has `None` there.
    all.iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// What a MeshService adds to the Service of its name: each field that it says wins; metadata are its own.
pub fn added(derived: &Value, written: &Value) -> Value {
    let mut whole = written.clone();
    let mut spec = derived["spec"].as_object().cloned().unwrap_or_default();
    for (field, value) in written["spec"].as_object().into_iter().flatten() {
        spec.insert(field.clone(), value.clone());
    }
    whole["spec"] = spec.into();
    whole
}

/// The ports, as far as they are of TCP. The number is the one that callers use.
fn ports(service: &Value, is_opaque: impl Fn(u64) -> bool) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let all = service["spec"]["ports"].as_array().into_iter().flatten();
    all.filter(|port| port["protocol"].as_str().unwrap_or("TCP") == "TCP")
        .filter_map(|port| {
            let number = port["port"].as_u64().filter(|n| (1..=65_535).contains(n))?;
            seen.insert(number).then_some(())?;
            let mut told = json!({ "port": number });
            if let Some(name) = port["name"].as_str().filter(|name| Label::new(name).is_ok()) {
                told["name"] = name.into();
            }
            let opaque = is_opaque(number).then_some("tcp");
            if let Some(protocol) = opaque.or_else(|| protocol(port)) {
                told["protocol"] = protocol.into();
            }
            Some(told)
        })
        .take(MOST)
        .collect()
}

/// What a port speaks: as `appProtocol` says, else as its name begins, by the custom of `PROTOCOL` or `PROTOCOL-WORD`.
/// `None`: to be found out.
pub(super) fn protocol(port: &Value) -> Option<&'static str> {
    if let Some(said) = port["appProtocol"].as_str() {
        return match said.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Some("http"),
            "http2" | "kubernetes.io/h2c" => Some("http2"),
            "grpc" => Some("grpc"),
            "https" | "tls" | "kubernetes.io/wss" => Some("tls"),
            "tcp" | "mongo" | "mysql" | "redis" | "postgresql" | "amqp" | "kafka" => Some("tcp"),
            _ => None,
        };
    }
    let name = port["name"].as_str()?;
    match name.split('-').next().unwrap_or(name) {
        "http" => Some("http"),
        "http2" => Some("http2"),
        "grpc" => Some("grpc"),
        "https" | "tls" => Some("tls"),
        "tcp" | "mongo" | "mysql" | "redis" | "postgresql" => Some("tcp"),
        _ => None,
    }
}

/// The ports that an object says are opaque; `None` where it says nothing, or nothing that can be read.
pub(super) fn opaque_ports(object: &Value) -> Option<PortRanges> {
    note(object, OPAQUE)?.parse().ok()
}

/// What is written on a Service or a namespace and can not be read, and so counts as not written.
pub fn misread(object: &Value) -> Option<String> {
    let written = note(object, OPAQUE)?;
    let why = written.parse::<PortRanges>().err()?;
    Some(format!("{PREFIX}{OPAQUE}: {written:?} are no ports: {why}"))
}

const OPAQUE: &str = "opaque-ports";

fn mtls(service: &Value, namespace: &Value) -> &'static str {
    let said = note(service, "mtls").or_else(|| note(namespace, "mtls"));
    match said {
        Some("permissive") => "permissive",
        Some("off") => "off",
        // A word that nobody knows is no reason to ask for less.
        Some(_) => "strict",
        None if label(namespace, "inject") == Some("enabled") => "strict",
        None => "permissive",
    }
}

/// One of our annotations.
pub(super) fn note<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(format!("{PREFIX}{name}"))?.as_str()
}

/// One of our labels.
pub(super) fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(format!("{PREFIX}{name}"))?.as_str()
}

fn is_words(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= 1_024 && !text.chars().any(char::is_control)
}
