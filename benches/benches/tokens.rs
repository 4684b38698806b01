//! What a token costs: proving it, and finding it remembered.
#![allow(clippy::expect_used, reason = "a measurement")]

use std::hint::black_box;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use outrigger_mesh::{
    AcceptedIssuer, Issuer, IssuerKeys, IssuerName, KeyMaterial, TokenAlgorithm, TokenKey, TokenRules,
};
use outrigger_proxy::token::known::Known;
use outrigger_proxy::token::{cache, gate, verify};

fn token(c: &mut Criterion) {
    let name: IssuerName = "shop/users/login".parse().expect("a name");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let material = KeyMaterial::P256(x.try_into().expect("x"), y.try_into().expect("y"));
    let key = TokenKey { kid: Some("ec".into()), material, algorithms: vec![TokenAlgorithm::Es256] };
    let known = Known::default();
    known.set_issuer(Issuer {
        name: name.clone(),
        iss: "https://i".into(),
        keys: IssuerKeys::Known(vec![key]),
    });
    let now = gate::now();
    let claims = format!(
        r#"{{"iss":"https://i","aud":"shop","sub":"ada","jti":"1","iat":{now},"exp":{},"scope":"read write","groups":["a","b"]}}"#,
        now + 3_600
    );
    let text =
        [r#"{"alg":"ES256","kid":"ec","typ":"JWT"}"#, &claims].map(|t| URL_SAFE_NO_PAD.encode(t)).join(".");
    let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    let max_lifetime = TokenRules::MAX_LIFETIME;
    let accepted = [AcceptedIssuer { issuer: name.clone(), audiences: vec!["shop".into()], max_lifetime }];
    let known = known.load();
    let mut group = c.benchmark_group("token of ES256");
    group.bench_function("proven", |b| {
        b.iter(|| {
            verify::prove(&known, [&name].into_iter(), black_box(token.as_bytes()), 8_192).expect("good")
        });
    });
    group.bench_function("remembered", |b| {
        b.iter(|| {
            let found = cache::prove(&known, [&name].into_iter(), black_box(token.as_bytes()), 8_192, now);
            verify::accept(&known, &found.expect("good"), Some(&accepted), now).expect("accepted");
        });
    });
    group.finish();
}

criterion_group!(benches, token);
criterion_main!(benches);
