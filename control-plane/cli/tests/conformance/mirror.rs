//! Copies of requests to somebody whose answers nobody waits for.

use http::Method;

use crate::case::{Case, case, get, send};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = copies();
    all.extend(references());
    all.extend(refused());
    all
}

fn mirror(what: &str) -> String {
    format!("[{{filters: [{{type: RequestMirror, requestMirror: {what}}}], backendRefs: [$A]}}]")
}

fn copies() -> Vec<Case> {
    vec![
        case("mirror", "HTTPRouteFilter.requestMirror", "the request goes to its backend and a copy of it to the mirror")
            .rules(&mirror("{backendRef: $B}"))
            .ask(get("/x?y=z").to("a").arrives("a", 1).arrives("b", 1)),
        case("mirror-body", "HTTPRouteFilter.requestMirror", "other methods are copied as well")
            .rules(&mirror("{backendRef: $B}"))
            .ask(send(Method::POST, "/x").to("a").arrives("b", 1)),
        case("mirror-ignored", "HTTPRouteFilterRequestMirror", "the answer of the mirror does not matter: an error")
            .rules(&mirror("{backendRef: {name: e500, port: 80}}"))
            .ask(get("/").status(200).to("a").arrives("e500", 1)),
        case("mirror-ignored-slow", "HTTPRouteFilterRequestMirror", "the answer of the mirror does not matter: a slow one")
            .rules(&mirror("{backendRef: {name: hangs, port: 80}}"))
            .ask(get("/").to("a").took(0, 10_000).arrives("hangs", 1)),
        case("mirror-ignored-none", "HTTPRouteFilterRequestMirror", "the answer of the mirror does not matter: there is none")
            .rules(&mirror("{backendRef: {name: empty, port: 80}}"))
            .ask(get("/").to("a")),
        case("mirror-once", "HTTPRequestMirrorFilter.backendRef", "a copy goes to one instance of the mirror, however many it has")
            .rules(&mirror("{backendRef: {name: two, port: 80}}").replace("$A", "$C"))
            .ask(get("/").to("c").arrives("a+b", 1))
            .ask(get("/").to("c").times(8).arrives("a+b", 8)),
        case("mirror-several", "HTTPRouteFilter.requestMirror", "a rule may have several mirrors")
            .rules("[{filters: [{type: RequestMirror, requestMirror: {backendRef: $B}}, {type: RequestMirror, requestMirror: {backendRef: $C}}], backendRefs: [$A]}]")
            .ask(get("/").to("a").arrives("b", 1).arrives("c", 1)),
        case("mirror-percent-0", "HTTPRequestMirrorFilter.percent", "of 0 percent nothing is copied")
            .rules(&mirror("{backendRef: $B, percent: 0}"))
            .ask(get("/").to("a").times(10).arrives("b", 0)),
        case("mirror-percent-100", "HTTPRequestMirrorFilter.percent", "of 100 percent everything is copied")
            .rules(&mirror("{backendRef: $B, percent: 100}"))
            .ask(get("/").to("a").times(10).arrives("b", 10)),
        case("mirror-percent", "HTTPRequestMirrorFilter.percent", "a share of the requests is copied")
            .rules(&mirror("{backendRef: $B, percent: 25}"))
            .ask(get("/").to("a").times(200).arrives_about("b", 14, 86)),
        case("mirror-fraction", "HTTPRequestMirrorFilter.fraction", "the share may be a fraction")
            .rules(&mirror("{backendRef: $B, fraction: {numerator: 1, denominator: 2}}"))
            .ask(get("/").to("a").times(120).arrives_about("b", 28, 92)),
        case("mirror-fraction-default", "Fraction.denominator", "a fraction without a denominator is of a hundred")
            .rules(&mirror("{backendRef: $B, fraction: {numerator: 100}}"))
            .ask(get("/").to("a").times(10).arrives("b", 10)),
    ]
}

fn references() -> Vec<Case> {
    vec![
        case("mirror-not-found", "HTTPRequestMirrorFilter.backendRef", "a mirror that is not there is dropped; ResolvedRefs says so, and requests go on")
            .rules(&mirror("{backendRef: {name: nobody, port: 80}}"))
            .says("ResolvedRefs", "False", "BackendNotFound")
            .ask(get("/").to("a")),
        case("mirror-not-permitted", "HTTPRequestMirrorFilter.backendRef", "a mirror in another namespace that does not grant it gets nothing; ResolvedRefs says RefNotPermitted")
            .rules(&mirror("{backendRef: {name: b, namespace: far, port: 80}}"))
            .says("ResolvedRefs", "False", "RefNotPermitted")
            .ask(get("/").to("a").arrives("b", 0)),
    ]
}

fn refused() -> Vec<Case> {
    let at = "/filters/0/requestMirror";
    vec![
        case(
            "mirror-percent-fraction",
            "HTTPRequestMirrorFilter",
            "percent and fraction are not both written",
        )
        .refuses(&mirror("{backendRef: $B, percent: 50, fraction: {numerator: 1}}"), at),
        case("mirror-percent-range", "HTTPRequestMirrorFilter.percent", "percent is a number from 0 to 100")
            .refuses(&mirror("{backendRef: $B, percent: 101}"), at)
            .refuses(&mirror("{backendRef: $B, percent: -1}"), at),
        case(
            "mirror-fraction-range",
            "Fraction",
            "a numerator is not larger than its denominator, which is not 0",
        )
        .refuses(&mirror("{backendRef: $B, fraction: {numerator: 3, denominator: 2}}"), at)
        .refuses(&mirror("{backendRef: $B, fraction: {numerator: 0, denominator: 0}}"), at),
        case("mirror-backend-required", "HTTPRequestMirrorFilter.backendRef", "a mirror names its backend")
            .refuses(&mirror("{percent: 10}"), at),
    ]
}
