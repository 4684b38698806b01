//! Kustomize beside the chart: the base is made of it, the overlays are what it makes with other values.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use outrigger_testkit::real;
use serde_json::Value;

use crate::stage::{Chart, PATIENCE, documents, identity, list, one, root, text, validate};

/// `OUTRIGGER_WRITE=1` writes the base anew.
#[test]
fn the_base_is_what_the_chart_makes_with_nothing_said() {
    let Some(chart) = Chart::new() else { return };
    let rendered = chart.rendered("default", &["--set", "crds.install=false", "--kube-version", BASE]);
    let made = format!(
        "# Made of deploy/chart/outrigger by control-plane/cli/tests/deploy; do not change it here.\n{}",
        of_kustomize(&rendered)
    );
    let path = "deploy/kustomize/base/outrigger.yaml";
    if std::env::var_os("OUTRIGGER_WRITE").is_some() {
        fs::write(root().join(path), &made).unwrap();
    }
    assert!(text(path) == made, "{path} is not what the chart makes: OUTRIGGER_WRITE=1 makes it anew");
}

#[test]
fn every_overlay_builds_of_objects_that_kubernetes_takes() {
    let Some(chart) = Chart::new() else { return };
    for folder in ["crds", "kustomize/base", "kustomize/overlays/dev", "kustomize/overlays/ha"] {
        let built = built(&chart, folder);
        if !built.is_empty() {
            let Some(()) = validate(folder, &built) else { return };
        }
    }
}

#[test]
fn the_overlay_for_production_is_what_the_chart_makes_for_production() {
    let Some(chart) = Chart::new() else { return };
    let rendered = of_kustomize(&chart.rendered("ha", &["--kube-version", BASE]));
    let theirs = documents(&rendered);
    let ours = documents(&built(&chart, "kustomize/overlays/ha"));
    let edge = |o: &Value| o["metadata"]["name"] == "edge" || o["kind"] == "ServiceMonitor";
    let namespace = |o: &Value| o["kind"] == "Namespace";
    let by_name = |all: &[Value], left_out: &dyn Fn(&Value) -> bool| -> BTreeMap<String, Value> {
        all.iter().filter(|o| !left_out(o)).map(|o| (identity(o), without_keep(o.clone()))).collect()
    };
    let (theirs, ours) = (by_name(&theirs, &edge), by_name(&ours, &namespace));
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    for (name, object) in &theirs {
        assert_eq!(object, &ours[name], "{name}");
    }
}

#[test]
fn the_overlay_for_a_laptop_is_small_and_injects_all_the_same() {
    let Some(chart) = Chart::new() else { return };
    let objects = documents(&built(&chart, "kustomize/overlays/dev"));
    let container =
        &one(&objects, "Deployment", "outrigger-control")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "128Mi");
    assert!(list(&container["args"]).contains(&"--log=debug".into()));
    one(&objects, "MutatingWebhookConfiguration", "outrigger-injector");
    assert!(!objects.iter().any(|o| o["kind"] == "NetworkPolicy"));
}

#[test]
fn the_list_of_definitions_has_every_one() {
    let listed = &documents(&text("deploy/crds/kustomization.yaml"))[0]["resources"];
    let mut listed: Vec<&str> = list(listed).iter().map(|r| r.as_str().unwrap()).collect();
    listed.sort_unstable();
    let entries = fs::read_dir(root().join("deploy/crds")).unwrap().map(|e| e.unwrap().file_name());
    let yaml = |name: &String| Path::new(name).extension().is_some_and(|e| e == "yaml");
    let mut there: Vec<String> = entries.map(|n| n.into_string().unwrap()).filter(yaml).collect();
    there.retain(|name| name != "kustomization.yaml");
    there.sort_unstable();
    assert_eq!(listed, there);
}

/// The version for which the base is made: what newer ones know beside it is left out.
const BASE: &str = "1.29.0";

/// As it would be without Helm.
fn of_kustomize(rendered: &str) -> String {
    rendered.replace("managed-by: Helm", "managed-by: kustomize")
}

/// The chart tells Helm alone to leave definitions where they are.
fn without_keep(mut object: Value) -> Value {
    if object["kind"] == "CustomResourceDefinition"
        && let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove("helm.sh/resource-policy");
        if annotations.is_empty() {
            object["metadata"].as_object_mut().unwrap().remove("annotations");
        }
    }
    object
}

fn built(chart: &Chart, folder: &str) -> String {
    let folder = root().join("deploy").join(folder);
    let mut command = Command::new(&chart.tools().kubectl);
    let ran = real::run(command.arg("kustomize").arg(&folder).env_remove("KUBECONFIG"), PATIENCE);
    assert!(ran.ok, "{}: {}", folder.display(), ran.stderr);
    ran.stdout
}
