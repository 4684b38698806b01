//! Who is at the other end.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_mesh::SpiffeId;

use crate::token::{hex, sha256};
use crate::trust::RootPrint;

/// A workload that has proven its identity. There is no other way to make one than to verify its chain, so whoever
/// holds a `Peer` needs no further check of who it is. Cheap to clone.
#[derive(Clone)]
pub struct Peer(Arc<Proven>);

struct Proven {
    id: SpiffeId,
    /// Which root vouched for it.
    root: RootPrint,
    not_after: SystemTime,
    certificate_sha256: [u8; 32],
}

impl Peer {
    pub(crate) fn proven(id: SpiffeId, not_after: SystemTime, leaf_der: &[u8], root: RootPrint) -> Self {
        Self(Arc::new(Proven { id, root, not_after, certificate_sha256: sha256(leaf_der) }))
    }

    /// Its identity.
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    pub(crate) fn root(&self) -> RootPrint {
        self.0.root
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The SHA-256 of its certificate, in hex, as `x-forwarded-client-cert` wants it.
    pub fn certificate_sha256(&self) -> String {
        hex(&self.0.certificate_sha256)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.0.id)
    }
}
