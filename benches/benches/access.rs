//! What an access decision costs with 10, 1,000 and 10,000 rules: of many callers and paths, and all of one caller.
#![allow(clippy::expect_used, reason = "a measurement")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use outrigger_mesh::{
    Access, AccessAction, AccessDefault, AccessIndex, AccessPath, AccessPolicy, AccessRule, CallerMatch,
    PortNumber, RequestHead, SpiffeId,
};

fn caller(number: usize) -> SpiffeId {
    let text = format!("spiffe://mesh.local/ns/team-{}/sa/caller-{number}", number % 50);
    text.parse().expect("an identity")
}

/// As many rules, in policies of ten: three allow for each that denies.
fn access(rules: usize, from: impl Fn(usize) -> Vec<CallerMatch>) -> Access {
    let rule = |i: usize| AccessRule {
        name: i.to_string().into(),
        from: from(i),
        methods: vec![if i.is_multiple_of(4) { Method::DELETE } else { Method::GET }],
        paths: vec![match i % 3 {
            0 => AccessPath::Exact(format!("/area-{i}/items").into()),
            1 => AccessPath::Prefix(format!("/area-{i}").into()),
            _ => AccessPath::Template(format!("/area-{i}/{{id}}/reviews").into()),
        }],
        ..AccessRule::default()
    };
    let policies = (0..rules / 10).map(|p| AccessPolicy {
        name: format!("shop/p-{p:05}").parse().expect("a name"),
        action: if p % 4 == 0 { AccessAction::Deny } else { AccessAction::Allow },
        rules: (p * 10..p * 10 + 10).map(rule).collect(),
    });
    let access = Access { default: AccessDefault::Deny, policies: policies.collect() };
    assert_eq!(access.check(), Ok(()));
    access
}

fn decision(c: &mut Criterion) {
    let mut group = c.benchmark_group("access decision");
    let headers = HeaderMap::new();
    for rules in [10, 1_000, 10_000] {
        let many = access(rules, |i| vec![CallerMatch::Id(caller(i))]);
        let one = access(rules, |_| vec![]);
        for (name, access) in [("of many callers", many), ("of everybody", one)] {
            let index = AccessIndex::new(&access);
            // The last of the templates: it is of an allow policy where there are more than ten rules.
            let number = (rules - 1) / 3 * 3 - 1;
            let path = format!("/area-{number}/7/reviews");
            let head = RequestHead {
                method: &Method::GET,
                path: &path,
                query: None,
                headers: &headers,
                claims: None,
                source: outrigger_mesh::Source::default(),
            };
            let by = index.asked_by(Some(&caller(number)), PortNumber::HTTP);
            assert!(rules == 10 || index.decide(&by, &head).allowed, "{}", index.decide(&by, &head));
            group.bench_function(BenchmarkId::new(name, rules), |b| {
                b.iter(|| index.decide(black_box(&by), black_box(&head)).allowed);
            });
        }
    }
    group.finish();
}

/// What a connection costs once, and again with each change of the rules.
fn connection(c: &mut Criterion) {
    let index = AccessIndex::new(&access(10_000, |i| vec![CallerMatch::Id(caller(i))]));
    let id = caller(77);
    c.bench_function("access of a new connection, 10000 rules", |b| {
        b.iter(|| index.asked_by(black_box(Some(&id)), PortNumber::HTTP));
    });
}

fn arranging(c: &mut Criterion) {
    let rules = access(10_000, |i| vec![CallerMatch::Id(caller(i))]);
    let mut group = c.benchmark_group("access rules pushed");
    group.sample_size(10);
    group.bench_function("10000", |b| b.iter(|| AccessIndex::new(black_box(&rules))));
    group.finish();
}

criterion_group!(benches, decision, connection, arranging);
criterion_main!(benches);
