//! Sessions that stay where they began (experimental in the Gateway API; GEP-1619).

use crate::case::{Ask, Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = held();
    all.extend(refused());
    all
}

fn with(session: &str) -> String {
    format!("[{{sessionPersistence: {session}, backendRefs: [$A, $B]}}]")
}

fn held() -> Vec<Case> {
    const COOKIE: &str = "set-cookie";
    vec![
        case("session-cookie", "SessionPersistence", "the first answer sets a cookie, and who says it again stays where he was")
            .rules(&with("{sessionName: place}"))
            .ask(get("/").status(200).word(COOKIE, "place="))
            .ask(get("/").times(12).in_session("")),
        case("session-cookie-type", "SessionPersistence.type", "without a type it is a cookie")
            .rules(&with("{type: Cookie}"))
            .ask(get("/").status(200).word(COOKIE, "="))
            .ask(get("/").times(12).in_session("")),
        case("session-header", "SessionPersistence.type", "it may be a header: the first answer says it, and who says it again stays where he was")
            .rules(&with("{sessionName: x-place, type: Header}"))
            .ask(get("/").status(200).word("x-place", ""))
            .ask(get("/").times(12).in_session("x-place")),
        case("session-path", "CookieConfig, path", "the cookie is for the path / where none is written")
            .rules(&with("{sessionName: place}"))
            .ask(get("/deep/path").status(200).word(COOKIE, "path=/").no_word(COOKIE, "path=/deep")),
        case("session-lifetime", "CookieConfig.lifetimeType", "a cookie of the browser's session has no end of its own")
            .rules(&with("{sessionName: place}"))
            .ask(get("/").word(COOKIE, "place=").no_word(COOKIE, "max-age").no_word(COOKIE, "expires")),
        case("session-permanent", "CookieConfig.lifetimeType", "a permanent cookie says its end, which is absoluteTimeout")
            .rules(&with("{sessionName: place, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}"))
            .ask(get("/").word(COOKIE, "max-age=3600")),
        case("session-absolute", "SessionPersistence.absoluteTimeout", "a session of the browser ends with absoluteTimeout, too")
            .rules("[{sessionPersistence: {sessionName: place, absoluteTimeout: 1ms}, backendRefs: [$A]}]")
            .ask(get("/").to("a").word(COOKIE, "place=").no_word(COOKIE, "max-age"))
            .rules("[{sessionPersistence: {sessionName: place, absoluteTimeout: 1ms}, backendRefs: [{name: a, port: 80, weight: 0}, {name: b, port: 80, weight: 1}]}]")
            .ask(Ask { session: Some(""), ..get("/") }.to("b")),
        case("session-idle", "SessionPersistence.idleTimeout", "a session may end by being idle (once part of the Gateway API)")
            .rules(&with("{sessionName: place, idleTimeout: 1h}"))
            .ask(get("/").word(COOKIE, "place="))
            .ask(get("/").in_session("").word(COOKIE, "place=")),
        case("session-weight-0", "GEP-1619, traffic splitting", "a session stays at its backend though its weight becomes 0")
            .rules("[{sessionPersistence: {sessionName: place}, backendRefs: [$A]}]")
            .ask(get("/").to("a").word(COOKIE, "place="))
            .rules("[{sessionPersistence: {sessionName: place}, backendRefs: [{name: a, port: 80, weight: 0}, {name: b, port: 80, weight: 1}]}]")
            .ask(get("/").to("a").in_session("")),
        case("session-new-weight", "GEP-1619, traffic splitting", "a session that begins follows the weights")
            .rules("[{sessionPersistence: {sessionName: place}, backendRefs: [{name: a, port: 80, weight: 1}, {name: b, port: 80, weight: 3}]}]")
            .ask(get("/").status(200).times(160).share("b", 75)),
        case("session-rule", "GEP-1619, route rules", "the rules of a route have sessions of their own")
            .rules("[{matches: [{path: {value: /one}}], sessionPersistence: {}, backendRefs: [$A]}, {matches: [{path: {value: /two}}], sessionPersistence: {}, backendRefs: [$B]}]")
            .ask(get("/one").to("a"))
            .ask(get("/two").to("b"))
            .ask(get("/two").in_session("").to("b")),
    ]
}

fn refused() -> Vec<Case> {
    let at = "/sessionPersistence";
    vec![
        case("session-permanent-end", "SessionPersistence", "a permanent cookie comes with absoluteTimeout")
            .refuses(&with("{cookieConfig: {lifetimeType: Permanent}}"), at),
        case("session-header-cookie", "SessionPersistence", "a header has nothing of a cookie").refuses(
            &with("{type: Header, sessionName: x-place, cookieConfig: {lifetimeType: Session}}"),
            at,
        ),
        case(
            "session-type-unknown",
            "SessionPersistenceType",
            "a type that is not known takes nothing down and the route is not accepted",
        )
        .refuses(&with("{type: Address}"), at),
    ]
}
