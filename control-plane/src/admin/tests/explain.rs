//! What `explain` tells: by the request as it arrives where it goes, and to nobody what is not his business.

use super::*;

const MESH: &str = "\
{apiVersion: outrigger.dev/v1alpha1, kind: MeshService, metadata: {name: cart, namespace: shop}, spec: {}}
---
{apiVersion: outrigger.dev/v1alpha1, kind: MeshService, metadata: {name: desk, namespace: bank}, spec: {}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {name: g, namespace: bank}, spec: {
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}}
";

/// Instances of versions of `shop/cart` and of `bank/desk`.
const INSTANCES: &str = "\
{apiVersion: outrigger.dev/v1alpha1, kind: Instance, metadata: {name: cart-2, namespace: shop}, spec: {
  service: cart, address: 127.0.0.1, ports: [{port: 80, listen: 8002}], transport: plaintext, version: v2}}
---
{apiVersion: outrigger.dev/v1alpha1, kind: Instance, metadata: {name: desk-1, namespace: bank}, spec: {
  service: desk, address: 127.0.0.1, ports: [{port: 80, listen: 8001}], transport: plaintext}}
";

impl House {
    async fn has(&self, text: &str) {
        let write = |document| crate::state::Write::Put { document, expect: crate::store::Expect::Anything };
        let writes = crate::spec::read(text, "").unwrap().into_iter().map(write).collect();
        let applied = self.api.state.apply(writes, &Author::system("a test"), false).await;
        applied.unwrap_or_else(|e| panic!("{e:#?}"));
    }

    /// What is told of a request, to whom has this token or may see everything.
    async fn explains(&self, token: Option<&ApiToken>, described: &Json) -> Json {
        let root = self.token("viewer", HOUR).await;
        let bearer = bearer(token.unwrap_or(&root));
        let headers = [("authorization", bearer.as_str())];
        let told = self.sends(&Method::POST, "/v1/explain", &headers, &described.to_string()).await;
        assert_eq!(told.status, 200, "{}", told.text);
        told.json()
    }
}

fn asked(path: &str, from: &str) -> Json {
    serde_json::json!({ "host": "cart.shop", "path": path, "from": from })
}

#[tokio::test]
async fn access_is_judged_by_the_request_as_it_arrives() {
    let house = House::with(Door::closed()).await;
    house.has(MESH).await;
    house
        .has(
            "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, spec: {
               parentRefs: [{group: '', kind: Service, name: cart}], rules: [
                 {matches: [{path: {value: /old}}], backendRefs: [{name: cart}], filters: [
                   {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-by, value: route}]}},
                   {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]},
                 {matches: [{path: {value: /here}}], filters: [
                   {type: RequestRedirect, requestRedirect: {statusCode: 302, path: {type: ReplaceFullPath, replaceFullPath: /new}}}]},
                 {backendRefs: [{name: cart}]}]}}",
        )
        .await;
    house
        .has(
            "{apiVersion: outrigger.dev/v1alpha1, kind: AccessPolicy, metadata: {name: new, namespace: shop}, spec: {
               targetRefs: [{kind: MeshService, name: cart}], action: allow, rules: [
                 {paths: [{prefix: /new}]}]}}",
        )
        .await;
    for (path, expected) in
        [("/old/x", Some("allowed")), ("/new/x", Some("allowed")), ("/x", Some("denied")), ("/here", None)]
    {
        let told = house.explains(None, &asked(path, "shop/web")).await;
        assert_eq!(told["access"][0]["decision"].as_str(), expected, "{path}: {told:#}");
    }
}

#[tokio::test]
async fn a_side_without_anybody_takes_nothing_from_the_other() {
    let house = House::with(Door::closed()).await;
    house.has(MESH).await;
    house
        .has(
            "{apiVersion: outrigger.dev/v1alpha1, kind: Rollout, metadata: {name: cart, namespace: shop}, \
              spec: {service: cart, strategy: canary, stable: v1, candidate: v2}}",
        )
        .await;
    house.has(INSTANCES).await;
    let told = house.explains(None, &asked("/", "shop/web")).await;
    let to = told["to"].as_array().unwrap();
    let met = (to.len(), to[0]["version"].as_str(), to[0]["percent"].as_f64(), to[0]["ready"].as_u64());
    assert_eq!(met, (1, Some("v2"), Some(100.0), Some(1)), "{told:#}");
    // The same of backends.
    house
        .has(
            "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, spec: {
               parentRefs: [{group: '', kind: Service, name: cart}], rules: [{backendRefs: [
                 {group: outrigger.dev, kind: ServiceVersion, name: cart.v1, weight: 9},
                 {group: outrigger.dev, kind: ServiceVersion, name: cart.v2, weight: 1}]}]}}",
        )
        .await;
    let told = house.explains(None, &asked("/", "shop/web")).await;
    let shares: Vec<_> = told["route"]["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["percent"].as_f64().unwrap())
        .collect();
    assert_eq!(shares, [0.0, 100.0], "{told:#}");
}

#[tokio::test]
async fn what_other_namespaces_have_is_told_only_to_who_may_see_it() {
    let house = House::with(Door::closed()).await;
    house.has(MESH).await;
    house.has(INSTANCES).await;
    house
        .has(
            "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, spec: {
               parentRefs: [{group: '', kind: Service, name: cart}], rules: [
                 {backendRefs: [{name: desk, namespace: bank}]}]}}",
        )
        .await;
    let shop = house.token("viewer:shop", HOUR).await;
    let (mine, all) = (asked("/", "shop/web"), house.explains(None, &asked("/", "shop/web")).await);
    assert!(all.to_string().contains("desk-1"));
    let told = house.explains(Some(&shop), &mine).await;
    assert!(
        told["route"]["backends"][0]["unknown"].is_string() && !told.to_string().contains("desk-1"),
        "{told:#}"
    );
    assert_eq!(told["access"][0]["decision"], "unknown");

    let theirs = asked("/", "bank/teller");
    assert_eq!(house.explains(Some(&shop), &theirs).await["route"]["rule"], "shop/r/0");
    house
        .has(
            "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: own, namespace: bank}, spec: {
               parentRefs: [{group: '', kind: Service, name: cart, namespace: shop}], rules: [
                 {backendRefs: [{name: desk}]}]}}",
        )
        .await;
    assert_eq!(house.explains(None, &theirs).await["route"]["rule"], "bank/own/0");
    let told = house.explains(Some(&shop), &theirs).await;
    assert!(told["unknown"]["why"].is_string() && told.get("route").is_none(), "{told:#}");
    assert!(!told.to_string().contains("own/0") && !told.to_string().contains("desk"), "{told:#}");
}
