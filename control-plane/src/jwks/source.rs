//! Where keys are published.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// Where the keys of an issuer are published. Issuers with the same source share what is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The place.
    pub place: Place,
    /// After how long it is asked again.
    pub refresh: Duration,
}

/// A file or a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A file of the control plane's.
    File(PathBuf),
    /// A URL.
    Uri {
        /// Its text.
        uri: Arc<str>,
        /// Who vouches for the server, DER. None: those that the system trusts.
        roots: Vec<Arc<[u8]>>,
        /// Whether the server may have a private address.
        allow_private: bool,
    },
}

impl Source {
    /// As it is shown.
    pub fn shown(&self) -> String {
        match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Uri { uri, .. } => uri.to_string(),
        }
    }

    /// Under which its keys are kept in the store: other roots make it another source.
    pub(crate) fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.shown());
        if let Place::Uri { roots, allow_private, .. } = &self.place {
            for root in roots {
                hash.update(Sha256::digest(root));
            }
            hash.update([u8::from(*allow_private)]);
        }
        let hash = hash.finalize();
        hash[..16].iter().fold(KEPT.to_owned(), |text, b| text + &format!("{b:02x}"))
    }
}

/// Among what is kept apart from join tokens (`secret`).
pub(super) const KEPT: &str = "secret/jwks/";
