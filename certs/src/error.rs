//! What can go wrong with keys, certificates and handshakes. No text here ever holds a secret.

use std::io;
use std::path::PathBuf;

use outrigger_mesh::{InvalidName, SpiffeId, TrustDomain};

/// A key, a certificate or a token that can not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The library refused to make or sign something.
    #[error("can not make {what}: {source}")]
    Make {
        /// What was being made.
        what: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// A certificate signing request that is not one, or asks with a key we do not sign.
    #[error("the certificate request is refused: {0}")]
    Request(String),
    /// Something that should be a certificate or a key is not.
    #[error("{what} can not be read: {why}")]
    Unreadable {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file that can not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file with a secret that others may read.
    #[error("{path} can be read by others (mode {mode:o}): chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A folder for secrets that others may change.
    #[error("others may write into {path} (mode {mode:o}): chmod 700 it")]
    OpenFolder {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file of an authority that is given as files.
    #[error("{path}: {why}")]
    AuthorityFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// An authority whose time is over signs nothing.
    #[error("the certificate authority has expired; it signs nothing any more")]
    AuthorityExpired,
    /// A key that is not the one of the certificate beside it.
    #[error("the private key is not the key of the certificate beside it")]
    Mismatch,
    /// A certificate of another identity than asked for.
    #[error("the certificate is for {got}, not for {expected}")]
    OtherIdentity {
        /// Who it should be for.
        expected: SpiffeId,
        /// Who it is for.
        got: SpiffeId,
    },
    /// Roots of another trust domain than the one kept.
    #[error("the roots are of trust domain {got}, not of {expected}")]
    OtherTrustDomain {
        /// The trust domain of the mesh.
        expected: TrustDomain,
        /// What was given.
        got: TrustDomain,
    },
    /// The certificate breaks a rule of workload certificates.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A text that is no join token.
    #[error("this is not a join token: {0}")]
    Token(&'static str),
    /// A name that breaks its rules.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Why a certificate chain does not prove a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is none.
    #[error("no certificate was presented")]
    Absent,
    /// More certificates than any chain of ours has.
    #[error("the chain has {0} certificates, more than {max}", max = crate::verify::MAX_CHAIN)]
    LongChain(usize),
    /// Not a certificate.
    #[error("the certificate can not be parsed: {0}")]
    Malformed(String),
    /// An authority's certificate where a workload's belongs.
    #[error("the certificate is that of an authority, not of a workload")]
    Authority,
    /// Not exactly one URI among its names.
    #[error("the certificate has {0} URI names, exactly one is needed")]
    UriNames(usize),
    /// The name is no identity of a workload.
    #[error("the certificate's name is refused: {0}")]
    Name(#[from] InvalidName),
    /// It is on the mesh's deny list.
    #[error("{0} is revoked")]
    Revoked(SpiffeId),
    /// A kind of key that no workload of the mesh has.
    #[error("the certificate's key must be ECDSA P-256 or Ed25519")]
    Key,
    /// It may not be used for this.
    #[error("the certificate must be usable for {0}")]
    Usage(&'static str),
    /// Another mesh.
    #[error("the trust domain {0} is not one this mesh believes")]
    ForeignDomain(TrustDomain),
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// Its time has not yet come.
    #[error("the certificate is not yet valid; do the clocks agree?")]
    NotYetValid,
    /// No root of its trust domain vouches for it.
    #[error("the chain does not verify: {0}")]
    Chain(String),
}

/// A handshake that did not end with a proven peer.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the TLS handshake took longer than {0:?}")]
    Timeout(std::time::Duration),
    /// The peer proved nothing, or not enough.
    #[error("the peer is not authenticated: {0}")]
    PeerUnauthenticated(#[from] PeerError),
    /// The peer proved to be somebody else.
    #[error("the peer is {got}, expected {}", list(.expected))]
    WrongIdentity {
        /// Who may serve there.
        expected: Vec<SpiffeId>,
        /// Who it is.
        got: SpiffeId,
    },
    /// The peer speaks none of the mesh's protocols.
    #[error("the peer agreed to no protocol of the mesh (ALPN {0:?})")]
    Alpn(Option<String>),
    /// TLS itself failed, or the connection did. A peer that refuses our certificate shows here, as the alert it sent.
    #[error("TLS: {0}")]
    Io(#[from] io::Error),
}

impl HandshakeError {
    /// What the verifier said of the peer comes out of the TLS library inside two other errors: here it gets its kind
    /// back.
    pub(crate) fn from_tls(error: io::Error) -> Self {
        use rustls::{AlertDescription, CertificateError, Error};
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(CertificateError::Other(other))) => {
                match other.0.downcast_ref::<PeerError>() {
                    Some(refused) => Self::PeerUnauthenticated(refused.clone()),
                    None => Self::Io(error),
                }
            }
            Some(Error::InvalidCertificate(why)) => {
                Self::PeerUnauthenticated(PeerError::Chain(why.to_string()))
            }
            Some(Error::NoCertificatesPresented) => Self::PeerUnauthenticated(PeerError::Absent),
            Some(
                Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol),
            ) => Self::Alpn(None),
            _ => Self::Io(error),
        }
    }
}

fn list(ids: &[SpiffeId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
