//! The tree, its objects as values, and the foreign tools that judge them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(crate) use outrigger_testkit::built::programs;
use outrigger_testkit::kubectl::{self, Tools};
use outrigger_testkit::real::{self, Ran};
use serde_json::Value;

/// No tool takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file of the tree.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The documents of a stream of YAML, empty ones left out.
pub(crate) fn documents(stream: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(stream).unwrap_or_else(|e| panic!("{e}\n{stream}"));
    all.into_iter().filter(|d| !d.is_null()).collect()
}

/// `Kind/namespace/name` of an object, by which two sets of objects are compared.
pub(crate) fn identity(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let metadata = &object["metadata"];
    format!("{}/{}/{}", word(&object["kind"]), word(&metadata["namespace"]), word(&metadata["name"]))
}

/// The one object of a kind and name.
pub(crate) fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<&Value> =
        objects.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name).collect();
    assert_eq!(found.len(), 1, "{kind} {name} among {:?}", objects.iter().map(identity).collect::<Vec<_>>());
    found[0]
}

/// The chart, before Helm.
pub(crate) struct Chart {
    tools: Tools,
}

/// The sets of values that the chart ships, each for a kind of cluster.
pub(crate) const VALUE_SETS: [&str; 5] = ["default", "ha", "openshift", "cert-manager", "minimal"];

impl Chart {
    /// `None` where Helm can not be had.
    pub(crate) fn new() -> Option<Self> {
        Some(Self { tools: kubectl::tools()? })
    }

    /// Where the other program is.
    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Runs `helm VERB` over the chart.
    pub(crate) fn helm(&self, verb: &[&str], rest: &[&str]) -> Ran {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(&self.tools.helm);
        // Nothing of whoever runs the test.
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME"] {
            command.env(variable, home.path());
        }
        command.args(verb).arg(root().join("deploy/chart/outrigger")).args(rest).env_remove("KUBECONFIG");
        real::run(&mut command, PATIENCE)
    }

    /// What is installed with one of [`VALUE_SETS`] and more flags.
    pub(crate) fn rendered(&self, set: &str, more: &[&str]) -> String {
        let values = root().join(format!("deploy/chart/outrigger/ci/{set}-values.yaml"));
        let values = values.to_str().unwrap();
        let rest = [&["--namespace", "outrigger-system", "--values", values], more].concat();
        let ran = self.helm(&["template", "outrigger"], &rest);
        assert!(ran.ok, "{set}: {}", ran.stderr);
        ran.stdout
    }

    /// The same as values.
    pub(crate) fn objects(&self, set: &str) -> Vec<Value> {
        documents(&self.rendered(set, &[]))
    }
}

/// Kinds of others that the validator has no schema for.
const FOREIGN: [&str; 2] = ["Certificate", "ServiceMonitor"];

/// Holds a stream of objects to the schemas of Kubernetes, where a field that nobody knows is a mistake too. `None` where the
/// validator can not be had.
pub(crate) fn validate(what: &str, stream: &str) -> Option<()> {
    let (ok, told) = judged(stream)?;
    let passed = told.lines().filter(|l| l.starts_with("INFO") && l.contains(" passed ")).count();
    let unknown: Vec<&str> = told.lines().filter(|l| l.starts_with("WARN")).collect();
    let wrong: Vec<&str> = told.lines().filter(|l| l.starts_with("ERROR")).collect();
    assert!(ok && wrong.is_empty(), "{what}: {told}");
    for line in &unknown {
        assert!(FOREIGN.iter().any(|kind| line.contains(&format!("kind {kind} "))), "{what}: {line}");
    }
    assert_eq!(passed + unknown.len(), documents(stream).len(), "{what}: one was not looked at: {told}");
    Some(())
}

/// Whether the validator takes a stream of objects, and what it says. `None` where it can not be had.
pub(crate) fn judged(stream: &str) -> Option<(bool, String)> {
    let python = real::venv(&["kubernetes-validate==1.37.0"])?;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    fs::write(&file, stream).unwrap();
    let ran = real::run(
        Command::new(python.with_file_name("kubernetes-validate")).arg("--strict").arg(&file),
        PATIENCE,
    );
    Some((ran.ok, format!("{}{}", ran.stdout, ran.stderr)))
}

/// Every pod that the objects make, with who makes it.
pub(crate) fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let made = objects.iter().filter(|o| o["spec"]["template"]["spec"]["containers"].is_array());
    made.map(|o| (identity(o), &o["spec"]["template"])).collect()
}

/// The elements of a list, none where there is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The arguments of a container.
pub(crate) fn arguments(container: &Value) -> Vec<&str> {
    list(&container["args"]).iter().filter_map(Value::as_str).collect()
}
