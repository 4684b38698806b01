//! What is counted of pushes.

use std::time::Duration;

use super::{Mesh, all_of_cart, endpoint};

/// The value of a metric.
fn value(mesh: &Mesh, name: &str) -> u64 {
    let text = mesh.hub.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not among\n{text}")).parse().unwrap()
}

const CONVERGED: &str = "outrigger_control_push_convergence_seconds";

#[tokio::test(start_paused = true)]
async fn a_change_has_converged_when_the_last_whom_it_concerns_has_answered() {
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    assert_eq!(value(&mesh, &format!("{CONVERGED}_count")), 0, "it concerns nobody");
    let mut quick = mesh.sidecar("quick", &all_of_cart());
    let mut slow = mesh.sidecar("slow", &all_of_cart());
    for sidecar in [&mut quick, &mut slow] {
        sidecar.say().await;
        sidecar.listen().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    mesh.publish(2, endpoint("i-1", 2));
    quick.listen().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(value(&mesh, &format!("{CONVERGED}_count")), 0, "one has not answered");
    slow.listen().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(value(&mesh, &format!("{CONVERGED}_count")), 1);
    assert_eq!(value(&mesh, &format!("{CONVERGED}_bucket{{le=\"1\"}}")), 0);
    assert_eq!(value(&mesh, &format!("{CONVERGED}_bucket{{le=\"2.5\"}}")), 1);

    // One that goes is not waited for any longer.
    mesh.publish(3, endpoint("i-1", 3));
    quick.listen().await;
    drop(slow);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(value(&mesh, &format!("{CONVERGED}_count")), 2);
}

#[tokio::test(start_paused = true)]
async fn messages_refusals_and_who_was_dropped_are_counted_by_kind() {
    let mut mesh = Mesh::new();
    mesh.publish(1, endpoint("i-1", 1));
    let mut web = mesh.sidecar("web", &all_of_cart());
    web.refuse = true;
    web.say().await;
    web.listen().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(value(&mesh, "outrigger_control_push_messages_total{kind=\"Endpoint\"}"), 1);
    assert_eq!(value(&mesh, "outrigger_control_push_rejected_total{kind=\"Endpoint\"}"), 1);
    assert_eq!(value(&mesh, "outrigger_control_push_rejected_total{kind=\"Service\"}"), 0);
    assert_eq!(value(&mesh, "outrigger_control_push_subscriptions"), 1);
    let bytes = value(&mesh, "outrigger_control_push_bytes_total{kind=\"Endpoint\"}");
    assert!((20..300).contains(&bytes), "{bytes}");

    // From here on it takes nothing.
    mesh.publish(2, endpoint("i-1", 2));
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(value(&mesh, "outrigger_control_push_dropped_total{why=\"answers_nothing\"}"), 1);
    assert_eq!(value(&mesh, "outrigger_control_push_dropped_total{why=\"reads_nothing\"}"), 0);
    assert_eq!(mesh.hub.proxies().len(), 0);
}
