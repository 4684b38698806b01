//! Live requests: whose they are, what is written down of whoever looks, and what can not be meant.

use super::*;

/// A house with the services `shop/x` and `bank/x`, beside each of which stands a sidecar.
async fn with_services() -> House {
    let house = House::with(Door::closed()).await;
    let admin = house.token("admin", HOUR).await;
    let bearer = bearer(&admin);
    let headers = [("authorization", bearer.as_str()), ("if-none-match", "*")];
    for namespace in ["shop", "bank"] {
        let body = service(namespace).replace("\"cart\"", "\"x\"");
        let told = house.sends(&Method::PUT, &format!("/v1/services/{namespace}/x"), &headers, &body).await;
        assert!(told.status < 300, "{}", told.text);
    }
    house
}

#[tokio::test]
async fn who_works_on_a_service_may_look_and_it_is_written_down() {
    let house = with_services().await;
    let (editor, viewer) = (house.token("editor:shop", HOUR).await, house.token("viewer", HOUR).await);
    let told = house.get("/v1/tap?to=shop/x&status=5xx&for=5s", &editor).await;
    assert_eq!(told.status, 200, "{}", told.text);
    assert!(told.text.starts_with("event: hello\ndata: {"), "{}", told.text);
    assert!(told.text.contains("spiffe://mesh.local/ns/shop/sa/x"), "{}", told.text);
    assert!(told.text.ends_with("\n\n") && told.text.contains("event: end\n"), "{}", told.text);
    let entry = house.api.state.store().audit(None, 1).await.unwrap().remove(0).entry;
    assert_eq!(
        (entry.action.as_str(), entry.object.as_str()),
        ("tap", "live requests at shop/x: side=service to=shop/x status=5xx limit=1000 for=5s")
    );
    assert_eq!(entry.who, format!("token test ({})", editor.id()));

    for (path, token, why) in [
        ("/v1/tap?to=shop/x", &viewer, "needs the role editor"),
        ("/v1/tap?to=bank/x", &editor, "in namespace bank"),
        // The sidecars of the caller tell: it is his namespace that counts.
        ("/v1/tap?from=bank/x&to=shop/x", &editor, "in namespace bank"),
    ] {
        let told = house.get(path, token).await;
        assert_eq!(told.status, 403, "{path}: {}", told.text);
        assert!(told.text.contains(why), "{}", told.text);
    }
    assert_eq!(house.get("/v1/tap?from=shop/x&to=bank/x", &editor).await.status, 200);
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_with_what_would_be_right() {
    let house = with_services().await;
    let editor = house.token("editor", HOUR).await;
    for (path, status, why) in [
        ("/v1/tap", 400, "from=namespace/name"),
        ("/v1/tap?to=cart", 400, "to: "),
        ("/v1/tap?to=shop/x&status=six", 400, "503 or 5xx"),
        ("/v1/tap?to=shop/x&header=authorization", 400, "header"),
        ("/v1/tap?to=shop/x&for=1h", 400, "4m at most"),
        ("/v1/tap?to=shop/nobody", 404, "there is no service shop/nobody"),
    ] {
        let told = house.get(path, &editor).await;
        assert_eq!(told.status, status, "{path}: {}", told.text);
        assert!(told.text.contains(why), "{path}: {}", told.text);
    }
    let audit = house.audit().await;
    assert!(!audit.contains("live requests"), "nobody looked at anything: {audit}");
}

#[tokio::test]
async fn somebody_has_so_many_taps_at_once() {
    let house = with_services().await;
    let editor = house.token("editor", HOUR).await;
    let who = format!("token test ({})", editor.id());
    let places: Vec<_> = (0..4).map(|_| house.api.taps.place(&who).unwrap()).collect();
    let told = house.get("/v1/tap?to=shop/x", &editor).await;
    assert_eq!((told.status, told.text.contains("end one of them")), (429, true), "{}", told.text);
    drop(places);
    assert_eq!(house.get("/v1/tap?to=shop/x", &editor).await.status, 200);
}

#[tokio::test]
async fn who_calls_whom_is_told_of_the_namespaces_that_somebody_may_read() {
    let house = with_services().await;
    let (viewer, bound) = (house.token("viewer", HOUR).await, house.token("viewer:shop", HOUR).await);
    let names = |told: Told| -> Vec<String> {
        let nodes = told.json()["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().map(|node| node["namespace"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(house.get("/v1/topology", &viewer).await), ["bank", "shop"]);
    assert_eq!(names(house.get("/v1/topology?namespace=shop", &viewer).await), ["shop"]);
    assert_eq!(names(house.get("/v1/topology", &bound).await), ["shop"]);
    assert_eq!(house.get("/v1/topology/shop/x?window=10m", &bound).await.status, 200);
    assert_eq!(house.get("/v1/topology/bank/x", &bound).await.status, 403);
    assert_eq!(house.get("/v1/topology/shop/nobody", &bound).await.status, 404);
    for window in ["9s", "61m", "x"] {
        let told = house.get(&format!("/v1/topology?window={window}"), &viewer).await;
        assert_eq!(told.status, 400, "{}", told.text);
    }
}
