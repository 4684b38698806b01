//! What the sidecars of callers find of the endpoints of one version, all of them together.
//!
//! A registration says that an instance wants requests. Whether it can be reached, passes health checks and is not held
//! back by breakers only its callers know. One caller that finds an endpoint well is enough: what another finds may be a
//! matter of its own network.

use std::time::Duration;

use outrigger_mesh::Seen;
use tokio::time::Instant;

/// What was found last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    /// When it was told last that none is well.
    unwell: Option<Instant>,
    /// Since when nobody has told anything else.
    since: Option<Instant>,
}

/// Sidecars that find nothing well say so every second; what is older than this is of one that has gone or has no news.
const FRESH: Duration = Duration::from_secs(5);

impl Sight {
    pub(super) fn take(&mut self, seen: &Seen) {
        let now = Instant::now();
        match (seen.endpoints, seen.well) {
            // It has not been told of the instance yet.
            (0, _) => {}
            (_, 0) => {
                self.since = self.unwell_for().map_or(Some(now), |_| self.since);
                self.unwell = Some(now);
            }
            _ => *self = Self::default(),
        }
    }

    /// For how long those who told anything have found no endpoint well; `None` while one does, or nobody tells.
    pub(super) fn unwell_for(&self) -> Option<Duration> {
        self.unwell.filter(|at| at.elapsed() <= FRESH)?;
        Some(self.since?.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(endpoints: u32, well: u32) -> Seen {
        let service = "shop/cart".parse().unwrap();
        Seen { service, version: "v2".parse().unwrap(), endpoints, well }
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_is_unwell_for_as_long_as_nobody_finds_it_well_and_somebody_says_so() {
        let second = Duration::from_secs(1);
        let mut sight = Sight::default();
        sight.take(&seen(0, 0));
        assert_eq!(sight.unwell_for(), None, "who was not told of it knows nothing");
        for _ in 0..8 {
            sight.take(&seen(2, 0));
            tokio::time::advance(second).await;
        }
        assert_eq!(sight.unwell_for(), Some(8 * second));
        sight.take(&seen(2, 1));
        assert_eq!(sight.unwell_for(), None);
        sight.take(&seen(2, 0));
        tokio::time::advance(5 * second).await;
        assert_eq!(sight.unwell_for(), Some(5 * second));
        tokio::time::advance(second).await;
        assert_eq!(sight.unwell_for(), None, "nobody says so any more");
        sight.take(&seen(2, 0));
        assert_eq!(sight.unwell_for(), Some(Duration::ZERO), "it begins anew");
    }
}
