//! Carries what is revoked and whose roots are gone to the connections that are open, on one worker.
//!
//! New handshakes meet the same trust store by themselves. Deliberately elsewhere: what a connection does with the verdict
//! ([`crate::http::connections`] for those made to us, `attempt::tether` for those we made).

use std::sync::Arc;

use outrigger_certs::TrustStore;
use tokio::sync::watch;

use crate::live::Live;
use crate::worker::Worker;

/// What a worker has judged its connections by.
#[derive(Debug)]
pub struct Belief {
    trust: Arc<TrustStore>,
    live: Arc<Live>,
    denied: watch::Receiver<u64>,
    judged: Option<u64>,
}

impl Belief {
    /// Nothing has been judged yet.
    pub fn new(trust: &Arc<TrustStore>, live: &Arc<Live>) -> Self {
        let mut denied = live.tokens.changed();
        denied.mark_changed();
        Self { trust: Arc::clone(trust), live: Arc::clone(live), denied, judged: None }
    }

    /// Returns when the denylists have changed.
    pub async fn revoked(&mut self) {
        if self.denied.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        // `changed` has marked it as seen; the lists are read after that, so that none is missed.
        self.trust.revoke(self.live.tokens.load().revoked().cloned().collect());
    }

    /// Judges what is open, if there is anything new to judge it by.
    pub fn judge(&mut self, worker: &Worker) {
        // Read before: what changes meanwhile is seen the next time.
        let changes = self.trust.changes();
        if self.judged.replace(changes) != Some(changes) {
            worker.inbound.judge(&self.trust);
            worker.mesh.judge(&self.trust);
        }
    }
}
