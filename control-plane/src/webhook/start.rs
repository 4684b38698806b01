//! From the settings to a webhook that runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use outrigger_certs::{NamedAcceptor, NamedFiles};
use outrigger_inject::{KubernetesVersion, Settings as InjectSettings};
use outrigger_kube::api::{Address, ApiServer};
use outrigger_mesh::Hostname;
use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::api::Cluster;
use super::bundle;
use super::events::{self, Events};
use super::facts::Namespaces;
use super::figures::Figures;
use super::known::{Followed, Known};
use super::server::{Desk, serve};
use crate::ca::{Keeper, KubernetesSettings};
use crate::store::kubernetes::KubernetesStore;

/// What the operator says of it.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The names by which the API server calls it.
    pub names: Vec<String>,
    /// The files of a certificate, PEM, and its key, where somebody else keeps it fresh and tells the API server whom to believe.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file with what holds for all pods; without one, the defaults do.
    pub config: Option<PathBuf>,
    /// The cluster.
    pub cluster: Option<KubernetesSettings>,
}

/// One that runs. Dropped, it ends.
pub struct Webhook {
    /// Where it listens.
    pub address: SocketAddr,
    figures: Arc<Figures>,
    _tasks: JoinSet<()>,
}

/// So often it is looked whether the certificate is to be renewed.
const LOOK: Duration = Duration::from_secs(1);

impl Webhook {
    /// Starts it with a certificate of the mesh's authority, or that of the files. Where the cluster is the store, that follows its
    /// namespaces already. The error is one sentence for the operator.
    pub async fn start(
        listener: TcpListener,
        settings: WebhookSettings,
        keeper: Arc<Keeper>,
        store: Option<KubernetesStore>,
    ) -> anyhow::Result<Self> {
        let Some(cluster) = settings.cluster else {
            bail!("--webhook-listen needs --kubernetes-api: namespaces are asked of the API server");
        };
        let address = Address { url: cluster.api, token: cluster.token, roots: cluster.ca };
        let api = ApiServer::new(&address)?;
        let cluster: Arc<dyn Cluster> = Arc::new(api.clone());
        let names = settings.names.iter().map(|name| Hostname::new(name)).collect::<Result<Vec<_>, _>>();
        let names = names.context("--webhook-name")?;
        let inject = read(settings.config.as_ref())?.with_version_of(&*cluster).await;
        let (tls, kept) = match &settings.tls {
            None => keeper.server(names).map(|(tls, ends)| (tls, Kept::ByUs(ends)))?,
            Some((certificate, key)) => NamedAcceptor::of_files(certificate, key)
                .map(|(tls, files)| (tls, Kept::InFiles(files)))
                .map_err(anyhow::Error::msg)
                .context("--webhook-tls-cert")?,
        };
        let (address, figures) = (listener.local_addr()?, Arc::<Figures>::default());
        let (events, waiting) = Events::new(Arc::clone(&figures));
        let mut tasks = JoinSet::new();
        let followed: Arc<dyn Known> = match store {
            Some(store) => Arc::new(store),
            None => Followed::start(&api, &mut tasks),
        };
        let desk = Desk {
            namespaces: Namespaces::new(Arc::clone(&cluster), Some(followed)),
            inject,
            events,
            figures: Arc::clone(&figures),
        };
        tasks.spawn(serve(listener, tls.clone(), Arc::new(desk)));
        tasks.spawn(events::write(Arc::clone(&cluster), Arc::clone(&figures), waiting));
        match kept {
            Kept::ByUs(ends) => {
                tasks.spawn(renew(Arc::clone(&keeper), tls, ends));
                tasks.spawn(bundle::keep(cluster, Arc::clone(&figures), move || keeper.roots_pem()));
            }
            Kept::InFiles(files) => drop(tasks.spawn(read_again(files, Arc::clone(&figures)))),
        }
        Ok(Self { address, figures, _tasks: tasks })
    }

    /// What is counted, as text for Prometheus.
    pub fn metrics(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let figures = Arc::clone(&self.figures);
        move || figures.metrics()
    }
}

/// Who keeps the certificate fresh, and caBundle with it.
enum Kept {
    /// The control plane; it ends then.
    ByUs(SystemTime),
    /// Whoever writes the files.
    InFiles(NamedFiles),
}

/// Shows what somebody else puts into the files. Whom the API server believes is theirs, too.
async fn read_again(files: NamedFiles, figures: Arc<Figures>) {
    loop {
        let read = files.refresh();
        figures.in_step.store(read.is_ok(), Relaxed);
        match read {
            Ok(true) => tracing::info!("took the new certificate of the webhook"),
            Ok(false) => {}
            Err(why) => {
                tracing::warn!(why, "the webhook's certificate is not read anew; the last good one stays");
            }
        }
        sleep(READ_AGAIN).await;
    }
}

const READ_AGAIN: Duration = Duration::from_secs(30);

/// The settings in the file, with all mistakes.
fn read(file: Option<&PathBuf>) -> anyhow::Result<InjectSettings> {
    let Some(file) = file else { return Ok(InjectSettings::default()) };
    let path = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("--inject-config {path}"))?;
    let written: Json = serde_json::from_str(&text).with_context(|| format!("--inject-config {path}"))?;
    InjectSettings::from_json(&written).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("--inject-config {path}: {}", all.join("; "))
    })
}

trait WithVersion {
    async fn with_version_of(self, cluster: &dyn Cluster) -> InjectSettings;
}

impl WithVersion for InjectSettings {
    /// Asks the API server how old it is: one of before 1.29 has no native sidecars. One that does not answer now is taken
    /// for a newer one.
    async fn with_version_of(self, cluster: &dyn Cluster) -> InjectSettings {
        let told = match cluster.get("/version").await {
            Ok(told) => told.unwrap_or_default(),
            Err(why) => {
                tracing::warn!(
                    why,
                    "the version of Kubernetes is not known: native sidecars are taken for granted"
                );
                return self;
            }
        };
        match told["gitVersion"].as_str().map(str::parse::<KubernetesVersion>) {
            Some(Ok(version)) => self.with_server_version(version),
            _ => self,
        }
    }
}

/// Renews the certificate at half of its life, and at once when another authority signs.
async fn renew(keeper: Arc<Keeper>, tls: NamedAcceptor, mut ends: SystemTime) {
    let (mut since, mut signer) = (SystemTime::now(), keeper.signer());
    loop {
        sleep(LOOK).await;
        let now = SystemTime::now();
        let half = since + ends.duration_since(since).unwrap_or_default() / 2;
        let signs = keeper.signer();
        if now < half && signs == signer {
            continue;
        }
        match keeper.renew_server(&tls) {
            Ok(until) => {
                (since, ends, signer) = (now, until, signs);
                tracing::info!("renewed the webhook's certificate");
            }
            Err(error) => tracing::error!(%error, "the webhook's certificate is not renewed"),
        }
    }
}
