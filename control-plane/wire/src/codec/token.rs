//! Tokens: issuers, rules, denylists, and how tokens travel.

use std::sync::Arc;

use http::HeaderName;
use outrigger_mesh::{
    AcceptedIssuer, ClaimHeader, ClaimMatch, ClaimTest, DeniedToken, Denylist, Issuer, IssuerKeys,
    KeyMaterial, ToApplication, TokenAlgorithm, TokenKey, TokenNeed, TokenRule, TokenRules, TokenTravel,
};

use super::field::{self, Fault};
use super::route::{match_from_pb as route_match_from_pb, match_to_pb as route_match_to_pb};
use crate::pb;
use crate::pb::token_key::Material;
use crate::pb::token_rules::ToApplication as Given;

pub(super) fn issuer_to_pb(issuer: &Issuer, required_features: Vec<String>) -> pb::Issuer {
    pb::Issuer {
        required_features,
        name: issuer.name.to_string(),
        iss: issuer.iss.to_string(),
        keys: issuer.keys.all().iter().map(key_to_pb).collect(),
    }
}

pub(super) fn issuer_from_pb(issuer: pb::Issuer) -> Result<Issuer, Fault> {
    let keys: Vec<TokenKey> = issuer.keys.into_iter().map(key_from_pb).collect::<Result<_, _>>()?;
    let keys = if keys.is_empty() { IssuerKeys::Missing } else { IssuerKeys::Known(keys) };
    Issuer { name: field::name(&issuer.name)?, iss: issuer.iss.into(), keys }
        .checked()
        .map_err(|e| Fault::new(e.to_string()))
}

fn key_to_pb(key: &TokenKey) -> pb::TokenKey {
    pb::TokenKey {
        kid: text(key.kid.as_ref()),
        material: Some(match &key.material {
            KeyMaterial::Rsa { n, e } => Material::Rsa(pb::RsaKey { n: n.to_vec(), e: e.to_vec() }),
            KeyMaterial::P256(x, y) => Material::P256([&x[..], y].concat()),
            KeyMaterial::P384(x, y) => Material::P384([&x[..], y].concat()),
            KeyMaterial::Ed25519(x) => Material::Ed25519(x.to_vec()),
        }),
        algorithms: key.algorithms.iter().map(ToString::to_string).collect(),
    }
}

fn key_from_pb(key: pb::TokenKey) -> Result<TokenKey, Fault> {
    let material = match key.material.ok_or_else(|| Fault::missing("the material of a key"))? {
        Material::Rsa(rsa) => KeyMaterial::Rsa { n: rsa.n.into(), e: rsa.e.into() },
        Material::P256(point) => {
            let (x, y) = halves(&point)?;
            KeyMaterial::P256(x, y)
        }
        Material::P384(point) => {
            let (x, y) = halves(&point)?;
            KeyMaterial::P384(x, y)
        }
        Material::Ed25519(x) => KeyMaterial::Ed25519(x[..].try_into().map_err(|_| size())?),
    };
    let algorithm = |word: &String| {
        TokenAlgorithm::parse(word)
            .ok_or_else(|| Fault::new(format!("{:?} is no algorithm known here", super::shortened(word))))
    };
    Ok(TokenKey {
        kid: key.kid.map(Arc::from),
        material,
        algorithms: key.algorithms.iter().map(algorithm).collect::<Result<_, _>>()?,
    })
}

fn halves<const N: usize>(point: &[u8]) -> Result<([u8; N], [u8; N]), Fault> {
    let (x, y) = point.split_first_chunk::<N>().ok_or_else(size)?;
    Ok((*x, y.try_into().map_err(|_| size())?))
}

fn size() -> Fault {
    Fault::new("a key has the wrong size")
}

pub(super) fn denylist_to_pb(list: &Denylist, required_features: Vec<String>) -> pb::Denylist {
    let denied = |d: &DeniedToken| pb::DeniedToken {
        iss: text(d.iss.as_ref()),
        jti: text(d.jti.as_ref()),
        sub: text(d.sub.as_ref()),
        issued_before: d.issued_before,
    };
    pb::Denylist {
        required_features,
        name: list.name.to_string(),
        tokens: list.tokens.iter().map(denied).collect(),
        identities: list.identities.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn denylist_from_pb(list: pb::Denylist) -> Result<Denylist, Fault> {
    let denied = |d: pb::DeniedToken| DeniedToken {
        iss: d.iss.map(Arc::from),
        jti: d.jti.map(Arc::from),
        sub: d.sub.map(Arc::from),
        issued_before: d.issued_before,
    };
    Denylist {
        name: field::name(&list.name)?,
        tokens: list.tokens.into_iter().map(denied).collect(),
        identities: list.identities.iter().map(|i| field::name(i)).collect::<Result<_, _>>()?,
    }
    .checked()
    .map_err(|e| Fault::new(e.to_string()))
}

pub(super) fn rules_to_pb(rules: &TokenRules) -> pb::TokenRules {
    pb::TokenRules {
        rules: rules.rules.iter().map(rule_to_pb).collect(),
        to_application: Some(match &rules.to_application {
            ToApplication::Keep => Given::Keep(pb::Nothing {}),
            ToApplication::Strip => Given::Strip(pb::Nothing {}),
            ToApplication::Replace(header) => Given::Replace(header.to_string()),
        }),
        claim_headers: rules
            .claim_headers
            .iter()
            .map(|c| pb::ClaimHeader { claim: c.claim.to_string(), header: c.header.to_string() })
            .collect(),
        max_bytes: rules.max_bytes,
    }
}

pub(super) fn rules_from_pb(rules: pb::TokenRules) -> Result<TokenRules, Fault> {
    let rules = TokenRules {
        rules: rules.rules.into_iter().map(rule_from_pb).collect::<Result<_, _>>()?,
        to_application: match rules.to_application.ok_or_else(|| Fault::missing("to_application"))? {
            Given::Keep(_) => ToApplication::Keep,
            Given::Strip(_) => ToApplication::Strip,
            Given::Replace(header) => ToApplication::Replace(header_name(&header)?),
        },
        claim_headers: rules
            .claim_headers
            .iter()
            .map(|c| Ok(ClaimHeader { claim: field::name(&c.claim)?, header: header_name(&c.header)? }))
            .collect::<Result<_, Fault>>()?,
        max_bytes: rules.max_bytes,
    };
    rules.check().map_err(Fault::new)?;
    Ok(rules)
}

fn rule_to_pb(rule: &TokenRule) -> pb::TokenRule {
    let accepted = |a: &AcceptedIssuer| pb::AcceptedIssuer {
        issuer: a.issuer.to_string(),
        audiences: a.audiences.iter().map(ToString::to_string).collect(),
        max_lifetime: Some(field::duration_to_pb(a.max_lifetime)),
    };
    pb::TokenRule {
        matches: rule.matches.iter().map(route_match_to_pb).collect(),
        need: match rule.need {
            TokenNeed::Required => pb::TokenNeed::Required,
            TokenNeed::Optional => pb::TokenNeed::Optional,
            TokenNeed::Nothing => pb::TokenNeed::Nothing,
        }
        .into(),
        issuers: rule.issuers.iter().map(accepted).collect(),
    }
}

fn rule_from_pb(rule: pb::TokenRule) -> Result<TokenRule, Fault> {
    let accepted = |a: pb::AcceptedIssuer| {
        Ok(AcceptedIssuer {
            issuer: field::name(&a.issuer)?,
            audiences: a.audiences.into_iter().map(Arc::from).collect(),
            max_lifetime: field::duration("max_lifetime", a.max_lifetime)?,
        })
    };
    Ok(TokenRule {
        matches: rule.matches.into_iter().map(route_match_from_pb).collect::<Result<_, _>>()?,
        need: match field::value("need", rule.need)? {
            pb::TokenNeed::Unspecified => return Err(Fault::missing("need")),
            pb::TokenNeed::Required => TokenNeed::Required,
            pb::TokenNeed::Optional => TokenNeed::Optional,
            pb::TokenNeed::Nothing => TokenNeed::Nothing,
        },
        issuers: rule.issuers.into_iter().map(accepted).collect::<Result<_, Fault>>()?,
    })
}

/// The default, which nearly every service has, costs nothing.
pub(super) fn travel_to_pb(travel: TokenTravel) -> Option<i32> {
    let travel = match travel {
        TokenTravel::Keep => return None,
        TokenTravel::Attach => pb::TokenTravel::Attach,
        TokenTravel::Exchange { or_original: false } => pb::TokenTravel::Exchange,
        TokenTravel::Exchange { or_original: true } => pb::TokenTravel::ExchangeOrOriginal,
        TokenTravel::Strip => pb::TokenTravel::Strip,
    };
    Some(travel.into())
}

pub(super) fn travel_from_pb(number: Option<i32>) -> Result<TokenTravel, Fault> {
    let Some(number) = number else { return Ok(TokenTravel::Keep) };
    Ok(match field::value("tokens", number)? {
        pb::TokenTravel::Unspecified => return Err(Fault::missing("tokens")),
        pb::TokenTravel::Keep => TokenTravel::Keep,
        pb::TokenTravel::Attach => TokenTravel::Attach,
        pb::TokenTravel::Exchange => TokenTravel::Exchange { or_original: false },
        pb::TokenTravel::ExchangeOrOriginal => TokenTravel::Exchange { or_original: true },
        pb::TokenTravel::Strip => TokenTravel::Strip,
    })
}

pub(super) fn match_to_pb(wanted: &ClaimMatch) -> pb::ClaimMatch {
    let one_of = match &wanted.test {
        ClaimTest::Present => vec![],
        ClaimTest::OneOf(values) => values.iter().map(ToString::to_string).collect(),
    };
    pb::ClaimMatch { claim: wanted.claim.to_string(), one_of }
}

pub(super) fn match_from_pb(wanted: pb::ClaimMatch) -> Result<ClaimMatch, Fault> {
    let values = wanted.one_of.into_iter().map(Arc::from);
    let test = match values.len() {
        0 => ClaimTest::Present,
        _ => ClaimTest::OneOf(values.collect()),
    };
    let read = ClaimMatch { claim: field::name(&wanted.claim)?, test };
    read.check().map_err(Fault::new)?;
    Ok(read)
}

fn header_name(text: &str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Fault::new(format!("{:?} is not a header's name", super::shortened(text))))
}

fn text(text: Option<&Arc<str>>) -> Option<String> {
    text.map(ToString::to_string)
}
