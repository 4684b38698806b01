//! Endpoints that change all the time, each told by its own sidecar: what it costs, and how old what others know is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outrigger_wire::rpc::Registration;
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::Settings;
use crate::figures::{self, Process};
use crate::mesh::Mesh;
use crate::sidecar::Fleet;

type Begun = Arc<Mutex<HashMap<(usize, u16), Instant>>>;

/// Changes endpoints for some seconds.
pub(crate) async fn measure(
    settings: &Settings,
    seconds: u64,
    fleet: &Fleet,
    process: &Process,
) -> anyhow::Result<Json> {
    fleet.settle(Duration::from_millis(500)).await;
    let before = (process.cpu()?, fleet.bytes(), fleet.messages());
    let (begun, start): (Begun, _) = (Arc::default(), Instant::now());
    let (mesh, mut tasks) = (Mesh::new(settings), JoinSet::new());
    let every = Duration::from_secs(1).mul_f64(fleet.len() as f64 / f64::from(settings.churn));
    for (number, sidecar) in fleet.sidecars.iter().enumerate() {
        let (mesh, begun, client) = (mesh.clone(), begun.clone(), sidecar.client.clone());
        let first = start + every.mul_f64(number as f64 / fleet.len() as f64);
        tasks.spawn(async move {
            let (mut took, mut failed, mut at, mut weight, mut last) = (vec![], 0_u64, first, 100, 100);
            while at < start + Duration::from_secs(seconds) {
                tokio::time::sleep_until(at.into()).await;
                at += every;
                weight += 1;
                let from = Instant::now();
                begun.lock().unwrap_or_else(PoisonError::into_inner).insert((number, weight), from);
                let endpoint = mesh.registered(number, weight);
                match client.register(Registration { endpoint }).await {
                    Ok(_) => {
                        took.push(from.elapsed());
                        last = weight;
                    }
                    Err(_) => failed += 1,
                }
            }
            (took, failed, (number, last))
        });
    }
    let (ages, last) = listen(fleet, &begun, start, Duration::from_secs(seconds)).await;
    let (mut calls, mut failed, mut in_force) = (vec![], 0, HashMap::new());
    while let Some(done) = tasks.join_next().await {
        let (took, refused, (number, weight)) = done?;
        calls.extend(took);
        failed += refused;
        in_force.insert(number, weight);
    }
    let (ages_late, last_late) = listen(fleet, &begun, Instant::now(), Duration::ZERO).await;
    let mut known = last;
    known.extend(last_late);
    // Everybody who was told of an instance must have been told its last weight. One whose last registration failed may
    // have been taken all the same.
    let behind = known.iter().filter(|((_, number), weight)| in_force.get(number) > Some(weight)).count();
    let (made, span) = (calls.len(), start.elapsed());
    let bytes = fleet.bytes() - before.1;
    let ages: Vec<_> = ages.into_iter().chain(ages_late).collect();
    Ok(json!({
        "seconds": seconds,
        "made": made,
        "perSecond": made as f64 / seconds as f64,
        "failed": failed,
        "behind": behind,
        "call": figures::spread(calls),
        "age": figures::spread(ages),
        "bytesPerSecond": bytes as f64 / figures::seconds(span),
        "messagesPerSidecarAndSecond":
            (fleet.messages() - before.2) as f64 / fleet.len() as f64 / figures::seconds(span),
        "cores": (process.cpu()? - before.0) / figures::seconds(span),
        "memory": process.memory()?,
    }))
}

/// What was heard until `length` after `start` and a while longer: how old it was, and the last weight that each sidecar was
/// told of each instance.
async fn listen(
    fleet: &Fleet,
    begun: &Begun,
    start: Instant,
    length: Duration,
) -> (Vec<Duration>, HashMap<(usize, usize), u16>) {
    let (mut ages, mut last) = (vec![], HashMap::new());
    let mut heard = fleet.heard.lock().await;
    loop {
        let left = (start + length).saturating_duration_since(Instant::now());
        let Ok(Some(one)) = tokio::time::timeout(left + QUIET, heard.recv()).await else { break };
        let begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, weight) in one.weights {
            last.insert((one.sidecar, number), weight);
            ages.extend(begun.get(&(number, weight)).map(|from| one.at.saturating_duration_since(*from)));
        }
    }
    (ages, last)
}

/// After so long without anything new all have what there is.
const QUIET: Duration = Duration::from_secs(2);
