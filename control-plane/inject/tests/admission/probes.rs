//! Probes of every kind, at every place.

use outrigger_inject::Settings;
use serde_json::{Value, json};

use crate::check::env;
use crate::support::{asking, container, member, member_with, patch_of, pod};

fn table(member: &Value) -> Value {
    serde_json::from_str(&env(container(member, "outrigger-proxy"), "OUTRIGGER_PROXY_APP_PROBES")).unwrap()
}

fn app(fields: &Value) -> Value {
    pod(&json!({"spec": {"containers": [fields]}}))
}

#[test]
fn probes_and_hooks_of_every_kind_ask_the_sidecar_which_knows_whom_they_asked() {
    let own = app(&json!({
        "livenessProbe": {"httpGet": {"path": "/live?x=1", "port": "http", "scheme": "HTTPS",
            "httpHeaders": [{"name": "X-A", "value": "1"}]}, "timeoutSeconds": 7, "failureThreshold": 9},
        "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 2},
        "startupProbe": {"grpc": {"port": 9001, "service": "cart"}},
        "lifecycle": {"preStop": {"httpGet": {"port": 8080, "path": "/stop"}},
            "postStart": {"tcpSocket": {"port": "http"}}},
    }));
    let after = member(&own);
    let at = |last: &str| json!({"path": format!("/app-health/app/{last}"), "port": 15020, "scheme": "HTTP"});
    let app = container(&after, "app");
    assert_eq!(
        app["livenessProbe"],
        json!({"timeoutSeconds": 7, "failureThreshold": 9, "httpGet": at("livez")})
    );
    assert_eq!(app["readinessProbe"], json!({"periodSeconds": 2, "httpGet": at("readyz")}));
    assert_eq!(app["startupProbe"], json!({"httpGet": at("startupz")}));
    let hooks = json!({"preStop": {"httpGet": at("prestop")}, "postStart": {"httpGet": at("poststart")}});
    assert_eq!(app["lifecycle"], hooks);
    let live = json!({"port": 8080, "path": "/live?x=1", "tls": true, "headers": [["X-A", "1"]]});
    let stop = json!({"port": 8080, "path": "/stop", "tls": false, "headers": []});
    assert_eq!(
        table(&after),
        json!({
            "/app-health/app/livez": {"http": live, "seconds": 7},
            "/app-health/app/readyz": {"tcp": {"port": 9000}, "seconds": 1},
            "/app-health/app/startupz": {"grpc": {"port": 9001, "service": "cart"}, "seconds": 1},
            "/app-health/app/prestop": {"http": stop, "seconds": 30},
            "/app-health/app/poststart": {"tcp": {"port": 8080}, "seconds": 60},
        })
    );
}

#[test]
fn what_needs_no_help_stays_as_it_is() {
    for fields in [
        json!({"livenessProbe": {"exec": {"command": ["true"]}}}),
        json!({"livenessProbe": {"httpGet": {"host": "elsewhere.test", "port": 80}}}),
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}),
    ] {
        let own = app(&fields);
        assert_eq!(container(&member(&own), "app"), container(&own, "app"));
    }
    let probe = json!({"livenessProbe": {"httpGet": {"port": 8080}}});
    for (name, value) in [("rewrite-probes", "false"), ("skip-inbound-ports", "8000-9000")] {
        let mut own = app(&probe);
        own["metadata"]["annotations"] = json!({format!("outrigger.dev/{name}"): value});
        assert_eq!(container(&member(&own), "app")["livenessProbe"], probe["livenessProbe"]);
    }
}

#[test]
fn a_port_whose_name_nobody_has_is_said() {
    let own = app(&json!({"livenessProbe": {"httpGet": {"port": "wrong"}}}));
    assert_eq!(patch_of(&own, &asking(), &Settings::default()).1, ["unknown_probe_port"]);
}

/// A native sidecar of the pod's own is probed while the pod starts: ours answers only if it began before.
#[test]
fn initial_containers_are_asked_through_the_sidecar_only_where_that_runs_before_them() {
    let probe = json!({"tcpSocket": {"port": 6379}});
    let cache = json!({"name": "cache", "image": "c", "restartPolicy": "Always", "startupProbe": probe});
    let own = pod(&json!({"spec": {"initContainers": [cache]}}));
    let native = member(&own);
    let path = &container(&native, "cache")["startupProbe"]["httpGet"]["path"];
    assert_eq!(path, "/app-health/cache/startupz");
    let classical = Settings::from_json(&json!({"nativeSidecar": false})).unwrap();
    let after = member_with(&own, &asking(), &classical, false);
    assert_eq!(container(&after, "cache")["startupProbe"], probe);
    assert_eq!(patch_of(&own, &asking(), &classical).1, ["early_probes"]);
}
