//! The connected sidecars as the certificate authority sees them.

use std::time::SystemTime;

use outrigger_mesh::{Resource, ResourceName, SpiffeId, Trust};
use tokio::sync::watch;

use super::hub::Hub;
use super::sessions::Cut;
use crate::ca::{Fleet, Holding};
use crate::compile::ResourceChange;

/// The certificate that a connection was made with.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// Its SHA-256, in hex.
    pub(super) certificate: String,
    /// When it ends.
    pub(super) not_after: SystemTime,
}

impl Fleet for Hub {
    fn publish_trust(&self, trust: Trust) {
        // The revision is that of the configuration, which did not change.
        self.publish(0, vec![ResourceChange::Set(Resource::Trust(trust))]);
    }

    fn holdings(&self) -> Vec<Holding> {
        self.all_sessions().iter().filter_map(|proxy| proxy.holding()).collect()
    }

    fn reconnect(&self, certificate: &str) {
        for proxy in self.all_sessions() {
            if proxy.proof().is_some_and(|proof| proof.certificate == certificate) {
                proxy.cut(Cut::NewerCertificate);
            }
        }
    }

    fn is_revoked(&self, identity: &SpiffeId) -> bool {
        self.is_denied(identity)
    }

    fn progress(&self) -> watch::Receiver<u64> {
        self.watch_progress()
    }
}

/// The roots that a session is told of are those of its own trust domain.
pub(super) fn own_trust(hello: &outrigger_wire::rpc::Hello) -> ResourceName {
    ResourceName::Trust(hello.identity.trust_domain().clone())
}
