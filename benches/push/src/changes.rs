//! One change at a time: how long until every sidecar has acknowledged it, and what it costs.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use outrigger_mesh::ResourceName;
use outrigger_wire::rpc::Registration;
use serde_json::{Map, Value as Json, json};

use crate::Settings;
use crate::admin::Admin;
use crate::figures::{self, Process};
use crate::mesh::{self, Mesh};
use crate::sidecar::Fleet;

/// The kinds of changes.
#[derive(Clone, Copy, Debug)]
enum Change {
    Route,
    Policy,
    Service,
    Endpoint,
}

/// Makes changes of each kind to what everybody uses.
pub(crate) async fn measure(
    settings: &Settings,
    mesh: &Mesh,
    admin: &Admin,
    fleet: &Fleet,
    process: &Process,
) -> anyhow::Result<Json> {
    let mut told = Map::new();
    for change in [Change::Endpoint, Change::Route, Change::Policy, Change::Service] {
        let (mut whole, mut each) = (vec![], vec![]);
        // The first puts the object there, and is not counted.
        make(change, 0, mesh, admin, fleet).await?;
        fleet.settle(PAUSE).await;
        let before = (process.cpu()?, fleet.bytes(), fleet.messages());
        for edition in 1..=settings.changes {
            let begun = Instant::now();
            make(change, edition, mesh, admin, fleet).await?;
            let all = acknowledged(change, edition, fleet).await?;
            let since = |at: &Instant| at.saturating_duration_since(begun);
            whole.extend(all.iter().map(since).max());
            each.extend(all.iter().map(since));
            fleet.settle(PAUSE).await;
        }
        let of_each = |all: u64| all as f64 / settings.changes as f64;
        let bytes = of_each(fleet.bytes() - before.1);
        told.insert(
            format!("{change:?}").to_lowercase(),
            json!({
                "acknowledgedByAll": figures::spread(whole),
                "acknowledgedByOne": figures::spread(each),
                "bytes": bytes,
                "bytesPerSidecar": bytes / fleet.len() as f64,
                "messagesPerSidecar": of_each(fleet.messages() - before.2) / fleet.len() as f64,
                "cpuMs": (process.cpu()? - before.0) * 1e3 / settings.changes as f64,
            }),
        );
    }
    Ok(told.into())
}

/// No two editions are alike: whoever has not yet heard of one would have nothing to hear of the next.
fn weight_of(edition: usize) -> u16 {
    1_000 + u16::try_from(edition).unwrap_or_default()
}

async fn make(
    change: Change,
    edition: usize,
    mesh: &Mesh,
    admin: &Admin,
    fleet: &Fleet,
) -> anyhow::Result<()> {
    match change {
        Change::Route => admin.apply(&[mesh::route(edition)]).await,
        Change::Policy => admin.apply(&[mesh::policy(edition)]).await,
        Change::Service => admin.apply(&[Mesh::service(0, Some(edition))]).await,
        Change::Endpoint => {
            let endpoint = mesh.registered(0, weight_of(edition));
            fleet.sidecars[0].client.register(Registration { endpoint }).await?;
            Ok(())
        }
    }
}

/// Waits until everybody has; tells when each of them had.
async fn acknowledged(change: Change, edition: usize, fleet: &Fleet) -> anyhow::Result<Vec<Instant>> {
    let name = ResourceName::Service(mesh::name_of(0));
    let (mut seen, mut all) = (HashSet::new(), vec![]);
    let mut heard = fleet.heard.lock().await;
    while all.len() < fleet.len() {
        let Ok(Some(one)) = tokio::time::timeout(LONGEST, heard.recv()).await else {
            bail!("{change:?}: {} of {} sidecars have acknowledged", all.len(), fleet.len());
        };
        let meant = match change {
            Change::Endpoint => one.weights.contains(&(0, weight_of(edition))),
            Change::Route | Change::Policy | Change::Service => one.what.contains(&name),
        };
        if meant && seen.insert(one.sidecar) {
            all.push(one.at);
        }
    }
    Ok(all)
}

/// Between two changes: so long that each stands alone.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
