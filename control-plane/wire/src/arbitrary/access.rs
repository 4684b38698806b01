//! Generators of sound access policies. Boxed, as those of other policies.

use http::{HeaderName, Method};
use outrigger_mesh::{
    Access, AccessAction, AccessDefault, AccessHeader, AccessPath, AccessPolicy, AccessRule, CallerMatch,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::token::claim_match;
use super::{identity, label, port_number, trust_domain};

pub(super) fn access() -> BoxedStrategy<Access> {
    let action = select(&[AccessAction::Allow, AccessAction::Deny, AccessAction::Audit][..]);
    let policies = btree_map("[a-z]{1,4}/[a-z]{1,4}(\\.[a-z]{1,4})?", (action, vec(rule(), 0..3)), 0..3)
        .prop_map(|all| {
            let one = |(name, (action, rules)): (String, _)| AccessPolicy {
                name: name.parse().unwrap(),
                action,
                rules,
            };
            let mut policies: Vec<AccessPolicy> = all.into_iter().map(one).collect();
            policies.sort_by(|a, b| a.name.cmp(&b.name));
            policies
        });
    let default = select(&[AccessDefault::Allow, AccessDefault::Deny][..]);
    let other = (default, policies).prop_map(|(default, policies)| Access { default, policies });
    prop_oneof![Just(Access::default()), other].boxed()
}

pub(super) fn caller() -> BoxedStrategy<CallerMatch> {
    prop_oneof![
        identity().prop_map(CallerMatch::Id),
        (trust_domain(), label()).prop_map(|(domain, namespace)| CallerMatch::Namespace(domain, namespace)),
        trust_domain().prop_map(CallerMatch::TrustDomain),
        Just(CallerMatch::Authenticated),
        Just(CallerMatch::Unauthenticated),
    ]
    .boxed()
}

fn rule() -> BoxedStrategy<AccessRule> {
    let path = prop_oneof![
        "(/[a-z]{1,4}){1,3}".prop_map(|text| AccessPath::Exact(text.into())),
        "(/[a-z]{1,4}){1,3}".prop_map(|text| AccessPath::Prefix(text.into())),
        "(/[a-z]{1,4}|/\\{[a-z]{1,4}\\}){1,3}".prop_map(|text| AccessPath::Template(text.into())),
    ];
    let header = ("[a-z][a-z0-9-]{0,9}", vec("\\PC{0,9}", 0..3)).prop_map(|(name, values)| AccessHeader {
        name: HeaderName::from_bytes(name.as_bytes()).unwrap(),
        values: values.into_iter().map(Into::into).collect(),
    });
    let method = "[A-Z]{1,9}".prop_map(|text| Method::from_bytes(text.as_bytes()).unwrap());
    (
        "[a-z0-9]{1,9}",
        vec(caller(), 0..3),
        vec(port_number(), 0..3),
        vec(method, 0..3),
        vec(path, 0..3),
        vec(header, 0..3),
        vec(claim_match(), 0..2),
    )
        .prop_map(|(name, from, ports, methods, paths, headers, claims)| AccessRule {
            name: name.into(),
            from,
            ports,
            methods,
            paths,
            headers,
            claims,
        })
        .boxed()
}
