//! What a route says of itself.

use crate::case::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    const PARENT: &str = "RouteParentStatus";
    let to_a = "[{backendRefs: [$A]}]";
    let half = "[{matches: [{path: {value: /one}}], backendRefs: [$A]}, {matches: [{path: {value: /two}}], backendRefs: [{name: nobody, port: 80}]}]";
    vec![
        case("status-parents", "RouteStatus.parents", "each parent of a route has an entry in its status")
            .rules(to_a)
            .has("/parents/0/parentRef/name", "*"),
        case(
            "status-parent-mesh",
            "RouteParentStatus.parentRef",
            "the entry names the parent as the route does",
        )
        .in_the_mesh()
        .rules(to_a)
        .has("/parents/0/parentRef/name", "$NAME")
        .has("/parents/0/parentRef/kind", "Service"),
        case("status-parent-gateway", "RouteParentStatus.parentRef", "its section included")
            .at_a_gateway()
            .rules(to_a)
            .has("/parents/0/parentRef/name", "edge")
            .has("/parents/0/parentRef/namespace", "shop")
            .has("/parents/0/parentRef/sectionName", "web"),
        case("status-controller", "RouteParentStatus.controllerName", "the entry says who wrote it")
            .rules(to_a)
            .has("/parents/0/controllerName", "*"),
        case("status-accepted", PARENT, "a route that is taken says Accepted")
            .rules(to_a)
            .says("Accepted", "True", "Accepted"),
        case(
            "status-resolved",
            "RouteConditionResolvedRefs",
            "one whose references are all found says ResolvedRefs",
        )
        .rules(to_a)
        .says("ResolvedRefs", "True", "ResolvedRefs"),
        case(
            "status-unresolved-follows",
            "RouteConditionResolvedRefs",
            "a status follows what changes: the route written anew",
        )
        .rules("[{backendRefs: [{name: nobody, port: 80}]}]")
        .says("ResolvedRefs", "False", "BackendNotFound")
        .rules(to_a)
        .says("ResolvedRefs", "True", "ResolvedRefs"),
        case(
            "status-whole",
            "RouteConditionPartiallyInvalid",
            "a route that is wholly valid does not say PartiallyInvalid",
        )
        .rules(to_a)
        .says("Accepted", "True", "Accepted")
        .tells("httproutes", ("shop", "$NAME"), ("PartiallyInvalid", None, ""), ""),
        case(
            "status-half",
            "RouteParentStatus.conditions",
            "nor one of which a reference is not found: it is accepted, with ResolvedRefs False",
        )
        .rules(half)
        .says("Accepted", "True", "Accepted")
        .says("ResolvedRefs", "False", "BackendNotFound")
        .tells("httproutes", ("shop", "$NAME"), ("PartiallyInvalid", None, ""), ""),
        case("status-message", "HTTPBackendRef.BackendRef", "the message of a condition says what is wrong")
            .rules("[{backendRefs: [{name: nobody-at-all, port: 80}]}]")
            .tells(
                "httproutes",
                ("shop", "$NAME"),
                ("ResolvedRefs", Some("False"), "BackendNotFound"),
                "nobody-at-all",
            ),
        case("status-generation", PARENT, "a condition says which state of the route it is about")
            .rules(to_a)
            .has("/parents/0/conditions/0/observedGeneration", "*"),
        case("status-time", "metav1.Condition", "a condition says since when it is so")
            .rules(to_a)
            .has("/parents/0/conditions/0/lastTransitionTime", "*"),
    ]
}
