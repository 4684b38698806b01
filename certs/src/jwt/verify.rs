//! Proving a token: whose it is by its signature, whether it is for here and now.
//!
//! In two steps, so that the dear one can be remembered: [`prove`] reads the token and verifies the signature, once;
//! [`accept`] compares times, audience and what is revoked, with every request.

use std::fmt;

use outrigger_mesh::{AcceptedIssuer, ClaimValue, Claims, IssuerName, TokenRules};
use zeroize::Zeroizing;

use super::arranged::{Arranged, Key};
use super::json::Members;
use super::parse::{self, Parsed};

/// A token whose signature was verified with a key of its issuer.
pub struct Verified {
    claims: Claims,
    token: Zeroizing<Box<[u8]>>,
    times: Times,
    audiences: Vec<Box<str>>,
}

impl Verified {
    /// What it says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The token itself, to be sent on. Never to be shown.
    pub fn secret(&self) -> &[u8] {
        &self.token
    }

    /// Its end, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.times.exp
    }

    /// Whether its time has come and is not over.
    pub fn is_in_time(&self, now: u64) -> bool {
        self.times.check(now).is_ok()
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({})", self.claims.issuer)
    }
}

/// Why a token is not taken. No text of the token is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It can not be read.
    Form(&'static str),
    /// It can be read, and is not good.
    Refused(&'static str),
    /// It was good.
    Expired,
    /// Nobody can tell: the keys of this issuer were never obtained.
    NoKeys(IssuerName),
    /// It names a key that is not known of this issuer.
    UnknownKey(IssuerName),
}

/// Proves whose token it is, with the keys of any of `issuers`.
pub fn prove<'a>(
    known: &Arranged,
    issuers: impl Iterator<Item = &'a IssuerName>,
    token: &[u8],
    max_bytes: usize,
) -> Result<Verified, Fault> {
    let parsed = parse::parse(token, max_bytes)?;
    let iss = match member(&parsed.claims, "iss") {
        Some(ClaimValue::Text(iss)) => iss.clone(),
        Some(_) => return Err(Fault::Form("iss has a wrong type")),
        None => return Err(Fault::Refused("it names no issuer")),
    };
    let mut fault = Fault::Refused("its issuer is not accepted here");
    for name in issuers {
        let Some(keys) = known.issuer(name) else {
            // Accepted here, but not known what it is called: it may be this one.
            fault = fault.or(Fault::NoKeys(name.clone()));
            continue;
        };
        if keys.issuer.iss != iss {
            continue;
        }
        if keys.keys.is_empty() {
            fault = fault.or(Fault::NoKeys(name.clone()));
            continue;
        }
        match verified_by(&keys.keys, &parsed) {
            Outcome::Verified => return verified(name, parsed, token),
            Outcome::NoSuchKey => fault = fault.or(Fault::UnknownKey(name.clone())),
            Outcome::Wrong => fault = fault.or(Fault::Refused("its signature is not its issuer's")),
        }
    }
    Err(fault)
}

impl Fault {
    /// Of two faults with different issuers, the one that tells more of what to do.
    fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::NoKeys(_), _) | (Self::UnknownKey(_), Self::Refused(_)) => self,
            _ => other,
        }
    }
}

enum Outcome {
    Verified,
    NoSuchKey,
    Wrong,
}

/// `kid` picks the key; without one, those are tried that the algorithm is one of, up to a bound.
fn verified_by(keys: &[Key], parsed: &Parsed<'_>) -> Outcome {
    let named = |key: &&Key| match &parsed.kid {
        Some(kid) => key.kid.as_deref() == Some(kid),
        None => key.algorithms.contains(&parsed.algorithm),
    };
    let mut named = keys.iter().filter(named).take(MAX_TRIES).peekable();
    if named.peek().is_none() {
        return Outcome::NoSuchKey;
    }
    if named.any(|key| key.verifies(parsed.algorithm, parsed.signed, parsed.signature)) {
        Outcome::Verified
    } else {
        Outcome::Wrong
    }
}

/// The token is its issuer's; what it says must also be said as it must be.
fn verified(issuer: &IssuerName, parsed: Parsed<'_>, token: &[u8]) -> Result<Verified, Fault> {
    let times = Times::of(&parsed.claims)?;
    let audiences = audiences(&parsed.claims)?;
    for name in ["sub", "jti"] {
        if !matches!(member(&parsed.claims, name), None | Some(ClaimValue::Text(_))) {
            return Err(Fault::Form("sub or jti has a wrong type"));
        }
    }
    let claims = Claims::new(issuer.clone(), parsed.claims);
    Ok(Verified { claims, token: Zeroizing::new(token.into()), times, audiences })
}

/// Whether a proven token is good at `now`, here. `None` for `accepted`: its audience does not matter, since nothing is
/// allowed by it.
pub fn accept(
    known: &Arranged,
    token: &Verified,
    accepted: Option<&[AcceptedIssuer]>,
    now: u64,
) -> Result<(), Fault> {
    token.times.check(now)?;
    if known.is_denied(&token.claims) {
        return Err(Fault::Refused("it is revoked"));
    }
    let Some(accepted) = accepted else { return Ok(()) };
    let mut fault = Fault::Refused("its issuer is not accepted here");
    for accepted in accepted.iter().filter(|a| a.issuer == token.claims.issuer) {
        if !token.audiences.iter().any(|own| accepted.audiences.iter().any(|a| **a == **own)) {
            fault = Fault::Refused("it is for another audience");
        } else if token.times.lifetime(now) > accepted.max_lifetime.as_secs() {
            fault = Fault::Refused("it lives longer than is accepted");
        } else {
            return Ok(());
        }
    }
    Err(fault)
}

/// When a token is good, in seconds since 1970.
struct Times {
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
}

impl Times {
    fn of(claims: &Members) -> Result<Self, Fault> {
        let exp = moment(claims, "exp")?.ok_or(Fault::Refused("it does not say when it ends"))?;
        Ok(Self { exp, nbf: moment(claims, "nbf")?, iat: moment(claims, "iat")? })
    }

    fn check(&self, now: u64) -> Result<(), Fault> {
        if now >= self.exp.saturating_add(SKEW) {
            return Err(Fault::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf > now.saturating_add(SKEW)) {
            return Err(Fault::Refused("its time has not come"));
        }
        if self.iat.is_some_and(|iat| iat > now.saturating_add(SKEW) || iat > self.exp) {
            return Err(Fault::Refused("it was issued in the future"));
        }
        Ok(())
    }

    /// How long it lives; of one that does not say since when, how long it will.
    fn lifetime(&self, now: u64) -> u64 {
        match self.iat {
            Some(iat) => self.exp.saturating_sub(iat),
            None => self.exp.saturating_sub(now.saturating_add(SKEW)),
        }
    }
}

/// A NumericDate (RFC 7519, section 2). Any other type is a failure, never an absence.
fn moment(claims: &Members, name: &str) -> Result<Option<u64>, Fault> {
    let bad = Fault::Form("exp, nbf or iat is no number of seconds");
    match member(claims, name) {
        None => Ok(None),
        Some(ClaimValue::Integer(seconds)) => u64::try_from(*seconds).map(Some).map_err(|_| bad),
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
        Some(ClaimValue::Float(seconds)) if (0.0..9e15).contains(seconds) => Ok(Some(*seconds as u64)),
        Some(_) => Err(bad),
    }
}

fn audiences(claims: &Members) -> Result<Vec<Box<str>>, Fault> {
    let bad = Fault::Form("aud has a wrong type");
    match member(claims, "aud") {
        None => Err(Fault::Refused("it names no audience")),
        Some(ClaimValue::Text(one)) => Ok(vec![(&**one).into()]),
        Some(ClaimValue::List(all)) => {
            let text = |value: &ClaimValue| match value {
                ClaimValue::Text(text) => Ok((&**text).into()),
                _ => Err(bad.clone()),
            };
            all.iter().map(text).collect()
        }
        Some(_) => Err(bad),
    }
}

fn member<'a>(members: &'a Members, name: &str) -> Option<&'a ClaimValue> {
    members.iter().find(|(own, _)| &**own == name).map(|(_, value)| value)
}

const SKEW: u64 = TokenRules::SKEW.as_secs();
/// So many keys are tried at most.
const MAX_TRIES: usize = 4;
