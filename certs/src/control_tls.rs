//! TLS to the control plane's push port.
//!
//! Before a workload has a certificate, only the server is authenticated: by the root whose hash the join token
//! carries. As soon as it has one, both are. The protocol is plain `h2`: what runs inside is gRPC.

use std::sync::Arc;

use outrigger_mesh::{InvalidName, Label, SpiffeId, Trust, TrustDomain};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::HandshakeError;
use crate::identity::WorkloadIdentity;
use crate::peer::Peer;
use crate::tls::{client_config, in_time, mesh_name, proven, server_config};
use crate::token::RootHash;
use crate::trust::{TrustBundle, TrustStore};
use crate::verify::{Role, Roots};

const ALPN: &[u8] = b"h2";

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
        let config = server_config(identity, roots.clone(), true, vec![ALPN.to_vec()])?;
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
        let session = stream.get_ref().1;
        agreed_on_grpc(session.alpn_protocol())?;
        let peer = match session.peer_certificates() {
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
    /// Whose control plane it must be. At first contact nobody knows yet; the pinned root vouches for whom it names.
    domain: Option<TrustDomain>,
}

impl ControlConnector {
    /// First contact: no certificate of our own, the server's root must have the hash `pin`.
    pub fn pinned(pin: RootHash) -> Result<Self, HandshakeError> {
        Self::make(None, Roots::Pinned(pin))
    }

    /// First contact: no certificate of our own, and these roots vouch for the control plane of their trust domain.
    pub fn believing(trust: &Trust) -> Result<Self, HandshakeError> {
        let bundle = TrustBundle::new(std::slice::from_ref(trust));
        let bundle = bundle.map_err(|e| HandshakeError::Io(std::io::Error::other(e)))?;
        let roots = Roots::Store(Arc::new(TrustStore::new(bundle)));
        Ok(Self { domain: Some(trust.trust_domain.clone()), ..Self::make(None, roots)? })
    }

    /// As `identity`, believing its trust store. Other meshes' roots may lie in there too: the control plane must be
    /// that of the identity's own trust domain.
    pub fn new(identity: &Arc<WorkloadIdentity>) -> Result<Self, HandshakeError> {
        Self::make(Some(identity), Roots::Store(identity.trust().clone()))
    }

    fn make(identity: Option<&WorkloadIdentity>, roots: Roots) -> Result<Self, HandshakeError> {
        let tls = Arc::new(client_config(identity, roots.clone(), vec![ALPN.to_vec()])?);
        let domain = identity.map(|identity| identity.id().trust_domain().clone());
        Ok(Self { tls, roots, name: mesh_name()?, domain })
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
        let session = stream.get_ref().1;
        let peer = proven(session.peer_certificates(), &self.roots, Role::Server)?;
        let domain = self.domain.as_ref().unwrap_or_else(|| peer.id().trust_domain());
        let expected = control_plane_id(domain).map_err(|e| HandshakeError::Io(std::io::Error::other(e)))?;
        if peer.id() != &expected {
            return Err(HandshakeError::WrongIdentity { expected: vec![expected], got: peer.id().clone() });
        }
        agreed_on_grpc(session.alpn_protocol())?;
        Ok((stream, peer))
    }
}

fn agreed_on_grpc(alpn: Option<&[u8]>) -> Result<(), HandshakeError> {
    match alpn {
        Some(ALPN) => Ok(()),
        other => Err(HandshakeError::Alpn(other.map(|a| String::from_utf8_lossy(a).into_owned()))),
    }
}
