//! How a sidecar gets and keeps its identity, over real connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod control_common;
mod identity_files;
mod workload_api;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use control_common::{Sidecar, identity_settings, web};
use outrigger_certs::{IdentityFiles, JoinToken, LeafLifetime};
use outrigger_proxy::identity::{
    CertificateFiles, IdentityError, IdentitySettings, JoinSettings, Obtained, Origin, TokenSource, obtain,
};
use outrigger_testkit::{PlanServer, eventually, resources};
use outrigger_wire::rpc::{RpcError, RpcErrorKind};

async fn with_token(
    server: &PlanServer,
    folder: &Path,
    token: Option<JoinToken>,
) -> Result<Obtained, IdentityError> {
    obtain(&identity_settings(server, Some(folder), token), |_| {}).await
}

#[tokio::test]
async fn a_token_gives_an_identity_that_the_next_start_finds_on_disk() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = server.join_token("shop", "web");
    let joined = with_token(&server, folder.path(), Some(token.clone())).await.unwrap();
    assert_eq!((joined.identity.id(), joined.from), (&web(), Origin::Joined));
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    // The used token does no harm: it is not needed.
    let again = with_token(&server, folder.path(), Some(token)).await.unwrap();
    assert_eq!(again.from, Origin::Disk);
    assert_eq!(again.identity.certificate_sha256(), joined.identity.certificate_sha256());
    assert_eq!(server.signed().joined, 1);
}

#[tokio::test]
async fn a_used_or_unknown_token_is_refused_in_one_clear_line() {
    let server = PlanServer::start().await;
    let token = server.join_token("shop", "web");
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    with_token(&server, one.path(), Some(token.clone())).await.unwrap();
    let error = with_token(&server, other.path(), Some(token.clone())).await.unwrap_err().to_string();
    assert!(error.contains("refuses to attest this workload") && error.contains("used"), "{error}");
    assert!(!error.contains('\n') && !error.contains(&token.expose()[8..40]));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0, "nothing is written");
}

#[tokio::test]
async fn a_token_for_another_account_is_refused() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = server.join_token("shop", "cart");
    let error = with_token(&server, folder.path(), Some(token)).await.unwrap_err().to_string();
    assert!(error.contains("sa/cart") && error.contains("sa/web"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
}

#[tokio::test]
async fn a_control_plane_that_is_not_the_tokens_gets_no_token() {
    let (ours, theirs) = (PlanServer::start().await, PlanServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let token = ours.join_token("shop", "web");
    let error = with_token(&theirs, folder.path(), Some(token.clone())).await.unwrap_err();
    assert!(matches!(error, IdentityError::Stranger(_)), "{error}");
    // It was not used up by trying.
    with_token(&ours, folder.path(), Some(token)).await.unwrap();
}

#[tokio::test]
async fn an_absent_control_plane_is_waited_for() {
    let mut server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = identity_settings(&server, Some(folder.path()), Some(server.join_token("shop", "web")));
    server.kill().await;
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let waiting =
        tokio::spawn(async move { obtain(&settings, |why| said.send(why.to_owned()).unwrap()).await });
    let why = heard.recv().await.unwrap();
    assert!(why.contains("can not connect"), "{why}");
    server.revive(true).await;
    assert_eq!(waiting.await.unwrap().unwrap().from, Origin::Joined);
}

#[tokio::test]
async fn without_token_and_without_kept_identity_the_error_says_what_is_missing() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let error = with_token(&server, folder.path(), None).await.unwrap_err().to_string();
    assert!(error.contains("no join token"), "{error}");
}

#[tokio::test]
async fn a_kept_identity_that_is_somebody_elses_or_exposed_is_an_error_and_stays() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let cart = resources::identity("shop", "cart");
    let (key, chain) = server.certificate(&cart);
    IdentityFiles::new(folder.path()).store(&key, &chain, &server.authority().trust()).unwrap();
    let before = fs::read(folder.path().join("identity.pem")).unwrap();
    let token = || Some(server.join_token("shop", "web"));
    let error = with_token(&server, folder.path(), token()).await.unwrap_err().to_string();
    assert!(error.contains("sa/cart"), "{error}");

    let (key, chain) = server.certificate(&web());
    IdentityFiles::new(folder.path()).store(&key, &chain, &server.authority().trust()).unwrap();
    let file = folder.path().join("identity.pem");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let error = with_token(&server, folder.path(), token()).await.unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    assert_ne!(before, fs::read(&file).unwrap());
}

#[tokio::test]
async fn an_expired_kept_identity_is_replaced_only_with_a_token() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    server.set_leaf_lifetime(LeafLifetime::for_tests(Duration::from_secs(2)));
    with_token(&server, folder.path(), Some(server.join_token("shop", "web"))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let error = with_token(&server, folder.path(), None).await.unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
    server.set_leaf_lifetime(LeafLifetime::default());
    let token = server.join_token("shop", "web");
    assert_eq!(with_token(&server, folder.path(), Some(token)).await.unwrap().from, Origin::Joined);
}

#[tokio::test]
async fn a_mesh_made_anew_is_joined_with_its_token() {
    let (old, new) = (PlanServer::start().await, PlanServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    old.set(resources::service("shop/old"));
    let sidecar = Sidecar::start(&old, folder.path()).await;
    sidecar.learns("old").await;
    eventually("it is stored", || async { folder.path().join("snapshot.bundle").exists() }).await;
    drop(sidecar);
    let sidecar = Sidecar::start(&new, folder.path()).await;
    sidecar.linked().await;
    assert!(!sidecar.knows("old"), "what the other mesh said is not used");
}

#[tokio::test]
async fn files_of_somebody_else_are_taken_as_they_are() {
    let server = PlanServer::start().await;
    let (folder, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (key, chain) = server.certificate(&web());
    IdentityFiles::new(files.path()).store(&key, &chain, &server.authority().trust()).unwrap();
    let own = files.path().join("identity.pem");
    let settings = |id| IdentitySettings {
        id,
        folder: Some(folder.path().into()),
        files: Some(CertificateFiles {
            cert: own.clone(),
            key: own.clone(),
            roots: files.path().join("roots.pem"),
        }),
        workload_api: None,
        control: None,
    };
    assert_eq!(obtain(&settings(web()), |_| {}).await.unwrap().from, Origin::Files);
    let error = obtain(&settings(resources::identity("shop", "cart")), |_| {}).await.unwrap_err();
    assert!(matches!(error, IdentityError::OtherIdentity { .. }), "{error}");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(obtain(&settings(web()), |_| {}).await.unwrap_err().to_string().contains("chmod 600"));
}

#[tokio::test]
async fn a_token_file_that_is_missing_or_nonsense_is_named() {
    let server = PlanServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let settings = IdentitySettings {
        control: Some(JoinSettings {
            address: server.addr().to_string(),
            token: Some(TokenSource::File(path.clone())),
        }),
        ..identity_settings(&server, Some(folder.path()), None)
    };
    let error = obtain(&settings, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("token"), "{error}");
    fs::write(&path, "nonsense\n").unwrap();
    let error = obtain(&settings, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("not a join token"), "{error}");
    fs::write(&path, format!("{}\n", *server.join_token("shop", "web").expose())).unwrap();
    obtain(&settings, |_| {}).await.unwrap();
}

#[tokio::test]
async fn renewal_swaps_the_certificate_without_reconnecting_and_goes_on_when_refused() {
    let server = PlanServer::start().await;
    server.set_leaf_lifetime(LeafLifetime::for_tests(Duration::from_secs(12)));
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&server, folder.path()).await;
    sidecar.linked().await;
    let first = sidecar.obtained.identity.certificate_sha256();
    let kept = fs::read(folder.path().join("identity.pem")).unwrap();

    // Refused for longer than half a life, then granted.
    server.refuse_signing(Some(RpcError::new(RpcErrorKind::Internal, "the store is full")));
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(sidecar.obtained.identity.certificate_sha256(), first, "the valid one stays in use");
    server.refuse_signing(None);
    let swapped = || async { sidecar.obtained.identity.certificate_sha256() != first };
    eventually("it is renewed", swapped).await;
    eventually("it is stored", || async { fs::read(folder.path().join("identity.pem")).unwrap() != kept })
        .await;
    assert!(server.signed().renewed >= 1);
    assert_eq!(*sidecar.link.connections().borrow(), 1, "the link stayed");
}
