//! TLS of the control plane's admin API: for people and programs, HTTP/1.1 inside.
//!
//! The server shows the control plane's own certificate, which a client believes that knows the root's hash; or one from
//! files, for clients that go by names. Whose certificates a client may show is in `admin_clients`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::admin_clients::{AdminClient, AdminVerifier, ClientAuthority, Clients};
use crate::control_tls::control_plane_id;
use crate::error::HandshakeError;
use crate::identity::WorkloadIdentity;
use crate::public::read;
use crate::server_files::Files;
use crate::tls::{client_config, in_time, mesh_name, proven, server_config_with};
use crate::token::RootHash;
use crate::verify::{Role, Roots};

const ALPN: &[u8] = b"http/1.1";

/// Accepts connections at the admin API. Cheap to clone.
#[derive(Clone)]
pub struct AdminAcceptor {
    tls: tokio_rustls::TlsAcceptor,
    clients: Clients,
    files: Option<Arc<Files>>,
}

impl AdminAcceptor {
    /// Shows the certificate of `identity`, whose chain must include the root. Clients are held to what `identity` trusts,
    /// or to an authority of the operator's own.
    pub fn of_the_mesh(
        identity: &Arc<WorkloadIdentity>,
        authority: Option<ClientAuthority>,
    ) -> Result<Self, HandshakeError> {
        let (config, clients) = config(identity, authority)?;
        Ok(Self { tls: Arc::new(config).into(), clients, files: None })
    }

    /// Shows the certificate in these files (PEM; the chain, leaf first). Clients as in [`AdminAcceptor::of_the_mesh`].
    pub fn of_files(
        identity: &Arc<WorkloadIdentity>,
        authority: Option<ClientAuthority>,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, String> {
        let files = Arc::new(Files::read(certificate, key)?);
        let (mut config, clients) = config(identity, authority).map_err(|e| e.to_string())?;
        config.cert_resolver = files.clone();
        Ok(Self { tls: Arc::new(config).into(), clients, files: Some(files) })
    }

    /// Reads the files again if they have changed. The last good ones stay in use where that fails. Told is whether there
    /// is something new.
    pub fn refresh(&self) -> Result<bool, String> {
        let shown = self.files.as_ref().map_or(Ok(false), |files| files.refresh());
        let believed = self.clients.authority.as_ref().map_or(Ok(false), |authority| authority.refresh());
        Ok(shown? | believed?)
    }

    /// The handshake over `io`, and who the client proved to be.
    pub async fn accept<IO>(
        &self,
        io: IO,
    ) -> Result<(tokio_rustls::server::TlsStream<IO>, Option<AdminClient>), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = in_time(self.tls.accept(io)).await?;
        let client = match stream.get_ref().1.peer_certificates() {
            None | Some([]) => None,
            Some(chain) => Some(self.clients.verify(chain, UnixTime::now())?),
        };
        Ok((stream, client))
    }
}

fn config(
    identity: &Arc<WorkloadIdentity>,
    authority: Option<ClientAuthority>,
) -> Result<(ServerConfig, Clients), HandshakeError> {
    let roots = Roots::Store(identity.trust().clone());
    let clients = Clients { roots, authority: authority.map(Arc::new) };
    let verifier = AdminVerifier::new(clients.clone());
    Ok((server_config_with(identity, Arc::new(verifier), vec![ALPN.to_vec()])?, clients))
}

impl fmt::Debug for AdminAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminAcceptor")
    }
}

/// A certificate with its key that a client shows, read from files (PEM; the chain, leaf first). Its text shows neither.
#[derive(Clone)]
pub struct ShownCertificate(Arc<CertifiedKey>);

impl ShownCertificate {
    /// Reads them.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        read(&(certificate.to_owned(), key.to_owned())).map(Self)
    }

    pub(crate) fn show(&self, config: &mut Arc<ClientConfig>) {
        let resolver = SingleCertAndKey::from(Arc::clone(&self.0));
        Arc::make_mut(config).client_auth_cert_resolver = Arc::new(resolver);
    }
}

impl fmt::Debug for ShownCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownCertificate")
    }
}

/// Connects to an admin API that shows the control plane's own certificate. Cheap to clone.
#[derive(Clone)]
pub struct AdminConnector {
    tls: Arc<ClientConfig>,
    roots: Roots,
    name: ServerName<'static>,
}

impl AdminConnector {
    /// The server must be the control plane of a mesh whose root has the hash `pin`.
    pub fn pinned(pin: RootHash) -> Result<Self, HandshakeError> {
        let roots = Roots::Pinned(pin);
        let tls = Arc::new(client_config(None, roots.clone(), vec![ALPN.to_vec()])?);
        Ok(Self { tls, roots, name: mesh_name()? })
    }

    /// The same as a workload that shows its own certificate.
    pub fn with_identity(identity: &Arc<WorkloadIdentity>) -> Result<Self, HandshakeError> {
        let roots = Roots::Store(identity.trust().clone());
        let tls = Arc::new(client_config(Some(identity), roots.clone(), vec![ALPN.to_vec()])?);
        Ok(Self { tls, roots, name: mesh_name()? })
    }

    /// Shows a certificate to a server that asks for one.
    #[must_use]
    pub fn showing(mut self, certificate: &ShownCertificate) -> Self {
        certificate.show(&mut self.tls);
        self
    }

    /// The handshake over `io`. Nothing is sent to whoever is not a control plane of the mesh.
    pub async fn connect<IO>(&self, io: IO) -> Result<tokio_rustls::client::TlsStream<IO>, HandshakeError>
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
        Ok(stream)
    }
}

impl fmt::Debug for AdminConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminConnector")
    }
}
