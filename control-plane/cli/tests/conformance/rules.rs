//! What a rule may say at all, and which filters go together.

use crate::case::{Case, case, get, http_route};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = shape();
    all.extend(filters());
    all.extend(prefixes());
    all.extend(extensions());
    all
}

const SET: &str = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: b}]}}";
const RESPONSE: &str =
    "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-a, value: b}]}}";
const REDIRECT: &str = "{type: RequestRedirect, requestRedirect: {hostname: www.example.com}}";
const REWRITE: &str = "{type: URLRewrite, urlRewrite: {hostname: www.example.com}}";
const CORS: &str = "{type: CORS, cors: {allowOrigins: [\"https://www.example.com\"]}}";

/// A rule with these filters and a backend.
fn with(filters: &str) -> String {
    format!("[{{filters: [{filters}], backendRefs: [$A]}}]")
}

/// The same without a backend.
fn alone(filters: &str) -> String {
    format!("[{{filters: [{filters}]}}]")
}

fn shape() -> Vec<Case> {
    let rule = |i: usize| format!("{{matches: [{{path: {{value: /p{i}}}}}], backendRefs: [$A]}}");
    let rules: Vec<String> = (0..17).map(rule).collect();
    vec![
        case("rule-name", "HTTPRouteRule.name", "a rule may have a name")
            .rules("[{name: first, backendRefs: [$A]}]")
            .ask(get("/").to("a")),
        case("rule-name-unique", "HTTPRouteRule.name", "no two rules of a route have one name")
            .refuses("[{name: one, matches: [{path: {value: /a}}], backendRefs: [$A]}, {name: one, matches: [{path: {value: /b}}], backendRefs: [$B]}]", "/spec/rules/1/name"),
        case("rule-count", "HTTPRouteSpec.rules", "a route has at most 16 rules").refuses(&format!("[{}]", rules.join(", ")), "/spec/rules"),
        case("rule-default", "HTTPRouteSpec.rules", "a route without rules takes every request and sends it nowhere: 500")
            .refuses_all("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: $NAME, namespace: shop}\nspec:\n  parentRefs: $PARENT\n", "rules")
            .unsupported("a route that can only answer 500 is told as a mistake"),
        case("rule-unknown-field", "HTTPRouteRule", "what is not known is not ignored (an apiserver prunes it; here it is a mistake)")
            .refuses("[{backendRefs: [$A], colour: red}]", "colour"),
        case("rule-filter-count", "HTTPRouteRule.filters", "a rule has at most 16 filters")
            .refuses(&with(&vec!["{type: RequestMirror, requestMirror: {backendRef: $B}}"; 17].join(", ")), "/filters"),
    ]
}

fn filters() -> Vec<Case> {
    let twice = |id, place: &'static str, filter: &str| {
        case(id, place, "the filter is there at most once in a rule")
            .refuses(&alone(&format!("{filter}, {filter}")), "/filters/1")
    };
    vec![
        case("filter-together", "HTTPRouteRule.filters", "filters go together, but for a redirect and a rewrite")
            .rules(&with(&format!("{SET}, {{type: ResponseHeaderModifier, responseHeaderModifier: {{add: [{{name: x-answer, value: c}}]}}}}, \
                {{type: RequestMirror, requestMirror: {{backendRef: $B}}}}, \
                {{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: /new}}}}}}")))
            .ask(get("/old").to("a").asks_for("/new").sends("x-a", "b").tells("x-answer", "c").arrives("b", 1)),
        twice("filter-once-request-headers", "HTTPRouteRule.filters, RequestHeaderModifier", SET),
        twice("filter-once-response-headers", "HTTPRouteRule.filters, ResponseHeaderModifier", RESPONSE),
        twice("filter-once-redirect", "HTTPRouteRule.filters, RequestRedirect", REDIRECT),
        twice("filter-once-rewrite", "HTTPRouteRule.filters, URLRewrite", REWRITE),
        twice("filter-once-cors", "HTTPRouteRule.filters, CORS", CORS),
        case("filter-redirect-rewrite", "HTTPRequestRedirectFilter", "a redirect does not stand in one rule with a rewrite")
            .refuses(&alone(&format!("{REDIRECT}, {REWRITE}")), "/filters"),
        case("filter-rewrite-redirect", "HTTPURLRewriteFilter", "nor a rewrite with a redirect, in whatever order")
            .refuses(&alone(&format!("{REWRITE}, {REDIRECT}")), "/filters"),
        case("filter-redirect-backends", "HTTPRouteRule", "a rule that redirects has no backends").refuses(&with(REDIRECT), "/spec/rules/0"),
        case("filter-type-unknown", "HTTPRouteFilter.type", "a type that is not known takes nothing down and the route is not accepted")
            .refuses(&with("{type: Compress}"), "/filters/0/type"),
        case("filter-part-missing", "HTTPRouteFilter", "a filter has the part that its type names")
            .refuses(&with("{type: RequestHeaderModifier}"), "/filters/0")
            .refuses(&alone("{type: RequestRedirect}"), "/filters/0")
            .refuses(&with("{type: URLRewrite}"), "/filters/0")
            .refuses(&with("{type: RequestMirror}"), "/filters/0")
            .refuses(&with("{type: CORS}"), "/filters/0")
            .refuses(&with("{type: ExtensionRef}"), "/filters/0"),
        case("filter-part-foreign", "HTTPRouteFilter", "a filter has no part that its type does not name")
            .refuses(&with("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: b}]}, urlRewrite: {hostname: www.example.com}}"), "/filters/0"),
        case("filter-external-auth", "HTTPRouteFilter.externalAuth", "somebody outside is asked for leave, and without his answer nothing passes")
            .refuses(&with("{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: $B}}"), "/filters/0")
            .unsupported("access is decided by AccessPolicy and TokenPolicy at the service's own sidecar"),
    ]
}

fn prefixes() -> Vec<Case> {
    let redirect = "{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}";
    let rewrite =
        "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}";
    let exact = "matches: [{path: {type: Exact, value: /a}}]";
    let two = "matches: [{path: {value: /a}}, {path: {value: /c}}]";
    let of_redirect = |matches: &str| format!("[{{{matches}, filters: [{redirect}]}}]");
    let of_rewrite = |matches: &str| format!("[{{{matches}, filters: [{rewrite}], backendRefs: [$A]}}]");
    vec![
        case(
            "filter-prefix-exact-redirect",
            "HTTPPathModifier.replacePrefixMatch",
            "a prefix is replaced in a redirect only where it was matched as one",
        )
        .refuses(&of_redirect(exact), "/filters/0"),
        case(
            "filter-prefix-exact-rewrite",
            "HTTPPathModifier.replacePrefixMatch",
            "a prefix is replaced in a rewrite only where it was matched as one",
        )
        .refuses(&of_rewrite(exact), "/filters/0"),
        case(
            "filter-prefix-one-redirect",
            "HTTPRouteRule",
            "a rule whose redirect replaces a prefix has exactly one match",
        )
        .refuses(&of_redirect(two), "/filters/0"),
        case(
            "filter-prefix-one-rewrite",
            "HTTPRouteRule",
            "a rule whose rewrite replaces a prefix has exactly one match",
        )
        .refuses(&of_rewrite(two), "/filters/0"),
    ]
}

fn extensions() -> Vec<Case> {
    let extension = |group: &str, kind: &str| {
        format!("{{type: ExtensionRef, extensionRef: {{group: {group}, kind: {kind}, name: nobody}}}}")
    };
    vec![
        case("filter-extension-unknown", "HTTPRouteFilter.type", "a custom filter that can not be found is not skipped: what it would have processed is answered with an error")
            .refuses(&with(&extension("example.com", "Nothing")), "/filters"),
        case("filter-extension-core", "HTTPRouteFilter.extensionRef", "a filter of the API itself is not written as a custom one")
            .refuses(&with(&extension("gateway.networking.k8s.io", "RequestRedirect")), "/filters"),
        case("filter-last-good", "RouteConditionPartiallyInvalid", "of a route with an invalid rule the last good state stays in force (here the write is refused as a whole)")
            .rules("[{matches: [{path: {value: /a}}], backendRefs: [$A]}]")
            .refuses_all(&http_route("[{matches: [{path: {value: /a}}], backendRefs: [$B]}, {matches: [{path: {value: bad}}], backendRefs: [$B]}]"), "/path/value")
            .ask(get("/a").to("a")),
        case("filter-backend-others", "HTTPBackendRef.filters", "a backend may have every filter that a rule has (implementation-specific)")
            .refuses("[{backendRefs: [{name: a, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: www.example.com}}]}]}]", "/backendRefs/0/filters/0")
            .unsupported("a backend changes headers only; rewrites, redirects, mirrors and CORS belong to the rule"),
    ]
}
