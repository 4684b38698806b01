//! The semantics of the Gateway API, one case for each sentence that says MUST of HTTPRoute, GRPCRoute and ReferenceGrant,
//! in the mesh profile (a route of a Service) and the gateway profile (a route of a Gateway).
//!
//! A case stands in the module of its subject with its place in the specification and its meaning in our words. It is
//! played by real processes (`stage`, `play`); what is not supported is a case too, which shows how that is told. The
//! table in docs/routing.md is made of the cases (`table`). `OUTRIGGER_CASE=word` plays those whose id has the word.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod backends;
mod case;
mod cors;
mod gateway;
mod grants;
mod grpc;
mod header_filters;
mod known;
mod look;
mod matches;
mod mirror;
mod own;
mod parents;
mod paths;
mod play;
mod precedence;
mod redirect;
mod retry;
mod rewrite;
mod rules;
mod session;
mod stage;
mod status;
#[path = "../stories/support.rs"]
#[allow(dead_code, reason = "it has more than is needed here")]
mod support;
mod table;
mod tcp;
mod timeouts;

use case::Case;

/// All cases, by subject.
fn subjects() -> Vec<(&'static str, Vec<Case>)> {
    let all = vec![
        ("Matches on paths", paths::cases()),
        ("Matches on methods, headers and parameters", matches::cases()),
        ("Precedence", precedence::cases()),
        ("Rules and filters together", rules::cases()),
        ("Changes to headers", header_filters::cases()),
        ("Redirects", redirect::cases()),
        ("Rewrites", rewrite::cases()),
        ("Mirrors", mirror::cases()),
        ("CORS", cors::cases()),
        ("Timeouts", timeouts::cases()),
        ("Retries", retry::cases()),
        ("Session persistence", session::cases()),
        ("Backends and weights", backends::cases()),
        ("GRPCRoute", grpc::cases()),
        ("TCPRoute", tcp::cases()),
        ("Filters of our own", own::cases()),
        ("ReferenceGrant", grants::cases()),
        ("Parents, producers and consumers", parents::cases()),
        ("Host names and listeners", gateway::cases()),
        ("Status", status::cases()),
    ];
    all.into_iter().map(|(subject, cases)| (subject, known::marked(cases))).collect()
}

macro_rules! played {
    ($($test:ident: $subject:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                play::play(known::marked($subject::cases())).await;
            }
        )*
    };
}

played! {
    paths_match_as_specified: paths,
    methods_headers_and_parameters_match_as_specified: matches,
    precedence_is_as_specified: precedence,
    rules_and_filters_go_together_as_specified: rules,
    headers_change_as_specified: header_filters,
    redirects_are_as_specified: redirect,
    rewrites_are_as_specified: rewrite,
    mirrors_are_as_specified: mirror,
    cors_is_as_specified: cors,
    timeouts_are_as_specified: timeouts,
    retries_are_as_specified: retry,
    sessions_are_as_specified: session,
    backends_and_weights_are_as_specified: backends,
    grpc_routes_are_as_specified: grpc,
    tcp_routes_are_as_specified: tcp,
    filters_of_our_own_do_the_same_in_the_mesh_and_at_a_gateway: own,
    grants_are_as_specified: grants,
    parents_are_as_specified: parents,
    host_names_and_listeners_are_as_specified: gateway,
    status_is_as_specified: status,
}
