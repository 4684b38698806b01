//! Pods, namespaces and the API server's part between two calls.

use std::fs;
use std::path::{Path, PathBuf};

use outrigger_inject::{Decision, NamespaceFacts, ServiceFacts, Settings, Skip, decide};
use serde_json::{Value, json};

use crate::check::{apply, containers, faults};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admission/fixtures")
}

/// The pod of a recorded review.
pub(crate) fn recorded(file: &str) -> Value {
    let text = fs::read_to_string(fixtures().join(file)).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["request"]["object"].clone()
}

/// The namespace of the recorded pods, which asks for injection and has a Service for others.
pub(crate) fn asking() -> NamespaceFacts {
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [
        {"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9090}, {"port": 53, "protocol": "UDP"}]}});
    let deployed = json!({"metadata": {"name": "deploy"}, "spec": {"selector": {"fx": "deployment"}, "ports": [
        {"port": 80, "targetPort": "http"}]}});
    NamespaceFacts {
        name: "fx".into(),
        labels: [("outrigger.dev/inject".to_owned(), "enabled".to_owned())].into(),
        services: [service, deployed].iter().filter_map(ServiceFacts::from_object).collect(),
        ..NamespaceFacts::default()
    }
}

/// A pod of the Service `web`, to which `change` adds something.
pub(crate) fn pod(change: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "labels": {"app": "web"}},
        "spec": {"serviceAccountName": "web", "containers": [
            {"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}]}
        ]},
    });
    merge(&mut pod, change);
    pod
}

/// A merge patch (RFC 7386), but for lists: their elements are merged by number.
pub(crate) fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(change)) => {
            for (at, value) in change.iter().enumerate() {
                match into.get_mut(at) {
                    Some(element) => merge(element, value),
                    None => into.push(value.clone()),
                }
            }
        }
        (into, change) => *into = change.clone(),
    }
}

pub(crate) fn annotated(annotations: &Value) -> Value {
    pod(&json!({"metadata": {"annotations": annotations}}))
}

/// The patch for `pod`, and the codes of its warnings. It must be injected.
pub(crate) fn patch_of(
    pod: &Value,
    namespace: &NamespaceFacts,
    settings: &Settings,
) -> (Value, Vec<&'static str>) {
    match decide(pod, namespace, settings) {
        Decision::Inject(injection) => {
            let warnings = injection.warnings().iter().map(|warning| warning.code).collect();
            (serde_json::to_value(injection.patch()).unwrap(), warnings)
        }
        other => panic!("{other:?}"),
    }
}

/// `pod` as a member, without a fault.
pub(crate) fn member_with(
    pod: &Value,
    namespace: &NamespaceFacts,
    settings: &Settings,
    native: bool,
) -> Value {
    let (patch, _) = patch_of(pod, namespace, settings);
    let member = apply(pod, &patch).unwrap();
    assert_eq!(faults(&member, native), Vec::<String>::new());
    member
}

pub(crate) fn member(pod: &Value) -> Value {
    member_with(pod, &asking(), &Settings::default(), true)
}

pub(crate) fn skip_of(pod: &Value, namespace: &NamespaceFacts) -> Skip {
    match decide(pod, namespace, &Settings::default()) {
        Decision::Skip(skip) => skip,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    containers(pod).find(|container| container["name"] == name).unwrap()
}

/// What the API server made of the trial webhook's containers between its two calls: a mount for its own token, and
/// defaults. Learned from the second recorded call.
pub(crate) struct Between {
    mount: Option<Value>,
    defaults: Vec<(String, Value)>,
}

impl Between {
    pub(crate) fn of(second: &Value) -> Self {
        let trial = containers(second).find(|c| c["name"] == "mesh-init").unwrap();
        let mut mounts = trial["volumeMounts"].as_array().into_iter().flatten();
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        let mount = mounts.find(|mount| mount["mountPath"] == token).cloned();
        let filled_in = ["terminationMessagePath", "terminationMessagePolicy"];
        let defaults = filled_in.map(|name| (name.to_owned(), trial[name].clone())).into();
        Self { mount, defaults }
    }

    /// The member as the second call would bring it.
    pub(crate) fn apply(&self, member: &Value) -> Value {
        let mut pod = member.clone();
        for part in ["initContainers", "containers"] {
            let Some(Value::Array(all)) = pod["spec"].get_mut(part) else { continue };
            for ours in all.iter_mut().filter(|c| c["name"].as_str().unwrap().starts_with("outrigger-")) {
                for (name, value) in &self.defaults {
                    ours[name] = value.clone();
                }
                if let Some(mount) = &self.mount {
                    ours["volumeMounts"].as_array_mut().unwrap().push(mount.clone());
                }
            }
        }
        for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
            for kind in ["projected", "configMap", "downwardAPI"] {
                let Some(source) = volume.get_mut(kind) else { continue };
                source["defaultMode"] = json!(420);
                let items = source.get_mut("items").and_then(Value::as_array_mut);
                for field in items.into_iter().flatten().filter_map(|item| item.get_mut("fieldRef")) {
                    field["apiVersion"] = json!("v1");
                }
            }
        }
        pod
    }
}
