//! What was edited past the admin API and does not hold, after a start: who was kept out by it is kept out still.

use outrigger_mesh::{IssuerKeys, TokenNeed};
use serde_json::{Value as Json, json};

use super::*;
use crate::spec::{Key, Kind};
use crate::store::{Expect as Is, Transaction};

/// A control plane that starts on three services and on these objects, which nobody checked.
async fn with(objects: &[Json]) -> Plane {
    let folder = tempfile::tempdir().unwrap();
    let plane = open(folder.path()).await;
    let services = ["cart", "web", "other"].map(|name| put(service(name, "")));
    plane.apply(services.into()).await.unwrap();
    let write = |object: &Json| {
        let kind = Kind::ALL.into_iter().find(|kind| object["kind"] == kind.as_str()).unwrap();
        let key = format!("{}/shop/{}", kind.collection(), object["metadata"]["name"].as_str().unwrap());
        crate::store::Write { space: Space::Config, key, value: Some(object.clone()), expect: Is::Anything }
    };
    let writes = objects.iter().map(write).collect();
    let store = plane.state.store();
    store.commit(Transaction { author: me(), writes, audit: vec![] }).await.unwrap();
    store.close().await;
    drop(plane);
    Plane { _folder: None, ..open(folder.path()).await }
}

fn object(kind: &str, name: &str, spec: &Json) -> Json {
    json!({ "apiVersion": "outrigger.dev/v1alpha1", "kind": kind,
            "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A policy that holds: `/healthz` needs no token, `/admin` needs one, anything else may have one.
fn tokens(target: &str) -> Json {
    let rule = |path: &str, requirement: &str| json!({ "matches": [{ "path": { "type": "Exact", "value": path } }], "requirement": requirement });
    json!({
        "targetRefs": [{ "kind": "MeshService", "name": target }],
        "issuers": [{ "name": "login", "issuer": "https://login.example", "audiences": ["shop"], "jwks": { "inline": KEYS } }],
        "requirement": "optional", "rules": [rule("/healthz", "none"), rule("/admin", "required")],
        "toApplication": { "token": "strip", "claims": [{ "claim": "sub", "header": "x-user" }] },
    })
}

/// What a service asks for, rule by rule; `None` where it asks for nothing. No key of any issuer is known.
fn asked(plane: &Plane, of: &str) -> Option<Vec<TokenNeed>> {
    let world = plane.state.world();
    let entry = world.token_policy_of(&name(of))?;
    assert!(entry.checked.issuers.iter().all(|i| i.inline == IssuerKeys::Missing && i.source.is_none()));
    let rules = entry.checked.rules_of(&name(of));
    assert!(rules.rules.iter().all(|rule| rule.need == TokenNeed::Nothing || !rule.issuers.is_empty()));
    Some(rules.rules.iter().map(|rule| rule.need).collect())
}

/// A policy that does not hold, and what is asked for instead.
fn broken(change: impl Fn(&mut Json)) -> Json {
    let mut spec = tokens("cart");
    change(&mut spec);
    object("TokenPolicy", "users", &spec)
}

#[tokio::test]
async fn a_token_policy_that_does_not_hold_lets_nobodys_token_pass_after_a_start() {
    use TokenNeed::{Nothing, Optional, Required};
    let no_keys = broken(|spec| spec["issuers"][0]["jwks"] = json!({ "inline": "{}" }));
    let plane = with(&[no_keys]).await;
    assert_eq!(asked(&plane, "shop/cart"), Some(vec![Nothing, Required, Optional]), "its rules can be read");
    assert_eq!(asked(&plane, "shop/web"), None);
    let world = plane.state.world();
    let entry = world.token_policy_of(&name("shop/cart")).unwrap();
    assert_eq!(
        &*entry.checked.issuers[0].iss, "https://login.example",
        "whose tokens can not be verified is known"
    );
    assert_eq!(
        entry.checked.rules_of(&name("shop/cart")).claim_headers.len(),
        1,
        "callers can not say who they are"
    );
    assert!(world.unheld(&Key::from_path("tokenpolicies/shop/users").unwrap()).is_some());
    for (what, change) in [
        (
            "a rule",
            Box::new(|s: &mut Json| s["rules"][1]["requirement"] = json!("perhaps"))
                as Box<dyn Fn(&mut Json)>,
        ),
        ("what no rule is for", Box::new(|s: &mut Json| s["requirement"] = json!("perhaps"))),
        ("a rule without its conditions", Box::new(|s: &mut Json| s["rules"][1]["matches"] = json!([]))),
    ] {
        let plane = with(&[broken(change)]).await;
        let rules = asked(&plane, "shop/cart").unwrap();
        assert_eq!((rules[0], *rules.last().unwrap()), (Nothing, Required), "{what}: {rules:?}");
    }
    for (what, change) in [
        ("the rules", Box::new(|s: &mut Json| s["rules"] = json!("none")) as Box<dyn Fn(&mut Json)>),
        ("a field that nobody knows", Box::new(|s: &mut Json| s["ruls"] = s["rules"].take())),
        ("the first rule", Box::new(|s: &mut Json| s["rules"][0]["matches"] = json!([{ "pth": "/" }]))),
        (
            "the headers of claims",
            Box::new(|s: &mut Json| s["toApplication"]["claims"] = json!([{ "claim": "sub" }])),
        ),
        ("everything", Box::new(|s: &mut Json| *s = json!({ "targetRefs": s["targetRefs"], "issuers": 7 }))),
    ] {
        assert_eq!(asked(&with(&[broken(change)]).await, "shop/cart"), Some(vec![Required]), "{what}");
    }
}

#[tokio::test]
async fn a_token_policy_whose_services_can_not_be_read_is_for_all_that_have_no_other() {
    let odd = broken(|spec| spec["targetRefs"] = json!([{ "name": 7 }]));
    let plane = with(&[odd, object("TokenPolicy", "zeal", &tokens("web"))]).await;
    for shut in ["shop/cart", "shop/other"] {
        assert!(asked(&plane, shut).is_some(), "{shut}");
    }
    let world = plane.state.world();
    let own = &world.token_policy_of(&name("shop/web")).unwrap().object.metadata.name;
    assert_eq!(own.as_str(), "zeal", "one that holds is not in the way of");

    // Mended by the admin API it holds again.
    let document = read(&object("TokenPolicy", "users", &tokens("cart")).to_string(), "t").unwrap().remove(0);
    plane.state.apply(vec![Write::Put { document, expect: Expect::Present }], &me(), false).await.unwrap();
    let world = plane.state.world();
    let entry = world.token_policy_of(&name("shop/cart")).unwrap();
    assert_ne!(entry.checked.issuers[0].inline, IssuerKeys::Missing);
    assert!(world.token_policy_of(&name("shop/other")).is_none());
}

#[tokio::test]
async fn a_denylist_that_does_not_hold_denies_what_of_it_can_be_read_after_a_start() {
    let spec = json!({
        "tokens": [{ "jti": "1" }, { "issuer": "https://login.example" }, { "jtii": "2" }, { "sub": "eve" }],
        "identities": ["evil", "Not A Name", 7, "spiffe://mesh.local/ns/shop/sa/worse"],
        "words": "of another version",
    });
    let plane = with(&[object("Denylist", "revoked", &spec)]).await;
    let world = plane.state.world();
    let list = world.denylist(&name("shop/revoked")).unwrap();
    let tokens: Vec<_> = list.tokens.iter().map(|t| t.jti.as_deref().or(t.sub.as_deref()).unwrap()).collect();
    assert_eq!(tokens, ["1", "eve"]);
    let identities: Vec<_> = list.identities.iter().map(ToString::to_string).collect();
    assert_eq!(identities, ["spiffe://mesh.local/ns/shop/sa/evil", "spiffe://mesh.local/ns/shop/sa/worse"]);
    let why = world.unheld(&Key::from_path("denylists/shop/revoked").unwrap()).unwrap();
    for at in [
        "/spec/tokens/1: ",
        "/spec/tokens/2: ",
        "/spec/identities/1: ",
        "/spec/identities/2: ",
        "/spec/words: ",
    ] {
        assert!(why.contains(at), "{at} is not in {why}");
    }
    assert!(!why.contains("/spec/tokens/0: ") && !why.contains("/spec/identities/3: "), "{why}");
}
