//! Host names, and the listeners of a gateway. The gateway has `web` (port 80, every host), `wide`, `narrow` and `exact`
//! (port 80, `*.wide.example`, `*.narrow.wide.example`, `exact.wide.example`) and `alt` (port 8080, every host).

use crate::case::{Case, all, case, get, http_route, route_of};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = hosts();
    cases.extend(listeners());
    cases.extend(isolation());
    cases.extend(allowed());
    cases.extend(refused());
    cases.into_iter().map(Case::at_a_gateway).collect()
}

const TO_A: &str = "[{backendRefs: [$A]}]";
const TO_B: &str = "[{backendRefs: [$B]}]";

/// An HTTPRoute at a section of the gateway.
fn at(name: &str, section: &str, hostnames: &str, rules: &str) -> String {
    let parent = match section {
        "" => "[{name: edge, namespace: shop}]".to_owned(),
        section => format!("[{{name: edge, namespace: shop, sectionName: {section}}}]"),
    };
    route_of("HTTPRoute", ("shop", name), &parent, hostnames, rules)
}

fn web(hostnames: &str) -> String {
    at("$NAME", "web", hostnames, TO_A)
}

fn hosts() -> Vec<Case> {
    const PLACE: &str = "HTTPRouteSpec.hostnames";
    let two = |first: &str, second: &str| {
        all(&[at("$NAME-1", "web", first, TO_A), at("$NAME-2", "web", second, TO_B)])
    };
    vec![
        case("host-exact", PLACE, "a route is for the host names that are written, and no other")
            .apply(&web("[one.$NAME.example]"))
            .ask(get("/").host("one.$NAME.example").to("a"))
            .ask(get("/").host("two.$NAME.example").status(404)),
        case("host-several", PLACE, "there may be several")
            .apply(&web("[one.$NAME.example, two.$NAME.example]"))
            .ask(get("/").host("one.$NAME.example").to("a"))
            .ask(get("/").host("two.$NAME.example").to("a")),
        case(
            "host-wildcard",
            PLACE,
            "*. is every name that ends so, of several labels too, and not the rest itself",
        )
        .apply(&web("[\"*.$NAME.example\"]"))
        .ask(get("/").host("one.$NAME.example").to("a"))
        .ask(get("/").host("one.two.$NAME.example").to("a"))
        .ask(get("/").host("$NAME.example").status(404))
        .ask(get("/").host("one$NAME.example").status(404)),
        case("host-port", PLACE, "a port in the Host of a request does not matter")
            .apply(&web("[one.$NAME.example]"))
            .ask(get("/").host("one.$NAME.example:80").to("a"))
            .ask(get("/").host("one.$NAME.example:1234").to("a")),
        case("host-unchanged", PLACE, "the Host of a request goes on as it came, its port too")
            .apply(&web("[one.$NAME.example]"))
            .ask(get("/").host("one.$NAME.example:80").to("a").sends("host", "one.$NAME.example:80")),
        case("host-case", PLACE, "host names are compared whatever their case")
            .apply(&web("[one.$NAME.example]"))
            .ask(get("/").host("One.$NAME.Example").to("a")),
        case(
            "host-precedence-exact",
            PLACE,
            "a route with the whole name comes before one with a wildcard, whatever their rules",
        )
        .apply(&two("[\"*.$NAME.example\"]", "[one.$NAME.example]"))
        .ask(get("/").host("one.$NAME.example").to("b"))
        .ask(get("/").host("two.$NAME.example").to("a")),
        case("host-precedence-wildcard", PLACE, "a longer wildcard comes before a shorter one")
            .apply(&two("[\"*.$NAME.example\"]", "[\"*.one.$NAME.example\"]"))
            .ask(get("/").host("two.one.$NAME.example").to("b"))
            .ask(get("/").host("one.$NAME.example").to("a")),
        case(
            "host-precedence-rules",
            PLACE,
            "among routes of one host name the precedence of matches decides",
        )
        .apply(&all(&[
            at("$NAME-1", "web", "[one.$NAME.example]", TO_A),
            at(
                "$NAME-2",
                "web",
                "[one.$NAME.example]",
                "[{matches: [{path: {value: /deep}}], backendRefs: [$B]}]",
            ),
        ]))
        .ask(get("/").host("one.$NAME.example").to("a"))
        .ask(get("/deep").host("one.$NAME.example").to("b")),
        case("host-unknown", "Gateway, listeners", "a host that no route is for is answered 404")
            .apply(&web("[one.$NAME.example]"))
            .ask(get("/").host("nobody.$NAME.invalid").status(404)),
    ]
}

fn listeners() -> Vec<Case> {
    const PLACE: &str = "HTTPRouteSpec.hostnames";
    vec![
        case("listener-host-exact", PLACE, "a listener with a wildcard takes routes with a name below it")
            .apply(&at("$NAME", "wide", "[$NAME.wide.example]", TO_A))
            .says("Accepted", "True", "Accepted")
            .ask(get("/").host("$NAME.wide.example").to("a")),
        case("listener-host-deep", PLACE, "of several labels too")
            .apply(&at("$NAME", "wide", "[deep.$NAME.wide.example]", TO_A))
            .ask(get("/").host("deep.$NAME.wide.example").to("a")),
        case(
            "listener-host-wildcard",
            PLACE,
            "and a listener with a whole name takes routes with a wildcard above it",
        )
        .apply(&at(
            "$NAME",
            "exact",
            "[\"*.wide.example\"]",
            "[{matches: [{path: {value: /$NAME}}], backendRefs: [$A]}]",
        ))
        .says("Accepted", "True", "Accepted"),
        case(
            "listener-host-ignored",
            PLACE,
            "of a route's host names those that are not the listener's are ignored",
        )
        .apply(&at("$NAME", "wide", "[$NAME.wide.example, $NAME.other.example]", TO_A))
        .ask(get("/").host("$NAME.wide.example").to("a"))
        .ask(get("/").host("$NAME.other.example").status(404)),
        case(
            "listener-host-none",
            PLACE,
            "a route of whose host names none is the listener's is not accepted: NoMatchingListenerHostname",
        )
        .apply(&at("$NAME", "wide", "[$NAME.other.example, wide.example]", TO_A))
        .says("Accepted", "False", "NoMatchingListenerHostname")
        .ask(get("/").host("$NAME.other.example").status(404)),
        case("listener-host-all", PLACE, "a route without host names is for all of the listener's")
            .apply(&at("$NAME", "narrow", "", "[{matches: [{path: {value: /$NAME}}], backendRefs: [$A]}]"))
            .says("Accepted", "True", "Accepted"),
        case(
            "listener-section",
            "ParentReference.sectionName",
            "a route with a section is at that listener alone",
        )
        .apply(&at("$NAME", "alt", "[one.$NAME.example]", TO_A))
        .ask(get("/").host("one.$NAME.example").port(8080).to("a"))
        .ask(get("/").host("one.$NAME.example").status(404)),
        case(
            "listener-every",
            "ParentReference.sectionName",
            "a route without one is at every listener that takes it",
        )
        .apply(&at("$NAME", "", "[one.$NAME.example]", TO_A))
        .ask(get("/").host("one.$NAME.example").port(8080).to("a"))
        .ask(get("/").host("one.$NAME.example").to("a")),
        case("listener-port", "ParentReference.port", "a route with a port is at the listeners of that port")
            .apply(&route_of(
                "HTTPRoute",
                ("shop", "$NAME"),
                "[{name: edge, port: 8080}]",
                "[one.$NAME.example]",
                TO_A,
            ))
            .ask(get("/").host("one.$NAME.example").port(8080).to("a"))
            .ask(get("/").host("one.$NAME.example").status(404)),
        case(
            "listener-section-port",
            "ParentReference.port",
            "with a section besides, both must be of one listener",
        )
        .apply(&route_of(
            "HTTPRoute",
            ("shop", "$NAME"),
            "[{name: edge, sectionName: alt, port: 8080}]",
            "[one.$NAME.example]",
            TO_A,
        ))
        .ask(get("/").host("one.$NAME.example").port(8080).to("a")),
        case(
            "listener-one-is-enough",
            "ParentReference.sectionName",
            "a route is attached if one of the listeners takes it",
        )
        .apply(&at("$NAME", "", "[one.$NAME.example]", TO_A))
        .says("Accepted", "True", "Accepted"),
        case(
            "listener-several-parents",
            "RouteStatus.parents",
            "listeners that are named one by one have a status each",
        )
        .apply(&route_of(
            "HTTPRoute",
            ("shop", "$NAME"),
            "[{name: edge, sectionName: web}, {name: edge, sectionName: wide}]",
            "[one.$NAME.example]",
            TO_A,
        ))
        .says_of(0, "Accepted", "True", "Accepted")
        .says_of(1, "Accepted", "False", "NoMatchingListenerHostname"),
    ]
}

fn isolation() -> Vec<Case> {
    const PLACE: &str = "Listener.hostname";
    let path = |to: &str| format!("[{{matches: [{{path: {{value: /$NAME}}}}], backendRefs: [{to}]}}]");
    vec![
        case(
            "listener-isolation",
            "Gateway, listener isolation",
            "a request meets one listener, the most exact, and no route of another",
        )
        .apply(&at("$NAME", "web", "[one.wide.example]", &path("$A")))
        .says("Accepted", "True", "Accepted")
        .ask(get("/$NAME").host("one.wide.example").status(404)),
        case(
            "listener-exact-first",
            PLACE,
            "a listener with the whole name comes before one with a wildcard",
        )
        .apply(&all(&[at("$NAME-1", "wide", "", &path("$A")), at("$NAME-2", "exact", "", &path("$B"))]))
        .ask(get("/$NAME").host("exact.wide.example").to("b")),
        case("listener-longer-first", PLACE, "a longer wildcard comes before a shorter one")
            .apply(&all(&[
                at("$NAME-1", "wide", "[\"*.narrow.wide.example\"]", TO_A),
                at("$NAME-2", "narrow", "[$NAME.narrow.wide.example]", TO_B),
            ]))
            .ask(get("/").host("$NAME.narrow.wide.example").to("b")),
        case("listener-wildcard-first", PLACE, "a wildcard comes before a listener for every host")
            .apply(&all(&[
                at("$NAME-1", "web", "[$NAME.wide.example]", TO_A),
                at("$NAME-2", "wide", "[$NAME.wide.example]", TO_B),
            ]))
            .ask(get("/").host("$NAME.wide.example").to("b")),
    ]
}

fn allowed() -> Vec<Case> {
    let far = |section: &str| {
        let parent = format!("[{{name: edge, namespace: shop, sectionName: {section}}}]");
        let hosts = if section == "wide" { "[$NAME.wide.example]" } else { "[$NAME.example]" };
        route_of("HTTPRoute", ("far", "$NAME"), &parent, hosts, "[{backendRefs: [{name: a, port: 80}]}]")
    };
    let of = |case: Case, status, reason| {
        case.tells("httproutes", ("far", "$NAME"), ("Accepted", Some(status), reason), "")
    };
    vec![
        of(
            case(
                "listener-allowed-all",
                "Listener.allowedRoutes",
                "routes of every namespace attach themselves where all are allowed, without a grant",
            )
            .apply(&far("web")),
            "True",
            "Accepted",
        )
        .ask(get("/").to("a")),
        of(
            case(
                "listener-allowed-same",
                "Listener.allowedRoutes",
                "where nothing is written only routes of the gateway's own namespace: NotAllowedByListeners",
            )
            .apply(&far("wide")),
            "False",
            "NotAllowedByListeners",
        )
        .ask(get("/").host("$NAME.wide.example").status(404)),
    ]
}

fn refused() -> Vec<Case> {
    let names: Vec<String> = (0..17).map(|i| format!("h{i}.example")).collect();
    let hosts = "/spec/hostnames";
    vec![
        case("host-address", "Hostname", "an address is no host name").refuses_all(&web("[10.0.0.1]"), hosts),
        case("host-wildcard-place", "Hostname", "a wildcard is the whole first label")
            .refuses_all(&web("[\"www.*.example\"]"), hosts)
            .refuses_all(&web("[\"w*.example\"]"), hosts),
        case(
            "host-characters",
            "Hostname",
            "a host name is made of labels of lower case letters, digits and hyphens",
        )
        .refuses_all(&web("[\"one_two.example\"]"), hosts)
        .refuses_all(&web("[\"-one.example\"]"), hosts)
        .refuses_all(&web("[\"one.example:80\"]"), hosts),
        case("host-count", "HTTPRouteSpec.hostnames", "a route has at most 16 host names")
            .refuses_all(&web(&format!("[{}]", names.join(", "))), hosts),
        case(
            "listener-unknown",
            "RouteReasonNoMatchingParent",
            "a section that no listener is: the route has no parent",
        )
        .no_parent(&at("$NAME", "nobody", "[one.$NAME.example]", TO_A)),
        case("listener-port-unknown", "RouteReasonNoMatchingParent", "nor is a port that no listener has")
            .no_parent(&route_of(
                "HTTPRoute",
                ("shop", "$NAME"),
                "[{name: edge, port: 81}]",
                "[one.$NAME.example]",
                TO_A,
            )),
        case(
            "listener-section-port-other",
            "RouteReasonNoMatchingParent",
            "nor a section with the port of another",
        )
        .no_parent(&route_of(
            "HTTPRoute",
            ("shop", "$NAME"),
            "[{name: edge, sectionName: web, port: 8080}]",
            "[one.$NAME.example]",
            TO_A,
        )),
        case("gateway-unknown", "ParentReference", "a gateway that is not there takes no route")
            .refuses_all(&http_route(TO_A).replace("$PARENT", "[{name: nobody}]"), "/spec/parentRefs/0"),
    ]
}
