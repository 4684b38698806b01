//! What the API server says it has.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kinds::Resource;

/// The answer to a path of discovery; `None` for other paths.
pub(super) fn answer(path: &str, resources: &[Resource]) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["version"] => Some(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "played", "gitTreeState": "clean",
            "buildDate": "2026-04-01T00:00:00Z", "goVersion": "none", "compiler": "none", "platform": "linux/amd64",
        })),
        ["api"] => {
            Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
        }
        ["apis"] => {
            let names: BTreeSet<&str> =
                resources.iter().map(|r| r.group.as_str()).filter(|g| !g.is_empty()).collect();
            let groups: Vec<Value> = names.into_iter().map(|name| group(name, resources)).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["apis", name] if resources.iter().any(|r| r.group == *name) => Some(group(name, resources)),
        ["api", version] => list("", version, resources),
        ["apis", group, version] => list(group, version, resources),
        ["openapi", "v3"] => Some(documents(resources)),
        ["openapi", "v3", "api", version] => document("", version, resources),
        ["openapi", "v3", "apis", group, version] => document(group, version, resources),
        _ => None,
    }
}

/// Where the documents of all groups are.
fn documents(resources: &[Resource]) -> Value {
    let root = |r: &Resource| if r.group.is_empty() { "api" } else { "apis" };
    let path = |r: &Resource| format!("{}/{}", root(r), r.api_version());
    let told = |path: String| (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}") }));
    json!({ "paths": resources.iter().map(path).map(told).collect::<serde_json::Map<_, _>>() })
}

/// What clients look for in one: that the server judges fields itself.
fn document(group: &str, version: &str, resources: &[Resource]) -> Option<Value> {
    let own: Vec<&Resource> = resources.iter().filter(|r| r.group == group && r.version == version).collect();
    let path = |r: &&Resource| {
        let kind = json!({ "group": r.group, "version": r.version, "kind": r.kind });
        let judged = json!({ "name": "fieldValidation", "in": "query", "schema": { "type": "string" } });
        let patch =
            json!({ "x-kubernetes-group-version-kind": kind, "parameters": [judged], "responses": {} });
        (
            format!("/apis/{}/namespaces/{{namespace}}/{}/{{name}}", r.api_version(), r.plural),
            json!({ "patch": patch }),
        )
    };
    let paths: serde_json::Map<_, _> = own.iter().map(path).collect();
    let info = json!({ "title": "Kubernetes", "version": "v1.36.0" });
    (!own.is_empty()).then(|| json!({ "openapi": "3.0.0", "info": info, "paths": paths }))
}

fn group(name: &str, resources: &[Resource]) -> Value {
    let mut versions: Vec<&str> = vec![];
    for resource in resources.iter().filter(|r| r.group == name) {
        if !versions.contains(&resource.version.as_str()) {
            versions.push(&resource.version);
        }
    }
    let told = |version: &&str| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let all: Vec<Value> = versions.iter().map(told).collect();
    json!({ "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": all, "preferredVersion": all[0] })
}

fn list(group: &str, version: &str, resources: &[Resource]) -> Option<Value> {
    let own: Vec<&Resource> = resources.iter().filter(|r| r.group == group && r.version == version).collect();
    let version = own.first()?.api_version();
    let all: Vec<Value> = own.iter().flat_map(|r| r.described()).collect();
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": all }))
}
