//! What a Rollout says, proven.

use std::time::Duration;

use outrigger_mesh::{HashKey, RouteMatch, ServiceName, Version};

use super::figures::Windows;
use crate::spec::rollout::{OnFailure, Strategy};

/// The share that is everything.
pub const WHOLE: u32 = 10_000;

/// A Rollout that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The service.
    pub service: ServiceName,
    /// By steps, or at once.
    pub strategy: Strategy,
    /// The version that has the traffic.
    pub stable: Version,
    /// The version that shall have it.
    pub candidate: Version,
    /// Never none; the shares rise, and the last is [`WHOLE`].
    pub steps: Vec<Step>,
    /// Requests that see the candidate whatever its share is.
    pub preview: Vec<RouteMatch>,
    /// By what a caller stays on its side.
    pub by: Option<HashKey>,
    /// Whether a failed gate brings it back.
    pub on_failure: OnFailure,
    /// How long the sidecars may take to acknowledge a step.
    pub ack_timeout: Duration,
    /// How long the candidate may have no endpoint.
    pub ready_timeout: Duration,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What the candidate gets, in parts of [`WHOLE`].
    pub share: u32,
    /// How long, at least.
    pub hold: Duration,
    /// What it must do.
    pub gates: Gates,
    /// Whether too few requests keep it from going on. Where a time decides, as in the preview and the drain of
    /// blue-green, they do not.
    pub waits_for_requests: bool,
}

/// What the candidate must do to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gates {
    /// At least so many hundredths of a percent of its requests succeed.
    pub min_success: Option<i32>,
    /// How many hundredths of a percent its rate may differ from stable's; not above 0.
    pub success_below_stable: Option<i32>,
    /// Half of its answers come within this.
    pub p50: Option<Duration>,
    /// 99 of 100 do.
    pub p99: Option<Duration>,
    /// They take at most so many hundredths of stable's.
    pub latency_of_stable: Option<i32>,
    /// Fewer requests say nothing.
    pub min_requests: u64,
    /// What of the past counts.
    pub window: Duration,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            min_success: None,
            success_below_stable: None,
            p50: None,
            p99: None,
            latency_of_stable: None,
            min_requests: 20,
            window: Duration::from_secs(60),
        }
    }
}

impl Gates {
    /// Whether they ask for anything at all.
    pub fn ask_nothing(&self) -> bool {
        self.min_success.is_none()
            && self.success_below_stable.is_none()
            && self.p50.is_none()
            && self.p99.is_none()
            && self.latency_of_stable.is_none()
    }
}

impl Plan {
    /// The last step that gives no more than `share`; `None` before the first.
    pub fn step_of(&self, share: u32) -> Option<usize> {
        self.steps.iter().rposition(|step| step.share <= share)
    }

    /// The shortest and the longest window that its gates look back.
    pub(super) fn windows(&self) -> Windows {
        let of = || self.steps.iter().map(|step| step.gates.window);
        let (shortest, longest) = (of().min(), of().max());
        Windows { shortest: shortest.unwrap_or_default(), longest: longest.unwrap_or_default() }
    }
}
