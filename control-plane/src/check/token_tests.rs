//! Policies for tokens and denylists, as written, through check and compile.

use outrigger_mesh::{DeniedToken, IssuerKeys, IssuerName, Resource, ToApplication, TokenNeed, TokenTravel};

use super::check;
use crate::spec::{Problem, Severity, read};
use crate::state::compile_all;
use crate::testing::{object, world};

const MESH: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
---
apiVersion: outrigger.dev/v1alpha1
kind: EgressService
metadata: {name: pay, namespace: shop}
spec: {hosts: [api.pay.example], ports: [{port: 443}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: TokenPolicy
metadata: {name: users, namespace: shop}
spec:
  targetRefs: [{kind: MeshService, name: cart}]
  issuers:
    - name: login
      issuer: https://login.example
      audiences: [shop]
      maxLifetime: 1h
      jwks:
        inline: '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
    - {name: partner, issuer: "https://p.example", audiences: [shop], jwks: {uri: "https://p.example/jwks"}}
  requirement: optional
  rules:
    - {matches: [{path: {type: Exact, value: /admin}}], requirement: required, issuers: [login]}
  toApplication: {token: replace, header: x-claims, claims: [{claim: realm.roles, header: x-roles}]}
  propagation: attach
---
apiVersion: outrigger.dev/v1alpha1
kind: Denylist
metadata: {name: gone, namespace: shop}
spec: {tokens: [{jti: "7"}, {issuer: "https://p.example", issuedBefore: "1970-01-01T00:01:40Z"}], identities: [old]}
"#;

#[test]
fn a_policy_becomes_rules_issuers_and_what_goes_along() {
    let all = compile_all(read(MESH, "mesh.yaml").unwrap(), &"mesh.local".parse().unwrap()).unwrap();
    let issuers: Vec<_> =
        all.iter().filter_map(|r| if let Resource::Issuer(i) = r { Some(i) } else { None }).collect();
    assert_eq!(
        issuers.iter().map(|i| i.name.to_string()).collect::<Vec<_>>(),
        ["shop/users/login", "shop/users/partner"]
    );
    assert!(matches!(&issuers[0].keys, IssuerKeys::Known(keys) if keys.len() == 1));
    assert_eq!(issuers[1].keys, IssuerKeys::Missing, "never fetched on paper");
    let inbound = all.iter().find_map(|r| if let Resource::Inbound(i) = r { Some(i) } else { None }).unwrap();
    let rules = inbound.services[0].tokens.as_ref().unwrap();
    assert_eq!(
        rules.rules.iter().map(|r| (r.need, r.issuers.len())).collect::<Vec<_>>(),
        [(TokenNeed::Required, 1), (TokenNeed::Optional, 2)]
    );
    assert_eq!(rules.to_application, ToApplication::Replace("x-claims".parse().unwrap()));
    assert_eq!(rules.rules[0].issuers[0].max_lifetime.as_secs(), 3_600);
    let travel = |name: &str| {
        all.iter().find_map(|r| match r {
            Resource::Service(s) if s.name.to_string() == name => Some(s.tokens),
            _ => None,
        })
    };
    assert_eq!(
        (travel("shop/cart"), travel("shop/pay")),
        (Some(TokenTravel::Attach), Some(TokenTravel::Strip))
    );
    let list = all.iter().find_map(|r| if let Resource::Denylist(d) = r { Some(d) } else { None }).unwrap();
    let before = DeniedToken {
        iss: Some("https://p.example".into()),
        issued_before: Some(100),
        ..DeniedToken::default()
    };
    assert_eq!(list.tokens[1], before);
    assert_eq!(list.identities[0].to_string(), "spiffe://mesh.local/ns/shop/sa/old");
}

#[test]
fn everything_wrong_with_a_policy_or_a_list_is_told_at_once() {
    let faults = |text: &str| -> Vec<String> {
        let problems: Vec<Problem> = check(&object(text), &world()).unwrap_err();
        problems.into_iter().filter(|p| p.severity == Severity::Error).map(|p| p.pointer).collect()
    };
    let found = faults(
        r#"{apiVersion: outrigger.dev/v1alpha1, kind: TokenPolicy, metadata: {name: users, namespace: shop}, spec: {
        targetRefs: [{kind: MeshService, name: nobody}],
        issuers: [
          {name: a, issuer: i, audiences: [], jwks: {inline: "{}"}},
          {name: a, issuer: i, audiences: [x], jwks: {uri: "http://x/y", file: /z}},
          {name: b, issuer: i, audiences: [x], jwks: {uri: "http://x/y", refresh: 1s}},
          {name: c, issuer: i, audiences: [x], jwks: {file: /x, allowPrivate: true}}],
        rules: [{matches: [], requirement: none}, {matches: [{method: GET}], requirement: required, issuers: [bb]}],
        toApplication: {token: replace}, maxSize: 1Mi}}"#,
    );
    assert_eq!(
        found,
        [
            "/spec/targetRefs/0/name",
            "/spec/issuers/0/jwks/inline",
            "/spec/issuers/0/audiences",
            "/spec/issuers/1/name",
            "/spec/issuers/1/jwks",
            "/spec/issuers/2/jwks/refresh",
            "/spec/issuers/2/jwks/uri",
            "/spec/issuers/3/jwks/allowPrivate",
            "/spec/rules/0/matches",
            "/spec/rules/1/issuers/0",
            "/spec/toApplication/header",
            "/spec/maxSize",
        ]
    );
    let found = faults(
        r#"{apiVersion: outrigger.dev/v1alpha1, kind: Denylist, metadata: {name: gone, namespace: shop}, spec: {
        tokens: [{}, {issuer: i}, {sub: s}, {issuedBefore: "2026-01-01T00:00:00Z"}]}}"#,
    );
    assert_eq!(found, ["/spec/tokens/0", "/spec/tokens/1", "/spec/tokens/3"]);
}

const EXCHANGED: &str = r"
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
---
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: prices, namespace: shop}
---
apiVersion: outrigger.dev/v1alpha1
kind: TokenPolicy
metadata: {name: users, namespace: shop}
spec:
  targetRefs: [{kind: MeshService, name: cart}, {kind: MeshService, name: prices}]
  rules:
    - {matches: [{path: {type: Exact, value: /open}}], requirement: optional, issuers: [mesh]}
  propagation: exchange
  exchange: {scopes: [read], claims: [groups]}
";

#[test]
fn where_tokens_are_exchanged_each_service_takes_those_of_the_mesh_for_itself_alone() {
    let all = compile_all(read(EXCHANGED, "mesh.yaml").unwrap(), &"mesh.local".parse().unwrap()).unwrap();
    assert!(!all.iter().any(|r| matches!(r, Resource::Issuer(_))), "the mesh tells of itself elsewhere");
    let inbound = all.iter().filter_map(|r| if let Resource::Inbound(i) = r { Some(i) } else { None });
    let services: Vec<_> = inbound.flat_map(|i| &i.services).collect();
    assert_eq!(services.len(), 2);
    for service in services {
        let rules = &service.tokens.as_ref().unwrap().rules;
        assert_eq!(rules.len(), 2);
        for rule in rules {
            let [issuer] = &rule.issuers[..] else { panic!("{:?}", rule.issuers) };
            assert_eq!(issuer.issuer, IssuerName::of_the_mesh());
            assert_eq!(&*issuer.audiences[0], service.name.to_string());
            assert_eq!((issuer.audiences.len(), issuer.max_lifetime.as_secs()), (1, 300));
        }
    }
    let exchanged = |r: &&Resource| matches!(r, Resource::Service(s) if s.tokens == TokenTravel::Exchange { or_original: false });
    assert_eq!(all.iter().filter(exchanged).count(), 2);
    assert!(
        all.iter()
            .filter(exchanged)
            .all(|r| r.required_features().iter().any(|f| f.as_str() == "token-exchange"))
    );
}

#[test]
fn what_can_not_be_meant_of_an_exchange_is_told_at_once() {
    let faults = |spec: &str| -> Vec<String> {
        let mut world = world();
        crate::testing::put(&mut world, crate::testing::service("cart", "ports: [{port: 80}]")).unwrap();
        let text = format!(
            "{{apiVersion: outrigger.dev/v1alpha1, kind: TokenPolicy, metadata: {{name: mesh, namespace: outrigger}}, \
             spec: {{targetRefs: [], {spec}}}}}"
        );
        let problems: Vec<Problem> = check(&object(&text), &world).unwrap_err();
        let told = problems.into_iter().filter(|p| p.severity == Severity::Error).map(|p| p.pointer);
        told.filter(|pointer| pointer != "/spec/targetRefs").collect()
    };
    let issuer = |name: &str| format!("{{name: {name}, issuer: i, audiences: [x], jwks: {{file: /x}}}}");
    assert_eq!(faults("exchange: {scopes: [a]}, propagation: attach"), ["/spec/issuers", "/spec/exchange"]);
    assert_eq!(
        faults("propagation: exchange, exchange: {claims: [groups, scp, act], unavailable: original}"),
        ["/spec/exchange/claims/1", "/spec/exchange/claims/2", "/spec/exchange/unavailable"]
    );
    let own = format!("issuers: [{}, {}], propagation: exchange", issuer("mesh"), issuer("exchange"));
    assert_eq!(faults(&own), ["/spec/issuers/0/name", "/spec/issuers/1/name"]);
    let other = format!("issuers: [{}, {}]", issuer("mesh"), issuer("exchange"));
    assert_eq!(faults(&other), ["/spec/issuers/1/name"], "the name of the mesh's issuer is nobody's, ever");
}
