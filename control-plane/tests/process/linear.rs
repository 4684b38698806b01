//! Several clients read and write at three replicas on three members of etcd while things fail: what they saw could have come
//! of one register for each object.
//!
//! `OUTRIGGER_SOAK=1` lasts ten minutes.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrigger_testkit::linear::{Call, Did, linearizable};
use outrigger_testkit::{Etcd, Relay};
use serde_json::{Value as Json, json};

use crate::common::{Answer, Process, request, service};

const CLIENTS: usize = 5;
const OBJECTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_of_three_replicas_see_while_things_fail_is_linearizable() {
    let Some(mut etcd) = Etcd::start(3).await else { return };
    let long = std::env::var_os("OUTRIGGER_SOAK").is_some();
    let mut relays = vec![];
    for member in etcd.addresses() {
        relays.push(Relay::to(member).await);
    }
    let through: Vec<_> = relays.iter().map(|relay| relay.addr().to_string()).collect();
    let (direct, cuttable) = (etcd.url("mesh"), format!("etcd://{}/mesh", through.join(",")));
    let urls = [direct.clone(), direct, cuttable];
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let start = |at: usize| Process::start_with(&folders[at].path().join("data"), &["--store", &urls[at]]);
    let mut replicas: Vec<_> = (0..3).map(|at| Some(start(at))).collect();
    let shared = Arc::new(Shared::default());
    let admins = |replicas: &[Option<Process>]| {
        replicas.iter().map(|replica| replica.as_ref().map(|r| r.admin)).collect::<Vec<_>>()
    };
    *shared.replicas.lock().unwrap() = admins(&replicas);

    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let shared = Arc::clone(&shared);
            tokio::task::spawn_blocking(move || drive(client, &shared, began))
        })
        .collect();
    let lasts = Duration::from_secs(if long { 600 } else { 20 });
    let mut round = 0;
    while began.elapsed() < lasts {
        let member = round % 3;
        match round % 4 {
            0 => {
                etcd.kill(member);
                pause(1500).await;
                etcd.run(member);
            }
            1 => {
                replicas[member].take().unwrap().kill();
                *shared.replicas.lock().unwrap() = admins(&replicas);
                pause(300).await;
                replicas[member] = Some(start(member));
                *shared.replicas.lock().unwrap() = admins(&replicas);
            }
            2 => {
                relays.iter().for_each(Relay::cut);
                pause(2500).await;
                relays.iter().for_each(Relay::mend);
            }
            _ => {
                etcd.pause(member);
                pause(2000).await;
                etcd.go_on(member);
            }
        }
        pause(1200).await;
        round += 1;
    }
    shared.end.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let calls = std::mem::take(&mut *shared.calls.lock().unwrap());
    let done = calls.values().flatten().filter(|call| call.ended.is_some()).count();
    assert!(done > 200, "{done} calls are too few to tell anything");
    for (object, calls) in &calls {
        if let Err(why) = linearizable(calls) {
            panic!("s{object}: {why}");
        }
    }
    // The checker looks: one answer of long ago among them is noticed.
    let mut calls = calls.into_values().max_by_key(Vec::len).unwrap();
    let late = calls.iter().map(|call| call.began).max().unwrap();
    calls.push(Call { client: 99, began: late + 1, ended: Some(late + 2), did: Did::Saw(None) });
    assert!(linearizable(&calls).is_err());
}

/// An object's tag and its value, if it is there.
type Stored = Option<(String, u64)>;

#[derive(Default)]
struct Shared {
    replicas: Mutex<Vec<Option<SocketAddr>>>,
    calls: Mutex<HashMap<usize, Vec<Call>>>,
    /// No value is written twice.
    values: AtomicU64,
    end: AtomicBool,
}

/// One client: a call after the other, mostly at one replica, at any object.
fn drive(client: usize, shared: &Shared, began: Instant) {
    let mut random = Random(client as u64 + 1);
    let mut known: HashMap<usize, Stored> = HashMap::new();
    let now = || u64::try_from(began.elapsed().as_nanos()).unwrap();
    while !shared.end.load(Ordering::SeqCst) {
        let at = if random.below(4) == 0 { random.below(3) } else { client % 3 };
        let Some(admin) = shared.replicas.lock().unwrap()[at] else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        // Of others after a while: each open outcome makes the search longer.
        let object =
            random.below(OBJECTS) + OBJECTS * usize::try_from(began.elapsed().as_secs() / 20).unwrap();
        let path = format!("/v1/services/shop/s{object}");
        let from = now();
        let asked = match (random.below(10), known.get(&object)) {
            (0..5, _) | (_, None) => None,
            (5, Some(Some(_))) => Some(("If-Match: *".to_owned(), None)),
            (_, Some(None)) => Some(("If-None-Match: *".to_owned(), Some(None))),
            (_, Some(Some((tag, value)))) => Some((format!("If-Match: {tag}"), Some(Some(*value)))),
        };
        let (answer, did) = match asked {
            None => {
                let answer = request(admin, "GET", &format!("{path}?consistent=true"), &[], "");
                let seen = answer.as_ref().ok().and_then(seen);
                (answer, seen.map(|seen| Did::Saw(seen.map(|(_, value)| value))))
            }
            Some((header, old)) => {
                let new = shared.values.fetch_add(1, Ordering::SeqCst) + 1;
                let body = service(&format!("s{object}"), json!({ "description": new.to_string() }));
                let answer = request(admin, "PUT", &path, &[&header], &body.to_string());
                let did = old.map_or(Did::Wrote(new), |old| Did::Swapped { old, new });
                let did = match (answer.as_ref().map(|a| a.status), old) {
                    (Ok(412), Some(old)) => Did::Refused { old },
                    _ => did,
                };
                (answer, Some(did))
            }
        };
        let known_outcome = match &answer {
            // Nobody was there to be asked.
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => continue,
            Ok(answer) => matches!(answer.status, 200 | 201 | 404 | 412),
            Err(_) => false,
        };
        match did {
            Some(did) if known_outcome || !matches!(did, Did::Saw(_) | Did::Refused { .. }) => {
                let ended = known_outcome.then(now);
                shared.calls.lock().unwrap().entry(object).or_default().push(Call {
                    client,
                    began: from,
                    ended,
                    did,
                });
            }
            _ => {}
        }
        if let Ok(answer) = &answer {
            assert!(
                matches!(answer.status, 200 | 201 | 404 | 412 | 503),
                "{} {}",
                answer.status,
                answer.body
            );
            match (seen(answer), answer.status) {
                (Some(seen), _) => drop(known.insert(object, seen)),
                (None, 412) => drop(known.remove(&object)),
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(random.below(20) as u64));
    }
}

/// What an answer shows of the object: its tag and its value, or that it is not there.
fn seen(answer: &Answer) -> Option<Stored> {
    match answer.status {
        200 | 201 => {
            let object: &Json = &answer.body;
            let value = object["spec"]["description"].as_str()?.parse().ok()?;
            Some(Some((answer.header("etag")?.to_owned(), value)))
        }
        404 => Some(None),
        _ => None,
    }
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}
