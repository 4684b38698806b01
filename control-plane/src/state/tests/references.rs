//! What names something else: policies, fallbacks and overrides, when that goes or their own time is over.

use super::*;
use crate::testing::breaker_override;

#[tokio::test]
async fn a_service_that_a_policy_is_for_stays_until_it_goes_and_its_overrides_go_with_it() {
    let plane = fresh().await;
    let cart = service("cart", "");
    let (gone, p) = (cart.clone(), policy("p", "cart", "slowStart: true"));
    let first = vec![put(cart), put(p.clone()), put(breaker_override("b", "cart", "mode: auto"))];
    plane.apply(first).await.unwrap();
    assert!(matches!(plane.apply(vec![delete(&gone)]).await, Err(ApplyError::Refused(_))));
    plane.apply(vec![delete(&gone), delete(&p)]).await.unwrap();
    assert_eq!(plane.state.world().count(crate::spec::Kind::BreakerOverride), 0);
}

#[tokio::test]
async fn an_override_ends_by_itself_says_why_and_stays_to_be_read() {
    let plane = fresh().await;
    let said = breaker_override("b", "cart", "mode: forceOpen, for: 1s");
    let key = said.key();
    plane.apply(vec![put(service("cart", "")), put(said)]).await.unwrap();
    let overrides = || match plane.seen.live.lock().unwrap().get(&ResourceName::Service(name("shop/cart"))) {
        Some(Resource::Service(cart)) => cart.overrides.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(overrides(), 1);
    let stored = plane.state.world().object(&key).unwrap().object().to_json();
    assert!(stored["spec"]["expiresAt"].is_string() && stored["spec"].get("for").is_none(), "{stored}");
    for _ in 0..100 {
        if overrides() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(overrides(), 0, "it is no longer compiled");
    assert_eq!(plane.state.world().object(&key).unwrap().has_expired(), Some(true));
    for _ in 0..100 {
        let lines = plane.state.store().audit(None, 10).await.unwrap();
        let told = |action: &str| {
            let of_it = |l: &&crate::store::AuditLine| {
                l.entry.action == action && l.entry.object.contains("BreakerOverride")
            };
            lines.iter().find(of_it).and_then(|l| l.entry.why.clone())
        };
        if told("expire").is_some() {
            assert_eq!(told("create").as_deref(), Some("because"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the end is not in the audit log");
}

#[tokio::test]
async fn a_service_that_stands_in_for_another_stays_until_nobody_names_it() {
    let plane = fresh().await;
    let (cart, spare) = (service("cart", ""), service("spare", ""));
    let with = |fallback: &str| policy("p", "cart", &format!("serviceBreaker: {{fallback: {{{fallback}}}}}"));
    plane.apply(vec![put(cart), put(spare.clone()), put(with("service: spare"))]).await.unwrap();
    let Err(ApplyError::Refused(problems)) = plane.apply(vec![delete(&spare)]).await else {
        panic!("it is gone, and the policy still names it")
    };
    let text = &problems[0].message;
    assert!(text.contains("TrafficPolicy") && text.contains("there is no service shop/spare"), "{text}");
    // Together with the policy, or with another one, it may go.
    plane.apply(vec![delete(&spare), put(with("status: 200"))]).await.unwrap();
}

#[tokio::test]
async fn an_override_that_is_over_can_be_written_once_more_and_says_nothing_new() {
    let plane = fresh().await;
    let said = breaker_override("b", "cart", "mode: forceOpen, for: 1s");
    let key = said.key();
    plane.apply(vec![put(service("cart", "")), put(said)]).await.unwrap();
    let stored = plane.state.world().object(&key).unwrap().object().clone();
    let is_over = || plane.state.world().object(&key).unwrap().has_expired() == Some(true);
    for _ in 0..200 {
        if is_over() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        let applied = plane.apply(vec![put(stored.clone())]).await.unwrap();
        assert_eq!(applied.changes[0].action, "unchanged");
        assert!(is_over());
    }
    // Another one that is over before it begins is a mistake.
    let mut other = stored.to_json();
    other["metadata"]["name"] = "c".into();
    let other = read(&other.to_string(), "c").unwrap().remove(0).object;
    assert!(matches!(plane.apply(vec![put(other)]).await, Err(ApplyError::Refused(_))));
}

fn to_prices() -> crate::spec::Object {
    route("r", "cart", "backendRefs: [{name: cart}, {name: prices}]")
}

fn unresolved(plane: &Plane) -> Vec<Option<outrigger_mesh::Unresolved>> {
    match plane.seen.live.lock().unwrap().get(&ResourceName::Service(name("shop/cart"))) {
        Some(Resource::Service(cart)) => cart.routes[0].backends.iter().map(|b| b.unresolved).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_service_that_a_route_leads_to_goes_when_that_is_allowed_and_the_route_follows_it() {
    let plane = fresh().await;
    let prices = service("prices", "");
    plane.apply(vec![put(service("cart", "")), put(prices.clone()), put(to_prices())]).await.unwrap();
    let Err(ApplyError::Refused(problems)) = plane.apply(vec![delete(&prices)]).await else {
        panic!("it is gone, and the route still leads to it")
    };
    assert!(problems[0].message.contains("there is no service shop/prices"), "{problems:?}");
    let how = How { dangling: true, ..How::default() };
    let author = me();
    let applied = plane.state.apply_as(vec![delete(&prices)], &author, how).await.unwrap();
    assert!(applied.warnings[0].message.contains("HTTPRoute shop/r"), "{:?}", applied.warnings);
    assert_eq!(unresolved(&plane), [None, Some(outrigger_mesh::Unresolved::BackendNotFound)]);
    // What is as it was is not refused for what others did, and changes of others are not either.
    assert_eq!(plane.apply(vec![put(to_prices())]).await.unwrap().changes[0].action, "unchanged");
    plane.apply(vec![put(service("cart", "retry: {retries: 1}"))]).await.unwrap();
    let other = route("s", "cart", "backendRefs: [{name: prices}]");
    assert!(matches!(plane.apply(vec![put(other.clone())]).await, Err(ApplyError::Refused(_))));
    plane.state.apply_as(vec![put(other)], &author, how).await.unwrap();
    plane.apply(vec![put(prices)]).await.unwrap();
    assert_eq!(unresolved(&plane), [None, None]);
}

#[tokio::test]
async fn a_grant_is_taken_back_whatever_routes_live_by_it() {
    let plane = fresh().await;
    let object = |text: &str| read(text, "test").unwrap().remove(0).object;
    let vault = object(
        "{apiVersion: outrigger.dev/v1alpha1, kind: MeshService, metadata: {name: vault, namespace: bank}}",
    );
    let grant = object(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {name: g, namespace: bank}, \
         spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}}",
    );
    let to_vault = route("r", "cart", "backendRefs: [{name: vault, namespace: bank}]");
    let all = vec![put(service("cart", "")), put(vault), put(grant.clone()), put(to_vault)];
    plane.apply(all).await.unwrap();
    assert_eq!(unresolved(&plane), [None]);
    let applied = plane.apply(vec![delete(&grant)]).await.unwrap();
    assert!(applied.warnings[0].message.contains("HTTPRoute shop/r"), "{:?}", applied.warnings);
    assert_eq!(unresolved(&plane), [Some(outrigger_mesh::Unresolved::RefNotPermitted)]);
    plane.apply(vec![put(grant)]).await.unwrap();
    assert_eq!(unresolved(&plane), [None]);
}

#[tokio::test]
async fn since_when_a_route_is_as_it_is_outlives_a_restart_and_goes_with_the_route() {
    let folder = tempfile::tempdir().unwrap();
    let told = |plane: &Plane| {
        let world = plane.state.world();
        let entry = world.route(&to_prices().key()).unwrap().clone();
        let status = crate::status::of_route(&world, &entry);
        let at = |i: usize| {
            status["parents"][0]["conditions"][i]["lastTransitionTime"].as_str().unwrap().to_owned()
        };
        [at(0), at(1)]
    };
    let plane = open(folder.path()).await;
    let prices = service("prices", "");
    plane.apply(vec![put(service("cart", "")), put(prices.clone()), put(to_prices())]).await.unwrap();
    // As if that had been long ago.
    let (long_ago, key) = ("2020-02-02T02:02:02Z", to_prices().key().path());
    let mut value = plane.state.store().get(Space::Status, &key).await.unwrap().unwrap().value;
    for moment in value["told"].as_array_mut().unwrap() {
        moment["at"] = long_ago.into();
    }
    let write = crate::store::Write {
        space: Space::Status,
        key: key.clone(),
        value: Some(value),
        expect: Expect::Anything,
    };
    let transaction = crate::store::Transaction { author: me(), writes: vec![write], audit: vec![] };
    plane.state.store().commit(transaction).await.unwrap();
    plane.state.store().close().await;
    drop(plane);
    let plane = open(folder.path()).await;
    assert_eq!(told(&plane), [long_ago; 2]);
    // Written anew, and another one beside it: nothing becomes true or false by that.
    let anew = route("r", "cart", "backendRefs: [{name: cart}, {name: prices, weight: 3}]");
    plane.apply(vec![put(anew), put(route("s", "cart", "backendRefs: [{name: cart}]"))]).await.unwrap();
    assert_eq!(told(&plane), [long_ago; 2]);
    let how = How { dangling: true, ..How::default() };
    plane.state.apply_as(vec![delete(&prices)], &me(), how).await.unwrap();
    let [accepted, resolved] = told(&plane);
    assert!(accepted == long_ago && resolved != long_ago, "{accepted} {resolved}");
    plane.apply(vec![delete(&to_prices())]).await.unwrap();
    assert_eq!(plane.state.store().get(Space::Status, &key).await.unwrap(), None);
}

#[tokio::test]
async fn routes_that_no_sidecar_would_take_are_refused_when_they_are_written() {
    let plane = fresh().await;
    let to = |from: usize, until: usize| {
        let rule = |first: usize| {
            let all: Vec<_> = (first..until.min(first + 16)).map(|i| format!("{{name: s{i}}}")).collect();
            format!("{{backendRefs: [{}]}}", all.join(", "))
        };
        let rules: Vec<_> = (from..until).step_by(16).map(rule).collect();
        crate::testing::object(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r{from}, namespace: shop}}, \
             spec: {{parentRefs: [{{group: '', kind: Service, name: s0}}], rules: [{}]}}}}",
            rules.join(", ")
        ))
    };
    plane.apply((0..258).map(|i| put(service(&format!("s{i}"), ""))).collect()).await.unwrap();
    plane.apply(vec![put(to(0, 255)), put(to(255, 256))]).await.unwrap();
    let Err(ApplyError::Refused(problems)) = plane.apply(vec![put(to(256, 258))]).await else {
        panic!("257 services are named")
    };
    let told = (problems[0].pointer.as_str(), problems[0].code, problems[0].hint.is_some());
    assert_eq!((problems.len(), told), (1, ("/spec/rules", Code::TooLarge, true)));
    // Fewer in place of others.
    plane.apply(vec![put(to(256, 258)), delete(&to(255, 256)), put(to(0, 250).clone())]).await.unwrap();
}
