//! Handshakes that are wrong in another way than by their chain.

use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::{HandshakeError, MeshAcceptor, MeshAlpn, MeshConnector};
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::{ROOT, Shown, World};
use crate::forge::{Anybody, id};

fn client(shown: &Arc<Shown>, alpns: &[&str]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_cert_resolver(shown.clone());
    config.alpn_protocols = alpns.iter().map(|a| a.as_bytes().to_vec()).collect();
    config
}

fn server(
    shown: &Arc<Shown>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpns: &[&str],
) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(shown.clone());
    config.alpn_protocols = alpns.iter().map(|a| a.as_bytes().to_vec()).collect();
    config
}

const OLD: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn the_certificate_of_another_without_its_key_proves_nothing() {
    let (world, thief) = (World::new(), World::new());
    let stolen = vec![world.leaf(ROOT, &world.root)];
    // Public, and shown with the thief's own key.
    let shown = thief.shown(stolen);
    let refused = world.accepts(Arc::new(client(&shown, &["outrigger-h2"]))).await;
    assert!(
        matches!(refused, Err(HandshakeError::PeerUnauthenticated(_) | HandshakeError::Io(_))),
        "{refused:?}"
    );
    let refused = world.connects(Arc::new(server(&shown, BOTH, &["outrigger-h2"]))).await;
    assert!(
        matches!(refused, Err(HandshakeError::PeerUnauthenticated(_) | HandshakeError::Io(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_of_an_older_tls_or_another_protocol_is_left() {
    let world = World::new();
    let shown = world.shown(vec![world.leaf(ROOT, &world.root)]);
    let connects =
        async |versions, alpns: &[&str]| world.connects(Arc::new(server(&shown, versions, alpns))).await;
    connects(BOTH, &["outrigger-h2"]).await.expect("the base of the cases is good");
    let old = connects(OLD, &["outrigger-h2"]).await;
    assert!(matches!(old, Err(HandshakeError::Io(_))), "tls-1.2-only: {old:?}");
    let mute = connects(BOTH, &[]).await;
    assert!(matches!(mute, Err(HandshakeError::Alpn(None))), "no-protocol: {mute:?}");
    let other = connects(BOTH, &["http/1.1"]).await;
    assert!(matches!(other, Err(HandshakeError::Alpn(_))), "the application's protocol: {other:?}");
}

#[tokio::test]
async fn a_good_certificate_of_somebody_else_is_the_wrong_identity() {
    let world = World::new();
    let web = super::Draft::leaf(&world.key, ROOT, &id("web").to_string()).sign(&world.root);
    let refused = world.as_server(vec![web]).await;
    assert!(matches!(refused, Err(HandshakeError::WrongIdentity { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_half_way_is_given_up_after_five_seconds() {
    let world = World::new();
    let (prices, began) = (world.workload("prices"), tokio::time::Instant::now());
    // A record that announces more than it sends.
    let (mut near, far) = duplex(4096);
    near.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
    let refused = MeshAcceptor::new(&prices, &MeshAlpn::ALL).unwrap().accept(far).await;
    assert!(matches!(refused, Err(HandshakeError::Timeout(_))), "{refused:?}");
    let (_near, far) = duplex(4096);
    let refused = MeshConnector::new(&prices).unwrap().connect(far, &[id("cart")], MeshAlpn::H2).await;
    assert!(matches!(refused, Err(HandshakeError::Timeout(_))), "{refused:?}");
    assert_eq!(began.elapsed().as_secs(), Duration::from_secs(10).as_secs(), "five for each");
}

#[tokio::test]
async fn neither_side_resumes_a_session_nor_takes_early_data() {
    let world = World::new();
    let shown = world.shown(vec![world.leaf(ROOT, &world.root)]);
    let mut eager = client(&shown, &["outrigger-h2"]);
    eager.enable_early_data = true;
    let eager = tokio_rustls::TlsConnector::from(Arc::new(eager));
    let acceptor = MeshAcceptor::new(&world.workload("prices"), &MeshAlpn::ALL).unwrap();
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let name = ServerName::try_from("outrigger.mesh").unwrap();
        let (accepted, connected) = tokio::join!(acceptor.accept(far), eager.connect(name, near));
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        // Tickets would come with the first bytes.
        accepted.stream.write_all(b"!").await.unwrap();
        connected.write_all(b"?").await.unwrap();
        connected.read_u8().await.unwrap();
        accepted.stream.read_u8().await.unwrap();
        let session = connected.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!session.is_early_data_accepted());
    }

    let mut generous = server(&shown, BOTH, &["outrigger-h2"]);
    generous.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    generous.max_early_data_size = 1024;
    let generous = tokio_rustls::TlsAcceptor::from(Arc::new(generous));
    let connector = MeshConnector::new(&world.workload("prices")).unwrap();
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let expected = [id("cart")];
        let (accepted, connected) =
            tokio::join!(generous.accept(far), connector.connect(near, &expected, MeshAlpn::H2));
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        accepted.write_all(b"!").await.unwrap();
        assert_eq!(connected.stream.read_u8().await.unwrap(), b'!');
        assert_eq!(accepted.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}
