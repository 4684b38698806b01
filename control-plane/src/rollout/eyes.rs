//! What can be seen of a rollout at this moment: facts for the machine, and the status for people.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{EndpointState, ServiceName, Version};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::figures::Counted;
use super::gates::{Figures, Judged, Verdict, judge};
use super::machine::{Acknowledgements, Facts};
use super::plan::Plan;
use super::progress::Progress;
use crate::state::State;
use crate::world::{Entry, World};

/// The sidecars, as rollouts see them.
pub trait Sidecars: Send + Sync + 'static {
    /// From now on it is noted who obeys these services, and no others.
    fn ask_for(&self, services: BTreeSet<ServiceName>);

    /// Who obeys the present version of a service.
    fn acknowledged(&self, service: &ServiceName) -> Acknowledgements;
}

/// Everything that is looked at.
pub(super) struct Eyes {
    pub(super) state: Arc<State>,
    pub(super) sidecars: Arc<dyn Sidecars>,
    pub(super) counted: Arc<Counted>,
    clock: Clock,
}

/// The time of day by a clock that is never set: it goes on evenly from what it was at the start.
#[derive(Clone, Copy, Debug)]
struct Clock {
    began: OffsetDateTime,
    at: Instant,
}

/// Sidecars that were cut off by a restart of the control plane are back after so long.
const SETTLE: Duration = Duration::from_secs(20);

impl Eyes {
    pub(super) fn new(
        state: Arc<State>,
        sidecars: Arc<dyn Sidecars>,
        counted: Arc<Counted>,
        began: OffsetDateTime,
    ) -> Self {
        let clock = Clock { began, at: Instant::now() };
        Self { state, sidecars, counted, clock }
    }

    /// This moment.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.began + self.clock.at.elapsed()
    }

    /// What the machine goes by.
    pub(super) fn facts(&self, world: &World, plan: &Plan, progress: &Progress) -> Facts {
        let now = self.now();
        let mut acknowledged = self.sidecars.acknowledged(&plan.service);
        acknowledged.settled &= self.is_settled(progress, acknowledged.holders, now);
        let ready = ready(world, &plan.service, &plan.candidate);
        // What was before the step began says nothing of it.
        let of_step = Duration::try_from(now - progress.judged_from).unwrap_or_default();
        let unwell = self.counted.unwell_for(&plan.service, &plan.candidate).map(|for_| for_.min(of_step));
        Facts { now, ready, unwell, acknowledged, judged: self.judged(plan, progress, now) }
    }

    /// After a start sidecars come back one by one: those that are there are not all.
    fn is_settled(&self, progress: &Progress, holders: usize, now: OffsetDateTime) -> bool {
        let is_of_this_start = progress.past.first().is_some_and(|first| first.at >= self.clock.began);
        let are_back = progress.holders > 0 && holders >= progress.holders;
        is_of_this_start || are_back || now - self.clock.began >= SETTLE
    }

    fn judged(&self, plan: &Plan, progress: &Progress, now: OffsetDateTime) -> Judged {
        let Some(step) = progress.step.and_then(|step| plan.steps.get(step)) else {
            let nothing = Figures::default();
            return Judged { verdict: Verdict::Pass, gates: vec![], candidate: nothing, stable: nothing };
        };
        let of_step = Duration::try_from(now - progress.judged_from).unwrap_or_default();
        let window = step.gates.window.min(of_step);
        let of = |version| self.counted.of(&plan.service, version, window);
        judge(&step.gates, progress.share, &of(&plan.candidate), &of(&plan.stable))
    }

    /// Has everything counted and noted that these rollouts go by.
    pub(super) fn follow<'a>(&self, plans: impl Iterator<Item = &'a Plan>) {
        let mut wanted = HashMap::new();
        for plan in plans {
            let versions = [plan.stable.clone(), plan.candidate.clone()];
            wanted.insert(plan.service.clone(), (versions, plan.windows()));
        }
        self.counted.only(&wanted);
        self.sidecars.ask_for(wanted.into_keys().collect());
    }

    /// As the admin API tells it.
    pub(super) fn status(&self, entry: &Entry<Plan>) -> Json {
        let (world, plan) = (self.state.world(), &entry.checked);
        let Some(progress) = world.progress_of(entry) else {
            return json!({ "phase": "Pending", "weight": 0, "steps": plan.steps.len() });
        };
        let facts = self.facts(&world, plan, progress);
        let version = |version: &Version, figures: &Figures| {
            let mut told = json!(figures);
            told["version"] = version.as_str().into();
            told["endpoints"] = ready(&world, &plan.service, version).into();
            told
        };
        let missing = facts.acknowledged.missing.iter().take(MOST_TOLD);
        let missing: Vec<Json> = missing.map(|(node, why)| json!({ "proxy": node, "why": why })).collect();
        let mut told = json!({
            "phase": progress.word(),
            "why": progress.why,
            "weight": f64::from(progress.share) / 100.0,
            "step": progress.step.map(|step| step + 1),
            "steps": plan.steps.len(),
            "since": moment(progress.since),
            "candidate": version(&plan.candidate, &facts.judged.candidate),
            "stable": version(&plan.stable, &facts.judged.stable),
            "gates": facts.judged.gates,
            "acknowledged": {
                "proxies": facts.acknowledged.holders,
                "missing": missing,
                "missingCount": facts.acknowledged.missing.len(),
            },
            "waitsFor": waits_for(plan, progress, &facts),
            "weights": plan.steps.iter().map(|s| f64::from(s.share) / 100.0).collect::<Vec<_>>(),
            "past": progress.past.iter().map(|past| json!({
                "at": moment(past.at),
                "phase": past.phase,
                "weight": f64::from(past.share) / 100.0,
                "why": past.why,
            })).collect::<Vec<_>>(),
        });
        if let Some(step) = progress.step.and_then(|step| plan.steps.get(step)) {
            told["holdSeconds"] = step.hold.as_secs_f64().into();
            let held = (facts.now - progress.since).as_seconds_f64().max(0.0);
            told["heldSeconds"] = ((held * 10.0).round() / 10.0).into();
        }
        told
    }
}

const MOST_TOLD: usize = 50;

/// What keeps it where it is, in words.
fn waits_for(plan: &Plan, progress: &Progress, facts: &Facts) -> Option<String> {
    use super::progress::Phase;
    let acknowledgements = || {
        let missing = facts.acknowledged.missing.len();
        let holders = facts.acknowledged.holders;
        if facts.acknowledged.settled {
            format!("{missing} of {holders} sidecars to acknowledge it")
        } else {
            "sidecars to come back".to_owned()
        }
    };
    let told = match progress.phase {
        Phase::Pending => "a look at it".into(),
        Phase::Waiting | Phase::Holding if facts.ready == 0 => {
            format!("a ready endpoint of {}", plan.candidate)
        }
        Phase::Waiting | Phase::Holding if facts.unwell.is_some() => {
            format!("an endpoint of {} that its callers find well", plan.candidate)
        }
        Phase::Waiting | Phase::Stepping | Phase::Back { .. } => acknowledgements(),
        Phase::Paused { .. } => "somebody to resume, promote or abort it".into(),
        Phase::Holding => {
            let step = progress.step.and_then(|step| plan.steps.get(step))?;
            let held = facts.now - progress.since;
            if held < step.hold {
                let left = step.hold.saturating_sub(Duration::try_from(held).unwrap_or_default());
                format!("{} s more at this weight", left.as_secs_f64().ceil())
            } else if facts.acknowledged.are_complete() {
                match &facts.judged.verdict {
                    Verdict::NotYet(why) => format!("more requests: there are {why}"),
                    Verdict::Pass | Verdict::Fail(_) => "a look at it".into(),
                }
            } else {
                acknowledgements()
            }
        }
        Phase::RolledBack | Phase::Aborted | Phase::Done => return None,
    };
    Some(told)
}

/// Endpoints of a version that take requests.
pub(super) fn ready(world: &World, service: &ServiceName, version: &Version) -> usize {
    let takes = |e: &outrigger_mesh::Endpoint| {
        e.version.as_ref() == Some(version) && e.state == EndpointState::Ready && e.weight.get() > 0
    };
    world.instances(service).filter(|i| takes(&i.checked.endpoint)).count()
}

/// Whether any endpoint is of a version, whatever state it is in.
pub(super) fn exists(world: &World, service: &ServiceName, version: &Version) -> bool {
    world.instances(service).any(|i| i.checked.endpoint.version.as_ref() == Some(version))
}

fn moment(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}
