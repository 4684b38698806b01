//! Servers outside the mesh: proven by name and roots, in every way they can fail to be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::sync::Arc;

use outrigger_certs::{OutsideAlpn, OutsideConnector, OutsideError, OutsideName};
use outrigger_mesh::OutsideRoots;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::duplex;

/// An authority of somebody else.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let name = format!("outside {:?}", &key.public_key_raw()[..8]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self { params, key }
    }

    fn roots(&self) -> OutsideRoots {
        OutsideRoots::Only(vec![self.params.self_signed(&self.key).unwrap().der().as_ref().into()])
    }

    fn server(&self, name: &str, alpns: &[&str], valid_days: std::ops::Range<i64>) -> rustls::ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::days(valid_days.start);
        params.not_after = now + time::Duration::days(valid_days.end);
        let leaf = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(leaf.der().to_vec())],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        config.alpn_protocols = alpns.iter().map(|a| a.as_bytes().to_vec()).collect();
        config
    }
}

async fn meet(
    roots: &OutsideRoots,
    server: rustls::ServerConfig,
    name: &OutsideName,
    alpn: OutsideAlpn,
) -> Result<Option<String>, OutsideError> {
    let (near, far) = duplex(64 * 1024);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let connector = OutsideConnector::new(roots).unwrap();
    let (connected, accepted) = tokio::join!(connector.connect(near, name, alpn), acceptor.accept(far));
    connected?;
    Ok(accepted.unwrap().get_ref().1.server_name().map(str::to_owned))
}

fn host(name: &str) -> OutsideName {
    OutsideName::of_host(&name.parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_server_that_proves_its_name_is_believed_and_was_asked_for_by_it() {
    let authority = Authority::new();
    for (alpn, offered) in [
        (OutsideAlpn::H2, &["h2", "http/1.1"][..]),
        (OutsideAlpn::Http1, &["http/1.1"][..]),
        (OutsideAlpn::Http1, &[][..]),
        (OutsideAlpn::Opaque, &["h2"][..]),
    ] {
        let server = authority.server("api.example", offered, -1..1);
        let seen = meet(&authority.roots(), server, &host("api.example"), alpn).await.unwrap();
        assert_eq!(seen.as_deref(), Some("api.example"));
    }
    let server = authority.server("192.0.2.1", &[], -1..1);
    let address = OutsideName::of_address("192.0.2.1".parse().unwrap());
    let seen = meet(&authority.roots(), server, &address, OutsideAlpn::Opaque).await.unwrap();
    assert_eq!(seen, None, "an address is never sent as a name");
}

#[tokio::test]
async fn each_fault_of_a_server_is_told_apart() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let roots = authority.roots();
    let name = host("api.example");
    let refused = async |server| meet(&roots, server, &name, OutsideAlpn::H2).await.unwrap_err();

    let wrong = refused(authority.server("other.example", &["h2"], -1..1)).await;
    assert!(matches!(wrong, OutsideError::WrongName { .. }), "{wrong:?}");
    assert!(wrong.to_string().contains("not for api.example, but for"), "{wrong}");
    let expired = refused(authority.server("api.example", &["h2"], -2..-1)).await;
    assert!(matches!(expired, OutsideError::Expired { .. }), "{expired:?}");
    let early = refused(authority.server("api.example", &["h2"], 1..2)).await;
    assert!(matches!(early, OutsideError::NotYetValid { .. }), "{early:?}");
    let untrusted = refused(stranger.server("api.example", &["h2"], -1..1)).await;
    assert!(matches!(untrusted, OutsideError::Untrusted { .. }), "{untrusted:?}");
    for offered in [&["http/1.1"][..], &[][..]] {
        let speechless = refused(authority.server("api.example", offered, -1..1)).await;
        assert!(matches!(speechless, OutsideError::Alpn("HTTP/2")), "{speechless:?}");
    }
}

#[tokio::test]
async fn the_roots_of_the_system_do_not_vouch_for_a_private_authority() {
    let server = Authority::new().server("api.example", &[], -1..1);
    let refused = meet(&OutsideRoots::System, server, &host("api.example"), OutsideAlpn::Http1).await;
    assert!(matches!(refused, Err(OutsideError::Untrusted { .. })), "{refused:?}");
}

#[test]
fn a_root_that_is_none_is_refused() {
    let refused = OutsideConnector::new(&OutsideRoots::Only(vec![b"nonsense".as_slice().into()]));
    assert!(refused.err().unwrap().to_string().contains("root"));
}
