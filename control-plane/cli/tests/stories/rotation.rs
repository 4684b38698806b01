//! The change of the root and of the intermediate, while a mesh is at work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::company::nothing_was_cut;
use crate::support::{Load, Mesh, Sidecar, text};

/// A whole change of the root takes some lives of a certificate.
const PATIENCE: Duration = Duration::from_secs(90);

async fn until(mesh: &Mesh, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let told = mesh.admin("/v1/certs/rotation").await;
        if holds(&told) {
            return told;
        }
        assert!(Instant::now() < end, "{what}: {told:#}\n{}", mesh.control_log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_at(step: &'static str) -> impl Fn(&Value) -> bool {
    move |told| told["step"] == json!(step)
}

fn certs(mesh: &Mesh, args: &[&str]) -> (i32, String) {
    let out = mesh.cli(&[&["certs"], args].concat());
    (out.status.code().unwrap(), text(&out))
}

fn done(mesh: &Mesh, args: &[&str]) -> String {
    let (code, said) = certs(mesh, args);
    assert_eq!(code, 0, "{args:?}: {said}");
    said
}

/// Root, intermediate, mass renewal and an outage of the control plane in the middle of it: no request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_is_changed_under_load_without_a_failed_request() {
    let rounds = if std::env::var_os("OUTRIGGER_SOAK").is_some() { 5 } else { 1 };
    let mut mesh = Mesh::start_with(&["--leaf-lifetime-for-tests", "10s"]);
    mesh.services(&["cart", "prices", "web"]);
    let cart = mesh.instance("cart", "v1").await;
    let prices = mesh.instance("prices", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    mesh.reachable(&web, "prices").await;
    let loads = [Load::start(web.outbound, "cart", 3), Load::start(web.outbound, "prices", 3)];
    let late = mesh.caller("late").token(mesh.token("late"));

    for round in 0..rounds {
        let before = until(&mesh, "no change is under way", is_at("none")).await;
        done(&mesh, &["rotate-root"]);
        let (code, said) = certs(&mesh, &["rotate-root"]);
        assert!(code != 0 && said.contains("under way"), "one at a time: {said}");
        until(&mesh, "the new root signs", |told| told["step"] != json!("distribute")).await;
        // Shorter by far than what is left of a certificate when it is to be renewed.
        mesh.kill_control();
        tokio::time::sleep(Duration::from_millis(500)).await;
        mesh.start_control();
        let after = until(&mesh, "it ends", is_at("none")).await;
        assert_eq!(after["last"]["outcome"], json!("completed"), "round {round}: {after:#}");
        assert_ne!(before["authority"]["root"], after["authority"]["root"]);
        assert_eq!(after["authority"]["believedRoots"], json!(1));
        let root = &after["authority"]["root"]["sha256"];
        let of_the_new = |leaves: &Value| {
            let items = leaves["items"].as_array().unwrap();
            items.len() >= 3 && items.iter().all(|leaf| leaf["root"] == *root)
        };
        mesh.until("all valid certificates are of the new root", "/v1/certs", of_the_new).await;
    }
    if rounds == 1 {
        // The token is older than the root.
        drop(late.start());
    }
    let before = mesh.admin("/v1/certs/rotation").await;
    done(&mesh, &["rotate-intermediate"]);
    let after = mesh.admin("/v1/certs/rotation").await;
    assert_eq!(before["authority"]["root"], after["authority"]["root"]);
    assert_ne!(before["authority"]["intermediate"], after["authority"]["intermediate"]);
    // Every sidecar renews within its certificate's life.
    tokio::time::sleep(Duration::from_secs(7)).await;
    for load in &loads {
        load.goes_on(100).await;
    }
    for (load, to) in loads.into_iter().zip(["cart", "prices"]) {
        let (good, bad) = load.end().await;
        eprintln!("web -> {to}: {good} answered, {} failed", bad.len());
        assert!(good > 1_000 && bad.is_empty(), "{to}: {good} answered, failed: {bad:?}");
    }
    nothing_was_cut(&[&cart.sidecar, &prices.sidecar, &web]);
    // Started again with the token of its first start, which names a root that is gone.
    let again = cart.sidecar.kill().start();
    mesh.reachable(&web, "cart").await;
    drop(again);
    let metrics = metrics(&mesh).await;
    assert!(metrics.contains("outrigger_control_ca_expiry_seconds{certificate=\"root\"}"), "{metrics}");
}

async fn metrics(mesh: &Mesh) -> String {
    let mut client = outrigger_testkit::Client::h1(mesh.admin).await;
    client.get(&mesh.admin.to_string(), "/metrics").await.unwrap().text()
}

async fn the_silent_one_is_named(mesh: &Mesh) {
    let held = until(mesh, "it waits for one", |told| told["missingCount"] == json!(1)).await;
    assert_eq!(held["step"], json!("distribute"));
    let missing = &held["missing"][0];
    assert!(missing["identity"].as_str().unwrap().ends_with("/sa/silent"), "{held:#}");
    assert_eq!(missing["connected"], json!(false), "{held:#}");
}

/// A proxy that is away holds the gate: it is named, the gate pauses, forcing it names it again and needs a yes. Back
/// from its disk it acknowledges, and the change goes on; turned back before anybody renewed, it ends as it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_silent_proxy_holds_the_gate_and_an_abort_ends_as_it_began() {
    let mut mesh = Mesh::start();
    mesh.services(&["cart"]);
    let _cart = mesh.instance("cart", "v1").await;
    let silent: Sidecar = mesh.caller("silent").token(mesh.token("silent")).start();
    let plan = silent.kill();
    let before = mesh.admin("/v1/certs/rotation").await;
    done(&mesh, &["rotate-root", "--timeout", "2s"]);
    the_silent_one_is_named(&mesh).await;
    let paused = until(&mesh, "the gate takes too long", |told| told["paused"] == json!(true)).await;
    assert_eq!(paused["step"], json!("distribute"));
    assert!(mesh.control_log().contains("sa/silent"), "the log names it: {}", mesh.control_log());
    let (code, said) = certs(&mesh, &["rotate-root", "--force"]);
    assert!(code == 3 && said.contains("sa/silent") && said.contains("--yes"), "{code} {said}");

    mesh.kill_control();
    mesh.start_control();
    let kept = mesh.admin("/v1/certs/rotation").await;
    assert_eq!((&kept["step"], &kept["paused"]), (&json!("distribute"), &json!(true)), "{kept:#}");
    assert_eq!(kept["to"], paused["to"], "it is the same change after a restart");

    let _back = plan.start();
    until(&mesh, "nobody is missing", |told| told["missingCount"] == json!(0)).await;
    assert_eq!(mesh.admin("/v1/certs/rotation").await["step"], json!("distribute"), "paused is paused");
    done(&mesh, &["rotation", "resume", "--timeout", "1h"]);
    until(&mesh, "it goes on", is_at("sign")).await;
    done(&mesh, &["rotation", "abort"]);
    let after = until(&mesh, "it ends", is_at("none")).await;
    assert_eq!(after["last"]["outcome"], json!("aborted"));
    assert_eq!(after["authority"]["root"], before["authority"]["root"]);
    assert_eq!(after["authority"]["believedRoots"], json!(1));
    let audit = mesh.admin("/v1/audit").await.to_string();
    for action in ["rotate-root", "pause", "resume", "abort"] {
        assert!(audit.contains(&format!("\"action\":\"{action}\"")), "{action}: {audit}");
    }
}

/// A certificate as files serves a foreign peer, and the key is made where it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_issued_as_files_and_is_in_the_account() {
    use std::os::unix::fs::PermissionsExt;
    let mesh = Mesh::start();
    let folder = mesh.path("envoy");
    let args = ["issue", "--files", folder.to_str().unwrap(), "--service-account", "shop/envoy"];
    done(&mesh, &args);
    let mode = std::fs::metadata(folder.join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let verified = std::process::Command::new("openssl")
        .args(["verify", "-CAfile", &file("roots.pem"), "-untrusted", &file("cert.pem"), &file("cert.pem")])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", text(&verified));
    let listed = done(&mesh, &["list"]);
    assert!(listed.contains("sa/envoy") && listed.contains("files"), "{listed}");
    let (code, said) =
        certs(&mesh, &["issue", "--files", &file("x"), "--service-account", "outrigger/control-plane"]);
    assert!(code != 0 && said.contains("control plane"), "{said}");
}
