//! Starting, ending, dying: of the control plane, of sidecars, of instances.

use crate::support::{Load, Mesh};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_is_killed_and_restarted_under_load_without_a_failed_request() {
    let mut mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    let _one = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;

    let load = Load::start(web.outbound, "cart", 4);
    load.goes_on(100).await;
    mesh.kill_control();
    load.goes_on(500).await;
    mesh.start_control();
    mesh.until("both sidecars are back", "/v1/proxies", |told| told["items"].as_array().unwrap().len() >= 2)
        .await;
    // What is written after the restart arrives.
    let _two = mesh.instance("cart", "v1").await;
    let (good, bad) = load.end().await;
    assert!(good > 500 && bad.is_empty(), "{good} answered, failed: {bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_restarted_while_the_control_plane_is_away_serves_from_its_disk() {
    let mut mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    let cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    web.has_kept(&mesh).await;
    mesh.kill_control();

    let web = web.kill();
    let web = web.start();
    let reply = web.get("cart", "/").await;
    assert_eq!(reply.status, 200, "{} {}", reply.text(), web.log());
    // A service it never used can not be looked up now.
    let other = web.get("prices", "/").await;
    assert_eq!(other.header("x-outrigger-reason"), Some("discovery_unavailable"), "{}", other.text());
    drop(cart);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_added_drained_and_another_killed_under_load() {
    let mesh = Mesh::start_with(&["--lease", "6s"]);
    mesh.services(&["cart", "web"]);
    let first = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let load = Load::start(web.outbound, "cart", 8);

    // Added: it takes its share.
    let second = mesh.instance("cart", "v1").await;
    outrigger_testkit::eventually("the new instance takes requests", || async {
        second.origin.requests() > 20
    })
    .await;

    // Drained: nothing fails, and it is gone from the list when it ends.
    first.sidecar.terminate();
    let told = mesh.admin("/v1/instances/shop").await;
    assert_eq!(told["items"].as_array().unwrap().len(), 1, "{told:#}");
    let (good, bad) = load.end().await;
    assert!(good > 100 && bad.is_empty(), "{good} answered, failed: {bad:?}");

    // Killed: at most what was in flight is lost, and its lease ends.
    let third = mesh.instance("cart", "v1").await;
    outrigger_testkit::eventually("the third takes requests", || async {
        web.get("cart", "/").await;
        third.origin.requests() > 0
    })
    .await;
    let connections = 8;
    let load = Load::start(web.outbound, "cart", connections);
    load.goes_on(100).await;
    third.sidecar.kill();
    load.goes_on(300).await;
    let (good, bad) = load.end().await;
    assert!(good > 100 && bad.len() <= connections, "{good} answered, failed: {bad:?}");
    mesh.until("its lease has ended", "/v1/instances/shop", |told| {
        told["items"].as_array().unwrap().len() == 1
    })
    .await;
    drop(second);
}
