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
        (Method::DELETE, OBJECT, none.clone(), "delete", "MeshService shop/cart"),
        (post.clone(), "/v1/join-tokens", join, "create-token", "shop/cart"),
        (post.clone(), "/v1/certs/issue", issue, "issue-certificate", "spiffe://mesh.local/ns/ops/sa/edge"),
        (post.clone(), "/v1/certs/rotation", turn, "rotate-intermediate", ""),
        (post, "/v1/tokens", token, "create-api-token", "api token ci"),
        (Method::DELETE, "/v1/tokens/{id}", none, "revoke-api-token", "api token test"),
    ]
}

/// It asks, but changes nothing.
const ASKS: (&str, Method) = ("/v1/explain", Method::POST);

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_who_from_where_what_and_why_and_so_is_every_refused_one() {
    let changes = changes();
    for (path, method, _) in routes::ROUTES {
        let is_told =
            changes.iter().any(|(m, p, ..)| (p, m) == (path, method)) || (*path, method) == (ASKS.0, &ASKS.1);
        assert!(*method == Method::GET || is_told, "{method} {path} changes something: say what its line is");
    }
    let house = House::with(Door::closed()).await;
    let (admin, viewer) = (house.token("admin", HOUR).await, house.token("viewer", HOUR).await);
    let doomed = house.token("viewer", HOUR).await.id();
    for (method, route, body, action, object) in changes {
        let path = match route {
            OBJECT => "/v1/services/shop/cart".to_owned(),
            other => other.replace("{id}", &doomed),
        };
        let expects = if method == Method::PUT { ("if-none-match", "*") } else { ("if-match", "*") };
        for (token, done) in [(&viewer, false), (&admin, true)] {
            let (bearer, why) = (bearer(token), format!("why {method} {path}, für Ada"));
            let headers = [("authorization", bearer.as_str()), ("x-outrigger-why", &why), expects];
            let told = house.sends(&method, &path, &headers, &body).await;
            assert_eq!(told.status < 300, done, "{method} {path}: {} {}", told.status, told.text);
            let entry = house.api.state.store().audit(None, 1).await.unwrap().remove(0).entry;
            let who = format!("token test ({})", token.id());
            assert_eq!(
                (&entry.who, entry.from.as_str()),
                (&who, "127.0.0.1:40000"),
                "{method} {path}: {entry:?}"
            );
            let wanted = (time::OffsetDateTime::now_utc() - entry.at).whole_seconds();
            assert!((0..10).contains(&wanted), "{entry:?}");
            if done {
                assert_eq!(
                    (entry.action.as_str(), entry.why.as_deref()),
                    (action, Some(why.as_str())),
                    "{entry:?}"
                );
                assert!(entry.object.contains(object), "{entry:?}");
            } else {
                assert_eq!((entry.action.as_str(), entry.object), ("refused", format!("{method} {route}")));
                let told = entry.why.unwrap();
                assert!(told.starts_with("viewer may not: ") && told.contains(&why), "{told}");
            }
        }
    }
}
