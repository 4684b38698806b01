//! What is counted of time and retries.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use outrigger_mesh::Reason;

use crate::http::patience::{self, Late};

/// Retries by cause and outcome, retries there were not by why, and limits that were met.
#[derive(Debug, Default)]
pub struct Counted {
    /// By cause; by whether it helped.
    retries: [[AtomicU64; 2]; Cause::ALL.len()],
    denied: [AtomicU64; Denied::ALL.len()],
    late: [AtomicU64; LIMITS.len()],
}

/// What made a request worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no connection.
    Connect,
    /// The other sidecar, or something on this side, took nothing.
    Refused,
    /// The connection broke off.
    Reset,
    /// The attempt took longer than one may.
    Timeout,
    /// The answer was one that may pass: 502, 503, 504, UNAVAILABLE.
    Answer,
}

impl Cause {
    const ALL: [Self; 5] = [Self::Connect, Self::Refused, Self::Reset, Self::Timeout, Self::Answer];

    /// Its name in metrics and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout_try",
            Self::Answer => "answer",
        }
    }
}

/// Why there was no retry where one might have helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The budget is spent.
    Budget,
    /// All attempts that the policy allows were made.
    Attempts,
    /// The body was too large to be kept.
    Body,
    /// Too little time is left.
    Time,
    /// Another layer retries already.
    Layer,
}

impl Denied {
    const ALL: [Self; 5] = [Self::Budget, Self::Attempts, Self::Body, Self::Time, Self::Layer];

    fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Attempts => "attempts",
            Self::Body => "body",
            Self::Time => "time",
            Self::Layer => "layer",
        }
    }
}

impl Counted {
    /// A retry was made for `cause`; whether it `helped`.
    pub fn retried(&self, cause: Cause, helped: bool) {
        self.retries[cause as usize][usize::from(helped)].fetch_add(1, Relaxed);
    }

    /// No retry was made.
    pub fn denied(&self, why: Denied) {
        self.denied[why as usize].fetch_add(1, Relaxed);
    }

    /// A request ended for `reason`; counts those that mean that its time was up.
    pub fn ended(&self, reason: Reason) {
        if let Some(at) = LIMITS.iter().position(|(limit, _)| *limit == reason) {
            self.late[at].fetch_add(1, Relaxed);
        }
    }

    /// The metrics as text for Prometheus.
    pub fn write(&self, out: &mut String) {
        out.push_str(
            "# HELP outrigger_retry_outcomes_total Retries by what made them worth a try and by whether they helped.\n\
             # TYPE outrigger_retry_outcomes_total counter\n",
        );
        for (cause, counts) in Cause::ALL.iter().zip(&self.retries) {
            for (outcome, count) in ["failed", "helped"].iter().zip(counts) {
                let (cause, count) = (cause.as_str(), count.load(Relaxed));
                let labels = format_args!("cause=\"{cause}\",outcome=\"{outcome}\"");
                let _ = writeln!(out, "outrigger_retry_outcomes_total{{{labels}}} {count}");
            }
        }
        out.push_str(
            "# HELP outrigger_retries_denied_total Retries that were not made, by why.\n\
             # TYPE outrigger_retries_denied_total counter\n",
        );
        for (why, count) in Denied::ALL.iter().zip(&self.denied) {
            let (why, count) = (why.as_str(), count.load(Relaxed));
            let _ = writeln!(out, "outrigger_retries_denied_total{{why=\"{why}\"}} {count}");
        }
        out.push_str(
            "# HELP outrigger_timeouts_total Requests whose time was up, by which limit, before and after the head of \
             the answer.\n# TYPE outrigger_timeouts_total counter\n",
        );
        let before = LIMITS.iter().zip(&self.late).map(|((_, name), n)| (*name, "before", n.load(Relaxed)));
        let after = Late::ALL.iter().map(|late| (late.as_str(), "after", patience::ended(*late)));
        for (limit, head, count) in before.chain(after) {
            let _ = writeln!(out, "outrigger_timeouts_total{{limit=\"{limit}\",head=\"{head}\"}} {count}");
        }
    }
}

const LIMITS: [(Reason, &str); 4] = [
    (Reason::TimeoutRequest, "request"),
    (Reason::TimeoutTry, "try"),
    (Reason::TimeoutIdle, "idle"),
    (Reason::Deadline, "deadline"),
];
