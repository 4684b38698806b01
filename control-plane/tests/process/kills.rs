//! Kills at arbitrary moments while writers write: what was acknowledged is there, and of a change that writes two objects
//! either both are there or neither.
//!
//! `OUTRIGGER_SOAK=1` kills 500 times.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use outrigger_testkit::Etcd;
use serde_json::{Value as Json, json};

use crate::common::{Process, data_folder, request, service};

/// What was acknowledged, by object.
type Acknowledged = BTreeMap<String, u64>;

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged_and_leaves_nothing_half() {
    kill_the_control_plane(kills(20), &[]);
}

#[test]
fn nor_does_one_on_a_shared_store() {
    let Some(etcd) = block_on(Etcd::start(1)) else { return };
    kill_the_control_plane(kills(20), &["--store", &etcd.url("mesh")]);
}

fn kill_the_control_plane(kills: u64, settings: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let data = data_folder(&folder);
    let writers = Writers::default();
    for kill in 0..kills {
        let process = Process::start_with(&data, settings);
        check(process.admin, &writers.acknowledged(), kill);
        let (admin, killed) = (process.admin, AtomicBool::new(false));
        thread::scope(|scope| {
            writers.write(scope, admin, &killed);
            thread::sleep(Duration::from_micros(pseudo_random(kill) % 60_000));
            process.kill();
            killed.store(true, Ordering::SeqCst);
        });
    }
    check(Process::start_with(&data, settings).admin, &writers.acknowledged(), kills);
    assert!(writers.acknowledged().len() >= 4, "something was acknowledged between the kills");
}

#[test]
fn nor_does_a_kill_of_the_shared_store_itself() {
    let Some(mut etcd) = block_on(Etcd::start(1)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_with(&data_folder(&folder), &["--store", &etcd.url("mesh")]);
    let (writers, ended) = (Writers::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        writers.write(scope, process.admin, &ended);
        for kill in 0..kills(6) {
            thread::sleep(Duration::from_micros(pseudo_random(kill) % 400_000));
            etcd.kill(0);
            etcd.run(0);
            assert!(block_on(etcd.answers(Duration::from_secs(30))), "kill {kill}: etcd does not come back");
            check(process.admin, &writers.acknowledged(), kill);
        }
        ended.store(true, Ordering::SeqCst);
    });
    // Whoever begins now sees what etcd has, and no more.
    let acknowledged = writers.acknowledged();
    process.kill();
    let again = Process::start_with(&data_folder(&folder), &["--store", &etcd.url("mesh")]);
    check(again.admin, &acknowledged, kills(6));
    assert!(acknowledged.len() >= 4, "something was acknowledged between the kills");
}

/// Each writes pairs of its own, each with the number of its change.
#[derive(Default)]
struct Writers {
    acknowledged: Mutex<Acknowledged>,
    counts: [Mutex<u64>; 3],
}

impl Writers {
    /// Writes until it is the end.
    fn write<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        admin: SocketAddr,
        end: &'scope AtomicBool,
    ) {
        for (writer, count) in self.counts.iter().enumerate() {
            scope.spawn(move || {
                let mut count = count.lock().unwrap();
                while !end.load(Ordering::SeqCst) {
                    *count += 1;
                    let names = ["left", "right"].map(|side| format!("{side}-{writer}-{}", *count % 4));
                    let described = |n: &String| service(n, json!({ "description": count.to_string() }));
                    let items: Vec<Json> = names.iter().map(described).collect();
                    let body = json!({ "items": items }).to_string();
                    if request(admin, "POST", "/v1/apply", &[], &body).is_ok_and(|a| a.status == 200) {
                        self.acknowledged.lock().unwrap().extend(names.map(|n| (n, *count)));
                    }
                }
            });
        }
    }

    fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.lock().unwrap().clone()
    }
}

fn check(admin: SocketAddr, acknowledged: &Acknowledged, kill: u64) {
    let list = request(admin, "GET", "/v1/services", &[], "").unwrap();
    let present: Acknowledged = list.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| {
            let name = o["metadata"]["name"].as_str().unwrap().to_owned();
            (name, o["spec"]["description"].as_str().unwrap().parse().unwrap())
        })
        .collect();
    for (name, number) in acknowledged {
        // A later change may be there without having been acknowledged.
        let found = present.get(name);
        assert!(
            found.is_some_and(|f| f >= number),
            "kill {kill}: {name} is {found:?}, {number} was acknowledged"
        );
    }
    for (name, number) in &present {
        if let Some(pair) = name.strip_prefix("left-") {
            assert_eq!(present.get(&format!("right-{pair}")), Some(number), "kill {kill}: half of a change");
        }
    }
}

fn kills(reduced: u64) -> u64 {
    if std::env::var_os("OUTRIGGER_SOAK").is_some() { 500 } else { reduced }
}

/// Spread over the range, and the same in every run.
fn pseudo_random(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
