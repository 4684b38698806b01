//! Certificate cases: each breaks one rule, has a name of its own and says what it attacks. Every one is driven through
//! whole handshakes, as the client of a [`MeshAcceptor`] and as the server of a [`MeshConnector`].

mod belief;
pub(crate) mod chains;
pub(crate) mod der;
pub(crate) mod leaves;
mod sessions;

use std::sync::Arc;

use der::{Draft, Key};
use outrigger_certs::{HandshakeError, MeshAcceptor, MeshAlpn, MeshConnector, WorkloadIdentity, WorkloadKey};
use outrigger_mesh::{Trust, TrustDomain};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, duplex};

use crate::forge::{Anybody, domain, id};

pub(crate) const CART: &str = "spiffe://mesh.local/ns/shop/sa/cart";
pub(crate) const ROOT: &str = "root";

/// One certificate case.
pub(crate) struct Case {
    pub id: &'static str,
    pub attacks: &'static str,
    pub chain: Made,
    /// What the refusal says.
    pub says: &'static str,
}

/// How a case's chain is made.
pub(crate) enum Made {
    /// A good leaf, but for one change.
    Leaf(fn(&mut Draft)),
    /// Anything.
    Chain(fn(&World) -> Vec<Vec<u8>>),
}

/// Two trust domains whose roots sign whatever they are asked to.
pub(crate) struct World {
    /// What `mesh.local` believes.
    pub root: Key,
    pub root_der: Vec<u8>,
    /// What `other.local` believes.
    pub other: Key,
    pub other_der: Vec<u8>,
    /// The key of whoever presents a chain.
    pub key: Key,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_root(|_| {})
    }

    pub(crate) fn with_root(change: impl FnOnce(&mut Draft)) -> Self {
        let (root, other, key) = (Key::new(), Key::new(), Key::new());
        let mut draft = Draft::authority(&root, ROOT, ROOT, None);
        change(&mut draft);
        let root_der = draft.sign(&root);
        let other_der = Draft::authority(&other, "other root", "other root", None).sign(&other);
        Self { root, root_der, other, other_der, key }
    }

    /// A leaf for cart, signed by `by`.
    pub(crate) fn leaf(&self, issuer: &'static str, by: &Key) -> Vec<u8> {
        Draft::leaf(&self.key, issuer, CART).sign(by)
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust { trust_domain: domain(), roots: vec![self.root_der.as_slice().into()] }
    }

    /// A good workload of `mesh.local` that believes both domains.
    pub(crate) fn workload(&self, account: &str) -> Arc<WorkloadIdentity> {
        let key = Key::new();
        let leaf = Draft::leaf(&key, ROOT, &id(account).to_string()).sign(&self.root);
        let key = WorkloadKey::from_pem(&crate::forge::key_pem(key.pkcs8())).unwrap();
        let identity = WorkloadIdentity::from_parts(&key, &[leaf], &self.trust()).unwrap();
        let other = TrustDomain::new("other.local").unwrap();
        let roots = vec![self.other_der.as_slice().into()];
        identity.trust().update(&Trust { trust_domain: other, roots }).unwrap();
        Arc::new(identity)
    }

    fn chain(&self, made: &Made) -> Vec<Vec<u8>> {
        match made {
            Made::Leaf(change) => {
                let mut draft = Draft::leaf(&self.key, ROOT, CART);
                change(&mut draft);
                vec![draft.sign(&self.root)]
            }
            Made::Chain(make) => make(self),
        }
    }

    /// A chain with the key of whoever presents it, whether they belong together or not.
    pub(crate) fn shown(&self, chain: Vec<Vec<u8>>) -> Arc<Shown> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.pkcs8().to_vec()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Arc::new(Shown(Arc::new(CertifiedKey::new(chain, key))))
    }

    /// What our server says of a client that presents `chain`.
    pub(crate) async fn as_client(&self, chain: Vec<Vec<u8>>) -> Result<(), HandshakeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_cert_resolver(self.shown(chain));
        config.alpn_protocols = vec![b"outrigger-h2".to_vec()];
        self.accepts(Arc::new(config)).await
    }

    /// What our server says of any client.
    pub(crate) async fn accepts(&self, config: Arc<rustls::ClientConfig>) -> Result<(), HandshakeError> {
        let acceptor = MeshAcceptor::new(&self.workload("prices"), &MeshAlpn::ALL).unwrap();
        let (near, far) = duplex(64 * 1024);
        let client = tokio::spawn(async move {
            let name = ServerName::try_from("anything.example").unwrap();
            if let Ok(mut stream) = tokio_rustls::TlsConnector::from(config).connect(name, near).await {
                let _until_it_is_told = stream.read(&mut [0; 1]).await;
            }
        });
        let verdict = acceptor.accept(far).await.map(|_| ());
        client.await.unwrap();
        verdict
    }

    /// What our client says of a server that presents `chain`.
    pub(crate) async fn as_server(&self, chain: Vec<Vec<u8>>) -> Result<(), HandshakeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(self.shown(chain));
        config.alpn_protocols = vec![b"outrigger-h2".to_vec()];
        self.connects(Arc::new(config)).await
    }

    /// What our client, which wants cart, says of any server.
    pub(crate) async fn connects(&self, config: Arc<rustls::ServerConfig>) -> Result<(), HandshakeError> {
        let connector = MeshConnector::new(&self.workload("prices")).unwrap();
        let (near, far) = duplex(64 * 1024);
        let server = tokio::spawn(async move {
            let _whatever = tokio_rustls::TlsAcceptor::from(config).accept(far).await;
        });
        let verdict = connector.connect(near, &[id("cart")], MeshAlpn::H2).await.map(|_| ());
        server.await.unwrap();
        verdict
    }
}

#[derive(Debug)]
pub(crate) struct Shown(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Shown {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Every case that is a chain.
pub(crate) fn all() -> Vec<Case> {
    leaves::all().into_iter().chain(chains::all()).collect()
}

#[tokio::test]
async fn each_certificate_case_is_refused_by_servers_and_by_clients_for_its_own_reason() {
    let world = World::new();
    let good = Made::Leaf(|_| {});
    world.as_client(world.chain(&good)).await.expect("the base of all cases is good");
    world.as_server(world.chain(&good)).await.expect("the base of all cases is good");
    let mut wrong = Vec::new();
    for case in all() {
        let chain = world.chain(&case.chain);
        for (side, verdict) in
            [("a client", world.as_client(chain.clone()).await), ("a server", world.as_server(chain).await)]
        {
            let told = match verdict {
                Ok(()) => "it got through".to_owned(),
                Err(HandshakeError::PeerUnauthenticated(why)) => why.to_string(),
                Err(other) => format!("not by the verifier: {other}"),
            };
            if !told.contains(case.says) {
                wrong.push(format!("{} ({}) of {side}: {told}", case.id, case.attacks));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_a_root_says_of_those_below_it_holds() {
    let under = |world: &World| {
        let key = Key::new();
        let above = Draft::authority(&key, ROOT, "intermediate", Some(0)).sign(&world.root);
        vec![world.leaf("intermediate", &key), above]
    };
    let free = World::new();
    free.as_client(under(&free)).await.expect("the base of the cases is good");
    let childless =
        World::with_root(|d| d.replace(der::BASIC, [der::critical(der::BASIC, der::basic(true, Some(0)))]));
    let refused = childless.as_client(under(&childless)).await.unwrap_err();
    assert!(refused.to_string().contains("verify"), "root-without-intermediates: {refused}");
    childless.as_client(vec![childless.leaf(ROOT, &childless.root)]).await.expect("a leaf it may sign");
}

#[test]
fn there_are_more_than_sixty_certificate_cases_and_each_has_a_name_of_its_own() {
    let cases = all();
    let ids: std::collections::BTreeSet<_> = cases.iter().map(|c| c.id).collect();
    assert_eq!(ids.len(), cases.len());
    assert!(cases.len() >= 60, "{}", cases.len());
    assert!(cases.iter().all(|c| !c.attacks.is_empty() && !c.says.is_empty()));
    println!("{} certificate cases", cases.len());
}
