//! A disk that is full, and files that are not what was written.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_testkit::real;
use serde_json::{Value as Json, json};

use crate::common::{Answer, Process, command, data_folder, request, service};
use crate::fails;

/// A disk of a few megabytes that the control plane alone sees.
const DISK: &str = "size=6m,mode=700";
const OBJECTS: usize = 30;

#[test]
fn with_a_full_disk_it_says_so_and_everything_is_read_and_when_there_is_room_it_goes_on() {
    if !rustix::process::geteuid().is_root() {
        let _: Option<()> = real::needed(Err("a small disk wants root".into()));
        return;
    }
    if real::debian(&["util-linux", "mount"]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (process, disk) = on_a_small_disk(&folder);
    let mut told = 0;
    for n in 1..=3 {
        assert_eq!(write(&process, n).status, 200);
        told = n;
    }
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut refused = None;
    for n in 4..400 {
        let answer = write(&process, n);
        if answer.status == 200 {
            told = n;
            continue;
        }
        assert_eq!(answer.status, 507, "{}", answer.body);
        let detail = answer.body["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("store.redb") && detail.contains("no room"), "{detail}");
        refused = Some(n);
        break;
    }
    let refused = refused.expect("the disk is full some time");
    for _ in 0..3 {
        assert_eq!(write(&process, refused).status, 507);
        holds(&process, told);
        assert_eq!(request(process.admin, "GET", "/healthz", &[], "").unwrap().status, 200);
    }
    drop(file);
    fs::remove_file(&filler).unwrap();
    assert_eq!(write(&process, refused).status, 200, "there is room again");
    holds(&process, refused);
    let history = request(process.admin, "GET", "/v1/revisions?limit=1", &[], "").unwrap();
    let latest = history.body["items"][0]["revision"].as_u64().unwrap();
    assert_eq!(Some(latest), history.body["revision"].as_u64(), "history is whole");
}

fn on_a_small_disk(folder: &tempfile::TempDir) -> (Process, PathBuf) {
    let (disk, ready) = (folder.path().join("disk"), folder.path().join("ready"));
    fs::create_dir(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o {DISK} none {disk} && exec {control} --data {disk}/data --push 127.0.0.1:0 --admin \
         127.0.0.1:0 --ready-file {ready}",
        disk = disk.display(),
        control = env!("CARGO_BIN_EXE_outrigger-control"),
        ready = ready.display(),
    );
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let inside = PathBuf::from(format!("/proc/{}/root", child.id())).join(disk.strip_prefix("/").unwrap());
    let any = ([127, 0, 0, 1], 0).into();
    let mut process = Process { child, admin: any, push: any };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready.exists() {
        assert!(process.child.try_wait().unwrap().is_none(), "it ended before it served");
        assert!(Instant::now() < deadline, "it does not serve");
        std::thread::sleep(Duration::from_millis(5));
    }
    let json: Json = serde_json::from_str(&fs::read_to_string(&ready).unwrap()).unwrap();
    process.admin = json["admin"].as_str().unwrap().parse().unwrap();
    (process, inside)
}

/// Many objects with the number `n`, in one change.
fn write(process: &Process, n: u64) -> Answer {
    let described =
        |at| service(&format!("s{at}"), json!({ "description": format!("{n} {}", "x".repeat(1000)) }));
    let items: Vec<Json> = (0..OBJECTS).map(described).collect();
    request(process.admin, "POST", "/v1/apply", &[], &json!({ "items": items }).to_string()).unwrap()
}

/// All of them have this number.
fn holds(process: &Process, n: u64) {
    let list = request(process.admin, "GET", "/v1/services", &[], "").unwrap();
    assert_eq!(list.status, 200, "{}", list.body);
    let items = list.body["items"].as_array().unwrap();
    let numbers: Vec<_> = items
        .iter()
        .map(|item| item["spec"]["description"].as_str().unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(numbers, vec![n.to_string(); OBJECTS]);
}

/// Whatever is wrong with the file, it is told in one line that names it and says what to do, and it stays as it is.
#[test]
fn a_store_that_is_damaged_is_named_with_what_to_do_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_folder(&folder);
    let process = Process::start(&data);
    for n in 1..=5 {
        assert_eq!(write(&process, n).status, 200);
    }
    process.kill();
    let store = data.join("store.redb");
    let sound = fs::read(&store).unwrap();
    let cut = |at: usize| sound[..at].to_vec();
    let mut no_magic = sound.clone();
    no_magic[0] ^= 0xff;
    for (how, bytes) in [
        ("cut to nothing", cut(0)),
        ("cut to its head", cut(300)),
        ("cut in half", cut(sound.len() / 2)),
        ("does not begin as one", no_magic),
        ("something else", b"SQLite format 3".to_vec()),
    ] {
        is_named(&data, &store, &bytes, how);
    }
    // Wherever a few bytes are wrong, it serves what was written or says what is wrong.
    for at in (0..sound.len()).step_by(sound.len() / 8).skip(1) {
        let mut flipped = sound.clone();
        flipped[at..(at + 512).min(sound.len())].iter_mut().for_each(|b| *b ^= 0x5a);
        fs::write(&store, &flipped).unwrap();
        let ready = folder.path().join("flipped.ready");
        let mut command = command(&data);
        let mut child = command.arg("--ready-file").arg(&ready).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break Some(ended);
            }
            if ready.exists() {
                break None;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        };
        let _ = child.kill();
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!said.contains("panicked"), "flipped at {at}: {said}");
        if let Some(ended) = ended {
            assert_eq!(ended.code(), Some(3), "flipped at {at}: {said}");
            assert!(
                said.contains("damaged") && said.contains("outrigger restore"),
                "flipped at {at}: {said}"
            );
        }
        let _ = fs::remove_file(&ready);
    }
}

fn is_named(data: &Path, store: &Path, bytes: &[u8], how: &str) {
    fs::write(store, bytes).unwrap();
    let (code, said) = fails(command(data));
    assert_eq!(code, Some(3), "{how}: {said}");
    assert_eq!(said.lines().count(), 1, "{how}: {said}");
    for word in [store.to_str().unwrap(), "damaged", "outrigger restore"] {
        assert!(said.contains(word), "{how}: {word:?} is not in: {said}");
    }
    // But for the marks of redb at its head that it was opened.
    let (left, head) = (fs::read(store).unwrap(), bytes.len().min(4096));
    assert!(left.len() == bytes.len() && left[head..] == bytes[head..], "{how}: it was changed");
}
