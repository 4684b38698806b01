//! The way back.

use outrigger_inject::{Settings, removal};
use serde_json::{Value, json};

use crate::check::apply;
use crate::support::{Between, annotated, asking, member_with, pod, recorded};

fn removed(member: &Value) -> Value {
    apply(member, &serde_json::to_value(removal(member).unwrap()).unwrap()).unwrap()
}

#[test]
fn what_was_added_is_taken_away_and_the_pod_is_as_it_was() {
    let probed = json!({"livenessProbe": {"httpGet": {"port": "http", "path": "/"}},
        "lifecycle": {"preStop": {"tcpSocket": {"port": 8080}}}});
    let scraped =
        json!({"prometheus.io/scrape": "true", "prometheus.io/port": "1", "outrigger.dev/proxy-uid": "7"});
    let pods = [
        pod(&json!({})),
        annotated(&scraped),
        pod(&json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}], "containers": [probed]}})),
        pod(&json!({"metadata": {"labels": {"outrigger.dev/inject": "ingress"}}})),
        recorded("deployment.0.json"),
        recorded("notoken.0.json"),
        recorded("sharepid.0.json"),
    ];
    for before in pods {
        for native in [true, false] {
            let settings = json!({"nativeSidecar": native, "imagePullSecrets": ["s"]});
            let settings = Settings::from_json(&settings).unwrap();
            assert_eq!(removed(&member_with(&before, &asking(), &settings, native)), before);
        }
    }
    assert_eq!(removal(&pod(&json!({}))), None);
}

#[test]
fn what_the_api_server_added_to_our_containers_goes_with_them() {
    let before = recorded("deployment.0.json");
    let member = member_with(&before, &asking(), &Settings::default(), true);
    let later = Between::of(&recorded("deployment.1.json")).apply(&member);
    assert_eq!(removed(&later), before);
}
