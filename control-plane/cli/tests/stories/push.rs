//! Many sidecars before one control plane, in small. What is asserted are counts; times are the matter of `benches/push`.

use std::process::Command;

use serde_json::Value;

use crate::support::{Mesh, binary, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_reaches_all_in_few_bytes_and_who_does_not_read_is_dropped_and_delays_nobody() {
    let mesh = Mesh::start_with(&["--lease", "1h"]);
    let (admin, push) = (mesh.admin.to_string(), mesh.push.to_string());
    let mut load = Command::new(binary("push-load"));
    load.args(["--admin", &admin, "--push", &push, "--pid", &mesh.control_pid().to_string()]);
    load.args("--sidecars 50 --services 20 --endpoints 5 --uses 5 --changes 4".split(' '));
    load.args("--churn 100 --churn-seconds 4 --stalled 3".split(' '));
    let out = tokio::task::spawn_blocking(move || load.output()).await.unwrap().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();

    let changes = &told["changes"];
    let endpoint = changes["endpoint"]["bytesPerSidecar"].as_f64().unwrap();
    assert!((50.0..300.0).contains(&endpoint), "{changes:#}");
    for change in ["endpoint", "route", "policy", "service"] {
        let messages = changes[change]["messagesPerSidecar"].as_f64().unwrap();
        assert!((1.0..1.5).contains(&messages), "{change}: {changes:#}");
    }
    let churn = &told["churn"];
    assert_eq!((&churn["failed"], &churn["behind"]), (&0.into(), &0.into()), "{churn:#}");
    assert!(churn["made"].as_u64().unwrap() >= 300, "{churn:#}");
    // One message holds what has come meanwhile.
    assert!(churn["messagesPerSidecarAndSecond"].as_f64().unwrap() < 30.0, "{churn:#}");
    let stalled = &told["stalled"];
    assert!(stalled["droppedAfterSeconds"].is_number() && stalled["othersMissed"] == 0, "{stalled:#}");
    let metrics = told["told"].to_string();
    assert!(metrics.contains("convergence"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_sidecars_are_gone_at_once_their_instances_stay_until_an_operator_says_so() {
    let mesh = Mesh::start_with(&["--lease", "2s"]);
    let none = mesh.cli(&["proxy", "confirm-loss"]);
    assert!(!none.status.success() && text(&none).contains("no leases are held back"), "{}", text(&none));
    let (admin, push) = (mesh.admin.to_string(), mesh.push.to_string());
    let mut load = Command::new(binary("push-load"));
    load.args(["--admin", &admin, "--push", &push, "--pid", &mesh.control_pid().to_string()]);
    load.args("--sidecars 12 --services 3 --endpoints 1 --uses 2 --changes 1".split(' '));
    let out = tokio::task::spawn_blocking(move || load.output()).await.unwrap().unwrap();
    assert!(out.status.success(), "{}", text(&out));

    // Nobody renews any more, and all leases end together.
    // One that ends a little before the others is no sudden loss, and goes.
    let all = |told: &Value| {
        let leases = &told["leases"];
        leases["heldBack"].as_u64() >= Some(10) && leases["heldBack"] == leases["of"]
    };
    let held = mesh.until("they are held back", "/readyz", all).await;
    assert_eq!(held["status"], "degraded", "{held:#}");
    let held = &held["leases"]["heldBack"];
    let registered = || {
        let listed = mesh.cli(&["get", "instances", "-n", "bench"]);
        text(&listed).lines().filter(|line| line.contains(" r-")).count()
    };
    assert_eq!(Value::from(registered()), *held, "callers go on with what they know");
    let said = mesh.cli(&["proxy", "confirm-loss"]);
    assert!(text(&said).contains(&format!("{held} of {held} instances")), "{}", text(&said));
    outrigger_testkit::eventually("they are taken away", || async { registered() == 0 }).await;
}
