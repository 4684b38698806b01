//! Where each rollout is, for Prometheus: two lines for each, so that their number is that of the rollouts.

use std::fmt::Write as _;

use crate::world::World;

/// The metrics as text.
pub(super) fn text(world: &World) -> String {
    let mut phases = "# HELP outrigger_control_rollout_phase The phase that a rollout is in: 1, and none for the others.\n\
                      # TYPE outrigger_control_rollout_phase gauge\n"
        .to_owned();
    let mut weights =
        "# HELP outrigger_control_rollout_weight What the candidate of a rollout gets, in percent.\n\
                       # TYPE outrigger_control_rollout_weight gauge\n"
            .to_owned();
    for entry in world.rollouts.all() {
        let (metadata, plan) = (&entry.object.metadata, &entry.checked);
        let progress = world.progress_of(entry);
        let phase = progress.map_or("Pending", |progress| progress.word());
        let weight = progress.map_or(0.0, |progress| f64::from(progress.share) / 100.0);
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        let labels = format!("namespace=\"{namespace}\",rollout=\"{name}\",service=\"{}\"", plan.service);
        let _ = writeln!(phases, "outrigger_control_rollout_phase{{{labels},phase=\"{phase}\"}} 1");
        let _ = writeln!(weights, "outrigger_control_rollout_weight{{{labels}}} {weight}");
    }
    phases + &weights
}
