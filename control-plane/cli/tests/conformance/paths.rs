//! Conditions on the path.

use crate::case::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = held();
    all.extend(refused());
    all
}

const EXACT: &str = "[{matches: [{path: {type: Exact, value: /abc}}], backendRefs: [$A]}]";
const PREFIX: &str = "[{matches: [{path: {type: PathPrefix, value: /abc}}], backendRefs: [$A]}]";

fn held() -> Vec<Case> {
    vec![
        case(
            "path-exact",
            "PathMatchType.Exact",
            "Exact holds for the very same path, and for nothing longer or shorter",
        )
        .rules(EXACT)
        .ask(get("/abc").to("a"))
        .ask(get("/abc/").status(404))
        .ask(get("/abcd").status(404))
        .ask(get("/abc/def").status(404)),
        case("path-exact-case", "PathMatchType.Exact", "Exact tells upper from lower case")
            .rules(EXACT)
            .ask(get("/abc").to("a"))
            .ask(get("/Abc").status(404)),
        case("path-exact-query", "PathMatchType.Exact", "the query is no part of the path that is compared")
            .rules(EXACT)
            .ask(get("/abc?d=e").to("a").asks_for("/abc?d=e")),
        case(
            "path-prefix-segments",
            "PathMatchType.PathPrefix",
            "PathPrefix compares whole segments of the path",
        )
        .rules(PREFIX)
        .ask(get("/abc").to("a"))
        .ask(get("/abc/").to("a"))
        .ask(get("/abc/def").to("a"))
        .ask(get("/abcd").status(404)),
        case(
            "path-prefix-trailing-slash",
            "PathMatchType.PathPrefix",
            "a slash at the end of a PathPrefix means nothing",
        )
        .rules("[{matches: [{path: {type: PathPrefix, value: /abc/}}], backendRefs: [$A]}]")
        .ask(get("/abc").to("a"))
        .ask(get("/abc/").to("a"))
        .ask(get("/abc/def").to("a"))
        .ask(get("/abcd").status(404)),
        case("path-prefix-case", "PathMatchType.PathPrefix", "PathPrefix tells upper from lower case")
            .rules(PREFIX)
            .ask(get("/abc/def").to("a"))
            .ask(get("/ABC/def").status(404)),
        case("path-prefix-root", "PathMatchType.PathPrefix", "the prefix / holds for every path")
            .rules("[{matches: [{path: {type: PathPrefix, value: /}}], backendRefs: [$A]}]")
            .ask(get("/").to("a"))
            .ask(get("/any/where").to("a")),
        case("path-type-default", "HTTPPathMatch.type", "a path without a type is a PathPrefix")
            .rules("[{matches: [{path: {value: /abc}}], backendRefs: [$A]}]")
            .ask(get("/abc/def").to("a"))
            .ask(get("/abcd").status(404)),
        case("path-value-default", "HTTPPathMatch.value", "a path without a value is /")
            .rules("[{matches: [{path: {type: Exact}}], backendRefs: [$A]}]")
            .ask(get("/").to("a"))
            .ask(get("/abc").status(404)),
        case("path-default", "HTTPRouteMatch.path", "a match without a path holds for every path")
            .rules("[{matches: [{method: GET}], backendRefs: [$A]}]")
            .ask(get("/").to("a"))
            .ask(get("/any/where").to("a")),
        case(
            "path-regex",
            "PathMatchType.RegularExpression",
            "an expression is compared with the whole path and tells upper from lower case",
        )
        .rules("[{matches: [{path: {type: RegularExpression, value: \"/v[0-9]+/x\"}}], backendRefs: [$A]}]")
        .ask(get("/v12/x").to("a"))
        .ask(get("/V12/x").status(404))
        .ask(get("/v12/xy").status(404)),
    ]
}

/// A route with one match on this path.
fn with(kind: &str, value: &str) -> String {
    format!("[{{matches: [{{path: {{type: {kind}, value: \"{value}\"}}}}], backendRefs: [$A]}}]")
}

/// The same value is refused of both types.
fn both(case: Case, value: &str) -> Case {
    case.refuses(&with("Exact", value), "/path/value").refuses(&with("PathPrefix", value), "/path/value")
}

fn refused() -> Vec<Case> {
    let long = format!("/{}", "x".repeat(1024));
    vec![
        both(case("path-absolute", "HTTPPathMatch", "an Exact or PathPrefix begins with a slash"), "abc"),
        both(case("path-empty-segment", "HTTPPathMatch", "it has no two slashes in a row"), "/a//b"),
        both(case("path-dot-segment", "HTTPPathMatch", "it has no segment that is one dot"), "/a/./b"),
        both(case("path-dots-segment", "HTTPPathMatch", "it has no segment that is two dots"), "/a/../b"),
        both(case("path-dot-end", "HTTPPathMatch", "it does not end with a segment that is one dot"), "/a/."),
        both(
            case("path-dots-end", "HTTPPathMatch", "it does not end with a segment that is two dots"),
            "/a/..",
        ),
        both(case("path-encoded-slash", "HTTPPathMatch", "it has no encoded slash"), "/a%2fb"),
        both(case("path-encoded-slash-upper", "HTTPPathMatch", "nor one encoded in upper case"), "/a%2Fb"),
        both(case("path-fragment", "HTTPPathMatch", "it has no fragment"), "/a#b"),
        both(
            case("path-characters", "HTTPPathMatch", "it has only characters that a path may have"),
            "/a b<c>",
        ),
        both(
            case("path-percent", "HTTPPathMatch", "a percent sign comes with two hexadecimal digits"),
            "/a%zz",
        ),
        both(case("path-length", "HTTPPathMatch.value", "it has at most 1024 characters"), &long),
        case(
            "path-type-unknown",
            "PathMatchType",
            "a type that is not known takes nothing down and the route is not accepted",
        )
        .refuses(&with("Suffix", "/abc"), "/path/type"),
        case(
            "path-regex-bad",
            "PathMatchType.RegularExpression",
            "an expression that is none is told, not ignored",
        )
        .refuses(&with("RegularExpression", "/a("), "/path/value"),
    ]
}
