//! Changes to the headers of requests and answers.

use crate::case::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = requests();
    all.extend(answers());
    all.extend(backends());
    all.extend(refused());
    all
}

const REQUEST: &str = "HTTPRouteFilter.requestHeaderModifier";
const RESPONSE: &str = "HTTPRouteFilter.responseHeaderModifier";

fn request(changes: &str) -> String {
    format!(
        "[{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {changes}}}], backendRefs: [$A]}}]"
    )
}

fn response(changes: &str) -> String {
    format!(
        "[{{filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {changes}}}], \
         backendRefs: [{{name: told, port: 80}}]}}]"
    )
}

fn requests() -> Vec<Case> {
    vec![
        case("request-header-set", "HTTPHeaderFilter.set", "set writes a header over what the request said")
            .rules(&request("{set: [{name: x-one, value: new}]}"))
            .ask(get("/").header("x-one", "old").to("a").sends("x-one", "new")),
        case("request-header-set-absent", "HTTPHeaderFilter.set", "set writes it also where the request had none")
            .rules(&request("{set: [{name: x-one, value: new}]}"))
            .ask(get("/").to("a").sends("x-one", "new")),
        case("request-header-set-repeated", "HTTPHeaderFilter.set", "set leaves one value of several")
            .rules(&request("{set: [{name: x-one, value: new}]}"))
            .ask(get("/").header("x-one", "old").header("x-one", "older").to("a").sends("x-one", "new")),
        case("request-header-add", "HTTPHeaderFilter.add", "add puts a value behind those that are there")
            .rules(&request("{add: [{name: x-one, value: new}]}"))
            .ask(get("/").header("x-one", "old").to("a").sends("x-one", "old,new")),
        case("request-header-add-absent", "HTTPHeaderFilter.add", "add writes it where there was none")
            .rules(&request("{add: [{name: x-one, value: new}]}"))
            .ask(get("/").to("a").sends("x-one", "new")),
        case("request-header-add-list", "HTTPHeaderFilter", "several values of a header are written in one, with commas")
            .rules(&request("{add: [{name: x-one, value: \"new,newer\"}]}"))
            .ask(get("/").header("x-one", "old").to("a").sends("x-one", "old,new,newer")),
        case("request-header-remove", "HTTPHeaderFilter.remove", "remove takes a header away, all its values, and no other")
            .rules(&request("{remove: [x-one, x-three]}"))
            .ask(get("/").header("x-one", "1").header("x-one", "2").header("x-two", "3").to("a").sends_no("x-one").sends("x-two", "3")),
        case("request-header-remove-case", "HTTPHeaderFilter.remove", "names to be removed are compared whatever their case")
            .rules(&request("{remove: [X-One]}"))
            .ask(get("/").header("x-one", "1").to("a").sends_no("x-one")),
        case("request-header-set-case", "HTTPHeader.name", "names to be set are compared whatever their case")
            .rules(&request("{set: [{name: X-One, value: new}]}"))
            .ask(get("/").header("x-one", "old").to("a").sends("x-one", "new")),
        case("request-header-all", REQUEST, "set, add and remove of one filter are all done")
            .rules(&request("{set: [{name: x-set, value: s}], add: [{name: x-add, value: d}], remove: [x-gone]}"))
            .ask(get("/").header("x-set", "0").header("x-add", "0").header("x-gone", "0").to("a")
                .sends("x-set", "s").sends("x-add", "0,d").sends_no("x-gone")),
        case("request-header-rule", REQUEST, "a filter is for the requests of its own rule")
            .rules("[{matches: [{path: {value: /one}}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-one, value: new}]}}], backendRefs: [$A]}, \
                    {matches: [{path: {value: /two}}], backendRefs: [$A]}]")
            .ask(get("/one").to("a").sends("x-one", "new"))
            .ask(get("/two").to("a").sends_no("x-one")),
    ]
}

fn answers() -> Vec<Case> {
    vec![
        case("response-header-set", RESPONSE, "set writes a header of the answer over what the origin said")
            .rules(&response("{set: [{name: x-one, value: new}]}"))
            .ask(get("/").to("told").tells("x-one", "new").tells("x-two", "2")),
        case("response-header-set-absent", RESPONSE, "set writes it also where the origin said none")
            .rules(&response("{set: [{name: x-other, value: new}]}"))
            .ask(get("/").to("told").tells("x-other", "new")),
        case("response-header-add", RESPONSE, "add puts a value behind those of the origin")
            .rules(&response("{add: [{name: x-one, value: new}]}"))
            .ask(get("/").to("told").tells("x-one", "1,new")),
        case(
            "response-header-remove",
            RESPONSE,
            "remove takes a header of the answer away, whatever its case, and no other",
        )
        .rules(&response("{remove: [X-One, x-three]}"))
        .ask(get("/").to("told").tells_no("x-one").tells_no("x-three").tells("x-two", "2")),
        case("response-header-all", RESPONSE, "set, add and remove of one filter are all done")
            .rules(&response(
                "{set: [{name: x-one, value: s}], add: [{name: x-two, value: d}], remove: [x-three]}",
            ))
            .ask(get("/").to("told").tells("x-one", "s").tells("x-two", "2,d").tells_no("x-three")),
    ]
}

fn backends() -> Vec<Case> {
    let of = |kind: &str, part: &str, name: &str, value: &str| {
        format!(
            "{{name: {name}, port: 80, filters: [{{type: {kind}, {part}: {{set: [{{name: x-one, value: {value}}}]}}}}]}}"
        )
    };
    let own = |kind, part| {
        format!(
            "[{{backendRefs: [{}, {}]}}]",
            of(kind, part, "a", "of-a"),
            of(kind, part, "b", "of-b").replace("port: 80", "port: 80, weight: 0")
        )
    };
    let both = format!(
        "[{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-rule, value: r}}]}}}}], backendRefs: [{}]}}]",
        of("RequestHeaderModifier", "requestHeaderModifier", "a", "of-a")
    );
    vec![
        case(
            "backend-request-header",
            "HTTPBackendRef.filters",
            "a backend's changes to requests are for what goes to it alone",
        )
        .rules(&own("RequestHeaderModifier", "requestHeaderModifier"))
        .ask(get("/").to("a").sends("x-one", "of-a")),
        case(
            "backend-response-header",
            "HTTPBackendRef.filters",
            "a backend's changes to answers are for what comes from it alone",
        )
        .rules(&own("ResponseHeaderModifier", "responseHeaderModifier"))
        .ask(get("/").to("a").tells("x-one", "of-a")),
        case(
            "backend-and-rule-header",
            "HTTPBackendRef.filters",
            "the changes of a rule and of its backend are both made",
        )
        .rules(&both)
        .ask(get("/").to("a").sends("x-rule", "r").sends("x-one", "of-a")),
    ]
}

fn refused() -> Vec<Case> {
    let many = |field: &str| {
        let all: Vec<String> = (0..17)
            .map(|i| if field == "remove" { format!("x-{i}") } else { format!("{{name: x-{i}, value: a}}") })
            .collect();
        format!("{{{field}: [{}]}}", all.join(", "))
    };
    vec![
        case("header-change-two-kinds", "HTTPHeaderFilter", "a header is changed in one way only")
            .refuses(
                &request("{set: [{name: x-one, value: a}], add: [{name: x-one, value: b}]}"),
                "/filters/0",
            )
            .refuses(&request("{set: [{name: x-one, value: a}], remove: [x-one]}"), "/filters/0")
            .refuses(&request("{add: [{name: x-one, value: a}], remove: [X-One]}"), "/filters/0"),
        case(
            "header-change-twice",
            "HTTPHeader.name",
            "of two entries for one name, whatever its case, the first counts and the second is ignored",
        )
        .refuses(&request("{set: [{name: x-one, value: a}, {name: X-One, value: b}]}"), "/filters/0")
        .unsupported("two entries for one name are told as a mistake, not ignored"),
        case("header-change-name", "HTTPHeaderName", "the name of a changed header is one")
            .refuses(&request("{set: [{name: \"x one\", value: a}]}"), "/filters/0")
            .refuses(&request("{remove: [\":path\"]}"), "/filters/0"),
        case(
            "header-change-value",
            "HTTPHeader.value",
            "the value of a changed header is visible ASCII, at least one character",
        )
        .refuses(&request("{set: [{name: x-one, value: \"\"}]}"), "/filters/0")
        .refuses(&request("{set: [{name: x-one, value: \"a\\u0007\"}]}"), "/filters/0"),
        case("header-change-count", "HTTPHeaderFilter", "each list has at most 16 entries")
            .refuses(&request(&many("set")), "/filters/0")
            .refuses(&request(&many("add")), "/filters/0")
            .refuses(&request(&many("remove")), "/filters/0"),
    ]
}
