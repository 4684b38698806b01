//! The audit log: every change has a line, with who, from where, what and why; so has every change that was refused.

use outrigger_certs::WorkloadKey;

use super::*;

/// One change by each route that changes something: how it is asked for, and what its line says.
fn changes() -> Vec<(Method, &'static str, String, &'static str, &'static str)> {
    let apply = format!("{{\"items\": [{}]}}", service("bank"));
    let csr = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(WorkloadKey::generate().unwrap().csr().unwrap())
    };
    let join = "{\"namespace\": \"shop\", \"serviceAccount\": \"cart\"}".to_owned();
    let issue = format!("{{\"namespace\": \"ops\", \"serviceAccount\": \"edge\", \"csr\": \"{csr}\"}}");
    let token = "{\"name\": \"ci\", \"role\": \"viewer\"}".to_owned();
    let turn = "{\"action\": \"new-intermediate\"}".to_owned();
    let (post, none) = (Method::POST, String::new());
    vec![
        (post.clone(), "/v1/apply", apply, "create", "MeshService bank/cart"),
        (Method::PUT, OBJECT, service("shop"), "create", "MeshService shop/cart"),
        (Method::PATCH, OBJECT, "{\"spec\": {\"owner\": \"ada\"}}".into(), "update", "MeshService shop/cart"),
        (Method::DELETE, OBJECT, none.clone(), "delete", "MeshService shop/cart"),
        (post.clone(), "/v1/rollback", "{\"to\": 3}".into(), "create", "MeshService shop/cart"),
        (post.clone(), "/v1/join-tokens", join, "create-token", "shop/cart"),
        (post.clone(), "/v1/leases/confirm", "{}".into(), "confirm-loss", "60 leases"),
        (Method::PUT, "/v1/log-level", "{\"filter\": \"debug\"}".into(), "set-log-level", "log debug"),
        (post.clone(), "/v1/certs/issue", issue, "issue-certificate", "spiffe://mesh.local/ns/ops/sa/edge"),
        (post.clone(), "/v1/certs/rotation", turn, "rotate-intermediate", ""),
        (post.clone(), ROLLOUT, "{}".into(), "rollout-pause", "Rollout bank/cart"),
        (post, "/v1/tokens", token, "create-api-token", "api token ci"),
        (Method::DELETE, "/v1/tokens/{id}", none, "revoke-api-token", "api token test"),
    ]
}

/// The first asks, but changes nothing; the second needs an instance to end well, and has a test of its own.
const ASKS: [(&str, Method); 2] =
    [("/v1/explain", Method::POST), ("/v1/services/{namespace}/{name}/try", Method::POST)];

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_who_from_where_what_and_why_and_so_is_every_refused_one() {
    let changes = changes();
    for (path, method, _) in routes::ROUTES {
        let is_told = changes.iter().any(|(m, p, ..)| (p, m) == (path, method))
            || ASKS.iter().any(|(p, m)| (p, m) == (path, method));
        assert!(*method == Method::GET || is_told, "{method} {path} changes something: say what its line is");
    }
    let house = House::with(Door::closed()).await;
    let (admin, viewer) = (house.token("admin", HOUR).await, house.token("viewer", HOUR).await);
    let doomed = house.token("viewer", HOUR).await.id();
    for (method, route, body, action, object) in changes {
        let path = match route {
            OBJECT => "/v1/services/shop/cart".to_owned(),
            ROLLOUT => {
                house.roll_out().await;
                "/v1/rollouts/bank/cart/pause".to_owned()
            }
            other => other.replace("{id}", &doomed),
        };
        let expects = if method == Method::PUT { ("if-none-match", "*") } else { ("if-match", "*") };
        for (token, done) in [(&viewer, false), (&admin, true)] {
            let (bearer, why) = (bearer(token), format!("why {method} {path}, für Ada"));
            let headers = [("authorization", bearer.as_str()), ("x-outrigger-why", &why), expects];
            let told = house.sends(&method, &path, &headers, &body).await;
            assert_eq!(told.status < 300, done, "{method} {path}: {} {}", told.status, told.text);
            // The drivers write lines of their own, which come from nowhere.
            let lines = house.api.state.store().audit(None, 9).await.unwrap();
            let entry =
                lines.into_iter().map(|line| line.entry).find(|entry| !entry.from.is_empty()).unwrap();
            let who = format!("token test ({})", token.id());
            assert_eq!(
                (&entry.who, entry.from.as_str()),
                (&who, "127.0.0.1:40000"),
                "{method} {path}: {entry:?}"
            );
            let wanted = (time::OffsetDateTime::now_utc() - entry.at).whole_seconds();
            assert!((0..10).contains(&wanted), "{entry:?}");
            if done {
                assert_eq!(entry.action, action, "{entry:?}");
                // A rollback says before it what it is.
                let told = entry.why.as_deref().unwrap_or_default();
                assert_eq!(told.strip_prefix("rollback to revision 3: ").unwrap_or(told), why, "{entry:?}");
                assert!(entry.object.contains(object), "{entry:?}");
            } else {
                assert_eq!((entry.action.as_str(), entry.object), ("refused", format!("{method} {route}")));
                let told = entry.why.unwrap();
                assert!(told.starts_with("viewer may not: ") && told.contains(&why), "{told}");
            }
        }
    }
}

/// A service that breaks a rule, with something at a wrong place that may be a secret.
fn broken(marker: &str) -> String {
    service("shop").replace("\"spec\":{}", &format!("\"spec\":{{\"{marker}\":\"{marker}\"}}"))
}

#[tokio::test]
async fn a_change_that_does_not_hold_is_in_the_audit_log_by_name_and_code_and_without_its_text() {
    const MARKER: &str = "pl4nted";
    let house = House::with(Door::closed()).await;
    let admin = house.token("admin", HOUR).await;
    let bearer = bearer(&admin);
    let headers = [("authorization", bearer.as_str()), ("if-none-match", "*")];
    let path = "/v1/services/shop/cart";
    let told = house.sends(&Method::PUT, path, &headers, &broken(MARKER)).await;
    assert_eq!((told.status, told.text.contains(MARKER)), (422, true), "{}", told.text);
    let entry = house.api.state.store().audit(None, 1).await.unwrap().remove(0).entry;
    assert_eq!((entry.action.as_str(), entry.object), ("refused", format!("PUT {OBJECT}")));
    assert_eq!(entry.who, format!("token test ({})", admin.id()));
    let why = entry.why.unwrap();
    assert_eq!(why, "not valid: services/shop/cart: unknown-field (problems: 1)");
    let told = house.sends(&Method::POST, "/v1/apply", &headers, &broken(MARKER)).await;
    assert_eq!(told.status, 422);
    let why = house.api.state.store().audit(None, 1).await.unwrap().remove(0).entry.why.unwrap();
    assert!(why.starts_with("not valid: what can not be read: "), "{why}");

    // What was only asked changes nothing, and is no line.
    let before = house.audit().await.matches("refused").count();
    let told = house.sends(&Method::PUT, &format!("{path}?dryRun=true"), &headers, &broken(MARKER)).await;
    assert_eq!((told.status, house.audit().await.matches("refused").count()), (422, before));
    assert!(!house.audit().await.contains(MARKER));
}

#[tokio::test]
async fn changes_that_do_not_hold_neither_fill_the_audit_log_nor_hide_what_somebody_may_not() {
    let house = House::with(Door::closed()).await;
    let editor = house.token("editor:shop", HOUR).await;
    let bearer = bearer(&editor);
    let headers = [("authorization", bearer.as_str()), ("if-none-match", "*")];
    for _ in 0..60 {
        let told = house.sends(&Method::PUT, "/v1/services/shop/cart", &headers, &broken("x")).await;
        assert_eq!(told.status, 422, "{}", told.text);
    }
    let told = house.sends(&Method::PUT, "/v1/services/bank/cart", &headers, &service("bank")).await;
    assert_eq!(told.status, 403, "{}", told.text);
    let log = house.audit().await;
    assert_eq!((log.matches("not valid: ").count(), log.matches(" may not: ").count()), (20, 1), "{log}");
}

#[tokio::test]
async fn what_somebody_tries_is_in_the_audit_log_before_it_is_sent() {
    let house = House::with(Door::closed()).await;
    let bearer = bearer(&house.token("editor", HOUR).await);
    let headers =
        [("authorization", bearer.as_str()), ("x-outrigger-why", "is it there?"), ("if-none-match", "*")];
    let written = service("shop").replace("\"spec\":{}", "\"spec\":{\"api\":{\"path\":\"/openapi.json\"}}");
    let put = house.sends(&Method::PUT, "/v1/services/shop/cart", &headers, &written).await;
    assert_eq!(put.status, 201, "{}", put.text);
    let tried = "{\"method\": \"PUT\", \"path\": \"/items/7?secret=1\"}";
    let told = house.sends(&Method::POST, "/v1/services/shop/cart/try", &headers, tried).await;
    assert!(told.status >= 400, "there is no instance: {}", told.text);
    let line = house.api.state.store().audit(None, 1).await.unwrap().remove(0).entry;
    assert_eq!((line.action.as_str(), line.object.as_str()), ("try", "MeshService shop/cart: PUT /items/7"));
    assert_eq!(line.why.as_deref(), Some("is it there?"));
    // What is not sent has no line.
    let told = house
        .sends(
            &Method::POST,
            "/v1/services/shop/cart/try",
            &headers,
            "{\"method\": \"GET\", \"path\": \"x\"}",
        )
        .await;
    assert_eq!(told.status, 400, "{}", told.text);
    assert_eq!(house.api.state.store().audit(None, 1).await.unwrap().remove(0).entry.object, line.object);
}
