//! A SPIFFE Workload API, as an agent on the machine would offer it: a Unix socket that hands out what the test says.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine;
use outrigger_certs::{Authority, LeafLifetime, WorkloadKey};
use outrigger_mesh::SpiffeId;
use outrigger_wire::workload_api::{Svid, Workload, serve_workload_api};
use tokio::net::UnixListener;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::task::Owned;

/// A running Workload API.
#[derive(Debug)]
pub struct WorkloadApiServer {
    folder: tempfile::TempDir,
    now: watch::Sender<Workload>,
    serving: Option<Owned>,
}

impl WorkloadApiServer {
    /// One that has nothing for anybody yet.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (now, _) = watch::channel(Workload::default());
        let mut server = Self { folder, now, serving: None };
        server.serve();
        server
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// Says this from now on.
    pub fn tell(&self, workload: Workload) {
        self.now.send_replace(workload);
    }

    /// Goes away.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.end().await;
        }
        let _best_effort = std::fs::remove_file(self.socket());
    }

    /// Comes back.
    pub fn serve(&mut self) {
        let listener = UnixListener::bind(self.socket()).expect("a socket");
        let now = self.now.subscribe();
        self.serving = Some(Owned::spawn(async move {
            serve_workload_api(listener, now).await.expect("it serves");
        }));
    }
}

/// A new certificate of `authority` for `id`, as a Workload API tells it.
pub fn issue_svid(authority: &Authority, id: &SpiffeId) -> Svid {
    let key = WorkloadKey::generate().expect("a key");
    let life = LeafLifetime::for_tests(Duration::from_secs(3600));
    let csr = key.csr().expect("a request");
    let leaf = authority.sign(&csr, id, life, SystemTime::now()).expect("a certificate");
    let pem = key.to_pem();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).expect("a key as PEM");
    Svid {
        id: id.to_string(),
        chain: leaf.chain.concat(),
        key: Zeroizing::new(der),
        bundle: authority.root_der().to_vec(),
    }
}
