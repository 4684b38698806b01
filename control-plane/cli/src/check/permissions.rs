//! Whether the control plane may do in a cluster what it has to: its roles, as `kubectl` tells them, beside the table of the chart.

use outrigger_inject::manifest::Finding;
use serde_json::Value;

/// What the chart makes its roles of.
const TABLE: &str = include_str!("../../../../deploy/chart/outrigger/permissions.tsv");
/// The service account of the control plane.
const ACCOUNT: &str = "outrigger-control";
const KINDS: [&str; 4] = ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"];

/// Finds what the control plane lacks; what was looked at. `None` where nothing is told of roles.
pub(super) fn missing(objects: &[Value], findings: &mut Vec<Finding>) -> Option<String> {
    let all: Vec<&Value> = objects.iter().filter(|o| KINDS.iter().any(|kind| o["kind"] == *kind)).collect();
    if all.is_empty() {
        return None;
    }
    let bindings: Vec<&Value> = all.iter().copied().filter(|object| account_of(object).is_some()).collect();
    let mut find = |message: String, hint: &str| {
        let object = format!("service account {ACCOUNT}");
        let namespace = bindings.iter().find_map(|b| account_of(b)).unwrap_or_default().to_owned();
        findings.push(Finding { code: "missing_permission", namespace, object, message, hint: hint.into() });
    };
    if bindings.is_empty() {
        let told = "no role is bound to it";
        find(
            told.into(),
            "install the chart, or look with: kubectl get roles,rolebindings,clusterroles,clusterrolebindings -A",
        );
        return Some("the permissions of nobody".into());
    }
    let mut rows = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [scope, group, resource, verbs, names, _] = cells[..] else { continue };
        rows += 1;
        let group = if group == "core" { "" } else { group };
        let lacks = |verb: &&str| {
            names
                .split(',')
                .any(|name| !bindings.iter().any(|b| gives(b, &all, scope, [group, resource, verb, name])))
        };
        let lacking: Vec<&str> = verbs.split(',').filter(lacks).collect();
        if !lacking.is_empty() {
            let place = if scope == "own" { "in its own namespace" } else { "in the cluster" };
            let told = format!(
                "it may not {} {resource} of {} {place}",
                lacking.join(", "),
                if group.is_empty() { "the core" } else { group }
            );
            find(
                told,
                "bring the roles up to date with the chart: helm upgrade, or kubectl apply -k deploy/kustomize/base",
            );
        }
    }
    Some(format!("{rows} permissions of the control plane"))
}

/// The namespace of the control plane's service account, where a binding is for it.
fn account_of(binding: &Value) -> Option<&str> {
    let subjects = binding["subjects"].as_array()?.iter();
    let mut own = subjects.filter(|s| s["kind"] == "ServiceAccount" && s["name"] == ACCOUNT);
    own.find_map(|subject| subject["namespace"].as_str())
}

/// Whether a binding gives one permission, in the words of the table.
fn gives(binding: &Value, all: &[&Value], scope: &str, [group, resource, verb, name]: [&str; 4]) -> bool {
    let everywhere = binding["kind"] == "ClusterRoleBinding";
    let own = binding["metadata"]["namespace"].as_str() == account_of(binding);
    let holds = everywhere || (scope == "own" && own);
    if !holds {
        return false;
    }
    let of = &binding["roleRef"];
    let is_it = |role: &&&Value| {
        let here = role["kind"] == "ClusterRole"
            || role["metadata"]["namespace"] == binding["metadata"]["namespace"];
        here && role["kind"] == of["kind"] && role["metadata"]["name"] == of["name"]
    };
    let has = |value: &Value, wanted: &str| {
        value.as_array().is_some_and(|all| all.iter().any(|word| word == wanted || word == "*"))
    };
    let covers = |rule: &Value| {
        let named = rule["resourceNames"].as_array().is_none_or(Vec::is_empty);
        has(&rule["apiGroups"], group)
            && has(&rule["resources"], resource)
            && has(&rule["verbs"], verb)
            && (named || (name != "*" && has(&rule["resourceNames"], name)))
    };
    all.iter()
        .find(is_it)
        .is_some_and(|role| role["rules"].as_array().is_some_and(|rules| rules.iter().any(covers)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bound(kind: &str, role: &str, rules: &Value) -> [Value; 2] {
        let place = json!({ "name": "outrigger-control", "namespace": "outrigger-system" });
        let subject =
            json!({ "kind": "ServiceAccount", "name": "outrigger-control", "namespace": "outrigger-system" });
        [
            json!({ "kind": role, "metadata": place, "rules": rules }),
            json!({ "kind": kind, "metadata": place, "roleRef": { "kind": role, "name": "outrigger-control" }, "subjects": [subject] }),
        ]
    }

    #[test]
    fn what_the_control_plane_may_not_is_found() {
        let everything = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
        let told = |objects: &[Value]| {
            let mut findings = vec![];
            let looked = missing(objects, &mut findings);
            (looked.is_some(), findings.into_iter().map(|f| f.message).collect::<Vec<_>>())
        };
        assert_eq!(told(&[json!({ "kind": "Pod" })]), (false, vec![]));
        assert_eq!(told(&[json!({ "kind": "Role" })]).1, ["no role is bound to it"]);
        assert_eq!(told(&bound("ClusterRoleBinding", "ClusterRole", &everything)), (true, vec![]));
        // In one namespace alone it lacks what is of the cluster.
        let own = told(&bound("RoleBinding", "Role", &everything)).1;
        assert!(
            own.iter().any(|m| m == "it may not list, watch services of the core in the cluster"),
            "{own:?}"
        );
        assert!(!own.iter().any(|m| m.contains("in its own namespace")), "{own:?}");
        // A right on one object is none on all of them.
        let named = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"], "resourceNames": ["outrigger-roots"] }]);
        let named = told(&bound("ClusterRoleBinding", "ClusterRole", &named)).1;
        assert!(
            named.iter().any(|m| m == "it may not create configmaps of the core in the cluster"),
            "{named:?}"
        );
        assert!(!named.iter().any(|m| m.contains("get, update configmaps")), "{named:?}");
    }
}
