//! What members get, and what stays as it was.

use outrigger_inject::{NamespaceFacts, ServiceFacts, Settings};
use serde_json::{Value, json};

use crate::check::{apply, env, faults};
use crate::support::{annotated, asking, container, member, member_with, merge, patch_of, pod};

fn settings(written: &Value) -> Settings {
    Settings::from_json(written).unwrap()
}

fn paths(pod: &Value) -> Vec<String> {
    let (patch, _) = patch_of(pod, &asking(), &Settings::default());
    patch.as_array().unwrap().iter().map(|step| step["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn fields_that_nobody_knows_stay_and_missing_parents_are_made_only_where_they_are_missing() {
    let unknown = json!({"a": [1.5, null]});
    let odd = pod(&json!({"spec": {"newField": unknown, "containers": [{"brandNew": true}]}}));
    let after = member(&odd);
    assert_eq!(
        (&after["spec"]["newField"], &after["spec"]["containers"][0]["brandNew"]),
        (&unknown, &json!(true))
    );
    let has = |paths: &[String], wanted: &[&str]| {
        for path in wanted {
            assert!(paths.iter().any(|p| p == path), "{path} in {paths:?}");
        }
    };
    has(
        &paths(&odd),
        &["/metadata/annotations", "/spec/volumes", "/metadata/labels/outrigger.dev~1injected"],
    );
    let full = pod(&json!({"metadata": {"annotations": {"a": "b"}}, "spec": {
        "volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [{"name": "own", "image": "i"}]}}));
    let wanted = ["/metadata/annotations/outrigger.dev~1status", "/spec/volumes/1", "/spec/initContainers/0"];
    has(&paths(&full), &wanted);
    // A list that is null, as clients write it, is no list.
    member(&pod(
        &json!({"metadata": {"annotations": null}, "spec": {"volumes": null, "initContainers": null}}),
    ));
}

#[test]
fn the_service_and_its_ports_come_from_the_service_that_selects_the_pod() {
    let after = member(&pod(&json!({"metadata": {"labels": {"app.kubernetes.io/version": "v2"}}})));
    let of = |name: &str| env(container(&after, "outrigger-proxy"), &format!("OUTRIGGER_PROXY_{name}"));
    assert_eq!(["SERVICE", "PORT", "SERVICE_PORT", "VERSION"].map(of), ["web", "8080", "80", "v2"]);
    assert_eq!(of("INBOUND_MAP"), "15100=81:9090");
    let own = env(container(&after, "outrigger-init"), "OUTRIGGER_INIT_OWN_PORTS");
    assert_eq!(own, "15000,15001,15006,15020,15053,15100");
}

#[test]
fn a_pod_of_no_service_calls_through_the_mesh_and_what_arrives_is_its_own() {
    let probe = json!({"httpGet": {"port": 8080}});
    let lonely = pod(&json!({"metadata": {"labels": {"app": "batch"}},
        "spec": {"containers": [{"livenessProbe": probe}]}}));
    assert_eq!(patch_of(&lonely, &asking(), &Settings::default()).1, ["no_service"]);
    let after = member(&lonely);
    assert_eq!(env(container(&after, "outrigger-init"), "OUTRIGGER_INIT_INBOUND_MODE"), "off");
    assert_eq!(container(&after, "app")["livenessProbe"], probe);
    let ingress = pod(&json!({"metadata": {"labels": {"outrigger.dev/inject": "ingress"}}}));
    assert_eq!(env(container(&member(&ingress), "outrigger-init"), "OUTRIGGER_INIT_INBOUND_MODE"), "off");
    assert_eq!(
        env(container(&member(&pod(&json!({}))), "outrigger-init"), "OUTRIGGER_INIT_INBOUND_MODE"),
        "redirect"
    );
}

/// Callers go by the label. It said `true` of a pod at which nothing is redirected, too, and they spoke TLS to its application.
#[test]
fn the_label_tells_callers_whether_what_arrives_comes_by_the_sidecar() {
    let label = |member: &Value| member["metadata"]["labels"]["outrigger.dev/injected"].clone();
    let lonely = pod(&json!({"metadata": {"labels": {"app": "batch"}}}));
    let ingress = pod(&json!({"metadata": {"labels": {"outrigger.dev/inject": "ingress"}}}));
    for native in [true, false] {
        let settings = settings(&json!({"nativeSidecar": native}));
        for (before, told) in [(&lonely, "outbound"), (&ingress, "outbound"), (&pod(&json!({})), "true")] {
            let after = member_with(before, &asking(), &settings, native);
            assert_eq!(label(&after), told);
            assert_eq!(patch_of(&after, &asking(), &settings).0, json!([]), "a second call");
        }
    }
    // Its Service is made, and it is applied again; and the other way.
    let service = json!({"metadata": {"name": "batch"},
        "spec": {"selector": {"app": "batch"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    let mut with_it = asking();
    with_it.services.extend(ServiceFacts::from_object(&service));
    let whole = member_with(&member(&lonely), &with_it, &Settings::default(), true);
    assert_eq!(label(&whole), "true");
    assert_eq!(patch_of(&whole, &with_it, &Settings::default()).0, json!([]));
    assert_eq!(label(&member(&whole)), "outbound");
}

/// Each Service that selects a pod made an instance of it. What the mesh leaves out the control plane does not have: the pod asked
/// for rules that never came.
#[test]
fn a_service_that_the_mesh_leaves_out_is_no_pods_service() {
    let with = |change: &Value| {
        let mut service = json!({"metadata": {"name": "web", "namespace": "fx"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
        merge(&mut service, change);
        NamespaceFacts { services: ServiceFacts::from_object(&service).into_iter().collect(), ..asking() }
    };
    let served = |pod: &Value, namespace: &NamespaceFacts| {
        let after = member_with(pod, namespace, &Settings::default(), true);
        env(container(&after, "outrigger-proxy"), "OUTRIGGER_PROXY_SERVICE")
    };
    let discover = |word: &str| json!({"metadata": {"annotations": {"outrigger.dev/discover": word}}});
    for (change, service) in [
        (json!({}), "web"),
        (discover("enabled"), "web"),
        (discover("disabled"), ""),
        (json!({"spec": {"type": "ExternalName"}}), ""),
        (json!({"metadata": {"name": "kubernetes", "namespace": "default"}}), ""),
        (json!({"metadata": {"name": "kubernetes"}}), "kubernetes"),
    ] {
        assert_eq!(served(&pod(&json!({})), &with(&change)), service, "{change}");
    }
    let mut left_out = with(&json!({}));
    left_out.annotations.insert("outrigger.dev/discover".into(), "disabled".into());
    assert_eq!(served(&pod(&json!({})), &left_out), "");
    let named = annotated(&json!({"outrigger.dev/service": "cart"}));
    assert_eq!(served(&named, &left_out), "cart", "there may be a MeshService of that name");
}

#[test]
fn names_and_ports_that_the_pod_has_itself_are_left_to_it() {
    let ports = [15020, 15006, 15100].map(|port| json!({"containerPort": port}));
    let mut taken = pod(&json!({"spec": {"volumes": [{"name": "outrigger-token", "emptyDir": {}}]}}));
    taken["spec"]["containers"][0]["ports"].as_array_mut().unwrap().extend(ports);
    assert_eq!(patch_of(&taken, &asking(), &Settings::default()).1, ["port_moved", "port_moved"]);
    let after = member(&taken);
    assert_eq!(after["spec"]["volumes"][2]["name"], "outrigger-token-2");
    assert_eq!(env(container(&after, "outrigger-proxy"), "OUTRIGGER_PROXY_INBOUND"), "0.0.0.0:15101");
    assert_eq!(env(container(&after, "outrigger-proxy"), "OUTRIGGER_PROXY_HEALTH"), "[::]:15102");
    assert_eq!(patch_of(&after, &asking(), &Settings::default()).0, json!([]));
}

#[test]
fn the_classical_order_holds_the_application_and_says_which_container_is_meant() {
    let classical = settings(&json!({"nativeSidecar": false}));
    let own = pod(&json!({"spec": {"initContainers": [{"name": "own", "image": "i"}]}}));
    let after = member_with(&own, &asking(), &classical, false);
    assert_eq!(after["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"][1], "wait");
    assert_eq!(after["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "app");
}

#[test]
fn a_classical_sidecar_leaves_before_it_ends_and_a_job_may_end_it() {
    let classical = settings(&json!({"nativeSidecar": false}));
    let hooks = |after: &Value| after["spec"]["containers"][0]["lifecycle"].clone();
    let leave = |limit: &str| json!(["/outrigger-proxy", "leave", "--timeout", limit]);
    for (grace, limit) in [(Value::Null, "28s"), (json!(90), "88s"), (json!(0), "1s")] {
        let mut own = pod(&json!({}));
        if !grace.is_null() {
            own["spec"]["terminationGracePeriodSeconds"] = grace;
        }
        let after = member_with(&own, &asking(), &classical, false);
        assert_eq!(hooks(&after)["preStop"]["exec"]["command"], leave(limit));
    }
    let held = member_with(&pod(&json!({})), &asking(), &classical, false);
    let mut free = held.clone();
    free["metadata"]["annotations"]["outrigger.dev/hold-application"] = json!("false");
    let free = member_with(&free, &asking(), &classical, false);
    assert_eq!(hooks(&free), json!({"preStop": {"exec": {"command": leave("28s")}}}), "it held before");
    assert!(
        container(&member_with(&free, &asking(), &Settings::default(), true), "outrigger-proxy")
            .get("lifecycle")
            .is_none()
    );

    let ended =
        |after: &Value| env(container(after, "outrigger-proxy"), "OUTRIGGER_PROXY_ENDED_BY_APPLICATION");
    let job = pod(&json!({"spec": {"restartPolicy": "Never"}}));
    assert_eq!(patch_of(&job, &asking(), &classical).1, ["job_ends_its_sidecar"]);
    assert_eq!(ended(&member_with(&job, &asking(), &classical, false)), "true");
    for after in [held, member(&job)] {
        let told = container(&after, "outrigger-proxy")["env"].to_string();
        assert!(!told.contains("ENDED_BY_APPLICATION"), "only a job, and only where it must");
    }
}

#[test]
fn native_sidecars_need_a_server_that_keeps_them_and_a_pod_may_choose() {
    member_with(&pod(&json!({})), &asking(), &settings(&json!({"kubernetesVersion": "1.28"})), false);
    member_with(&pod(&json!({})), &asking(), &settings(&json!({"kubernetesVersion": "1.29"})), true);
    let classical = annotated(&json!({"outrigger.dev/native-sidecar": "false"}));
    member_with(&classical, &asking(), &Settings::default(), false);
    let native = annotated(&json!({"outrigger.dev/native-sidecar": "true"}));
    member_with(&native, &asking(), &settings(&json!({"nativeSidecar": false})), true);
}

#[test]
fn a_pod_that_is_guaranteed_its_resources_stays_so() {
    let limits =
        json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}}});
    let after = member(&pod(&json!({"spec": {"containers": [limits]}})));
    for name in ["outrigger-init", "outrigger-proxy"] {
        let resources = &container(&after, name)["resources"];
        assert_eq!(resources["requests"], resources["limits"]);
        assert!(resources["limits"]["cpu"].is_string() && resources["limits"]["memory"].is_string());
    }
    let after = member(&pod(&json!({})));
    assert!(container(&after, "outrigger-proxy")["resources"]["limits"].get("cpu").is_none());
}

#[test]
fn who_scrapes_the_application_is_sent_to_the_sidecar_which_knows_where_its_metrics_are() {
    let asked =
        json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9102", "prometheus.io/path": "/m"});
    let after = member(&annotated(&asked));
    assert_eq!(after["metadata"]["annotations"]["prometheus.io/port"], "15020");
    assert_eq!(env(container(&after, "outrigger-proxy"), "OUTRIGGER_PROXY_APP_METRICS"), "9102/m");
    let silent = annotated(&json!({"prometheus.io/scrape": "false"}));
    assert!(member(&silent)["metadata"]["annotations"].get("prometheus.io/port").is_none());
    let https = annotated(&json!({"prometheus.io/scrape": "true", "prometheus.io/scheme": "https"}));
    assert_eq!(patch_of(&https, &asking(), &Settings::default()).1, ["metrics_not_merged"]);
}

#[test]
fn what_other_webhooks_add_between_two_calls_stays_and_what_they_bring_is_taken_in() {
    let mut again = member(&pod(&json!({})));
    let other = json!({"name": "log", "image": "l", "livenessProbe": {"httpGet": {"port": 9, "path": "/"}}});
    again["spec"]["containers"].as_array_mut().unwrap().push(other);
    again["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": "later", "emptyDir": {}}));
    let proxy = again["spec"]["initContainers"][1]["env"].as_array_mut().unwrap();
    proxy.insert(0, json!({"name": "PROXY", "value": "x"}));
    let (patch, _) = patch_of(&again, &asking(), &Settings::default());
    let third = apply(&again, &patch).unwrap();
    assert_eq!(faults(&third, true), Vec::<String>::new());
    assert_eq!(container(&third, "log")["livenessProbe"]["httpGet"]["port"], 15020);
    assert_eq!(container(&third, "outrigger-proxy")["env"][0]["name"], "PROXY");
    assert_eq!(third["spec"]["volumes"], again["spec"]["volumes"]);
    assert_eq!(patch_of(&third, &asking(), &Settings::default()).0, json!([]));
    // Somebody else's initial container before ours: ours goes first again.
    let mut before = third;
    let first = before["spec"]["initContainers"].as_array_mut().unwrap();
    first.insert(0, json!({"name": "vault", "image": "v"}));
    let (patch, _) = patch_of(&before, &asking(), &Settings::default());
    assert_eq!(faults(&apply(&before, &patch).unwrap(), true), Vec::<String>::new());
}

/// What `kubectl get -o yaml` shows and somebody applies again, perhaps after an upgrade.
#[test]
fn an_exported_pod_that_is_applied_again_stays_as_it_is_or_is_brought_up_to_date() {
    let probed = json!({"readinessProbe": {"tcpSocket": {"port": "http"}}});
    let before = member(&pod(&json!({"spec": {"containers": [probed]}})));
    assert_eq!(patch_of(&before, &asking(), &Settings::default()).0, json!([]));
    let newer = settings(&json!({"image": "outrigger/proxy:9", "nativeSidecar": false}));
    let after = member_with(&before, &asking(), &newer, false);
    assert_eq!(container(&after, "outrigger-proxy")["image"], "outrigger/proxy:9");
    assert_eq!(container(&after, "app")["readinessProbe"]["httpGet"]["path"], "/app-health/app/readyz");
    assert_eq!(patch_of(&after, &asking(), &newer).0, json!([]));
}

#[test]
fn secrets_for_images_are_added_once_and_dollars_are_kept_from_being_replaced() {
    let with =
        settings(&json!({"imagePullSecrets": ["mine", {"name": "ours"}], "env": {"RUST_BACKTRACE": "1"}}));
    let probe = json!({"livenessProbe": {"httpGet": {"path": "/$(POD_IP)", "port": 8080}}});
    let own = pod(&json!({"spec": {"imagePullSecrets": [{"name": "mine"}], "containers": [probe]}}));
    let after = member_with(&own, &asking(), &with, true);
    assert_eq!(after["spec"]["imagePullSecrets"], json!([{"name": "mine"}, {"name": "ours"}]));
    let proxy = container(&after, "outrigger-proxy");
    assert!(env(proxy, "OUTRIGGER_PROXY_APP_PROBES").contains("/$$(POD_IP)"));
    assert_eq!(env(proxy, "RUST_BACKTRACE"), "1");
    assert_eq!(patch_of(&after, &asking(), &with).0, json!([]));
}

#[test]
fn what_does_not_go_well_with_a_sidecar_is_said() {
    let mut odd = pod(&json!({"spec": {"dnsPolicy": "Default", "shareProcessNamespace": true,
        "securityContext": {"runAsUser": 15001}}}));
    let udp = json!({"containerPort": 53, "protocol": "UDP"});
    odd["spec"]["containers"][0]["ports"].as_array_mut().unwrap().push(udp);
    let mut namespace = asking();
    namespace.labels.insert("pod-security.kubernetes.io/enforce".into(), "restricted".into());
    let (_, warnings) = patch_of(&odd, &namespace, &Settings::default());
    let wanted = ["udp_port", "user_of_the_sidecar", "dns_policy", "shared_processes", "pod_security"];
    assert_eq!(warnings, wanted);
    let mut several = asking();
    several.services.push(several.services[0].clone());
    several.services[0].name = "zoo".into();
    let (patch, warnings) = patch_of(&pod(&json!({})), &several, &Settings::default());
    assert_eq!(warnings, ["several_services"]);
    assert!(patch.to_string().contains("\"OUTRIGGER_PROXY_SERVICE\",\"value\":\"web\""));
}
