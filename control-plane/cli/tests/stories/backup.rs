//! A control plane is lost with its data, and comes back from a backup.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use outrigger_testkit::Etcd;

use crate::support::{Load, Mesh, service, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_lost_its_disk_comes_back_from_a_backup_and_nobody_has_to_join_again() {
    let mut mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    mesh.apply(&service("prices"));
    let _cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    let before = mesh.admin("/v1/services").await;
    let load = Load::start(web.outbound, "cart", 2);

    let file = mesh.path("mesh.backup");
    let name = file.to_str().unwrap().to_owned();
    let out = mesh.cli(&["backup", &name, "--with-keys"]);
    assert!(out.status.success() && text(&out).contains("3 objects"), "{}", text(&out));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = mesh.cli(&["backup", &name]);
    assert!(!again.status.success() && text(&again).contains("--force"), "{}", text(&again));
    let audit = mesh.admin("/v1/audit").await;
    assert!(audit.to_string().contains("the mesh, with its keys"), "{audit}");

    mesh.kill_control();
    let data = mesh.path("control");
    let folder = data.to_str().unwrap().to_owned();
    let refused = mesh.cli(&["restore", &name, "--data", &folder]);
    assert!(
        text(&refused).contains("not empty") && text(&refused).contains("--replace"),
        "{}",
        text(&refused)
    );
    fs::remove_dir_all(&data).unwrap();

    let mut damaged = fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let bad = mesh.path("damaged.backup");
    fs::write(&bad, damaged).unwrap();
    let refused = mesh.cli(&["restore", bad.to_str().unwrap(), "--data", &folder]);
    let told = text(&refused);
    assert!(told.contains("line ") && told.contains("nothing was restored") && !data.exists(), "{told}");

    let out = mesh.cli(&["restore", &name, "--data", &folder]);
    assert!(out.status.success(), "{}", text(&out));
    mesh.start_control();
    let after = mesh.admin("/v1/services").await;
    assert_eq!(after["items"], before["items"], "the same objects at the same versions");
    // Sidecars believe it as before, and the instance registers again.
    mesh.until("it is there again", "/v1/instances/shop", |t| t["items"].as_array().unwrap().len() == 1)
        .await;
    mesh.apply(&service("orders"));
    mesh.reachable(&web, "cart").await;
    let (good, bad) = load.end().await;
    // Who connects before the instance has registered again is told that there is none.
    let is_early = |failed: &String| failed.contains("no_endpoint");
    assert!(good > 50 && bad.iter().all(is_early), "{good} answered, failed: {bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_goes_from_a_file_to_a_shared_store_by_a_backup() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    let name = mesh.path("mesh.backup").to_str().unwrap().to_owned();
    assert!(mesh.cli(&["backup", &name, "--with-keys"]).status.success());
    let url = etcd.url("mesh");
    let out = mesh.cli(&["restore", &name, "--store", &url]);
    assert!(out.status.success(), "{}", text(&out));
    let shared = Mesh::start_with(&["--store", &url]);
    let (there, here) = (shared.admin("/v1/services").await, mesh.admin("/v1/services").await);
    assert_eq!(there["items"], here["items"]);
    assert_eq!(there["revision"], here["revision"]);
    shared.apply(&service("prices"));
}
