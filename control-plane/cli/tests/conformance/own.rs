//! What the Gateway API leaves to implementations (`ExtensionRef`): our own filters, the same in the mesh and at a gateway.

use http::Method;

use crate::case::{Ask, Case, all, call, case, get, grpc_route, http_route, send};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = faults();
    cases.extend(answers_and_limits());
    cases.extend(choices());
    cases.extend(conditions());
    cases
}

/// A RouteFilter of the case's name, and the rule that names it, with these backends.
fn own(spec: &str, backends: &str) -> String {
    all(&[filter(spec), http_route(&rule(backends))])
}

fn filter(spec: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: RouteFilter\nmetadata: {{name: $NAME, namespace: shop}}\nspec: {spec}\n"
    )
}

fn rule(backends: &str) -> String {
    let named = "{type: ExtensionRef, extensionRef: {group: outrigger.dev, kind: RouteFilter, name: $NAME}}";
    format!("[{{filters: [{named}], backendRefs: [{backends}]}}]")
}

fn faults() -> Vec<Case> {
    const G: &str = "{name: g, port: 80}";
    vec![
        case("own-abort", "RouteFilter.fault", "a request is answered with a status in place of its backend")
            .apply(&own("{fault: {abort: {httpStatus: 418}}}", "$A"))
            .ask(get("/").status(418).tells("x-outrigger-reason", "fault_injected").arrives("a", 0)),
        case("own-abort-percent", "RouteFilter.fault", "of a share of the requests")
            .apply(&own("{fault: {abort: {httpStatus: 418}, percent: 25}}", "$A"))
            .ask(get("/").times(120).share("418", 25).share("a", 75)),
        case("own-abort-match", "RouteFilter.fault", "of those that have something")
            .apply(&own(
                "{fault: {abort: {httpStatus: 418}, match: {headers: [{name: x-drill, value: \"1\"}]}}}",
                "$A",
            ))
            .ask(get("/").to("a"))
            .ask(get("/").header("x-drill", "1").status(418)),
        case("own-abort-grpc", "RouteFilter.fault", "a call of gRPC is answered with a status of gRPC")
            .apply(&all(&[filter("{fault: {abort: {grpcStatus: 8}}}"), grpc_route(&rule(G))]))
            .ask(call("/shop.Cart/Add").grpc(8).arrives("g", 0)),
        case("own-delay", "RouteFilter.fault", "a request is held up, and goes on")
            .apply(&own("{fault: {delay: 400ms}}", "$A"))
            .ask(get("/").to("a").took(390, 3_000)),
    ]
}

fn answers_and_limits() -> Vec<Case> {
    let upload = || Ask { http2: true, ..send(Method::POST, "/") };
    vec![
        case("own-direct", "RouteFilter.directResponse", "an answer without asking anybody")
            .apply(&own("{directResponse: {status: 203, headers: {x-said: here}, body: hello}}", "$A"))
            .ask(get("/").status(203).tells("x-said", "here").arrives("a", 0)),
        case("own-body", "RouteFilter.limits.maxBody", "a longer body is refused")
            .apply(&own("{limits: {maxBody: \"4\"}}", "$A"))
            .ask(upload().status(413).arrives("a", 0))
            .ask(send(Method::POST, "/").to("a")),
        case("own-rate", "RouteFilter.limits.requests", "more requests than are granted are refused")
            .apply(&own("{limits: {requests: [{name: few, requests: 3, per: 600s}]}}", "$A"))
            .ask(get("/").times(8).arrives("a", 3))
            .ask(get("/").status(429).word("retry-after", "")),
    ]
}

fn choices() -> Vec<Case> {
    let user = |name: &'static str| get("/").header("x-user", name);
    vec![
        case("own-partition", "RouteFilter.partition", "the ranges of a key have backends of their own")
            .apply(&own(
                "{partition: {by: {header: x-user}, ranges: [{from: a, to: m, backend: a}, {from: n, to: z, backend: b}]}}",
                "$A, $B",
            ))
            .ask(user("ada").times(6).to("a"))
            .ask(user("mike").times(6).to("a"))
            .ask(user("nora").times(6).to("b"))
            .ask(user("zoe").times(6).to("b")),
        case("own-partition-hash", "RouteFilter.splitBy", "what has one key goes to one backend, however often it asks")
            .apply(&own("{splitBy: {header: x-user}}", "$A, $B"))
            .ask(user("ada").status(200))
            .ask(user("ada").times(12).stays()),
    ]
}

fn conditions() -> Vec<Case> {
    let to_caller = |name: &str| own(&format!("{{match: {{callers: [{{serviceAccount: {name}}}]}}}}"), "$A");
    vec![
        case("own-cookie", "RouteFilter.match.cookies", "a rule may be for who has a cookie")
            .apply(&own("{match: {cookies: [{name: tier, value: gold}]}}", "$A"))
            .ask(get("/").header("cookie", "a=b; tier=gold").to("a"))
            .ask(get("/").header("cookie", "tier=silver").status(404)),
        case(
            "own-caller",
            "RouteFilter.match.callers",
            "a rule may be for a caller: the workload whose sidecar it is",
        )
        .apply(&to_caller("web"))
        .ask(get("/").to("a"))
        .apply(&to_caller("batch"))
        .ask(get("/").status(404))
        .in_the_mesh(),
        case(
            "own-caller-gateway",
            "RouteFilter.match.callers",
            "at a gateway the caller is the gateway itself",
        )
        .apply(&to_caller("edge"))
        .ask(get("/").to("a"))
        .apply(&to_caller("web"))
        .ask(get("/").status(404))
        .at_a_gateway(),
        case(
            "own-label",
            "RouteFilter.match.sourceLabels",
            "a condition on a label that the sidecar has not never holds",
        )
        .apply(&own("{match: {sourceLabels: {team: blue}}}", "$A"))
        .ask(get("/").status(404)),
        case(
            "own-missing",
            "HTTPRouteFilter.extensionRef",
            "a filter that is not there is never skipped: requests are answered 500",
        )
        .rules(&rule("$A"))
        .says("ResolvedRefs", "False", "BackendNotFound")
        .ask(get("/").status(500).arrives("a", 0)),
    ]
}
