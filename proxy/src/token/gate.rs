//! What a service wants of its callers' tokens, before its application sees a request.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use outrigger_mesh::{Reason, RequestHead, ToApplication, TokenNeed, TokenRules};

use super::cache;
use super::known::Known;
use super::{Fault, Verified, verify};
use crate::error::Error;

/// Finds the rule and the token of a request: the verified token, where there is one, or why the request is refused.
/// Headers that are to carry claims are gone afterwards, whoever sent them.
pub fn admit(
    known: &Known,
    rules: &TokenRules,
    parts: &mut Parts,
    target: &PathAndQuery,
) -> Result<Option<Arc<Verified>>, Error> {
    remove_claims(rules, &mut parts.headers);
    let (method, path, query, headers) = (&parts.method, target.path(), target.query(), &parts.headers);
    let rule = rules.rule(&RequestHead {
        method,
        path,
        query,
        headers,
        claims: None,
        source: outrigger_mesh::Source::default(),
    });
    let rule = rule.ok_or_else(|| Error::refused(Reason::AuthnMissing, "no rule for tokens is for it"))?;
    if rule.need == TokenNeed::Nothing {
        return Ok(None);
    }
    let token = match bearer(headers) {
        Ok(Some(token)) => token,
        Ok(None) if rule.need == TokenNeed::Optional => return Ok(None),
        Ok(None) => return Err(missing()),
        Err(fault) => return Err(refused(known, &fault)),
    };
    let (arranged, now) = (known.load(), now());
    let issuers = rule.issuers.iter().map(|accepted| &accepted.issuer);
    let proven = cache::prove(&arranged, issuers, token, rules.max_bytes as usize, now);
    let checked = proven.and_then(|token| {
        verify::accept(&arranged, &token, Some(&rule.issuers), now)?;
        Ok(token)
    });
    checked.map(Some).map_err(|fault| refused(known, &fault))
}

/// Gives the application what it is to get of a token.
pub fn hand_over(rules: &TokenRules, token: Option<&Verified>, headers: &mut HeaderMap) {
    if rules.to_application != ToApplication::Keep && is_bearer(headers) {
        headers.remove(header::AUTHORIZATION);
    }
    let Some(token) = token else { return };
    if let ToApplication::Replace(name) = &rules.to_application
        && let Some(claims) = token.secret().split(|b| *b == b'.').nth(1)
        && let Ok(value) = HeaderValue::from_bytes(claims)
    {
        headers.insert(name, value);
    }
    for wanted in &rules.claim_headers {
        for value in token.claims().values(&wanted.claim).iter().take(MOST_VALUES) {
            // What can not stand in a header is left out, rather than told as something else.
            if let Some(value) = HeaderValue::from_str(value).ok().filter(|v| v.len() <= LONGEST_VALUE) {
                headers.append(&wanted.header, value);
            }
        }
    }
}

/// The token of a request. Several are none: who would say which of them counts?
pub fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Fault> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(one) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Fault::Form("there are several"));
    }
    Ok(of_bearer(one))
}

/// The token of a value of Authorization; `None` where that is of another scheme.
pub(super) fn of_bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(BEARER.len())?;
    (scheme.eq_ignore_ascii_case(BEARER) && token.first() == Some(&b' ')).then(|| &token[1..])
}

fn is_bearer(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| of_bearer(value).is_some())
}

/// Removes what callers must not say, in every spelling that some servers read as the same.
fn remove_claims(rules: &TokenRules, headers: &mut HeaderMap) {
    let replaced = match &rules.to_application {
        ToApplication::Replace(name) => Some(name),
        ToApplication::Keep | ToApplication::Strip => None,
    };
    for name in rules.claim_headers.iter().map(|c| &c.header).chain(replaced) {
        headers.remove(name);
        if name.as_str().contains(['-', '_']) {
            while let Some(alike) = headers.keys().find(|other| reads_alike(other, name)).cloned() {
                headers.remove(alike);
            }
        }
    }
}

fn reads_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let fold = |b: u8| if b == b'_' { b'-' } else { b };
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| fold(*a) == fold(*b))
}

fn missing() -> Error {
    challenge(Error::refused(Reason::AuthnMissing, "a token is needed, and there is none"), "Bearer".into())
}

/// A token that is not taken, as its sender is told (RFC 6750, section 3). Nothing of the token is told.
fn refused(known: &Known, fault: &Fault) -> Error {
    let told = |reason, error: &str, what: &'static str| {
        let value = format!("Bearer error=\"{error}\", error_description=\"{what}\"");
        challenge(Error::refused(reason, format!("the token is refused: {what}")), value)
    };
    match fault {
        Fault::Form(what) => told(Reason::JwtInvalid, "invalid_request", what),
        Fault::Refused(what) => told(Reason::JwtInvalid, "invalid_token", what),
        Fault::Expired => told(Reason::JwtExpired, "invalid_token", "its time is over"),
        Fault::UnknownKey(issuer) => {
            known.want_keys(issuer);
            told(Reason::JwtInvalid, "invalid_token", "its key is not known")
        }
        Fault::NoKeys(issuer) => {
            known.want_keys(issuer);
            let why = format!("the keys of {issuer} were never obtained");
            Error::refused(Reason::JwtKeysUnavailable, why)
        }
    }
}

fn challenge(mut error: Error, value: String) -> Error {
    if let Ok(value) = HeaderValue::try_from(value) {
        error.told_mut().fields.push((header::WWW_AUTHENTICATE, value));
    }
    // To send it again elsewhere would not make it better.
    error.unprocessed = false;
    error
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a token says of its issuer, unproven, in whatever way it is carried.
pub(super) fn claims_to_be_of(value: &HeaderValue) -> Option<Box<str>> {
    let bytes = value.as_bytes();
    // More generous than for proof: several blanks, or a list.
    let mut words = bytes.split(|b| matches!(b, b' ' | b'\t' | b',')).filter(|w| w.len() > 4);
    words.find_map(verify::claimed_issuer)
}

const BEARER: &[u8] = b"bearer";
const MOST_VALUES: usize = 32;
const LONGEST_VALUE: usize = 1_024;
