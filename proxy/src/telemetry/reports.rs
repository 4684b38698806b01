//! What the control plane is told now and then: the traffic, keys that are missing, and what is found of the versions of
//! divided services.
//!
//! What is found is told with traffic, and without any when it is bad: that nothing of a version can be used may be why
//! there is no traffic of it.

use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::{Report, Seen, Version};
use tokio::time::{Instant, sleep_until, timeout};

use crate::attempt::balance::Known;
use crate::breaker::Phase;
use crate::config::dial::Control;
use crate::config::registry::Registry;
use crate::config::snapshot::EndpointView;
use crate::live::{Live, LiveService};

/// Reports for as long as it runs. What could not be delivered is delivered later.
pub async fn report(live: Arc<Live>, registry: Arc<Registry>, control: Control) {
    let mut teller = Teller::default();
    let mut next = Instant::now() + REPORT_EVERY;
    loop {
        sleep_until(next).await;
        next = Instant::now() + REPORT_EVERY;
        let seen = seen(&registry.live_services());
        teller.deliver(&live, seen, &control).await;
    }
}

/// A last report, so that the end of an instance is not missing in the numbers. At most `limit`.
pub async fn report_once(live: &Live, control: &Control, limit: Duration) {
    let mut teller = Teller::default();
    let _late = timeout(limit, teller.deliver(live, vec![], control)).await;
}

/// What a rollout goes by: a candidate that fails is to be known as such within moments.
const REPORT_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Teller {
    /// What could not be delivered.
    pending: Option<Report>,
    /// What was found when it was told last.
    told: Vec<Seen>,
}

impl Teller {
    async fn deliver(&mut self, live: &Live, seen: Vec<Seen>, control: &Control) {
        let report = self.pending.take().unwrap_or_else(|| live.traffic_delta());
        let is_bad = |seen: &Seen| seen.endpoints > 0 && seen.well == 0;
        // That it is bad no longer is news too.
        let is_news = seen != self.told && self.told.iter().any(is_bad);
        let is_quiet =
            report.traffic.is_empty() && report.wanted_keys.is_empty() && report.refusals.is_empty();
        if is_quiet && !is_news && !seen.iter().any(is_bad) {
            return;
        }
        let report = Report { seen: seen.clone(), ..report };
        match control.client().report(report.clone()).await {
            Ok(()) => self.told = seen,
            // What is found by then is told then.
            Err(error) if error.is_retryable() => self.pending = Some(Report { seen: vec![], ..report }),
            Err(error) => tracing::warn!(%error, "the control plane refuses a report; it is dropped"),
        }
    }
}

/// What is found of both versions of each service that is divided.
fn seen(services: &[Arc<LiveService>]) -> Vec<Seen> {
    let mut all = vec![];
    for service in services {
        let snapshot = service.snapshot.load();
        let Some(division) = snapshot.as_ref().and_then(|s| s.service.division.as_ref()) else { continue };
        all.extend([&division.stable, &division.candidate].map(|version| of_version(service, version)));
    }
    all.truncate(Report::MAX_ENTRIES);
    all
}

fn of_version(service: &LiveService, version: &Version) -> Seen {
    let endpoints = service.endpoints.load();
    let members = &endpoints.subset(Some(version)).members;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Seen {
        service: service.name.clone(),
        version: version.clone(),
        endpoints: count(members.len()),
        well: count(members.iter().filter(|view| is_well(view)).count()),
    }
}

/// Stricter than what the choice of an endpoint goes by: one that is only probed has not shown yet that it is well.
fn is_well(view: &EndpointView) -> bool {
    let held_back = matches!(view.live.breaker.phase(), Phase::Open | Phase::HalfOpen);
    !held_back && view.live.health.known() != Known::Unwell
}
