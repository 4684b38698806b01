//! Which act each route is. A route that is not here is refused to everybody: whoever adds one says whose it is, and what it
//! takes and answers in `openapi::operations`.

use axum::http::Method;

use crate::users::permission::{Verb, What};

/// What a route needs of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it is for whoever watches that the process lives, or public anyway.
    Nothing,
    /// This act.
    Act(Verb, What),
    /// An act on objects whose kind and namespace the handler finds out and asks for ([`super::Caller::may`]).
    Objects(Verb),
}

/// Every route: path as it is matched, method, need. HEAD is GET.
pub(super) const ROUTES: &[(&str, Method, Need)] = &[
    ("/healthz", Method::GET, Need::Nothing),
    ("/readyz", Method::GET, Need::Nothing),
    // Keys to verify tokens with, for any application.
    ("/.well-known/jwks.json", Method::GET, Need::Nothing),
    // The same for every mesh.
    ("/openapi.json", Method::GET, Need::Nothing),
    ("/docs", Method::GET, Need::Nothing),
    ("/docs/{file}", Method::GET, Need::Nothing),
    // Files, the same for every mesh; what they show they ask for.
    ("/", Method::GET, Need::Nothing),
    ("/dashboard", Method::GET, Need::Nothing),
    ("/dashboard/", Method::GET, Need::Nothing),
    ("/dashboard/{*file}", Method::GET, Need::Nothing),
    ("/metrics", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/apply", Method::POST, Need::Objects(Verb::Change)),
    // Objects: what it tells is who may ask for what; the handler asks for each service that it tells of.
    ("/v1/explain", Method::POST, Need::Objects(Verb::Read)),
    ("/v1/proxies", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/proxies/{node}", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/proxies/{node}/{page}", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/breakers", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/stats", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/topology", Method::GET, Need::Act(Verb::Read, What::Running)),
    // The handler asks for the namespace.
    ("/v1/topology/{namespace}/{name}", Method::GET, Need::Act(Verb::Read, What::Running)),
    // The handler asks for the namespace of the sidecars that tell.
    ("/v1/tap", Method::GET, Need::Act(Verb::Read, What::Requests)),
    ("/v1/revisions", Method::GET, Need::Act(Verb::Read, What::History)),
    ("/v1/revisions/{number}", Method::GET, Need::Act(Verb::Read, What::History)),
    ("/v1/revisions/{number}/diff/{to}", Method::GET, Need::Act(Verb::Read, What::History)),
    ("/v1/watch", Method::GET, Need::Act(Verb::Read, What::History)),
    ("/v1/rollback", Method::POST, Need::Objects(Verb::Change)),
    ("/v1/audit", Method::GET, Need::Act(Verb::Read, What::Audit)),
    // It has all namespaces, and the hashes of tokens; and the keys of the mesh, if they are asked for.
    ("/v1/backup", Method::GET, Need::Act(Verb::Read, What::Backup)),
    ("/v1/issuers", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/join-tokens", Method::POST, Need::Act(Verb::Change, What::JoinTokens)),
    ("/v1/leases/confirm", Method::POST, Need::Act(Verb::Change, What::Running)),
    ("/v1/log-level", Method::GET, Need::Act(Verb::Read, What::Running)),
    ("/v1/log-level", Method::PUT, Need::Act(Verb::Change, What::Running)),
    ("/v1/certs", Method::GET, Need::Act(Verb::Read, What::Certificates)),
    ("/v1/certs/issue", Method::POST, Need::Act(Verb::Change, What::Certificates)),
    ("/v1/certs/rotation", Method::GET, Need::Act(Verb::Read, What::Authority)),
    ("/v1/certs/rotation", Method::POST, Need::Act(Verb::Change, What::Authority)),
    ("/v1/tokens", Method::GET, Need::Act(Verb::Read, What::Users)),
    ("/v1/tokens", Method::POST, Need::Act(Verb::Change, What::Users)),
    ("/v1/tokens/{id}", Method::DELETE, Need::Act(Verb::Change, What::Users)),
    ("/v1/whoami", Method::GET, Need::Act(Verb::Read, What::Own)),
    ("/v1/rollouts/{namespace}/{name}/{verb}", Method::POST, Need::Objects(Verb::Change)),
    ("/v1/services/{namespace}/{name}/api", Method::GET, Need::Objects(Verb::Read)),
    // What it does there the control plane does not know: whoever may change the service may try it.
    ("/v1/services/{namespace}/{name}/try", Method::POST, Need::Objects(Verb::Change)),
    ("/v1/{collection}", Method::GET, Need::Objects(Verb::Read)),
    ("/v1/{collection}/{namespace}", Method::GET, Need::Objects(Verb::Read)),
    ("/v1/{collection}/{namespace}/{name}", Method::GET, Need::Objects(Verb::Read)),
    ("/v1/{collection}/{namespace}/{name}", Method::PUT, Need::Objects(Verb::Change)),
    ("/v1/{collection}/{namespace}/{name}", Method::PATCH, Need::Objects(Verb::Change)),
    ("/v1/{collection}/{namespace}/{name}", Method::DELETE, Need::Objects(Verb::Change)),
];

/// What is known of a path and a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// This is needed.
    Needs(Need),
    /// The path takes other methods.
    OtherMethods,
    /// Nobody said whose it is.
    Nothing,
}

/// What the route at `path`, as it is matched, needs.
pub(super) fn known(path: &str, method: &Method) -> Known {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let mut here = ROUTES.iter().filter(|(at, ..)| *at == path).peekable();
    if here.peek().is_none() {
        return Known::Nothing;
    }
    here.find(|(_, takes, _)| takes == method).map_or(Known::OtherMethods, |(.., need)| Known::Needs(*need))
}
