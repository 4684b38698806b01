//! Keeping an authority and an identity on disk: made once, private, refused when anything is wrong, never overwritten.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use outrigger_certs::{Authority, IdentityFiles, LeafLifetime, WorkloadKey};
use outrigger_mesh::{SpiffeId, TrustDomain};
use proptest::prelude::*;

fn domain() -> TrustDomain {
    TrustDomain::new("mesh.local").unwrap()
}

fn cart() -> SpiffeId {
    "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_made_once_and_only_its_owner_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ca = ca.clone();
            std::thread::spawn(move || Authority::open_or_create(&ca, &domain()).unwrap().root_sha256())
        })
        .collect();
    let roots: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "four starts at once made one root");
    assert_eq!((mode(&ca), mode(&ca.join("authority.pem"))), (0o700, 0o600));
}

#[test]
fn a_corrupt_or_foreign_authority_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    Authority::open_or_create(folder.path(), &domain()).unwrap();
    let file = folder.path().join("authority.pem");
    let good = fs::read_to_string(&file).unwrap();

    let other = TrustDomain::new("other.local").unwrap();
    let refused = Authority::open_or_create(folder.path(), &other).unwrap_err().to_string();
    assert!(refused.contains("mesh.local") && refused.contains("other.local"), "{refused}");

    for bad in ["", "trust-domain: mesh.local\n", &good[..good.len() / 2], &good.replace("MII", "MXX")] {
        fs::write(&file, bad).unwrap();
        assert!(Authority::open_or_create(folder.path(), &domain()).is_err(), "{} bytes", bad.len());
        assert_eq!(fs::read_to_string(&file).unwrap(), bad);
    }
    fs::write(&file, &good).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Authority::open_or_create(folder.path(), &domain()).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[test]
fn a_folder_that_others_may_change_keeps_no_authority() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Authority::open_or_create(folder.path(), &domain()).unwrap_err().to_string();
    assert!(refused.contains("chmod 700"), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn an_identity_reads_back_and_each_fault_has_its_own_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let files = IdentityFiles::new(folder.path());
    assert!(files.load(&cart()).unwrap().is_none(), "nothing was stored yet");

    let (authority, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let sign = |life: Duration, now: SystemTime| {
        authority.sign(&key.csr().unwrap(), &cart(), LeafLifetime::for_tests(life), now).unwrap().chain
    };
    let hour = Duration::from_secs(3600);
    files.store(&key, &sign(hour, SystemTime::now()), &authority.trust()).unwrap();
    let (loaded, trust) = files.load(&cart()).unwrap().expect("it was stored");
    assert_eq!((loaded.id(), trust), (&cart(), authority.trust()));
    let file = folder.path().join("identity.pem");
    assert_eq!(mode(&file), 0o600);

    let web: SpiffeId = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
    let refused = files.load(&web).unwrap_err().to_string();
    assert!(refused.contains("sa/cart") && refused.contains("sa/web"), "{refused}");

    files
        .store(&WorkloadKey::generate().unwrap(), &sign(hour, SystemTime::now()), &authority.trust())
        .unwrap();
    let refused = files.load(&cart()).unwrap_err().to_string();
    assert!(refused.contains("not the key"), "{refused}");

    files.store(&key, &sign(hour, SystemTime::now() - 2 * hour), &authority.trust()).unwrap();
    assert_eq!(files.load(&cart()).unwrap_err().to_string(), "the certificate has expired");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(files.load(&cart()).unwrap_err().to_string().contains("chmod 600"));
}

#[test]
fn a_request_names_nobody_and_a_foreign_key_kind_is_not_signed() {
    let (authority, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let now = SystemTime::now();
    // The request asks to be web; the certificate is for whom the control plane attested.
    let mut params = rcgen::CertificateParams::default();
    let web = "spiffe://mesh.local/ns/shop/sa/web";
    params.subject_alt_names = vec![rcgen::SanType::URI(web.try_into().unwrap())];
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = params.serialize_request(&key).unwrap();
    let leaf = authority.sign(csr.der(), &cart(), LeafLifetime::default(), now).unwrap();
    let text = String::from_utf8_lossy(&leaf.chain[0]).into_owned();
    assert!(text.contains("sa/cart") && !text.contains("sa/web"));

    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&p384).unwrap();
    let refused = authority.sign(csr.der(), &cart(), LeafLifetime::default(), now).unwrap_err().to_string();
    assert!(refused.contains("P-256"), "{refused}");

    let foreign: SpiffeId = "spiffe://other.local/ns/shop/sa/cart".parse().unwrap();
    let own = WorkloadKey::generate().unwrap().csr().unwrap();
    assert!(authority.sign(&own, &foreign, LeafLifetime::default(), now).is_err());
    let mut flipped = own.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(
        authority.sign(&flipped, &cart(), LeafLifetime::default(), now).is_err(),
        "its signature is checked"
    );
}

#[test]
fn renewal_is_due_around_half_of_what_is_left() {
    let (authority, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let now = SystemTime::now();
    let leaf = authority.sign(&key.csr().unwrap(), &cart(), LeafLifetime::default(), now).unwrap();
    let identity =
        outrigger_certs::WorkloadIdentity::from_parts(&key, &leaf.chain, &authority.trust()).unwrap();
    let hours = |jitter| identity.renew_at(now, jitter).duration_since(now).unwrap().as_secs_f64() / 3600.0;
    assert!((hours(0.0) - 9.6).abs() < 0.01 && (hours(1.0) - 14.4).abs() < 0.01);
}

proptest! {
    #[test]
    fn no_bytes_make_the_signer_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (authority, _) = Authority::create(&domain(), SystemTime::now()).unwrap();
        prop_assert!(authority.sign(&bytes, &cart(), LeafLifetime::default(), SystemTime::now()).is_err());
    }
}
