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
        _ => None,
    }
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
