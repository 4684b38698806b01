//! How far a rollout has come, as it is kept.

use outrigger_mesh::ServiceName;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::plan::{Plan, WHOLE};
use crate::spec::Key;
use crate::spec::rollout::Strategy;

/// How far a rollout has come. It is kept in the store, and what a restart goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Of which rollout.
    pub of: Run,
    /// Where it is.
    pub phase: Phase,
    /// The step it is at, from 0; `None` before the first.
    pub step: Option<usize>,
    /// What the candidate gets, in parts of 10,000.
    pub share: u32,
    /// Since when it is in this phase.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// What came before says nothing of this step.
    #[serde(with = "time::serde::rfc3339")]
    pub judged_from: OffsetDateTime,
    /// How many sidecars had asked for the service when it was acknowledged last.
    #[serde(default)]
    pub holders: usize,
    /// Why it is here.
    pub why: String,
    /// How it came here, the oldest first, at most [`Progress::MAX_PAST`].
    #[serde(default)]
    pub past: Vec<Past>,
}

/// One run of a rollout: other versions, or the same again after it went back, are another run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The rollout, `rollouts/namespace/name`.
    pub rollout: String,
    /// The revision at which it was created.
    pub created: u64,
    /// The revision of it that was last looked at.
    pub changed: u64,
    /// By steps, or at once.
    pub strategy: Strategy,
    /// The version that has the traffic.
    pub stable: String,
    /// The version that shall have it.
    pub candidate: String,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Nobody has looked at it yet.
    Pending,
    /// Until the candidate has an endpoint, and everybody knows of the rollout.
    Waiting,
    /// Until everybody has acknowledged the share.
    Stepping,
    /// Until the step has been held and its gates pass.
    Holding,
    /// Until somebody says how to go on.
    Paused {
        /// Because a gate failed: then it does not fail once more.
        failed: bool,
    },
    /// Until everybody has acknowledged that the candidate gets nothing.
    Back {
        /// Because somebody said so.
        aborted: bool,
    },
    /// The candidate failed and gets nothing.
    RolledBack,
    /// Somebody ended it, and the candidate gets nothing.
    Aborted,
    /// The candidate has everything.
    Done,
}

/// A moment of its past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Where it came to, in one word.
    pub phase: String,
    /// What the candidate got from then on.
    pub share: u32,
    /// Why.
    pub why: String,
}

impl Progress {
    /// How many moments of the past are kept.
    pub const MAX_PAST: usize = 48;

    /// Of a rollout that nobody has looked at.
    pub fn fresh(of: Run, now: OffsetDateTime) -> Self {
        let why = "nobody has looked at it yet".to_owned();
        let (phase, share) = (Phase::Pending, 0);
        Self { of, phase, step: None, share, since: now, judged_from: now, holders: 0, why, past: vec![] }
    }

    /// Whether it goes no further.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::RolledBack | Phase::Aborted | Phase::Done)
    }

    /// Whether the candidate is on its way out or gone: then what asks for it gets it no longer either.
    pub fn is_back(&self) -> bool {
        matches!(self.phase, Phase::Back { .. } | Phase::RolledBack | Phase::Aborted)
    }

    /// Its phase, in the word that people read.
    pub fn word(&self) -> &'static str {
        let switches = self.of.strategy == Strategy::BlueGreen && self.share == WHOLE;
        match self.phase {
            Phase::Pending => "Pending",
            Phase::Waiting => "Waiting",
            Phase::Stepping if switches => "Promoting",
            Phase::Stepping => "Stepping",
            Phase::Holding if switches => "Draining",
            Phase::Holding => "Holding",
            Phase::Paused { .. } => "Paused",
            Phase::Back { .. } => "RollingBack",
            Phase::RolledBack => "RolledBack",
            Phase::Aborted => "Aborted",
            Phase::Done => "Done",
        }
    }

    /// It, come to another place.
    pub(super) fn moved(&self, phase: Phase, why: String, now: OffsetDateTime) -> Self {
        let mut next = Self { phase, why, since: now, ..self.clone() };
        next.note(now);
        next
    }

    /// Writes down where it is now.
    pub(super) fn note(&mut self, at: OffsetDateTime) {
        if self.past.len() >= Self::MAX_PAST {
            self.past.remove(0);
        }
        let (phase, share, why) = (self.word().to_owned(), self.share, self.why.clone());
        self.past.push(Past { at, phase, share, why });
    }
}

impl Run {
    /// The run of a rollout as it is written now.
    pub fn new(key: &Key, created: u64, changed: u64, plan: &Plan) -> Self {
        Self {
            rollout: key.path(),
            created,
            changed,
            strategy: plan.strategy,
            stable: plan.stable.as_str().to_owned(),
            candidate: plan.candidate.as_str().to_owned(),
        }
    }

    /// Whether it is the same run, whatever was changed of its steps and gates.
    pub fn is_same(&self, other: &Self) -> bool {
        Self { changed: 0, ..self.clone() } == Self { changed: 0, ..other.clone() }
    }
}

/// Under which key of its space the progress of a service's rollout is kept: a service has one at most.
pub fn store_key(service: &ServiceName) -> String {
    service.to_string()
}

/// Under which key of the same space the figures that its gates go by are kept. No service is called so.
pub(super) fn figures_key(service: &ServiceName) -> String {
    format!("{FIGURES}{service}")
}

/// Whose figures are kept under a key; `None`: it is a progress.
pub(super) fn service_of_figures(key: &str) -> Option<ServiceName> {
    key.strip_prefix(FIGURES)?.parse().ok()
}

/// Whether a key of the space is of figures and no progress.
pub fn is_of_figures(key: &str) -> bool {
    key.starts_with(FIGURES)
}

const FIGURES: &str = "figures:";
