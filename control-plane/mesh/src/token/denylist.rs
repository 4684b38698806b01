//! What is revoked: tokens before their end, and identities of workloads.

use std::sync::Arc;

use super::claims::{ClaimValue, Claims, integer_of, text_of};
use crate::identity::SpiffeId;
use crate::name::ServiceName;

/// A list of what is no longer believed. All lists of the mesh hold together, at every sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denylist {
    /// Its full name.
    pub name: ServiceName,
    /// Tokens.
    pub tokens: Vec<DeniedToken>,
    /// Workloads.
    pub identities: Vec<SpiffeId>,
}

impl Denylist {
    /// How much one list may hold of either.
    pub const MAX_ENTRIES: usize = 10_000;

    /// Refuses a list that is too long or has an entry that says nothing.
    pub fn checked(self) -> Result<Self, InvalidDenylist> {
        let fault = |what: &str| Err(InvalidDenylist { list: self.name.clone(), what: what.into() });
        if self.tokens.len() > Self::MAX_ENTRIES || self.identities.len() > Self::MAX_ENTRIES {
            return fault("it has more than 10000 entries");
        }
        match self.tokens.iter().find_map(|denied| denied.check().err()) {
            Some(what) => fault(what),
            None => Ok(self),
        }
    }
}

/// Parts of a denylist that do not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("denylist {list}: {what}")]
pub struct InvalidDenylist {
    list: ServiceName,
    what: String,
}

/// Tokens that are revoked: those of which all that is said here is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeniedToken {
    /// Of this issuer, by its `iss`.
    pub iss: Option<Arc<str>>,
    /// The one of this `jti`.
    pub jti: Option<Arc<str>>,
    /// Those of this `sub`.
    pub sub: Option<Arc<str>>,
    /// Those issued before this moment, in seconds since 1970; one that does not say when it was issued was.
    pub issued_before: Option<u64>,
}

impl DeniedToken {
    /// Whether a token is among them, or the one that it was exchanged for.
    pub fn is_meant(&self, claims: &Claims) -> bool {
        let same = |wanted: &Option<Arc<str>>, said: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| said == Some(&**wanted))
        };
        // Both are of the same user.
        same(&self.sub, claims.text("sub"))
            && (self.means(claims.all()) || claims.origin().is_some_and(|origin| self.means(origin)))
    }

    fn means(&self, members: &[(Arc<str>, ClaimValue)]) -> bool {
        let same = |wanted: &Option<Arc<str>>, name| {
            wanted.as_ref().is_none_or(|wanted| text_of(members, name) == Some(&**wanted))
        };
        let before = |moment: u64| {
            integer_of(members, "iat")
                .is_none_or(|iat| u64::try_from(iat).is_ok_and(|iat| iat < moment) || iat < 0)
        };
        same(&self.iss, "iss") && same(&self.jti, "jti") && self.issued_before.is_none_or(before)
    }

    /// Refuses an entry that would mean every token, and texts that no claim has.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.jti.is_none() && self.sub.is_none() && (self.iss.is_none() || self.issued_before.is_none()) {
            return Err("an entry names a jti or a sub, or an issuer and issuedBefore");
        }
        let bad = |text: &Option<Arc<str>>| text.as_ref().is_some_and(|t| t.is_empty() || t.len() > 1_024);
        if bad(&self.iss) || bad(&self.jti) || bad(&self.sub) {
            return Err("iss, jti and sub have 1 to 1024 characters");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::ClaimValue;

    fn token(jti: &str, sub: &str, iat: Option<i64>) -> Claims {
        let text = |t: &str| ClaimValue::Text(t.into());
        let mut members =
            vec![("iss".into(), text("i")), ("jti".into(), text(jti)), ("sub".into(), text(sub))];
        members.extend(iat.map(|iat| ("iat".into(), ClaimValue::Integer(iat))));
        Claims::new("shop/users/login".parse().unwrap(), members)
    }

    #[test]
    fn an_entry_means_the_tokens_of_which_all_of_it_is_true() {
        let some = |t: &str| Some(Arc::from(t));
        let jti = DeniedToken { jti: some("1"), ..DeniedToken::default() };
        assert!(jti.is_meant(&token("1", "ada", None)) && !jti.is_meant(&token("2", "ada", None)));
        let before = DeniedToken { iss: some("i"), issued_before: Some(100), ..DeniedToken::default() };
        assert!(
            before.is_meant(&token("1", "ada", Some(99))) && !before.is_meant(&token("1", "ada", Some(100)))
        );
        assert!(before.is_meant(&token("1", "ada", None)) && before.is_meant(&token("1", "ada", Some(-1))));
        let other = DeniedToken { iss: some("j"), ..before };
        assert!(!other.is_meant(&token("1", "ada", Some(1))));
    }

    #[test]
    fn an_entry_that_would_mean_every_token_is_refused() {
        let all = DeniedToken::default();
        assert!(all.check().is_err());
        assert!(DeniedToken { iss: Some("i".into()), ..all.clone() }.check().is_err());
        assert!(DeniedToken { issued_before: Some(1), ..all.clone() }.check().is_err());
        assert!(DeniedToken { sub: Some("".into()), ..all }.check().is_err());
    }
}
