//! GRPCRoute.

use http::Method;

use crate::case::{Case, all, call, case, grpc_route, http_route, route, send};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = methods();
    cases.extend(headers());
    cases.extend(precedence());
    cases.extend(filters());
    cases.extend(backends());
    cases.extend(kinds());
    cases.extend(refused());
    cases
}

const G: &str = "{name: g, port: 80}";
const H: &str = "{name: h, port: 80}";

/// A rule to `g` for these matches.
fn to_g(matches: &str) -> String {
    format!("[{{matches: [{matches}], backendRefs: [{G}]}}]")
}

fn methods() -> Vec<Case> {
    vec![
        case("grpc-any", "GRPCRouteRule.matches", "a rule without matches takes every call")
            .grpc_rules(&format!("[{{backendRefs: [{G}]}}]"))
            .ask(call("/shop.Cart/Add").grpc(0).to("g"))
            .ask(call("/other.Thing/Do").grpc(0).to("g")),
        case("grpc-method", "GRPCRouteMatch.method", "service and method hold for calls of exactly these")
            .grpc_rules(&to_g("{method: {service: shop.Cart, method: Add}}"))
            .ask(call("/shop.Cart/Add").grpc(0).to("g"))
            .ask(call("/shop.Cart/Remove").grpc(12))
            .ask(call("/shop.Other/Add").grpc(12)),
        case("grpc-service", "GRPCMethodMatch.method", "a service without a method holds for all its methods")
            .grpc_rules(&to_g("{method: {service: shop.Cart}}"))
            .ask(call("/shop.Cart/Add").grpc(0).to("g"))
            .ask(call("/shop.Cart/Remove").grpc(0).to("g"))
            .ask(call("/shop.CartX/Add").grpc(12)),
        case("grpc-method-only", "GRPCMethodMatch.service", "a method without a service holds for that method of all services")
            .grpc_rules(&to_g("{method: {method: Add}}"))
            .ask(call("/shop.Cart/Add").grpc(0).to("g"))
            .ask(call("/shop.Other/Add").grpc(0).to("g"))
            .ask(call("/shop.Cart/Remove").grpc(12)),
        case("grpc-case", "GRPCMethodMatchType.Exact", "services and methods tell upper from lower case")
            .grpc_rules(&to_g("{method: {service: shop.Cart, method: Add}}"))
            .ask(call("/shop.cart/Add").grpc(12))
            .ask(call("/shop.Cart/add").grpc(12)),
        case("grpc-type-default", "GRPCMethodMatch.type", "without a type it is Exact")
            .grpc_rules(&to_g("{method: {service: \"shop.C.rt\"}}"))
            .ask(call("/shop.C.rt/Add").grpc(0).to("g"))
            .ask(call("/shop.Cart/Add").grpc(12)),
        case("grpc-regex", "GRPCMethodMatchType.RegularExpression", "service and method may be expressions")
            .grpc_rules(&to_g("{method: {type: RegularExpression, service: \"shop\\\\.[A-Z][a-z]+\", method: \"(Add|Remove)\"}}"))
            .ask(call("/shop.Cart/Add").grpc(0).to("g"))
            .ask(call("/shop.Cart/Clear").grpc(12)),
        case("grpc-match-any", "GRPCRouteRule.matches", "it is enough that one match of a rule holds")
            .grpc_rules(&to_g("{method: {service: shop.Cart}, headers: [{name: version, value: two}]}, {method: {service: shop.v2.Cart}}"))
            .ask(call("/shop.Cart/Add").header("version", "two").grpc(0).to("g"))
            .ask(call("/shop.v2.Cart/Add").grpc(0).to("g"))
            .ask(call("/shop.Cart/Add").grpc(12)),
        case("grpc-unmatched", "Gateway, listener isolation", "a call that no rule takes is answered UNIMPLEMENTED")
            .grpc_rules(&to_g("{method: {service: shop.Cart}}"))
            .ask(call("/other.Thing/Do").grpc(12)),
        case("grpc-only", "GRPCRoute", "what is no call of gRPC is no matter of a GRPCRoute")
            .grpc_rules(&format!("[{{backendRefs: [{G}]}}]"))
            .ask(send(Method::POST, "/shop.Cart/Add").status(404)),
    ]
}

fn headers() -> Vec<Case> {
    let one = to_g("{headers: [{name: version, value: two}]}");
    vec![
        case(
            "grpc-header",
            "GRPCRouteMatch.headers",
            "a header holds for calls that have it with exactly that value",
        )
        .grpc_rules(&one)
        .ask(call("/shop.Cart/Add").header("version", "two").grpc(0).to("g"))
        .ask(call("/shop.Cart/Add").header("version", "one").grpc(12))
        .ask(call("/shop.Cart/Add").grpc(12)),
        case("grpc-header-all", "GRPCRouteMatch.headers", "of several headers all must hold")
            .grpc_rules(&to_g("{headers: [{name: version, value: two}, {name: color, value: red}]}"))
            .ask(call("/shop.Cart/Add").header("version", "two").header("color", "red").grpc(0).to("g"))
            .ask(call("/shop.Cart/Add").header("version", "two").grpc(12)),
        case("grpc-header-case", "GRPCHeaderMatch.name", "names of headers are compared whatever their case")
            .grpc_rules(&to_g("{headers: [{name: Version, value: two}]}"))
            .ask(call("/shop.Cart/Add").header("version", "two").grpc(0).to("g")),
        case(
            "grpc-header-regex",
            "GRPCHeaderMatchType.RegularExpression",
            "an expression is compared with the whole value",
        )
        .grpc_rules(&to_g("{headers: [{type: RegularExpression, name: version, value: \"t.o\"}]}"))
        .ask(call("/shop.Cart/Add").header("version", "two").grpc(0).to("g"))
        .ask(call("/shop.Cart/Add").header("version", "twofold").grpc(12)),
        case("grpc-header-and-method", "GRPCRouteMatch", "all conditions of a match must hold")
            .grpc_rules(&to_g("{method: {service: shop.Cart}, headers: [{name: version, value: two}]}"))
            .ask(call("/shop.Cart/Add").header("version", "two").grpc(0).to("g"))
            .ask(call("/shop.Cart/Add").grpc(12))
            .ask(call("/shop.Other/Add").header("version", "two").grpc(12)),
        case(
            "grpc-header-equivalent",
            "GRPCHeaderMatch.name",
            "of two conditions on one name the first counts and the second is ignored",
        )
        .refuses_grpc(
            &to_g("{headers: [{name: version, value: two}, {name: Version, value: one}]}"),
            "/headers/1/name",
        )
        .unsupported("two conditions on one name are told as a mistake, not ignored"),
    ]
}

/// Two rules, of which the second is to win where both hold.
fn rules(loses: &str, wins: &str) -> String {
    format!("[{{matches: [{loses}], backendRefs: [{G}]}}, {{matches: [{wins}], backendRefs: [{H}]}}]")
}

fn precedence() -> Vec<Case> {
    const PLACE: &str = "GRPCRouteRule.matches";
    let one = |to: &str| format!("[{{matches: [{{method: {{service: shop.Cart}}}}], backendRefs: [{to}]}}]");
    let add = || call("/shop.Cart/Add");
    vec![
        case("grpc-precedence-service", PLACE, "more characters of the service come first")
            .grpc_rules(&rules("{method: {method: Add}}", "{method: {service: shop.Cart}}"))
            .ask(add().grpc(0).to("h")),
        case("grpc-precedence-method", PLACE, "then more characters of the method")
            .grpc_rules(&rules(
                "{method: {service: shop.Cart}, headers: [{name: a, value: b}]}",
                "{method: {service: shop.Cart, method: Add}}",
            ))
            .ask(add().header("a", "b").grpc(0).to("h")),
        case("grpc-precedence-headers", PLACE, "then more conditions on headers")
            .grpc_rules(&rules(
                "{headers: [{name: a, value: b}]}",
                "{headers: [{name: a, value: b}, {name: c, value: d}]}",
            ))
            .ask(add().header("a", "b").header("c", "d").grpc(0).to("h"))
            .ask(add().header("a", "b").grpc(0).to("g")),
        case(
            "grpc-precedence-oldest",
            PLACE,
            "of equal matches of several routes that of the oldest route takes the call",
        )
        .apply(&route("GRPCRoute", "$NAME-z", &one(G)))
        .apply(&route("GRPCRoute", "$NAME-y", &one(H)))
        .ask(add().grpc(0).to("g")),
        case("grpc-precedence-name", PLACE, "of routes of one age the first by name takes the call")
            .apply(&all(&[route("GRPCRoute", "$NAME-z", &one(H)), route("GRPCRoute", "$NAME-y", &one(G))]))
            .ask(add().grpc(0).to("g")),
        case("grpc-precedence-first", PLACE, "of rules of one route that are equal the first takes the call")
            .grpc_rules(&rules("{method: {service: shop.Cart}}", "{method: {service: shop.Cart}}"))
            .ask(add().grpc(0).to("g")),
        case("grpc-precedence-merge", PLACE, "the rules of all GRPCRoutes of a parent hold together")
            .apply(&route("GRPCRoute", "$NAME-1", &to_g("{method: {service: shop.Cart}}")))
            .apply(&route("GRPCRoute", "$NAME-2", &to_g("{method: {service: shop.Other}}").replace(G, H)))
            .ask(add().grpc(0).to("g"))
            .ask(call("/shop.Other/Do").grpc(0).to("h")),
    ]
}

fn filters() -> Vec<Case> {
    let with = |filters: &str| format!("[{{filters: [{filters}], backendRefs: [{G}]}}]");
    vec![
        case("grpc-request-headers", "GRPCRouteFilter.requestHeaderModifier", "headers of calls are set, added to and removed")
            .grpc_rules(&with("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: s}], add: [{name: x-add, value: d}], remove: [x-gone]}}"))
            .ask(call("/shop.Cart/Add").header("x-set", "0").header("x-add", "0").header("x-gone", "0").grpc(0).to("g")
                .sends("x-set", "s").sends("x-add", "0,d").sends_no("x-gone")),
        case("grpc-response-headers", "GRPCRouteFilter.responseHeaderModifier", "headers of answers are set")
            .grpc_rules(&with("{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: s}]}}"))
            .ask(call("/shop.Cart/Add").grpc(0).to("g").tells("x-answer", "s")),
        case("grpc-mirror", "GRPCRouteFilter.requestMirror", "a copy goes to the mirror, whose answer does not matter")
            .grpc_rules(&with(&format!("{{type: RequestMirror, requestMirror: {{backendRef: {H}}}}}")))
            .ask(call("/shop.Cart/Add").grpc(0).to("g").arrives("h", 1)),
        case("grpc-backend-filter", "GRPCBackendRef.filters", "a backend's changes to headers are for the calls that go to it")
            .grpc_rules("[{backendRefs: [{name: g, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-one, value: of-g}]}}]}]}]")
            .ask(call("/shop.Cart/Add").grpc(0).to("g").sends("x-one", "of-g")),
        case("grpc-extension-unknown", "GRPCRouteFilter.type", "a custom filter that can not be found is not skipped")
            .refuses_grpc(&with("{type: ExtensionRef, extensionRef: {group: example.com, kind: Nothing, name: nobody}}"), "/filters"),
        case("grpc-filter-foreign", "GRPCRouteFilterType", "a filter that a GRPCRoute does not have is told: redirects, rewrites, CORS")
            .refuses_grpc(&with("{type: RequestRedirect, requestRedirect: {hostname: www.example.com}}"), "/filters/0")
            .refuses_grpc(&with("{type: URLRewrite, urlRewrite: {hostname: www.example.com}}"), "/filters/0"),
        case("grpc-filter-once", "GRPCRouteRule.filters", "a filter is there at most once")
            .refuses_grpc(&with("{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}, {type: RequestHeaderModifier, requestHeaderModifier: {remove: [b]}}"), "/filters/1"),
    ]
}

fn backends() -> Vec<Case> {
    const PLACE: &str = "GRPCRouteRule.backendRefs";
    let to = |backends: &str| format!("[{{backendRefs: [{backends}]}}]");
    let add = || call("/shop.Cart/Add");
    let resolved = |reason| ("ResolvedRefs", Some("False"), reason);
    vec![
        case("grpc-weight", PLACE, "a backend gets its weight's part of all weights")
            .grpc_rules(&to("{name: g, port: 80, weight: 3}, {name: h, port: 80, weight: 1}"))
            .ask(add().times(160).grpc(0).share("g", 75)),
        case("grpc-weight-zero", PLACE, "a backend of weight 0 gets nothing")
            .grpc_rules(&to("{name: g, port: 80, weight: 0}, {name: h, port: 80, weight: 1}"))
            .ask(add().times(30).grpc(0).to("h")),
        case("grpc-all-invalid", PLACE, "where no backend is valid every call is answered UNAVAILABLE")
            .grpc_rules(&to("{name: nobody, port: 80}"))
            .ask(add().times(3).grpc(14)),
        case("grpc-some-invalid", PLACE, "the share of an invalid backend is answered UNAVAILABLE, that of the others is not")
            .grpc_rules(&to(&format!("{G}, {{name: nobody, port: 80}}")))
            .ask(add().times(120).share("g", 50)),
        case("grpc-not-found", "GRPCBackendRef.BackendRef", "a backend that is not there: ResolvedRefs is False with BackendNotFound")
            .grpc_rules(&to("{name: nobody, port: 80}"))
            .tells("grpcroutes", ("shop", "$NAME"), resolved("BackendNotFound"), "nobody"),
        case("grpc-kind", "GRPCBackendRef.BackendRef", "a backend of a kind that is not known: ResolvedRefs is False with InvalidKind")
            .grpc_rules(&to("{group: example.com, kind: Bucket, name: bucket, port: 80}"))
            .tells("grpcroutes", ("shop", "$NAME"), resolved("InvalidKind"), "Bucket"),
        case("grpc-not-permitted", "GRPCBackendRef.BackendRef", "a backend in another namespace that does not grant it: ResolvedRefs is False with RefNotPermitted")
            .grpc_rules(&to("{name: a, namespace: far, port: 80}"))
            .tells("grpcroutes", ("shop", "$NAME"), resolved("RefNotPermitted"), "far"),
        case("grpc-accepted", "RouteParentStatus.conditions", "a GRPCRoute that is taken says Accepted and ResolvedRefs")
            .grpc_rules(&to(G))
            .tells("grpcroutes", ("shop", "$NAME"), ("Accepted", Some("True"), "Accepted"), "")
            .tells("grpcroutes", ("shop", "$NAME"), ("ResolvedRefs", Some("True"), "ResolvedRefs"), ""),
    ]
}

fn kinds() -> Vec<Case> {
    let g = format!("[{{backendRefs: [{G}]}}]");
    let refused = |kind: &'static str, reason: &'static str, case: Case| {
        case.tells(kind, ("shop", "$NAME"), ("Accepted", Some("False"), reason), "")
    };
    vec![
        refused(
            "httproutes",
            "Conflicted",
            case("grpc-or-http-mesh", "GEP-1294, route types", "of a GRPCRoute and an HTTPRoute of one service and port the GRPCRoute is taken, the other is not accepted")
                .in_the_mesh()
                .apply(&http_route("[{backendRefs: [$A]}]"))
                .apply(&grpc_route(&g))
                .ask(call("/shop.Cart/Add").grpc(0).to("g")),
        ),
        refused(
            "grpcroutes",
            "",
            case("grpc-or-http-gateway", "GRPCRouteSpec.hostnames", "of a GRPCRoute and an HTTPRoute of one host name at one listener the older is taken, the other is not accepted")
                .at_a_gateway()
                .apply(&http_route("[{backendRefs: [$A]}]"))
                .apply(&grpc_route(&g))
                .ask(call("/shop.Cart/Add").to("a")),
        ),
    ]
}

fn refused() -> Vec<Case> {
    vec![
        case("grpc-method-empty", "GRPCMethodMatch", "a match on the method has a service or a method")
            .refuses_grpc(&to_g("{method: {type: Exact}}"), "/method"),
        case("grpc-method-slash", "GRPCMethodMatchType", "an Exact service or method has no slash")
            .refuses_grpc(&to_g("{method: {service: shop.Cart/Add}}"), "/method")
            .refuses_grpc(&to_g("{method: {method: a/b}}"), "/method"),
        case(
            "grpc-type-unknown",
            "GRPCMethodMatchType",
            "a type that is not known takes nothing down and the route is not accepted",
        )
        .refuses_grpc(&to_g("{method: {type: Prefix, service: shop.Cart}}"), "/method/type"),
        case("grpc-header-type-unknown", "GRPCHeaderMatchType", "nor does one of a header")
            .refuses_grpc(&to_g("{headers: [{type: Prefix, name: a, value: b}]}"), "/headers/0/type"),
        case("grpc-rule-name", "GRPCRouteRule.name", "no two rules of a route have one name").refuses_grpc(
            &format!("[{{name: one, backendRefs: [{G}]}}, {{name: one, backendRefs: [{H}]}}]"),
            "/spec/rules/1/name",
        ),
        case("grpc-rule-count", "GRPCRouteSpec.rules", "a route has at most 16 rules").refuses_grpc(
            &format!("[{}]", vec![format!("{{backendRefs: [{G}]}}"); 17].join(", ")),
            "/spec/rules",
        ),
    ]
}
