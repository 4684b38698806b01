//! Certificate files that somebody else renews.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_certs::{
    Authority, IdentityFiles, LeafLifetime, MeshAcceptor, MeshAlpn, MeshConnector, WorkloadIdentity,
    WorkloadKey,
};
use outrigger_proxy::identity::{
    CertificateFiles, FilesWatch, IdentitySettings, Obtained, Origin, RenewalStatus, obtain,
};
use outrigger_testkit::resources;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::control_common::web;

/// A folder as Kubernetes makes it: names that lead through `..data` to a folder that is swapped whole.
struct Mounted {
    root: tempfile::TempDir,
    versions: u32,
}

impl Mounted {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), root.path().join(name)).unwrap();
        }
        Self { root, versions: 0 }
    }

    fn files(&self) -> CertificateFiles {
        let at = |name: &str| -> PathBuf { self.root.path().join(name) };
        CertificateFiles { cert: at("tls.crt"), key: at("tls.key"), roots: at("ca.crt") }
    }

    /// Swaps the folder for one with these contents.
    fn swap(&mut self, cert: &str, key: &str, roots: &str) {
        self.versions += 1;
        let folder = format!("..version-{}", self.versions);
        let path = self.root.path().join(&folder);
        fs::create_dir(&path).unwrap();
        for (name, text) in [("tls.crt", cert), ("tls.key", key), ("ca.crt", roots)] {
            fs::write(path.join(name), text).unwrap();
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let fresh = self.root.path().join("..data_tmp");
        symlink(folder, &fresh).unwrap();
        fs::rename(fresh, self.root.path().join("..data")).unwrap();
    }
}

/// A certificate of `account` with its key, and the roots, as PEM.
fn issued(authority: &Authority, account: &str) -> (String, String, String) {
    let key = WorkloadKey::generate().unwrap();
    let id = resources::identity("shop", account);
    let now = SystemTime::now();
    let leaf = authority.sign(&key.csr().unwrap(), &id, LeafLifetime::default(), now).unwrap();
    let folder = tempfile::tempdir().unwrap();
    IdentityFiles::new(folder.path()).store(&key, &leaf.chain, &authority.trust()).unwrap();
    let both = fs::read_to_string(folder.path().join("identity.pem")).unwrap();
    let (key, cert) = both.split_at(both.find("-----BEGIN CERTIFICATE").unwrap());
    (cert.to_owned(), key.to_owned(), fs::read_to_string(folder.path().join("roots.pem")).unwrap())
}

fn authority() -> Authority {
    Authority::create(&resources::TRUST_DOMAIN.parse().unwrap(), SystemTime::now()).unwrap().0
}

async fn started(files: CertificateFiles) -> (Obtained, FilesWatch, Arc<RenewalStatus>) {
    let settings = IdentitySettings {
        id: web(),
        folder: None,
        files: Some(files.clone()),
        workload_api: None,
        control: None,
    };
    let obtained = obtain(&settings, |_| {}).await.unwrap();
    assert_eq!(obtained.from, Origin::Files);
    let mut watch = FilesWatch::new(files, &obtained);
    // Settles.
    watch.look();
    watch.look();
    let status = watch.status();
    assert_eq!((status.renewals(), status.failures()), (0, 0));
    (obtained, watch, status)
}

#[tokio::test]
async fn a_swapped_folder_is_in_use_at_the_second_look_and_open_connections_stay() {
    let (authority, mut mounted) = (authority(), Mounted::new());
    let (cert, key, roots) = issued(&authority, "web");
    mounted.swap(&cert, &key, &roots);
    let (obtained, mut watch, status) = started(mounted.files()).await;
    let before = obtained.identity.certificate_sha256();
    let peer: Arc<WorkloadIdentity> = {
        let key = WorkloadKey::generate().unwrap();
        let id = resources::identity("shop", "cart");
        let leaf =
            authority.sign(&key.csr().unwrap(), &id, LeafLifetime::default(), SystemTime::now()).unwrap();
        Arc::new(WorkloadIdentity::from_parts(&key, &leaf.chain, &authority.trust()).unwrap())
    };
    let acceptor = MeshAcceptor::new(&peer, &MeshAlpn::ALL).unwrap();
    let connector = MeshConnector::new(&obtained.identity).unwrap();
    let expected = [resources::identity("shop", "cart")];
    let meet = async || {
        let (near, far) = duplex(64 * 1024);
        let (a, c) = tokio::join!(acceptor.accept(far), connector.connect(near, &expected, MeshAlpn::Tcp));
        (a.unwrap(), c.unwrap())
    };
    let (mut accepted, mut connected) = meet().await;

    let (cert, key, roots) = issued(&authority, "web");
    mounted.swap(&cert, &key, &roots);
    watch.look();
    assert_eq!(status.renewals(), 0, "not before it has stood still");
    watch.look();
    assert_eq!((status.renewals(), status.failures()), (1, 0));
    assert_ne!(obtained.identity.certificate_sha256(), before);
    connected.stream.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    accepted.stream.read_exact(&mut heard).await.unwrap();
    let (again, _) = meet().await;
    assert_eq!(again.peer.certificate_sha256(), obtained.identity.certificate_sha256());
    watch.look();
    assert_eq!(status.renewals(), 1, "the same files are not taken twice");
}

#[tokio::test]
async fn a_set_that_does_not_belong_together_changes_nothing_and_the_next_good_one_does() {
    let (ours, other, mut mounted) = (authority(), authority(), Mounted::new());
    let (cert, key, roots) = issued(&ours, "web");
    mounted.swap(&cert, &key, &roots);
    let (obtained, mut watch, status) = started(mounted.files()).await;
    let before = obtained.identity.certificate_sha256();
    let fresh = issued(&ours, "web");
    let (foreign, somebody) = (issued(&other, "web"), issued(&ours, "cart"));
    let bad = [
        ("a key of another certificate", (&fresh.0, &key, &roots)),
        ("roots of another mesh", (&fresh.0, &fresh.1, &foreign.2)),
        ("somebody else", (&somebody.0, &somebody.1, &roots)),
        ("half a file", (&fresh.0[..200].to_owned(), &fresh.1, &roots)),
    ];
    for (count, (what, (cert, key, roots))) in (1..).zip(bad) {
        mounted.swap(cert, key, roots);
        watch.look();
        watch.look();
        watch.look();
        assert_eq!((status.renewals(), status.failures()), (0, count), "{what}");
        assert_eq!(obtained.identity.certificate_sha256(), before, "{what}");
    }
    // A key that others may read.
    mounted.swap(&fresh.0, &fresh.1, &roots);
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(mounted.root.path().join("tls.key"), open).unwrap();
    watch.look();
    watch.look();
    assert_eq!((status.renewals(), status.failures()), (0, 5));
    mounted.swap(&foreign.0, &foreign.1, &foreign.2);
    watch.look();
    watch.look();
    assert_eq!(status.renewals(), 1, "a whole set under other roots is one");
}
