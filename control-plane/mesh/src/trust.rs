//! Whom the mesh believes.

use std::sync::Arc;

use crate::identity::TrustDomain;

/// The roots that vouch for the identities of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trust {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Its root certificates, DER, in a stable order; never empty. Whether they are certificates at all is judged by
    /// the verifier that is built from them.
    pub roots: Vec<Arc<[u8]>>,
}
