//! What a service wants of its callers' tokens.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{ClaimPath, IssuerName};
use crate::route::{RequestHead, RouteMatch};

/// What a service wants of the tokens of its requests, and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRules {
    /// In their order: the first that is for a request decides. The last is for every request.
    pub rules: Vec<TokenRule>,
    /// What the application gets of a verified token.
    pub to_application: ToApplication,
    /// Claims that the application gets as headers. Headers of these names that callers send are removed, always.
    pub claim_headers: Vec<ClaimHeader>,
    /// No token is longer.
    pub max_bytes: u32,
}

impl TokenRules {
    /// How far clocks may differ.
    pub const SKEW: Duration = Duration::from_secs(60);
    /// The longest token, where nothing else is said.
    pub const MAX_BYTES: u32 = 8 * 1_024;
    /// The longest token that can be allowed.
    pub const LONGEST: u32 = 32 * 1_024;
    /// What a token may last, where nothing else is said.
    pub const MAX_LIFETIME: Duration = Duration::from_hours(24);
    /// How many rules there may be.
    pub const MAX_RULES: usize = 64;
    /// How many issuers one rule may accept.
    pub const MAX_ISSUERS: usize = 16;

    /// The rule for a request.
    pub fn rule(&self, request: &RequestHead<'_>) -> Option<&TokenRule> {
        self.rules.iter().find(|rule| rule.is_for(request))
    }

    /// Whether any request's token is looked at: then nothing may reach the application around that.
    pub fn look_at_tokens(&self) -> bool {
        self.rules.iter().any(|rule| rule.need != TokenNeed::Nothing)
    }

    /// Refuses rules that leave something open, or could be led around.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=Self::MAX_RULES).contains(&self.rules.len()) {
            return Err(format!("there are 1 to {} rules", Self::MAX_RULES));
        }
        if self.rules.last().is_none_or(|last| !last.matches.is_empty()) {
            return Err("the last rule must be for every request".into());
        }
        if !(256..=Self::LONGEST).contains(&self.max_bytes) {
            return Err("a token is at most 256 to 32768 bytes long".into());
        }
        for rule in &self.rules {
            rule.check()?;
        }
        let mut names: Vec<&HeaderName> = self.claim_headers.iter().map(|c| &c.header).collect();
        if let ToApplication::Replace(header) = &self.to_application {
            names.push(header);
        }
        if names.len() > 32 {
            return Err("there are more than 32 headers of claims".into());
        }
        if let Some(bad) = names.iter().find(|name| !may_be_set(name)) {
            return Err(format!("{bad} can not be a header of a claim"));
        }
        match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            Some((_, twice)) => Err(format!("the header {twice} is set twice")),
            None => Ok(()),
        }
    }
}

/// Whether a header means nothing to the way of a request, so that a claim can be written into it.
fn may_be_set(name: &HeaderName) -> bool {
    const TAKEN: [&str; 18] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "grpc-timeout",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-client-cert",
    ];
    let name = name.as_str();
    !TAKEN.contains(&name) && !name.starts_with("x-outrigger-") && !name.starts_with("x-forwarded-")
}

/// What some requests need.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRule {
    /// Which requests; it is enough that one of these holds. Empty: all. None of them looks at claims.
    pub matches: Vec<RouteMatch>,
    /// Whether a token must be there.
    pub need: TokenNeed,
    /// Whose tokens are taken. None only with [`TokenNeed::Nothing`].
    pub issuers: Vec<AcceptedIssuer>,
}

impl TokenRule {
    fn is_for(&self, request: &RequestHead<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|m| m.holds(request))
    }

    fn check(&self) -> Result<(), String> {
        if self.matches.iter().any(|m| !m.claims.is_empty()) {
            return Err("a rule for tokens can not look at their claims".into());
        }
        self.matches.iter().try_for_each(RouteMatch::check)?;
        if self.need != TokenNeed::Nothing && self.issuers.is_empty() {
            return Err("a rule accepts no issuer".into());
        }
        if self.issuers.len() > TokenRules::MAX_ISSUERS {
            return Err(format!("a rule accepts more than {} issuers", TokenRules::MAX_ISSUERS));
        }
        for accepted in &self.issuers {
            if accepted.audiences.is_empty() {
                return Err(format!("no audience is accepted of {}", accepted.issuer));
            }
            if accepted.max_lifetime.is_zero() {
                return Err(format!("tokens of {} could not live", accepted.issuer));
            }
        }
        Ok(())
    }
}

/// Whether a token must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenNeed {
    /// One must, and it must be valid.
    #[default]
    Required,
    /// One that is there must be valid.
    Optional,
    /// Nobody looks. No claim is known, and none is told to the application.
    Nothing,
}

/// An issuer, and which of its tokens are for this service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedIssuer {
    /// The issuer.
    pub issuer: IssuerName,
    /// One of these must be an audience of the token. Never none.
    pub audiences: Vec<Arc<str>>,
    /// From `iat` to `exp` it is no longer.
    pub max_lifetime: Duration,
}

/// What the application gets of a verified token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToApplication {
    /// The token as it came.
    #[default]
    Keep,
    /// Nothing.
    Strip,
    /// In its place, in this header, what it says: the claims as JSON in base64url.
    Replace(HeaderName),
}

/// A claim as a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The claim. Each value of a list is a line of its own.
    pub claim: ClaimPath,
    /// The header.
    pub header: HeaderName,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(need: TokenNeed) -> TokenRules {
        let accepted = AcceptedIssuer {
            issuer: "shop/users/login".parse().unwrap(),
            audiences: vec!["shop".into()],
            max_lifetime: TokenRules::MAX_LIFETIME,
        };
        let rule = TokenRule { matches: vec![], need, issuers: vec![accepted] };
        TokenRules {
            rules: vec![rule],
            to_application: ToApplication::Keep,
            claim_headers: vec![],
            max_bytes: TokenRules::MAX_BYTES,
        }
    }

    #[test]
    fn rules_that_leave_a_request_without_a_rule_or_take_any_token_are_refused() {
        let good = rules(TokenNeed::Required);
        assert_eq!(good.check(), Ok(()));
        let change = |change: fn(&mut TokenRules)| {
            let mut rules = good.clone();
            change(&mut rules);
            rules.check()
        };
        assert!(change(|r| r.rules.clear()).is_err());
        assert!(change(|r| r.rules[0].matches.push(RouteMatch::default())).is_err());
        assert!(change(|r| r.rules[0].issuers.clear()).is_err());
        assert!(change(|r| r.rules[0].issuers[0].audiences.clear()).is_err());
        assert!(change(|r| r.max_bytes = 0).is_err());
    }

    #[test]
    fn a_claim_is_never_written_over_a_header_that_means_something() {
        for (name, good) in
            [("x-user", true), ("host", false), ("authorization", false), ("x-outrigger-a", false)]
        {
            let mut rules = rules(TokenNeed::Required);
            let header = HeaderName::from_static(name);
            rules.claim_headers.push(ClaimHeader { claim: "sub".parse().unwrap(), header: header.clone() });
            assert_eq!(rules.check().is_ok(), good, "{name}");
            rules.to_application = ToApplication::Replace(header);
            assert!(rules.check().is_err(), "twice, or not at all: {name}");
        }
    }
}
