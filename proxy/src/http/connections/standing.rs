//! What a connection owes to the proof its peer gave at the handshake: HTTP is ended in order before one of both
//! certificates is over, and everything is cut when the peer is not believed any more.

use std::time::SystemTime;

use outrigger_certs::{Peer, TrustStore};
use tokio::time::Instant;

use super::{Connections, Control, Guard};
use crate::attempt::tether::ends_at;
use crate::http::edges::Cut;

/// Who is at the other end.
#[derive(Debug)]
pub(super) struct Proven {
    peer: Peer,
    /// When a connection over HTTP begins to end.
    ends_at: Instant,
}

impl Guard {
    /// Says who proved to be at the other end, and that the proof holds `until` then.
    pub fn proven_by(&self, peer: &Peer, until: SystemTime) {
        *self.control.proven.borrow_mut() = Some(Proven { peer: peer.clone(), ends_at: ends_at(until) });
    }
}

impl Connections {
    /// Cuts every connection whose peer `trust` does not believe any more.
    pub fn judge(&self, trust: &TrustStore) {
        for control in self.open.borrow().values() {
            let proven = control.proven.borrow();
            let refused = proven.as_ref().and_then(|proven| trust.believes(&proven.peer).err());
            if let (Some(why), Some(proven)) = (refused, &*proven) {
                tracing::warn!(peer = %proven.peer.id(), %why, "an open connection is cut");
                control.cut(Cut::Unbelieved);
            }
        }
    }
}

impl Control {
    /// Whether it is time to end for the sake of a certificate.
    pub(super) fn runs_out(&self, now: Instant) -> bool {
        self.proven.borrow().as_ref().is_some_and(|proven| now >= proven.ends_at)
    }
}
