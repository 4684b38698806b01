//! The definitions of our kinds, held to the schemas of Kubernetes, and what `kubectl get` shows of objects.

use std::fs;

use serde_json::{Value, json};

use crate::stage::{documents, judged, list, root, validate};

/// Every definition, by its file.
fn definitions() -> Vec<(String, Value)> {
    let entries = fs::read_dir(root().join("deploy/crds")).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, documents(&fs::read_to_string(&path).unwrap()).remove(0))
    };
    let all: Vec<(String, Value)> = entries.map(read).collect();
    all.into_iter().filter(|(_, object)| object["kind"] == "CustomResourceDefinition").collect()
}

#[test]
fn each_definition_is_valid_by_the_schemas_of_kubernetes_to_its_depth() {
    let all = definitions();
    assert_eq!(all.len(), 11);
    let stream: Vec<String> = all.iter().map(|(_, object)| object.to_string()).collect();
    let Some(()) = validate("deploy/crds", &stream.join("\n---\n")) else { return };
    // And what is not known is found wherever it is.
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    for (place, told) in
        [("/spec", "spec: "), (schema, "properties.spec: "), ("/spec/versions/0", "spec.versions.0: ")]
    {
        let mut planted = all[0].1.clone();
        planted.pointer_mut(place).unwrap()["nonsense"] = json!(true);
        let (ok, said) = judged(&planted.to_string()).unwrap();
        assert!(!ok && said.contains(told) && said.contains("'nonsense' was unexpected"), "{place}: {said}");
    }
}

#[test]
fn every_column_shows_what_the_schema_has() {
    for (file, object) in definitions() {
        let version = &object["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        let columns = list(&version["additionalPrinterColumns"]);
        assert!(columns.iter().any(|column| column["name"] == "Accepted"), "{file}");
        for column in columns {
            let path = column["jsonPath"].as_str().unwrap();
            assert!(path.starts_with(".metadata.") || shown(schema, path), "{file}: {path}");
        }
    }
}

/// Whether a schema has what a path of kubectl names: fields, and brackets that choose of a list.
fn shown(schema: &Value, path: &str) -> bool {
    let mut at = schema;
    // In brackets there may be points, too.
    let mut rest = path.trim_start_matches('.');
    while !rest.is_empty() {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        at = &at["properties"][&rest[..end]];
        rest = &rest[end..];
        if let Some((_, after)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            at = &at["items"];
            rest = after;
        }
        rest = rest.trim_start_matches('.');
    }
    at.is_object()
}
