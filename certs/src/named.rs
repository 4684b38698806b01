//! TLS of a server that is known by DNS names, for clients that know nothing of the mesh's identities but its roots: the API
//! server of Kubernetes, which calls the webhook.
//!
//! No client shows a certificate there: what comes is judged, not obeyed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use outrigger_mesh::{Hostname, Trust};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::authority::{Authority, LeafLifetime};
use crate::disk::to_pem;
use crate::error::{CertError, HandshakeError};
use crate::key::WorkloadKey;
use crate::server_files::Files;
use crate::tls::in_time;

/// Accepts connections as a server of its names. Cheap to clone; all clones show the same certificate.
#[derive(Clone)]
pub struct NamedAcceptor {
    tls: tokio_rustls::TlsAcceptor,
    shown: Arc<Shown>,
    names: Arc<[Hostname]>,
}

struct Shown(ArcSwap<CertifiedKey>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl NamedAcceptor {
    /// Makes a key and lets `authority` sign it for `names`, of which there must be one. TLS 1.2 and 1.3.
    pub fn new(
        authority: &Authority,
        names: Vec<Hostname>,
        lifetime: LeafLifetime,
    ) -> Result<(Self, SystemTime), HandshakeError> {
        let other = |e: CertError| HandshakeError::Io(std::io::Error::other(e));
        let (key, ends) = sign(authority, &names, lifetime).map_err(other)?;
        Ok((Self::showing(key, names)?, ends))
    }

    /// Shows what lies in these files (PEM; the chain, leaf first), which somebody else keeps fresh.
    pub fn of_files(certificate: &Path, key: &Path) -> Result<(Self, NamedFiles), String> {
        let files = Files::read(certificate, key)?;
        let acceptor = Self::showing(files.key(), Vec::new()).map_err(|e| e.to_string())?;
        let shown = Arc::clone(&acceptor.shown);
        Ok((acceptor, NamedFiles { files, shown }))
    }

    fn showing(key: Arc<CertifiedKey>, names: Vec<Hostname>) -> Result<Self, HandshakeError> {
        let shown = Arc::new(Shown(ArcSwap::new(key)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| HandshakeError::Io(std::io::Error::other(e)))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { tls: Arc::new(config).into(), shown, names: names.into() })
    }

    /// Shows a new certificate for a new key from now on. Returns when it ends.
    pub fn renew(&self, authority: &Authority, lifetime: LeafLifetime) -> Result<SystemTime, CertError> {
        let (key, ends) = sign(authority, &self.names, lifetime)?;
        self.shown.0.store(key);
        Ok(ends)
    }

    /// The handshake over `io`.
    pub async fn accept<IO>(&self, io: IO) -> Result<tokio_rustls::server::TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        in_time(self.tls.accept(io)).await
    }
}

impl fmt::Debug for NamedAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedAcceptor({:?})", self.names)
    }
}

/// The files whose certificate a [`NamedAcceptor`] shows.
#[derive(Debug)]
pub struct NamedFiles {
    files: Files,
    shown: Arc<Shown>,
}

impl NamedFiles {
    /// Has the acceptor show what lies there now; told is whether that is something new. The last good certificate stays
    /// where the files can not be read.
    pub fn refresh(&self) -> Result<bool, String> {
        let changed = self.files.refresh()?;
        if changed {
            self.shown.0.store(self.files.key());
        }
        Ok(changed)
    }
}

fn sign(
    authority: &Authority,
    names: &[Hostname],
    lifetime: LeafLifetime,
) -> Result<(Arc<CertifiedKey>, SystemTime), CertError> {
    let key = WorkloadKey::generate()?;
    let signed = authority.sign_server(&key.csr()?, names, lifetime, SystemTime::now())?;
    let chain = signed.chain.into_iter().map(CertificateDer::from).collect();
    let unreadable = |e: rustls::Error| CertError::Unreadable { what: "a new key", why: e.to_string() };
    let signer = aws_lc_rs::sign::any_supported_type(&key.pkcs8()).map_err(unreadable)?;
    Ok((Arc::new(CertifiedKey::new(chain, signer)), signed.not_after))
}

/// The roots of `trust` as PEM, as they are given to whoever is to believe them.
pub fn roots_to_pem(trust: &Trust) -> String {
    to_pem(&trust.roots.iter().map(|root| root.to_vec()).collect::<Vec<_>>())
}
