//! Sidecars are sent to another control plane: while this one is cut off from the store that it shares with the others, and
//! when it has many more of them than the others have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::hub::Hub;
use super::sessions::{Cut, Proxy};

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

    /// How many sidecars are here.
    pub(crate) fn count(&self) -> usize {
        self.all_sessions().len()
    }

    /// Sends up to so many elsewhere of those who can go there, the latest first: what they had to learn here is the least.
    /// Nobody is sent who is not here for `stay` yet. Tells how many.
    pub(crate) fn send_some(&self, most: usize, stay: Duration) -> usize {
        let now = Instant::now();
        let movable = |proxy: Arc<Proxy>| Some((proxy.movable_since()?, proxy));
        let mut all: Vec<_> = self.all_sessions().into_iter().filter_map(movable).collect();
        all.retain(|(began, _)| now >= *began + stay);
        all.sort_by_key(|(began, proxy)| (std::cmp::Reverse(*began), proxy.id()));
        all.truncate(most);
        for (_, proxy) in &all {
            proxy.cut(Cut::Balance);
        }
        all.len()
    }
}
