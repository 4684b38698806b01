//! Tokens of users (JWT): who issues them, what a service wants of them, what they say, which are revoked, and how they
//! travel on.
//!
//! The values, their checks and the pure decisions over them. Reading a token and proving it is the sidecar's
//! and the control plane's (`certs/src/jwt`); reading sets of keys and fetching them the control plane's (`control-plane/src/jwks`).

mod claims;
mod denylist;
mod exchange;
mod issuer;
mod rules;

pub use claims::{ClaimMatch, ClaimPath, ClaimTest, ClaimValue, Claims};
pub use denylist::{DeniedToken, Denylist, InvalidDenylist};
pub use exchange::{EXCHANGED_LIFETIME, ORIGIN, iss_of_the_mesh};
pub use issuer::{InvalidIssuer, Issuer, IssuerKeys, IssuerName, KeyMaterial, TokenAlgorithm, TokenKey};
pub use rules::{AcceptedIssuer, ClaimHeader, ToApplication, TokenNeed, TokenRule, TokenRules};

/// What becomes of tokens on the calls to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenTravel {
    /// What the application itself puts on its call goes on. The default within the mesh.
    #[default]
    Keep,
    /// So it does; and where it puts none, the verified token goes along of the request for whose sake the call is made.
    Attach,
    /// In its place goes a token of the mesh, that is good at the called service alone and that the control plane gives for
    /// it; so it does where the application puts on the very token that came in. Any other that it puts on goes on.
    Exchange {
        /// While the control plane is away, the original goes along instead of none of the calls.
        or_original: bool,
    },
    /// None of the mesh's tokens leaves. The default outside of it.
    Strip,
}
