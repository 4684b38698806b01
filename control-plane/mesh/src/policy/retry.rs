//! What is tried again.

use std::time::Duration;

use super::{InvalidPolicy, percent};

/// What is tried again. What was certainly not processed is always retried within these bounds, for every method;
/// what may have been processed only for idempotent requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first. Default 2.
    pub retries: u32,
    /// Whether the route's requests are idempotent whatever their method.
    pub idempotent: bool,
    /// Retries allowed as a share of the requests of the last 10 s, in percent. Default 20.
    pub budget_percent: u32,
    /// Retries a second that are allowed whatever the share. Default 3.
    pub budget_floor: u32,
    /// Statuses of an answer that are tried again beside those that always are, for idempotent requests.
    pub codes: Vec<u16>,
    /// How much of a body is kept to be sent again. A larger one is sent once. Default 64 KiB.
    pub replay_bytes: u32,
    /// The longest pause before the first retry, doubled with each further one; the pause is drawn from `min_backoff`
    /// to it. Default 25 ms.
    pub backoff: Duration,
    /// The longest pause of all. Default 250 ms.
    pub max_backoff: Duration,
    /// The shortest pause of all. Default 0.
    pub min_backoff: Duration,
}

impl RetryPolicy {
    /// No policy may ask for more.
    pub const MAX_RETRIES: u32 = 10;

    pub(super) fn check(&self) -> Result<(), InvalidPolicy> {
        if self.retries > Self::MAX_RETRIES {
            let what = format!("at most {} are allowed, {} were asked for", Self::MAX_RETRIES, self.retries);
            return Err(InvalidPolicy::new("retry.retries", what));
        }
        if self.max_backoff < self.backoff {
            let what = format!("{:?} is shorter than backoff ({:?})", self.max_backoff, self.backoff);
            return Err(InvalidPolicy::new("retry.maxBackoff", what));
        }
        if self.max_backoff < self.min_backoff {
            let what = format!("{:?} is shorter than minBackoff ({:?})", self.max_backoff, self.min_backoff);
            return Err(InvalidPolicy::new("retry.maxBackoff", what));
        }
        if let Some(code) = self.codes.iter().find(|code| !(400..=599).contains(*code)) {
            let what = format!("{code} is no status that could be tried again: 400 to 599 are");
            return Err(InvalidPolicy::new("retry.codes", what));
        }
        percent("retry.budgetPercent", self.budget_percent, 0)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 2,
            idempotent: false,
            budget_percent: 20,
            budget_floor: 3,
            codes: vec![],
            replay_bytes: 64 * 1024,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
            min_backoff: Duration::ZERO,
        }
    }
}
