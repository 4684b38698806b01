//! Certificates that break one rule each, and clients that keep none of ours.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::{
    Authority, HandshakeError, LeafLifetime, MeshAcceptor, MeshAlpn, Peer, WorkloadIdentity, WorkloadKey,
};
use outrigger_mesh::{SpiffeId, Trust, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::duplex;

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("mesh.local").unwrap()
}

pub(crate) fn id(account: &str) -> SpiffeId {
    format!("spiffe://mesh.local/ns/shop/sa/{account}").parse().unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn identity_for(authority: &Authority, id: &SpiffeId) -> Arc<WorkloadIdentity> {
    let key = WorkloadKey::generate().unwrap();
    let leaf = authority.sign(&key.csr().unwrap(), id, LeafLifetime::default(), SystemTime::now()).unwrap();
    let mut chain = leaf.chain;
    chain.push(authority.root_der().to_vec());
    Arc::new(WorkloadIdentity::from_parts(&key, &chain, &authority.trust()).unwrap())
}

/// A root of the mesh that signs whatever it is asked to.
pub(crate) struct Forge {
    params: CertificateParams,
    key: KeyPair,
    root: Vec<u8>,
}

impl Forge {
    pub(crate) fn new() -> Self {
        Self::with_root(|_| {})
    }

    pub(crate) fn with_root(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = base();
        params.distinguished_name.push(rcgen::DnType::CommonName, "forged root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self { params, key, root }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust { trust_domain: domain(), roots: vec![self.root.as_slice().into()] }
    }

    pub(crate) fn root_pem(&self) -> String {
        pem(&self.root)
    }

    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        self.leaf_of(&KeyPair::generate().unwrap(), change)
    }

    fn leaf_of(&self, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = leaf_params("cart");
        change(&mut params);
        params.signed_by(key, &Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec()
    }

    /// Leaf and key, for a raw client.
    pub(crate) fn pair(&self, change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (self.leaf_of(&key, change), key)
    }

    /// Leaf and key as PEM.
    pub(crate) fn pems(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let (leaf, key) = self.pair(change);
        (pem(&leaf), key.serialize_pem())
    }

    pub(crate) fn identity(&self, account: &str) -> Arc<WorkloadIdentity> {
        let (leaf, key) = self.pair(|p| *p = leaf_params(account));
        let key = WorkloadKey::from_pem(&key.serialize_pem()).unwrap();
        Arc::new(WorkloadIdentity::from_parts(&key, &[leaf], &self.trust()).unwrap())
    }

    /// What the verifier says of a leaf that differs from a good one by `change`.
    pub(crate) fn verdict(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<(), String> {
        self.verdict_with(&KeyPair::generate().unwrap(), change)
    }

    pub(crate) fn verdict_with(
        &self,
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<(), String> {
        judge(vec![self.leaf_of(key, change)], &self.trust())
    }

    /// What the verifier says of a good leaf behind an intermediate that differs from a good one by `change`.
    pub(crate) fn verdict_through(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<(), String> {
        let mut params = base();
        params.distinguished_name.push(rcgen::DnType::CommonName, "forged intermediate");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let intermediate =
            params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec();
        let leaf = leaf_params("cart")
            .signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&params, &key))
            .unwrap();
        judge(vec![leaf.der().to_vec(), intermediate], &self.trust())
    }
}

fn judge(chain: Vec<Vec<u8>>, trust: &Trust) -> Result<(), String> {
    use outrigger_certs::{Role, TrustBundle, peer_from_chain};
    let bundle = TrustBundle::new(std::slice::from_ref(trust)).map_err(|e| e.to_string())?;
    let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
    let now = rustls::pki_types::UnixTime::now();
    peer_from_chain(&chain, &bundle, Role::Client, now).map(|_| ()).map_err(|e| e.to_string())
}

fn base() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - Duration::from_secs(60);
    params.not_after = now + Duration::from_secs(3600);
    params
}

fn leaf_params(account: &str) -> CertificateParams {
    let mut params = base();
    params.subject_alt_names = vec![uri(&id(account).to_string())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// A private key (PKCS#8) as PEM.
pub(crate) fn key_pem(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

/// A client that believes anybody and shows what it is given.
pub(crate) fn raw_client(
    pair: Option<(Vec<u8>, KeyPair)>,
    alpns: &[&str],
    tls12: bool,
) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] =
        if tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some((leaf, key)) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            builder.with_client_auth_cert(vec![CertificateDer::from(leaf)], key).unwrap()
        }
    };
    config.alpn_protocols = alpns.iter().map(|a| a.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// What the server makes of such a client.
pub(crate) async fn try_raw(
    server: &Arc<WorkloadIdentity>,
    client: Arc<rustls::ClientConfig>,
) -> Result<Peer, HandshakeError> {
    let (near, far) = duplex(64 * 1024);
    let acceptor = MeshAcceptor::new(server, &MeshAlpn::ALL).unwrap();
    let name = ServerName::try_from("anything.example").unwrap();
    let connector = tokio_rustls::TlsConnector::from(client);
    let (accepted, _) = tokio::join!(
        async { acceptor.accept(far).await.map(|a| a.peer) },
        // Held until the server has judged, which happens after the client is done.
        connector.connect(name, near)
    );
    accepted
}

#[derive(Debug)]
pub(crate) struct Anybody(pub(crate) Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A request that is consistent in itself: a P-384 key, its signature made over SHA-256 (by OpenSSL, `req -sha256`).
/// Whoever takes the kind of key from the signature's name takes it for a P-256 key.
pub(crate) fn p384_request_signed_with_sha256() -> Vec<u8> {
    use base64::Engine;
    let text = "\
        MIH3MH8CAQAwADB2MBAGByqGSM49AgEGBSuBBAAiA2IABPzaa3jaCt+loF741HvtUfGVvMJnF1CQKuYHpYLAVz6hhy78FtOEdcYT\
        IWP/fopKX7+1fMan6Fz81Fva5TQPDGV3bdmpLsciFaYAY4vrGFgVbiyy04V/C6y2aCSIymo7/aAAMAoGCCqGSM49BAMCA2gAMGUC\
        MDDNMW3Oc/dak6syXLJJMDdZFBo3hCDki89RaYZRv8B1b+rRJLI8XzFCRf0OGE6xigIxAOAIMd666HdPVlJJUCsQgDj+0FX7Jkn1\
        7X2mezTYLKSWbw1pCq5R09sIGbBVwKLuTQ==";
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
