//! What is kept and is nobody's configuration: each record a Secret, or a ConfigMap where it holds no secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_kube::api::Collection;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::super::Space;

/// Secrets.
pub(super) const SECRETS: Collection =
    Collection { group: "", version: "v1", plural: "secrets", kind: "Secret" };
/// ConfigMaps.
pub(super) const CONFIG_MAPS: Collection =
    Collection { group: "", version: "v1", plural: "configmaps", kind: "ConfigMap" };
/// The label that tells the space of a record.
pub(super) const SPACE: &str = "outrigger.dev/space";
/// The annotation that tells its key.
const KEY: &str = "outrigger.dev/key";
/// The entry with the record.
const VALUE: &str = "value";

/// Where records of a space are; `None` for a space that is no such record's.
pub(super) fn of_space(space: Space) -> Option<Collection> {
    match space {
        Space::Tokens | Space::Certificates => Some(SECRETS),
        Space::Rollouts => Some(CONFIG_MAPS),
        Space::Config | Space::Instances | Space::Status => None,
    }
}

/// The name of the object that holds a record. That of the authority is known: `outrigger-ca`.
pub(super) fn name(space: Space, key: &str) -> String {
    if (space, key) == (Space::Certificates, "authority") {
        return "outrigger-ca".into();
    }
    let hash = Sha256::digest(key.as_bytes());
    let short = hash.iter().take(10).fold(String::new(), |text, b| text + &format!("{b:02x}"));
    format!("outrigger-{}-{short}", space.as_str())
}

/// The object that holds a record.
pub(super) fn of(space: Space, namespace: &str, key: &str, value: &Json, version: Option<&str>) -> Json {
    let mut metadata = json!({
        "name": name(space, key), "namespace": namespace,
        "labels": { SPACE: space.as_str(), "app.kubernetes.io/managed-by": "outrigger-control" },
        "annotations": { KEY: key },
    });
    if let Some(version) = version {
        metadata["resourceVersion"] = version.into();
    }
    let text = value.to_string();
    if of_space(space) == Some(SECRETS) {
        let data = json!({ VALUE: STANDARD.encode(text) });
        json!({ "apiVersion": "v1", "kind": "Secret", "type": "outrigger.dev/record", "metadata": metadata, "data": data })
    } else {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { VALUE: text } })
    }
}

/// The record that an object holds: its space, key and value. `None` for whatever is none of ours: nobody else's Secret becomes a
/// key of the mesh by its label alone.
pub(super) fn read(object: &Json) -> Option<(Space, String, Json)> {
    let space = object["metadata"]["labels"].get(SPACE)?.as_str()?;
    let space = Space::ALL.into_iter().find(|s| s.as_str() == space)?;
    let is_secret = of_space(space)? == SECRETS;
    let key = object["metadata"]["annotations"].get(KEY)?.as_str()?;
    let fits = object["kind"] == if is_secret { "Secret" } else { "ConfigMap" };
    if !fits || object["metadata"]["name"] != name(space, key).as_str() {
        return None;
    }
    let text = object["data"].get(VALUE)?.as_str()?;
    let value = if is_secret {
        serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()?
    } else {
        serde_json::from_str(text).ok()?
    };
    Some((space, key.to_owned(), value))
}
