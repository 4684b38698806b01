//! What is counted of filters.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::limits::RouteLimits;

/// Faults that were put in, and copies that were sent.
#[derive(Debug, Default)]
pub struct Counts {
    /// By what was done: a delay, an abort, a reset.
    pub faults: [AtomicU64; 3],
    /// By what became of a copy.
    pub mirrored: [AtomicU64; Mirrored::ALL.len()],
    /// Copies that are under way.
    pub copies: AtomicUsize,
    /// The buckets of routes.
    pub limits: RouteLimits,
}

/// What became of a copy of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// It was answered, whatever the answer said.
    Answered,
    /// It was sent, or could not be, and there was no answer.
    Failed,
    /// The body was too large to be kept, or had not come to its end.
    TooLarge,
    /// Too many were under way.
    TooMany,
}

impl Mirrored {
    const ALL: [Self; 4] = [Self::Answered, Self::Failed, Self::TooLarge, Self::TooMany];

    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
        }
    }
}

impl Counts {
    /// Counts a copy.
    pub fn mirrored(&self, what: Mirrored) {
        self.mirrored[what as usize].fetch_add(1, Relaxed);
    }

    /// The metrics as text for Prometheus.
    pub fn write(&self, out: &mut String) {
        out.push_str(
            "# HELP outrigger_faults_injected_total Faults that routes put in on purpose. No breaker counts them.\n\
             # TYPE outrigger_faults_injected_total counter\n",
        );
        for (what, count) in ["delay", "abort", "reset"].iter().zip(&self.faults) {
            let _ =
                writeln!(out, "outrigger_faults_injected_total{{fault=\"{what}\"}} {}", count.load(Relaxed));
        }
        out.push_str(
            "# HELP outrigger_mirrored_requests_total Copies of requests by what became of them.\n\
             # TYPE outrigger_mirrored_requests_total counter\n",
        );
        for (what, count) in Mirrored::ALL.iter().zip(&self.mirrored) {
            let (what, count) = (what.as_str(), count.load(Relaxed));
            let _ = writeln!(out, "outrigger_mirrored_requests_total{{outcome=\"{what}\"}} {count}");
        }
        self.limits.write(out);
    }
}
