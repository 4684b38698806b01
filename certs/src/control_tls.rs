//! TLS to the control plane's push port.
//!
//! Before a workload has a certificate, only the server is authenticated: by the root whose hash the join token
//! carries. As soon as it has one, both are. The protocol is plain `h2`: what runs inside is gRPC.

use std::sync::Arc;

use outrigger_mesh::{InvalidName, Label, SpiffeId, TrustDomain};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::HandshakeError;
use crate::identity::WorkloadIdentity;
use crate::peer::Peer;
use crate::tls::{client_config, in_time, mesh_name, proven, server_config};
use crate::token::RootHash;
use crate::verify::{Role, Roots};

/// The control plane's own identity in a trust domain: `ns/outrigger/sa/control-plane`.
pub fn control_plane_id(trust_domain: &TrustDomain) -> Result<SpiffeId, InvalidName> {
    Ok(SpiffeId::new(trust_domain.clone(), Label::new("outrigger")?, Label::new("control-plane")?))
}

/// Accepts connections of sidecars at the control plane. Cheap to clone.
#[derive(Clone)]
pub struct ControlAcceptor {
    tls: tokio_rustls::TlsAcceptor,
    roots: Roots,
}

impl ControlAcceptor {
    /// Accepts as `identity`, whose chain must include the root, so that a workload that knows only the root's hash can
    /// verify it.
    pub fn new(identity: &Arc<WorkloadIdentity>) -> Result<Self, HandshakeError> {
        let roots = Roots::Store(identity.trust().clone());
        let config = server_config(identity, roots.clone(), true, vec![b"h2".to_vec()])?;
        Ok(Self { tls: Arc::new(config).into(), roots })
    }

    /// The handshake over `io`. A client may present no certificate; one that it presents must verify.
    pub async fn accept<IO>(
        &self,
        io: IO,
    ) -> Result<(tokio_rustls::server::TlsStream<IO>, Option<Peer>), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = in_time(self.tls.accept(io)).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let peer = match chain {
            None | Some([]) => None,
            Some(chain) => Some(proven(Some(chain), &self.roots, Role::Client)?),
        };
        Ok((stream, peer))
    }
}

/// Connects to the control plane. Cheap to clone.
#[derive(Clone)]
pub struct ControlConnector {
    tls: Arc<ClientConfig>,
    roots: Roots,
    name: ServerName<'static>,
}

impl ControlConnector {
    /// First contact: no certificate of our own, the server's root must have the hash `pin`.
    pub fn pinned(pin: RootHash) -> Result<Self, HandshakeError> {
        Self::make(None, Roots::Pinned(pin))
    }

    /// As `identity`, believing its trust store.
    pub fn new(identity: &Arc<WorkloadIdentity>) -> Result<Self, HandshakeError> {
        Self::make(Some(identity), Roots::Store(identity.trust().clone()))
    }

    fn make(identity: Option<&WorkloadIdentity>, roots: Roots) -> Result<Self, HandshakeError> {
        let tls = Arc::new(client_config(identity, roots.clone(), vec![b"h2".to_vec()])?);
        Ok(Self { tls, roots, name: mesh_name()? })
    }

    /// The handshake over `io`. The peer must be the control plane of its trust domain.
    pub async fn connect<IO>(
        &self,
        io: IO,
    ) -> Result<(tokio_rustls::client::TlsStream<IO>, Peer), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = in_time(connector.connect(self.name.clone(), io)).await?;
        let peer = proven(stream.get_ref().1.peer_certificates(), &self.roots, Role::Server)?;
        let expected = control_plane_id(peer.id().trust_domain())
            .map_err(|e| HandshakeError::Io(std::io::Error::other(e)))?;
        if peer.id() != &expected {
            return Err(HandshakeError::WrongIdentity { expected: vec![expected], got: peer.id().clone() });
        }
        Ok((stream, peer))
    }
}
