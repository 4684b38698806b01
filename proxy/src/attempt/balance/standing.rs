//! Whether an endpoint may be chosen: what its health checks, its breaker and its bulkhead say of it.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

pub use crate::breaker::Share;
use crate::live::{EndpointLive, Millis};

/// What health checks have found out of an endpoint. Unknown until they have said something.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

/// What is known of an endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nobody asks, or nobody has been answered often enough yet: it counts as well.
    Nothing,
    /// It answers as it should.
    Well,
    /// It does not.
    Unwell,
}

impl Health {
    /// What is known.
    pub fn known(&self) -> Known {
        match self.0.load(Relaxed) {
            1 => Known::Well,
            2 => Known::Unwell,
            _ => Known::Nothing,
        }
    }

    /// Notes what was found out.
    pub fn set(&self, known: Known) {
        let number = match known {
            Known::Nothing => 0,
            Known::Well => 1,
            Known::Unwell => 2,
        };
        self.0.store(number, Relaxed);
    }
}

impl Known {
    /// The written form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "unknown",
            Self::Well => "well",
            Self::Unwell => "unwell",
        }
    }
}

/// What the breaker of `endpoint` lets through.
pub fn share(endpoint: &EndpointLive, now: Millis) -> Share {
    endpoint.breaker.share(now)
}

/// Whether a request that is chosen for it may be its probe. The permit itself is taken with the choice, by
/// [`crate::breaker::Breaker::take`].
pub(super) fn try_probe(endpoint: &EndpointLive, now: Millis) -> bool {
    endpoint.breaker.share(now) == Share::Probe
}

/// Whether another request may be under way at `endpoint`.
pub fn has_room(endpoint: &EndpointLive) -> bool {
    endpoint.has_room()
}

/// Whether `endpoint` counts among the well ones of its subset.
pub fn is_well(endpoint: &EndpointLive, now: Millis) -> bool {
    endpoint.health.known() != Known::Unwell && share(endpoint, now) != Share::Shut
}
