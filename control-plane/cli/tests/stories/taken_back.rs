//! A bad change, from the first look at it to the log that tells of it.

use std::fs;

use crate::support::{Mesh, split, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_change_is_foreseen_applied_seen_rejected_and_taken_back_and_the_log_tells_it() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web", "cart"]);
    let _v1 = mesh.instance("prices", "v1").await;
    let v2 = mesh.instance("prices", "v2").await;
    // A sidecar of before there were splits, and one that knows nothing of prices.
    let old = mesh.caller("web").token(mesh.token("web")).args(&["--lack-feature", "split"]).start();
    let _apart = mesh.caller("cart").token(mesh.token("cart")).start();
    mesh.reachable(&old, "prices").await;
    let (web, cart) = (mesh.node_of("web").await, mesh.node_of("cart").await);
    let good = mesh.admin("/v1/revisions").await["items"][0]["revision"].as_u64().unwrap();

    // Looked at first: who would be reached, and nothing is written.
    let bad = mesh.path("bad.yaml");
    fs::write(&bad, split("prices", 0, 100)).unwrap();
    let foreseen = text(&mesh.cli(&["diff", "-f", bad.to_str().unwrap()]));
    assert!(foreseen.contains("httproutes/shop/prices") && foreseen.contains(&web), "{foreseen}");
    assert!(!foreseen.contains(&cart), "{foreseen}");
    assert_eq!(mesh.admin("/v1/revisions").await["items"][0]["revision"], good);

    // Done all the same: one proxy rejects it, and says why.
    let apply =
        ["apply", "-f", bad.to_str().unwrap(), "--wait", "--timeout", "3", "--why", "a split for the sale"];
    let applied = mesh.cli(&apply);
    assert_eq!(applied.status.code(), Some(5), "{}", text(&applied));
    assert!(text(&applied).contains(&web) && text(&applied).contains("split"), "{}", text(&applied));

    // Meanwhile an instance leaves.
    let instances = mesh.admin("/v1/instances").await;
    let of_v2 = |one: &&serde_json::Value| one["spec"]["version"] == "v2";
    let uid =
        instances["items"].as_array().unwrap().iter().find(of_v2).unwrap()["metadata"]["name"].to_string();
    v2.sidecar.terminate();
    mesh.until("the instance has left", "/v1/instances", |told| !told.to_string().contains(&uid)).await;

    // It is taken back, and everybody obeys.
    let back = ["rollback", &good.to_string(), "--wait", "--why", "web can not split"];
    let back = mesh.cli(&back);
    assert!(back.status.success(), "{}", text(&back));
    let proxies = mesh.admin("/v1/proxies").await;
    let rejects = |one: &serde_json::Value| one["rejected"].as_array().is_some_and(|all| !all.is_empty());
    assert!(!proxies["items"].as_array().unwrap().iter().any(rejects), "{proxies:#}");
    assert!(!mesh.admin("/v1/instances").await.to_string().contains(&uid), "nothing brings it back");
    assert_eq!(old.get("prices", "/").await.status, 200);

    // The log tells the story, the latest first.
    let audit = mesh.admin("/v1/audit").await;
    let told: Vec<(&str, &str)> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["object"].as_str().is_some_and(|object| object.contains("shop/prices")))
        .filter_map(|line| Some((line["action"].as_str()?, line["why"].as_str()?)))
        .collect();
    let back = format!("rollback to revision {good}: web can not split");
    assert_eq!(told, [("delete", back.as_str()), ("create", "a split for the sale")], "{audit:#}");
    let history = text(&mesh.cli(&["history"]));
    assert!(history.contains("a split for the sale") && history.contains("web can not split"), "{history}");
}
