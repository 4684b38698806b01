//! What is tried again (experimental in the Gateway API).

use crate::case::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = held();
    all.extend(refused());
    all
}

fn with(retry: &str, more: &str, to: &str) -> String {
    format!("[{{retry: {retry}, {more}backendRefs: [{{name: {to}, port: 80}}]}}]")
}

fn held() -> Vec<Case> {
    let code = |id, status: u16, origin: &'static str| {
        case(
            id,
            "HTTPRouteRetryStatusCode",
            "this status can be tried again, so often as is written, and the last answer is the answer",
        )
        .rules(&with(&format!("{{codes: [{status}], attempts: 1, backoff: 10ms}}"), "", origin))
        .ask(get("/").status(status).arrives(origin, 2))
    };
    vec![
        code("retry-500", 500, "e500"),
        code("retry-502", 502, "e502"),
        code("retry-503", 503, "e503"),
        code("retry-504", 504, "e504"),
        code("retry-429", 429, "e429"),
        case("retry-attempts", "HTTPRouteRetry.attempts", "after the last attempt the request fails")
            .rules(&with("{codes: [500], attempts: 2, backoff: 10ms}", "", "e500"))
            .ask(get("/").status(500).arrives("e500", 3)),
        case("retry-codes-only", "HTTPRouteRetry.codes", "a status that is not written is not tried again")
            .rules(&with("{codes: [503], attempts: 2, backoff: 10ms}", "", "e404"))
            .ask(get("/").status(404).arrives("e404", 1)),
        case("retry-backoff", "HTTPRouteRetry.backoff", "nothing is tried again before its pause is over")
            .rules(&with("{codes: [502], attempts: 1, backoff: 200ms}", "", "e502"))
            // No more than the budget of retries grants whatever their share.
            .ask(get("/").times(3).status(502).arrives("e502", 6).took(600, 8_000)),
        case(
            "retry-request-timeout",
            "HTTPRouteRetry.backoff",
            "all attempts together end with the time of the request, with an error that says so",
        )
        .rules(&with(
            "{codes: [500], attempts: 5, backoff: 10ms}",
            "timeouts: {request: 300ms, backendRequest: 200ms}, ",
            "hangs",
        ))
        .ask(get("/").status(504).took(280, 10_000)),
        case("retry-success", "HTTPRouteRetry", "what is answered is not tried again")
            .rules(&with("{codes: [500], attempts: 3, backoff: 10ms}", "", "a"))
            .ask(get("/").to("a").arrives("a", 1)),
    ]
}

fn refused() -> Vec<Case> {
    let at = "/retry";
    vec![
        case("retry-code-range", "HTTPRouteRetryStatusCode", "a status is from 400 to 599")
            .refuses(&with("{codes: [399]}", "", "a"), at)
            .refuses(&with("{codes: [600]}", "", "a"), at),
        case("retry-attempts-range", "HTTPRouteRetry.attempts", "it is tried again at least once")
            .refuses(&with("{attempts: 0}", "", "a"), at),
        case("retry-backoff-form", "HTTPRouteRetry.backoff", "the pause is a duration")
            .refuses(&with("{backoff: soon}", "", "a"), at),
    ]
}
