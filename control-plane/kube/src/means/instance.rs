//! What EndpointSlices and Pods mean: Instances.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use outrigger_mesh::{PortRanges, Version};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::service::{Behind, label, note, opaque_ports};
use crate::api::place;

/// What counts of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name within the cluster's time.
    pub uid: String,
    /// Its service account.
    pub account: String,
    /// The version of the service that it is: `outrigger.dev/version`, else `app.kubernetes.io/version`, else `version`.
    pub version: Option<String>,
    /// Whether what arrives at it comes by its sidecar. One that is injected for what leaves it alone (`outbound`) is reached
    /// as if it had none.
    pub meshed: bool,
    /// Whether it is about to end.
    pub ending: bool,
    /// Where it listens for what nobody is to look into; `None`: as its namespace says.
    pub opaque: Option<PortRanges>,
}

impl PodFacts {
    /// Reads a pod. Most of what is in one is of no interest here, and is not kept.
    pub fn of(pod: &Value) -> Self {
        let labels = &pod["metadata"]["labels"];
        let version = note(pod, "version")
            .or_else(|| labels["app.kubernetes.io/version"].as_str())
            .or_else(|| labels["version"].as_str());
        let account = pod["spec"]["serviceAccountName"].as_str().filter(|a| !a.is_empty());
        // In the network of its node there is no sidecar of its own.
        let alone = pod["spec"]["hostNetwork"] != true;
        Self {
            uid: pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            account: account.unwrap_or("default").to_owned(),
            version: version.filter(|v| Version::new(v).is_ok()).map(str::to_owned),
            meshed: alone && label(pod, "injected") == Some("true"),
            ending: !pod["metadata"]["deletionTimestamp"].is_null(),
            opaque: opaque_ports(pod),
        }
    }
}

/// What counts of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service that it is of.
    pub service: String,
    /// Whether its addresses are of IPv6.
    pub v6: bool,
    ports: Vec<(String, u16)>,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    address: IpAddr,
    pod: Option<String>,
    zone: Option<String>,
    ready: bool,
    serving: bool,
    terminating: bool,
}

/// No Service has more: what is beyond is passed over.
const MOST_ENDPOINTS: usize = 10_000;

impl Slice {
    /// Reads a slice; `None` for one that is of no Service, or whose addresses are none.
    pub fn of(slice: &Value) -> Option<Self> {
        let service = slice["metadata"]["labels"].get("kubernetes.io/service-name")?.as_str()?;
        let v6 = match slice["addressType"].as_str()? {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let ports = slice["ports"].as_array().into_iter().flatten().filter_map(|port| {
            let tcp = port["protocol"].as_str().unwrap_or("TCP") == "TCP";
            let number = u16::try_from(port["port"].as_u64()?).ok().filter(|n| *n > 0 && tcp)?;
            Some((port["name"].as_str().unwrap_or_default().to_owned(), number))
        });
        let endpoints = slice["endpoints"].as_array().into_iter().flatten().filter_map(|endpoint| {
            // The addresses of one endpoint are the same one; the first is the one to use.
            let address: IpAddr = endpoint["addresses"].get(0)?.as_str()?.parse().ok()?;
            let is = |condition: &str| endpoint["conditions"][condition].as_bool();
            // Unknown is ready, and what does not say whether it serves serves where it is ready.
            let ready = is("ready").unwrap_or(true);
            let pod = &endpoint["targetRef"];
            let pod = pod["name"].as_str().filter(|_| pod["kind"] == "Pod");
            Some(Endpoint {
                address,
                pod: pod.map(str::to_owned),
                zone: endpoint["zone"].as_str().filter(|z| Version::new(z).is_ok()).map(str::to_owned),
                ready,
                serving: is("serving").unwrap_or(ready),
                terminating: is("terminating").unwrap_or(false),
            })
        });
        Some(Self { service: service.to_owned(), v6, ports: ports.collect(), endpoints: endpoints.collect() })
    }

    /// The pods behind it, ready or not.
    pub(super) fn pods(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().filter_map(|e| e.pod.as_deref())
    }
}

/// The Instances of a Service, by their names.
///
/// - Ready endpoints are instances. One that terminates takes no new requests (`draining`) while it still serves, and is gone
///   when it does not; so it is with a pod that is about to end, whatever its slice says still.
/// - With addresses of both families an instance has that of the Service's first.
/// - With a sidecar that takes what arrives it is reached by mutual TLS at the application's own port, which the pod redirects;
///   else in plaintext.
///   As long as its pod is not known, that is not known either, and it is none yet.
pub fn instances<'a>(
    service: &Value,
    slices: impl Iterator<Item = &'a Slice>,
    pod: impl Fn(&str) -> Option<&'a PodFacts>,
) -> BTreeMap<String, Value> {
    let (_, name) = place(service);
    let slices: Vec<&Slice> = slices.collect();
    let v6 = match service["spec"]["ipFamilies"].get(0).and_then(Value::as_str) {
        Some(family) => family == "IPv6",
        None => slices.iter().all(|slice| slice.v6),
    };
    let mut all: BTreeMap<String, (bool, Value)> = BTreeMap::new();
    for slice in slices.into_iter().filter(|slice| slice.v6 == v6) {
        let ports = ports(service, slice);
        for endpoint in slice.endpoints.iter().filter(|_| !ports.is_empty()) {
            let pod = endpoint.pod.as_deref().and_then(|name| Some((name, pod(name)?)));
            let ending = endpoint.terminating || pod.is_some_and(|(_, pod)| pod.ending);
            let takes_or_ends = endpoint.ready || ending && endpoint.serving;
            let is_known = endpoint.pod.is_none() || pod.is_some();
            if !takes_or_ends || !is_known || all.len() >= MOST_ENDPOINTS {
                continue;
            }
            let uid = name_of(name, endpoint, pod.map(|(_, pod)| pod));
            // While slices are rearranged an endpoint may be in two: the one that takes requests counts.
            if !all.get(&uid).is_some_and(|(takes, _)| *takes || ending) {
                let instance = instance(service, &uid, endpoint, pod, &ports, ending);
                all.insert(uid, (!ending, instance));
            }
        }
    }
    all.into_iter().map(|(uid, (_, instance))| (uid, instance)).collect()
}

/// What is known of the pods behind a Service.
pub(super) fn behind<'a>(
    service: &Value,
    namespace: &Value,
    slices: impl Iterator<Item = &'a Slice>,
    pod: impl Fn(&str) -> Option<&'a PodFacts>,
) -> Behind {
    let (mut behind, of_all) = (Behind::default(), opaque_ports(namespace));
    for slice in slices {
        let pods: Vec<&PodFacts> = slice.pods().filter_map(&pod).collect();
        behind.accounts.extend(pods.iter().map(|pod| pod.account.clone()));
        behind.meshed |= pods.iter().any(|pod| pod.meshed);
        behind.bare |= pods.iter().any(|pod| !pod.meshed) || slice.endpoints.iter().any(|e| e.pod.is_none());
        let said = pods.iter().filter_map(|pod| pod.opaque.as_ref().or(of_all.as_ref()));
        for ports in said.collect::<Vec<_>>() {
            let opaque = listening(service, slice).filter(|(_, at)| ports.contains(*at));
            behind.opaque.extend(opaque.map(|(port, _)| port));
        }
    }
    behind
}

fn instance(
    service: &Value,
    uid: &str,
    endpoint: &Endpoint,
    pod: Option<(&str, &PodFacts)>,
    ports: &[Value],
    ending: bool,
) -> Value {
    let (namespace, name) = place(service);
    let mut spec = Map::new();
    spec.insert("service".into(), name.into());
    spec.insert("address".into(), endpoint.address.to_string().into());
    spec.insert("ports".into(), ports.into());
    if let Some(version) = pod.and_then(|(_, pod)| pod.version.as_deref()) {
        spec.insert("version".into(), version.into());
    }
    if let Some(zone) = &endpoint.zone {
        spec.insert("zone".into(), zone.as_str().into());
    }
    if !pod.is_some_and(|(_, pod)| pod.meshed) {
        spec.insert("transport".into(), "plaintext".into());
    }
    if ending {
        spec.insert("state".into(), "draining".into());
    }
    let mut metadata = json!({ "name": uid, "namespace": namespace });
    if let Some((name, pod)) = pod {
        metadata["annotations"] =
            json!({ "outrigger.dev/pod": name, "outrigger.dev/service-account": pod.account });
    }
    json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": "Instance", "metadata": metadata, "spec": spec })
}

/// The ports of an Instance at the endpoints of a slice.
fn ports(service: &Value, slice: &Slice) -> Vec<Value> {
    listening(service, slice).map(|(port, at)| json!({ "port": port, "listen": at })).take(64).collect()
}

/// Where each port of the Service is at the endpoints of a slice: the two call it by the same name.
fn listening(service: &Value, slice: &Slice) -> impl Iterator<Item = (u64, u16)> {
    let mut seen = BTreeSet::new();
    let all = service["spec"]["ports"].as_array().into_iter().flatten();
    all.filter_map(move |port| {
        let number = port["port"].as_u64().filter(|n| (1..=65_535).contains(n))?;
        let tcp = port["protocol"].as_str().unwrap_or("TCP") == "TCP";
        let name = port["name"].as_str().unwrap_or_default();
        let (_, at) = slice.ports.iter().find(|(of, _)| of == name)?;
        (tcp && seen.insert(number)).then_some((number, *at))
    })
}

/// A name that this process alone has among all instances: a pod may stand behind several Services, and another pod may
/// get its name when it is gone.
fn name_of(service: &str, endpoint: &Endpoint, pod: Option<&PodFacts>) -> String {
    let address = endpoint.address.to_string();
    let readable = endpoint.pod.as_deref().unwrap_or(&address);
    let readable: String = readable
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(50)
        .collect();
    let who = pod.map_or(readable.as_str(), |pod| &pod.uid);
    let hash = Sha256::digest(format!("{service}/{who}/{address}"));
    let mut name = format!("{}-", readable.trim_matches('-'));
    for byte in hash.iter().take(5) {
        // Writing to a String can not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.trim_start_matches('-').to_owned()
}
