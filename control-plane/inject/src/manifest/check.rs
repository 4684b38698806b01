//! Pods of a cluster that are not as they should be: what the webhook could not do in silence.

use serde::Serialize;

use super::inject::{Namespaces, Options};
use super::workload::Stream;
use super::{Failed, Refusal};
use crate::text;
use crate::{Decision, Settings, Status, asked, decide};

/// What is wrong with a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What kind: `unmeshed`, `refused`, `version_skew`.
    pub code: &'static str,
    /// The namespace of the pod.
    pub namespace: String,
    /// Its kind and name.
    pub object: String,
    /// In words.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What was looked at, and what is wrong with it.
#[derive(Debug)]
pub struct Checked {
    /// How many pods were looked at.
    pub pods: usize,
    /// How many of them are members.
    pub members: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Looks at the pods in `text`, as `kubectl get namespaces,services,pods -A -o yaml` tells them. Unlike for `inject`, a namespace
/// that says nothing asks for nothing. `version`: that of the mesh.
pub fn check(text: &str, settings: &Settings, version: &str) -> Result<Checked, Failed> {
    let documents = text::documents(text)?;
    let stream = Stream::of(&documents);
    let options = Options::default();
    let namespaces = Namespaces::of(&stream, &options);
    let mut checked = Checked { pods: 0, members: 0, findings: vec![] };
    for workload in stream.workloads.iter().filter(|workload| workload.kind == "Pod") {
        checked.pods += 1;
        let pod = workload.node.value();
        let namespace = workload.namespace.clone().unwrap_or_else(|| options.namespace.clone());
        let facts = namespaces.known(&namespace);
        let mut find = |code, message: String, hint: &str| {
            let (namespace, object, hint) = (namespace.clone(), workload.title(), hint.to_owned());
            checked.findings.push(Finding { code, namespace, object, message, hint });
        };
        if let Some(status) = Status::of(&pod) {
            checked.members += 1;
            if status.version != version {
                let message = format!("its sidecar is of version {}, the mesh of {version}", status.version);
                find("version_skew", message, "restart it: kubectl rollout restart");
            }
        } else if asked(&pod, &facts).is_ok() {
            match decide(&pod, &facts, settings) {
                Decision::Inject(_) => {
                    let message = "it should be a member of the mesh and has no sidecar".to_owned();
                    find(
                        "unmeshed",
                        message,
                        "it was made while the webhook was away or before its namespace was labelled: restart it",
                    );
                }
                Decision::Refuse(problems) => {
                    let told: Vec<_> = problems.iter().map(|p| Refusal::of(p, "").message).collect();
                    find("refused", told.join("; "), "put right what is written on it or its namespace");
                }
                Decision::Skip(_) => {}
            }
        }
    }
    Ok(checked)
}
