//! Where configuration comes from: the control plane, with the disk copy before it, or a file alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::RootHash;
use outrigger_mesh::{Resource, ServiceName, Trust};
use outrigger_wire::Bundle;
use outrigger_wire::rpc::Hello;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::config::dial::Control;
use crate::config::disk::{DiskCopy, DiskError};
use crate::config::link::{InForce, Link};
use crate::config::plan::{Plan, PlanError};
use crate::config::registry::Registry;
use crate::config::status::LinkStatus;
use crate::identity::Obtained;
use outrigger_process::panics;

/// What a link to the control plane needs.
#[derive(Debug)]
pub struct SourceSettings {
    /// How this sidecar introduces itself.
    pub hello: Hello,
    /// Services it always wants.
    pub declared: Vec<ServiceName>,
    /// The Gateway it serves, in gateway mode.
    pub gateway: Option<ServiceName>,
    /// Where the last good configuration is kept.
    pub folder: Option<PathBuf>,
}

/// Reads the disk copy of the workload that `hello` names, before anything is started: a copy that can not be used is
/// an error, and nothing is overwritten.
pub fn load_copy(settings: &SourceSettings) -> Result<Option<Bundle>, DiskError> {
    match &settings.folder {
        Some(folder) => DiskCopy::new(folder, settings.hello.identity.clone()).load(),
        None => Ok(None),
    }
}

/// Puts `copy` in force and starts the link to the control plane in `tasks`. Without the control plane, what the copy
/// has is served.
pub fn start(
    settings: SourceSettings,
    copy: Option<Bundle>,
    obtained: &Obtained,
    control: Control,
    registry: &Arc<Registry>,
    tasks: &mut JoinSet<()>,
) -> Arc<LinkStatus> {
    let SourceSettings { hello, declared, gateway, folder } = settings;
    let owner = hello.identity.clone();
    let mut link = Link::new(control, hello, Arc::clone(&obtained.identity), Arc::clone(registry), &declared);
    if let Some(gateway) = gateway {
        link.follow_gateway(gateway);
    }
    let status = link.status();
    if let Some(copy) = copy.filter(|copy| is_of_same_mesh(copy, &obtained.trust)) {
        tracing::info!(
            revision = copy.revision,
            resources = copy.resources.len(),
            "serving from the disk copy"
        );
        for refused in link.seed(copy) {
            tracing::warn!(name = refused.name, reason = refused.reason, "passed over in the disk copy");
        }
    }
    if let Some(folder) = folder {
        tasks.spawn(panics::part("disk-copy", keep_copy(DiskCopy::new(&folder, owner), link.in_force())));
    }
    tasks.spawn(panics::part("link", link.run()));
    status
}

/// Puts the plan in `file` in force; there is nothing more to come.
pub fn start_plan(file: &Path, obtained: &Obtained, registry: &Registry) -> Result<(), PlanError> {
    let plan = Plan::read(file)?;
    let revision = plan.revision();
    let trusted = |trust: &Trust| obtained.identity.trust().update(trust).map_err(|e| e.to_string());
    plan.apply(obtained.identity.id(), registry, trusted)?;
    tracing::info!(revision, file = %file.display(), "serving from the plan");
    Ok(())
}

/// Whether a copy believes one of the roots that we were just given. A mesh that was made anew keeps none of its roots.
fn is_of_same_mesh(copy: &Bundle, trust: &Trust) -> bool {
    let roots: Vec<_> = trust.roots.iter().map(|root| RootHash::of(root)).collect();
    let known = copy.resources.iter().filter_map(|resource| match resource {
        Resource::Trust(kept) if kept.trust_domain == trust.trust_domain => Some(&kept.roots),
        _ => None,
    });
    let same = known.flatten().any(|root| roots.contains(&RootHash::of(root)));
    if !same {
        tracing::warn!("the disk copy is of another mesh and is not used");
    }
    same
}

/// Stores what is in force soon after it changed, and not too often.
async fn keep_copy(copy: DiskCopy, mut in_force: watch::Receiver<InForce>) {
    let mut not_before = Instant::now();
    while in_force.changed().await.is_ok() {
        sleep_until((Instant::now() + SOON).max(not_before)).await;
        let now = Arc::clone(&in_force.borrow_and_update());
        let copy = copy.clone();
        let stored = tokio::task::spawn_blocking(move || copy.store(now.0, &now.1)).await;
        if let Ok(Err(error)) = stored {
            tracing::error!(%error, "the configuration can not be stored; a restart would begin without it");
        }
        not_before = Instant::now() + AT_MOST_EVERY;
    }
}

const SOON: Duration = Duration::from_millis(100);
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
