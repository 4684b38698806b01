//! Makes every part from the settings, starts them, and holds what ends them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::BoxFuture;
use outrigger_certs::ControlAcceptor;
use outrigger_mesh::SpiffeId;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Acknowledged, Api, Certs, Observed};
use crate::ca::{self, CertificateService, Fleet, Keeper, TokenReviews};
use crate::cluster;
use crate::compile::ResourceChange;
use crate::exchange::{self, TokenService};
use crate::jwks;
use crate::push::{self, Hub, TapLines};
use crate::replicas;
use crate::rollout::{self, Rollouts};
use crate::settings::Settings;
use crate::source::registration::{HeldBack, Registrations};
use crate::state::State;
use crate::store::etcd::EtcdStore;
use crate::store::kubernetes::KubernetesStore;
use crate::store::{EmbeddedStore, Store};
use crate::telemetry::{Stretch, Telemetry};
use crate::webhook::Webhook;
use outrigger_process::level::LogLevel;
use outrigger_process::{log, panics};

/// A control plane that runs. Dropped, it ends at once; [`App::shutdown`] lets it finish what is under way.
pub struct App {
    /// Where sidecars connect.
    pub push: SocketAddr,
    /// Where the admin API listens.
    pub admin: SocketAddr,
    /// Where the webhook listens, if it does.
    pub webhook: Option<SocketAddr>,
    _webhook: Option<Webhook>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    store: Arc<dyn Store>,
}

/// Starts a control plane. The error is one sentence for the operator; nothing was overwritten then.
pub async fn build(settings: Settings) -> anyhow::Result<App> {
    admin::refuse_open_doors(&settings)?;
    outrigger_certs::warm_up()?;
    let kubernetes = settings.kubernetes().map(TokenReviews::new).transpose()?;
    // The ports come first: a second control plane must not touch the data of the first.
    let push_listener = bind("--push", settings.push).await?;
    let admin_listener = bind("--admin", settings.admin).await?;
    let (push, admin) = (push_listener.local_addr()?, admin_listener.local_addr()?);
    let webhook = match settings.webhook() {
        Some(webhook) => Some((bind("--webhook-listen", webhook.listen).await?, webhook)),
        None => None,
    };

    make_folder(&settings.data)?;
    let cluster = match settings.cluster_store() {
        Some(address) => Some(KubernetesStore::open(address).await?),
        None => None,
    };
    let store: Arc<dyn Store> = match (&cluster, settings.shared_store()) {
        (Some(cluster), _) => Arc::new(cluster.clone()),
        (None, None) => Arc::new(EmbeddedStore::open(&settings.data).await?),
        (None, Some((address, secrets))) => Arc::new(EtcdStore::open(&address, &secrets).await?),
    };
    let hub = Arc::new(Hub::new());
    let (folder, domain) = (settings.data.join("ca"), &settings.trust_domain);
    let place = ca::Place { folder: &folder, given: settings.given_authority() };
    let (keeper, turning, turner) =
        ca::open(store.clone(), hub.clone(), place, domain, settings.leaf()).await?;
    let state = State::open(store.clone(), settings.trust_domain.clone(), keeper.root(), hub.clone()).await?;
    let telemetry = Arc::new(Telemetry::default());
    let counted = Arc::new(rollout::Counted::default());
    let (rollouts, driver) = rollout::open(state.clone(), hub.clone(), Arc::clone(&counted));
    let registrations = Arc::new(Registrations::new(state.clone(), hub.clone(), settings.lease));
    let certificates = CertificateService::new(Arc::clone(&keeper), state.clone(), settings.leaf());
    let certificates = Arc::new(certificates.with_kubernetes(kubernetes));
    let acceptor = ControlAcceptor::new(keeper.own_identity())?;

    let issuers = Arc::new(jwks::Keeper::new(state.clone()));
    let signers = exchange::Keys::open(store.clone(), hub.clone(), settings.trust_domain.clone()).await?;
    let signers = Arc::new(signers);
    let tokens = Arc::new(TokenService::new(state.clone(), Arc::clone(&signers)));

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let stopped = stop.clone();
    let serving = push::server::serve(
        push_listener,
        acceptor,
        Arc::clone(&hub),
        certificates,
        Arc::clone(&registrations),
        (Arc::clone(&telemetry), counted, Arc::clone(&issuers), Arc::clone(&tokens)),
        async move { stopped.cancelled().await },
    );
    tasks.spawn(until(stop.clone(), "push", serving, Duration::from_secs(2)));
    let (mut door, tls) = admin::open(&settings, &*store, keeper.root(), keeper.own_identity()).await?;
    let webhook = match webhook {
        Some((listener, webhook)) => {
            Some(Webhook::start(listener, webhook, Arc::clone(&keeper), cluster.clone()).await?)
        }
        None => None,
    };
    if let Some(cluster) = cluster {
        door = door.with_users_of(cluster.api().clone(), settings.kubernetes_audience.clone());
        let (state, keeper) = (state.clone(), Arc::clone(&keeper));
        tasks.spawn(until(stop.clone(), "cluster", cluster::keep(cluster, state, keeper), Duration::ZERO));
    }
    let level = Arc::new(LogLevel::new(&settings.log, Box::new(log::set_filter)));
    let kept = Arc::clone(&level);
    let keeping = async move { kept.keep().await };
    tasks.spawn(until(stop.clone(), "log-level", keeping, Duration::ZERO));
    let running = Running {
        level,
        webhook: webhook
            .as_ref()
            .map(|webhook| Box::new(webhook.metrics()) as Box<dyn Fn() -> String + Send + Sync>),
        hub: Arc::clone(&hub),
        registrations: Arc::clone(&registrations),
        telemetry,
        keeper: Arc::clone(&keeper),
        issuers: Arc::clone(&issuers),
        tokens,
        rollouts: rollouts.clone(),
        store: store.clone(),
    };
    let certs = Certs { keeper: Arc::clone(&keeper), turning };
    let api = Api {
        state: state.clone(),
        observed: Arc::new(running),
        certs: Some(certs),
        door: Arc::new(door),
        signers: Some(Arc::clone(&signers)),
        rollouts: Some(rollouts),
        taps: Arc::default(),
    };
    let stopped = stop.clone();
    let serving = admin::serve(admin_listener, tls, api, async move { stopped.cancelled().await });
    tasks.spawn(until(stop.clone(), "admin", serving, Duration::from_secs(5)));
    tasks.spawn(until(stop.clone(), "leases", async move { registrations.expire().await }, Duration::ZERO));
    tasks.spawn(until(stop.clone(), "issuers", async move { issuers.run().await }, Duration::ZERO));
    tasks.spawn(until(stop.clone(), "signers", async move { signers.run().await }, Duration::ZERO));
    let (lease, sent) = (settings.lease, Arc::clone(&hub));
    tasks.spawn(until(
        stop.clone(),
        "replicas-send",
        replicas::send_elsewhere(sent, state.clone(), lease),
        Duration::ZERO,
    ));
    tasks.spawn(until(
        stop.clone(),
        "replicas-balance",
        replicas::balance(Arc::clone(&hub), state.clone()),
        Duration::ZERO,
    ));
    tasks.spawn(until(stop.clone(), "replicas-tell", replicas::tell(hub, state.clone()), Duration::ZERO));
    tasks.spawn(until(stop.clone(), "authority", turner.run(state), Duration::ZERO));
    let stopped = stop.clone();
    let driving = driver.run(async move { stopped.cancelled().await });
    tasks.spawn(until(stop.clone(), "rollouts", driving, Duration::from_secs(1)));
    tasks.spawn(until(stop.clone(), "expiry", warn_of_expiry(keeper), Duration::ZERO));
    let address = webhook.as_ref().map(|webhook| webhook.address);
    Ok(App { push, admin, webhook: address, _webhook: webhook, stop, tasks, store })
}

impl App {
    /// Ends everything: nothing new is taken, what is under way gets some seconds.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        // The next process can have it from here on, whatever connection still holds a handle.
        self.store.close().await;
    }
}

/// Runs `part` to its end, but not longer than `grace` after the stop.
async fn until(stop: CancellationToken, name: &'static str, part: impl Future<Output = ()>, grace: Duration) {
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = panics::part(name, part) => {}
        () = deadline => {}
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("{flag} {address} is in use: is another control plane running? Port 0 takes a free one")
        }
        Err(e) => bail!("{flag} {address}: {e}"),
    }
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("--data {} can not be made", folder.display()))
}

/// Tells in time that the authority itself ends.
async fn warn_of_expiry(keeper: Arc<Keeper>) {
    loop {
        keeper.warn_of_expiry();
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
    }
}

/// What the admin API is told.
struct Running {
    level: Arc<LogLevel>,
    webhook: Option<Box<dyn Fn() -> String + Send + Sync>>,
    hub: Arc<Hub>,
    registrations: Arc<Registrations>,
    telemetry: Arc<Telemetry>,
    keeper: Arc<Keeper>,
    issuers: Arc<jwks::Keeper>,
    tokens: Arc<TokenService>,
    rollouts: Rollouts,
    store: Arc<dyn Store>,
}

impl Observed for Running {
    fn proxies(&self) -> Vec<Json> {
        self.hub.proxies().iter().map(push::ProxyStatus::to_json).collect()
    }

    fn proxy(&self, node: &str) -> Vec<Json> {
        self.hub.told_to(node)
    }

    fn page<'a>(
        &'a self,
        identity: &'a str,
        node: &'a str,
        page: &'static str,
    ) -> BoxFuture<'a, Result<Json, String>> {
        Box::pin(async move {
            let identity: SpiffeId = identity.parse().map_err(|e| format!("{e}"))?;
            self.hub.page(&identity, node, page).await.map_err(|why| why.to_string())
        })
    }

    fn tap(&self, identity: &SpiffeId, node: &str, page: String) -> Result<TapLines, String> {
        self.hub.tap(identity, node, page).map_err(|why| why.to_string())
    }

    fn affected(&self, changes: Vec<ResourceChange>) -> Vec<Json> {
        self.hub.foresee(changes).iter().map(|affected| json!(affected)).collect()
    }

    fn stats(&self) -> Vec<Json> {
        self.telemetry.stats()
    }

    fn traffic(&self, window: Duration) -> Stretch {
        self.telemetry.stretch(window)
    }

    fn issuers(&self) -> Vec<Json> {
        let own = std::iter::once(self.tokens.to_json());
        own.chain(self.issuers.to_json()).collect()
    }

    fn acknowledged(&self, revision: u64, timeout: Duration) -> BoxFuture<'_, Acknowledged> {
        Box::pin(replicas::acknowledged(&self.hub, &*self.store, revision, timeout))
    }

    fn is_revoked(&self, identity: &SpiffeId) -> bool {
        Fleet::is_revoked(&*self.hub, identity)
    }

    fn held_back(&self) -> Option<HeldBack> {
        self.registrations.held_back()
    }

    fn confirm_loss(&self) -> bool {
        self.registrations.confirm()
    }

    fn log_level(&self) -> Option<Arc<LogLevel>> {
        Some(Arc::clone(&self.level))
    }

    fn metrics(&self) -> String {
        let proxies = self.hub.proxies();
        let rejecting = proxies.iter().filter(|p| !p.rejected.is_empty()).count();
        format!(
            "# HELP outrigger_control_proxies Sidecars connected to this control plane.\n\
             # TYPE outrigger_control_proxies gauge\n\
             outrigger_control_proxies {}\n\
             # HELP outrigger_control_proxies_rejecting Sidecars that reject a resource.\n\
             # TYPE outrigger_control_proxies_rejecting gauge\n\
             outrigger_control_proxies_rejecting {rejecting}\n{}{}{}{}{}{}{}{}{}",
            proxies.len(),
            self.hub.metrics(),
            self.registrations.metrics(),
            store_metrics(&*self.store),
            self.keeper.metrics(),
            self.issuers.metrics(),
            self.tokens.metrics(),
            self.rollouts.metrics(),
            self.telemetry.metrics(),
            self.webhook.as_ref().map_or_else(String::new, |metrics| metrics())
        )
    }
}

/// How the store is, and who leads; of a store of one's own there is nothing to say.
fn store_metrics(store: &dyn Store) -> String {
    let Some(replicas) = store.replicas() else { return String::new() };
    let (up, leads) = (u8::from(replicas.lost().is_none()), u8::from(replicas.leads()));
    format!(
        "# HELP outrigger_control_store_up Whether the shared store answers.\n\
         # TYPE outrigger_control_store_up gauge\n\
         outrigger_control_store_up {up}\n\
         # HELP outrigger_control_replicas Control planes that live on the shared store.\n\
         # TYPE outrigger_control_replicas gauge\n\
         outrigger_control_replicas {}\n\
         # HELP outrigger_control_leads Whether this control plane does what only one of them may do.\n\
         # TYPE outrigger_control_leads gauge\n\
         outrigger_control_leads {leads}\n",
        replicas.count()
    )
}
