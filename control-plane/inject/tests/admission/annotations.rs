//! Every annotation, good and bad.

use outrigger_inject::{ANNOTATIONS, Decision, Problem, Settings, decide};
use serde_json::{Value, json};

use crate::check::env;
use crate::support::{annotated, asking, container, member, member_with, patch_of, pod};

fn refused(pod: &Value) -> Vec<Problem> {
    match decide(pod, &asking(), &Settings::default()) {
        Decision::Refuse(problems) => problems,
        other => panic!("{other:?}"),
    }
}

/// A bad value for each annotation. Each is refused by name, and all of them at once.
#[test]
fn every_bad_annotation_is_refused_by_its_name_and_all_at_once() {
    let bad = [
        ("native-sidecar", "perhaps"),
        ("proxy-cpu-request", "-1"),
        ("proxy-cpu-limit", "1.2.3"),
        ("proxy-memory-request", "lots"),
        ("proxy-memory-limit", "0"),
        ("proxy-image", "a b"),
        ("proxy-image-pull-policy", "Sometimes"),
        ("proxy-uid", "0"),
        ("log-level", "loud"),
        ("skip-inbound-ports", "70000"),
        ("skip-outbound-ports", "20-10"),
        ("skip-outbound-networks", "10.0.0.0/40"),
        ("opaque-ports", "x"),
        ("service", "Big Shop"),
        ("port", "0"),
        ("version", "-1-"),
        ("rewrite-probes", "1"),
        ("hold-application", ""),
        ("scrape", "maybe"),
        ("otlp-endpoint", "otel:4317"),
        ("otlp-metrics", "http://"),
        ("otlp-protocol", "thrift"),
        ("trace-sample", "1"),
        ("access-log", "some"),
        ("access-log-format", "{time"),
        ("env.1A", "x"),
        ("env.OUTRIGGER_PROXY_CONTROL", "evil.test:1"),
        ("env.TEXT", "a\u{1b}[2J"),
    ];
    for name in ANNOTATIONS {
        assert!(bad.iter().any(|(bad, _)| *bad == name), "{name}");
    }
    let mut all = json!({});
    for (name, value) in bad {
        let name = format!("outrigger.dev/{name}");
        let problems = refused(&annotated(&json!({&name: value})));
        let pointer = format!("/metadata/annotations/{}", name.replace('/', "~1"));
        assert!(problems.iter().all(|problem| problem.pointer == pointer), "{problems:?}");
        assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.hint.is_empty()));
        all[name] = json!(value);
    }
    assert_eq!(refused(&annotated(&all)).len(), bad.len());
    let above = annotated(&json!({"outrigger.dev/proxy-memory-request": "1Gi"}));
    assert!(refused(&above)[0].message.contains("256Mi"));
}

#[test]
fn a_sidecar_is_told_where_its_telemetry_goes_by_the_operator_its_namespace_and_its_pod() {
    let settings = json!({"telemetry": {"otlpEndpoint": "http://$(OUTRIGGER_HOST_IP):4317", "traceSample": "1%", "accessLog": ""}});
    let settings = Settings::from_json(&settings).unwrap();
    let mut namespace = asking();
    namespace.annotations.insert("outrigger.dev/trace-sample".into(), "5%".into());
    let own = annotated(&json!({
        "outrigger.dev/trace-sample": "100%", "outrigger.dev/otlp-metrics": "https://otlp.example.com",
        "outrigger.dev/access-log": "all", "outrigger.dev/access-log-format": "{method} {path}",
    }));
    let after = member_with(&own, &namespace, &settings, true);
    let proxy = container(&after, "outrigger-proxy");
    for (name, value) in [
        ("OUTRIGGER_PROXY_OTLP_ENDPOINT", "http://$(OUTRIGGER_HOST_IP):4317"),
        ("OUTRIGGER_PROXY_OTLP_METRICS", "https://otlp.example.com"),
        ("OUTRIGGER_PROXY_TRACE_SAMPLE", "100%"),
        ("OUTRIGGER_PROXY_ACCESS_LOG", "all"),
        ("OUTRIGGER_PROXY_ACCESS_LOG_FORMAT", "{method} {path}"),
    ] {
        assert_eq!(env(proxy, name), value, "{name}");
    }
    // Kubernetes replaces only what stands before.
    let all = proxy["env"].as_array().unwrap();
    let at = |name: &str| all.iter().position(|variable| variable["name"] == name).unwrap();
    assert!(at("OUTRIGGER_HOST_IP") < at("OUTRIGGER_PROXY_OTLP_ENDPOINT"));
    let told = Settings::from_json(&json!({"telemetry": {"otlpEndpoint": "x", "sample": "1%"}}));
    let pointers: Vec<String> = told.unwrap_err().into_iter().map(|problem| problem.pointer).collect();
    assert_eq!(pointers, ["/telemetry/otlpEndpoint", "/telemetry/sample"]);
}

#[test]
fn a_bad_annotation_of_the_namespace_is_refused_as_the_namespaces() {
    let mut namespace = asking();
    namespace.annotations.insert("outrigger.dev/proxy-uid".into(), "root".into());
    let decided = decide(&pod(&json!({})), &namespace, &Settings::default());
    let Decision::Refuse(problems) = decided else { panic!("{decided:?}") };
    assert_eq!(problems[0].pointer, "namespace fx: /metadata/annotations/outrigger.dev~1proxy-uid");
    // The pod's own is good, and wins.
    let own = annotated(&json!({"outrigger.dev/proxy-uid": "2000"}));
    let after = member_with(&own, &namespace, &Settings::default(), true);
    assert_eq!(container(&after, "outrigger-proxy")["securityContext"]["runAsUser"], 2000);
}

#[test]
fn good_annotations_are_obeyed() {
    let after = member(&annotated(&json!({
        "outrigger.dev/proxy-image": "registry.test/proxy:2", "outrigger.dev/proxy-image-pull-policy": "Always",
        "outrigger.dev/proxy-uid": "77", "outrigger.dev/log-level": "debug", "outrigger.dev/version": "v7",
        "outrigger.dev/skip-inbound-ports": "22", "outrigger.dev/skip-outbound-ports": "25, 6000-6010",
        "outrigger.dev/skip-outbound-networks": "10.9.0.0/16,fd09::/32", "outrigger.dev/proxy-cpu-request": "200m",
        "outrigger.dev/proxy-memory-limit": "1Gi", "outrigger.dev/service": "cart", "outrigger.dev/port": "9999",
        "outrigger.dev/env.RUST_BACKTRACE": "1", "outrigger.dev/opaque-ports": "4000, 6000-6010",
    })));
    let (init, proxy) = (container(&after, "outrigger-init"), container(&after, "outrigger-proxy"));
    let image = json!("registry.test/proxy:2");
    assert_eq!((&init["image"], &proxy["image"]), (&image, &image));
    assert_eq!(proxy["imagePullPolicy"], "Always");
    assert_eq!(proxy["resources"]["requests"]["cpu"], "200m");
    let told = ["SKIP_INBOUND_PORTS", "SKIP_OUTBOUND_PORTS", "SKIP_OUTBOUND_NETWORKS", "PROXY_UID"];
    let told = told.map(|name| env(init, &format!("OUTRIGGER_INIT_{name}")));
    assert_eq!(told, ["22", "25,6000-6010", "10.9.0.0/16,fd09::/32", "77"]);
    let told = ["SERVICE", "PORT", "VERSION", "LOG", "OPAQUE_PORTS"]
        .map(|name| env(proxy, &format!("OUTRIGGER_PROXY_{name}")));
    assert_eq!(told, ["cart", "9999", "v7", "debug", "4000,6000-6010"]);
    assert_eq!(env(proxy, "RUST_BACKTRACE"), "1");
}

#[test]
fn what_is_unknown_is_said_with_what_may_have_been_meant() {
    let own =
        json!({"outrigger.dev/proxy-iud": "7", "outrigger.dev/inject": "enabled", "outrigger.dev/undo": "x"});
    let decided = decide(&annotated(&own), &asking(), &Settings::default());
    let Decision::Inject(told) = decided else { panic!("{decided:?}") };
    let words: Vec<&str> = told.warnings().iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words.iter().any(|word| word.contains("outrigger.dev/proxy-uid?")), "{words:?}");
    assert!(words.iter().any(|word| word.contains("a label")), "{words:?}");
}

#[test]
fn a_service_that_is_named_needs_a_port() {
    let mut own = annotated(&json!({"outrigger.dev/service": "cart"}));
    own["spec"]["containers"][0].as_object_mut().unwrap().remove("ports");
    assert_eq!(refused(&own)[0].code, "no_port");
    own["metadata"]["annotations"]["outrigger.dev/port"] = json!("7000");
    assert_eq!(env(container(&member(&own), "outrigger-proxy"), "OUTRIGGER_PROXY_PORT"), "7000");
}

#[test]
fn a_pod_that_asks_for_what_the_server_does_not_keep_is_refused() {
    let old = Settings::from_json(&json!({"kubernetesVersion": "v1.28.9"})).unwrap();
    let own = annotated(&json!({"outrigger.dev/native-sidecar": "true"}));
    let decided = decide(&own, &asking(), &old);
    let Decision::Refuse(problems) = decided else { panic!("{decided:?}") };
    assert!(problems[0].message.contains("1.29"));
    assert_eq!(patch_of(&pod(&json!({})), &asking(), &old).1, Vec::<&str>::new());
}
