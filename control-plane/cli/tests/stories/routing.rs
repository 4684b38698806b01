//! What is written reaches every sidecar, or says why not.

use crate::support::{Mesh, split, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weight_change_reaches_all_sidecars_and_is_acknowledged_by_revision() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web", "cart"]);
    let _v1 = mesh.instance("prices", "v1").await;
    let _v2 = mesh.instance("prices", "v2").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    let cart = mesh.caller("cart").token(mesh.token("cart")).start();
    for caller in [&web, &cart] {
        mesh.reachable(caller, "prices").await;
    }
    for (v1, v2) in [(100, 0), (0, 100), (50, 50)] {
        mesh.apply(&split("prices", v1, v2));
        let revision = mesh.admin("/v1/revisions").await["items"][0]["revision"].as_u64().unwrap();
        let proxies = mesh.admin("/v1/proxies").await;
        for proxy in proxies["items"].as_array().unwrap() {
            assert!(proxy["ackedRevision"].as_u64().unwrap() >= revision, "{proxy:#}");
        }
        for caller in [&web, &cart] {
            let mut client = outrigger_testkit::Client::h1(caller.outbound).await;
            let mut second = 0_u32;
            for _ in 0..400 {
                let reply = client.get("prices", "/").await.unwrap();
                assert_eq!(reply.status, 200, "{}", reply.text());
                second += u32::from(reply.text().contains("prices-v2"));
            }
            let share = f64::from(v2) / 100.0;
            let sigma = (400.0 * share * (1.0 - share)).sqrt();
            let off = (f64::from(second) - 400.0 * share).abs();
            assert!(off <= 6.0 * sigma, "{second} of 400 went to v2 at {v1}:{v2}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_resource_keeps_the_last_good_one_and_shows_its_reason() {
    let mesh = Mesh::start();
    mesh.services(&["prices", "web"]);
    let _v1 = mesh.instance("prices", "v1").await;
    let v2 = mesh.instance("prices", "v2").await;
    // A sidecar of before there were splits.
    let old = mesh.caller("web").token(mesh.token("web")).args(&["--lack-feature", "split"]).start();
    mesh.reachable(&old, "prices").await;
    mesh.apply(
        &split("prices", 100, 0)
            .replace("    - {group: outrigger.dev, kind: ServiceVersion, name: prices.v2, weight: 0}\n", ""),
    );
    let arrived = v2.origin.requests();

    let out = mesh.try_apply(&split("prices", 0, 100), &["--wait", "--timeout", "3"]);
    assert!(!out.status.success(), "one proxy rejected it: {}", text(&out));
    assert!(text(&out).contains("split"), "{}", text(&out));

    let status = mesh.cli(&["proxy", "status"]);
    assert!(text(&status).contains("split"), "the reason is in the status:\n{}", text(&status));
    for _ in 0..50 {
        assert_eq!(old.get("prices", "/").await.status, 200);
    }
    assert_eq!(v2.origin.requests(), arrived, "the last good route, all to v1, is still in force");

    // A resource it can obey clears it again.
    let out = mesh.cli(&["delete", "httproute", "prices", "-n", "shop"]);
    assert!(out.status.success(), "{}", text(&out));
    mesh.until("nothing is rejected any more", "/v1/proxies", |told| {
        told["items"].as_array().unwrap().iter().all(|p| p["rejected"].as_array().is_none_or(Vec::is_empty))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_service_is_told_from_one_without_instances() {
    let mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    let web = mesh.caller("web").token(mesh.token("web")).start();
    let nowhere = web.get("nowhere", "/").await;
    assert_eq!(
        (nowhere.status.as_u16(), nowhere.header("x-outrigger-reason")),
        (404, Some("unknown_service"))
    );
    assert_eq!(nowhere.header("x-outrigger-hop"), Some("client"));
    let empty = web.get("cart", "/").await;
    assert_eq!((empty.status.as_u16(), empty.header("x-outrigger-reason")), (503, Some("no_endpoint")));

    // Once it is there, the name is found without a restart.
    mesh.services(&["nowhere"]);
    let _there = mesh.instance("nowhere", "v1").await;
    mesh.reachable(&web, "nowhere").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_three_mistakes_is_refused_with_all_three() {
    let mesh = Mesh::start();
    let yaml = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshService\nmetadata: {name: Cart, namespace: shop, lables: {}}\n\
                spec:\n  ports: [{port: 70000, protocol: http}]\n";
    let out = mesh.try_apply(yaml, &[]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    let said = text(&out);
    for (line, word) in [(3, "Cart"), (3, "lables"), (5, "70000")] {
        let found = said.lines().any(|l| l.contains(&format!("apply.yaml:{line}:")) && l.contains(word));
        assert!(found, "line {line} is told with {word}:\n{said}");
    }
    assert!(said.contains("labels"), "a hint says what was meant:\n{said}");
    assert_eq!(mesh.admin("/v1/services").await["items"].as_array().unwrap().len(), 0);
}
