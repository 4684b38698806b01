//! Identities, keys, certificates and mutual TLS.
//!
//! A [`Peer`] is the proof that a handshake ended with a verified workload: only the verifier makes one. What is here
//! hands out streams; nothing else in the mesh names the TLS library, but the two files of the proxy that hold them.
//!
//! Deliberately elsewhere: the names themselves and their parsing (`outrigger-mesh`), who may get a certificate, when
//! tokens expire and that they are used once (`outrigger-control`), and when to renew (`outrigger-proxy`).

mod admin_clients;
mod admin_tls;
mod api_token;
mod authority;
mod control_tls;
mod disk;
mod error;
mod external;
mod hardening;
mod identity;
pub mod jwt;
mod key;
mod named;
mod outside;
mod peer;
mod pem;
mod public;
mod seal;
mod server_files;
mod succession;
mod tls;
mod token;
mod trust;
mod unverified;
mod verify;

pub use admin_clients::{AdminClient, ClientAuthority, ClientName, NamedClient};
pub use admin_tls::{AdminAcceptor, AdminConnector, ShownCertificate};
pub use api_token::{ApiToken, ApiTokenHash};
pub use authority::{Authority, AuthorityPems, Ends, LeafLifetime, SignedLeaf};
pub use control_tls::{ControlAcceptor, ControlConnector, control_plane_id};
pub use disk::{IdentityFiles, read_secret};
pub use error::{CertError, HandshakeError, PeerError};
pub use external::AuthorityFiles;
pub use hardening::harden_process;
pub use identity::{WorkloadIdentity, roots_from_der};
pub use key::WorkloadKey;
pub use named::{NamedAcceptor, NamedFiles, roots_to_pem};
pub use outside::{OutsideAlpn, OutsideConnector, OutsideError, OutsideName};
pub use peer::Peer;
pub use pem::certificates_from_pem;
pub use public::{PublicAcceptor, PublicCertificate, PublicCertificates, PublicConnection};
pub use seal::Seal;
pub use tls::{Accepted, Connected, HANDSHAKE_TIMEOUT, MeshAcceptor, MeshAlpn, MeshConnector, is_mesh_name};
pub use token::{JoinToken, JoinTokenHash, RootHash};
pub use trust::{TrustBundle, TrustStore};
pub use unverified::UnverifiedConnector;
pub use verify::{Role, peer_from_chain};

/// Random bytes for a secret of the mesh.
pub fn random_secret() -> Result<[u8; 32], CertError> {
    let mut bytes = [0; 32];
    let none = |_| CertError::Request("the system gives no random numbers".into());
    aws_lc_rs::rand::fill(&mut bytes).map_err(none)?;
    Ok(bytes)
}

/// Pays what the first use of the cryptography library costs a process (it seeds itself, some 20 ms of CPU), so that
/// no request does.
pub fn warm_up() -> Result<(), CertError> {
    WorkloadKey::generate()?.csr().map(|_| ())
}
