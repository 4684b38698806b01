//! Whose requests a route takes: its parents, producers and consumers.

use crate::case::{Case, all, case, get, http_route, route, route_of};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = services();
    cases.extend(consumers());
    cases.extend(ports());
    cases.extend(refused());
    cases
}

const TO_A: &str = "[{backendRefs: [$A]}]";
const TO_B: &str = "[{backendRefs: [$B]}]";

/// An HTTPRoute of `shop` with these parents.
fn of(parents: &str, rules: &str) -> String {
    route_of("HTTPRoute", ("shop", "$NAME"), parents, "", rules)
}

/// One more service, without instances.
const SECOND: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: $NAME-second, namespace: $NS}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}]}
";

fn second(namespace: &str) -> String {
    SECOND.replace("$NS", namespace)
}

fn services() -> Vec<Case> {
    let both =
        "[{group: \"\", kind: Service, name: $NAME}, {group: \"\", kind: Service, name: $NAME-second}]";
    let mixed =
        "[{group: \"\", kind: Service, name: $NAME-second}, {name: edge, namespace: shop, sectionName: web}]";
    vec![
        case("parent-service", "ParentReference.kind", "a Service can be a parent: the route is for the requests of its callers")
            .in_the_mesh()
            .rules(TO_A)
            .ask(get("/").to("a")),
        case("parent-gateway", "ParentReference.kind", "a Gateway can be a parent: the route is for the requests that come there")
            .at_a_gateway()
            .rules(TO_A)
            .ask(get("/").to("a")),
        case("parent-several", "CommonRouteSpec.parentRefs", "a route may have several parents and holds at each")
            .in_the_mesh()
            .apply(&all(&[second("shop"), of(both, TO_A)]))
            .ask(get("/").to("a"))
            .ask(get("/").host("$NAME-second").to("a")),
        case("parent-mixed", "CommonRouteSpec.parentRefs", "parents may be of several kinds")
            .apply(&all(&[second("shop"), route_of("HTTPRoute", ("shop", "$NAME"), mixed, "", "[{matches: [{path: {type: Exact, value: /$NAME}}], backendRefs: [$A]}]")]))
            .says_of(0, "Accepted", "True", "Accepted")
            .says_of(1, "Accepted", "True", "Accepted"),
        case("parent-not-chained", "GEP-1294, multiple routes", "a request meets the routes of the service that it names, not those of the backend that it goes to")
            .apply(&all(&[LEADS_ON.to_owned(), route_of("HTTPRoute", ("shop", "$NAME-on"), "[{group: \"\", kind: Service, name: $NAME-on}]", "", TO_B)]))
            .rules("[{backendRefs: [{name: $NAME-on, port: 80}]}]")
            .ask(get("/").to("a")),
        case("parent-one-rule", "RouteParentStatus.conditions", "a route is accepted if one of its rules is in force")
            .rules("[{matches: [{path: {value: /one}}], backendRefs: [$A]}, {matches: [{path: {value: /two}}], backendRefs: [{name: nobody, port: 80}]}]")
            .says("Accepted", "True", "Accepted")
            .ask(get("/one").to("a"))
            .ask(get("/two").status(500)),
        case("parent-only-attached", "GEP-1294", "a service without routes is not touched by those of others")
            .in_the_mesh()
            .apply(&all(&[second("shop"), http_route(TO_A)]))
            .ask(get("/").host("$NAME-second").status(503))
            .ask(get("/").host("b").to("b")),
    ]
}

/// A service with an instance, which a route of its own would lead elsewhere.
const LEADS_ON: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: $NAME-on, namespace: shop}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: $NAME-on-1, namespace: shop}
spec: {service: $NAME-on, address: 127.0.0.1, ports: [{port: 80, listen: $PORT-A}], transport: plaintext}
";

fn consumers() -> Vec<Case> {
    const PLACE: &str = "GEP-1294, namespace boundaries";
    let parent = "[{group: \"\", kind: Service, name: $NAME-second, namespace: far}]";
    // The callers of the suite live in `shop`.
    let consumer = |rules: &str| route_of("HTTPRoute", ("shop", "$NAME"), parent, "", rules);
    let producer = |rules: &str| {
        route_of(
            "HTTPRoute",
            ("far", "$NAME"),
            "[{group: \"\", kind: Service, name: $NAME-second}]",
            "",
            rules,
        )
    };
    let stranger = |rules: &str| route_of("HTTPRoute", ("elsewhere", "$NAME"), parent, "", rules);
    let own_a = "[{backendRefs: [{name: a, port: 80}]}]";
    let path_b = "[{matches: [{path: {value: /b}}], backendRefs: [$B]}]";
    let ask = |path| get(path).host("$NAME-second.far");
    vec![
        case(
            "producer",
            PLACE,
            "a route in the namespace of its service is for all its callers, of other namespaces too",
        )
        .in_the_mesh()
        .apply(&all(&[second("far"), producer(own_a)]))
        .ask(ask("/").to("a")),
        case("consumer", PLACE, "a route in another namespace is for the callers of that namespace")
            .in_the_mesh()
            .apply(&all(&[second("far"), consumer(TO_B)]))
            .ask(ask("/").to("b")),
        case("consumer-others", PLACE, "and for nobody else's")
            .in_the_mesh()
            .apply(&all(&[
                second("far"),
                producer(own_a),
                stranger("[{backendRefs: [{name: b, namespace: far, port: 80}]}]"),
            ]))
            .ask(ask("/").to("a")),
        case(
            "consumer-over-producer",
            "GEP-1294, multiple routes",
            "callers that have consumer routes meet those, and none of the producer's",
        )
        .in_the_mesh()
        .apply(&all(&[second("far"), producer(own_a), consumer(path_b)]))
        .ask(ask("/b").to("b"))
        .ask(ask("/a").status(404)),
        case(
            "consumer-merge",
            "GEP-1294, multiple routes",
            "the consumer routes of a namespace hold together",
        )
        .in_the_mesh()
        .apply(&all(&[
            second("far"),
            consumer(path_b),
            consumer("[{matches: [{path: {value: /a}}], backendRefs: [$A]}]")
                .replace("name: $NAME, namespace: shop", "name: $NAME-more, namespace: shop"),
        ]))
        .ask(ask("/a").to("a"))
        .ask(ask("/b").to("b")),
        case("consumer-gone", PLACE, "without its consumer route a namespace meets the producer's again")
            .in_the_mesh()
            .apply(&all(&[second("far"), producer(own_a), consumer(TO_B)]))
            .ask(ask("/").to("b"))
            .delete("httproutes", "shop", "$NAME")
            .ask(ask("/").to("a")),
        case("consumer-accepted", "GEP-1294", "the status says whether the route is in force in the mesh")
            .in_the_mesh()
            .apply(&all(&[second("far"), consumer(TO_B)]))
            .says("Accepted", "True", "Accepted"),
    ]
}

fn ports() -> Vec<Case> {
    const PLACE: &str = "GEP-1294, ports";
    const TWO: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: $NAME-two, namespace: shop}
spec: {mtls: \"off\", discovery: static, ports: [{port: 80, protocol: http, name: web}, {port: 8080, protocol: http, name: alt}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Instance
metadata: {name: $NAME-two-1, namespace: shop}
spec: {service: $NAME-two, address: 127.0.0.1, ports: [{port: 80, listen: $PORT-B}, {port: 8080, listen: $PORT-B}], transport: plaintext}
";
    let with = |case: Case, parent: &str| {
        case.in_the_mesh().apply(&all(&[
            TWO.to_owned(),
            of(&format!("[{{group: \"\", kind: Service, name: $NAME-two{parent}}}]"), TO_A),
        ]))
    };
    let at_80 = || get("/").host("$NAME-two:80");
    let at_8080 = || get("/").host("$NAME-two:8080");
    vec![
        with(
            case("parent-port", PLACE, "a parent with a port is that port of the service alone"),
            ", port: 8080",
        )
        .ask(at_8080().to("a"))
        .ask(at_80().to("b")),
        with(case("parent-port-all", PLACE, "a parent without one is all its ports"), "")
            .ask(at_8080().to("a"))
            .ask(at_80().to("a")),
        with(
            case(
                "parent-section",
                "ParentReference.sectionName",
                "sectionName is the name of a port of a service",
            ),
            ", sectionName: alt",
        )
        .ask(at_8080().to("a"))
        .ask(at_80().to("b")),
        with(
            case(
                "parent-section-port",
                "ParentReference.sectionName",
                "with a port besides, name and port must be of one port",
            ),
            ", sectionName: alt, port: 8080",
        )
        .ask(at_8080().to("a"))
        .ask(at_80().to("b")),
        case("parent-section-other", "ParentReference.port", "where they are not, the route has no parent")
            .in_the_mesh()
            .apply(TWO)
            .no_parent(&of(
                "[{group: \"\", kind: Service, name: $NAME-two, sectionName: alt, port: 80}]",
                TO_A,
            )),
        case("parent-port-unknown", "ParentReference.port", "nor where the service has no such port")
            .in_the_mesh()
            .apply(TWO)
            .no_parent(&of("[{group: \"\", kind: Service, name: $NAME-two, port: 81}]", TO_A)),
    ]
}

fn refused() -> Vec<Case> {
    let edge = |more: &str| format!("{{name: edge, namespace: shop{more}}}");
    let own = |more: &str| format!("{{group: \"\", kind: Service, name: a{more}}}");
    let at = "/spec/parentRefs";
    let many: Vec<String> = (0..33).map(|i| format!("{{group: \"\", kind: Service, name: s{i}}}")).collect();
    vec![
        case("parent-kind-unknown", "ParentReference", "a parent is of a kind that is known")
            .refuses_all(&of("[{group: example.com, kind: Bucket, name: a}]", TO_A), at),
        case("parent-unknown", "ParentReference", "a parent is there")
            .refuses_all(&of("[{group: \"\", kind: Service, name: nobody}]", TO_A), at),
        case(
            "parent-group-default",
            "ParentReference.group",
            "without group and kind a parent is a Gateway; a Service's group is written as empty",
        )
        .refuses_all(&of("[{name: a}]", TO_A), at)
        .refuses_all(&of("[{group: gateway.networking.k8s.io, kind: Service, name: a}]", TO_A), at),
        case("parent-name-required", "ParentReference.name", "a parent has a name")
            .refuses_all(&of("[{group: \"\", kind: Service}]", TO_A), at),
        case("parent-distinct", "CommonRouteSpec.parentRefs", "no parent is there twice")
            .refuses_all(&of(&format!("[{}, {}]", own(""), own("")), TO_A), at)
            .refuses_all(&of(&format!("[{}, {}]", edge(""), edge("")), TO_A), at),
        case(
            "parent-distinct-section",
            "CommonRouteSpec.parentRefs",
            "where one reference to a parent names a section, all do",
        )
        .refuses_all(&of(&format!("[{}, {}]", edge(", sectionName: web"), edge("")), TO_A), at),
        case("parent-distinct-port", "CommonRouteSpec.parentRefs", "where one names a port, all do")
            .refuses_all(&of(&format!("[{}, {}]", edge(", port: 80"), edge("")), TO_A), at)
            .refuses_all(&of(&format!("[{}, {}]", edge(", port: 80"), edge(", sectionName: alt")), TO_A), at),
        case("parent-count", "CommonRouteSpec.parentRefs", "a route has at most 32 parents")
            .refuses_all(&of(&format!("[{}]", many.join(", ")), TO_A), at),
        case(
            "parent-default-gateway",
            "CommonRouteSpec.useDefaultGateways",
            "a route may ask for gateways that take every route",
        )
        .refuses_all(
            &route("HTTPRoute", "$NAME", TO_A).replace("  rules:", "  useDefaultGateways: All\n  rules:"),
            "useDefaultGateways",
        )
        .unsupported("no gateway takes routes that do not name it"),
        case(
            "parent-hostnames",
            "GEP-1294, hostnames",
            "at a Service the host names of a route mean nothing (recommended)",
        )
        .in_the_mesh()
        .refuses_all(
            &route_of(
                "HTTPRoute",
                ("shop", "$NAME"),
                "[{group: \"\", kind: Service, name: $NAME}]",
                "[www.example.com]",
                TO_A,
            ),
            "/spec/hostnames",
        ),
    ]
}
