//! What the gateway's ports and routes are made from by now: a pushed Gateway is acknowledged when it is obeyed, not when
//! it has arrived.

use std::sync::Arc;
use std::time::Duration;

use outrigger_mesh::Gateway;
use tokio::sync::watch;

/// The Gateway that is obeyed.
#[derive(Debug, Default)]
pub struct Obeyed(watch::Sender<Option<Arc<Gateway>>>);

impl Obeyed {
    /// From now on requests meet this one.
    pub fn is(&self, gateway: Option<Arc<Gateway>>) {
        self.0.send_replace(gateway);
    }

    /// Waits until requests meet `gateway`, for half a second at most: whoever can not open a port still answers.
    pub async fn until(&self, gateway: Option<Arc<Gateway>>) {
        let same = |now: &Option<Arc<Gateway>>| match (now, &gateway) {
            (Some(now), Some(wanted)) => Arc::ptr_eq(now, wanted),
            (now, wanted) => now.is_none() && wanted.is_none(),
        };
        let mut seen = self.0.subscribe();
        let _in_time = tokio::time::timeout(PATIENCE, seen.wait_for(same)).await;
    }
}

/// A table is made within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_waited_for_the_very_gateway_that_was_pushed_and_not_for_ever() {
        let gateway = || Arc::new(Gateway { name: "shop/edge".parse().unwrap(), listeners: vec![] });
        let (obeyed, old, new) = (Obeyed::default(), gateway(), gateway());
        obeyed.is(Some(Arc::clone(&old)));
        let begun = tokio::time::Instant::now();
        obeyed.until(Some(old)).await;
        assert!(begun.elapsed().is_zero());
        obeyed.until(Some(Arc::clone(&new))).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        obeyed.is(Some(Arc::clone(&new)));
        obeyed.until(Some(new)).await;
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
