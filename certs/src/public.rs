//! TLS at the edge of the mesh: certificates that the public believes, for clients that have none.
//!
//! The certificates are files that somebody else puts there and renews. Which one a client sees is decided by the name
//! it asks for (SNI). Sessions are resumed by tickets that live in this process only: clients are not authenticated
//! here, so a resumed handshake skips no check.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_mesh::{HostPattern, Hostname, Label};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::HandshakeError;
use crate::tls::in_time;

/// The certificates of a gateway, read from a folder: `NAME.crt` and `NAME.key`, or `NAME/tls.crt` and `NAME/tls.key`, the
/// way Kubernetes mounts a Secret.
pub struct PublicCertificates {
    folder: PathBuf,
    known: BTreeMap<Label, Known>,
}

struct Known {
    files: (PathBuf, PathBuf),
    changed: (SystemTime, SystemTime),
    key: Arc<CertifiedKey>,
}

impl PublicCertificates {
    /// Certificates of `folder`; none is read yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), known: BTreeMap::new() }
    }

    /// The certificate `name`, read anew when its files have changed. One that can not be read is an error that names the
    /// file; the last good one stays in use by whoever has it.
    pub fn get(&mut self, name: &Label) -> Result<PublicCertificate, String> {
        let files = self.files(name)?;
        let changed = (modified(&files.0)?, modified(&files.1)?);
        if let Some(known) = self.known.get(name).filter(|k| k.files == files && k.changed == changed) {
            return Ok(PublicCertificate(Arc::clone(&known.key)));
        }
        let key = read(&files)?;
        self.known.insert(name.clone(), Known { files, changed, key: Arc::clone(&key) });
        Ok(PublicCertificate(key))
    }

    fn files(&self, name: &Label) -> Result<(PathBuf, PathBuf), String> {
        let flat = |end: &str| self.folder.join(format!("{name}.{end}"));
        let nested = |file: &str| self.folder.join(name.as_str()).join(file);
        let both = [(flat("crt"), flat("key")), (nested("tls.crt"), nested("tls.key"))];
        let there = both.iter().find(|(certificate, _)| certificate.exists());
        there.cloned().ok_or_else(|| {
            format!(
                "the certificate {name} is neither at {} nor at {}",
                both[0].0.display(),
                both[1].0.display()
            )
        })
    }
}

fn modified(file: &Path) -> Result<SystemTime, String> {
    std::fs::metadata(file).and_then(|m| m.modified()).map_err(|e| format!("{}: {e}", file.display()))
}

pub(crate) fn read((certificate, key): &(PathBuf, PathBuf)) -> Result<Arc<CertifiedKey>, String> {
    let bad = |file: &Path, e: &dyn fmt::Display| format!("{}: {e}", file.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|e| bad(certificate, &e))?.collect();
    let chain = chain.map_err(|e| bad(certificate, &e))?;
    if chain.is_empty() {
        return Err(bad(certificate, &"there is no certificate in it"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, &e))?;
    let signer = aws_lc_rs::sign::any_supported_type(&secret).map_err(|e| bad(key, &e))?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|_| bad(key, &"it is not the key of the certificate"))?;
    Ok(Arc::new(certified))
}

/// One certificate with its key. Its text shows neither.
#[derive(Clone)]
pub struct PublicCertificate(Arc<CertifiedKey>);

impl fmt::Debug for PublicCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicCertificate")
    }
}

/// Accepts connections of the public at one port. Cheap to clone.
#[derive(Clone)]
pub struct PublicAcceptor(tokio_rustls::TlsAcceptor);

impl fmt::Debug for PublicAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicAcceptor")
    }
}

/// A connection from outside.
#[derive(Debug)]
pub struct PublicConnection<IO> {
    /// The plaintext side.
    pub stream: tokio_rustls::server::TlsStream<IO>,
    /// The name that was asked for, which requests are held to: a certificate for one host is no leave to speak as
    /// another.
    pub asked_for: Option<Hostname>,
    /// Whether HTTP/2 was agreed.
    pub http2: bool,
}

impl PublicAcceptor {
    /// Shows a client the certificates of the most exact pattern that matches the name it asks for, the one whose key it
    /// can use; without a name, those of the entry that has no pattern. TLS 1.2 and 1.3.
    pub fn new(
        certificates: Vec<(Option<HostPattern>, Vec<PublicCertificate>)>,
    ) -> Result<Self, HandshakeError> {
        let mut by_name: Vec<_> = certificates
            .into_iter()
            .map(|(pattern, all)| (pattern, all.into_iter().map(|c| c.0).collect::<Vec<_>>()))
            .collect();
        by_name.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.as_ref().map(HostPattern::specificity)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| HandshakeError::Io(std::io::Error::other(e)))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(BySni(by_name)));
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Self(Arc::new(config).into()))
    }

    /// The handshake over `io`.
    pub async fn accept<IO>(&self, io: IO) -> Result<PublicConnection<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = in_time(self.0.accept(io)).await?;
        let session = stream.get_ref().1;
        let asked_for = session.server_name().and_then(|name| Hostname::new(name).ok());
        let http2 = session.alpn_protocol() == Some(HTTP2);
        Ok(PublicConnection { stream, asked_for, http2 })
    }
}

const HTTP2: &[u8] = b"h2";

struct BySni(Vec<(Option<HostPattern>, Vec<Arc<CertifiedKey>>)>);

impl fmt::Debug for BySni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(pattern, _)| pattern)).finish()
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| Hostname::new(name).ok());
        let meant = |pattern: &Option<HostPattern>| match (pattern, &name) {
            (None, _) => true,
            (Some(pattern), Some(name)) => pattern.matches(name),
            (Some(_), None) => false,
        };
        let all = self.0.iter().filter(|(pattern, _)| meant(pattern)).flat_map(|(_, keys)| keys);
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        all.clone().find(usable).or_else(|| all.clone().next()).cloned()
    }
}
