//! A sidecar that is just coming in: what it wants and holds takes several requests, and before the last of them nobody knows
//! what it obeys.

use outrigger_mesh::ResourceKind;

use super::*;
use crate::rollout::Sidecars;

#[tokio::test(start_paused = true)]
async fn who_has_not_said_all_that_it_holds_obeys_nothing_yet_and_is_waited_for() {
    // Between its first request and its last it counted as one that has answered everything, and holds nothing.
    let mut mesh = Mesh::new();
    mesh.hub.ask_for([cart()].into());
    mesh.publish(1, service("shop/cart", &["cart.shop"]));
    mesh.publish(1, endpoint("i-1", 1));
    let name = Selector::Named(ResourceName::Service("shop/prices".parse().unwrap()));
    let mut web = mesh.sidecar(
        "web",
        &[name, Selector::EndpointsOf(cart()), Selector::Named(ResourceName::Service(cart()))],
    );
    let last = web.first.pop_back().unwrap();
    assert_eq!(web.first.len(), 1, "services, then their endpoints");
    web.say().await;
    web.listen().await;

    let told = mesh.hub.acknowledged(1, Duration::from_millis(200)).await;
    assert_eq!(
        (told.acknowledged, told.missing),
        (0, vec![("web".to_owned(), "has not answered".to_owned())])
    );
    let of_cart = Sidecars::acknowledged(&*mesh.hub, &cart());
    assert_eq!((of_cart.holders, of_cart.missing.len()), (1, 1), "{of_cart:?}");
    mesh.publish(1, ResourceChange::Remove(ResourceName::Endpoint(cart(), "i-1".parse().unwrap())));
    let uid = "i-1".parse().unwrap();
    assert_eq!(mesh.hub.removed(&cart(), &uid, Duration::from_millis(200)).await, (1, 0));

    let hub = Arc::clone(&mesh.hub);
    let waiting = tokio::spawn(async move { hub.removed(&cart(), &uid, Duration::from_secs(5)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "it may be calling that instance");
    web.requests.send(last).await.unwrap();
    web.listen().await;
    assert_eq!(waiting.await.unwrap(), (1, 1));
    assert_eq!(mesh.hub.acknowledged(1, Duration::from_secs(1)).await.acknowledged, 1);
    let of_cart = Sidecars::acknowledged(&*mesh.hub, &cart());
    assert_eq!((of_cart.holders, of_cart.missing), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn who_never_says_all_that_it_announced_loses_its_place() {
    let mut mesh = Mesh::new();
    let mut web =
        mesh.sidecar("web", &[Selector::EndpointsOf(cart()), Selector::Named(ResourceName::Service(cart()))]);
    web.first.pop_back();
    web.say().await;
    web.listen().await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let ended = mesh.streams.try_join_next().unwrap().unwrap().unwrap_err();
    assert!(ended.to_string().contains("does not answer"), "{ended}");
    assert!(mesh.hub.proxies().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_says_it_drop_by_drop_has_a_minute_and_no_more() {
    // Everybody who takes an instance out waits for him: by one word every now and then he could have held up all of them.
    let mut mesh = Mesh::new();
    let all = |kind| Selector::All(kind);
    let mut web = mesh.sidecar(
        "web",
        &[
            Selector::EndpointsOf(cart()),
            Selector::Named(ResourceName::Service(cart())),
            all(ResourceKind::Trust),
            all(ResourceKind::Mesh),
            all(ResourceKind::Issuer),
            all(ResourceKind::Denylist),
        ],
    );
    assert_eq!(web.first.len(), 6);
    let first = std::mem::take(&mut web.first);
    let began = tokio::time::Instant::now();
    for request in first.into_iter().take(5) {
        let _he_may_be_cut_by_now = web.requests.send(request).await;
        // What there is to answer he answers.
        while let Ok(response) = tokio::time::timeout(Duration::from_secs(1), web.responses.recv()).await {
            let Some(response) = response else { break };
            let delta = web.session.on_response(response);
            web.session.answer(delta.ticket, Vec::new());
            web.say_more().await;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    let ended = mesh.streams.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(ended.to_string().contains("does not answer"), "{ended}");
    assert!(began.elapsed() < Duration::from_secs(110), "{:?}", began.elapsed());
}
