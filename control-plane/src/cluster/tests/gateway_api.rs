//! The statuses of Gateways and routes as the definitions of the Gateway API (v1) have them: which fields there are, which must be
//! there, how long they may be. An API server that has these refuses what does not fit, and drops what it does not know.

use serde_json::{Value as Json, json};

/// The definitions, with nothing said of the spec.
pub(super) fn definitions() -> [Json; 2] {
    let gateway = json!({ "type": "object", "properties": {
        "addresses": { "type": "array", "maxItems": 16, "items": any() },
        "conditions": conditions(),
        "listeners": {
            "type": "array", "maxItems": 64,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object", "required": ["attachedRoutes", "conditions", "name"],
                "properties": {
                    "name": { "type": "string", "minLength": 1, "maxLength": 253, "pattern": DNS_NAME },
                    "attachedRoutes": { "type": "integer", "format": "int32", "minimum": 0 },
                    "conditions": conditions(),
                    "supportedKinds": { "type": "array", "maxItems": 8, "items": {
                        "type": "object", "required": ["kind"],
                        "properties": { "group": group(), "kind": kind() },
                    } },
                },
            },
        },
    } });
    let parent = json!({ "type": "object", "required": ["name"], "properties": {
        "group": group(), "kind": kind(),
        "name": { "type": "string", "minLength": 1, "maxLength": 253 },
        "namespace": { "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" },
        "sectionName": { "type": "string", "minLength": 1, "maxLength": 253, "pattern": DNS_NAME },
        "port": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 65_535 },
    } });
    let route = json!({ "type": "object", "required": ["parents"], "properties": {
        "parents": { "type": "array", "maxItems": 32, "items": {
            "type": "object", "required": ["conditions", "controllerName", "parentRef"],
            "properties": {
                "conditions": conditions(),
                "controllerName": { "type": "string", "minLength": 1, "maxLength": 253,
                    "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$" },
                "parentRef": parent,
            },
        } },
    } });
    [definition("gateways", "Gateway", &gateway), definition("httproutes", "HTTPRoute", &route)]
}

const DNS_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

fn any() -> Json {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn group() -> Json {
    let pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    json!({ "type": "string", "maxLength": 253, "pattern": pattern })
}

fn kind() -> Json {
    json!({ "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$" })
}

/// As `metav1.Condition` has them.
fn conditions() -> Json {
    json!({
        "type": "array", "maxItems": 8,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object", "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": { "type": "string", "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024,
                            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$" },
                "message": { "type": "string", "maxLength": 32_768 },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
            },
        },
    })
}

fn definition(plural: &str, kind: &str, status: &Json) -> Json {
    let schema = json!({ "type": "object", "properties": {
        "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": { "type": "object" },
        "spec": any(), "status": status,
    } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.gateway.networking.k8s.io") },
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                           "schema": { "openAPIV3Schema": schema } }],
        },
    })
}
