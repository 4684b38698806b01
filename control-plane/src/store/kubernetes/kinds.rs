//! Where the kinds of objects are at the API server, and how an object there is read.

use outrigger_kube::api::Collection;
use serde_json::{Map, Value as Json, json};

use crate::spec::{self, Kind, Object, Severity};

const OURS: &str = "outrigger.dev";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// Where objects of a kind are.
pub(crate) fn collection(kind: Kind) -> Collection {
    let (group, version, plural) = match kind {
        Kind::MeshDefaults => (OURS, "v1alpha1", "meshdefaults"),
        Kind::MeshService => (OURS, "v1alpha1", "meshservices"),
        Kind::EgressService => (OURS, "v1alpha1", "egressservices"),
        Kind::Gateway => (GATEWAY, "v1", "gateways"),
        Kind::ReferenceGrant => (GATEWAY, "v1", "referencegrants"),
        Kind::RouteFilter => (OURS, "v1alpha1", "routefilters"),
        Kind::HttpRoute => (GATEWAY, "v1", "httproutes"),
        Kind::GrpcRoute => (GATEWAY, "v1", "grpcroutes"),
        Kind::TcpRoute => (GATEWAY, "v1alpha2", "tcproutes"),
        Kind::TrafficPolicy => (OURS, "v1alpha1", "trafficpolicies"),
        Kind::BreakerOverride => (OURS, "v1alpha1", "breakeroverrides"),
        Kind::AccessPolicy => (OURS, "v1alpha1", "accesspolicies"),
        Kind::TokenPolicy => (OURS, "v1alpha1", "tokenpolicies"),
        Kind::Denylist => (OURS, "v1alpha1", "denylists"),
        Kind::Rollout => (OURS, "v1alpha1", "rollouts"),
        Kind::Instance => (OURS, "v1alpha1", "instances"),
    };
    Collection { group, version, plural, kind: kind.as_str() }
}

/// The kind of objects of a collection, if it is one of ours.
pub(super) fn kind_of(of: &Collection) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| collection(*kind) == *of)
}

/// Whether an object is another controller's, of which nothing is to be said or read here: a Gateway of another class.
pub(super) fn is_of_others(kind: Kind, raw: &Json) -> bool {
    let class = raw["spec"]["gatewayClassName"].as_str();
    kind == Kind::Gateway && class.is_some_and(|class| class != spec::GATEWAY_CLASS)
}

/// What an object at the API server says, as the store keeps it; or all that is wrong with it. What only the server looks at
/// (who manages which field, what holds a deletion, who owns it) is left aside.
pub(super) fn read(raw: &Json) -> Result<(Object, Json), Vec<String>> {
    let mut plain = Map::new();
    for field in ["apiVersion", "kind", "spec"] {
        if let Some(value) = raw.get(field) {
            plain.insert(field.into(), value.clone());
        }
    }
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels", "annotations"] {
        if let Some(value) = raw["metadata"].get(field).filter(|value| !value.is_null()) {
            metadata.insert(field.into(), value.clone());
        }
    }
    if let Some(Json::Object(notes)) = metadata.get_mut("annotations") {
        // What kubectl remembers of its own is as long as the object.
        notes.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    plain.insert("metadata".into(), metadata.into());
    let document = spec::read_one(&Json::Object(plain).to_string()).map_err(|problems| {
        let errors = problems.into_iter().filter(|p| p.severity == Severity::Error);
        // Where in the JSON it stands helps nobody who wrote YAML.
        errors.map(|p| spec::Problem { line: None, column: None, ..p }.to_string()).collect::<Vec<_>>()
    })?;
    let mut value = document.object.to_json();
    // By whom an Instance was registered. Any other status is what we say ourselves, and no part of the record: else each
    // status that is written would be a change of the configuration.
    let status = raw.get("status").filter(|_| document.object.kind() == Kind::Instance);
    let by = status.and_then(|status| status.get("registeredBy"));
    if let (Some(by), Some(fields)) = (by, value.as_object_mut()) {
        fields.insert("status".into(), json!({ "registeredBy": by }));
    }
    Ok((document.object, value))
}

/// What an object says that can not be read as one, without what only the server looks at.
pub(super) fn plain(raw: &Json) -> Json {
    let metadata = json!({ "name": raw["metadata"]["name"], "namespace": raw["metadata"]["namespace"] });
    json!({ "apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata, "spec": raw["spec"] })
}

/// The object to write where `before` is now: what is said is said anew, what only the server looks at stays.
pub(super) fn written(value: &Json, before: Option<&Json>) -> Json {
    let mut object = before.cloned().unwrap_or_else(|| Json::Object(Map::new()));
    for field in ["apiVersion", "kind", "spec"] {
        object[field] = value[field].clone();
    }
    for field in ["name", "namespace", "labels", "annotations"] {
        match value["metadata"].get(field) {
            Some(said) => object["metadata"][field] = said.clone(),
            None => drop(object["metadata"].as_object_mut().map(|m| m.shift_remove(field))),
        }
    }
    object
}
