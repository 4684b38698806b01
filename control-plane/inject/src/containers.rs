//! The two containers. The sidecar fits the profile `restricted` of Pod Security; the redirection needs to change packet
//! filters, which no profile but `privileged` allows.

use serde_json::{Value, json};

use crate::env::Told;
use crate::resources::Resources;
use crate::volumes::Volumes;
use crate::{INIT_CONTAINER, PROXY_CONTAINER};

/// Seconds for which a start of the sidecar is waited for: an identity and the first configuration.
const START: u32 = 120;

/// The container that puts the redirection in place, and ends.
pub(crate) fn init(told: &Told<'_>, volumes: &Volumes, resources: &Resources) -> Value {
    json!({
        "name": INIT_CONTAINER,
        "image": told.options.init_image,
        "imagePullPolicy": told.options.pull_policy,
        "command": ["/outrigger-init", "apply"],
        "env": told.init(),
        "resources": resources.to_json(),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": volumes.init_mounts(),
    })
}

/// The container of the sidecar: native, it begins before the others and ends after them; else it is one of them.
pub(crate) fn proxy(told: &Told<'_>, volumes: &Volumes, resources: &Resources) -> Value {
    let uid = told.options.uid;
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": told.options.image,
        "imagePullPolicy": told.options.pull_policy,
        "command": ["/outrigger-proxy"],
        "env": told.proxy(),
        "ports": [{"name": "outrigger-hlth", "containerPort": told.ports.health, "protocol": "TCP"}],
        "resources": resources.to_json(),
        "readinessProbe": probe(told, "/readyz", 5, 3),
        "livenessProbe": probe(told, "/healthz", 10, 6),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": uid,
            "runAsNonRoot": true,
            "runAsUser": uid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": volumes.mounts(),
    });
    let Some(members) = container.as_object_mut() else { return container };
    if told.options.native {
        members.insert("restartPolicy".into(), json!("Always"));
    }
    match (told.options.native, told.options.hold_application) {
        // The next container begins when this has gone well.
        (true, true) => drop(members.insert("startupProbe".into(), probe(told, "/startupz", 1, START))),
        (true, false) => {}
        (false, hold) => drop(members.insert("lifecycle".into(), lifecycle(told, hold))),
    }
    container
}

/// Each field is written that the API server would fill in, so that a second call sees no change.
fn probe(told: &Told<'_>, path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": told.ports.health, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
        "successThreshold": 1,
    })
}

/// The hooks of a sidecar that begins and ends together with the others.
fn lifecycle(told: &Told<'_>, hold: bool) -> Value {
    // It is told to end when the application has gone; what is left of the pod's time then is enough for it.
    let limit = told.grace.saturating_sub(AT_THE_END).max(1);
    let leave = json!(["/outrigger-proxy", "leave", "--timeout", format!("{limit}s")]);
    let mut hooks = json!({"preStop": {"exec": {"command": leave}}});
    if hold {
        // The kubelet begins the containers one after the other, each when the hook of the one before has ended.
        let (address, limit) = (format!("127.0.0.1:{}", told.ports.health), format!("{START}s"));
        let wait = json!(["/outrigger-proxy", "wait", "--health", address, "--timeout", limit]);
        hooks["postStart"] = json!({"exec": {"command": wait}});
    }
    hooks
}

/// Seconds of the pod's time to end that are the sidecar's own.
const AT_THE_END: u64 = 2;

/// Takes away what a sidecar of the other order has and this one must not.
pub(crate) fn without_others(container: &mut Value, native: bool, hold_application: bool) {
    let Some(members) = container.as_object_mut() else { return };
    if native {
        members.shift_remove("lifecycle");
    } else {
        members.shift_remove("restartPolicy");
    }
    if !native || !hold_application {
        members.shift_remove("startupProbe");
    }
    if !hold_application && let Some(Value::Object(hooks)) = members.get_mut("lifecycle") {
        hooks.shift_remove("postStart");
    }
}
