//! Who is not believed any more, and who is recognised as being of the mesh.

use std::collections::BTreeSet;

use outrigger_certs::{HandshakeError, MeshAcceptor, MeshAlpn, MeshConnector, PeerError, is_mesh_name};
use outrigger_mesh::TrustDomain;
use proptest::prelude::*;
use rustls::pki_types::ServerName;
use tokio::io::duplex;

use super::{CART, Draft, ROOT, World, der};
use crate::forge::{Anybody, domain, id};

#[tokio::test]
async fn a_revoked_identity_is_refused_by_both_sides_and_its_open_connections_are_known() {
    let world = World::new();
    let (web, cart) = (world.workload("web"), world.workload("cart"));
    let (acceptor, connector) =
        (MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap(), MeshConnector::new(&web).unwrap());
    let meet = async || {
        let (near, far) = duplex(64 * 1024);
        let expected = [id("cart")];
        tokio::join!(async { acceptor.accept(far).await.map(|a| a.peer) }, async {
            connector.connect(near, &expected, MeshAlpn::H2).await.map(|c| c.peer)
        })
    };
    let (Ok(caller), Ok(called)) = meet().await else { panic!("the base of the test is good") };
    let before = cart.trust().changes();
    cart.trust().revoke(BTreeSet::from([id("web"), id("somebody")]));
    assert_ne!(cart.trust().changes(), before);
    assert_eq!(cart.trust().believes(&caller), Err(PeerError::Revoked(id("web"))));
    assert!(matches!(meet().await.0, Err(HandshakeError::PeerUnauthenticated(PeerError::Revoked(_)))));
    cart.trust().revoke(BTreeSet::new());
    assert!(meet().await.0.is_ok());
    web.trust().revoke(BTreeSet::from([id("cart")]));
    assert!(web.trust().believes(&called).is_err());
    assert!(matches!(meet().await.1, Err(HandshakeError::PeerUnauthenticated(PeerError::Revoked(_)))));
}

#[tokio::test]
async fn a_peer_is_believed_for_as_long_as_the_root_that_vouched_for_it() {
    let (world, next) = (World::new(), World::new());
    let cart = world.workload("cart");
    let acceptor = MeshAcceptor::new(&cart, &MeshAlpn::ALL).unwrap();
    let connector = MeshConnector::new(&world.workload("web")).unwrap();
    let (near, far) = duplex(64 * 1024);
    let expected = [id("cart")];
    let (accepted, _) = tokio::join!(acceptor.accept(far), connector.connect(near, &expected, MeshAlpn::Tcp));
    let peer = accepted.unwrap().peer;
    let mut both = world.trust();
    both.roots.extend(next.trust().roots);
    cart.trust().update(&both).unwrap();
    assert_eq!(cart.trust().believes(&peer), Ok(()), "another root beside it changes nothing");
    let anew = Draft { serial: vec![9], ..Draft::authority(&world.root, ROOT, ROOT, None) }.sign(&world.root);
    both.roots = vec![anew.as_slice().into()];
    cart.trust().update(&both).unwrap();
    assert_eq!(cart.trust().believes(&peer), Ok(()), "the same root, signed anew");
    cart.trust().update(&next.trust()).unwrap();
    assert!(cart.trust().believes(&peer).is_err());
    cart.trust().update(&world.trust()).unwrap();
    cart.trust().forget(&TrustDomain::new("mesh.local").unwrap());
    assert_eq!(cart.trust().believes(&peer), Err(PeerError::ForeignDomain(domain())));
}

#[tokio::test]
async fn a_foreign_peer_is_of_the_mesh_when_it_names_the_mesh_and_proves_itself() {
    let world = World::new();
    let shown = world.shown(vec![world.leaf(ROOT, &world.root)]);
    let acceptor = MeshAcceptor::new(&world.workload("prices"), &MeshAlpn::ALL).unwrap();
    let call = async |name: &'static str, alpn: &str, proves: bool| {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(Anybody(provider)));
        let mut config = if proves {
            builder.with_client_cert_resolver(shown.clone())
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let (near, far) = duplex(64 * 1024);
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = ServerName::try_from(name).unwrap();
        let (accepted, _) = tokio::join!(acceptor.accept(far), connector.connect(name, near));
        accepted.map(|a| (a.alpn, a.foreign))
    };
    assert_eq!(call("prices.shop.outrigger.mesh", "h2", true).await.unwrap(), (MeshAlpn::H2, true));
    assert_eq!(call("outrigger.mesh", "http/1.1", true).await.unwrap(), (MeshAlpn::Http1, true));
    assert_eq!(call("outrigger.mesh", "outrigger-h2", true).await.unwrap(), (MeshAlpn::H2, false));
    let elsewhere = call("prices.shop.example", "h2", true).await;
    assert!(matches!(elsewhere, Err(HandshakeError::Alpn(_))), "{elsewhere:?}");
    let nobody = call("outrigger.mesh", "h2", false).await;
    assert!(matches!(nobody, Err(HandshakeError::PeerUnauthenticated(PeerError::Absent))), "{nobody:?}");
}

#[test]
fn only_the_mesh_and_what_lies_below_it_are_names_of_the_mesh() {
    for good in ["outrigger.mesh", "cart.shop.outrigger.mesh", "Cart.OUTRIGGER.mesh"] {
        assert!(is_mesh_name(good), "{good}");
    }
    for bad in ["", "mesh", "outrigger.mesh.", "xoutrigger.mesh", "outrigger.mesh.evil", "cart.shop.mesh"] {
        assert!(!is_mesh_name(bad), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever stands in the one URI, it is believed only as the identity that it spells, letter by letter.
    #[test]
    fn a_name_proves_an_identity_only_if_it_spells_it(
        name in prop_oneof![
            "spiffe://mesh[.]local/ns/[a-z0-9-]{1,9}/sa/[a-z0-9-]{1,9}".prop_map(String::into_bytes),
            "(spiffe|SPIFFE)://[a-zM.@:%]{1,12}/(ns|NS)/[a-z%/.]{0,9}/sa/[a-zA-Z\u{0}%?#]{0,9}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..60),
            (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
                let mut name = CART.as_bytes().to_vec();
                let at = at.index(name.len());
                name[at] = byte;
                name
            }),
        ]
    ) {
        use outrigger_certs::{Role, TrustBundle, peer_from_chain};
        use rustls::pki_types::{CertificateDer, UnixTime};
        let world = World::new();
        let mut draft = Draft::leaf(&world.key, ROOT, CART);
        draft.replace(der::SAN, [der::plain(der::SAN, der::names(&[&name]))]);
        let chain = [CertificateDer::from(draft.sign(&world.root))];
        let bundle = TrustBundle::new(&[world.trust()]).unwrap();
        if let Ok(peer) = peer_from_chain(&chain, &bundle, Role::Client, UnixTime::now()) {
            let told = peer.id().to_string();
            prop_assert_eq!(told.as_bytes(), &name[..]);
            prop_assert_eq!(peer.id().trust_domain().as_str(), "mesh.local");
        }
    }
}
