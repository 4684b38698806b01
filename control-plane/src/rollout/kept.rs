//! What was counted of both versions, in the form in which it outlives the process.
//!
//! Each piece is known by its age, since a process knows nothing of the clock of the one before it. When it is written is
//! the matter of `keeping`.

use std::time::Duration;

use outrigger_mesh::{Histogram, TrafficStats, Version};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::gates::Traffic;

/// The figures of one service at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    /// The moment.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) at: OffsetDateTime,
    /// What is added up together; figures that were cut otherwise can not go on.
    pub(super) slot_millis: u64,
    /// Its versions.
    pub(super) versions: Vec<KeptVersion>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptVersion {
    pub(super) version: String,
    /// The oldest first.
    pub(super) slots: Vec<KeptSlot>,
}

/// What was added up together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeptSlot {
    /// How long ago it began.
    age_millis: u64,
    #[serde(default, skip_serializing_if = "is_nothing")]
    callers: KeptStats,
    #[serde(default, skip_serializing_if = "is_nothing")]
    own: KeptStats,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeptStats {
    requests: u64,
    success: u64,
    #[serde(default)]
    unanswered: u64,
    /// Buckets and their counts.
    #[serde(default)]
    latency: Vec<(usize, u64)>,
}

impl Kept {
    /// The slots of a version.
    pub(super) fn of(&self, version: &Version) -> &[KeptSlot] {
        let of = self.versions.iter().find(|of| of.version == version.as_str());
        of.map(|of| &of.slots[..]).unwrap_or_default()
    }
}

impl KeptSlot {
    pub(super) fn new(age: Duration, traffic: &Traffic) -> Self {
        // What is said to be older than it is is left out too early; the other way it would be of another step.
        let age_millis = u64::try_from(age.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
        Self { age_millis, callers: kept(&traffic.callers), own: kept(&traffic.own) }
    }

    /// How long before its moment it began.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(self.age_millis)
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic { callers: self.callers.stats(), own: self.own.stats() }
    }
}

impl KeptStats {
    fn stats(&self) -> TrafficStats {
        let mut latency = Histogram::default();
        self.latency.iter().for_each(|(bucket, count)| latency.add(*bucket, *count));
        let (requests, unanswered) = (self.requests, self.unanswered);
        TrafficStats { requests, success: self.success.min(requests), latency, unanswered }
    }
}

fn kept(stats: &TrafficStats) -> KeptStats {
    KeptStats {
        requests: stats.requests,
        success: stats.success,
        unanswered: stats.unanswered,
        latency: stats.latency.non_zero().collect(),
    }
}

fn is_nothing(stats: &KeptStats) -> bool {
    *stats == KeptStats::default()
}
