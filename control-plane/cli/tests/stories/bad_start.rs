//! Bad starts: one clear line, a non-zero exit, nothing overwritten.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::support::{Mesh, text};

pub(crate) fn control(mesh_folder: &std::path::Path, args: &[&str]) -> Output {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_outrigger")).with_file_name("outrigger-control");
    Command::new("timeout")
        .arg("10")
        .arg(program)
        .args(["--push", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(mesh_folder)
        .args(args)
        .output()
        .unwrap()
}

/// One line that says what is wrong, with these words in it, and an exit code other than 0.
pub(crate) fn assert_one_clear_line(out: &Output, words: &[&str]) {
    assert!(!out.status.success() && out.status.code() != Some(124), "it must give up: {}", text(out));
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.lines().last().unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "{word:?} is missing in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_outrigger")).with_file_name("outrigger-control");
    let out = Command::new("timeout")
        .arg("10")
        .arg(program)
        .args(["--push", "127.0.0.1:0", "--admin", &address, "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_one_clear_line(&out, &[&address, "in use"]);
}

#[test]
fn an_admin_api_beyond_loopback_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_outrigger")).with_file_name("outrigger-control");
    let out = Command::new("timeout")
        .arg("10")
        .arg(program)
        .args(["--push", "127.0.0.1:0", "--admin", "0.0.0.0:0", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_one_clear_line(&out, &["loopback"]);
}

#[test]
fn an_unwritable_folder_is_one_clear_line() {
    // A file where the folder should be: unwritable for root too.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let out = control(&file.join("data"), &[]);
    assert_one_clear_line(&out, &["data"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_store_is_named_and_not_overwritten() {
    let mut mesh = Mesh::start();
    mesh.services(&["cart"]);
    mesh.kill_control();
    let folder = mesh.path("control");
    let store = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "redb"))
        .expect("the store's file");
    let mut bytes = fs::read(&store).unwrap();
    for byte in bytes.iter_mut().take(4096) {
        *byte ^= 0x5a;
    }
    fs::write(&store, &bytes).unwrap();
    let out = control(&folder, &[]);
    assert_one_clear_line(&out, &[store.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(fs::read(&store).unwrap(), bytes, "nothing is overwritten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_snapshot_is_named_and_not_overwritten() {
    let mesh = Mesh::start();
    mesh.services(&["cart", "web"]);
    let _cart = mesh.instance("cart", "v1").await;
    let web = mesh.caller("web").token(mesh.token("web")).start();
    mesh.reachable(&web, "cart").await;
    web.has_kept(&mesh).await;
    let plan = web.kill();
    let data = plan.folder().join("data");
    let snapshot = fs::read_dir(&data)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.to_str().unwrap().contains("snapshot"))
        .unwrap_or_else(|| panic!("a snapshot in {}", data.display()));
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, &bytes).unwrap();
    let (code, said) = plan.refused();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(snapshot.file_name().unwrap().to_str().unwrap()), "{said}");
    assert_eq!(fs::read(&snapshot).unwrap(), bytes, "nothing is overwritten");
}
