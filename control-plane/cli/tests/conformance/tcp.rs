//! Routes of connections, as far as they can be told by what is written and what is said of it. How connections go is shown
//! elsewhere (proxy/tests/routing/tcp.rs).

use crate::case::{Case, case, route_of};

pub(crate) fn cases() -> Vec<Case> {
    const OPAQUE: &str = "[{group: \"\", kind: Service, name: opaque}]";
    const EDGE: &str = "[{name: edge, namespace: shop}]";
    let to_opaque = "{backendRefs: [{name: opaque, port: 80}]}";
    let of = |parents: &str, rules: &str| route_of("TCPRoute", ("shop", "$NAME"), parents, "", rules);
    let one = format!("[{to_opaque}]");
    vec![
        case(
            "tcp-accepted",
            "RouteParentStatus.conditions",
            "a TCPRoute that is taken says Accepted and ResolvedRefs",
        )
        .in_the_mesh()
        .apply(&of(OPAQUE, &one))
        .tells("tcproutes", ("shop", "$NAME"), ("Accepted", Some("True"), "Accepted"), "")
        .tells("tcproutes", ("shop", "$NAME"), ("ResolvedRefs", Some("True"), "ResolvedRefs"), ""),
        case(
            "tcp-one-rule",
            "TCPRouteSpec.rules",
            "a TCPRoute has one rule: nothing would tell a second from it",
        )
        .refuses_all(&of(OPAQUE, &format!("[{to_opaque}, {to_opaque}]")), "/spec/rules")
        .refuses_all(&of(OPAQUE, "[]"), "rules"),
        case("tcp-backends", "TCPRouteRule.backendRefs", "and the rule at least one backend")
            .refuses_all(&of(OPAQUE, "[{}]"), "/spec/rules/0"),
        case("tcp-protocol", "TCPRouteRule.backendRefs", "a backend that speaks HTTP is none of a TCPRoute")
            .in_the_mesh()
            .refuses_all(&of(OPAQUE, "[{backendRefs: [{name: a, port: 80}]}]"), "/spec/rules/0/backendRefs/0")
            .apply(&of(OPAQUE, "[{backendRefs: [{name: a, port: 80}]}]"))
            .tells(
                "tcproutes",
                ("shop", "$NAME"),
                ("ResolvedRefs", Some("False"), "UnsupportedProtocol"),
                "a",
            ),
        case(
            "tcp-gateway",
            "TCPRoute, Listener.protocol",
            "a TCPRoute takes the connections that come to a listener for TCP",
        )
        .at_a_gateway()
        .refuses_all(&of(EDGE, &one), "/spec/parentRefs")
        .unsupported("the listeners of a gateway speak HTTP"),
    ]
}
