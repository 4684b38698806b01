//! Tokens of users at real sidecars: what is taken, what is refused and how, what the application gets, and what goes along.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod attacks;
mod given;
mod mint;
mod real;
#[path = "../support/mod.rs"]
mod support;
mod travel;

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_mesh::{
    AcceptedIssuer, Issuer, IssuerKeys, IssuerName, Resource, ToApplication, TokenKey, TokenNeed, TokenRule,
    TokenRules,
};
use outrigger_testkit::resources;
use support::{Mesh, Sidecar};

/// The issuer that `cart` believes.
pub(crate) fn login() -> IssuerName {
    "shop/users/login".parse().unwrap()
}

pub(crate) fn issuer(name: IssuerName, iss: &str, keys: Vec<TokenKey>) -> Resource {
    let keys = if keys.is_empty() { IssuerKeys::Missing } else { IssuerKeys::Known(keys) };
    Resource::Issuer(Issuer { name, iss: iss.into(), keys }.checked().unwrap())
}

pub(crate) fn accepted(issuer: IssuerName) -> AcceptedIssuer {
    let max_lifetime = TokenRules::MAX_LIFETIME;
    AcceptedIssuer { issuer, audiences: vec![Arc::from(mint::AUD), "shop-too".into()], max_lifetime }
}

pub(crate) fn rules(need: TokenNeed) -> TokenRules {
    let rule = TokenRule { matches: vec![], need, issuers: vec![accepted(login())] };
    let to_application = ToApplication::Keep;
    TokenRules { rules: vec![rule], to_application, claim_headers: vec![], max_bytes: TokenRules::MAX_BYTES }
}

/// The sidecar of `cart`, which wants tokens as said, and the sidecar of a caller.
pub(crate) fn pair(mesh: &Mesh, application: SocketAddr, rules: Option<TokenRules>) -> (Sidecar, Sidecar) {
    let server = mesh.server("shop/cart", application);
    want(&server, "shop/cart", rules);
    let client = mesh.client();
    client.knows(resources::service("shop/cart"), [server.endpoint("shop/cart", "i-1")]);
    (client, server)
}

/// Changes what a service wants of tokens.
pub(crate) fn want(server: &Sidecar, service: &str, rules: Option<TokenRules>) {
    let name: outrigger_mesh::ServiceName = service.parse().unwrap();
    let id = resources::identity(name.namespace().as_str(), name.name().as_str());
    let mut inbound = resources::inbound(&id, &[&resources::service(service)]);
    inbound.services[0].tokens = rules;
    server.set(Resource::Inbound(inbound));
}
