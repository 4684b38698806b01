//! The roots of the mesh, in a ConfigMap of every namespace whose pods get sidecars, and of the control plane's own: what a
//! sidecar believes its first control plane by.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_kube::api::{CallError, CallErrorKind, Collection, Meant};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::store::kubernetes::KubernetesStore;

const CONFIG_MAPS: Collection =
    Collection { group: "", version: "v1", plural: "configmaps", kind: "ConfigMap" };
/// Its name, and the entry in it.
const NAME: &str = "outrigger-roots";
const ENTRY: &str = "roots.pem";
/// Somebody may have taken it away.
const AGAIN: Duration = Duration::from_secs(300);
/// What could not be written is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What was written where, and when it is to be looked at again.
#[derive(Default)]
pub(super) struct Roots {
    written: BTreeMap<String, (String, Instant)>,
}

impl Roots {
    pub(super) async fn round(&mut self, store: &KubernetesStore, roots: &[Arc<[u8]>]) {
        let text = pem(roots);
        // That of the control plane has them, too: whoever reads its metrics verifies it by them.
        let own = store.namespace();
        let wants = |(name, noted): &(String, Json)| is_meshed(noted) || name == own;
        let meshed = store.namespaces().into_iter().filter(wants);
        let meshed: Vec<String> = meshed.map(|(name, _)| name).collect();
        self.written.retain(|namespace, _| meshed.contains(namespace));
        for namespace in meshed {
            let now = Instant::now();
            let known = self.written.get(&namespace);
            if known.is_some_and(|(known, until)| *known == text && now < *until) {
                continue;
            }
            let wait = match put(store, &namespace, &text).await {
                Ok(()) => AGAIN,
                Err(error) => {
                    tracing::warn!(namespace, %error, "the roots of the mesh are not in the namespace");
                    TRY_AGAIN
                }
            };
            self.written.insert(namespace, (text.clone(), now + wait));
        }
    }
}

/// Whether pods of a namespace get sidecars, as its label says.
fn is_meshed(noted: &Json) -> bool {
    let label = noted["metadata"]["labels"].get("outrigger.dev/inject").and_then(Json::as_str);
    matches!(label, Some("enabled" | "ingress"))
}

async fn put(store: &KubernetesStore, namespace: &str, text: &str) -> Result<(), CallError> {
    let mut map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": NAME, "namespace": namespace,
            "labels": { "app.kubernetes.io/managed-by": "outrigger-control" },
        },
        "data": { ENTRY: text },
    });
    let api = store.api();
    let made = match api.get(&CONFIG_MAPS, namespace, NAME).await? {
        Some(there) if there["data"][ENTRY] == text => return Ok(()),
        Some(there) => {
            map["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
            api.replace(&CONFIG_MAPS, &map, Meant::Really).await
        }
        None => api.create(&CONFIG_MAPS, &map, Meant::Really).await,
    };
    match made {
        // Another replica was faster.
        Err(e) if e.kind() == CallErrorKind::Conflict => Ok(()),
        made => made.map(drop),
    }
}

fn pem(roots: &[Arc<[u8]>]) -> String {
    let mut text = String::new();
    for der in roots {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(der).as_bytes().chunks(64) {
            // Base64 is ASCII, and writing to a String can not fail.
            let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
