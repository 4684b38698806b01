//! Routes through the API: what they refer to may be allowed not to be there, and what has become of them is told.

use super::*;

const CART: &str = r#"{"apiVersion": "outrigger.dev/v1alpha1", "kind": "MeshService",
    "metadata": {"name": "cart", "namespace": "shop"}, "spec": {}}"#;

const TO_PRICES: &str = r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
    "metadata": {"name": "r", "namespace": "shop"}, "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
    "rules": [{"backendRefs": [{"name": "prices", "port": 80}]}]}}"#;

struct Desk {
    house: House,
    bearer: String,
}

impl Desk {
    async fn new() -> Self {
        let house = House::with(Door::closed()).await;
        let bearer = bearer(&house.token("editor", HOUR).await);
        Self { house, bearer }
    }

    async fn sends(&self, method: Method, path: &str, body: &str) -> Told {
        let authorization = ("authorization", self.bearer.as_str());
        let headers = match method {
            Method::PUT => vec![authorization, ("if-none-match", "*")],
            Method::DELETE => vec![authorization, ("if-match", "*")],
            _ => vec![authorization],
        };
        self.house.sends(&method, path, &headers, body).await
    }

    /// The condition of this type of the route's only parent.
    async fn condition(&self, kind: &str) -> Json {
        let told = self.sends(Method::GET, "/v1/httproutes/shop/r", "").await;
        assert_eq!(told.status, 200, "{}", told.text);
        let status = told.json()["status"].clone();
        let parents = status["parents"].as_array().unwrap();
        assert_eq!(parents.len(), 1, "{status}");
        assert_eq!(parents[0]["parentRef"]["name"], "cart");
        assert_eq!(parents[0]["controllerName"], "outrigger.dev/controller");
        let all = parents[0]["conditions"].as_array().unwrap();
        all.iter().find(|condition| condition["type"] == kind).unwrap_or_else(|| panic!("{status}")).clone()
    }
}

#[tokio::test]
async fn what_dangles_is_refused_unless_it_is_allowed_and_then_it_is_a_warning_and_a_state() {
    let desk = Desk::new().await;
    assert_eq!(desk.sends(Method::PUT, "/v1/services/shop/cart", CART).await.status, 201);
    for refused in ["/v1/httproutes/shop/r", "/v1/httproutes/shop/r?dryRun=true"] {
        let told = desk.sends(Method::PUT, refused, TO_PRICES).await;
        assert_eq!(told.status, 422, "{}", told.text);
        let problem = &told.json()["problems"][0];
        assert_eq!(problem["pointer"], "/spec/rules/0/backendRefs/0/name", "{}", told.text);
        assert!(problem["hint"].is_string(), "{}", told.text);
    }
    for (query, status) in [("dangling=refuse", 400), ("dangle=allow", 400), ("dangling=allow", 201)] {
        let told = desk.sends(Method::PUT, &format!("/v1/httproutes/shop/r?{query}"), TO_PRICES).await;
        assert_eq!(told.status, status, "{query}: {}", told.text);
    }
    let body = format!("{{\"items\": [{TO_PRICES}]}}");
    assert_eq!(desk.sends(Method::POST, "/v1/apply", &body).await.status, 200, "it is as it was");
    let other = body.replace("\"r\"", "\"s\"");
    assert_eq!(desk.sends(Method::POST, "/v1/apply", &other).await.status, 422);
    let told = desk.sends(Method::POST, "/v1/apply?dangling=allow", &other).await;
    assert_eq!(told.status, 200, "{}", told.text);
    let warning = &told.json()["warnings"][0];
    assert_eq!(
        (&warning["severity"], &warning["code"]),
        (&"warning".into(), &"reference".into()),
        "{warning}"
    );
}

#[tokio::test]
async fn a_get_of_a_route_tells_what_has_become_of_it_and_since_when() {
    let desk = Desk::new().await;
    let prices = CART.replace("\"cart\"", "\"prices\"");
    for (path, body) in
        [("services/shop/cart", CART), ("services/shop/prices", &prices), ("httproutes/shop/r", TO_PRICES)]
    {
        let told = desk.sends(Method::PUT, &format!("/v1/{path}"), body).await;
        assert_eq!(told.status, 201, "{}", told.text);
    }
    let read = desk.sends(Method::GET, "/v1/httproutes/shop/r", "").await.json();
    for kind in ["Accepted", "ResolvedRefs"] {
        let condition = desk.condition(kind).await;
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&"True".into(), &kind.into()),
            "{condition}"
        );
        assert_eq!(
            condition["observedGeneration"].to_string(),
            read["metadata"]["resourceVersion"].as_str().unwrap()
        );
        assert!(condition["message"].is_string(), "{condition}");
        let since = condition["lastTransitionTime"].as_str().unwrap();
        assert!(crate::spec::Time::parse(since).unwrap() <= crate::spec::Time::now(), "{since}");
    }
    // The same in a list, and what a client sends as the status is not believed.
    let list = desk.sends(Method::GET, "/v1/httproutes/shop", "").await.json();
    assert_eq!(list["items"][0]["status"], read["status"]);
    let mut lie = read.clone();
    lie["status"] = serde_json::json!({ "parents": [] });
    let told = desk.sends(Method::POST, "/v1/apply", &format!("{{\"items\": [{lie}]}}")).await;
    assert_eq!(told.status, 200, "{}", told.text);
    assert_eq!(desk.condition("Accepted").await["status"], "True");
    // The service goes: only where that is allowed, and the route says so.
    let there = desk.sends(Method::DELETE, "/v1/services/shop/prices", "").await;
    assert_eq!(there.status, 422, "{}", there.text);
    let gone = desk.sends(Method::DELETE, "/v1/services/shop/prices?dangling=allow", "").await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    assert!(
        gone.json()["warnings"][0]["message"].as_str().unwrap().contains("HTTPRoute shop/r"),
        "{}",
        gone.text
    );
    let condition = desk.condition("ResolvedRefs").await;
    assert_eq!((&condition["status"], &condition["reason"]), (&"False".into(), &"BackendNotFound".into()));
    assert!(condition["message"].as_str().unwrap().contains("prices"), "{condition}");
    assert_eq!(desk.condition("Accepted").await["status"], "True", "it is taken all the same");
}
