//! Sidecars that stop to read: the others must not notice, and those are dropped.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use outrigger_mesh::ResourceName;
use serde_json::{Value as Json, json};

use crate::Settings;
use crate::admin::Admin;
use crate::figures;
use crate::mesh::{self, Mesh};
use crate::sidecar::Fleet;

/// Stalls some, and changes a route that everybody uses until they are dropped.
pub(crate) async fn measure(
    settings: &Settings,
    _: &Mesh,
    admin: &Admin,
    fleet: &Fleet,
) -> anyhow::Result<Json> {
    // As long as it takes until changes are no more gathered for a second, as in a churn: what is measured is the stalled.
    fleet.settle(Duration::from_secs(5)).await;
    let (stalled, reading) = fleet.sidecars.split_at(settings.stalled);
    for sidecar in stalled {
        sidecar.tap.closed.store(true, Relaxed);
    }
    let (start, name) = (Instant::now(), ResourceName::Service(mesh::name_of(0)));
    let (mut whole, mut dropped, mut missed) = (vec![], None, 0_u32);
    for edition in 1_000.. {
        let begun = Instant::now();
        admin.apply(&[mesh::route(edition)]).await?;
        let (mut seen, mut heard) = (HashSet::new(), fleet.heard.lock().await);
        while seen.len() < reading.len() {
            let Ok(Some(one)) = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await else {
                break;
            };
            if one.sidecar >= settings.stalled && one.what.contains(&name) {
                seen.insert(one.sidecar);
            }
        }
        drop(heard);
        if seen.len() == reading.len() {
            whole.push(begun.elapsed());
        } else {
            missed += 1;
        }
        if admin.connected().await? <= reading.len() {
            dropped = Some(figures::seconds(start.elapsed()));
            break;
        }
        if start.elapsed() > LONGEST {
            break;
        }
        fleet.settle(Duration::from_millis(200)).await;
    }
    Ok(json!({
        "stalled": settings.stalled,
        "droppedAfterSeconds": dropped,
        "othersAcknowledged": figures::spread(whole),
        "othersMissed": missed,
    }))
}

const LONGEST: Duration = Duration::from_secs(60);
