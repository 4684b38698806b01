//! Which origins of browsers may ask, and what they are told.

use http::Method;

use crate::case::{Ask, Case, case, get, send};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = origins();
    all.extend(methods());
    all.extend(headers());
    all.extend(others());
    all.extend(refused());
    all
}

fn cors(what: &str) -> String {
    format!("[{{filters: [{{type: CORS, cors: {what}}}], backendRefs: [{{name: told, port: 80}}]}}]")
}

const SHOP: &str = "https://shop.example";
const ORIGIN: &str = "access-control-allow-origin";
const METHODS: &str = "access-control-allow-methods";
const HEADERS: &str = "access-control-allow-headers";
const EXPOSE: &str = "access-control-expose-headers";
const CREDENTIALS: &str = "access-control-allow-credentials";
const AGE: &str = "access-control-max-age";

/// What a browser asks before it asks.
fn preflight(origin: &'static str) -> Ask {
    send(Method::OPTIONS, "/").header("origin", origin).header("access-control-request-method", "PUT")
}

fn from(origin: &'static str) -> Ask {
    get("/").header("origin", origin)
}

fn origins() -> Vec<Case> {
    const PLACE: &str = "HTTPCORSFilter.allowOrigins";
    let one = "{allowOrigins: [\"https://shop.example\", \"https://other.example\"]}";
    vec![
        case("cors-origin", PLACE, "an origin that may ask is told so, by its own name")
            .rules(&cors(one))
            .ask(from(SHOP).to("told").tells(ORIGIN, SHOP))
            .ask(from("https://other.example").to("told").tells(ORIGIN, "https://other.example")),
        case("cors-origin-preflight", PLACE, "the same before it asks")
            .rules(&cors(one))
            .ask(preflight(SHOP).tells(ORIGIN, SHOP)),
        case(
            "cors-preflight-status",
            PLACE,
            "what is asked before is answered 200 or 204, by us: nothing of it goes on",
        )
        .rules(&cors(one))
        .ask(preflight(SHOP).tells_one_of(":status", &["200", "204"]).arrives("told", 0)),
        case("cors-origin-other", PLACE, "an origin that may not ask is told nothing of the sort")
            .rules(&cors(one))
            .ask(
                preflight("https://evil.example")
                    .tells_no(ORIGIN)
                    .tells_no(METHODS)
                    .tells_no(HEADERS)
                    .arrives("told", 0),
            ),
        case("cors-origin-scheme", PLACE, "another scheme is another origin")
            .rules(&cors(one))
            .ask(preflight("http://shop.example").tells_no(ORIGIN)),
        case(
            "cors-origin-port",
            PLACE,
            "another port is another origin; one that is not written is the scheme's own",
        )
        .rules(&cors("{allowOrigins: [\"https://shop.example:8443\"]}"))
        .ask(preflight("https://shop.example:8443").tells(ORIGIN, "https://shop.example:8443"))
        .ask(preflight(SHOP).tells_no(ORIGIN)),
        case(
            "cors-origin-wildcard",
            PLACE,
            "* at the beginning of a host is every name to its left, of several labels, too",
        )
        .rules(&cors("{allowOrigins: [\"https://*.shop.example\"]}"))
        .ask(preflight("https://www.shop.example").tells(ORIGIN, "https://www.shop.example"))
        .ask(preflight("https://a.b.shop.example").tells(ORIGIN, "https://a.b.shop.example"))
        .ask(preflight(SHOP).tells_no(ORIGIN))
        .ask(preflight("https://wwwshop.example").tells_no(ORIGIN)),
        case("cors-origin-any", PLACE, "* alone is every origin: it is told * or its own name")
            .rules(&cors("{allowOrigins: [\"*\"]}"))
            .ask(from("https://any.example").to("told").tells_one_of(ORIGIN, &["*", "https://any.example"])),
        case("cors-origin-any-credentials", PLACE, "with credentials it is told its own name, never *")
            .rules(&cors("{allowOrigins: [\"*\"], allowCredentials: true}"))
            .ask(from("https://any.example").to("told").tells(ORIGIN, "https://any.example"))
            .ask(preflight("https://any.example").tells(ORIGIN, "https://any.example")),
        case("cors-origin-upstream", "GEP-1767, API", "what the application says of it does not count")
            .rules(&cors(one))
            .ask(from(SHOP).to("told").tells(ORIGIN, SHOP)),
        case("cors-no-origin", PLACE, "what no page asks is no matter of CORS")
            .rules(&cors(one))
            .ask(get("/").to("told").tells_no(METHODS)),
    ]
}

fn methods() -> Vec<Case> {
    const PLACE: &str = "HTTPCORSFilter.allowMethods";
    vec![
        case("cors-methods", PLACE, "the methods that are written are told")
            .rules(&cors("{allowOrigins: [\"https://shop.example\"], allowMethods: [PUT, DELETE]}"))
            .ask(preflight(SHOP).word(METHODS, "PUT").word(METHODS, "DELETE")),
        case("cors-methods-any", PLACE, "* is every method: it is told * or the one that was asked for")
            .rules(&cors("{allowOrigins: [\"https://shop.example\"], allowMethods: [\"*\"]}"))
            .ask(preflight(SHOP).tells_one_of(METHODS, &["*", "PUT"])),
        case(
            "cors-methods-any-credentials",
            PLACE,
            "with credentials it is told the one that was asked for, never *",
        )
        .rules(&cors(
            "{allowOrigins: [\"https://shop.example\"], allowMethods: [\"*\"], allowCredentials: true}",
        ))
        .ask(preflight(SHOP).tells(METHODS, "PUT")),
        case("cors-methods-unasked", PLACE, "who did not ask for a method is told none")
            .rules(&cors("{allowOrigins: [\"https://shop.example\"], allowMethods: [\"*\"]}"))
            .ask(from(SHOP).to("told").tells_no(METHODS)),
    ]
}

fn headers() -> Vec<Case> {
    const PLACE: &str = "HTTPCORSFilter.allowHeaders";
    let asks = || preflight(SHOP).header("access-control-request-headers", "x-one, x-two");
    vec![
        case("cors-headers", PLACE, "the headers that are written are told")
            .rules(&cors("{allowOrigins: [\"https://shop.example\"], allowHeaders: [x-one, X-Two]}"))
            .ask(asks().word(HEADERS, "x-one").word(HEADERS, "x-two")),
        case("cors-headers-any", PLACE, "* is every header: it is told * or those that were asked for")
            .rules(&cors("{allowOrigins: [\"https://shop.example\"], allowHeaders: [\"*\"]}"))
            .ask(asks().tells_one_of(HEADERS, &["*", "x-one, x-two", "x-one,x-two"])),
        case(
            "cors-headers-any-credentials",
            PLACE,
            "with credentials it is told those that were asked for, never *",
        )
        .rules(&cors(
            "{allowOrigins: [\"https://shop.example\"], allowHeaders: [\"*\"], allowCredentials: true}",
        ))
        .ask(asks().tells_one_of(HEADERS, &["x-one, x-two", "x-one,x-two"])),
        case("cors-headers-unasked", PLACE, "who did not ask for headers is told none")
            .rules(&cors(
                "{allowOrigins: [\"https://shop.example\"], allowHeaders: [\"*\"], allowCredentials: true}",
            ))
            .ask(preflight(SHOP).tells_no(HEADERS)),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case(
            "cors-credentials",
            "HTTPCORSFilter.allowCredentials",
            "that credentials may go along is told as true",
        )
        .rules(&cors("{allowOrigins: [\"https://shop.example\"], allowCredentials: true}"))
        .ask(from(SHOP).to("told").tells(CREDENTIALS, "true"))
        .ask(preflight(SHOP).tells(CREDENTIALS, "true")),
        case(
            "cors-credentials-not",
            "HTTPCORSFilter.allowCredentials",
            "that they may not is not told at all",
        )
        .rules(&cors("{allowOrigins: [\"https://shop.example\"], allowCredentials: false}"))
        .ask(from(SHOP).to("told").tells_no(CREDENTIALS))
        .ask(preflight(SHOP).tells_no(CREDENTIALS)),
        case(
            "cors-expose",
            "HTTPCORSFilter.exposeHeaders",
            "the headers that scripts may see are told with the answer",
        )
        .rules(&cors("{allowOrigins: [\"https://shop.example\"], exposeHeaders: [x-one, x-two]}"))
        .ask(from(SHOP).to("told").word(EXPOSE, "x-one").word(EXPOSE, "x-two")),
        case("cors-expose-any", "HTTPCORSFilter.exposeHeaders", "with credentials * is not told")
            .rules(&cors(
                "{allowOrigins: [\"https://shop.example\"], exposeHeaders: [\"*\"], allowCredentials: true}",
            ))
            .ask(from(SHOP).to("told").no_word(EXPOSE, "*")),
        case("cors-age", "HTTPCORSFilter.maxAge", "how long it may be believed is told")
            .rules(&cors("{allowOrigins: [\"https://shop.example\"], maxAge: 600}"))
            .ask(preflight(SHOP).tells(AGE, "600")),
        case("cors-age-default", "HTTPCORSFilter.maxAge", "it is 5 seconds where nothing is written")
            .rules(&cors("{allowOrigins: [\"https://shop.example\"]}"))
            .ask(preflight(SHOP).tells(AGE, "5")),
    ]
}

fn refused() -> Vec<Case> {
    let at = "/filters/0/cors";
    vec![
        case(
            "cors-origin-form",
            "CORSOrigin",
            "an origin is a scheme and a host, http or https, without a path",
        )
        .refuses(&cors("{allowOrigins: [shop.example]}"), at)
        .refuses(&cors("{allowOrigins: [\"ftp://shop.example\"]}"), at)
        .refuses(&cors("{allowOrigins: [\"https://shop.example/path\"]}"), at),
        case("cors-origin-twice", "HTTPCORSFilter.allowOrigins", "a list has no entry twice")
            .refuses(&cors("{allowOrigins: [\"https://shop.example\", \"https://shop.example\"]}"), at),
        case("cors-any-alone", "HTTPCORSFilter.allowMethods", "* stands alone in its list")
            .refuses(&cors("{allowOrigins: [\"https://shop.example\"], allowMethods: [\"*\", PUT]}"), at),
        case("cors-age-range", "HTTPCORSFilter.maxAge", "it is at least a second")
            .refuses(&cors("{allowOrigins: [\"https://shop.example\"], maxAge: 0}"), at),
        case(
            "cors-method-unknown",
            "HTTPCORSFilter.allowMethods",
            "a method that is not known takes nothing down and the route is not accepted",
        )
        .refuses(&cors("{allowOrigins: [\"https://shop.example\"], allowMethods: [FETCH]}"), at),
    ]
}
