//! Who may ask what of a service: the rules as they are pushed to the sidecar of the service.
//!
//! A rule is a conjunction; within one of its lists it is enough that one entry holds, and a list that is empty says
//! nothing. Deny wins; where any allow policy is there, what none allows is refused; else the default of the mesh holds.
//!
//! A deny (and an audit, which is a deny on trial) is read widely, an allow narrowly. Applications differ in what they take
//! for the same path: many ignore the case of letters, a trailing slash, what follows a `;`, or how a character is
//! escaped. What is denied is denied in all these spellings; what is allowed is allowed in the one that is written.
//!
//! How a request meets the rules is in `index`, how its path does in `paths`.

mod index;
mod paths;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderName, Method};

pub use index::{AccessIndex, AskedBy, Because, Decision, RuleName};
pub use paths::AccessPath;

use crate::identity::{SpiffeId, TrustDomain};
use crate::name::{InvalidName, Label, PortNumber};
use crate::token::ClaimMatch;

/// Who may ask what of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// What becomes of requests of which no policy says anything.
    pub default: AccessDefault,
    /// The policies that select the service, in order of their names.
    pub policies: Vec<AccessPolicy>,
}

/// What becomes of requests of which no policy says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessDefault {
    /// They pass. The default: a mesh that is put in does not break what worked.
    #[default]
    Allow,
    /// They are refused.
    Deny,
}

/// Rules of one action.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessPolicy {
    /// Its name.
    pub name: AccessPolicyName,
    /// What becomes of the requests for which one of its rules holds.
    pub action: AccessAction,
    /// Its rules. None: they hold for nothing, which for an allow policy means that it allows nothing.
    pub rules: Vec<AccessRule>,
}

/// What becomes of the requests for which a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessAction {
    /// They pass, unless a rule denies them.
    Allow,
    /// They are refused.
    Deny,
    /// They are counted and told of as if they were denied.
    Audit,
}

impl AccessAction {
    /// The written word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

/// A conjunction of conditions. Without any, it holds for everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessRule {
    /// Its name within the policy; where it was given none, its place there, counted from 0.
    pub name: Arc<str>,
    /// Who asks.
    pub from: Vec<CallerMatch>,
    /// At which ports of the service.
    pub ports: Vec<PortNumber>,
    /// By which method.
    pub methods: Vec<Method>,
    /// For which canonical path.
    pub paths: Vec<AccessPath>,
    /// With which headers, all of which must hold.
    pub headers: Vec<AccessHeader>,
    /// With which claims of a verified token, all of which must hold. Without a token they never do.
    pub claims: Vec<ClaimMatch>,
}

impl AccessRule {
    /// How many places a rule may take in an index: callers times ports times paths.
    pub const MOST_PLACES: usize = 4_096;
    /// How many methods, headers, or values of a header a rule may have.
    pub const MOST_VALUES: usize = 64;

    /// Whether it looks at more of a request than a connection has.
    pub fn is_about_http(&self) -> bool {
        let of_connections = self.methods.is_empty()
            && self.paths.is_empty()
            && self.headers.is_empty()
            && self.claims.is_empty();
        !of_connections
    }

    fn check(&self) -> Result<(), String> {
        let places = [self.from.len(), self.ports.len(), self.paths.len()];
        if places.into_iter().map(|n| n.max(1)).product::<usize>() > Self::MOST_PLACES {
            let most = Self::MOST_PLACES;
            return Err(format!("callers times ports times paths are more than {most}; write several rules"));
        }
        let values = self.headers.iter().map(|h| h.values.len());
        if values
            .chain([self.methods.len(), self.headers.len(), self.claims.len()])
            .any(|n| n > Self::MOST_VALUES)
        {
            return Err(format!("more than {} methods, headers, claims or values", Self::MOST_VALUES));
        }
        self.claims.iter().try_for_each(ClaimMatch::check)?;
        self.paths.iter().try_for_each(AccessPath::check)
    }
}

/// Whom a rule is about. Compared as parsed values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallerMatch {
    /// This workload.
    Id(SpiffeId),
    /// The workloads of a namespace of a trust domain.
    Namespace(TrustDomain, Label),
    /// The workloads of a trust domain.
    TrustDomain(TrustDomain),
    /// Everybody who has proven an identity.
    Authenticated,
    /// Everybody who has not: plaintext at a port that allows it.
    Unauthenticated,
}

impl CallerMatch {
    /// Whether `caller` is meant, who has proven nothing where that is `None`.
    pub fn holds(&self, caller: Option<&SpiffeId>) -> bool {
        match (self, caller) {
            (Self::Id(id), Some(caller)) => id == caller,
            (Self::Namespace(domain, namespace), Some(caller)) => {
                domain == caller.trust_domain() && namespace == caller.namespace()
            }
            (Self::TrustDomain(domain), Some(caller)) => domain == caller.trust_domain(),
            (Self::Authenticated, Some(_)) | (Self::Unauthenticated, None) => true,
            (Self::Unauthenticated, Some(_)) | (_, None) => false,
        }
    }
}

/// A header that must be there. Each value of a repeated header is looked at by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessHeader {
    /// Its name.
    pub name: HeaderName,
    /// The values of which it must have one. None: any.
    pub values: Vec<Arc<str>>,
}

/// The name of an access policy: `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccessPolicyName(Arc<str>);

impl AccessPolicyName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccessPolicyName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bad = |rule| InvalidName::new("the name of an access policy", text, rule);
        let (namespace, name) = text.split_once('/').ok_or_else(|| bad("write it as namespace/name"))?;
        Label::new(namespace)?;
        if text.len() > 300 || name.split('.').any(|part| Label::new(part).is_err()) {
            return Err(bad("it must be DNS labels joined by dots"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for AccessPolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccessPolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Access {
    /// How many rules may hold for one service.
    pub const MOST_RULES: usize = 20_000;

    /// Refuses what can not be obeyed: too much of it, or paths that no request has.
    pub fn check(&self) -> Result<(), String> {
        if self.policies.iter().map(|p| p.rules.len()).sum::<usize>() > Self::MOST_RULES {
            return Err(format!("more than {} access rules hold for one service", Self::MOST_RULES));
        }
        if !self.policies.is_sorted_by(|a, b| a.name < b.name) {
            return Err("its access policies are not in order, or one is there twice".into());
        }
        for policy in &self.policies {
            for rule in &policy.rules {
                rule.check()
                    .map_err(|e| format!("access policy {}, rule {}: {e}", policy.name, rule.name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
