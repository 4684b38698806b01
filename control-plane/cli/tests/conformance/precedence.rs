//! Which of several matches takes a request.

use http::Method;

use crate::case::{Case, all, case, get, route, route_of, send};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = within();
    cases.extend(across());
    cases.extend(ties());
    cases
}

const PLACE: &str = "HTTPRouteRule.matches";

/// Two rules, of which the second is to win where both hold.
fn rules(loses: &str, wins: &str) -> String {
    format!("[{{matches: [{loses}], backendRefs: [$A]}}, {{matches: [{wins}], backendRefs: [$B]}}]")
}

/// The same in two routes, the losing one the older.
fn two(case: Case, loses: &str, wins: &str) -> Case {
    let rule = |m: &str, to: &str| format!("[{{matches: [{m}], backendRefs: [{to}]}}]");
    case.apply(&route("HTTPRoute", "$NAME-1", &rule(loses, "$A"))).apply(&route(
        "HTTPRoute",
        "$NAME-2",
        &rule(wins, "$B"),
    ))
}

const SHORT: &str = "{path: {value: /p}}";
const LONG: &str = "{path: {value: /p/q}}";
const EXACT: &str = "{path: {type: Exact, value: /p}}";
const METHOD: &str = "{path: {value: /p}, method: POST}";
const HEADER: &str = "{path: {value: /p}, headers: [{name: x-one, value: a}]}";
const HEADERS: &str = "{path: {value: /p}, headers: [{name: x-one, value: a}, {name: x-two, value: b}]}";
const PARAM: &str = "{path: {value: /p}, queryParams: [{name: one, value: a}]}";
const PARAMS: &str = "{path: {value: /p}, queryParams: [{name: one, value: a}, {name: two, value: b}]}";

fn within() -> Vec<Case> {
    vec![
        case("precedence-exact", PLACE, "an Exact path comes before every PathPrefix")
            .rules(&rules("{path: {value: /p}, method: GET, headers: [{name: x-one, value: a}]}", EXACT))
            .ask(get("/p").header("x-one", "a").to("b"))
            .ask(get("/p/x").header("x-one", "a").to("a")),
        case("precedence-prefix", PLACE, "a PathPrefix with more characters comes before one with less")
            .rules(&rules(SHORT, LONG))
            .ask(get("/p/q/r").to("b"))
            .ask(get("/p/r").to("a")),
        case("precedence-path-method", PLACE, "the path is looked at before the method")
            .rules(&rules(METHOD, LONG))
            .ask(send(Method::POST, "/p/q").to("b"))
            .ask(send(Method::POST, "/p").to("a")),
        case("precedence-method", PLACE, "a match with a method comes before one without")
            .rules(&rules(SHORT, METHOD))
            .ask(send(Method::POST, "/p").to("b"))
            .ask(get("/p").to("a")),
        case("precedence-method-headers", PLACE, "the method is looked at before the number of headers")
            .rules(&rules(HEADERS, METHOD))
            .ask(send(Method::POST, "/p").header("x-one", "a").header("x-two", "b").to("b"))
            .ask(get("/p").header("x-one", "a").header("x-two", "b").to("a")),
        case("precedence-headers", PLACE, "more conditions on headers come before fewer")
            .rules(&rules(HEADER, HEADERS))
            .ask(get("/p").header("x-one", "a").header("x-two", "b").to("b"))
            .ask(get("/p").header("x-one", "a").to("a")),
        case("precedence-headers-params", PLACE, "the number of headers is looked at before that of parameters")
            .rules(&rules(PARAMS, HEADER))
            .ask(get("/p?one=a&two=b").header("x-one", "a").to("b"))
            .ask(get("/p?one=a&two=b").to("a")),
        case("precedence-params", PLACE, "more conditions on parameters come before fewer")
            .rules(&rules(PARAM, PARAMS))
            .ask(get("/p?one=a&two=b").to("b"))
            .ask(get("/p?one=a").to("a")),
        case("precedence-first-rule", PLACE, "of rules of one route that are equal the first takes the request")
            .rules("[{matches: [{path: {value: /p}}], backendRefs: [$A]}, {matches: [{path: {value: /p}}], backendRefs: [$B]}]")
            .ask(get("/p").to("a")),
        case("precedence-any-match", PLACE, "a rule counts with the best of its matches that holds")
            .rules(&rules(&format!("{SHORT}, {EXACT}"), "{path: {value: /p}, method: GET}"))
            .ask(get("/p").to("a"))
            .ask(get("/p/x").to("b")),
    ]
}

fn across() -> Vec<Case> {
    vec![
        two(
            case("precedence-routes-merge", PLACE, "the rules of all routes of a parent hold together"),
            SHORT,
            "{path: {value: /other}}",
        )
        .ask(get("/p").to("a"))
        .ask(get("/other").to("b")),
        two(
            case(
                "precedence-routes-exact",
                PLACE,
                "an Exact path comes before a PathPrefix of an older route",
            ),
            SHORT,
            EXACT,
        )
        .ask(get("/p").to("b"))
        .ask(get("/p/x").to("a")),
        two(
            case(
                "precedence-routes-prefix",
                PLACE,
                "a longer PathPrefix comes before a shorter one of an older route",
            ),
            SHORT,
            LONG,
        )
        .ask(get("/p/q").to("b")),
        two(
            case("precedence-routes-method", PLACE, "a method comes before none in an older route"),
            SHORT,
            METHOD,
        )
        .ask(send(Method::POST, "/p").to("b")),
        two(
            case("precedence-routes-headers", PLACE, "more headers come before fewer in an older route"),
            HEADER,
            HEADERS,
        )
        .ask(get("/p").header("x-one", "a").header("x-two", "b").to("b")),
        two(
            case("precedence-routes-params", PLACE, "more parameters come before fewer in an older route"),
            PARAM,
            PARAMS,
        )
        .ask(get("/p?one=a&two=b").to("b")),
    ]
}

fn ties() -> Vec<Case> {
    let to = |backend: &str| format!("[{{matches: [{{path: {{value: /p}}}}], backendRefs: [{backend}]}}]");
    let (a, b) = (to("$A"), to("$B"));
    let edge = "[{name: edge, namespace: shop, sectionName: web}]";
    let of = |namespace: &str| {
        route_of(
            "HTTPRoute",
            (namespace, "$NAME"),
            edge,
            "[$NAME.example]",
            &a.replace("$A", "{name: #, port: 80}"),
        )
    };
    vec![
        case(
            "precedence-oldest",
            PLACE,
            "of equal matches of several routes that of the oldest route takes the request",
        )
        .apply(&route("HTTPRoute", "$NAME-z", &a))
        .apply(&route("HTTPRoute", "$NAME-y", &b))
        .ask(get("/p").to("a")),
        case("precedence-changed", PLACE, "a route is as old as its creation, whenever it was changed")
            .apply(&route("HTTPRoute", "$NAME-z", &to("$C")))
            .apply(&route("HTTPRoute", "$NAME-y", &b))
            .ask(get("/p").to("c"))
            .apply(&route("HTTPRoute", "$NAME-z", &a))
            .ask(get("/p").to("a")),
        case("precedence-name", PLACE, "of routes of one age the first by name takes the request")
            .apply(&all(&[route("HTTPRoute", "$NAME-z", &b), route("HTTPRoute", "$NAME-y", &a)]))
            .ask(get("/p").to("a")),
        case("precedence-namespace", PLACE, "of routes of one age the namespace counts before the name")
            .at_a_gateway()
            .apply(&all(&[of("shop").replace('#', "b"), of("far").replace('#', "a")]))
            .ask(get("/p").to("a")),
    ]
}
