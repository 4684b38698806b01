//! What the operator sets for all pods: `inject.json` of the control plane, `--config` of `outrigger inject`. How it is read
//! is in `written`.

mod written;

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;

use crate::Problem;
use crate::resources::Resources;
use crate::values::Ports;

/// What the operator sets for all pods, proven. What annotations of a namespace or a pod say wins over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(crate) image: String,
    pub(crate) init_image: String,
    pub(crate) pull_policy: String,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) control: String,
    pub(crate) control_namespace: String,
    pub(crate) trust_domain: String,
    pub(crate) token_audience: String,
    pub(crate) token_seconds: u32,
    pub(crate) roots_config_map: String,
    pub(crate) native_sidecar: bool,
    pub(crate) server_version: Option<KubernetesVersion>,
    pub(crate) proxy_uid: u32,
    pub(crate) dns: bool,
    pub(crate) rewrite_probes: bool,
    pub(crate) hold_application: bool,
    pub(crate) scrape: bool,
    pub(crate) log_level: String,
    pub(crate) proxy_resources: Resources,
    pub(crate) init_resources: Resources,
    pub(crate) skip_inbound_ports: Ports,
    pub(crate) skip_outbound_ports: Ports,
    pub(crate) skip_outbound_networks: String,
    pub(crate) ignored_namespaces: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        let image = concat!("outrigger/proxy:", env!("CARGO_PKG_VERSION"));
        Self {
            image: image.into(),
            init_image: image.into(),
            pull_policy: "IfNotPresent".into(),
            pull_secrets: Vec::new(),
            control: "outrigger-control.outrigger-system.svc:15010".into(),
            control_namespace: "outrigger-system".into(),
            trust_domain: "mesh.local".into(),
            token_audience: "outrigger".into(),
            token_seconds: 3600,
            roots_config_map: "outrigger-roots".into(),
            native_sidecar: true,
            server_version: None,
            proxy_uid: 15001,
            dns: false,
            rewrite_probes: true,
            hold_application: true,
            scrape: true,
            log_level: "info".into(),
            proxy_resources: Resources::of([("cpu", "50m"), ("memory", "64Mi")], [("memory", "256Mi")]),
            init_resources: Resources::of(
                [("cpu", "10m"), ("memory", "16Mi")],
                [("cpu", "500m"), ("memory", "64Mi")],
            ),
            skip_inbound_ports: Ports::default(),
            skip_outbound_ports: Ports::default(),
            skip_outbound_networks: String::new(),
            ignored_namespaces: Vec::new(),
            env: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads them from a JSON object; what is left out keeps its default. All mistakes are told at once.
    pub fn from_json(written: &Value) -> Result<Self, Vec<Problem>> {
        written::read(written)
    }

    /// The same with what the API server says of itself; what the operator has written wins.
    #[must_use]
    pub fn with_server_version(mut self, version: KubernetesVersion) -> Self {
        self.server_version.get_or_insert(version);
        self
    }

    /// The namespace of the control plane, where nothing is injected.
    pub fn control_namespace(&self) -> &str {
        &self.control_namespace
    }

    /// Whether sidecars are native ones, for pods that do not say.
    pub(crate) fn native_by_default(&self) -> bool {
        self.native_sidecar && self.has_native()
    }

    /// Whether the API server keeps `restartPolicy` of initial containers. One of before 1.29 drops it, and the pod would
    /// wait for its sidecar to end.
    pub(crate) fn has_native(&self) -> bool {
        self.server_version.is_none_or(|version| version >= KubernetesVersion { major: 1, minor: 29 })
    }
}

/// A version of Kubernetes, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl FromStr for KubernetesVersion {
    type Err = String;

    /// Takes `1.29`, `v1.29.3` and what vendors make of it: `1.29+`, `v1.29.3-gke.100`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.trim_start_matches('v').split('.');
        let mut number = || {
            let part = parts.next()?;
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end)?.parse().ok()
        };
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(format!("{text:?} is no version of Kubernetes: write 1.29")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_keeps_its_default_and_one_image_serves_for_both() {
        let written = json!({"image": "a/b:1", "proxyUid": 77, "skipInboundPorts": [22, "80-90"]});
        let settings = Settings::from_json(&written).unwrap();
        assert_eq!((settings.init_image.as_str(), settings.proxy_uid), ("a/b:1", 77));
        assert_eq!(settings.skip_inbound_ports.to_string(), "22,80-90");
        assert_eq!(settings.control, Settings::default().control);
    }

    #[test]
    fn all_mistakes_are_told_with_their_place() {
        let bad = json!({
            "image": "a b", "proxyUid": 0, "nativeSidecar": "yes", "colour": 1, "skipInboundPorts": "x",
            "resources": {"proxy": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Mi"}}}, "env": {"1": 2},
        });
        let mut at: Vec<String> =
            Settings::from_json(&bad).unwrap_err().into_iter().map(|p| p.pointer).collect();
        at.sort();
        let wanted = [
            "/colour",
            "/env/1",
            "/env/1",
            "/image",
            "/nativeSidecar",
            "/proxyUid",
            "/resources/proxy/requests/memory",
            "/skipInboundPorts",
        ];
        assert_eq!(at, wanted);
        assert!(Settings::from_json(&json!([])).is_err());
    }

    #[test]
    fn versions_of_vendors_are_read() {
        for (text, minor) in [("1.29", 29), ("v1.28.3-gke.100", 28), ("1.30+", 30)] {
            assert_eq!(text.parse(), Ok(KubernetesVersion { major: 1, minor }));
        }
        assert!("one".parse::<KubernetesVersion>().is_err());
    }
}
