//! Who obeys the present version of a service: by its content, sidecar by sidecar.

use super::*;
use crate::rollout::{Acknowledgements, Sidecars};

fn by_host() -> [Selector; 1] {
    [Selector::Host(Hostname::new("cart.shop").unwrap())]
}

fn by_name() -> [Selector; 1] {
    [Selector::Named(ResourceName::Service(cart()))]
}

/// Until something holds, in time that passes at once.
async fn until(mesh: &Mesh, holds: impl Fn(&Acknowledgements) -> bool) -> Acknowledgements {
    for _ in 0..200 {
        let told = Sidecars::acknowledged(&*mesh.hub, &cart());
        if holds(&told) {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", Sidecars::acknowledged(&*mesh.hub, &cart()));
}

#[tokio::test(start_paused = true)]
async fn everybody_who_asked_for_a_service_counts_and_obeys_only_what_he_has_answered() {
    let mut mesh = Mesh::new();
    mesh.publish(1, service("shop/cart", &["cart.shop"]));
    mesh.publish(1, service("shop/prices", &["prices.shop"]));
    let mut running = JoinSet::new();
    running.spawn(mesh.sidecar("web", &by_host()).run());
    running.spawn(mesh.sidecar("api", &by_name()).run());
    let prices = Selector::Host(Hostname::new("prices.shop").unwrap());
    running.spawn(mesh.sidecar("bystander", &[prices]).run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    // They were there before anybody asked.
    mesh.hub.ask_for([cart()].into());
    assert!(!Sidecars::acknowledged(&*mesh.hub, &cart()).missing.is_empty(), "nothing is known of them yet");
    let told = until(&mesh, |told| told.missing.is_empty()).await;
    assert_eq!((told.holders, told.settled), (2, true));

    mesh.publish(2, service("shop/cart", &["cart.shop", "basket.shop"]));
    let told = Sidecars::acknowledged(&*mesh.hub, &cart());
    assert_eq!(told.missing.len(), 2, "published is not obeyed: {told:?}");
    until(&mesh, |told| told.missing.is_empty()).await;
    // What changes elsewhere asks nobody for anything.
    mesh.publish(3, endpoint("i-1", 2));
    assert!(Sidecars::acknowledged(&*mesh.hub, &cart()).missing.is_empty());

    let mut stubborn = mesh.sidecar("stubborn", &by_host());
    stubborn.refuse = true;
    running.spawn(stubborn.run());
    let told = until(&mesh, |told| told.missing.iter().any(|(_, why)| why.contains("rejected"))).await;
    assert_eq!(told.missing, [("stubborn".to_owned(), "rejected it: not today".to_owned())]);
    running.abort_all();
    let told = until(&mesh, |told| told.holders == 0).await;
    assert!(told.missing.is_empty(), "who has gone is not waited for");
}
