//! Mutual TLS between sidecars.
//!
//! TLS 1.3 only, without resumption on either side (docs/decisions/0002-no-session-resumption.md). The port of the
//! control plane has its own rules in `control_tls`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_mesh::SpiffeId;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::error::HandshakeError;
use crate::identity::WorkloadIdentity;
use crate::peer::Peer;
use crate::trust::TrustStore;
use crate::verify::{Role, Roots, Verifier};

/// A handshake that takes longer is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What two sidecars speak after the handshake. The names are ours alone, so that TLS between sidecars is never
/// mistaken for TLS that the application speaks itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeshAlpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
    /// Bytes that nobody looks into.
    Tcp,
}

impl MeshAlpn {
    /// Every protocol of the mesh.
    pub const ALL: [Self; 3] = [Self::H2, Self::Http1, Self::Tcp];

    /// The protocol's name in the handshake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "outrigger-h2",
            Self::Http1 => "outrigger-http1",
            Self::Tcp => "outrigger-tcp",
        }
    }

    /// What everybody calls it who is in the mesh without being a sidecar, as Envoy may be.
    pub fn common_name(self) -> Option<&'static str> {
        match self {
            Self::H2 => Some("h2"),
            Self::Http1 => Some("http/1.1"),
            Self::Tcp => None,
        }
    }

    fn offered(self) -> Vec<Vec<u8>> {
        std::iter::once(self.as_str())
            .chain(self.common_name())
            .map(|name| name.as_bytes().to_vec())
            .collect()
    }

    /// What was agreed on, and whether with a foreign peer, where those are `welcome`.
    fn agreed(alpn: Option<&[u8]>, welcome: bool) -> Result<(Self, bool), HandshakeError> {
        let is = |name: Option<&str>| name.is_some_and(|name| alpn == Some(name.as_bytes()));
        let own = Self::ALL.into_iter().find(|a| is(Some(a.as_str()))).map(|a| (a, false));
        let common = || Self::ALL.into_iter().find(|a| welcome && is(a.common_name())).map(|a| (a, true));
        let text = || alpn.map(|a| String::from_utf8_lossy(a).into_owned());
        own.or_else(common).ok_or_else(|| HandshakeError::Alpn(text()))
    }
}

/// Accepts connections of other sidecars. Cheap to clone.
#[derive(Clone)]
pub struct MeshAcceptor {
    tls: tokio_rustls::TlsAcceptor,
    roots: Roots,
    identity: Arc<WorkloadIdentity>,
}

/// A connection another sidecar made.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The plaintext side.
    pub stream: tokio_rustls::server::TlsStream<IO>,
    /// Who made it.
    pub peer: Peer,
    /// What it speaks.
    pub alpn: MeshAlpn,
    /// Whether it is of the mesh without being a sidecar: it named the mesh ([`is_mesh_name`]) and offered a common
    /// protocol.
    pub foreign: bool,
    /// When the first of both certificates ends.
    pub until: SystemTime,
}

impl MeshAcceptor {
    /// Accepts as `identity`, speaking `alpns` in this order of preference.
    pub fn new(identity: &Arc<WorkloadIdentity>, alpns: &[MeshAlpn]) -> Result<Self, HandshakeError> {
        let roots = Roots::Store(identity.trust().clone());
        // Ours first: whoever offers both is a sidecar.
        let own = alpns.iter().map(|a| a.as_str());
        let all = own.chain(alpns.iter().filter_map(|a| a.common_name()));
        let all = all.map(|name| name.as_bytes().to_vec()).collect();
        let config = server_config(identity, roots.clone(), false, all)?;
        Ok(Self { tls: Arc::new(config).into(), roots, identity: Arc::clone(identity) })
    }

    /// The handshake over `io`.
    pub async fn accept<IO>(&self, io: IO) -> Result<Accepted<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = in_time(self.tls.accept(io)).await?;
        let session = stream.get_ref().1;
        let peer = proven(session.peer_certificates(), &self.roots, Role::Client)?;
        let named = session.server_name().is_some_and(is_mesh_name);
        let (alpn, foreign) = MeshAlpn::agreed(session.alpn_protocol(), named)?;
        let until = peer.not_after().min(self.identity.expires_at());
        Ok(Accepted { stream, peer, alpn, foreign, until })
    }

    /// Whom this side believes.
    pub fn trust(&self) -> &Arc<TrustStore> {
        self.identity.trust()
    }
}

/// Connects to other sidecars. Cheap to clone.
#[derive(Clone)]
pub struct MeshConnector {
    /// By the protocol offered.
    h2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    tcp: Arc<ClientConfig>,
    name: ServerName<'static>,
    roots: Roots,
    identity: Arc<WorkloadIdentity>,
}

/// A connection to another sidecar.
#[derive(Debug)]
pub struct Connected<IO> {
    /// The plaintext side.
    pub stream: tokio_rustls::client::TlsStream<IO>,
    /// Who is there.
    pub peer: Peer,
    /// What was agreed.
    pub alpn: MeshAlpn,
    /// When the first of both certificates ends.
    pub until: SystemTime,
}

impl MeshConnector {
    /// Connects as `identity`.
    pub fn new(identity: &Arc<WorkloadIdentity>) -> Result<Self, HandshakeError> {
        let roots = Roots::Store(identity.trust().clone());
        let config =
            |alpn: MeshAlpn| client_config(Some(identity), roots.clone(), alpn.offered()).map(Arc::new);
        Ok(Self {
            h2: config(MeshAlpn::H2)?,
            http1: config(MeshAlpn::Http1)?,
            tcp: config(MeshAlpn::Tcp)?,
            name: mesh_name()?,
            roots,
            identity: Arc::clone(identity),
        })
    }

    /// The handshake over `io`, offering `alpn`. The peer must be one of `expected`; nothing of the application is sent
    /// before that is known.
    pub async fn connect<IO>(
        &self,
        io: IO,
        expected: &[SpiffeId],
        alpn: MeshAlpn,
    ) -> Result<Connected<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match alpn {
            MeshAlpn::H2 => &self.h2,
            MeshAlpn::Http1 => &self.http1,
            MeshAlpn::Tcp => &self.tcp,
        };
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let stream = in_time(connector.connect(self.name.clone(), io)).await?;
        let session = stream.get_ref().1;
        let peer = proven(session.peer_certificates(), &self.roots, Role::Server)?;
        if !expected.contains(peer.id()) {
            return Err(HandshakeError::WrongIdentity {
                expected: expected.to_vec(),
                got: peer.id().clone(),
            });
        }
        // A peer that has proven to be whom we want may be one of the mesh that is no sidecar.
        let (alpn, _foreign) = MeshAlpn::agreed(session.alpn_protocol(), true)?;
        let until = peer.not_after().min(self.identity.expires_at());
        Ok(Connected { stream, peer, alpn, until })
    }

    /// Whom this side believes.
    pub fn trust(&self) -> &Arc<TrustStore> {
        self.identity.trust()
    }
}

pub(crate) async fn in_time<S>(
    handshake: impl Future<Output = std::io::Result<S>>,
) -> Result<S, HandshakeError> {
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Err(_) => Err(HandshakeError::Timeout(HANDSHAKE_TIMEOUT)),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(HandshakeError::from_tls(e)),
    }
}

/// The peer of a finished handshake, taken from its chain by the same rules the verifier applied.
pub(crate) fn proven(
    chain: Option<&[CertificateDer<'_>]>,
    roots: &Roots,
    role: Role,
) -> Result<Peer, HandshakeError> {
    Ok(roots.verify(chain.unwrap_or_default(), role, UnixTime::now())?)
}

pub(crate) fn server_config(
    identity: &WorkloadIdentity,
    roots: Roots,
    optional: bool,
    alpns: Vec<Vec<u8>>,
) -> Result<ServerConfig, HandshakeError> {
    let verifier = Arc::new(Verifier::new(roots, &provider(), optional));
    server_config_with(identity, verifier, alpns)
}

/// The same with rules of its own for clients.
pub(crate) fn server_config_with(
    identity: &WorkloadIdentity,
    verifier: Arc<dyn ClientCertVerifier>,
    alpns: Vec<Vec<u8>>,
) -> Result<ServerConfig, HandshakeError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| HandshakeError::Io(std::io::Error::other(e)))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.server_resolver());
    config.alpn_protocols = alpns;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

pub(crate) fn client_config(
    identity: Option<&WorkloadIdentity>,
    roots: Roots,
    alpns: Vec<Vec<u8>>,
) -> Result<ClientConfig, HandshakeError> {
    let provider = provider();
    let verifier = Arc::new(Verifier::new(roots, &provider, false));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| HandshakeError::Io(std::io::Error::other(e)))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.client_resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpns;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The name that says "a sidecar" in the handshake. Identities are not host names, so it selects nothing.
pub(crate) fn mesh_name() -> Result<ServerName<'static>, HandshakeError> {
    ServerName::try_from(MESH_NAME).map_err(|e| HandshakeError::Io(std::io::Error::other(e)))
}

/// Whether the server name of a handshake says that its client is of the mesh: `outrigger.mesh`, or a name below it, such
/// as `cart.shop.outrigger.mesh`. A sidecar says so by its protocols, too; others have only this.
pub fn is_mesh_name(name: &str) -> bool {
    let Some(at) = name.len().checked_sub(MESH_NAME.len()) else { return false };
    let tail = name.as_bytes().get(at..).unwrap_or_default();
    tail.eq_ignore_ascii_case(MESH_NAME.as_bytes()) && (at == 0 || name.as_bytes()[at - 1] == b'.')
}

const MESH_NAME: &str = "outrigger.mesh";

/// AES-128-GCM first: as strong as the P-256 keys it stands behind, and a third cheaper than AES-256. The hybrid of
/// ML-KEM and X25519 leads the key exchanges; X25519 stays for peers without it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}
