//! How the rollout of a service divides its traffic now.

use outrigger_mesh::{Division, ServiceName, Version};

use super::progress::Progress;
use crate::world::World;

/// The division of a service while it has a rollout, or something of one is left.
///
/// One that was written and not looked at yet gives its candidate nothing: instances of it that come meanwhile are not
/// to have their part of everything. One that is done goes on to divide, and gives it everything.
pub(crate) fn division(world: &World, service: &ServiceName) -> Option<Division> {
    let Some(entry) = world.rollout_of(service) else {
        return left(world.rollouts.progress(service)?);
    };
    let (plan, progress) = (&entry.checked, world.progress_of(entry));
    let is_back = progress.is_some_and(|p| p.is_back());
    Some(Division {
        stable: plan.stable.clone(),
        candidate: plan.candidate.clone(),
        share: progress.map_or(0, |p| p.share),
        // Whoever looks at it first is not to be left with one that failed.
        preview: if is_back { vec![] } else { plan.preview.clone() },
        by: plan.by.clone(),
    })
}

/// What is left of one that was taken away unfinished.
fn left(progress: &Progress) -> Option<Division> {
    Some(Division {
        stable: Version::new(&progress.of.stable).ok()?,
        candidate: Version::new(&progress.of.candidate).ok()?,
        share: progress.share,
        preview: vec![],
        by: None,
    })
}
