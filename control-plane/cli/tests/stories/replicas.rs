//! Several control planes on one etcd serve one mesh.

use std::time::Duration;

use outrigger_testkit::{Etcd, Island, Origin, eventually};
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
    let settings = ["--store", url.as_str(), "--lease", "8s"];
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
    for _ in 0..44 {
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
async fn a_replica_that_has_too_many_sidecars_sends_some_to_one_that_is_back() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let url = etcd.url("mesh");
    let mut replicas = [Mesh::start_with(&["--store", &url]), Mesh::start_with(&["--store", &url])];
    replicas[0].services(&["cart"]);
    replicas[1].kill_control();
    let origin = Origin::named("cart-v1").await;
    let all = [&replicas[0], &replicas[1]];
    let cart = replicas[0].sidecar("cart", "v1", origin.addr()).token(replicas[0].token("cart"));
    let _cart = cart.control(&all).start();
    let callers: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|account| replicas[0].caller(account).token(replicas[0].token(account)).control(&all).start())
        .into();
    for caller in &callers {
        replicas[0].reachable(caller, "cart").await;
    }
    let load = Load::start(callers[0].outbound, "cart", 2);
    replicas[1].start_control();
    let count = |told: &Value| told["items"].as_array().unwrap().len();
    replicas[1].until("some have come", "/v1/proxies", |told| count(told) > 0).await;
    replicas[0].until("they are there no more", "/v1/proxies", |told| count(told) < 6).await;
    assert_eq!(names(&replicas[1].admin("/v1/instances/shop").await).len(), 1);
    load.goes_on(100).await;
    let (good, bad) = load.end().await;
    assert!(good > 100 && bad.is_empty(), "{good} answered, failed: {bad:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_cut_off_from_the_store_and_its_sidecars_go_to_another_before_they_are_given_up() {
    let Some(island) = Island::new() else { return };
    let Some(etcd) = Etcd::start_also_at(1, island.outside.into()).await else { return };
    let (url, ports) = (etcd.url("mesh"), [etcd.addresses()[0].port()]);
    let settings = ["--store", url.as_str(), "--lease", "10s"];
    let mut here = Mesh::start_with(&settings);
    here.services(&["cart", "web"]);
    let tokens = [here.token("cart"), here.token("web")];
    island.borrows(&ports);
    let there = Mesh::start_on(island, &settings);

    // While the other is away for a moment, all sidecars come to the one on the island.
    here.kill_control();
    let [cart, web] = tokens;
    let origin = Origin::named("cart-v1").await;
    let cart = there.sidecar("cart", "v1", origin.addr()).token(cart).control(&[&here, &there]).start();
    let web = there.caller("web").token(web).control(&[&here, &there]).start();
    there.reachable(&web, "cart").await;
    here.start_control();
    let known = here.until("it knows both", "/readyz", |t| t["store"]["replicas"] == 2);
    let _ = known.await;
    let instances = names(&here.admin("/v1/instances/shop").await);
    assert_eq!(instances.len(), 1);
    assert!(!has(&here, "web").await && !has(&here, "cart").await);

    let load = Load::start(web.outbound, "cart", 4);
    load.goes_on(50).await;
    there.island().cut_off(&ports);
    // Until the others have given it up, and a lease after that; then it comes back.
    for round in 0..74 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(names(&here.admin("/v1/instances/shop").await), instances, "after {round} half seconds");
        if round == 54 {
            assert!(has(&here, "web").await && has(&here, "cart").await, "they have come here");
            there.island().mend();
        }
    }
    here.until("both are there again", "/readyz", |t| t["store"]["replicas"] == 2).await;
    let (good, bad) = load.end().await;
    assert!(good > 50 && bad.is_empty(), "{good} answered, failed: {bad:?}");
    drop(cart);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_replica_reaches_the_store_nobody_is_taken_away_then_or_when_it_is_back() {
    let Some(mut etcd) = Etcd::start(1).await else { return };
    let url = etcd.url("mesh");
    let settings = ["--store", url.as_str(), "--lease", "8s"];
    let replicas = [Mesh::start_with(&settings), Mesh::start_with(&settings)];
    replicas[0].services(&["cart", "web"]);
    let all = [&replicas[0], &replicas[1]];
    let origin = Origin::named("cart-v1").await;
    let cart = replicas[0].sidecar("cart", "v1", origin.addr()).token(replicas[0].token("cart"));
    let cart = cart.control(&all).start();
    let web = replicas[0].caller("web").token(replicas[0].token("web")).control(&all).start();
    replicas[0].reachable(&web, "cart").await;
    let mut instances = vec![];
    for replica in &replicas {
        let known = replica.until("it is known", "/v1/instances/shop", |t| names(t).len() == 1).await;
        instances = names(&known);
    }
    let load = Load::start(web.outbound, "cart", 4);
    etcd.kill(0);
    for round in 0..76 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for replica in &replicas {
            assert_eq!(names(&replica.admin("/v1/instances/shop").await), instances, "half second {round}");
        }
        if round == 46 {
            etcd.run(0);
        }
    }
    replicas[0].until("it answers again", "/readyz", |t| t["status"] == "ok").await;
    let (good, bad) = load.end().await;
    assert!(good > 50 && bad.is_empty(), "{good} answered, failed: {bad:?}");
    // Leases run again.
    cart.kill();
    replicas[1].until("its lease has ended", "/v1/instances/shop", |t| names(t).is_empty()).await;
}
