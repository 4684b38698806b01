//! Our kinds as CustomResourceDefinitions, made of the tables that judge what is written: `deploy/crds`.
//!
//! Only what a structural schema can say is in them. What more a table or a check says is told after an object is there: in its
//! status, where it was written past the admin API.

use serde_json::{Map, Value as Json, json};

use super::Kind;
use super::published::{name_of, specification, stands_alone};

/// The group of our own kinds.
const GROUP: &str = "outrigger.dev";

/// The definition of a kind; `None` for those that the Gateway API defines.
pub(crate) fn definition(kind: Kind) -> Option<Json> {
    let (group, version) = kind.api_version().split_once('/')?;
    if group != GROUP {
        return None;
    }
    let plural = match kind {
        Kind::MeshService => "meshservices",
        other => other.collection(),
    };
    let mut spec = specification(kind);
    structural(&mut spec);
    let condition = json!({
        "type": "object",
        "properties": {
            "type": { "type": "string" }, "status": { "type": "string" }, "reason": { "type": "string" },
            "message": { "type": "string" }, "observedGeneration": { "type": "integer", "format": "int64" },
            "lastTransitionTime": { "type": "string", "format": "date-time" },
        },
        "required": ["type", "status"],
    });
    let status = json!({
        "type": "object",
        "description": "What has become of it, as the control plane says.",
        "properties": { "conditions": { "type": "array", "items": condition } },
        "x-kubernetes-preserve-unknown-fields": true,
    });
    let mut schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": metadata(kind),
            "spec": spec, "status": status,
        },
    });
    if !stands_alone(kind) {
        schema["required"] = json!(["spec"]);
    }
    let name = format!("{plural}.{GROUP}");
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/part-of": "outrigger" } },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.as_str(), "listKind": format!("{kind}List"), "plural": plural,
                "singular": kind.as_str().to_lowercase(), "categories": ["outrigger"],
            },
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": { "openAPIV3Schema": schema },
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns(kind),
            }],
        },
    }))
}

/// An API server lets a schema say of metadata what a name is like, and nothing else. A name with a dot is one of Kubernetes;
/// where it is part of other names here, such an object would be there and be read under no name.
fn metadata(kind: Kind) -> Json {
    let mut metadata = json!({ "type": "object" });
    if kind.name_is_label() {
        metadata["properties"] = json!({ "name": name_of(kind) });
    }
    metadata
}

/// What `kubectl get` shows: what tells objects of the kind apart, whether they are in force, and how old they are.
fn columns(kind: Kind) -> Vec<Json> {
    let own: &[(&str, &str, &str)] = match kind {
        Kind::MeshService => &[("mTLS", "string", ".spec.mtls"), ("Owner", "string", ".spec.owner")],
        Kind::EgressService => &[("Hosts", "string", ".spec.hosts")],
        Kind::Instance => &[
            ("Service", "string", ".spec.service"),
            ("Address", "string", ".spec.address"),
            ("Version", "string", ".spec.version"),
        ],
        Kind::TrafficPolicy => &[("Target", "string", ".spec.targetRef.name")],
        Kind::AccessPolicy | Kind::TokenPolicy => &[("Targets", "string", ".spec.targetRefs[*].name")],
        Kind::Rollout => &[("Service", "string", ".spec.service"), ("Strategy", "string", ".spec.strategy")],
        Kind::BreakerOverride => {
            &[("Mode", "string", ".spec.mode"), ("Expires", "string", ".spec.expiresAt")]
        }
        _ => &[],
    };
    let accepted = ("Accepted", "string", r#".status.conditions[?(@.type=="Accepted")].status"#);
    let age = ("Age", "date", ".metadata.creationTimestamp");
    let column =
        |(name, kind, path): &(&str, &str, &str)| json!({ "name": name, "type": kind, "jsonPath": path });
    own.iter().chain([&accepted, &age]).map(column).collect()
}

/// Makes a schema structural: what is unknown is dropped by the API server, which is said by saying nothing, and what may be
/// anything says so.
fn structural(schema: &mut Json) {
    let Json::Object(fields) = schema else { return };
    if fields.get("additionalProperties").is_some_and(Json::is_boolean) {
        fields.shift_remove("additionalProperties");
    }
    if !fields.contains_key("type") {
        fields.insert("type".into(), "object".into());
        fields.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(below) {
            structural(below);
        }
    }
    let properties = fields.get_mut("properties").and_then(Json::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(structural);
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    /// The files are what the tables say. `OUTRIGGER_WRITE=1 cargo test -p outrigger-control --lib definition` writes them anew.
    #[test]
    fn the_definitions_in_deploy_are_those_of_the_tables() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
        let mut expected = std::collections::BTreeMap::new();
        for kind in Kind::ALL {
            let Some(definition) = definition(kind) else { continue };
            let name = definition["spec"]["names"]["plural"].as_str().unwrap().to_owned();
            expected.insert(format!("{name}.yaml"), format!("{HEAD}{}", yaml(&definition)));
        }
        assert_eq!(expected.len(), 11);
        if std::env::var_os("OUTRIGGER_WRITE").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in &expected {
                std::fs::write(folder.join(name), text).unwrap();
            }
        }
        for (name, text) in &expected {
            let there = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(
                there == *text,
                "deploy/crds/{name} is of another table; write it with OUTRIGGER_WRITE=1"
            );
        }
        let there =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let stray: Vec<_> = there.filter(|n| n.ends_with("s.yaml") && !expected.contains_key(n)).collect();
        assert!(stray.is_empty(), "of no kind: {stray:?}");
    }

    #[test]
    fn what_they_say_reads_back_as_what_was_meant() {
        for kind in Kind::ALL {
            let Some(definition) = definition(kind) else { continue };
            let read = super::super::tree::parse(&yaml(&definition)).unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].to_json(), definition, "{kind}");
        }
    }

    #[test]
    fn an_api_server_takes_them_as_structural() {
        for kind in Kind::ALL {
            let Some(definition) = definition(kind) else { continue };
            let wrong = outrigger_testkit::kubernetes::faults_of(&definition);
            assert!(wrong.is_empty(), "{kind}: {wrong:#?}");
        }
    }

    const HEAD: &str = "# Made of the tables of control-plane/src/spec; OUTRIGGER_WRITE=1 writes it anew.\n";

    /// Block style; texts in quotes, as JSON has them.
    fn yaml(value: &Json) -> String {
        let mut out = String::new();
        block(value, 0, &mut out);
        out
    }

    fn block(value: &Json, depth: usize, out: &mut String) {
        let pad = "  ".repeat(depth);
        match value {
            Json::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    entry(&format!("{pad}{}:", plain(name)), value, depth + 1, out);
                }
            }
            Json::Array(items) if !items.is_empty() => {
                for item in items {
                    entry(&format!("{pad}-"), item, depth + 1, out);
                }
            }
            other => writeln!(out, "{pad}{other}").unwrap(),
        }
    }

    fn entry(head: &str, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Object(fields) if !fields.is_empty() => {
                out.push_str(head);
                out.push('\n');
                block(value, depth, out);
            }
            Json::Array(items) if !items.is_empty() => {
                out.push_str(head);
                out.push('\n');
                block(value, depth, out);
            }
            Json::String(text) => writeln!(out, "{head} {}", plain(text)).unwrap(),
            other => writeln!(out, "{head} {other}").unwrap(),
        }
    }

    /// Without quotes where nobody could take it for something else.
    fn plain(text: &str) -> String {
        let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
        let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-./".contains(&b))
            && !words.contains(&text.to_lowercase().as_str());
        if is_word { text.to_owned() } else { Json::from(text).to_string() }
    }
}
