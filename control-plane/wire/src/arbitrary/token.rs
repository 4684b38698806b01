//! Generators for what concerns tokens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use outrigger_mesh::{
    AcceptedIssuer, ClaimHeader, ClaimMatch, ClaimPath, ClaimTest, DeniedToken, Denylist, Issuer, IssuerKeys,
    IssuerName, KeyMaterial, RouteMatch, ToApplication, TokenKey, TokenNeed, TokenRule, TokenRules,
    TokenTravel,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::route::route_match;
use super::{identity, label, service_name};

pub(super) fn travel() -> impl Strategy<Value = TokenTravel> {
    select(
        &[
            TokenTravel::Keep,
            TokenTravel::Attach,
            TokenTravel::Exchange { or_original: false },
            TokenTravel::Exchange { or_original: true },
            TokenTravel::Strip,
        ][..],
    )
}

pub(super) fn claim() -> impl Strategy<Value = ClaimPath> {
    "[a-z:/]{1,5}(\\\\\\.[a-z]{1,3})?(\\.[a-z]{1,5}){0,2}".prop_map(|text| ClaimPath::new(&text).unwrap())
}

pub(super) fn claim_match() -> impl Strategy<Value = ClaimMatch> {
    let one_of = vec(text(), 1..4).prop_map(ClaimTest::OneOf);
    (claim(), prop_oneof![Just(ClaimTest::Present), one_of])
        .prop_map(|(claim, test)| ClaimMatch { claim, test })
}

pub(super) fn issuer() -> impl Strategy<Value = Issuer> {
    (issuer_name(), text(), vec(key(), 0..3)).prop_map(|(name, iss, keys)| {
        let keys = if keys.is_empty() { IssuerKeys::Missing } else { IssuerKeys::Known(keys) };
        Issuer { name, iss, keys }.checked().unwrap()
    })
}

pub(super) fn denylist() -> impl Strategy<Value = Denylist> {
    let token = (of(text()), text(), of(text()), of(any::<u64>()))
        .prop_map(|(iss, jti, sub, issued_before)| DeniedToken { iss, jti: Some(jti), sub, issued_before });
    (service_name(), vec(token, 0..3), vec(identity(), 0..3))
        .prop_map(|(name, tokens, identities)| Denylist { name, tokens, identities }.checked().unwrap())
}

pub(super) fn rules() -> impl Strategy<Value = TokenRules> {
    let accepted =
        (issuer_name(), vec(text(), 1..3), 1_u64..90_000).prop_map(|(issuer, audiences, seconds)| {
            AcceptedIssuer { issuer, audiences, max_lifetime: Duration::from_secs(seconds) }
        });
    let need = select(&[TokenNeed::Required, TokenNeed::Optional, TokenNeed::Nothing][..]);
    let matches = vec(route_match(), 0..3).prop_map(|all| -> Vec<RouteMatch> {
        all.into_iter().map(|one| RouteMatch { claims: vec![], ..one }).collect()
    });
    let rule = (matches, need, vec(accepted, 1..3)).prop_map(|(matches, need, issuers)| TokenRule {
        matches,
        need,
        issuers,
    });
    let header = "x-[a-f]{1,6}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
    let headers = vec((claim(), header), 0..3);
    (vec(rule, 1..4), 0_u8..3, headers, 256_u32..=32_768).prop_map(
        |(mut rules, given, headers, max_bytes)| {
            rules.last_mut().unwrap().matches.clear();
            let mut seen = BTreeSet::new();
            let claim_headers = headers
                .into_iter()
                .filter(|(_, header)| seen.insert(header.to_string()))
                .map(|(claim, header)| ClaimHeader { claim, header })
                .collect();
            let to_application = match given {
                0 => ToApplication::Keep,
                1 => ToApplication::Strip,
                _ => ToApplication::Replace(HeaderName::from_static("x-token-claims")),
            };
            let rules = TokenRules { rules, to_application, claim_headers, max_bytes };
            rules.check().unwrap();
            rules
        },
    )
}

pub(super) fn issuer_name() -> impl Strategy<Value = IssuerName> {
    (label(), label(), label()).prop_map(|(namespace, policy, name)| IssuerName::new(namespace, policy, name))
}

fn key() -> impl Strategy<Value = TokenKey> {
    let rsa = vec(any::<u8>(), 255)
        .prop_map(|rest| KeyMaterial::Rsa { n: [&[0x80], &rest[..]].concat().into(), e: [1, 0, 1].into() });
    let material = prop_oneof![
        rsa,
        (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(x, y)| KeyMaterial::P256(x, y)),
        (vec(any::<u8>(), 48), vec(any::<u8>(), 48))
            .prop_map(|(x, y)| KeyMaterial::P384(x.try_into().unwrap(), y.try_into().unwrap())),
        any::<[u8; 32]>().prop_map(KeyMaterial::Ed25519),
    ];
    (of(text()), material).prop_flat_map(|(kid, material)| {
        let all = material.algorithms().to_vec();
        subsequence(all.clone(), 1..=all.len()).prop_map(move |algorithms| TokenKey {
            kid: kid.clone(),
            material: material.clone(),
            algorithms,
        })
    })
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[!-~]{1,12}".prop_map(Arc::from)
}
