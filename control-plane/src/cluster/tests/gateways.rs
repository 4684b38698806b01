//! What Gateways and routes are told of themselves, on an API server that holds statuses to the definitions of the Gateway API.

use super::gateway_api::definitions;
use super::*;

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

struct Told {
    plane: Plane,
    statuses: tokio::sync::Mutex<Statuses>,
}

impl Told {
    async fn start() -> Self {
        let plane = Plane::start().await;
        for definition in &definitions() {
            drop(plane.server.put(definition));
        }
        Self { plane, statuses: tokio::sync::Mutex::default() }
    }

    /// The status of an object, once it is as `is` wants it.
    async fn once(&self, kind: &str, name: &str, what: &str, is: impl Fn(&Json) -> bool) -> Json {
        let status = || self.plane.status(if kind == "Instance" { OURS } else { GATEWAY_API }, kind, name);
        eventually(what, || async {
            self.statuses.lock().await.round(&self.plane.store, &self.plane.state.world()).await;
            is(&status())
        })
        .await;
        status()
    }

    fn put(&self, kind: &str, name: &str, spec: &Json) {
        self.plane.server.put(&object(GATEWAY_API, kind, name, spec));
    }
}

fn listener(name: &str, port: u16, protocol: &str, more: &Json) -> Json {
    let mut listener = json!({ "name": name, "port": port, "protocol": protocol });
    listener.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    listener
}

fn gateway(listeners: &[Json]) -> Json {
    json!({ "gatewayClassName": "outrigger", "listeners": listeners })
}

fn at(parent: &Json, to: &str) -> Json {
    json!({ "parentRefs": [parent], "rules": [{ "backendRefs": [{ "name": to, "port": 80 }] }] })
}

/// A condition as status and reason.
fn said(of: &Json, kind: &str) -> String {
    let all = of["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    format!("{} {}", found["status"].as_str().unwrap_or("-"), found["reason"].as_str().unwrap_or("-"))
}

fn of<'a>(status: &'a Json, listener: &str) -> &'a Json {
    let all = status["listeners"].as_array().unwrap();
    all.iter().find(|l| l["name"] == listener).unwrap_or(&Json::Null)
}

#[tokio::test]
async fn each_listener_is_told_its_kinds_its_routes_and_whether_it_is_in_force() {
    let told = Told::start().await;
    let listeners = [
        listener("web", 80, "HTTP", &json!({ "hostname": "www.shop.example" })),
        listener("api", 80, "HTTP", &json!({ "hostname": "api.shop.example" })),
    ];
    told.put("Gateway", "edge", &gateway(&listeners));
    told.put("HTTPRoute", "both", &at(&json!({ "name": "edge" }), "web"));
    told.put("HTTPRoute", "one", &at(&json!({ "name": "edge", "sectionName": "web" }), "web"));
    // A backend that is not there does not make a route an unattached one; a host name that the listener has not does.
    told.put("HTTPRoute", "dangling", &at(&json!({ "name": "edge", "sectionName": "api" }), "nobody"));
    let mut elsewhere = at(&json!({ "name": "edge", "sectionName": "web" }), "web");
    elsewhere["hostnames"] = json!(["other.example"]);
    told.put("HTTPRoute", "elsewhere", &elsewhere);
    let status = told
        .once("Gateway", "edge", "all are counted", |status| {
            status["listeners"].as_array().is_some_and(|all| all.iter().all(|l| l["attachedRoutes"] == 2))
        })
        .await;
    assert_eq!(
        [said(&status, "Accepted"), said(&status, "Programmed")],
        ["True Accepted", "True Programmed"]
    );
    let kind = |kind| json!({ "group": "gateway.networking.k8s.io", "kind": kind });
    for name in ["web", "api"] {
        let listener = of(&status, name);
        assert_eq!(listener["supportedKinds"], json!([kind("HTTPRoute"), kind("GRPCRoute")]), "{name}");
        let all = ["Accepted", "Programmed", "ResolvedRefs", "Conflicted"].map(|kind| said(listener, kind));
        assert_eq!(
            all,
            ["True Accepted", "True Programmed", "True ResolvedRefs", "False NoConflicts"],
            "{name}"
        );
    }
    let route = told.once("HTTPRoute", "elsewhere", "it is told", |status| !status.is_null()).await;
    assert_eq!(said(&route["parents"][0], "Accepted"), "False NoMatchingListenerHostname");

    // What is as it should be is not written, and what goes is not counted.
    let count = told.plane.server.count();
    for _ in 0..3 {
        told.statuses.lock().await.round(&told.plane.store, &told.plane.state.world()).await;
    }
    assert_eq!(told.plane.server.count(), count);
    told.plane.server.delete(GATEWAY_API, "HTTPRoute", "shop", "both");
    let after = told.once("Gateway", "edge", "it is gone", |s| of(s, "web")["attachedRoutes"] == 1).await;
    let since = |status: &Json| of(status, "web")["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(since(&after), since(&status), "since when it is accepted has not changed");
}

#[tokio::test]
async fn a_gateway_that_does_not_hold_says_which_listener_and_why() {
    let told = Told::start().await;
    let kinds = json!({ "allowedRoutes": { "kinds": [{ "kind": "UDPRoute" }] } });
    let listeners = [
        listener("good", 81, "HTTP", &json!({})),
        listener("tcp", 82, "TCP", &json!({})),
        listener("one", 80, "HTTP", &json!({})),
        listener("two", 80, "HTTP", &json!({})),
        listener(
            "three",
            80,
            "HTTPS",
            &json!({ "hostname": "a.example", "tls": { "certificateRefs": [{ "name": "shop" }] } }),
        ),
        listener("kinds", 83, "HTTP", &kinds),
        listener(
            "bare",
            84,
            "HTTPS",
            &json!({ "tls": { "certificateRefs": [{ "name": "shop", "namespace": "vault" }] } }),
        ),
    ];
    told.put("Gateway", "edge", &gateway(&listeners));
    let status = told.once("Gateway", "edge", "it is told", |status| !status.is_null()).await;
    assert_eq!(
        [said(&status, "Accepted"), said(&status, "Programmed")],
        ["False ListenersNotValid", "False Invalid"]
    );
    let all: Vec<_> = listeners.iter().map(|l| l["name"].as_str().unwrap()).collect();
    let rows: Vec<_> = all
        .iter()
        .map(|name| {
            ["Accepted", "ResolvedRefs", "Conflicted"].map(|kind| said(of(&status, name), kind)).join(", ")
        })
        .collect();
    let fine = "True Accepted, True ResolvedRefs, False NoConflicts";
    assert_eq!(
        rows,
        [
            fine,
            "False UnsupportedProtocol, True ResolvedRefs, False NoConflicts",
            "False HostnameConflict, True ResolvedRefs, True HostnameConflict",
            "False HostnameConflict, True ResolvedRefs, True HostnameConflict",
            "False ProtocolConflict, True ResolvedRefs, True ProtocolConflict",
            "True Accepted, False InvalidRouteKinds, False NoConflicts",
            "True Accepted, False InvalidCertificateRef, False NoConflicts",
        ],
        "{status:#}"
    );
    for name in all {
        let listener = of(&status, name);
        assert_eq!(
            (said(listener, "Programmed").as_str(), &listener["attachedRoutes"]),
            ("False Invalid", &json!(0))
        );
        let none = ["tcp", "kinds"].contains(&name);
        assert_eq!(listener["supportedKinds"].as_array().unwrap().is_empty(), none, "{name}");
    }
    // Mended, it is in force.
    told.put("Gateway", "edge", &gateway(&listeners[..1]));
    let status = told.once("Gateway", "edge", "it holds", |s| said(s, "Accepted") == "True Accepted").await;
    assert_eq!(status["listeners"].as_array().unwrap().len(), 1);
    assert_eq!(said(of(&status, "good"), "Programmed"), "True Programmed");
    assert_eq!(of(&status, "good")["conditions"][0]["observedGeneration"], 2);
}

#[tokio::test]
async fn nothing_is_said_of_what_is_another_controllers() {
    let told = Told::start().await;
    // The routes are there before their Gateways, of which nobody knows yet whose they will be.
    let mut route = at(&json!({ "name": "others" }), "web");
    route["parentRefs"] = json!([{ "name": "others" }, { "name": "edge" }]);
    told.put("HTTPRoute", "between", &route);
    told.put("HTTPRoute", "theirs", &at(&json!({ "name": "others" }), "web"));
    // As another controller has said of its own.
    let mut known = told.plane.server.get(GATEWAY_API, "HTTPRoute", "shop", "between").unwrap();
    let condition = json!({ "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                            "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let entry = json!({ "parentRef": { "name": "others" }, "controllerName": "other.example/controller",
                        "conditions": [condition] });
    known["status"] = json!({ "parents": [entry] });
    told.plane.server.put(&known);
    // What is written later and has its status shows that these were looked at.
    told.put("HTTPRoute", "of-cart", &at(&json!({ "kind": "Service", "group": "", "name": "cart" }), "http"));
    told.once("HTTPRoute", "of-cart", "it is told", |s| {
        s["parents"].as_array().is_some_and(|all| all.len() == 1)
    })
    .await;
    assert_eq!(told.plane.status(GATEWAY_API, "HTTPRoute", "between")["parents"], json!([entry]));
    assert!(told.plane.status(GATEWAY_API, "HTTPRoute", "theirs").is_null());

    let mut others = gateway(&[listener("web", 80, "UDP", &json!({}))]);
    others["gatewayClassName"] = "other".into();
    told.put("Gateway", "others", &others);
    told.put("Gateway", "edge", &gateway(&[listener("web", 80, "HTTP", &json!({}))]));
    let of_edge = |status: &Json| {
        let parents = status["parents"].as_array().into_iter().flatten();
        let ours: Vec<Json> = parents.filter(|parent| **parent != entry).cloned().collect();
        assert!(ours.iter().all(|parent| parent["parentRef"]["name"] == "edge"), "{status:#}");
        ours.first().map(|parent| said(parent, "Accepted"))
    };
    let holds = |status: &Json| of_edge(status).as_deref() == Some("True Accepted");
    let status = told.once("HTTPRoute", "between", "ours is told", holds).await;
    assert!(status["parents"].as_array().unwrap().contains(&entry), "{status:#}");
    assert!(told.plane.status(GATEWAY_API, "Gateway", "others").is_null());
    assert!(told.plane.status(GATEWAY_API, "HTTPRoute", "theirs").is_null());
}

#[tokio::test]
async fn an_instance_that_somebody_wrote_says_whether_it_is_in_force() {
    let told = Told::start().await;
    let instance = |name: &str, service: &str| {
        let spec = json!({ "service": service, "address": "10.0.0.9" });
        told.plane.server.put(&object(OURS, "Instance", name, &spec));
    };
    instance("vm-1", "cart");
    instance("vm-2", "nobody");
    for (name, wanted) in [("vm-1", "True Accepted"), ("vm-2", "False Invalid")] {
        told.once("Instance", name, name, |status| said(status, "Accepted") == wanted).await;
    }
}
