//! What the chart makes, for each kind of cluster that it has values for.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::stage::{Chart, VALUE_SETS, arguments, identity, list, one, pods, validate};

#[test]
fn helm_finds_nothing_to_say_about_the_chart_with_any_of_its_values() {
    let Some(chart) = Chart::new() else { return };
    for set in VALUE_SETS {
        let values = format!("{}/ci/{set}-values.yaml", CHART.display());
        let ran = chart.helm(&["lint", "--strict"], &["--values", &values]);
        assert!(ran.ok, "{set}: {}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn every_object_is_one_that_kubernetes_takes_without_an_unknown_field() {
    let Some(chart) = Chart::new() else { return };
    for set in VALUE_SETS {
        // The oldest that the chart takes, and the newest that there are schemas for.
        for version in ["1.25.0", "1.37.0"] {
            let stream = chart.rendered(set, &["--kube-version", version]);
            let Some(()) = validate(&format!("{set} for {version}"), &stream) else { return };
        }
    }
}

#[test]
fn no_container_may_more_than_it_needs() {
    let Some(chart) = Chart::new() else { return };
    for set in VALUE_SETS {
        let objects = chart.objects(set);
        assert!(!pods(&objects).is_empty());
        for (whose, pod) in pods(&objects) {
            let whose = format!("{set}: {whose}");
            let security = &pod["spec"]["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{whose}");
            assert_eq!(security["seccompProfile"], json!({"type": "RuntimeDefault"}), "{whose}");
            for container in list(&pod["spec"]["containers"]) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{whose}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{whose}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{whose}");
                // Who is asked by TCP alone may be dead and still answer.
                let asked = &container["readinessProbe"]["httpGet"];
                let open = list(&container["ports"]);
                assert!(open.iter().any(|port| port["name"] == asked["port"]), "{whose}: {asked}");
                let resources = &container["resources"];
                assert!(resources["requests"]["cpu"].is_string(), "{whose}");
                assert!(resources["requests"]["memory"].is_string(), "{whose}");
                assert!(resources["limits"]["memory"].is_string(), "{whose}");
            }
        }
    }
}

#[test]
fn what_names_another_thing_names_one_that_is_there() {
    let Some(chart) = Chart::new() else { return };
    for set in VALUE_SETS {
        let objects = chart.objects(set);
        let unique: BTreeSet<String> = objects.iter().map(identity).collect();
        assert_eq!(unique.len(), objects.len(), "{set}: one is there twice");
        for service in objects.iter().filter(|o| o["kind"] == "Service") {
            let pod = selected(&objects, service, &service["spec"]["selector"]);
            let open: Vec<&Value> =
                list(&pod["spec"]["containers"]).iter().flat_map(|c| list(&c["ports"])).collect();
            for port in list(&service["spec"]["ports"]) {
                let target = &port["targetPort"];
                assert!(open.iter().any(|o| o["name"] == *target), "{set}: {} {target}", identity(service));
            }
        }
        for kind in ["PodDisruptionBudget", "Deployment"] {
            for object in objects.iter().filter(|o| o["kind"] == kind) {
                selected(&objects, object, &object["spec"]["selector"]["matchLabels"]);
            }
        }
        for (whose, pod) in pods(&objects) {
            volumes_agree(&format!("{set}: {whose}"), pod);
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
            one(&objects, "ServiceAccount", account);
        }
        for monitor in objects.iter().filter(|o| o["kind"] == "ServiceMonitor") {
            let wanted = &monitor["spec"]["selector"]["matchLabels"];
            let chosen: Vec<String> = objects
                .iter()
                .filter(|o| o["kind"] == "Service" && has(&o["metadata"]["labels"], wanted))
                .map(identity)
                .collect();
            assert_eq!(chosen, ["Service/outrigger-system/outrigger-control"], "{set}");
        }
    }
}

#[test]
fn the_webhook_fails_closed_and_asks_about_nothing_that_must_start_without_it() {
    let Some(chart) = Chart::new() else { return };
    let objects = chart.objects("default");
    let configuration = one(&objects, "MutatingWebhookConfiguration", "outrigger-injector");
    let webhooks = list(&configuration["webhooks"]);
    assert_eq!(webhooks.len(), 2);
    for webhook in webhooks {
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert_eq!(webhook["matchPolicy"], "Equivalent");
        assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 10);
        assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
        assert_eq!(webhook["rules"][0]["resources"], json!(["pods"]));
        let client = &webhook["clientConfig"];
        assert!(client.get("caBundle").is_none(), "an upgrade would undo what the control plane wrote");
        let service = one(&objects, "Service", client["service"]["name"].as_str().unwrap());
        let port = &client["service"]["port"];
        assert!(list(&service["spec"]["ports"]).iter().any(|p| p["port"] == *port), "{port}");
    }
    // What the API server makes of the selectors: label of the namespace, label of the pod, whether it asks.
    let (enabled, disabled) = (Some("enabled"), Some("disabled"));
    for (namespace, pod, asked) in [
        (enabled, None, true),
        (Some("ingress"), None, true),
        (enabled, disabled, false),
        (None, None, false),
        (None, enabled, true),
        (None, Some("ingress"), true),
        (disabled, None, false),
        (disabled, enabled, true),
        (disabled, disabled, false),
        // A slip of the pen is asked about, so that somebody can say that it is one.
        (Some("enbled"), None, true),
        (None, Some("yes"), true),
    ] {
        for name in ["shop", "kube-system", "kube-public", "kube-node-lease", "outrigger-system"] {
            let facts = labels(&[("kubernetes.io/metadata.name", Some(name)), (LABEL, namespace)]);
            let pod = labels(&[(LABEL, pod)]);
            let matched =
                |w: &&Value| matches(&w["namespaceSelector"], &facts) && matches(&w["objectSelector"], &pod);
            let asks = webhooks.iter().any(|w| matched(&w));
            assert_eq!(asks, asked && name == "shop", "{name} {facts} {pod}");
        }
    }
    for (whose, pod) in pods(&chart.objects("ha")) {
        assert_eq!(pod["metadata"]["labels"][LABEL], "disabled", "{whose} would wait for itself");
    }
}

#[test]
fn each_set_of_values_keeps_what_it_promises() {
    let Some(chart) = Chart::new() else { return };
    let objects = chart.objects("ha");
    let control = one(&objects, "Deployment", "outrigger-control");
    assert_eq!(control["spec"]["replicas"], 3);
    // Where each replica wants a node of its own, three nodes have no room for a fourth: an upgrade would wait for ever.
    assert_eq!(control["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
    let usual = chart.objects("openshift");
    let strategy = &one(&usual, "Deployment", "outrigger-control")["spec"]["strategy"];
    assert_eq!(strategy["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    let affinity = &control["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    assert!(affinity["requiredDuringSchedulingIgnoredDuringExecution"].is_array());
    assert_eq!(one(&objects, "PodDisruptionBudget", "outrigger-control")["spec"]["minAvailable"], 2);
    let edge = one(&objects, "Deployment", "edge");
    let container = &edge["spec"]["template"]["spec"]["containers"][0];
    assert!(arguments(container).contains(&"--gateway-port=443=8443"), "{container}");

    let objects = chart.objects("openshift");
    for (whose, pod) in pods(&objects) {
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert!(pod["spec"]["securityContext"].get(field).is_none(), "{whose}: {field}");
        }
    }

    let objects = chart.objects("cert-manager");
    let certificate = one(&objects, "Certificate", "outrigger-authority");
    assert_eq!(certificate["spec"]["isCA"], true);
    let control = &one(&objects, "Deployment", "outrigger-control")["spec"]["template"]["spec"];
    let given = list(&control["volumes"]).iter().find(|v| v["name"] == "authority").unwrap();
    assert_eq!(given["secret"]["secretName"], certificate["spec"]["secretName"]);
    // Octal, as the API server reads YAML: readable by the pod's group, or the key would be refused.
    assert!(
        chart.rendered("cert-manager", &[]).contains("{secretName: outrigger-authority, defaultMode: 0440}")
    );
    assert!(arguments(&control["containers"][0]).contains(&"--ca-key=/etc/outrigger/authority/tls.key"));

    let webhook = one(&objects, "Certificate", "outrigger-webhook");
    let names =
        ["outrigger-control.outrigger-system.svc", "outrigger-control.outrigger-system.svc.cluster.local"];
    assert_eq!(webhook["spec"]["dnsNames"], json!(names));
    let configuration = one(&objects, "MutatingWebhookConfiguration", "outrigger-injector");
    let from = &configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    assert_eq!(*from, "outrigger-system/outrigger-webhook");
    let given = list(&control["volumes"]).iter().find(|v| v["name"] == "webhook-tls").unwrap();
    assert_eq!(given["secret"]["secretName"], webhook["spec"]["secretName"]);
    let said = arguments(&control["containers"][0]);
    assert!(said.contains(&"--webhook-tls-cert=/etc/outrigger/webhook/tls.crt"), "{said:?}");
    assert!(said.contains(&"--webhook-tls-key=/etc/outrigger/webhook/tls.key"), "{said:?}");

    let objects = chart.objects("minimal");
    assert!(
        !objects.iter().any(|o| o["kind"] == "MutatingWebhookConfiguration" || o["kind"] == "NetworkPolicy")
    );
    assert!(!objects.iter().any(|o| o["kind"] == "CustomResourceDefinition"));
    let objects = chart.objects("default");
    assert!(
        !objects.iter().any(|o| o["kind"] == "PodDisruptionBudget"),
        "one replica could never be drained"
    );
}

#[test]
fn another_namespace_is_followed_everywhere() {
    let Some(chart) = Chart::new() else { return };
    let text = chart.rendered("ha", &["--namespace", "elsewhere"]);
    let named: Vec<&str> = text.lines().filter(|l| l.contains("outrigger-system")).collect();
    assert!(named.is_empty(), "{named:?}");
    assert!(text.contains("--webhook-name=outrigger-control.elsewhere.svc"));
}

const LABEL: &str = "outrigger.dev/inject";
static CHART: std::sync::LazyLock<std::path::PathBuf> =
    std::sync::LazyLock::new(|| crate::stage::root().join("deploy/chart/outrigger"));

/// The pod of the same namespace whose labels `wanted` selects.
fn selected<'a>(objects: &'a [Value], from: &Value, wanted: &Value) -> &'a Value {
    let made = objects.iter().filter(|o| o["spec"]["template"]["spec"]["containers"].is_array());
    let near = made.filter(|o| o["metadata"]["namespace"] == from["metadata"]["namespace"]);
    let found: Vec<&Value> =
        near.map(|o| &o["spec"]["template"]).filter(|t| has(&t["metadata"]["labels"], wanted)).collect();
    assert_eq!(found.len(), 1, "{} selects {wanted}", identity(from));
    found[0]
}

fn has(labels: &Value, wanted: &Value) -> bool {
    let wanted = wanted.as_object().unwrap();
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

fn volumes_agree(whose: &str, pod: &Value) {
    let names = |of: &Value| -> BTreeSet<String> {
        list(of).iter().map(|v| v["name"].as_str().unwrap().to_owned()).collect()
    };
    let mounts = list(&pod["spec"]["containers"]).iter().flat_map(|c| list(&c["volumeMounts"]));
    let mounted: BTreeSet<String> = mounts.map(|m| m["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(mounted, names(&pod["spec"]["volumes"]), "{whose}");
}

fn labels(pairs: &[(&str, Option<&str>)]) -> Value {
    pairs
        .iter()
        .filter_map(|(name, value)| value.map(|v| ((*name).to_owned(), json!(v))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Whether a label selector takes `labels`, as the API server reads it.
fn matches(selector: &Value, labels: &Value) -> bool {
    list(&selector["matchExpressions"]).iter().all(|e| {
        let value = labels.get(e["key"].as_str().unwrap());
        let named = value.is_some_and(|v| list(&e["values"]).contains(v));
        match e["operator"].as_str().unwrap() {
            "In" => named,
            "NotIn" => !named,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("{other}"),
        }
    })
}
