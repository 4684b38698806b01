//! Several control planes on one etcd serve one mesh.

use std::time::Duration;

use outrigger_testkit::{Etcd, Origin, eventually};
use serde_json::Value;

use crate::support::{Load, Mesh, service, split, text};

fn names(told: &Value) -> Vec<String> {
    let mut names: Vec<String> = told["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Whether a sidecar of this account is connected to it.
async fn has(mesh: &Mesh, account: &str) -> bool {
    let told = mesh.admin("/v1/proxies").await;
    let of_account = |proxy: &Value| proxy["identity"].as_str().unwrap().ends_with(&format!("/sa/{account}"));
    told["items"].as_array().unwrap().iter().any(of_account)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_killed_and_its_sidecars_go_to_another_with_their_instances() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let url = etcd.url("mesh");
    let settings = ["--store", url.as_str(), "--lease", "2s"];
    let mut replicas = [Mesh::start_with(&settings), Mesh::start_with(&settings)];
    replicas[0].services(&["cart", "web"]);
    replicas[1].until("the other knows the services", "/v1/services/shop", |t| names(t).len() == 2).await;

    // Tokens of one are good at the other: they have one root, and every token once.
    let origin = Origin::named("cart-v1").await;
    let all = [&replicas[0], &replicas[1]];
    let cart = replicas[0].sidecar("cart", "v1", origin.addr()).token(replicas[1].token("cart"));
    let cart = cart.control(&all).start();
    let web = replicas[0].caller("web").token(replicas[0].token("web")).control(&all).start();
    replicas[0].reachable(&web, "cart").await;
    let instances = names(
        &replicas[0].until("both know the instance", "/v1/instances/shop", |t| names(t).len() == 1).await,
    );

    // The one that the caller hangs on goes, without a word.
    let load = Load::start(web.outbound, "cart", 4);
    load.goes_on(50).await;
    let at = usize::from(!has(&replicas[0], "web").await);
    assert!(has(&replicas[at], "web").await);
    replicas[at].kill_control();
    let left = &replicas[1 - at];
    eventually("the caller is at the other", || has(left, "web")).await;
    eventually("and so is the instance", || has(left, "cart")).await;
    let out = left.try_apply(&split("cart", 100, 0), &["--wait"]);
    assert!(out.status.success(), "{}", text(&out));
    // Longer than the session of the dead replica and the lease after it.
    for _ in 0..32 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(names(&left.admin("/v1/instances/shop").await), instances, "not lost");
    }
    left.until("it leads", "/readyz", |t| t["store"]["leads"] == true && t["store"]["replicas"] == 1).await;
    let (good, bad) = load.end().await;
    assert!(good > 50 && bad.is_empty(), "{good} answered, failed: {bad:?}");

    // What ends while one replica is away does not come back with it.
    cart.kill();
    left.until("its lease has ended", "/v1/instances/shop", |t| names(t).is_empty()).await;
    replicas[at].start_control();
    let back = &replicas[at];
    back.until("it has what was written", "/v1/services/shop", |t| names(t).len() == 2).await;
    assert!(names(&back.admin("/v1/instances/shop").await).is_empty(), "not resurrected");
    back.apply(&service("prices"));
    replicas[1 - at].until("both write", "/v1/services/shop", |t| names(t).len() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_one_replica_waits_for_the_sidecars_of_all() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let url = etcd.url("mesh");
    let replicas = [Mesh::start_with(&["--store", &url]), Mesh::start_with(&["--store", &url])];
    replicas[0].services(&["cart", "web"]);
    let _cart = replicas[0].instance("cart", "v1").await;
    let web = replicas[1].caller("web").token(replicas[0].token("web")).start();
    replicas[1].reachable(&web, "cart").await;
    for (at, v1) in [(0, 30), (1, 70), (0, 100)] {
        let out = replicas[at].try_apply(&split("cart", v1, 100 - v1), &["--wait"]);
        assert!(text(&out).contains("live on 2 of 2 proxies"), "{}", text(&out));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_everything_goes_on_but_writing_which_says_why() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let mesh = Mesh::start_with(&["--store", &etcd.url("mesh")]);
    mesh.services(&["cart", "web"]);
    let _cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let load = Load::start(web.outbound, "cart", 2);
    etcd.kill(0);
    mesh.until("it says so", "/readyz", |t| t["status"] == "degraded" && t["store"]["answers"] == false)
        .await;
    let out = mesh.try_apply(&service("prices"), &[]);
    assert!(!out.status.success() && text(&out).contains("does not answer"), "{}", text(&out));
    assert_eq!(names(&mesh.admin("/v1/services/shop").await), ["cart", "web"]);
    assert_eq!(names(&mesh.admin("/v1/instances/shop").await).len(), 1);
    load.goes_on(200).await;
    etcd.run(0);
    mesh.until("it answers again", "/readyz", |t| t["status"] == "ok").await;
    mesh.apply(&service("prices"));
    let (good, bad) = load.end().await;
    assert!(good > 200 && bad.is_empty(), "{good} answered, failed: {bad:?}");
}
