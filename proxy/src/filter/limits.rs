//! The rate limits of routes, at the caller's sidecar. The buckets are those of `policy/rate_limit.rs`; they belong to the
//! name of the route, so that a push fills none of them again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use outrigger_mesh::{RateLimit, RequestHead};

use crate::error::Error;
use crate::policy::rate_limit::{self, Asking, Buckets, Key, Limit, Nanos};

/// The buckets of all routes, by the names of route and limit, for as long as a route holds them.
#[derive(Debug, Default)]
pub struct RouteLimits(Mutex<Table>);

type Table = HashMap<(Box<str>, Arc<str>), Weak<Buckets>>;

impl RouteLimits {
    /// The limits of a route. One that keeps its name keeps its buckets.
    pub fn of(&self, route: &str, rules: &[RateLimit]) -> Vec<Limit> {
        if rules.is_empty() {
            return vec![];
        }
        let now = Nanos::at(std::time::Instant::now());
        let mut all = self.all();
        all.retain(|_, buckets| buckets.strong_count() > 0);
        let limit = |rule: &RateLimit| {
            let name = (route.into(), Arc::clone(&rule.name));
            let buckets = all.get(&name).and_then(Weak::upgrade).unwrap_or_default();
            all.insert(name, Arc::downgrade(&buckets));
            Limit::new(rule.clone(), buckets, now)
        };
        rules.iter().map(limit).collect()
    }

    /// The metrics as text for Prometheus.
    pub fn write(&self, out: &mut String) {
        out.push_str(
            "# HELP outrigger_route_rate_limit_requests_total Requests under a rate limit of a route, by what became of \
             them.\n# TYPE outrigger_route_rate_limit_requests_total counter\n",
        );
        let held = |(name, buckets): (&(Box<str>, Arc<str>), &Weak<Buckets>)| {
            Some((name.clone(), buckets.upgrade()?.counts()))
        };
        let mut rows: Vec<_> = self.all().iter().filter_map(held).collect();
        rows.sort();
        for ((route, limit), (allowed, refused)) in rows {
            for (outcome, count) in [("allowed", allowed), ("refused", refused)] {
                let labels = format!("route=\"{route}\",limit=\"{limit}\",outcome=\"{outcome}\"");
                let _ = writeln!(out, "outrigger_route_rate_limit_requests_total{{{labels}}} {count}");
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request under the limits of its route.
pub(super) fn check(limits: &[Limit], head: RequestHead<'_>) -> Result<(), Error> {
    if limits.is_empty() {
        return Ok(());
    }
    // Whoever routes it is the only caller here; at a gateway that is the gateway.
    let caller = head.source.identity.map(ToString::to_string).unwrap_or_default();
    let now = Nanos::at(std::time::Instant::now());
    rate_limit::check(limits, &Asking { head, caller: Key::of(caller.as_bytes()), now })
}
