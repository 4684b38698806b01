//! Sidecars are sent to another control plane.

use tokio::time::{Instant, sleep};

use super::*;

const STAY: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn who_can_go_elsewhere_is_sent_there_and_who_comes_back_may_stay_a_while() {
    let mut mesh = Mesh::new();
    let _one = mesh.sidecar_that(true, None, "one", &all_of_cart());
    let _bound = mesh.sidecar_that(false, None, "bound", &all_of_cart());
    sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    mesh.hub.send_elsewhere(since, STAY);
    let end = mesh.streams.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(end.kind, RpcErrorKind::Elsewhere);
    assert_eq!(mesh.hub.proxies().len(), 1, "who knows nobody else stays");

    let _again = mesh.sidecar_that(true, None, "one", &all_of_cart());
    sleep(STAY * 4 / 5).await;
    mesh.hub.send_elsewhere(since, STAY);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(mesh.hub.proxies().len(), 2, "it found nobody better");
    sleep(Duration::from_secs(1)).await;
    mesh.hub.send_elsewhere(since, STAY);
    let end = mesh.streams.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(end.kind, RpcErrorKind::Elsewhere, "it is to look again");
}

#[tokio::test(start_paused = true)]
async fn of_too_many_some_are_sent_to_others_the_latest_first_and_nobody_at_once() {
    let mut mesh = Mesh::new();
    let _bound = mesh.sidecar_that(false, None, "bound", &all_of_cart());
    let _first = mesh.sidecar_that(true, None, "first", &all_of_cart());
    sleep(Duration::from_secs(3)).await;
    let _second = mesh.sidecar_that(true, None, "second", &all_of_cart());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(mesh.hub.send_some(5, STAY), 1, "the second has just come");
    let end = mesh.streams.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(end.kind == RpcErrorKind::Elsewhere && end.message.contains("more sidecars"), "{end}");
    sleep(STAY).await;
    assert_eq!((mesh.hub.send_some(5, STAY), mesh.hub.count()), (1, 2), "who knows nobody else stays");
}
