//! Up to which change of the registry the gateway's ports and routes are made by now: what was pushed to a gateway is
//! acknowledged when it is obeyed, not when it has arrived.

use std::time::Duration;

use tokio::sync::watch;

/// The number of the last change that requests at the edge meet.
#[derive(Debug, Default)]
pub struct Obeyed(watch::Sender<u64>);

impl Obeyed {
    /// From now on requests meet everything up to this change.
    pub fn is(&self, change: u64) {
        self.0.send_replace(change);
    }

    /// Waits until requests meet `change`, for half a second at most: whoever can not open a port still answers.
    pub async fn until(&self, change: u64) {
        let mut seen = self.0.subscribe();
        let _in_time = tokio::time::timeout(PATIENCE, seen.wait_for(|now| *now >= change)).await;
    }
}

/// A table is made within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_for_the_very_change_and_not_for_ever() {
        let obeyed = Obeyed::default();
        obeyed.is(3);
        let begun = tokio::time::Instant::now();
        obeyed.until(3).await;
        assert!(begun.elapsed().is_zero());
        obeyed.until(4).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        obeyed.is(5);
        obeyed.until(4).await;
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
