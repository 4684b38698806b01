//! The rules of what Services, slices and pods mean, as tables.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use serde_json::{Value, json};

use super::service::protocol;
use super::*;
use crate::follow::Told;

fn namespace(inject: Option<&str>) -> Value {
    let labels = inject.map_or(json!({}), |word| json!({ "outrigger.dev/inject": word }));
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop", "labels": labels } })
}

fn service(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "shop", "resourceVersion": "7" }, "spec": spec,
    })
}

fn cart() -> Value {
    let ports = json!([{ "port": 80, "name": "http", "targetPort": 8080 }]);
    service("cart", &json!({ "ports": ports, "ipFamilies": ["IPv4"] }))
}

/// A pod of cart with a sidecar, but for what stands at these pointers.
fn pod(name: &str, more: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"), "resourceVersion": "9",
                      "labels": { "outrigger.dev/injected": "true", "version": "v2" } },
        "spec": { "serviceAccountName": "cart" },
    });
    for (pointer, value) in more.as_object().into_iter().flatten() {
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[last] = value.clone();
    }
    pod
}

fn slice(name: &str, of: &str, address_type: &str, endpoints: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": address_type,
        "metadata": { "name": name, "namespace": "shop", "resourceVersion": "8",
                      "labels": { "kubernetes.io/service-name": of } },
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }], "endpoints": endpoints,
    })
}

fn endpoint(address: &str, pod: &str, conditions: &Value) -> Value {
    json!({
        "addresses": [address], "conditions": conditions, "zone": "west-1", "nodeName": "n1",
        "targetRef": { "kind": "Pod", "name": pod, "namespace": "shop" },
    })
}

fn ready(address: &str, pod: &str) -> Value {
    endpoint(address, pod, &json!({ "ready": true }))
}

fn facts(objects: &[Value]) -> Facts {
    let mut facts = Facts::default();
    for object in objects {
        facts.take(&of(object), &Told::Changed(object.clone()));
    }
    facts
}

fn of(object: &Value) -> Collection {
    SOURCES.into_iter().find(|of| object["kind"] == of.kind).unwrap()
}

fn at(name: &str) -> (String, String) {
    ("shop".into(), name.into())
}

/// What the instances of cart say, in the order of their addresses.
fn told(facts: &Facts) -> Vec<Value> {
    let mut all: Vec<Value> = facts.instances(&at("cart")).into_values().map(|i| i["spec"].clone()).collect();
    all.sort_by_key(|spec| spec["address"].to_string());
    all
}

#[test]
fn a_service_is_a_mesh_service_with_its_ports_and_the_accounts_of_its_pods() {
    let facts = facts(&[
        namespace(Some("enabled")),
        cart(),
        pod("a", &json!({})),
        pod("b", &json!({ "/spec/serviceAccountName": "cart-canary" })),
        pod("c", &json!({ "/spec/serviceAccountName": "somebody-else" })),
        slice("s", "cart", "IPv4", &json!([ready("10.0.0.1", "a"), ready("10.0.0.2", "b")])),
    ]);
    let (derived, version) = facts.service(&at("cart")).unwrap();
    assert_eq!(version, 7);
    let expected = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService",
        "metadata": { "name": "cart", "namespace": "shop" },
        "spec": {
            "ports": [{ "port": 80, "name": "http", "protocol": "http" }],
            "identities": ["cart", "cart-canary"], "mtls": "strict", "discovery": "kubernetes",
        },
    });
    assert_eq!(derived, expected);
}

#[test]
fn a_service_is_called_by_the_addresses_of_its_cluster() {
    let none = Value::Null;
    for (spec, told) in [
        (
            json!({ "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"] }),
            json!(["10.96.0.7", "fd00:96::7"]),
        ),
        (json!({ "clusterIP": "10.96.0.7" }), json!(["10.96.0.7"])),
        (json!({ "clusterIP": "None", "clusterIPs": ["None"] }), none.clone()),
        (json!({ "clusterIP": "", "clusterIPs": [] }), none.clone()),
        (json!({}), none),
    ] {
        let mut with = cart();
        with["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let derived = derive(&with, &namespace(None), &Behind::default());
        assert_eq!(derived["status"]["clusterAddresses"], told, "{spec}");
        if !told.is_null() {
            assert_eq!(derived["status"]["meshed"], false);
            let meshed = Behind { meshed: true, ..Behind::default() };
            let bare = Behind { bare: true, ..Behind::default() };
            let both = Behind { bare: true, ..meshed.clone() };
            let (on, off) = (namespace(Some("enabled")), namespace(None));
            let rows = [
                (&off, &meshed, true),
                (&off, &both, true),
                (&off, &bare, false),
                (&on, &Behind::default(), true),
                (&on, &bare, false),
                (&on, &both, true),
            ];
            for (namespace, behind, is_meshed) in rows {
                assert_eq!(derive(&with, namespace, behind)["status"]["meshed"], is_meshed, "{behind:?}");
            }
        }
    }
}

#[test]
fn who_is_asked_to_prove_himself() {
    for (inject, on_namespace, on_service, expected) in [
        (None, None, None, "permissive"),
        (Some("enabled"), None, None, "strict"),
        (Some("disabled"), None, None, "permissive"),
        (Some("enabled"), Some("permissive"), None, "permissive"),
        (Some("enabled"), Some("permissive"), Some("strict"), "strict"),
        (None, None, Some("off"), "off"),
        (None, None, Some("Strict?"), "strict"),
    ] {
        let note = |word: Option<&str>| word.map_or(json!({}), |word| json!({ "outrigger.dev/mtls": word }));
        let (mut namespace, mut service) = (namespace(inject), cart());
        namespace["metadata"]["annotations"] = note(on_namespace);
        service["metadata"]["annotations"] = note(on_service);
        let derived = derive(&service, &namespace, &Behind::default());
        assert_eq!(derived["spec"]["mtls"], expected, "{inject:?} {on_namespace:?} {on_service:?}");
        assert_eq!(derived["spec"]["identities"], json!(["default"]), "the account of pods that name none");
    }
}

#[test]
fn which_services_are_none_of_the_mesh() {
    let discover = |word: &str| json!({ "outrigger.dev/discover": word });
    for (name, spec, on_service, expected) in [
        ("cart", json!({}), json!({}), true),
        ("cart", json!({ "clusterIP": "None" }), json!({}), true),
        ("cart", json!({ "type": "ExternalName", "externalName": "cart.example.com" }), json!({}), false),
        ("cart", json!({}), discover("disabled"), false),
        ("cart", json!({}), discover("enabled"), true),
        ("Cart!", json!({}), json!({}), false),
    ] {
        let mut service = service(name, &spec);
        service["metadata"]["annotations"] = on_service;
        assert_eq!(is_meant(&service, &namespace(None)), expected, "{service}");
    }
    let mut api = service("kubernetes", &json!({}));
    api["metadata"]["namespace"] = "default".into();
    assert!(!is_meant(&api, &Value::Null), "the API server itself");
    let mut left_out = namespace(None);
    left_out["metadata"]["annotations"] = discover("disabled");
    assert!(!is_meant(&cart(), &left_out), "a namespace that is left out");
}

#[test]
fn a_port_speaks_what_its_app_protocol_says_or_else_its_name() {
    for (port, expected) in [
        (json!({}), None),
        (json!({ "name": "http" }), Some("http")),
        (json!({ "name": "http-metrics" }), Some("http")),
        (json!({ "name": "grpc-web", "appProtocol": "http" }), Some("http")),
        (json!({ "name": "web", "appProtocol": "kubernetes.io/h2c" }), Some("http2")),
        (json!({ "name": "https" }), Some("tls")),
        (json!({ "name": "redis" }), Some("tcp")),
        (json!({ "name": "httpd" }), None),
        (json!({ "name": "http", "appProtocol": "example.com/own" }), None),
    ] {
        assert_eq!(protocol(&port), expected, "{port}");
    }
    let spec = json!({ "ports": [
        { "port": 53, "protocol": "UDP" }, { "port": 80, "name": "web" }, { "port": 80, "name": "again" },
        { "port": 0 }, { "port": 9090 },
    ]});
    let derived = derive(&service("cart", &spec), &Value::Null, &Behind::default());
    assert_eq!(derived["spec"]["ports"], json!([{ "port": 80, "name": "web" }, { "port": 9090 }]));
}

#[test]
fn a_port_is_opaque_where_its_service_its_namespace_or_a_pod_behind_it_says_so() {
    let said = |object: &mut Value, ports: &str| {
        object["metadata"]["annotations"]["outrigger.dev/opaque-ports"] = ports.into();
    };
    // Callers use 80, the pods listen at 8080.
    for (on_namespace, on_service, on_pods, expected) in [
        (None, None, [None, None], "http"),
        (None, Some("80"), [None, None], "tcp"),
        (None, Some("8080"), [None, None], "http"),
        (None, None, [None, Some("8000-8100")], "tcp"),
        (None, None, [None, Some("80")], "http"),
        (Some("80"), None, [None, None], "tcp"),
        (Some("8080"), None, [None, None], "tcp"),
        (Some("80"), Some("81"), [None, None], "http"),
        (Some("8080"), None, [Some("1"), Some("2")], "http"),
        (None, Some("80-70"), [None, Some("x")], "http"),
    ] {
        let (mut of, mut cart) = (namespace(Some("enabled")), cart());
        if let Some(ports) = on_namespace {
            said(&mut of, ports);
        }
        if let Some(ports) = on_service {
            said(&mut cart, ports);
        }
        let mut facts = Facts::default();
        facts.take(&NAMESPACES, &Told::Changed(of));
        facts.take(&SERVICES, &Told::Changed(cart));
        for (name, ports) in ["a", "b"].into_iter().zip(on_pods) {
            let mut pod = pod(name, &json!({}));
            if let Some(ports) = ports {
                said(&mut pod, ports);
            }
            facts.take(&PODS, &Told::Changed(pod));
        }
        let both = json!([ready("10.0.0.1", "a"), ready("10.0.0.2", "b")]);
        facts.take(&SLICES, &Told::Changed(slice("cart-1", "cart", "IPv4", &both)));
        let (meant, _) = facts.service(&("shop".into(), "cart".into())).unwrap();
        let all = (on_namespace, on_service, on_pods);
        assert_eq!(meant["spec"]["ports"][0]["protocol"], expected, "{all:?}");
    }
    let mut bad = cart();
    said(&mut bad, "80-70");
    assert!(
        misread(&bad).unwrap().contains("outrigger.dev/opaque-ports"),
        "what counts as not written is told"
    );
    assert_eq!(misread(&cart()), None);
}

#[test]
fn what_a_mesh_service_says_wins_field_by_field() {
    let derived = derive(
        &cart(),
        &namespace(Some("enabled")),
        &Behind { accounts: ["cart".to_owned()].into(), ..Behind::default() },
    );
    let written = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService",
        "metadata": { "name": "cart", "namespace": "shop", "labels": { "team": "a" } },
        "spec": { "mtls": "permissive", "timeouts": { "request": "3s" } },
    });
    let whole = added(&derived, &written);
    assert_eq!(whole["metadata"], written["metadata"]);
    let expected = json!({
        "ports": [{ "port": 80, "name": "http", "protocol": "http" }], "identities": ["cart"],
        "mtls": "permissive", "discovery": "kubernetes", "timeouts": { "request": "3s" },
    });
    assert_eq!(whole["spec"], expected);
}

#[test]
fn an_endpoint_is_an_instance_while_it_is_ready_and_drains_while_it_ends() {
    for (conditions, ending, expected) in [
        (json!({}), false, Some(None)),
        (json!({ "ready": true }), false, Some(None)),
        (json!({ "ready": false }), false, None),
        (json!({ "ready": false, "serving": true }), false, None),
        (json!({ "ready": false, "serving": true, "terminating": true }), false, Some(Some("draining"))),
        (json!({ "ready": false, "serving": false, "terminating": true }), false, None),
        (json!({ "ready": true, "serving": true, "terminating": true }), false, Some(Some("draining"))),
        // The pod knows before its slice does.
        (json!({ "ready": true }), true, Some(Some("draining"))),
        (json!({ "ready": false }), true, None),
    ] {
        let when = if ending { json!("2026-04-01T00:00:00Z") } else { Value::Null };
        let facts = facts(&[
            cart(),
            pod("a", &json!({ "/metadata/deletionTimestamp": when })),
            slice("s", "cart", "IPv4", &json!([endpoint("10.0.0.1", "a", &conditions)])),
        ]);
        let told = told(&facts);
        let state = told.first().map(|spec| spec["state"].as_str());
        assert_eq!(state, expected, "{conditions} {ending}");
    }
}

#[test]
fn an_instance_has_the_ports_version_zone_and_sidecar_of_its_pod() {
    let bare =
        json!({ "/metadata/labels": {}, "/metadata/annotations": { "outrigger.dev/version": "blue" } });
    let mut own = slice("own", "cart", "IPv4", &json!([{ "addresses": ["10.0.0.9"] }]));
    own["ports"][0]["port"] = 9000.into();
    let endpoints = json!([
        ready("10.0.0.1", "a"),
        ready("10.0.0.2", "b"),
        ready("10.0.0.3", "c"),
        ready("10.0.0.4", "not-told-yet"),
    ]);
    let facts = facts(&[
        cart(),
        pod("a", &json!({})),
        pod("b", &bare),
        pod("c", &json!({ "/spec/hostNetwork": true })),
        slice("s", "cart", "IPv4", &endpoints),
        own,
    ]);
    let instance = |address: &str, more: &Value| {
        let ports = json!([{ "port": 80, "listen": 8080 }]);
        let mut spec = json!({ "service": "cart", "address": address, "ports": ports });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let own_port = json!({ "ports": [{ "port": 80, "listen": 9000 }], "transport": "plaintext" });
    let expected = [
        instance("10.0.0.1", &json!({ "version": "v2", "zone": "west-1" })),
        instance("10.0.0.2", &json!({ "version": "blue", "zone": "west-1", "transport": "plaintext" })),
        instance("10.0.0.3", &json!({ "version": "v2", "zone": "west-1", "transport": "plaintext" })),
        instance("10.0.0.9", &own_port),
    ];
    assert_eq!(told(&facts), expected);
}

/// A pod that is injected for what leaves it alone took part as one with a sidecar: callers spoke TLS to the bare application.
#[test]
fn only_a_pod_at_which_everything_arrives_by_its_sidecar_is_reached_by_mutual_tls() {
    for (injected, transport) in [
        (json!("true"), None),
        (json!("outbound"), Some("plaintext")),
        (json!("True"), Some("plaintext")),
        (json!("what comes later"), Some("plaintext")),
        (Value::Null, Some("plaintext")),
    ] {
        let facts = facts(&[
            cart(),
            pod("a", &json!({ "/metadata/labels": { "outrigger.dev/injected": injected } })),
            slice("s", "cart", "IPv4", &json!([ready("10.0.0.1", "a")])),
        ]);
        let told = told(&facts);
        assert_eq!(told.len(), 1, "{injected}");
        assert_eq!(told[0]["transport"].as_str(), transport, "{injected}");
    }
}

#[test]
fn of_two_families_the_first_of_the_service_counts() {
    for (families, expected) in [(json!(["IPv4", "IPv6"]), "10.0.0.1"), (json!(["IPv6", "IPv4"]), "fd00::1")]
    {
        let mut service = cart();
        service["spec"]["ipFamilies"] = families;
        let facts = facts(&[
            service,
            pod("a", &json!({})),
            slice("four", "cart", "IPv4", &json!([ready("10.0.0.1", "a")])),
            slice("six", "cart", "IPv6", &json!([ready("fd00::1", "a")])),
            slice("names", "cart", "FQDN", &json!([{ "addresses": ["cart.example.com"] }])),
        ]);
        assert_eq!(told(&facts).iter().map(|spec| &spec["address"]).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn a_pod_behind_two_services_is_two_instances_and_a_new_pod_of_its_name_another() {
    let endpoints = json!([ready("10.0.0.1", "db-0")]);
    let headless = json!({ "clusterIP": "None", "ports": [{ "port": 80, "name": "http" }] });
    let mut facts = facts(&[
        cart(),
        service("db", &headless),
        pod("db-0", &json!({})),
        slice("one", "cart", "IPv4", &endpoints),
        slice("two", "db", "IPv4", &endpoints),
        // While slices are rearranged, an endpoint is in two of them.
        slice("three", "db", "IPv4", &endpoints),
    ]);
    let names =
        |facts: &Facts| ["cart", "db"].map(|of| facts.instances(&at(of)).into_keys().collect::<Vec<_>>());
    let before = names(&facts);
    assert_eq!(before.each_ref().map(Vec::len), [1, 1]);
    assert_ne!(before[0], before[1]);
    assert!(before[1][0].starts_with("db-0-"), "{before:?}");
    facts.take(&PODS, &Told::Changed(pod("db-0", &json!({ "/metadata/uid": "another" }))));
    assert_ne!(names(&facts)[1], before[1]);
}

#[test]
fn only_what_a_change_reaches_is_touched() {
    let own_slice = || slice("s", "cart", "IPv4", &json!([ready("10.0.0.1", "a")]));
    let mut facts =
        facts(&[namespace(None), cart(), service("web", &json!({})), pod("a", &json!({})), own_slice()]);
    let cart_alone: Touched = [at("cart")].into();
    let both: Touched = [at("cart"), at("web")].into();
    for (object, expected) in [
        (pod("a", &json!({ "/metadata/resourceVersion": "99" })), Touched::new()),
        (pod("nowhere", &json!({})), Touched::new()),
        (pod("a", &json!({ "/spec/serviceAccountName": "other" })), cart_alone.clone()),
        (slice("s", "web", "IPv4", &json!([])), both.clone()),
        (namespace(None), Touched::new()),
        (namespace(Some("enabled")), both.clone()),
    ] {
        assert_eq!(facts.take(&of(&object), &Told::Changed(object.clone())), expected, "{object}");
    }
    facts.take(&SLICES, &Told::Changed(own_slice()));
    assert_eq!(facts.take(&PODS, &Told::Gone(pod("a", &json!({})))), cart_alone, "the end of a pod");
    assert_eq!(facts.take(&SERVICES, &Told::All(vec![], 9)), both, "what was there, and is not any more");
    assert_eq!(facts.service(&at("cart")), None);
}
