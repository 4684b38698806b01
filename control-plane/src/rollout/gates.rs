//! Gates: a verdict from what both versions did within a window.

use std::time::Duration;

use outrigger_mesh::{Histogram, TrafficStats};
use serde::Serialize;

use super::plan::{Gates, WHOLE};

/// What one version did within the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// As its callers' sidecars saw it: requests, after all retries, and the attempts that nobody answered.
    pub callers: TrafficStats,
    /// As its own sidecars saw it: attempts, so that a retry hides nothing.
    pub own: TrafficStats,
}

/// The figures of one version, as they are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// How many requests there were.
    pub requests: u64,
    /// How many of 100 succeeded: the worse of what its callers and its own sidecars counted.
    pub success_rate: Option<f64>,
    /// Half of the answers came within this, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99 of 100 did.
    pub p99_ms: Option<f64>,
}

/// What became of one gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateResult {
    /// Which.
    pub gate: Gate,
    /// What it wants.
    pub wants: String,
    /// What there is.
    pub has: String,
    /// Whether that is enough.
    pub result: Passes,
}

/// Which gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the written words")]
pub enum Gate {
    SuccessRate,
    SuccessComparedWithStable,
    P50,
    P99,
    LatencyComparedWithStable,
}

impl Gate {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuccessRate => "success",
            Self::SuccessComparedWithStable => "success beside stable",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::LatencyComparedWithStable => "latency beside stable",
        }
    }
}

/// Whether a gate lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "their own words")]
pub enum Passes {
    Pass,
    Fail,
    NotYet,
    /// There is nothing to compare with, and there will be nothing.
    Skipped,
}

/// What all gates say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Pass,
    /// It must not, and why.
    Fail(String),
    /// Too little is known, and of what.
    NotYet(String),
}

/// A verdict with what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What all gates say together.
    pub verdict: Verdict,
    /// Each of them.
    pub gates: Vec<GateResult>,
    /// The figures of the candidate.
    pub candidate: Figures,
    /// Those of stable.
    pub stable: Figures,
}

impl Judged {
    /// The figures of both in one line, for the audit log.
    pub fn told(&self) -> String {
        format!("candidate {}, stable {}", self.candidate.told(), self.stable.told())
    }
}

/// Judges the candidate, which has `share` of the traffic.
pub fn judge(gates: &Gates, share: u32, candidate: &Traffic, stable: &Traffic) -> Judged {
    let enough = candidate.is_enough(gates.min_requests);
    let failed = candidate.failed();
    let view = View {
        gates,
        share,
        enough,
        failed,
        candidate: candidate.figures(gates),
        stable: stable.figures(gates),
    };
    let compares = stable.is_enough(gates.min_requests);
    let results: Vec<GateResult> = [
        view.success(),
        view.success_beside(compares),
        view.latency(Gate::P50, gates.p50, view.candidate.p50_ms),
        view.latency(Gate::P99, gates.p99, view.candidate.p99_ms),
        view.latency_beside(compares),
    ]
    .into_iter()
    .flatten()
    .collect();
    let first = |wanted: Passes| results.iter().find(|r| r.result == wanted);
    let told = |r: &GateResult| format!("{} is {}, wanted {}", r.gate.as_str(), r.has, r.wants);
    let verdict = match (first(Passes::Fail), first(Passes::NotYet)) {
        (Some(failed), _) => Verdict::Fail(told(failed)),
        (None, Some(open)) => Verdict::NotYet(open.has.clone()),
        (None, None) => Verdict::Pass,
    };
    Judged { verdict, candidate: view.candidate, stable: view.stable, gates: results }
}

/// A smaller difference of latencies is none: among answers of a millisecond every pause of a machine is a factor.
const SLACK_MS: f64 = 5.0;

struct View<'a> {
    gates: &'a Gates,
    share: u32,
    enough: bool,
    /// Requests of the candidate that failed: the worse of both counts.
    failed: u64,
    candidate: Figures,
    stable: Figures,
}

impl View<'_> {
    fn success(&self) -> Option<GateResult> {
        let least = f64::from(self.gates.min_success?) / 100.0;
        let holds = self.candidate.success_rate.is_some_and(|rate| rate >= least);
        let result = if self.is_lost(least) { Passes::Fail } else { self.if_enough(holds) };
        Some(self.result(Gate::SuccessRate, format!("at least {least} %"), rate(&self.candidate), result))
    }

    fn success_beside(&self, compares: bool) -> Option<GateResult> {
        let below = f64::from(self.gates.success_below_stable?) / 100.0;
        let (own, other) = (self.candidate.success_rate, self.stable.success_rate);
        // A hair's breadth, so that 99.5 is not less than 100 - 0.5.
        let holds = own.zip(other).is_some_and(|(own, other)| own >= other + below - 1e-9);
        let wants = format!("{} and {below} points", rate(&self.stable));
        let least = other.map(|other| other + below).filter(|_| compares);
        let lost = least.is_some_and(|least| self.is_lost(least));
        let result = if lost { Passes::Fail } else { self.if_compared(compares, holds) };
        Some(self.result(Gate::SuccessComparedWithStable, wants, rate(&self.candidate), result))
    }

    fn latency(&self, gate: Gate, most: Option<Duration>, has: Option<f64>) -> Option<GateResult> {
        let most = most?.as_secs_f64() * 1_000.0;
        let result = self.if_enough(has.is_some_and(|has| has <= most));
        Some(self.result(gate, format!("at most {most} ms"), millis(has), result))
    }

    fn latency_beside(&self, compares: bool) -> Option<GateResult> {
        let factor = f64::from(self.gates.latency_of_stable?) / 100.0;
        let within = |own: Option<f64>, other: Option<f64>| {
            own.zip(other).is_some_and(|(own, other)| own <= (other * factor).max(other + SLACK_MS))
        };
        let (own, other) = (&self.candidate, &self.stable);
        let holds = within(own.p50_ms, other.p50_ms) && within(own.p99_ms, other.p99_ms);
        let both = |f: &Figures| format!("p50 {}, p99 {}", millis(f.p50_ms), millis(f.p99_ms));
        let wants = format!("at most {factor} times stable's {}", both(other));
        let result = self.if_compared(compares, holds);
        Some(self.result(Gate::LatencyComparedWithStable, wants, both(own), result))
    }

    /// Whether so many failed already that it could not pass if everything succeeded up to the number of requests that
    /// is enough. Without this a candidate that fails everything might never be judged: breakers let nobody near it.
    fn is_lost(&self, least: f64) -> bool {
        let may_fail = (100.0 - least) / 100.0 * self.gates.min_requests as f64;
        !self.enough && self.failed as f64 > may_fail
    }

    fn if_enough(&self, holds: bool) -> Passes {
        match (self.enough, holds) {
            (false, _) => Passes::NotYet,
            (true, true) => Passes::Pass,
            (true, false) => Passes::Fail,
        }
    }

    fn if_compared(&self, compares: bool, holds: bool) -> Passes {
        // Where stable gets the smaller part there may never be enough of it to compare with.
        match (compares, self.share >= WHOLE / 2) {
            (true, _) => self.if_enough(holds),
            (false, true) => Passes::Skipped,
            (false, false) => Passes::NotYet,
        }
    }

    fn result(&self, gate: Gate, wants: String, has: String, result: Passes) -> GateResult {
        let least = self.gates.min_requests;
        let has = match result {
            Passes::NotYet if !self.enough => {
                format!("{} of {least} requests of the candidate", self.candidate.requests)
            }
            Passes::NotYet => format!("{} of {least} requests of stable", self.stable.requests),
            Passes::Skipped => "stable has too few requests to compare with".into(),
            Passes::Pass | Passes::Fail => has,
        };
        GateResult { gate, wants, has, result }
    }
}

impl Traffic {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.callers.merge(&other.callers);
        self.own.merge(&other.own);
    }

    fn failed(&self) -> u64 {
        let of = |stats: &TrafficStats| tries(stats).saturating_sub(stats.success);
        of(&self.callers).max(of(&self.own))
    }

    fn is_enough(&self, least: u64) -> bool {
        self.requests() >= least
    }

    fn requests(&self) -> u64 {
        tries(&self.callers).max(tries(&self.own))
    }

    fn figures(&self, gates: &Gates) -> Figures {
        // One side with few requests must not speak for the other.
        let sides = [&self.callers, &self.own].into_iter();
        let rates = sides.filter(|s| tries(s) > 0 && tries(s) >= gates.min_requests).map(share);
        let few = [&self.callers, &self.own].into_iter().find(|s| tries(s) > 0).map(share);
        let rate = rates.min_by(f64::total_cmp).or(few);
        let latency = if self.callers.requests > 0 { &self.callers.latency } else { &self.own.latency };
        let at = |q| Histogram::quantile(latency, q).map(|d| (d.as_secs_f64() * 1e5).round() / 100.0);
        Figures { requests: self.requests(), success_rate: rate, p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

impl Figures {
    /// In one line.
    pub fn told(&self) -> String {
        if self.requests == 0 {
            return "no requests".into();
        }
        let (p50, p99) = (millis(self.p50_ms), millis(self.p99_ms));
        format!("{} of {} requests succeeded, p50 {p50}, p99 {p99}", rate(self), self.requests)
    }
}

/// What was asked of it and ended in one way or the other. An attempt that nobody answered counts as much as a request
/// that failed: its version had its chance, and that another one answered in its place says nothing for it.
fn tries(stats: &TrafficStats) -> u64 {
    stats.requests.saturating_add(stats.unanswered)
}

fn share(stats: &TrafficStats) -> f64 {
    stats.success as f64 / tries(stats) as f64 * 100.0
}

fn rate(figures: &Figures) -> String {
    figures.success_rate.map_or_else(|| "-".into(), |rate| format!("{rate:.2} %"))
}

fn millis(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") })
}
