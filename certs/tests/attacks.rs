//! What a peer or a requester may try that the plain cases do not cover.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod cases;
mod forge;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forge::{Forge, domain, id, identity_for, uri};
use outrigger_certs::{
    Authority, CertError, ControlAcceptor, ControlConnector, HandshakeError, LeafLifetime, MeshAcceptor,
    MeshAlpn, MeshConnector, PeerError, Role, TrustBundle, WorkloadIdentity, WorkloadKey, control_plane_id,
    peer_from_chain,
};
use outrigger_mesh::{Label, SpiffeId, Trust, TrustDomain};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CustomExtension, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::duplex;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_second_name_that_is_not_text_still_counts_as_a_second_name() {
    // SEQUENCE { [6] "spiffe://mesh.local/ns/shop/sa/cart", [6] <0xff> }: a reader that skips what it can not read sees one.
    let name = b"spiffe://mesh.local/ns/shop/sa/cart";
    let mut names = vec![0x86, u8::try_from(name.len()).unwrap()];
    names.extend_from_slice(name);
    names.extend_from_slice(&[0x86, 1, 0xff]);
    let mut san = vec![0x30, u8::try_from(names.len()).unwrap()];
    san.extend(names);
    let forge = Forge::new();
    let why = forge
        .verdict(|p| {
            p.subject_alt_names.clear();
            p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], san)];
        })
        .unwrap_err();
    assert!(why.contains("name"), "{why}");
}

#[test]
fn a_leaf_with_another_kind_of_key_is_refused() {
    for kind in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let forge = Forge::new();
        let key = KeyPair::generate_for(kind).unwrap();
        let why = forge.verdict_with(&key, |_| {}).unwrap_err();
        assert!(why.contains("P-256"), "{why}");
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    assert_eq!(Forge::new().verdict_with(&key, |_| {}), Ok(()), "Ed25519 is good");
}

#[test]
fn names_of_hosts_and_a_common_name_beside_the_identity_are_no_fault() {
    let verdict = Forge::new().verdict(|p| {
        p.subject_alt_names.push(rcgen::SanType::DnsName("cart.bench.local".try_into().unwrap()));
        p.distinguished_name.push(rcgen::DnType::CommonName, "cart");
    });
    assert_eq!(verdict, Ok(()));
}

#[test]
fn a_root_that_is_no_authority_or_whose_time_is_over_vouches_for_nobody() {
    let no_ca = Forge::with_root(|p| p.is_ca = IsCa::NoCa);
    let why = no_ca.verdict(|_| {}).unwrap_err();
    assert!(why.contains("root"), "{why}");

    let may_not_sign = Forge::with_root(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let why = may_not_sign.verdict(|_| {}).unwrap_err();
    assert!(why.contains("root"), "{why}");

    let over = Forge::with_root(|p| p.not_after = p.not_before + Duration::from_secs(1));
    let why = over.verdict(|_| {}).unwrap_err();
    assert!(why.contains("expired"), "{why}");
}

#[test]
fn an_intermediate_must_be_an_authority_that_may_sign() {
    let forge = Forge::new();
    assert_eq!(forge.verdict_through(|_| {}), Ok(()), "the base of the cases is good");
    let why = forge.verdict_through(|p| p.is_ca = IsCa::ExplicitNoCa).unwrap_err();
    assert!(why.contains("verify"), "{why}");
    let why = forge.verdict_through(|p| p.is_ca = IsCa::NoCa).unwrap_err();
    assert!(why.contains("verify"), "without basicConstraints: {why}");
    let why = forge.verdict_through(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]).unwrap_err();
    assert!(why.contains("verify"), "{why}");
}

#[test]
fn a_root_vouches_only_for_its_own_trust_domain() {
    let (ours, theirs) = (Forge::new(), Forge::new());
    let other = TrustDomain::new("other.local").unwrap();
    let bundle =
        TrustBundle::new(&[ours.trust(), Trust { trust_domain: other, roots: theirs.trust().roots }])
            .unwrap();
    let verdict = |forge: &Forge, name: &'static str| {
        let leaf = CertificateDer::from(forge.leaf(|p| p.subject_alt_names = vec![uri(name)]));
        peer_from_chain(&[leaf], &bundle, Role::Client, UnixTime::now()).map(|p| p.id().to_string())
    };
    assert!(verdict(&theirs, "spiffe://other.local/ns/shop/sa/cart").is_ok());
    assert!(verdict(&ours, "spiffe://mesh.local/ns/shop/sa/cart").is_ok());
    let crossed = verdict(&theirs, "spiffe://mesh.local/ns/shop/sa/cart");
    assert!(matches!(crossed, Err(PeerError::Chain(_))), "{crossed:?}");
}

#[test]
fn a_peer_whose_clock_is_ten_minutes_behind_believes_a_fresh_certificate() {
    let now = SystemTime::now();
    let (authority, _) = Authority::create(&domain(), now).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let leaf = authority.sign(&key.csr().unwrap(), &id("cart"), LeafLifetime::default(), now).unwrap();
    let chain: Vec<_> = leaf.chain.iter().map(|d| CertificateDer::from(d.clone())).collect();
    let bundle = TrustBundle::new(&[authority.trust()]).unwrap();
    let at = |t: SystemTime| UnixTime::since_unix_epoch(t.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let skewed = now - Duration::from_secs(600);
    assert!(peer_from_chain(&chain, &bundle, Role::Server, at(skewed)).is_ok());
    let later = peer_from_chain(&chain, &bundle, Role::Server, at(now + 25 * HOUR));
    assert!(matches!(later, Err(PeerError::Expired)), "{later:?}");
    let earlier = peer_from_chain(&chain, &bundle, Role::Server, at(now - HOUR));
    assert!(matches!(earlier, Err(PeerError::NotYetValid)), "{earlier:?}");
}

#[test]
fn a_leaf_never_outlives_the_authority_that_signed_it() {
    let now = SystemTime::now();
    // Made so long ago that its intermediate has a few hours left.
    let made = now - Duration::from_secs(5 * 365 * 24 * 3600) + 5 * HOUR;
    let (authority, _) = Authority::create(&domain(), made).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let sign = |at| authority.sign(&key.csr().unwrap(), &id("cart"), LeafLifetime::default(), at);
    let left = sign(now).unwrap().not_after.duration_since(now).unwrap();
    assert!(left <= 5 * HOUR, "{left:?}");
    assert!(sign(now + 6 * HOUR).is_err(), "an authority whose time is over signs nothing");
}

#[test]
fn a_p384_key_that_signs_its_request_with_sha256_is_still_a_p384_key() {
    let (authority, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let csr = forge::p384_request_signed_with_sha256();
    let refused = authority.sign(&csr, &id("cart"), LeafLifetime::default(), SystemTime::now()).unwrap_err();
    assert!(refused.to_string().contains("P-256"), "{refused}");
}

#[test]
fn bytes_after_a_request_are_refused() {
    let (authority, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let mut csr = WorkloadKey::generate().unwrap().csr().unwrap();
    csr.extend_from_slice(b"and more");
    assert!(authority.sign(&csr, &id("cart"), LeafLifetime::default(), SystemTime::now()).is_err());
}

#[test]
fn an_authority_whose_parts_do_not_belong_together_is_refused() {
    let now = SystemTime::now();
    let (_, a) = Authority::create(&domain(), now).unwrap();
    let (_, b) = Authority::create(&domain(), now).unwrap();
    let mut mixed = a;
    mixed.intermediate_key = b.intermediate_key;
    assert!(matches!(Authority::load(&domain(), &mixed), Err(CertError::Mismatch)));
    let (_, a) = Authority::create(&domain(), now).unwrap();
    mixed = a;
    mixed.root = b.root;
    assert!(Authority::load(&domain(), &mixed).is_err(), "a root that did not sign the intermediate");
    let (_, a) = Authority::create(&domain(), now).unwrap();
    mixed = a;
    mixed.root_key = b.root_key;
    assert!(matches!(Authority::load(&domain(), &mixed), Err(CertError::Mismatch)));
}

#[tokio::test]
async fn the_control_plane_of_another_believed_trust_domain_is_not_ours() {
    let (ours, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let other = TrustDomain::new("other.local").unwrap();
    let (theirs, _) = Authority::create(&other, SystemTime::now()).unwrap();
    let web = identity_for(&ours, &id("web"));
    // Federation: both meshes believe each other's roots.
    web.trust().update(&theirs.trust()).unwrap();
    let control = identity_for(&theirs, &control_plane_id(&other).unwrap());
    control.trust().update(&ours.trust()).unwrap();
    let (near, far) = duplex(64 * 1024);
    let acceptor = ControlAcceptor::new(&control).unwrap();
    let accept = tokio::spawn(async move { acceptor.accept(far).await.map(|_| ()) });
    let refused = ControlConnector::new(&web).unwrap().connect(near).await.map(|(_, peer)| peer);
    assert!(matches!(refused, Err(HandshakeError::WrongIdentity { .. })), "{refused:?}");
    let _ = accept.await;
}

#[tokio::test]
async fn what_the_verifier_refuses_arrives_as_an_unauthenticated_peer_on_both_sides() {
    let (ours, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let (theirs, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let (web, cart) = (identity_for(&ours, &id("web")), identity_for(&theirs, &id("cart")));
    let (near, far) = duplex(64 * 1024);
    let acceptor = MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap();
    let accept = tokio::spawn(async move { acceptor.accept(far).await.map(|_| ()) });
    let refused = MeshConnector::new(&web).unwrap().connect(near, &[id("cart")], MeshAlpn::H2).await;
    assert!(matches!(refused, Err(HandshakeError::PeerUnauthenticated(PeerError::Chain(_)))), "{refused:?}");
    let told = accept.await.unwrap().unwrap_err();
    assert!(matches!(told, HandshakeError::Io(_)) && told.to_string().contains("alert"), "{told}");
}

#[tokio::test]
async fn a_raw_client_without_our_rules_gets_nowhere() {
    let forge = Forge::new();
    let server = forge.identity("cart");
    // (what it tries, the client, whether the server's verdict is that the peer is not authenticated)
    let day = 24 * HOUR;
    let cases = [
        ("no certificate", forge::raw_client(None, &["outrigger-h2"], false), true),
        (
            "an expired certificate",
            forge::raw_client(
                Some(
                    forge.pair(|p| (p.not_before, p.not_after) = (p.not_before - 2 * day, p.not_after - day)),
                ),
                &["outrigger-h2"],
                false,
            ),
            true,
        ),
        (
            "a certificate not yet valid",
            forge::raw_client(
                Some(forge.pair(|p| (p.not_before, p.not_after) = (p.not_before + day, p.not_after + day))),
                &["outrigger-h2"],
                false,
            ),
            true,
        ),
        (
            "an authority's certificate",
            forge::raw_client(
                Some(forge.pair(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
                &["outrigger-h2"],
                false,
            ),
            true,
        ),
        (
            "two identities",
            forge::raw_client(
                Some(forge.pair(|p| p.subject_alt_names.push(uri("spiffe://mesh.local/ns/shop/sa/web")))),
                &["outrigger-h2"],
                false,
            ),
            true,
        ),
        (
            "a stranger's root",
            forge::raw_client(Some(Forge::new().pair(|_| {})), &["outrigger-h2"], false),
            true,
        ),
        ("no protocol", forge::raw_client(Some(forge.pair(|_| {})), &[], false), false),
        ("the application's protocol", forge::raw_client(Some(forge.pair(|_| {})), &["h2"], false), false),
        ("TLS 1.2", forge::raw_client(Some(forge.pair(|_| {})), &["outrigger-h2"], true), false),
    ];
    let good = forge::raw_client(Some(forge.pair(|_| {})), &["outrigger-h2"], false);
    assert!(forge::try_raw(&server, good).await.is_ok(), "the base of all cases is good");
    for (what, client, unauthenticated) in cases {
        let verdict = forge::try_raw(&server, client).await.unwrap_err();
        let is = matches!(verdict, HandshakeError::PeerUnauthenticated(_));
        assert_eq!(is, unauthenticated, "{what}: {verdict:?}");
        if what.contains("protocol") {
            assert!(matches!(verdict, HandshakeError::Alpn(_)), "{what}: {verdict:?}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_refused() {
    use tokio::io::AsyncWriteExt;
    let server = Forge::new().identity("cart");
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
    let refused = MeshAcceptor::new(&server, &MeshAlpn::ALL).unwrap().accept(far).await;
    assert!(matches!(refused, Err(HandshakeError::Io(_))), "{refused:?}");
}

#[tokio::test]
async fn a_connection_made_twice_is_a_full_handshake_both_times() {
    let forge = Forge::new();
    let (web, cart) = (forge.identity("web"), forge.identity("cart"));
    let acceptor = MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap();
    let connector = MeshConnector::new(&web).unwrap();
    for _ in 0..3 {
        let (near, far) = duplex(64 * 1024);
        let expected = [id("cart")];
        let (a, c) = tokio::join!(acceptor.accept(far), connector.connect(near, &expected, MeshAlpn::Tcp));
        let (a, c) = (a.unwrap(), c.unwrap());
        let kind = c.stream.get_ref().1.handshake_kind();
        assert!(matches!(kind, Some(rustls::HandshakeKind::Full)), "{kind:?}");
        let group = a.stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(a.stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
}

#[tokio::test]
async fn a_root_that_is_taken_away_ends_the_belief_in_the_next_handshake() {
    let (old, new) = (Forge::new(), Forge::new());
    let (web, cart) = (old.identity("web"), old.identity("cart"));
    let acceptor = MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap();
    let connector = MeshConnector::new(&web).unwrap();
    let connect = async || {
        let (near, far) = duplex(64 * 1024);
        let expected = [id("cart")];
        let (a, c) = tokio::join!(async { acceptor.accept(far).await.map(|a| a.peer) }, async {
            connector.connect(near, &expected, MeshAlpn::Tcp).await.map(|c| c.peer)
        });
        (a, c)
    };
    assert!(connect().await.0.is_ok());
    cart.trust().update(&new.trust()).unwrap();
    let refused = connect().await.0;
    assert!(matches!(refused, Err(HandshakeError::PeerUnauthenticated(_))), "{refused:?}");

    let nonsense = Trust { trust_domain: domain(), roots: vec![Arc::from(&b"no certificate"[..])] };
    assert!(cart.trust().update(&nonsense).is_err());
    cart.trust().update(&old.trust()).unwrap();
    assert!(connect().await.0.is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_certificate_of_one_identity_is_never_accepted_as_another(
        (a, b) in (
            ("[a-c]-?[a-c]{1,3}", "[a-c]{1,3}"),
            ("[a-c]-?[a-c]{1,3}", "[a-c]{1,3}"),
        )
    ) {
        let id = |(ns, sa): &(String, String)| SpiffeId::new(domain(), Label::new(ns).unwrap(), Label::new(sa).unwrap());
        let (a, b) = (id(&a), id(&b));
        let (authority, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
        let (server, client) = (identity_for(&authority, &a), identity_for(&authority, &a));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let verdict = runtime.block_on(async {
            let (near, far) = duplex(64 * 1024);
            let acceptor = MeshAcceptor::new(&server, &MeshAlpn::ALL).unwrap();
            let expected = [b.clone()];
            let connector = MeshConnector::new(&client).unwrap();
            let (_, c) = tokio::join!(acceptor.accept(far), connector.connect(near, &expected, MeshAlpn::Tcp));
            c.map(|c| c.peer)
        });
        match verdict {
            Ok(peer) => prop_assert!(a == b && peer.id() == &b),
            Err(HandshakeError::WrongIdentity { got, .. }) => prop_assert!(a != b && got == a),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn no_bytes_as_a_chain_make_the_verifier_panic(
        chain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        flip in any::<prop::sample::Index>(),
    ) {
        let forge = Forge::new();
        let bundle = TrustBundle::new(&[forge.trust()]).unwrap();
        let verdict = |chain: Vec<Vec<u8>>| {
            let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
            peer_from_chain(&chain, &bundle, Role::Client, UnixTime::now()).is_ok()
        };
        prop_assert!(!verdict(chain));
        let mut leaf = forge.leaf(|_| {});
        let at = flip.index(leaf.len());
        leaf[at] ^= 1;
        prop_assert!(!verdict(vec![leaf]), "a flipped bit at {}", at);
    }
}

#[test]
fn certificate_files_make_an_identity_and_an_open_key_file_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let forge = Forge::new();
    let (cert, key, roots) =
        (folder.path().join("cart.pem"), folder.path().join("cart.key"), folder.path().join("ca.pem"));
    let (cert_pem, key_pem) = forge.pems(|p| {
        p.subject_alt_names.push(rcgen::SanType::DnsName("cart.bench.local".try_into().unwrap()));
    });
    std::fs::write(&cert, cert_pem).unwrap();
    std::fs::write(&key, key_pem).unwrap();
    std::fs::write(&roots, forge.root_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = WorkloadIdentity::from_pem_files(&cert, &key, &roots).unwrap_err().to_string();
    assert!(refused.contains("cart.key") && refused.contains("others"), "{refused}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (identity, trust) = WorkloadIdentity::from_pem_files(&cert, &key, &roots).unwrap();
    assert_eq!((identity.id(), trust), (&id("cart"), forge.trust()));
    std::fs::remove_file(&roots).unwrap();
    let refused = WorkloadIdentity::from_pem_files(&cert, &key, &roots).unwrap_err().to_string();
    assert!(refused.contains("ca.pem"), "{refused}");
}
