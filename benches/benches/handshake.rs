//! What a handshake between two sidecars costs, both ends together on one core, beside the TLS library alone.
#![allow(clippy::expect_used, reason = "a measurement")]

use std::sync::Arc;
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use outrigger_certs::{
    Authority, LeafLifetime, MeshAcceptor, MeshAlpn, MeshConnector, WorkloadIdentity, WorkloadKey,
};
use outrigger_mesh::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::io::duplex;

struct Workload {
    key: WorkloadKey,
    chain: Vec<Vec<u8>>,
}

fn workload(authority: &Authority, id: &SpiffeId) -> Workload {
    let key = WorkloadKey::generate().expect("a key");
    let csr = key.csr().expect("a request");
    let leaf = authority.sign(&csr, id, LeafLifetime::default(), SystemTime::now()).expect("a certificate");
    Workload { key, chain: leaf.chain }
}

fn handshake(c: &mut Criterion) {
    let domain = "mesh.local".parse().expect("a domain");
    let (authority, _) = Authority::create(&domain, SystemTime::now()).expect("an authority");
    let [web, cart] = ["web", "cart"].map(|account| {
        format!("spiffe://mesh.local/ns/shop/sa/{account}").parse::<SpiffeId>().expect("an identity")
    });
    let (client, server) = (workload(&authority, &web), workload(&authority, &cart));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("handshake");

    let ours = |of: &Workload| {
        Arc::new(WorkloadIdentity::from_parts(&of.key, &of.chain, &authority.trust()).expect("an identity"))
    };
    let connector = MeshConnector::new(&ours(&client)).expect("a connector");
    let acceptor = MeshAcceptor::new(&ours(&server), &MeshAlpn::ALL).expect("an acceptor");
    let expected = [cart];
    group.bench_function("of the mesh", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let (near, far) = duplex(64 * 1024);
                let connecting = connector.connect(near, &expected, MeshAlpn::H2);
                let (accepted, connected) = tokio::join!(acceptor.accept(far), connecting);
                (accepted.expect("accepted"), connected.expect("connected"))
            })
        });
    });

    let (connector, acceptor) = alone(&authority, &client, &server);
    let name = ServerName::try_from("cart").expect("a name");
    group.bench_function("of the library alone", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let (near, far) = duplex(64 * 1024);
                let connecting = connector.connect(name.clone(), near);
                let (accepted, connected) = tokio::join!(acceptor.accept(far), connecting);
                (accepted.expect("accepted"), connected.expect("connected"))
            })
        });
    });
    group.finish();
}

/// The same keys and certificates; the client takes any certificate, since a standard verifier wants a host name.
fn alone(
    authority: &Authority,
    client: &Workload,
    server: &Workload,
) -> (tokio_rustls::TlsConnector, tokio_rustls::TlsAcceptor) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let parts = |of: &Workload| {
        let chain: Vec<_> = of.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        (chain, PrivateKeyDer::from_pem_slice(of.key.to_pem().as_bytes()).expect("its key"))
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.root_der().to_vec().into()).expect("a root");
    let (chain, key) = parts(client);
    let anybody = Arc::new(Anybody(Arc::clone(&provider)));
    let connects = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(anybody)
        .with_client_auth_cert(chain, key)
        .expect("a certificate");
    let (chain, key) = parts(server);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut accepts = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("a certificate");
    // As in the mesh: nothing is resumed.
    accepts.send_tls13_tickets = 0;
    (Arc::new(connects).into(), Arc::new(accepts).into())
}

/// Looks at the signature of the handshake only.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

criterion_group!(benches, handshake);
criterion_main!(benches);
