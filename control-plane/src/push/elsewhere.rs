//! Sidecars are sent to another control plane while this one is cut off from the store that it shares with the others.

use std::time::Duration;

use tokio::time::Instant;

use super::hub::Hub;
use super::sessions::Cut;

impl Hub {
    /// Sends everybody elsewhere who can go there: whoever was here when this control plane was cut off at `since`, at
    /// once, and whoever came since, having found nobody better perhaps, after `stay`.
    pub(crate) fn send_elsewhere(&self, since: Instant, stay: Duration) {
        let now = Instant::now();
        for proxy in self.all_sessions() {
            let Some(began) = proxy.movable_since() else { continue };
            if began < since || now >= began + stay {
                proxy.cut(Cut::Elsewhere);
            }
        }
    }
}
