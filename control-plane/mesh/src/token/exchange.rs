//! The mesh as an issuer of tokens: who it is in them, for how long they are good, and what they keep of the token that
//! they were exchanged for.

use std::sync::Arc;
use std::time::Duration;

use super::claims::text_of;
use super::{AcceptedIssuer, ClaimValue, Claims, IssuerName};
use crate::identity::TrustDomain;
use crate::name::{Label, ServiceName};

/// How long a token of the mesh is good at most.
pub const EXCHANGED_LIFETIME: Duration = Duration::from_mins(5);

/// The claim in which a token of the mesh keeps what a denylist may name of the one it was exchanged for.
pub const ORIGIN: &str = "origin";

impl IssuerName {
    /// The name of the mesh's own issuer. No policy can have it.
    pub fn of_the_mesh() -> Self {
        let label = |text| Label::new(text).unwrap_or_else(|_| unreachable!("it is a label"));
        Self::new(label("outrigger"), label("mesh"), label("exchange"))
    }
}

/// What stands in `iss` of the mesh's own tokens.
pub fn iss_of_the_mesh(domain: &TrustDomain) -> Arc<str> {
    format!("spiffe://{domain}").into()
}

impl AcceptedIssuer {
    /// The mesh's own tokens for this service.
    pub fn of_the_mesh(service: &ServiceName) -> Self {
        Self {
            issuer: IssuerName::of_the_mesh(),
            audiences: vec![service.to_string().into()],
            max_lifetime: EXCHANGED_LIFETIME,
        }
    }
}

impl Claims {
    /// The `jti` of the token that this one was exchanged for.
    pub fn jti_of_origin(&self) -> Option<&str> {
        text_of(self.origin()?, "jti")
    }

    /// What is said of the token that this one was exchanged for: its `iss`, `jti` and `iat`, as claims of their own.
    pub(super) fn origin(&self) -> Option<&[(Arc<str>, ClaimValue)]> {
        match self.top(ORIGIN)? {
            ClaimValue::Object(members) => Some(members),
            _ => None,
        }
    }
}
