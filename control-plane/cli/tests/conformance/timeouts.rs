//! How long a request may take.

use crate::case::{Case, case, get};

pub(crate) fn cases() -> Vec<Case> {
    let mut all = held();
    all.extend(refused());
    all
}

fn with(timeouts: &str, to: &str) -> String {
    format!("[{{timeouts: {timeouts}, backendRefs: [{{name: {to}, port: 80}}]}}]")
}

fn held() -> Vec<Case> {
    vec![
        case("timeout-request", "HTTPRouteTimeouts.request", "a request that is not answered in time is answered with an error that says so")
            .rules(&with("{request: 150ms}", "hangs"))
            .ask(get("/").status(504).took(140, 10_000)),
        case("timeout-request-fast", "HTTPRouteTimeouts.request", "one that is answered in time is not disturbed")
            .rules(&with("{request: 5s}", "slow"))
            .ask(get("/").to("slow")),
        case("timeout-request-zero", "HTTPRouteTimeouts.request", "zero is no limit")
            .rules(&with("{request: 0s}", "slow"))
            .ask(get("/").to("slow")),
        case("timeout-backend", "HTTPRouteTimeouts.backendRequest", "an attempt at a backend that is not answered in time is given up")
            .rules(&with("{backendRequest: 150ms, request: 400ms}", "hangs"))
            .ask(get("/").status(504).took(140, 10_000)),
        case("timeout-backend-zero", "HTTPRouteTimeouts.backendRequest", "zero is no limit")
            .rules(&with("{request: 5s, backendRequest: 0s}", "slow"))
            .ask(get("/").to("slow")),
        case("timeout-backend-unlimited", "HTTPRouteTimeouts", "an attempt may have a limit where the whole request has none")
            .rules(&with("{request: 0s, backendRequest: 5s}", "slow"))
            .ask(get("/").to("slow")),
        case("timeout-rule", "HTTPRouteRule.timeouts", "a limit is for the requests of its own rule")
            .rules("[{matches: [{path: {value: /short}}], timeouts: {request: 100ms}, backendRefs: [{name: slow, port: 80}]}, \
                    {matches: [{path: {value: /long}}], backendRefs: [{name: slow, port: 80}]}]")
            .ask(get("/short").status(504))
            .ask(get("/long").to("slow")),
        case("timeout-units", "GEP-2257", "a duration is hours, minutes, seconds and milliseconds, each at most once")
            .rules(&with("{request: 1h1m1s1ms}", "a"))
            .ask(get("/").to("a")),
    ]
}

fn refused() -> Vec<Case> {
    let at = "/timeouts";
    vec![
        case(
            "timeout-backend-longer",
            "HTTPRouteTimeouts",
            "an attempt does not get longer than the whole request",
        )
        .refuses(&with("{request: 1s, backendRequest: 2s}", "a"), at),
        case("timeout-form", "GEP-2257", "what is no duration of the Gateway API is not one here")
            .refuses(&with("{request: \"1.5s\"}", "a"), at)
            .refuses(&with("{request: 10us}", "a"), at)
            .refuses(&with("{request: \"10\"}", "a"), at)
            .refuses(&with("{request: \"-1s\"}", "a"), at)
            .refuses(&with("{request: 123456s}", "a"), at),
    ]
}
