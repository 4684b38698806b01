//! What the control plane may do in a cluster: one table, from which the chart makes its roles, and which names the code that
//! uses each line.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::stage::{Chart, list, one, text};

#[test]
fn the_roles_of_the_chart_are_the_table_and_nothing_else() {
    let Some(chart) = Chart::new() else { return };
    let objects = chart.objects("ha");
    for binding in objects.iter().filter(|o| o["kind"].as_str().unwrap().ends_with("RoleBinding")) {
        assert_eq!(binding["roleRef"]["name"], "outrigger-control", "{binding}");
    }
    let mut granted = granted("cluster", one(&objects, "ClusterRole", "outrigger-control"));
    granted.extend(self::granted("own", one(&objects, "Role", "outrigger-control")));
    let wanted: BTreeSet<String> = rows().iter().flat_map(Row::each).collect();
    assert_eq!(granted, wanted);
}

#[test]
fn where_cert_manager_keeps_the_webhook_believed_the_control_plane_may_not_touch_it() {
    let Some(chart) = Chart::new() else { return };
    let role = |set| granted("cluster", one(&chart.objects(set), "ClusterRole", "outrigger-control"));
    let lost: Vec<String> = role("default").difference(&role("cert-manager")).cloned().collect();
    let of = "cluster admissionregistration.k8s.io mutatingwebhookconfigurations";
    assert_eq!(lost, ["get", "patch"].map(|verb| format!("{of} {verb} outrigger-injector")));
    assert!(role("cert-manager").is_subset(&role("default")));
}

#[test]
fn a_permission_that_no_code_uses_is_found() {
    let unused: Vec<String> = rows().into_iter().filter_map(Row::unused).collect();
    assert!(unused.is_empty(), "deploy/chart/outrigger/permissions.tsv:\n{}", unused.join("\n"));
    // And the finder finds.
    let row = |code: &str| Row::read(&format!("own\tcore\tpods\tdelete\t*\t{code}"));
    assert!(row("-").unused().is_some());
    assert!(row("control-plane/src/no/such/file.rs#pods").unused().is_some());
    assert!(row("control-plane/src/lib.rs#no such text").unused().is_some());
}

#[test]
fn roles_of_people_say_what_the_control_plane_asks_and_are_bound_to_nobody() {
    let Some(chart) = Chart::new() else { return };
    let objects = chart.objects("default");
    for role in ["viewer", "editor", "operator", "admin"] {
        let rules = &one(&objects, "ClusterRole", &format!("outrigger-{role}"))["rules"];
        let wanted = json!([{
            "apiGroups": ["outrigger.dev"], "resources": ["roles"], "verbs": ["use"], "resourceNames": [role]
        }]);
        assert_eq!(*rules, wanted);
    }
}

#[test]
fn nothing_is_granted_that_would_be_the_whole_cluster() {
    for row in rows() {
        let Row { group, resource, verbs, .. } = &row;
        for part in verbs.iter().chain([group, resource]) {
            assert_ne!(part, "*", "{row:?}");
        }
        for verb in ["escalate", "bind", "impersonate", "deletecollection"] {
            assert!(!verbs.iter().any(|v| v == verb), "{row:?}");
        }
        let whole = row.scope == "cluster";
        assert!(!(whole && resource == "secrets"), "secrets of everybody: {row:?}");
        assert!(!(whole && group == "rbac.authorization.k8s.io"), "{row:?}");
        let reads = verbs.iter().all(|v| ["get", "list", "watch"].contains(&v.as_str()));
        let core = ["pods", "services", "namespaces", "endpointslices"].contains(&resource.as_str());
        assert!(reads || !core, "what belongs to others is read only: {row:?}");
    }
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    scope: String,
    group: String,
    resource: String,
    verbs: Vec<String>,
    names: Vec<String>,
    code: String,
}

impl Row {
    fn read(line: &str) -> Self {
        let cells: Vec<&str> = line.split('\t').collect();
        let [scope, group, resource, verbs, names, code] = cells[..] else { panic!("six cells: {line:?}") };
        assert!(["cluster", "own"].contains(&scope), "{line:?}");
        let words = |cell: &str| cell.split(',').map(str::to_owned).collect();
        let (verbs, names) = (words(verbs), words(names));
        Self {
            scope: scope.into(),
            group: group.into(),
            resource: resource.into(),
            verbs,
            names,
            code: code.into(),
        }
    }

    /// One text for each verb on each name.
    fn each(&self) -> Vec<String> {
        let Self { scope, group, resource, .. } = self;
        let of = |verb: &String| {
            self.names
                .iter()
                .map(|name| format!("{scope} {group} {resource} {verb} {name}"))
                .collect::<Vec<_>>()
        };
        self.verbs.iter().flat_map(of).collect()
    }

    /// Why nobody uses it, in words.
    fn unused(self) -> Option<String> {
        let told =
            |why: &str| Some(format!("{} {} {}: {why}", self.group, self.resource, self.verbs.join(",")));
        let Some((path, wanted)) = self.code.split_once('#') else { return told("no code is named") };
        match std::fs::read_to_string(crate::stage::root().join(path)) {
            Err(e) => told(&format!("{path}: {e}")),
            Ok(code) if !code.contains(wanted) => told(&format!("{path} has no {wanted:?}")),
            Ok(_) => None,
        }
    }
}

fn rows() -> Vec<Row> {
    let table = text("deploy/chart/outrigger/permissions.tsv");
    table.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(Row::read).collect()
}

/// What a role of the chart grants, in the words of the table.
fn granted(scope: &str, role: &Value) -> BTreeSet<String> {
    let words = |value: &Value| -> Vec<String> {
        list(value).iter().map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in list(&role["rules"]) {
        let names =
            if rule["resourceNames"].is_array() { words(&rule["resourceNames"]) } else { vec!["*".into()] };
        let (groups, resources, verbs) =
            (words(&rule["apiGroups"]), words(&rule["resources"]), words(&rule["verbs"]));
        for group in &groups {
            let group = if group.is_empty() { "core" } else { group };
            for resource in &resources {
                for verb in &verbs {
                    all.extend(names.iter().map(|name| format!("{scope} {group} {resource} {verb} {name}")));
                }
            }
        }
    }
    all
}
