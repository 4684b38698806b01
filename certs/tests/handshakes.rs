//! Handshakes between workloads, over in-memory pipes: who gets through and who does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::{
    Authority, ControlAcceptor, ControlConnector, HandshakeError, LeafLifetime, MeshAcceptor, MeshAlpn,
    MeshConnector, PeerError, RootHash, WorkloadIdentity, WorkloadKey, control_plane_id,
};
use outrigger_mesh::{SpiffeId, Trust, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fn domain() -> TrustDomain {
    TrustDomain::new("mesh.local").unwrap()
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://mesh.local/ns/shop/sa/{account}").parse().unwrap()
}

fn authority() -> Authority {
    Authority::create(&domain(), SystemTime::now()).unwrap().0
}

fn identity_for(authority: &Authority, id: &SpiffeId) -> Arc<WorkloadIdentity> {
    let key = WorkloadKey::generate().unwrap();
    let leaf = authority.sign(&key.csr().unwrap(), id, LeafLifetime::default(), SystemTime::now()).unwrap();
    let mut chain = leaf.chain;
    chain.push(authority.root_der().to_vec());
    Arc::new(WorkloadIdentity::from_parts(&key, &chain, &authority.trust()).unwrap())
}

/// One handshake; the identities each side saw.
async fn handshake(
    client: &Arc<WorkloadIdentity>,
    server: &Arc<WorkloadIdentity>,
    expected: &[SpiffeId],
) -> Result<(SpiffeId, SpiffeId), HandshakeError> {
    let (near, far) = duplex(64 * 1024);
    let acceptor = MeshAcceptor::new(server, &MeshAlpn::ALL).unwrap();
    let connector = MeshConnector::new(client).unwrap();
    let accept = tokio::spawn(async move {
        let mut accepted = acceptor.accept(far).await?;
        assert_eq!(accepted.alpn, MeshAlpn::H2);
        // A refused client certificate reaches the client only with the first bytes it reads.
        accepted.stream.write_all(b"!").await?;
        Ok::<_, HandshakeError>(accepted.peer.id().clone())
    });
    let connected = connector.connect(near, expected, MeshAlpn::H2).await;
    let connected = match connected {
        Ok(mut connected) => match connected.stream.read_u8().await {
            Ok(_) => Ok(connected),
            Err(e) => Err(HandshakeError::Io(e)),
        },
        Err(e) => Err(e),
    };
    // Dropping our end ends the other: neither side waits for its timeout.
    let seen = connected.map(|c| c.peer.id().clone());
    let accepted = accept.await.unwrap();
    Ok((accepted?, seen?))
}

#[tokio::test]
async fn each_side_learns_who_the_other_is() {
    let authority = authority();
    let (web, cart) = (identity_for(&authority, &id("web")), identity_for(&authority, &id("cart")));
    let seen = handshake(&web, &cart, &[id("cart")]).await.unwrap();
    assert_eq!(seen, (id("web"), id("cart")));
}

#[tokio::test]
async fn a_server_of_another_identity_is_refused() {
    let authority = authority();
    let (web, cart) = (identity_for(&authority, &id("web")), identity_for(&authority, &id("cart")));
    let (near, far) = duplex(64 * 1024);
    let acceptor = MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap();
    let accept = tokio::spawn(async move { acceptor.accept(far).await.map(|_| ()) });
    let refused = MeshConnector::new(&web).unwrap().connect(near, &[id("prices")], MeshAlpn::Http1).await;
    assert!(matches!(refused, Err(HandshakeError::WrongIdentity { .. })), "{refused:?}");
    let _ = accept.await;
}

#[tokio::test]
async fn a_peer_of_another_mesh_with_the_same_names_is_refused_by_both_sides() {
    let (ours, theirs) = (authority(), authority());
    let (web, cart) = (identity_for(&ours, &id("web")), identity_for(&theirs, &id("cart")));
    assert!(handshake(&web, &cart, &[id("cart")]).await.is_err());
    assert!(handshake(&cart, &web, &[id("web")]).await.is_err());
}

#[tokio::test]
async fn renewal_shows_in_new_handshakes_and_leaves_open_connections_alone() {
    let authority = authority();
    let (web, cart) = (identity_for(&authority, &id("web")), identity_for(&authority, &id("cart")));
    let acceptor = MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap();
    let connector = MeshConnector::new(&web).unwrap();
    let connect = async || {
        let (near, far) = duplex(64 * 1024);
        let expected = [id("cart")];
        let (a, c) = tokio::join!(acceptor.accept(far), connector.connect(near, &expected, MeshAlpn::Http1));
        (a.unwrap(), c.unwrap())
    };
    let (mut first_server, mut first_client) = connect().await;

    let key = WorkloadKey::generate().unwrap();
    let leaf =
        authority.sign(&key.csr().unwrap(), &id("cart"), LeafLifetime::default(), SystemTime::now()).unwrap();
    cart.install(&key, &leaf.chain).unwrap();

    let (_, second_client) = connect().await;
    assert_ne!(first_client.peer.certificate_sha256(), second_client.peer.certificate_sha256());
    first_server.stream.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    first_client.stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still here");
}

#[tokio::test]
async fn another_identitys_certificate_can_not_be_installed() {
    let authority = authority();
    let cart = identity_for(&authority, &id("cart"));
    let key = WorkloadKey::generate().unwrap();
    let leaf =
        authority.sign(&key.csr().unwrap(), &id("web"), LeafLifetime::default(), SystemTime::now()).unwrap();
    assert!(cart.install(&key, &leaf.chain).is_err());
    let other = WorkloadKey::generate().unwrap();
    assert!(cart.install(&other, &leaf.chain).is_err(), "a key that is not the certificate's");
    assert_eq!(cart.id(), &id("cart"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_the_handshake_timeout() {
    let authority = authority();
    let cart = identity_for(&authority, &id("cart"));
    let (_near, far) = duplex(64);
    let refused = MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap().accept(far).await;
    assert!(matches!(refused, Err(HandshakeError::Timeout(_))), "{refused:?}");
}

#[tokio::test]
async fn the_control_plane_is_known_by_its_roots_hash_before_there_is_a_certificate() {
    let authority = authority();
    let control = identity_for(&authority, &control_plane_id(&domain()).unwrap());
    let web = identity_for(&authority, &id("web"));
    let contact = async |connector: ControlConnector, server: &Arc<WorkloadIdentity>| {
        let (near, far) = duplex(64 * 1024);
        let acceptor = ControlAcceptor::new(server).unwrap();
        let accept = tokio::spawn(async move { acceptor.accept(far).await.map(|(_, peer)| peer) });
        let connected = connector.connect(near).await.map(|(_, peer)| peer);
        (connected, accept.await.unwrap())
    };
    let pin = authority.root_sha256();
    let (connected, accepted) = contact(ControlConnector::pinned(pin).unwrap(), &control).await;
    assert_eq!(connected.unwrap().id(), control.id());
    assert!(accepted.unwrap().is_none(), "no certificate yet");

    let (connected, accepted) = contact(ControlConnector::new(&web).unwrap(), &control).await;
    assert!(connected.is_ok());
    assert_eq!(accepted.unwrap().unwrap().id(), &id("web"));

    let elsewhere = RootHash::of(b"another root");
    let (connected, _) = contact(ControlConnector::pinned(elsewhere).unwrap(), &control).await;
    assert!(connected.unwrap_err().to_string().contains("another mesh"));
    // A workload of the mesh is not the control plane.
    let (connected, _) = contact(ControlConnector::pinned(pin).unwrap(), &web).await;
    assert!(matches!(connected, Err(HandshakeError::WrongIdentity { .. })), "{connected:?}");
}

/// A leaf that breaks one rule, signed by a root of the mesh.
struct BadLeaf(CertificateParams);

impl BadLeaf {
    fn new() -> Self {
        let mut p = CertificateParams::default();
        p.subject_alt_names = vec![uri("spiffe://mesh.local/ns/shop/sa/cart")];
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let now = time::OffsetDateTime::now_utc();
        (p.not_before, p.not_after) = (now - Duration::from_secs(60), now + Duration::from_secs(3600));
        Self(p)
    }

    fn but(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.0);
        self
    }

    fn verdict(self) -> Result<(), String> {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root_key = KeyPair::generate().unwrap();
        let root_cert = root.self_signed(&root_key).unwrap();
        let trust = Trust { trust_domain: domain(), roots: vec![root_cert.der().as_ref().into()] };
        let key = KeyPair::generate().unwrap();
        let leaf = self.0.signed_by(&key, &Issuer::from_params(&root, &root_key)).unwrap();
        let key = WorkloadKey::from_pem(&key.serialize_pem()).unwrap();
        WorkloadIdentity::from_parts(&key, &[leaf.der().to_vec()], &trust)
            .map(|_| ())
            .map_err(|e| e.to_string())
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn a_leaf_that_breaks_a_rule_is_refused_and_says_which() {
    assert_eq!(BadLeaf::new().verdict(), Ok(()), "the base of all cases is good");
    let day = Duration::from_secs(24 * 3600);
    let cases: Vec<(&str, BadLeaf, &str)> = vec![
        ("no name", BadLeaf::new().but(|p| p.subject_alt_names = vec![]), "0 URI names"),
        (
            "two names",
            BadLeaf::new().but(|p| p.subject_alt_names.push(uri("spiffe://mesh.local/ns/shop/sa/web"))),
            "2 URI names",
        ),
        (
            "a DNS name instead",
            BadLeaf::new().but(|p| p.subject_alt_names = vec![SanType::DnsName("cart".try_into().unwrap())]),
            "0 URI names",
        ),
        (
            "another trust domain",
            BadLeaf::new().but(|p| p.subject_alt_names = vec![uri("spiffe://other.local/ns/shop/sa/cart")]),
            "trust domain",
        ),
        (
            "percent in the name",
            BadLeaf::new().but(|p| p.subject_alt_names = vec![uri("spiffe://mesh.local/ns/shop/sa/c%61rt")]),
            "only a-z",
        ),
        (
            "NUL in the name",
            BadLeaf::new().but(|p| p.subject_alt_names = vec![uri("spiffe://mesh.local/ns/shop/sa/cart\0x")]),
            "only a-z",
        ),
        (
            "not of our form",
            BadLeaf::new().but(|p| p.subject_alt_names = vec![uri("https://mesh.local/ns/shop/sa/cart")]),
            "workload identity",
        ),
        (
            "an authority as leaf",
            BadLeaf::new().but(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "authority",
        ),
        ("no key usage", BadLeaf::new().but(|p| p.key_usages = vec![]), "digital signatures"),
        (
            "may sign certificates",
            BadLeaf::new().but(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            "digital signatures",
        ),
        ("no extended usage", BadLeaf::new().but(|p| p.extended_key_usages = vec![]), "clients and servers"),
        (
            "server only",
            BadLeaf::new().but(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "clients and servers",
        ),
        (
            "expired",
            BadLeaf::new().but(|p| (p.not_before, p.not_after) = (p.not_before - 2 * day, p.not_after - day)),
            "has expired",
        ),
        (
            "not yet valid",
            BadLeaf::new().but(|p| (p.not_before, p.not_after) = (p.not_before + day, p.not_after + day)),
            "not yet valid",
        ),
    ];
    for (what, leaf, reason) in cases {
        let why = leaf.verdict().expect_err(what);
        assert!(why.contains(reason), "{what}: {why}");
    }
}

#[test]
fn a_chain_longer_than_any_of_ours_is_refused_before_it_is_looked_at() {
    let authority = authority();
    let key = WorkloadKey::generate().unwrap();
    let leaf =
        authority.sign(&key.csr().unwrap(), &id("cart"), LeafLifetime::default(), SystemTime::now()).unwrap();
    let mut chain = leaf.chain;
    chain.extend(std::iter::repeat_n(authority.root_der().to_vec(), 5));
    let refused = WorkloadIdentity::from_parts(&key, &chain, &authority.trust()).unwrap_err();
    assert_eq!(refused.to_string(), PeerError::LongChain(7).to_string());
}

#[test]
fn for_all_pairs_the_certificate_of_one_is_never_that_of_another() {
    let authority = authority();
    let names = ["a", "b", "ab", "a-b", "a0"];
    for a in names {
        let proven = identity_for(&authority, &id(a));
        for b in names {
            assert_eq!(proven.id() == &id(b), a == b, "{a} {b}");
        }
    }
}
