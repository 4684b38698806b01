//! What comes next: from a plan, how far it has come, and the facts of this moment. Nothing here waits, reads a clock or
//! writes.
//!
//! What holds whatever happens, and is tested so: the share never falls but when it goes back to nothing; no step
//! begins before everybody has acknowledged the one before; what has ended stays so.

use std::time::Duration;

use time::OffsetDateTime;

use super::gates::{Judged, Verdict};
use super::plan::{Plan, WHOLE};
use super::progress::{Phase, Progress, Run};
use crate::spec::rollout::OnFailure;

/// What is known at this moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// It.
    pub now: OffsetDateTime,
    /// Endpoints of the candidate that take requests.
    pub ready: usize,
    /// For how long no sidecar that told anything has found one of them well; `None` while one does, or nobody tells.
    pub unwell: Option<Duration>,
    /// Who obeys the share as it is.
    pub acknowledged: Acknowledgements,
    /// What the gates of the step say.
    pub judged: Judged,
}

/// Who obeys what the service says now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgements {
    /// Whether those are all: after a start sidecars need a moment to come back.
    pub settled: bool,
    /// How many sidecars have asked for the service.
    pub holders: usize,
    /// Those that do not obey it, and why.
    pub missing: Vec<(String, String)>,
}

impl Acknowledgements {
    /// Whether everybody obeys.
    pub fn are_complete(&self) -> bool {
        self.settled && self.missing.is_empty()
    }

    fn told(&self) -> String {
        if !self.settled {
            return "sidecars are coming back".into();
        }
        let first = self.missing.iter().take(5).map(|(node, why)| format!("{node} ({why})"));
        let more = self.missing.len().saturating_sub(5);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!(
            "{} of {} have not: {}{more}",
            self.missing.len(),
            self.holders,
            first.collect::<Vec<_>>().join(", ")
        )
    }
}

/// A change of its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it is then.
    pub next: Progress,
    /// What the audit log calls it.
    pub action: &'static str,
}

/// What somebody can say of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To the next step at once, or to the last.
    Promote {
        /// To the last.
        full: bool,
    },
    /// To stay where it is.
    Pause,
    /// To go on.
    Resume,
    /// To go back.
    Abort,
}

/// Why that can not be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// What comes next by itself, if anything does. To be asked until it answers nothing.
pub fn next(plan: &Plan, progress: &Progress, facts: &Facts) -> Option<Change> {
    let at = Place { plan, progress, facts };
    match progress.phase {
        Phase::Pending => {
            let why = format!("{} takes the place of {}", plan.candidate, plan.stable);
            Some(at.to(Phase::Waiting, why, "rollout-start"))
        }
        Phase::Waiting => at.waiting(),
        Phase::Stepping => at.stepping(),
        Phase::Holding => at.holding(),
        Phase::Paused { failed: false } if plan.on_failure == OnFailure::Rollback => at.failure(),
        Phase::Back { aborted } if facts.acknowledged.are_complete() => {
            let (phase, action) = if aborted {
                (Phase::Aborted, "rollout-aborted")
            } else {
                (Phase::RolledBack, "rollout-rolled-back")
            };
            let why =
                format!("{}; everybody has acknowledged that {} gets nothing", progress.why, plan.candidate);
            Some(at.to(phase, why, action))
        }
        Phase::Paused { .. } | Phase::Back { .. } | Phase::RolledBack | Phase::Aborted | Phase::Done => None,
    }
}

/// What comes of what somebody says. `step`: the step that he saw it at; another one is none of his.
pub fn order(
    plan: &Plan,
    progress: &Progress,
    facts: &Facts,
    verb: Verb,
    step: Option<usize>,
) -> Result<Change, Refused> {
    let at = Place { plan, progress, facts };
    if progress.has_ended() || (progress.is_back() && verb != Verb::Abort) {
        return Err(at.over());
    }
    if step.is_some() && step != progress.step {
        let told = format!("it has gone on meanwhile: it is at {}", at.told_step(progress.step));
        return Err(Refused(told));
    }
    match verb {
        Verb::Abort if matches!(progress.phase, Phase::Back { aborted: true }) => Err(at.over()),
        Verb::Abort => Ok(at.back(true, "it was aborted".into())),
        Verb::Pause if matches!(progress.phase, Phase::Paused { .. }) => {
            Err(Refused(format!("it is paused already: {}", progress.why)))
        }
        Verb::Pause => {
            Ok(at.to(Phase::Paused { failed: false }, "somebody paused it".into(), "rollout-pause"))
        }
        Verb::Resume if matches!(progress.phase, Phase::Paused { .. }) => Ok(at.resumed()),
        Verb::Resume => Err(Refused(format!("it is not paused, it is {}", progress.word()))),
        Verb::Promote { full } => at.promoted(full),
    }
}

/// Makes `progress` one of the rollout as it is written now: what was changed of its steps holds from where it is, and
/// other versions, or any change after it went back, begin anew.
pub fn follow(plan: &Plan, progress: Option<&Progress>, run: &Run, now: OffsetDateTime) -> Option<Change> {
    let anew = |why: String| {
        let mut next = Progress { why, ..Progress::fresh(run.clone(), now) };
        next.note(now);
        Some(Change { next, action: "rollout-create" })
    };
    let Some(before) = progress else { return anew("it was written".into()) };
    if before.of == *run {
        return None;
    }
    if !before.of.is_same(run) || before.is_back() {
        return anew(format!(
            "in place of {} to {}, which was {}",
            before.of.stable,
            before.of.candidate,
            before.word()
        ));
    }
    let mut next = Progress { of: run.clone(), why: "its rollout was changed".into(), ..before.clone() };
    // A share that no step of the new ones gives stays until the next higher one.
    next.step = before.step.and_then(|_| plan.step_of(before.share));
    if next.step.is_none() && matches!(next.phase, Phase::Stepping | Phase::Holding) {
        next.phase = Phase::Waiting;
    }
    next.note(now);
    Some(Change { next, action: "rollout-change" })
}

/// What remains of a rollout that was taken away before it was done: the candidate gets nothing.
pub fn taken_away(progress: &Progress, now: OffsetDateTime) -> Option<Change> {
    if progress.phase == Phase::Done {
        return None;
    }
    let mut next = progress.clone();
    next.share = 0;
    let next = next.moved(Phase::Aborted, "it was taken away before it was done".into(), now);
    Some(Change { next, action: "rollout-aborted" })
}

/// One rollout at one moment.
struct Place<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    facts: &'a Facts,
}

impl Place<'_> {
    fn waiting(&self) -> Option<Change> {
        let (plan, facts) = (self.plan, self.facts);
        let candidate = &plan.candidate;
        if let Some(failed) = self.progress.step.and_then(|_| self.failure()) {
            return Some(failed);
        }
        if facts.ready > 0 && facts.unwell.is_none() && facts.acknowledged.are_complete() {
            let step = self.progress.step.unwrap_or(0);
            return Some(self.step(step, format!("{candidate} has {} ready", endpoints(facts.ready))));
        }
        if facts.ready == 0 && self.lasts(plan.ready_timeout) {
            let why = format!("{candidate} has had no ready endpoint for {:?}", plan.ready_timeout);
            return Some(self.to(Phase::Paused { failed: false }, why, "rollout-pause"));
        }
        if facts.unwell.is_some() && self.lasts(plan.ready_timeout) {
            let why = format!("no endpoint of {candidate} is well, as those find who call it");
            return Some(self.to(Phase::Paused { failed: false }, why, "rollout-pause"));
        }
        if facts.ready > 0 && facts.unwell.is_none() { self.unacknowledged() } else { None }
    }

    fn stepping(&self) -> Option<Change> {
        if let Some(failed) = self.failure().or_else(|| self.lost()) {
            return Some(failed);
        }
        if !self.facts.acknowledged.are_complete() {
            return self.unacknowledged();
        }
        let why = format!("{} acknowledged {}", sidecars(self.facts.acknowledged.holders), self.told_share());
        let mut change = self.to(Phase::Holding, why, "rollout-hold");
        change.next.holders = self.facts.acknowledged.holders;
        Some(change)
    }

    fn holding(&self) -> Option<Change> {
        if let Some(failed) = self.failure().or_else(|| self.lost()) {
            return Some(failed);
        }
        let step = self.progress.step.unwrap_or(0);
        let (hold, waits) = self.plan.steps.get(step).map(|s| (s.hold, s.waits_for_requests))?;
        let passes = match &self.facts.judged.verdict {
            Verdict::Pass => true,
            Verdict::NotYet(_) => !waits,
            Verdict::Fail(_) => false,
        };
        // The acknowledgements once more: a sidecar that asked for the service meanwhile counts too.
        if !passes || !self.lasts(hold) || !self.facts.acknowledged.are_complete() {
            return None;
        }
        let why = format!("{} was held for {hold:?}: {}", self.told_share(), self.facts.judged.told());
        Some(if step + 1 < self.plan.steps.len() { self.step(step + 1, why) } else { self.done(why) })
    }

    /// What becomes of it when a gate fails, or when nobody can use the candidate: then there is nothing to judge, and
    /// will be nothing.
    fn failure(&self) -> Option<Change> {
        let why = match (&self.facts.judged.verdict, self.facts.unwell) {
            (Verdict::Fail(why), _) => why.clone(),
            (_, Some(unwell)) if unwell >= UNWELL && self.progress.step.is_some() => {
                let candidate = &self.plan.candidate;
                format!("no sidecar that calls {candidate} has found an endpoint of it well for {UNWELL:?}")
            }
            _ => return None,
        };
        let why = format!("at {}: {why}; {}", self.told_share(), self.facts.judged.told());
        Some(match self.plan.on_failure {
            OnFailure::Rollback => self.back(false, why),
            OnFailure::Pause => self.to(Phase::Paused { failed: true }, why, "rollout-pause"),
        })
    }

    /// What becomes of it when the candidate has no endpoint any more. Sidecars send everything to stable by themselves.
    fn lost(&self) -> Option<Change> {
        let why = || format!("{} has no ready endpoint any more", self.plan.candidate);
        (self.facts.ready == 0).then(|| self.to(Phase::Waiting, why(), "rollout-wait"))
    }

    fn unacknowledged(&self) -> Option<Change> {
        let why = || format!("{} is not acknowledged: {}", self.told_share(), self.facts.acknowledged.told());
        let late = self.lasts(self.plan.ack_timeout) && !self.facts.acknowledged.are_complete();
        late.then(|| self.to(Phase::Paused { failed: false }, why(), "rollout-pause"))
    }

    fn promoted(&self, full: bool) -> Result<Change, Refused> {
        let facts = self.facts;
        if facts.ready == 0 {
            return Err(Refused(format!("{} has no ready endpoint", self.plan.candidate)));
        }
        if !facts.acknowledged.are_complete() {
            let told = facts.acknowledged.told();
            return Err(Refused(format!("{} is not acknowledged yet: {told}", self.told_share())));
        }
        let last = self.plan.steps.len() - 1;
        let next = self.progress.step.map_or(0, |step| step + 1);
        let why = format!("somebody promoted it from {}: {}", self.told_share(), facts.judged.told());
        let change = match next {
            next if next > last => self.done(why),
            _ if full => self.step(last, why),
            next => self.step(next, why),
        };
        Ok(Change { action: "rollout-promote", ..change })
    }

    fn resumed(&self) -> Change {
        let mut change = self.to(Phase::Waiting, "somebody resumed it".into(), "rollout-resume");
        // What failed before is forgiven; the step is held anew.
        change.next.judged_from = self.facts.now;
        change
    }

    fn step(&self, step: usize, why: String) -> Change {
        let own = self.plan.steps.get(step).map_or(0, |s| s.share);
        let mut from = self.progress.clone();
        (from.step, from.share) = (Some(step), from.share.max(own));
        (from.judged_from, from.holders) = (self.facts.now, self.facts.acknowledged.holders);
        Change { next: from.moved(Phase::Stepping, why, self.facts.now), action: "rollout-step" }
    }

    fn done(&self, why: String) -> Change {
        let mut from = self.progress.clone();
        from.share = WHOLE;
        Change { next: from.moved(Phase::Done, why, self.facts.now), action: "rollout-done" }
    }

    fn back(&self, aborted: bool, why: String) -> Change {
        let mut from = self.progress.clone();
        from.share = 0;
        let action = if aborted { "rollout-abort" } else { "rollout-rollback" };
        Change { next: from.moved(Phase::Back { aborted }, why, self.facts.now), action }
    }

    fn to(&self, phase: Phase, why: String, action: &'static str) -> Change {
        Change { next: self.progress.moved(phase, why, self.facts.now), action }
    }

    /// Whether it has been in its phase for so long. A clock that was set back makes it wait longer, never less.
    fn lasts(&self, time: Duration) -> bool {
        self.facts.now - self.progress.since >= time
    }

    fn over(&self) -> Refused {
        let Plan { stable, candidate, .. } = self.plan;
        let back = format!("; to go back, start one from {candidate} to {stable}");
        let back = if self.progress.phase == Phase::Done { back } else { String::new() };
        Refused(format!("it is {} already{back}", self.progress.word()))
    }

    fn told_share(&self) -> String {
        share(self.progress.share)
    }

    fn told_step(&self, step: Option<usize>) -> String {
        step.map_or_else(
            || "no step yet".into(),
            |step| format!("step {} of {}", step + 1, self.plan.steps.len()),
        )
    }
}

/// So long a breaker may be open before that is a failure. Gates that count requests are quicker where there are any.
const UNWELL: Duration = Duration::from_secs(10);

/// A share, in percent.
fn share(parts: u32) -> String {
    format!("{} %", f64::from(parts) / 100.0)
}

fn endpoints(count: usize) -> String {
    format!("{count} endpoint{}", if count == 1 { "" } else { "s" })
}

fn sidecars(count: usize) -> String {
    format!("{count} sidecar{}", if count == 1 { "" } else { "s" })
}
