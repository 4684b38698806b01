//! What the demo states, and whether it held. The report of a step is its claims and what was served and lost.

use serde_json::{Value, json};

use super::load::Tally;
use super::shares;

/// A step of the story, told.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) tally: Tally,
    pub(super) claims: Vec<Claim>,
}

/// A statement, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) says: String,
    pub(super) held: bool,
    pub(super) seen: String,
}

impl Claim {
    pub(super) fn new(says: impl Into<String>, held: bool, seen: impl Into<String>) -> Self {
        Self { says: says.into(), held, seen: seen.into() }
    }

    /// Users were served, and nobody was failed. No users at all prove nothing.
    pub(super) fn nothing_lost(tally: &Tally) -> Self {
        Self::at_most_lost(tally, 0)
    }

    /// Users were served, and at most so many requests failed.
    pub(super) fn at_most_lost(tally: &Tally, most: u64) -> Self {
        let says =
            if most == 0 { "no request failed".into() } else { format!("at most {most} requests failed") };
        let held = tally.requests > 0 && tally.failed <= most;
        Self::new(says, held, lost(tally))
    }

    /// There were enough requests for a share to mean something.
    pub(super) fn enough(measured: u64, least: u64) -> Self {
        Self::new(
            format!("at least {least} answers were counted"),
            measured >= least,
            format!("{measured} answers"),
        )
    }

    /// A version answered its share, within 3 sigma.
    pub(super) fn share(version: &str, count: u64, of: u64, share: f64) -> Self {
        let (low, high) = shares::bounds(of, share);
        let seen = format!("{count} of {of} ({:.1} %), allowed {low:.0} to {high:.0}", percent(count, of));
        let says = format!("{version} answered {:.0} % within 3 sigma", share * 100.0);
        Self::new(says, of > 0 && shares::within_three_sigma(count, of, share), seen)
    }

    fn json(&self) -> Value {
        json!({ "claim": self.says, "held": self.held, "seen": self.seen })
    }
}

impl Step {
    pub(super) fn held(&self) -> bool {
        self.claims.iter().all(|claim| claim.held)
    }

    pub(super) fn json(&self) -> Value {
        let tally = &self.tally;
        let versions: Vec<Value> = tally
            .versions
            .iter()
            .map(|((service, version), count)| json!({ "service": service, "version": version, "answers": count }))
            .collect();
        json!({
            "step": self.name,
            "held": self.held(),
            "seconds": tally.lasted.as_secs_f64(),
            "requests": tally.requests,
            "failed": tally.failed,
            "failures": tally.failures,
            "p50Ms": millis(tally, 0.5),
            "p99Ms": millis(tally, 0.99),
            "answers": versions,
            "claims": self.claims.iter().map(Claim::json).collect::<Vec<_>>(),
        })
    }

    /// One line of the summary.
    pub(super) fn row(&self) -> Vec<String> {
        let tally = &self.tally;
        let time = |q| millis(tally, q).map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        vec![
            self.name.clone(),
            format!("{:.1} s", tally.lasted.as_secs_f64()),
            (tally.requests - tally.failed).to_string(),
            tally.failed.to_string(),
            time(0.5),
            time(0.99),
            if self.held() { "yes".into() } else { "NO".into() },
        ]
    }
}

/// What the columns of [`Step::row`] are.
pub(super) const COLUMNS: [&str; 7] = ["step", "time", "served", "lost", "p50", "p99", "as stated"];

/// A quantile of the latency in milliseconds.
pub(super) fn millis(tally: &Tally, q: f64) -> Option<f64> {
    tally.latency.quantile(q).map(|latency| latency.as_secs_f64() * 1000.0)
}

fn lost(tally: &Tally) -> String {
    let failures: Vec<String> =
        tally.failures.iter().map(|(what, count)| format!("{count} x {what}")).collect();
    let told = if failures.is_empty() { String::new() } else { format!(": {}", failures.join("; ")) };
    format!("{} of {} failed{told}", tally.failed, tally.requests)
}

fn percent(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { count as f64 * 100.0 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(requests: u64, failed: u64) -> Tally {
        Tally { requests, failed, ..Tally::default() }
    }

    #[test]
    fn no_requests_at_all_prove_nothing() {
        assert!(!Claim::nothing_lost(&tally(0, 0)).held);
        assert!(Claim::nothing_lost(&tally(1, 0)).held);
        assert!(!Claim::nothing_lost(&tally(9, 1)).held);
        assert!(Claim::at_most_lost(&tally(9, 1), 1).held);
    }

    #[test]
    fn a_share_of_nothing_does_not_hold() {
        assert!(!Claim::share("v2", 0, 0, 0.0).held);
        let claim = Claim::share("v2", 230, 2000, 0.1);
        assert!(claim.held);
        assert_eq!(claim.seen, "230 of 2000 (11.5 %), allowed 160 to 240");
    }

    #[test]
    fn what_failed_is_told() {
        let mut seen = tally(10, 2);
        seen.failures.insert("the price answered 503".into(), 2);
        assert_eq!(Claim::nothing_lost(&seen).seen, "2 of 10 failed: 2 x the price answered 503");
    }
}
