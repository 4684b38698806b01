//! Who becomes a member, and who does not and why.

use outrigger_inject::{Decision, NamespaceFacts, Settings, SkipReason, decide};
use serde_json::{Value, json};

use crate::support::{asking, member, pod, skip_of};

fn labelled(value: &str) -> Value {
    match value {
        "" => pod(&json!({})),
        value => pod(&json!({"metadata": {"labels": {"outrigger.dev/inject": value}}})),
    }
}

#[test]
fn the_pod_wins_over_its_namespace_and_what_means_nothing_is_skipped() {
    let yes = "injected";
    let table = [
        ("", ["not_asked", yes, "disabled_by_pod", yes, "invalid_value"]),
        ("enabled", [yes, yes, "disabled_by_pod", yes, "invalid_value"]),
        ("disabled", ["disabled_by_namespace", yes, "disabled_by_pod", yes, "invalid_value"]),
        ("ingress", [yes, yes, "disabled_by_pod", yes, "invalid_value"]),
        ("true", ["invalid_value", yes, "disabled_by_pod", yes, "invalid_value"]),
    ];
    for (of_namespace, wanted) in table {
        let mut namespace = asking();
        namespace.labels.insert("outrigger.dev/inject".into(), of_namespace.into());
        let outcome = ["", "enabled", "disabled", "ingress", "yes"].map(|of_pod| {
            match decide(&labelled(of_pod), &namespace, &Settings::default()) {
                Decision::Inject(_) => yes,
                Decision::Skip(skip) => skip.reason.code(),
                Decision::Refuse(problems) => panic!("{problems:?}"),
            }
        });
        assert_eq!(outcome, wanted, "namespace {of_namespace:?}");
    }
}

#[test]
fn who_can_not_be_a_member_stays_as_it_is_and_the_reason_is_told() {
    let with = |spec: Value| pod(&json!({ "spec": spec }));
    let cases = [
        (SkipReason::HostNetwork, with(json!({"hostNetwork": true}))),
        (SkipReason::Windows, with(json!({"os": {"name": "windows"}}))),
        (SkipReason::Windows, with(json!({"nodeSelector": {"kubernetes.io/os": "windows"}}))),
        (SkipReason::OtherMesh, with(json!({"containers": [{}, {"name": "istio-proxy", "image": "x"}]}))),
        (SkipReason::OtherMesh, with(json!({"initContainers": [{"name": "linkerd-init", "image": "x"}]}))),
        (
            SkipReason::OwnContainers,
            with(json!({"containers": [{}, {"name": "outrigger-proxy", "image": "x"}]})),
        ),
        (
            SkipReason::StaticPod,
            pod(&json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "1"}}})),
        ),
    ];
    for (reason, pod) in cases {
        let skip = skip_of(&pod, &asking());
        assert_eq!(skip.reason, reason, "{pod}");
        assert!(!skip.message.is_empty());
    }
    for name in ["kube-system", "kube-public", "kube-node-lease", "outrigger-system"] {
        let namespace = NamespaceFacts { name: name.into(), ..asking() };
        assert_eq!(skip_of(&pod(&json!({})), &namespace).reason, SkipReason::SystemNamespace);
    }
}

/// A status that somebody writes himself takes away nothing that was not ours.
#[test]
fn a_forged_status_takes_nothing_of_the_pods_own_away() {
    let forged = json!({"containers": ["app"], "volumes": ["data"]}).to_string();
    let own = pod(&json!({"metadata": {"annotations": {"outrigger.dev/status": forged}},
        "spec": {"volumes": [{"name": "data", "emptyDir": {}}]}}));
    let after = member(&own);
    assert!(after["spec"]["containers"][0]["name"] == "app" && after["spec"]["volumes"][0]["name"] == "data");
    let all = json!({"containers": ["outrigger-proxy"], "made": ["/spec"]}).to_string();
    let mut only = pod(&json!({"metadata": {"annotations": {"outrigger.dev/status": all}}}));
    only["spec"]["containers"] = json!([{"name": "outrigger-proxy", "image": "x"}]);
    assert_eq!(skip_of(&only, &asking()).reason, SkipReason::OwnContainers);
}

#[test]
fn a_pod_of_the_wrong_types_is_refused_with_every_place() {
    let mut odd = pod(&json!({}));
    odd["metadata"]["annotations"] = json!({"a": 1});
    odd["spec"]["volumes"] = json!({});
    odd["spec"]["initContainers"] = json!([{"name": "app"}, {}]);
    let decided = decide(&odd, &asking(), &Settings::default());
    let Decision::Refuse(problems) = decided else { panic!("{decided:?}") };
    let mut at: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    at.sort_unstable();
    let wanted = [
        "/metadata/annotations/a",
        "/spec/containers/0/name",
        "/spec/initContainers/1/name",
        "/spec/volumes",
    ];
    assert_eq!(at, wanted);
}
