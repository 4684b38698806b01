//! Conditions on methods, headers and query parameters, and how they go together.

use http::Method;

use crate::case::{Case, case, get, send};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = methods();
    all.extend(headers());
    all.extend(params());
    all.extend(together());
    all
}

fn methods() -> Vec<Case> {
    let each = |method: &str| {
        format!(
            "{{matches: [{{path: {{type: Exact, value: /{method}}}, method: {method}}}], backendRefs: [$A]}}"
        )
    };
    let every: Vec<String> =
        ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"].map(each).to_vec();
    vec![
        case("method", "HTTPRouteMatch.method", "a method holds for requests with that method only")
            .rules("[{matches: [{method: POST}], backendRefs: [$A]}, {matches: [{method: PUT}], backendRefs: [$B]}]")
            .ask(send(Method::POST, "/").to("a"))
            .ask(send(Method::PUT, "/").to("b"))
            .ask(get("/").status(404)),
        case("method-any", "HTTPRouteMatch.method", "a match without a method holds for every one")
            .rules("[{backendRefs: [$A]}]")
            .ask(get("/").to("a"))
            .ask(send(Method::DELETE, "/").to("a"))
            .ask(send(Method::PATCH, "/").to("a")),
        case("method-values", "HTTPMethod", "all methods of HTTP can be asked for")
            .rules(&format!("[{}]", every.join(", ")))
            .ask(send(Method::HEAD, "/HEAD").status(200))
            .ask(send(Method::POST, "/POST").to("a"))
            .ask(send(Method::PUT, "/PUT").to("a"))
            .ask(send(Method::DELETE, "/DELETE").to("a"))
            .ask(send(Method::OPTIONS, "/OPTIONS").to("a"))
            .ask(send(Method::PATCH, "/PATCH").to("a"))
            .ask(send(Method::PATCH, "/PUT").status(404)),
        case("method-upper", "HTTPMethod", "a method is written in upper case")
            .refuses("[{matches: [{method: get}], backendRefs: [$A]}]", "/method"),
        case("method-unknown", "HTTPMethod", "a method that is not known takes nothing down and the route is not accepted")
            .refuses("[{matches: [{method: FETCH}], backendRefs: [$A]}]", "/method"),
    ]
}

fn many(count: usize, of: &str) -> String {
    (0..count).map(|i| of.replace('#', &i.to_string())).collect::<Vec<_>>().join(", ")
}

fn headers() -> Vec<Case> {
    let one = "[{matches: [{headers: [{name: version, value: two}]}], backendRefs: [$A]}]";
    let two = "[{matches: [{headers: [{name: version, value: two}, {name: color, value: red}]}], backendRefs: [$A]}]";
    let seventeen =
        format!("[{{matches: [{{headers: [{}]}}], backendRefs: [$A]}}]", many(17, "{name: x-#, value: a}"));
    vec![
        case("header-exact", "HTTPRouteMatch.headers", "a header holds for requests that have it with exactly that value")
            .rules(one)
            .ask(get("/").header("version", "two").to("a"))
            .ask(get("/").header("version", "twofold").status(404))
            .ask(get("/").status(404)),
        case("header-type-default", "HTTPHeaderMatch.type", "a condition without a type is Exact")
            .rules("[{matches: [{headers: [{name: version, value: \"t.o\"}]}], backendRefs: [$A]}]")
            .ask(get("/").header("version", "t.o").to("a"))
            .ask(get("/").header("version", "two").status(404)),
        case("header-name-case", "HTTPHeaderMatch.name", "names of headers are compared whatever their case")
            .rules("[{matches: [{headers: [{name: VerSion, value: two}]}], backendRefs: [$A]}]")
            .ask(get("/").header("version", "two").to("a")),
        case("header-value-case", "HTTPHeaderMatch.value", "values of headers tell upper from lower case")
            .rules(one)
            .ask(get("/").header("version", "two").to("a"))
            .ask(get("/").header("version", "TWO").status(404)),
        case("header-all", "HTTPRouteMatch.headers", "of several headers all must hold")
            .rules(two)
            .ask(get("/").header("version", "two").header("color", "red").to("a"))
            .ask(get("/").header("version", "two").status(404))
            .ask(get("/").header("version", "two").header("color", "blue").status(404)),
        case("header-regex", "HeaderMatchType.RegularExpression", "an expression is compared with the whole value")
            .rules("[{matches: [{headers: [{type: RegularExpression, name: version, value: \"t.o|[0-9]+\"}]}], backendRefs: [$A]}]")
            .ask(get("/").header("version", "two").to("a"))
            .ask(get("/").header("version", "17").to("a"))
            .ask(get("/").header("version", "a17").status(404)),
        case("header-equivalent", "HTTPHeaderMatch.name", "of two conditions on one name the first counts and the second is ignored")
            .refuses("[{matches: [{headers: [{name: version, value: two}, {name: Version, value: one}]}], backendRefs: [$A]}]", "/headers/1/name")
            .unsupported("two conditions on one name are told as a mistake, not ignored"),
        case("header-type-unknown", "HeaderMatchType", "a type that is not known takes nothing down and the route is not accepted")
            .refuses("[{matches: [{headers: [{type: Prefix, name: version, value: t}]}], backendRefs: [$A]}]", "/headers/0/type"),
        case("header-name-pseudo", "HTTPHeaderName", "pseudo headers of HTTP/2 can not be asked for")
            .refuses("[{matches: [{headers: [{name: \":method\", value: GET}]}], backendRefs: [$A]}]", "/headers/0/name"),
        case("header-name-characters", "HTTPHeaderName", "a name has only characters that a name may have")
            .refuses("[{matches: [{headers: [{name: /invalid, value: a}]}], backendRefs: [$A]}]", "/headers/0/name"),
        case("header-value-required", "HTTPHeaderMatch.value", "a condition has a value of at least one character")
            .refuses("[{matches: [{headers: [{name: version, value: \"\"}]}], backendRefs: [$A]}]", "/headers/0/value")
            .refuses("[{matches: [{headers: [{name: version}]}], backendRefs: [$A]}]", "/headers/0"),
        case("header-count", "HTTPRouteMatch.headers", "a match has at most 16 conditions on headers").refuses(&seventeen, "/headers"),
    ]
}

fn params() -> Vec<Case> {
    let one = "[{matches: [{queryParams: [{name: animal, value: whale}]}], backendRefs: [$A]}]";
    let two = "[{matches: [{queryParams: [{name: animal, value: whale}, {name: color, value: blue}]}], backendRefs: [$A]}]";
    let seventeen = format!(
        "[{{matches: [{{queryParams: [{}]}}], backendRefs: [$A]}}]",
        many(17, "{name: x#, value: a}")
    );
    vec![
        case("param-exact", "HTTPRouteMatch.queryParams", "a parameter holds for requests that have it with exactly that value")
            .rules(one)
            .ask(get("/?animal=whale").to("a"))
            .ask(get("/?x=y&animal=whale").to("a"))
            .ask(get("/?animal=whales").status(404))
            .ask(get("/").status(404)),
        case("param-all", "HTTPRouteMatch.queryParams", "of several parameters all must hold")
            .rules(two)
            .ask(get("/?animal=whale&color=blue").to("a"))
            .ask(get("/?color=blue&animal=whale").to("a"))
            .ask(get("/?animal=whale").status(404)),
        case("param-name-case", "HTTPQueryParamMatch.name", "names of parameters are compared exactly, case included")
            .rules(one)
            .ask(get("/?animal=whale").to("a"))
            .ask(get("/?Animal=whale").status(404)),
        case("param-repeated", "HTTPQueryParamMatch.name", "of a repeated parameter the first value is compared (recommended)")
            .rules(one)
            .ask(get("/?animal=whale&animal=shark").to("a"))
            .ask(get("/?animal=shark&animal=whale").status(404)),
        case("param-regex", "QueryParamMatchType.RegularExpression", "an expression is compared with the whole value")
            .rules("[{matches: [{queryParams: [{type: RegularExpression, name: animal, value: \"wh[a-z]+\"}]}], backendRefs: [$A]}]")
            .ask(get("/?animal=whale").to("a"))
            .ask(get("/?animal=white-whale").status(404)),
        case("param-equivalent", "HTTPQueryParamMatch.name", "of two conditions on one name the first counts and the second is ignored")
            .refuses("[{matches: [{queryParams: [{name: animal, value: whale}, {name: animal, value: shark}]}], backendRefs: [$A]}]", "/queryParams/1/name")
            .unsupported("two conditions on one name are told as a mistake, not ignored"),
        case("param-type-unknown", "QueryParamMatchType", "a type that is not known takes nothing down and the route is not accepted")
            .refuses("[{matches: [{queryParams: [{type: Prefix, name: animal, value: w}]}], backendRefs: [$A]}]", "/queryParams/0/type"),
        case("param-value-required", "HTTPQueryParamMatch.value", "a condition has a value of at least one character")
            .refuses("[{matches: [{queryParams: [{name: animal, value: \"\"}]}], backendRefs: [$A]}]", "/queryParams/0/value")
            .refuses("[{matches: [{queryParams: [{name: animal}]}], backendRefs: [$A]}]", "/queryParams/0"),
        case("param-count", "HTTPRouteMatch.queryParams", "a match has at most 16 conditions on parameters").refuses(&seventeen, "/queryParams"),
    ]
}

fn together() -> Vec<Case> {
    let either = "[{matches: [{path: {value: /foo}, headers: [{name: version, value: two}]}, {path: {value: /v2/foo}}], backendRefs: [$A]}]";
    let every = "[{matches: [{path: {value: /foo}, method: POST, headers: [{name: version, value: two}], \
                 queryParams: [{name: animal, value: whale}]}], backendRefs: [$A]}]";
    let post = || send(Method::POST, "/foo?animal=whale");
    let matches =
        |count| format!("{{matches: [{}], backendRefs: [$A]}}", many(count, "{path: {value: /p#}}"));
    vec![
        case("match-any", "HTTPRouteRule.matches", "it is enough that one match of a rule holds")
            .rules(either)
            .ask(get("/foo/x").header("version", "two").to("a"))
            .ask(get("/v2/foo").to("a"))
            .ask(get("/foo").status(404)),
        case("match-all", "HTTPRouteMatch", "all conditions of a match must hold")
            .rules(every)
            .ask(post().header("version", "two").to("a"))
            .ask(post().status(404))
            .ask(get("/foo?animal=whale").header("version", "two").status(404))
            .ask(send(Method::POST, "/foo").header("version", "two").status(404))
            .ask(send(Method::POST, "/bar?animal=whale").header("version", "two").status(404)),
        case("match-none", "HTTPRouteRule.matches", "a rule without matches takes every request")
            .rules("[{backendRefs: [$A]}]")
            .ask(get("/").to("a"))
            .ask(send(Method::POST, "/any/where?x=y").to("a")),
        case("match-404", "HTTPRouteRule.matches", "what no rule of the parent takes is answered 404")
            .rules("[{matches: [{path: {type: Exact, value: /only}}], backendRefs: [$A]}]")
            .ask(get("/only").to("a"))
            .ask(get("/other").status(404).arrives("a", 0)),
        case("match-count", "HTTPRouteRule.matches", "a rule has at most 64 matches")
            .refuses(&format!("[{}]", matches(65)), "/matches"),
        case("match-count-all", "HTTPRouteSpec.rules", "a route has at most 128 matches in all its rules")
            .refuses(&format!("[{}, {}, {}]", matches(64), matches(64), matches(1)), "/spec/rules"),
    ]
}
