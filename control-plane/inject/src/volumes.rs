//! The volumes of the sidecar: its keys, in memory; the token by which it joins; the roots it believes; the pod's labels.

use serde_json::{Value, json};

use crate::Settings;
use crate::json::{list, text};
use crate::names::{VOLUME_IDENTITY, VOLUME_PODINFO, VOLUME_ROOTS, VOLUME_TOKEN};

/// Where the sidecar keeps its identity and its last good configuration.
pub(crate) const IDENTITY_AT: &str = "/var/lib/outrigger";
pub(crate) const TOKEN_AT: &str = "/var/run/secrets/outrigger";
pub(crate) const ROOTS_AT: &str = "/etc/outrigger/roots";
const PODINFO_AT: &str = "/etc/outrigger/podinfo";

/// What the volumes are called in one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volumes {
    pub(crate) identity: String,
    token: String,
    podinfo: String,
    roots: String,
}

impl Volumes {
    /// Names that no volume of the pod has.
    pub(crate) fn choose(spec: &Value) -> Self {
        let taken =
            |name: &str| list(spec, "volumes").iter().any(|volume| text(volume, "name") == Some(name));
        let free = |wanted: &str| {
            let beside = (2..1000).map(|number| format!("{wanted}-{number}"));
            std::iter::once(wanted.to_owned()).chain(beside).find(|name| !taken(name)).unwrap_or_default()
        };
        Self {
            identity: free(VOLUME_IDENTITY),
            token: free(VOLUME_TOKEN),
            podinfo: free(VOLUME_PODINFO),
            roots: free(VOLUME_ROOTS),
        }
    }

    pub(crate) fn names(&self) -> [&str; 4] {
        [&self.identity, &self.token, &self.podinfo, &self.roots]
    }

    /// As they stand in the pod's spec.
    pub(crate) fn to_json(&self, settings: &Settings) -> Vec<Value> {
        let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
        let token = json!({"serviceAccountToken": {
            "audience": settings.token_audience,
            "expirationSeconds": settings.token_seconds,
            "path": "token",
        }});
        vec![
            json!({"name": self.identity, "emptyDir": {"medium": "Memory", "sizeLimit": IDENTITY_SIZE}}),
            json!({"name": self.token, "projected": {"sources": [token]}}),
            json!({"name": self.podinfo, "downwardAPI": {"items": [
                field("labels", "metadata.labels"),
                field("annotations", "metadata.annotations"),
            ]}}),
            json!({"name": self.roots, "configMap": {
                "name": settings.roots_config_map,
                "items": [{"key": "roots.pem", "path": "roots.pem"}],
            }}),
        ]
    }

    /// Where the sidecar sees them.
    pub(crate) fn mounts(&self) -> Value {
        json!([
            {"name": self.identity, "mountPath": IDENTITY_AT},
            {"name": self.token, "mountPath": TOKEN_AT, "readOnly": true},
            {"name": self.podinfo, "mountPath": PODINFO_AT, "readOnly": true},
            {"name": self.roots, "mountPath": ROOTS_AT, "readOnly": true},
        ])
    }

    /// Where the redirection keeps the lock of iptables: nothing else there is writable.
    pub(crate) fn init_mounts(&self) -> Value {
        json!([{"name": self.identity, "mountPath": "/run", "subPath": "init"}])
    }
}

/// The copy of a large configuration has some megabytes; what lies in memory counts against the sidecar's limit.
const IDENTITY_SIZE: &str = "64Mi";
