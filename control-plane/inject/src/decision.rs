//! Whether a pod becomes a member of the mesh.

mod reason;

use std::fmt;

use serde_json::Value;

pub use reason::SkipReason;

use crate::build::{Plan, keep_places};
use crate::difference::difference;
use crate::json::{all_containers, list, member, text, texts};
use crate::names::OTHER_MESHES;
use crate::options::Options;
use crate::strip::{Taken, foreign, strip};
use crate::{
    INIT_CONTAINER, INJECT_LABEL, NamespaceFacts, Operation, PROXY_CONTAINER, Problem, SYSTEM_NAMESPACES,
    Settings, Status, shape,
};

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It becomes a member of the mesh.
    Inject(Injection),
    /// It stays as it is.
    Skip(Skip),
    /// What is written on it or its namespace can not be obeyed. All mistakes.
    Refuse(Vec<Problem>),
}

/// What makes the pod a member.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    patch: Vec<Operation>,
    warnings: Vec<Warning>,
}

impl Injection {
    /// The steps, for a pod-shaped object; none when it is so already.
    pub fn patch(&self) -> &[Operation] {
        &self.patch
    }

    /// What its author should know.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// What the author of a pod should know, though it is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What kind, for machines.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Which kind of reason.
    pub reason: SkipReason,
    /// In words, with what was found.
    pub message: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// How much of a pod's traffic goes by its sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What leaves and what arrives.
    Whole,
    /// What leaves: the pod takes connections from outside of the mesh itself.
    Ingress,
}

/// Decides over `pod`, a raw object with metadata and spec: a pod, or the template of one.
pub fn decide(pod: &Value, namespace: &NamespaceFacts, settings: &Settings) -> Decision {
    let mode = match asked_mode(pod, namespace) {
        Ok(mode) => mode,
        Err(skip) => return Decision::Skip(skip),
    };
    let problems = shape::check(pod);
    if !problems.is_empty() {
        return Decision::Refuse(problems);
    }
    let status = Status::of(pod);
    if let Some(skip) = skipped(pod, namespace, settings, status.as_ref()) {
        return Decision::Skip(skip);
    }
    let (bare, taken) = match &status {
        Some(status) => strip(pod, status),
        None => (pod.clone(), Taken::default()),
    };
    let mut warnings = Vec::new();
    let metadata = bare.get("metadata").unwrap_or(&Value::Null);
    let options = match Options::read(metadata, namespace, settings, &mut warnings) {
        Ok(options) => options,
        Err(problems) => return Decision::Refuse(problems),
    };
    let plan = Plan { mode, options: &options, namespace, settings };
    match plan.build(&bare, &taken, &mut warnings) {
        Ok(mut member) => {
            keep_places(&mut member, pod);
            Decision::Inject(Injection { patch: difference(pod, &member), warnings })
        }
        Err(problems) => Decision::Refuse(problems),
    }
}

/// Whether the labels of a pod and its namespace ask for it; the error says why not. No more of the pod is looked at.
pub fn asked(pod: &Value, namespace: &NamespaceFacts) -> Result<(), Skip> {
    asked_mode(pod, namespace).map(drop)
}

fn asked_mode(pod: &Value, namespace: &NamespaceFacts) -> Result<Mode, Skip> {
    let own = pod.get("metadata").and_then(|m| m.get("labels")).and_then(|labels| text(labels, INJECT_LABEL));
    let own = own.filter(|value| !value.is_empty());
    let inherited = namespace.labels.get(INJECT_LABEL).map(String::as_str).filter(|value| !value.is_empty());
    let skip = |reason, message: String| Err(Skip { reason, message });
    let name = &namespace.name;
    match (own, inherited) {
        (Some("enabled"), _) | (None, Some("enabled")) => Ok(Mode::Whole),
        (Some("ingress"), _) | (None, Some("ingress")) => Ok(Mode::Ingress),
        (Some("disabled"), _) => {
            skip(SkipReason::DisabledByPod, format!("its label {INJECT_LABEL} is \"disabled\""))
        }
        (None, Some("disabled")) => {
            let message = format!("{INJECT_LABEL} of namespace {name} is \"disabled\"");
            skip(SkipReason::DisabledByNamespace, message)
        }
        (Some(value), _) => {
            skip(SkipReason::InvalidValue, format!("its label {INJECT_LABEL} is {value:?}, not {VALUES}"))
        }
        (None, Some(value)) => {
            let message = format!("{INJECT_LABEL} of namespace {name} is {value:?}, not {VALUES}");
            skip(SkipReason::InvalidValue, message)
        }
        (None, None) => {
            let message = format!("neither the pod nor namespace {name} has the label {INJECT_LABEL}");
            skip(SkipReason::NotAsked, message)
        }
    }
}

const VALUES: &str = "\"enabled\", \"disabled\" or \"ingress\"";

/// Why a pod that asks for it can not become a member.
fn skipped(
    pod: &Value,
    namespace: &NamespaceFacts,
    settings: &Settings,
    status: Option<&Status>,
) -> Option<Skip> {
    let metadata = pod.get("metadata").unwrap_or(&Value::Null);
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let skip = |reason, message: String| Some(Skip { reason, message });
    let name = namespace.name.as_str();
    if SYSTEM_NAMESPACES.contains(&name) || settings.ignored_namespaces.iter().any(|ignored| ignored == name)
    {
        return skip(SkipReason::SystemNamespace, format!("nothing is injected in namespace {name}"));
    }
    if name == settings.control_namespace {
        return skip(SkipReason::SystemNamespace, format!("{name} is the namespace of the control plane"));
    }
    if texts(metadata, "annotations").any(|(name, _)| name == MIRROR) {
        let message = "the kubelet runs it from a file: it has no service account";
        return skip(SkipReason::StaticPod, message.into());
    }
    let selected = member(spec, "nodeSelector").and_then(|selector| text(selector, "kubernetes.io/os"));
    if member(spec, "os").and_then(|os| text(os, "name")).or(selected) == Some("windows") {
        return skip(SkipReason::Windows, "it runs on Windows, for which there is no sidecar".into());
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        let message = "it shares its node's network: a redirection would be the whole node's";
        return skip(SkipReason::HostNetwork, message.into());
    }
    let mut names = all_containers(spec).filter_map(|container| text(container, "name"));
    let other = names.find_map(|name| OTHER_MESHES.into_iter().find(|(other, _)| *other == name));
    if let Some((container, mesh)) = other {
        let message = format!("its container {container} is the sidecar of {mesh}");
        return skip(SkipReason::OtherMesh, message);
    }
    if let Some(container) = foreign(spec, status, [INIT_CONTAINER, PROXY_CONTAINER]) {
        let message =
            format!("it has a container {container} that no injection added, as far as its annotations tell");
        return skip(SkipReason::OwnContainers, message);
    }
    let ours = |container: &Value| {
        status.zip(text(container, "name")).is_some_and(|(status, name)| status.adds(name))
    };
    if list(spec, "containers").iter().all(ours) {
        return skip(SkipReason::OwnContainers, "it has no containers but ours".into());
    }
    None
}

/// On the API server's picture of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
