//! Where requests go: shares, and references that lead nowhere.

use crate::case::{Case, all, case, get, http_route};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = weights();
    cases.extend(invalid());
    cases.extend(ports());
    cases.extend(refused());
    cases
}

fn to(backends: &str) -> String {
    format!("[{{backendRefs: [{backends}]}}]")
}

fn weights() -> Vec<Case> {
    const PLACE: &str = "BackendRef.weight";
    vec![
        case("weight-share", PLACE, "a backend gets its weight's part of all weights")
            .rules(&to("{name: a, port: 80, weight: 9}, {name: b, port: 80, weight: 1}"))
            .ask(get("/").times(600).status(200).share("a", 90).share("b", 10)),
        case("weight-sum", PLACE, "weights are no percentages, and their sum is what it is")
            .rules(&to("{name: a, port: 80, weight: 300}, {name: b, port: 80, weight: 100}"))
            .ask(get("/").times(160).status(200).share("a", 75)),
        case("weight-three", PLACE, "there may be more than two")
            .rules(&to("{name: a, port: 80, weight: 2}, {name: b, port: 80, weight: 1}, {name: c, port: 80, weight: 1}"))
            .ask(get("/").times(160).status(200).share("a", 50).share("b", 25).share("c", 25)),
        case("weight-default", PLACE, "a weight that is not written is 1")
            .rules(&to("{name: a, port: 80}, {name: b, port: 80, weight: 3}"))
            .ask(get("/").times(160).status(200).share("a", 25)),
        case("weight-one", PLACE, "one backend gets everything, whatever its weight")
            .rules(&to("{name: a, port: 80, weight: 17}"))
            .ask(get("/").times(20).to("a")),
        case("weight-zero", PLACE, "a backend of weight 0 gets nothing")
            .rules(&to("{name: a, port: 80, weight: 0}, {name: b, port: 80, weight: 1}"))
            .ask(get("/").times(40).to("b").arrives("a", 0)),
        case("weight-rule", "HTTPRouteRule.backendRefs", "each rule has its own backends")
            .rules("[{matches: [{path: {value: /one}}], backendRefs: [$A]}, {matches: [{path: {value: /two}}], backendRefs: [$B]}]")
            .ask(get("/one").to("a"))
            .ask(get("/two").to("b")),
    ]
}

fn invalid() -> Vec<Case> {
    const PLACE: &str = "HTTPRouteRule.backendRefs";
    const WHY: &str = "HTTPBackendRef.BackendRef";
    let nobody = "{name: nobody, port: 80}";
    let bucket = "{group: example.com, kind: Bucket, name: bucket, port: 80}";
    let far = "{name: a, namespace: far, port: 80}";
    vec![
        case("backend-all-invalid", PLACE, "where no backend of a rule is valid every request is answered 500")
            .rules(&to(nobody))
            .ask(get("/").times(5).status(500)),
        case("backend-some-invalid", PLACE, "the share of an invalid backend is answered 500, that of the others is not")
            .rules(&to(&format!("$A, {nobody}")))
            .ask(get("/").times(120).share("500", 50).share("a", 50)),
        case("backend-invalid-weight", PLACE, "also where the shares differ")
            .rules(&to("{name: a, port: 80, weight: 3}, {name: nobody, port: 80, weight: 1}"))
            .ask(get("/").times(160).share("500", 25).share("a", 75)),
        case("backend-none", PLACE, "a rule without backends and filters answers 500")
            .rules("[{matches: [{path: {value: /none}}]}, {backendRefs: [$A]}]")
            .ask(get("/none").status(500))
            .ask(get("/").to("a")),
        case("backend-not-found", WHY, "a backend that is not there: ResolvedRefs is False with BackendNotFound, and its message names it")
            .rules(&to(nobody))
            .tells("httproutes", ("shop", "$NAME"), ("ResolvedRefs", Some("False"), "BackendNotFound"), "nobody"),
        case("backend-kind", WHY, "a backend of a kind that is not known: ResolvedRefs is False with InvalidKind, and its message names it")
            .rules(&to(bucket))
            .tells("httproutes", ("shop", "$NAME"), ("ResolvedRefs", Some("False"), "InvalidKind"), "Bucket")
            .ask(get("/").status(500)),
        case("backend-not-permitted", WHY, "a backend in another namespace that does not grant it: ResolvedRefs is False with RefNotPermitted, and its message names it")
            .rules(&to(far))
            .tells("httproutes", ("shop", "$NAME"), ("ResolvedRefs", Some("False"), "RefNotPermitted"), "far")
            .ask(get("/").status(500)),
        case("backend-protocol", "HTTPBackendRef", "a backend that does not speak HTTP: ResolvedRefs is False with UnsupportedProtocol")
            .rules(&to("{name: opaque, port: 80}"))
            .says("ResolvedRefs", "False", "UnsupportedProtocol")
            .ask(get("/").status(500)),
        case("backend-resolved", "RouteConditionResolvedRefs", "where all are found ResolvedRefs is True")
            .rules(&to("$A, $B"))
            .says("ResolvedRefs", "True", "ResolvedRefs"),
        case("backend-comes", WHY, "a backend that comes later is taken then, without the route being written again")
            .rules(&to("{name: $NAME-late, port: 80}"))
            .ask(get("/").status(500))
            .apply(&all(&[LATE.to_owned()]))
            .says("ResolvedRefs", "True", "ResolvedRefs")
            .ask(get("/").to("a")),
        case("backend-accepted", "RouteParentStatus.conditions", "a route whose backends are not found is accepted all the same")
            .rules(&to(nobody))
            .says("Accepted", "True", "Accepted"),
        case("backend-empty", PLACE, "a backend without instances is answered 503 (recommended)")
            .rules(&to("{name: empty, port: 80}"))
            .ask(get("/").times(3).status(503)),
        case("backend-empty-share", PLACE, "where 503 is answered for a backend without instances it is answered for its share")
            .rules(&to("$A, {name: empty, port: 80}"))
            .ask(get("/").times(40).to("a"))
            .unsupported("what has no instance takes nothing from the others; 503 is answered where no backend has any"),
    ]
}

const LATE: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: $NAME-late, namespace: shop}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: $NAME-late-1, namespace: shop}
spec: {service: $NAME-late, address: 127.0.0.1, ports: [{port: 80, listen: $PORT-A}], transport: plaintext}
";

fn ports() -> Vec<Case> {
    vec![
        case("backend-port", "BackendObjectReference.port", "a request goes to the port of the backend that is written")
            .rules("[{matches: [{path: {value: /80}}], backendRefs: [{group: outrigger.dev, kind: ServiceVersion, name: two.v1, port: 80}]}, \
                    {matches: [{path: {value: /8080}}], backendRefs: [{group: outrigger.dev, kind: ServiceVersion, name: two.v1, port: 8080}]}]")
            .ask(get("/80").to("a"))
            .ask(get("/8080").to("b")),
        case("backend-port-unknown", "BackendObjectReference.port", "a port that the backend does not have leads nowhere: ResolvedRefs is False")
            .rules(&to("{name: a, port: 81}"))
            .says("ResolvedRefs", "False", "BackendNotFound")
            .ask(get("/").status(500)),
        case("backend-core", "BackendObjectReference.kind", "without group and kind a backend is a Service")
            .rules(&to("{name: a, port: 80}, {group: \"\", kind: Service, name: a, port: 80}"))
            .ask(get("/").times(4).to("a")),
        case("backend-host", "HTTPRouteSpec.hostnames", "the Host of the request goes on as it is")
            .at_a_gateway()
            .rules(&to("$A"))
            .ask(get("/").to("a").sends("host", "$NAME.example")),
    ]
}

fn refused() -> Vec<Case> {
    let seventeen = vec!["$A"; 17].join(", ");
    let at = "/backendRefs";
    vec![
        case("weight-range", "BackendRef.weight", "a weight is a number from 0 to 1000000")
            .refuses(&to("{name: a, port: 80, weight: -1}"), at)
            .refuses(&to("{name: a, port: 80, weight: 1000001}"), at),
        case("backend-count", "HTTPRouteRule.backendRefs", "a rule has at most 16 backends")
            .refuses(&to(&seventeen), at),
        case("backend-name-required", "BackendObjectReference.name", "a backend has a name")
            .refuses(&to("{port: 80}"), at),
        case("backend-port-range", "BackendObjectReference.port", "a port is a number from 1 to 65535")
            .refuses(&to("{name: a, port: 0}"), at)
            .refuses_all(&http_route(&to("{name: a, port: 65536}")), at),
    ]
}
