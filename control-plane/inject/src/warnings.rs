//! What in a pod does not go well with a sidecar, though it is injected.

use serde_json::Value;

use crate::decision::Warning;
use crate::json::{all_containers, list, member, text};
use crate::options::Options;
use crate::{INIT_CONTAINER, NamespaceFacts, Settings};

pub(crate) fn look(
    pod: &Value,
    namespace: &NamespaceFacts,
    options: &Options,
    settings: &Settings,
    warnings: &mut Vec<Warning>,
) {
    let Some(spec) = pod.get("spec") else { return };
    let mut warn = |code, message: String| warnings.push(Warning { code, message });
    for container in all_containers(spec) {
        let name = text(container, "name").unwrap_or_default();
        if list(container, "ports").iter().any(|port| text(port, "protocol") == Some("UDP")) {
            warn("udp_port", format!("{name} has a UDP port: UDP does not go through the mesh"));
        }
        if runs_as(container, spec) == Some(u64::from(options.uid)) {
            let message = format!(
                "{name} runs as user {}, as the sidecar does: its calls go around the mesh. outrigger.dev/proxy-uid \
                 gives the sidecar another",
                options.uid
            );
            warn("user_of_the_sidecar", message);
        }
    }
    if let Some(policy) = text(spec, "dnsPolicy").filter(|policy| !policy.starts_with("ClusterFirst")) {
        warn("dns_policy", format!("dnsPolicy is {policy}: the sidecar may not find {}", settings.control));
    }
    if spec.get("shareProcessNamespace").and_then(Value::as_bool) == Some(true) {
        let message = "the containers share their processes: only users keep them from each other's memory";
        warn("shared_processes", message.into());
    }
    let enforced = namespace.labels.get(POD_SECURITY).map(String::as_str);
    if let Some(profile @ ("baseline" | "restricted")) = enforced {
        let message = format!(
            "the namespace enforces the Pod Security profile {profile}, which refuses {INIT_CONTAINER}: its NET_ADMIN \
             puts the redirection in place"
        );
        warn("pod_security", message);
    }
    if !options.native && is_job(pod, spec) {
        let message = "the sidecar is no native one and runs on when the job is done: the pod completes when the job ends it, by \
                       POST http://127.0.0.1:15000/quitquitquit as the last thing that it does";
        warn("job_ends_its_sidecar", message.into());
    }
}

const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

fn runs_as(container: &Value, spec: &Value) -> Option<u64> {
    let of = |holder: &Value| member(holder, "securityContext")?.get("runAsUser")?.as_u64();
    of(container).or_else(|| of(spec))
}

/// Whether a pod is to end by itself.
pub(crate) fn is_job(pod: &Value, spec: &Value) -> bool {
    let owners = pod.get("metadata").map_or(&[][..], |metadata| list(metadata, "ownerReferences"));
    let ends = text(spec, "restartPolicy").is_some_and(|policy| policy != "Always");
    ends || owners.iter().any(|owner| text(owner, "kind") == Some("Job"))
}
