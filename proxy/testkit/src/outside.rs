//! Servers outside the mesh: TLS with certificates of an authority of their own, before a plaintext origin.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::task::Owned;

/// An authority that vouches for servers outside the mesh.
#[derive(Debug)]
pub struct OutsideAuthority {
    params: CertificateParams,
    key: KeyPair,
    root: Certificate,
}

impl Default for OutsideAuthority {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        // A name of its own: two authorities of the same name would be told apart by their signatures only.
        let name = format!("outside {:?}", key.public_key_raw().get(..8));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let root = params.self_signed(&key).expect("a root");
        Self { params, key, root }
    }
}

impl OutsideAuthority {
    /// Its root, DER.
    pub fn root(&self) -> &[u8] {
        self.root.der()
    }

    /// Its root, PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// Writes a certificate for `host` and its key into `folder`, as `NAME.crt` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str, host: &str) {
        let (leaf, key) = self.leaf(host, -1..1);
        let write = |end: &str, text: String| {
            std::fs::write(folder.join(format!("{name}.{end}")), text).expect("a file");
        };
        // The key first: whoever looks for the certificate finds both.
        write("key", key.serialize_pem());
        write("crt", leaf.pem());
    }

    /// A server that speaks TLS as `name`, offering `alpns`, before the plaintext `origin`.
    pub async fn server(&self, name: &str, alpns: &[&str], origin: SocketAddr) -> OutsideServer {
        self.server_valid(name, alpns, origin, -1..1).await
    }

    /// The same with a certificate that is valid on these days, counted from now.
    pub async fn server_valid(
        &self,
        name: &str,
        alpns: &[&str],
        origin: SocketAddr,
        days: Range<i64>,
    ) -> OutsideServer {
        let acceptor = TlsAcceptor::from(Arc::new(self.config(name, alpns, days)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Hello>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let task = Owned::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
                // Ends with its connection, at the latest when the runtime of the test does.
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let alpn = session.alpn_protocol().map(|a| String::from_utf8_lossy(a).into_owned());
                    let hello = Hello {
                        name: session.server_name().map(str::to_owned),
                        alpn,
                        client_certificate: session.peer_certificates().is_some(),
                    };
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(hello);
                    let Ok(mut behind) = TcpStream::connect(origin).await else { return };
                    let _ended = copy_bidirectional(&mut stream, &mut behind).await;
                });
            }
        });
        OutsideServer { addr, seen, _task: task }
    }

    fn leaf(&self, name: &str, days: Range<i64>) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let now = std::time::SystemTime::now();
        let at = |days: i64| {
            let span = std::time::Duration::from_hours(24 * days.unsigned_abs());
            if days < 0 { now - span } else { now + span }
        };
        params.not_before = at(days.start).into();
        params.not_after = at(days.end).into();
        let issuer = Issuer::from_params(&self.params, &self.key);
        (params.signed_by(&key, &issuer).expect("a certificate"), key)
    }

    fn config(&self, name: &str, alpns: &[&str], days: Range<i64>) -> ServerConfig {
        let (leaf, key) = self.leaf(name, days);
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(leaf.der().to_vec())],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .expect("a certificate with its key");
        config.alpn_protocols = alpns.iter().map(|a| a.as_bytes().to_vec()).collect();
        config
    }
}

/// A server outside the mesh. Dropped, it is gone.
#[derive(Debug)]
pub struct OutsideServer {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Hello>>>,
    _task: Owned,
}

/// What a finished handshake said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The name asked for.
    pub name: Option<String>,
    /// The protocol agreed.
    pub alpn: Option<String>,
    /// Whether the client showed a certificate.
    pub client_certificate: bool,
}

impl OutsideServer {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The handshakes that were finished.
    pub fn seen(&self) -> Vec<Hello> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
