//! TLS towards servers outside the mesh: one way, the server being proven by its name.
//!
//! Nothing of the mesh is shown there: no certificate of ours, no protocol name of ours. Who vouches for a server is what
//! the system trusts, or roots that were given. As inside the mesh nothing is resumed, since a resumed handshake would
//! not meet the verifier (docs/decisions/0002-no-session-resumption.md).

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use outrigger_mesh::{Hostname, OutsideRoots};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::admin_tls::ShownCertificate;
use crate::error::CertError;
use crate::tls::HANDSHAKE_TIMEOUT;

/// Connects to servers outside the mesh that one set of roots vouches for. Cheap to clone.
#[derive(Clone)]
pub struct OutsideConnector {
    h2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    opaque: Arc<ClientConfig>,
}

/// What is to be spoken inside of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutsideAlpn {
    /// HTTP/2, which the server has to agree to.
    H2,
    /// HTTP/1.1. A server that knows nothing of protocol names is taken at its word.
    Http1,
    /// Whatever the application speaks: nothing is offered.
    Opaque,
}

/// The name a server has to prove: a host name or, where nothing else is known, its address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OutsideName(ServerName<'static>);

impl OutsideName {
    /// `None` for a name that no certificate can have.
    pub fn of_host(name: &Hostname) -> Option<Self> {
        ServerName::try_from(name.as_str().to_owned()).ok().map(Self)
    }

    /// The address itself.
    pub fn of_address(ip: IpAddr) -> Self {
        Self(ServerName::IpAddress(ip.into()))
    }
}

impl std::fmt::Debug for OutsideName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for OutsideName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

/// A handshake that did not end with a proven server.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// It took too long.
    #[error("the TLS handshake took longer than {0:?}")]
    Timeout(std::time::Duration),
    /// The certificate is for other names.
    #[error("the server's certificate is not for {expected}{}", but_for(.presented))]
    WrongName {
        /// The name asked for.
        expected: OutsideName,
        /// The names it is for, the first few.
        presented: Vec<String>,
    },
    /// Nobody whom we believe vouches for it.
    #[error(
        "no root that is trusted for it vouches for {expected}'s certificate: give its root, if it is a private one"
    )]
    Untrusted {
        /// The name asked for.
        expected: OutsideName,
    },
    /// Its time is over.
    #[error("{expected}'s certificate has expired")]
    Expired {
        /// The name asked for.
        expected: OutsideName,
    },
    /// Its time has not yet come.
    #[error("{expected}'s certificate is not yet valid; is the clock right?")]
    NotYetValid {
        /// The name asked for.
        expected: OutsideName,
    },
    /// Another fault of the certificate.
    #[error("{expected}'s certificate is refused: {why}")]
    Certificate {
        /// The name asked for.
        expected: OutsideName,
        /// What the verifier said.
        why: String,
    },
    /// It does not speak the protocol that the port was declared with.
    #[error("the server does not agree to {0}")]
    Alpn(&'static str),
    /// TLS itself failed, or the connection did.
    #[error("TLS: {0}")]
    Io(#[from] std::io::Error),
}

impl OutsideConnector {
    /// Believes what `roots` say. An error names what is wrong with them.
    pub fn new(roots: &OutsideRoots) -> Result<Self, CertError> {
        let store = match roots {
            OutsideRoots::System => system_roots(),
            OutsideRoots::Only(roots) => Arc::new(given(roots)?),
        };
        Ok(Self {
            h2: config(&store, Some(b"h2"))?,
            http1: config(&store, Some(b"http/1.1"))?,
            opaque: config(&store, None)?,
        })
    }

    /// Shows a certificate to a server that asks for one.
    #[must_use]
    pub fn showing(mut self, certificate: &ShownCertificate) -> Self {
        for config in [&mut self.h2, &mut self.http1, &mut self.opaque] {
            certificate.show(config);
        }
        self
    }

    /// The handshake over `io`. The server must prove to be `name`; nothing of the application is sent before.
    pub async fn connect<IO>(
        &self,
        io: IO,
        name: &OutsideName,
        alpn: OutsideAlpn,
    ) -> Result<TlsStream<IO>, OutsideError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match alpn {
            OutsideAlpn::H2 => &self.h2,
            OutsideAlpn::Http1 => &self.http1,
            OutsideAlpn::Opaque => &self.opaque,
        };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let stream = match timeout(HANDSHAKE_TIMEOUT, connector.connect(name.0.clone(), io)).await {
            Err(_) => return Err(OutsideError::Timeout(HANDSHAKE_TIMEOUT)),
            Ok(Err(e)) => return Err(OutsideError::of(e, name, alpn)),
            Ok(Ok(stream)) => stream,
        };
        if alpn == OutsideAlpn::H2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(OutsideError::Alpn("HTTP/2"));
        }
        Ok(stream)
    }
}

impl OutsideError {
    fn of(io: std::io::Error, name: &OutsideName, alpn: OutsideAlpn) -> Self {
        match io.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(why)) => Self::of_certificate(why, name),
            Some(
                Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol),
            ) => Self::Alpn(if alpn == OutsideAlpn::H2 { "HTTP/2" } else { "HTTP/1.1" }),
            _ => Self::Io(io),
        }
    }

    fn of_certificate(why: &CertificateError, name: &OutsideName) -> Self {
        let expected = name.clone();
        match why {
            CertificateError::NotValidForName => Self::WrongName { expected, presented: vec![] },
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::WrongName { expected, presented: presented.iter().take(SHOWN).cloned().collect() }
            }
            // A signature that is not of the root of that name is one of another root of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted { expected },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired { expected },
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid { expected }
            }
            other => Self::Certificate { expected, why: other.to_string() },
        }
    }
}

fn but_for(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(", but for {}", names.join(", ")) }
}

fn config(roots: &Arc<RootCertStore>, alpn: Option<&[u8]>) -> Result<Arc<ClientConfig>, CertError> {
    // Not the mesh's own choice of ciphers: servers out there are older than it.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| CertError::Unreadable { what: "the TLS configuration", why: e.to_string() })?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn given(roots: &[Arc<[u8]>]) -> Result<RootCertStore, CertError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(CertificateDer::from(root.to_vec()))
            .map_err(|e| CertError::Unreadable { what: "a root for servers outside", why: e.to_string() })?;
    }
    Ok(store)
}

/// Read once: a change of the system's roots takes a restart, as everywhere. Certificates that can not be read are
/// passed over, since some distributions carry one or two that nothing can use; what is missing shows when a server is
/// refused.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (added, ignored) = store.add_parsable_certificates(found.certs);
        for error in &found.errors {
            tracing::warn!(%error, "the system's trusted certificates can not all be read");
        }
        tracing::info!(roots = added, ignored, "the system's trusted certificates are read");
        Arc::new(store)
    }))
}

/// How many of a wrong certificate's names an error tells.
const SHOWN: usize = 4;
