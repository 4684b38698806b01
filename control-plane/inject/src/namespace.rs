//! What is known of the namespace in which a pod is made.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json::{list, member, text, texts};
use crate::names::DISCOVER;

/// Labels and annotations of a pod's namespace, and its Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Its labels: `outrigger.dev/inject` decides for pods that say nothing themselves.
    pub labels: BTreeMap<String, String>,
    /// Its annotations: its pods have those of ours that they do not set themselves.
    pub annotations: BTreeMap<String, String>,
    /// Its Services, from which the service of a pod is known that does not name it.
    pub services: Vec<ServiceFacts>,
}

impl NamespaceFacts {
    /// Reads name, labels and annotations from a Namespace. `None` if it has no name.
    pub fn from_object(namespace: &Value) -> Option<Self> {
        let metadata = namespace.get("metadata")?;
        let owned =
            |of: &str| texts(metadata, of).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self {
            name: text(metadata, "name")?.to_owned(),
            labels: owned("labels"),
            annotations: owned("annotations"),
            services: Vec::new(),
        })
    }

    /// Whether the mesh leaves it out: then none of its Services is one that the control plane has.
    pub(crate) fn is_left_out(&self) -> bool {
        self.annotations.get(DISCOVER).is_some_and(|word| word == "disabled")
    }
}

/// A Service of Kubernetes, as far as it tells which pods are its instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its name, which is that of the service in the mesh.
    pub name: String,
    /// The labels of its pods; never empty.
    pub selector: BTreeMap<String, String>,
    /// Its TCP ports, in order.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What callers use.
    pub port: u16,
    /// Where the pod listens.
    pub target: ServiceTarget,
}

/// Where a pod listens for a port of its Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceTarget {
    /// At that number.
    Number(u16),
    /// At the container port of that name.
    Name(String),
}

impl ServiceFacts {
    /// Reads them from a Service. `None` if it selects no pods, as one without a selector, or is none of the mesh, which the
    /// control plane does not have: of type ExternalName, the API server's own, or annotated `outrigger.dev/discover: disabled`.
    pub fn from_object(service: &Value) -> Option<Self> {
        let (metadata, spec) = (service.get("metadata")?, service.get("spec")?);
        let selector: BTreeMap<_, _> =
            texts(spec, "selector").map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let outside = text(spec, "type") == Some("ExternalName");
        let left_out = texts(metadata, "annotations").any(|said| said == (DISCOVER, "disabled"));
        let own =
            (text(metadata, "namespace"), text(metadata, "name")) == (Some("default"), Some("kubernetes"));
        if selector.is_empty() || outside || left_out || own {
            return None;
        }
        let tcp = |port: &&Value| text(port, "protocol").is_none_or(|protocol| protocol == "TCP");
        Some(Self {
            name: text(metadata, "name")?.to_owned(),
            selector,
            ports: list(spec, "ports").iter().filter(tcp).filter_map(service_port).collect(),
        })
    }
}

fn service_port(written: &Value) -> Option<ServicePort> {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    let port = written.get("port").and_then(number)?;
    let target = match member(written, "targetPort") {
        None => ServiceTarget::Number(port),
        Some(Value::String(name)) => ServiceTarget::Name(name.clone()),
        // Zero means the same port, as Kubernetes has it.
        Some(value) => ServiceTarget::Number(number(value).unwrap_or(port)),
    };
    Some(ServicePort { port, target })
}
