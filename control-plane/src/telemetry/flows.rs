//! Who calls whom, made of what both sides counted.
//!
//! The servers' counts decide: they know what arrived, and how it was answered. What callers' sidecars refused themselves
//! is added to it: nothing of that arrived anywhere. Where the servers told of much less than the callers, they are
//! connected to another control plane, or are outside the mesh, or gone: then the callers' counts decide.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outrigger_mesh::{Histogram, Reason, ServiceName, Side, Version};

use super::cell::Counts;
use super::hour::{FlowKey, Stretch, Whose};

/// What both sides counted of the same.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// The callers' sidecars.
    pub callers: Counts,
    /// Those of the service.
    pub servers: Counts,
}

/// How it went, as it is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// Requests that arrived, or that should have.
    pub requests: u64,
    /// Those of them that were not the fault of the service or the mesh.
    pub success: u64,
    /// How long they took.
    pub latency: Histogram,
    /// Refused, by whichever side.
    pub refused: u64,
}

impl Pair {
    /// Adds what one side counted.
    pub fn add(&mut self, side: Side, counts: &Counts) {
        match side {
            Side::Client => self.callers.merge(counts),
            Side::Server => self.servers.merge(counts),
        }
    }

    /// How it went.
    pub fn flow(&self) -> Flow {
        let (callers, servers) = (&self.callers, &self.servers);
        let stopped = callers.all_refused();
        let refused = stopped.saturating_add(servers.all_refused());
        let arrived = servers.traffic.requests.saturating_add(stopped);
        let servers_are_here =
            arrived.saturating_mul(HERE.1) >= callers.traffic.requests.saturating_mul(HERE.0);
        if !servers_are_here {
            let traffic = &callers.traffic;
            let requests = traffic.requests.max(stopped);
            return Flow { requests, success: traffic.success, latency: traffic.latency.clone(), refused };
        }
        let is_callers_fault = |reason: &Reason| !reason.status().is_server_error();
        let fine = callers.refused.iter().filter(|(reason, _)| is_callers_fault(reason));
        let fine = fine.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        // What was refused took no time that the service could tell.
        let told = if servers.traffic.latency.count() > 0 { servers } else { callers };
        Flow {
            requests: arrived,
            success: servers.traffic.success.saturating_add(fine),
            latency: told.traffic.latency.clone(),
            refused,
        }
    }
}

/// The servers are all here where they count at least this share of what the callers count. Reports of the two come at
/// different moments, so it is not the whole.
const HERE: (u64, u64) = (3, 4);

impl Flow {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.success = self.success.saturating_add(other.success);
        self.latency.merge(&other.latency);
        self.refused = self.refused.saturating_add(other.refused);
    }

    /// The share of successes; `None` where there were no requests.
    pub fn success_share(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.success.min(self.requests) as f64 / self.requests as f64)
    }
}

/// Who called whom in a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    /// By service and caller.
    pub edges: BTreeMap<(ServiceName, Whose), Flow>,
    /// The versions of each service that took part.
    pub versions: BTreeMap<ServiceName, BTreeSet<Version>>,
}

impl Flows {
    /// Of what is `wanted`.
    pub fn of(stretch: &Stretch, wanted: impl Fn(&FlowKey) -> bool) -> Self {
        let mut pairs: BTreeMap<(ServiceName, Whose), Pair> = BTreeMap::new();
        let mut versions: BTreeMap<ServiceName, BTreeSet<Version>> = BTreeMap::new();
        for (key, counts) in stretch.counts(wanted) {
            let edge = (key.service.clone(), key.caller.clone());
            pairs.entry(edge).or_default().add(key.side, &counts);
            if let Some(version) = &key.version {
                versions.entry(key.service.clone()).or_default().insert(version.clone());
            }
        }
        Self { edges: pairs.into_iter().map(|(edge, pair)| (edge, pair.flow())).collect(), versions }
    }

    /// All that came to a service.
    pub fn to(&self, service: &ServiceName) -> Flow {
        let mut sum = Flow::default();
        let all = self.edges.iter().filter(|((to, _), _)| to == service);
        all.for_each(|(_, flow)| sum.merge(flow));
        sum
    }
}

/// What came to one service.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Each complete step, the oldest first: how long ago it began, and how it went.
    pub points: Vec<(Duration, Flow)>,
    /// By version.
    pub versions: BTreeMap<Version, Flow>,
    /// Refusals by reason, by whichever side.
    pub refusals: BTreeMap<Reason, u64>,
}

impl Told {
    /// Of one service.
    pub fn of(stretch: &Stretch, service: &ServiceName) -> Self {
        let its = |key: &FlowKey| key.service == *service;
        let mut versions: BTreeMap<Version, Pair> = BTreeMap::new();
        let mut refusals: BTreeMap<Reason, u64> = BTreeMap::new();
        for (key, counts) in stretch.counts(its) {
            for (reason, count) in &counts.refused {
                let sum = refusals.entry(*reason).or_default();
                *sum = sum.saturating_add(*count);
            }
            if let Some(version) = &key.version {
                versions.entry(version.clone()).or_default().add(key.side, &counts);
            }
        }
        let points = stretch.each().map(|(ago, step)| (ago, Flows::of(&step, its).to(service)));
        Self {
            points: points.collect(),
            versions: versions.into_iter().map(|(version, pair)| (version, pair.flow())).collect(),
            refusals,
        }
    }
}
