//! Makes every part from the settings and holds what stops them.
//!
//! The order: what can fail for good goes first (folders, ports), then the identity, then the configuration, then the
//! data path, and the ready file last. Nothing is overwritten before it is known that this process may start.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use outrigger_certs::{
    CertError, ControlConnector, HandshakeError, MeshAcceptor, MeshAlpn, MeshConnector, UnverifiedConnector,
};
use outrigger_mesh::{EndpointUid, PortNumber, ServiceName};
use outrigger_wire::rpc::Hello;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::{self, AdminError, AdminState, Condition, Readiness};
use crate::config::dial::Control;
use crate::config::disk::DiskError;
use crate::config::plan::PlanError;
use crate::config::registry::{Discovery, Registry};
use crate::config::source::{self, SourceSettings};
use crate::data_path::{BindError, Idle, Listening, Ports};
use crate::dns::{self, respond::Sockets};
use crate::drain::{self, Drain};
use crate::gateway::{Edge, ports::Follower};
use crate::health::{self, HealthState};
use crate::http::edges::Edges;
use crate::identity::{
    self, FilesWatch, IdentityError, IdentitySettings, Obtained, Renewal, TokenSource, WorkloadApiWatch,
};
use crate::listen::callers::Callers;
use crate::live::{EndpointLive, Live, OwnPorts};
use crate::overload;
use crate::registration::{Instance, InstancePort, Registrar, RegistrationRefused, Withdrawer};
use crate::settings::{KeyStorage, Settings, Workload, WorkloadPort};
use crate::telemetry::metrics::push;
use crate::telemetry::otlp::Origin;
use crate::telemetry::start::NotTold;
use crate::telemetry::{self, reports};
use crate::token::exchange::Asker;
use crate::worker::{Application, MeshTls, Shared};
use outrigger_process::level::LogLevel;
use outrigger_process::{log, panics};

/// A running sidecar.
pub struct App {
    /// Where it listens.
    pub bound: Bound,
    /// The way to end it.
    pub drain: Drain,
    /// What is configured.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub live: Arc<Live>,
    refused: oneshot::Receiver<RegistrationRefused>,
    ended: JoinHandle<io::Result<()>>,
}

/// Where a sidecar listens.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Where the application calls.
    pub outbound: SocketAddr,
    /// Where the mesh calls.
    pub inbound: Option<SocketAddr>,
    /// Where the mesh calls further ports of the application.
    pub mapped: Vec<SocketAddr>,
    /// Where operators look.
    pub admin: SocketAddr,
    /// Where operators change.
    pub admin_socket: PathBuf,
    /// Where everybody may ask whether all is well.
    pub health: Option<SocketAddr>,
    /// Services with a port of their own.
    pub upstreams: BTreeMap<String, SocketAddr>,
    /// Where names are answered.
    pub dns: Vec<SocketAddr>,
    /// The instance's name.
    pub uid: EndpointUid,
}

/// Why a sidecar can not start. None of them gets better by trying again without a change.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum StartError {
    #[error("{path}: {source}", path = .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Port(#[from] BindError),
    #[error("can not answer names at {address}: {source}")]
    Names { address: SocketAddr, source: io::Error },
    #[error("--health {address}: {source}")]
    Health { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error("TLS can not be set up: {0}")]
    Tls(#[from] HandshakeError),
    #[error(transparent)]
    Copy(#[from] DiskError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Telemetry(#[from] NotTold),
    #[error("the workers can not be started: {0}")]
    Workers(io::Error),
    #[error("--application-uid: this system does not tell whose a connection is: {0}")]
    Users(io::Error),
    #[error(
        "the application's address {0} is a port of this sidecar: say where the application itself listens"
    )]
    OwnPort(SocketAddr),
}

impl StartError {
    /// Whether somebody else listens at an address that this sidecar was to have.
    pub fn address_is_taken(&self) -> bool {
        let source = match self {
            Self::Port(error) => error.reason(),
            Self::Names { source, .. }
            | Self::Health { source, .. }
            | Self::Admin(AdminError::Bind { source, .. }) => source,
            _not_an_address => return false,
        };
        source.kind() == io::ErrorKind::AddrInUse
    }
}

/// Starts a sidecar. Waits for the control plane for as long as it takes to get an identity; to be dropped when the
/// process is asked to end before that.
pub async fn build(mut settings: Settings) -> Result<App, StartError> {
    prepare_folder(&settings.data)?;
    let mut listening = Listening::bind(&ports(&settings), settings.workers)?;
    if !settings.users.is_empty() {
        listening.take_only(Callers::only(settings.users.iter().copied()).map_err(StartError::Users)?);
    }
    let admin = admin::bind(settings.admin).await?;
    let socket = admin::bind_socket(&settings.admin_socket)?;
    let health = settings.health.take().map(|health| (health::bind(health.listen), health));
    let health = match health {
        Some((Ok(listener), health)) => Some((listener, health, UnverifiedConnector::new()?)),
        Some((Err(source), health)) => {
            return Err(StartError::Health { address: health.listen, source });
        }
        None => None,
    };
    let names = bind_names(&settings.dns.listen).await?;
    let uid = new_uid(&settings);
    let bound = bound(&settings, &listening, &admin, &names, &uid)?;
    let own_ports = OwnPorts([listening.own_ports(), vec![bound.admin], bound.dns.clone()].concat());
    settings.workload.as_ref().map_or(Ok(()), |workload| leads_out(workload, &own_ports, &bound))?;

    let live = Arc::new(Live::new(settings.max_connections));
    settings.zone.iter().for_each(|zone| live.set_zone(Arc::clone(zone)));
    let telling = telemetry::start::start(&settings.telemetry, &live, origin(&settings, &uid))?;
    live.set_labels(std::mem::take(&mut settings.labels));
    live.set_opaque_ports(std::mem::take(&mut settings.opaque_ports));
    let registry = Arc::new(Registry::new(settings.identity.namespace().clone(), Arc::clone(&live)));
    if let Some(gateway) = &settings.gateway {
        registry.serve_gateway(gateway.name.clone());
    }
    let drain = Drain::new();
    let readiness = Readiness::waiting_for(&[Condition::Identity, Condition::Configuration]);
    let level = Arc::new(LogLevel::new(&settings.log, Box::new(log::set_filter)));
    let state = Arc::new(AdminState {
        readiness: readiness.clone(),
        drain: drain.clone(),
        registry: Arc::clone(&registry),
        live: Arc::clone(&live),
        identity: OnceLock::new(),
        renewal: OnceLock::new(),
        link: OnceLock::new(),
        edge: OnceLock::new(),
        log: Arc::clone(&level),
        ended_by_application: settings.ended_by_application,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(panics::part("log-level", async move { level.keep().await }));
    live.runtimes.run("control".into(), &tokio::runtime::Handle::current());
    if let Some(limit) = settings.memory_limit {
        tasks.spawn(panics::part("overload", overload::watch(Arc::clone(&live), limit)));
    }
    if let Some(push) = settings.telemetry.push.clone() {
        let (told, counts) = (Arc::clone(&state), Arc::clone(&live.pushed));
        let name = service_of(&settings);
        let pushing = push::run(push, name, counts, move || told.prometheus_text());
        tasks.spawn(panics::part("push-metrics", pushing));
    }
    tasks.spawn(panics::part("admin", admin::serve(admin, Arc::clone(&state))));
    let mut bound = bound;
    if let Some((listener, health, tls)) = health {
        bound.health = listener.local_addr().ok();
        let asked = HealthState { admin: Arc::clone(&state), health, tls };
        tasks.spawn(panics::part("health", health::serve(listener, Arc::new(asked))));
    }
    tasks.spawn(panics::part("admin-socket", admin::serve_socket(socket, Arc::clone(&state))));

    let identity_settings = IdentitySettings {
        id: settings.identity.clone(),
        folder: identity_folder(&settings),
        files: settings.identity_files.take(),
        workload_api: settings.workload_api.take(),
        control: settings.control.take(),
    };
    let obtained = identity::obtain(&identity_settings, |why| {
        tracing::warn!(why, "waiting for an identity");
        readiness.not_yet(Condition::Identity, why);
    })
    .await?;
    if let Some(files) = &identity_settings.files {
        let watch = FilesWatch::new(files.clone(), &obtained);
        let _only_once = state.renewal.set(watch.status());
        tasks.spawn(panics::part("identity", watch.run()));
    } else if let Some(socket) = &identity_settings.workload_api {
        let watch = WorkloadApiWatch::new(socket.clone(), &obtained);
        let _only_once = state.renewal.set(watch.status());
        tasks.spawn(panics::part("identity", watch.run()));
    }
    live.set_identity(obtained.identity.id().clone());
    let _only_once = state.identity.set(Arc::clone(&obtained.identity));
    readiness.met(Condition::Identity);
    outrigger_certs::warm_up()?;
    let tls = MeshTls {
        acceptor: MeshAcceptor::new(&obtained.identity, &MeshAlpn::ALL)?,
        connector: MeshConnector::new(&obtained.identity)?,
    };

    let (tell_refused, refused) = oneshot::channel();
    let (tell_configured, configured) = oneshot::channel();
    let linked = match (&settings.plan, &identity_settings.control) {
        (None, Some(join)) => {
            let in_cluster = matches!(join.token, Some(TokenSource::Kubernetes(_)));
            let (settings, bound, registry, live) = (&settings, &bound, &registry, &live);
            let parts = Configured { settings, bound, obtained, registry, live, in_cluster };
            let (withdrawer, control) =
                link(parts, &join.address, &state, &mut tasks, Tell { tell_refused, tell_configured })?;
            if let Some(status) = state.link.get() {
                let (node, links) = (uid.to_string(), status.connections());
                tasks.spawn(panics::part(
                    "pages",
                    admin::answer_control_plane(Arc::clone(&state), control.clone(), node, links),
                ));
            }
            Some((withdrawer, control))
        }
        (plan, _) => {
            if let Some(file) = plan {
                source::start_plan(file, &obtained, &registry)?;
            }
            registry.set_discovery(Discovery::Complete);
            readiness.met(Condition::Configuration);
            let _waits = tell_configured.send(());
            None
        }
    };

    let trust_domain = settings.identity.trust_domain().clone();
    tasks.spawn(panics::part(
        "dns",
        dns::start(&settings.dns, &registry, &live, &own_ports, names, trust_domain),
    ));
    let edge = settings.gateway.clone().map(Edge::new).map(Arc::new);
    let _only_once = edge.clone().map(|edge| state.edge.set(edge));
    let shared = Arc::new(Shared {
        registry: Arc::clone(&registry),
        live: Arc::clone(&live),
        tls: Some(tls),
        applications: settings.workload.as_ref().map(|w| applications(w, &live, &uid)).unwrap_or_default(),
        own_ports,
        edges: Edges::default(),
        edge: edge.clone(),
    });
    if let Some(edge) = edge {
        let workers = listening.gateway();
        tasks.spawn(panics::part(
            "gateway",
            Follower::new(edge, Arc::clone(&registry), Arc::clone(&live), readiness.clone(), workers).run(),
        ));
    }
    let data_path = listening.start(&shared, &drain.phases()).map_err(StartError::Workers)?;
    if let Some(file) = &settings.ready_file {
        tasks.spawn(tell_ready(file.clone(), bound.clone(), configured));
    }
    let (withdrawer, control) = linked.unzip();
    let ending = Parts { withdrawer: withdrawer.flatten(), idle: data_path.idle() };
    let (ordered, limit, counted) = (drain.clone(), settings.drain_timeout, Arc::clone(&live));
    let ended = tokio::spawn(async move {
        drain::drive(ordered, ending, limit).await;
        let joined = tokio::task::spawn_blocking(move || data_path.join()).await;
        if let Some(control) = control {
            reports::report_once(&counted, &control, LAST_REPORT).await;
        }
        drop(tasks);
        telling.finish(LAST_LINES).await;
        joined.unwrap_or_else(|e| Err(io::Error::other(e)))
    });
    Ok(App { bound, drain, registry, live, refused, ended })
}

impl App {
    /// Waits until the sidecar has ended. An error says that it should not have: the control plane refused the instance,
    /// or a worker broke.
    pub async fn wait(mut self) -> Result<(), String> {
        tokio::select! {
            ended = &mut self.ended => {
                ended.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
            }
            Ok(refused) = &mut self.refused => {
                self.drain.ask(drain::Ask::Now);
                let _ended = self.ended.await;
                Err(refused.to_string())
            }
        }
    }
}

/// What its metrics are of: the service it stands before, else who it is.
fn service_of(settings: &Settings) -> String {
    let service = settings.workload.as_ref().map(|workload| workload.service.to_string());
    service.unwrap_or_else(|| settings.identity.to_string())
}

/// What the link to the control plane is made from.
struct Configured<'a> {
    settings: &'a Settings,
    bound: &'a Bound,
    obtained: Obtained,
    registry: &'a Arc<Registry>,
    live: &'a Arc<Live>,
    /// Whether the workload is a pod, which Kubernetes vouches for.
    in_cluster: bool,
}

/// Whom the link tells what happened.
struct Tell {
    tell_refused: oneshot::Sender<RegistrationRefused>,
    tell_configured: oneshot::Sender<()>,
}

/// Starts what talks to the control plane.
fn link(
    parts: Configured<'_>,
    address: &str,
    state: &AdminState,
    tasks: &mut JoinSet<()>,
    Tell { tell_refused, tell_configured }: Tell,
) -> Result<(Option<Withdrawer>, Control), StartError> {
    let Configured { settings, bound, obtained, registry, live, in_cluster } = parts;
    live.access.expect();
    let control = Control::new(address, ControlConnector::new(&obtained.identity)?);
    let source = SourceSettings {
        hello: Hello {
            identity: settings.identity.clone(),
            node: bound.uid.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            service: settings.workload.as_ref().map(|w| w.service.clone()),
            endpoint: settings.workload.as_ref().map(|_| bound.uid.clone()),
            features: settings.features.clone(),
            elsewhere: false,
            requests: 1,
        },
        gateway: settings.gateway.as_ref().map(|g| g.name.clone()),
        declared: settings.upstreams.iter().filter_map(|(h, _)| declared(settings, h)).collect(),
        folder: Some(settings.data.clone()),
    };
    let copy = source::load_copy(&source)?;
    let status = source::start(source, copy, &obtained, control.clone(), registry, tasks);
    let readiness = state.readiness.clone();
    let (mut connections, loaded) = (status.connections(), status.revision() > 0);
    tasks.spawn(async move {
        // Without a disk copy there is nothing to serve before the first connection.
        if loaded || connections.wait_for(|n| *n > 0).await.is_ok() {
            readiness.met(Condition::Configuration);
            let _nobody_waits = tell_configured.send(());
        }
    });
    if let Some(renewal) = Renewal::new(&obtained, control.clone(), identity_folder(settings)) {
        let _only_once = state.renewal.set(renewal.status());
        tasks.spawn(panics::part("renewal", renewal.run()));
    }
    tasks.spawn(panics::part(
        "reports",
        reports::report(Arc::clone(live), Arc::clone(registry), control.clone()),
    ));
    tasks.spawn(panics::part("token-exchange", Asker::new(Arc::clone(live), control.clone()).run()));
    let withdrawer = match (instance(settings, bound, in_cluster), &settings.workload) {
        (Some(instance), Some(_)) => {
            let (registrar, withdrawer) = Registrar::new(
                instance,
                control.clone(),
                Arc::clone(registry),
                state.readiness.clone(),
                status.connections(),
            );
            tasks.spawn(panics::part("registration", async move {
                if let Err(refused) = registrar.run().await {
                    tracing::error!(%refused, "not registered");
                    let _nobody_waits = tell_refused.send(refused);
                }
            }));
            Some(withdrawer)
        }
        _ => None,
    };
    let _only_once = state.link.set(status);
    Ok((withdrawer, control))
}

fn instance(settings: &Settings, bound: &Bound, in_cluster: bool) -> Option<Instance> {
    let workload = settings.workload.as_ref()?;
    let listens = bound.inbound.iter().chain(&bound.mapped);
    let port = |(at, listens): (WorkloadPort, &SocketAddr)| {
        let WorkloadPort { service_port, application, .. } = at;
        Some(InstancePort { listen: PortNumber::new(listens.port())?, service_port, application })
    };
    Some(Instance {
        service: workload.service.clone(),
        uid: bound.uid.clone(),
        ip: workload.advertise,
        ports: workload.ports().zip(listens).filter_map(port).collect(),
        version: workload.version.clone(),
        zone: workload.zone.clone(),
        weight: workload.weight,
        in_cluster,
    })
}

/// The service that an upstream's host means, as far as its name tells: asked for before the first request comes.
fn declared(settings: &Settings, host: &outrigger_mesh::Host) -> Option<ServiceName> {
    let complete = host.name.complete(settings.identity.namespace());
    let mut labels = complete.as_str().split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    format!("{namespace}/{name}").parse().ok()
}

/// How the end of the process reaches the parts.
struct Parts {
    withdrawer: Option<Withdrawer>,
    idle: Idle,
}

impl drain::Parts for Parts {
    async fn withdraw(&self, limit: Duration) {
        if let Some(withdrawer) = &self.withdrawer {
            withdrawer.withdraw(limit).await;
        }
    }

    async fn inbound_idle(&self) {
        self.idle.inbound().await;
    }

    async fn outbound_idle(&self) {
        self.idle.outbound().await;
    }
}

async fn bind_names(addresses: &[SocketAddr]) -> Result<Vec<Sockets>, StartError> {
    let mut sockets = Vec::new();
    for address in addresses {
        let bound = Sockets::bind(*address).await;
        sockets.push(bound.map_err(|source| StartError::Names { address: *address, source })?);
    }
    Ok(sockets)
}

/// Whose spans are told.
fn origin(settings: &Settings, uid: &EndpointUid) -> Origin {
    let id = &settings.identity;
    let alone = || ServiceName::new(id.namespace().clone(), id.service_account().clone());
    let workload = settings.workload.as_ref();
    let service = workload.map_or_else(alone, |workload| workload.service.clone());
    Origin::of(&service, workload.and_then(|w| w.version.as_ref()), uid)
}

fn identity_folder(settings: &Settings) -> Option<PathBuf> {
    (settings.key_storage == KeyStorage::Disk).then(|| settings.data.clone())
}

fn ports(settings: &Settings) -> Ports {
    Ports {
        outbound: settings.outbound,
        inbound: settings.workload.as_ref().map(|w| w.inbound),
        mapped: settings.workload.iter().flat_map(|w| &w.mapped).map(|p| p.listen).collect(),
        upstreams: settings.upstreams.clone(),
        transparent: settings.transparent,
    }
}

fn bound(
    settings: &Settings,
    listening: &Listening,
    admin: &tokio::net::TcpListener,
    names: &[Sockets],
    uid: &EndpointUid,
) -> Result<Bound, StartError> {
    let name = |host: &outrigger_mesh::Host| match host.port {
        None => host.name.to_string(),
        Some(port) => format!("{}:{port}", host.name),
    };
    Ok(Bound {
        outbound: listening.outbound,
        inbound: listening.inbound,
        mapped: listening.mapped.clone(),
        admin: admin.local_addr().map_err(StartError::Workers)?,
        admin_socket: settings.admin_socket.clone(),
        health: None,
        upstreams: listening.upstreams.iter().map(|(h, a)| (name(h), *a)).collect(),
        dns: names.iter().map(|sockets| sockets.address).collect(),
        uid: uid.clone(),
    })
}

/// Refuses an application that would be the sidecar itself: calls from the mesh would come to where only this machine's
/// own may.
fn leads_out(workload: &Workload, own: &OwnPorts, bound: &Bound) -> Result<(), StartError> {
    let arriving = OwnPorts(bound.inbound.into_iter().chain(bound.mapped.iter().copied()).collect());
    let mut applications = workload.ports().map(|port| port.application);
    match applications.find(|at| own.contains(*at) || arriving.contains(*at)) {
        Some(at) => Err(StartError::OwnPort(at)),
        None => Ok(()),
    }
}

fn applications(workload: &Workload, live: &Live, uid: &EndpointUid) -> Vec<Arc<Application>> {
    let traffic = live.client_traffic(&workload.service, workload.version.as_ref());
    let application = |port: WorkloadPort| Application {
        service: workload.service.clone(),
        service_port: port.service_port,
        version: workload.version.clone(),
        address: port.application,
        live: Arc::new(EndpointLive::new(uid.clone(), Arc::clone(&traffic))),
    };
    workload.ports().map(application).map(Arc::new).collect()
}

/// A name that no other process has: the account's, cut to leave room, and 48 random bits.
fn new_uid(settings: &Settings) -> EndpointUid {
    let named = settings.workload.as_ref().map_or(settings.identity.service_account(), |w| w.service.name());
    let name: String = named.as_str().chars().take(48).collect();
    let random = fastrand::u64(..) & 0xffff_ffff_ffff;
    let uid = EndpointUid::new(&format!("{name}-{random:012x}"));
    uid.unwrap_or_else(|_| unreachable!("a label, a dash and hex digits are a label"))
}

/// The folder must be there and writable, which is found out now and not when the first thing is to be stored.
fn prepare_folder(path: &Path) -> Result<(), StartError> {
    let failed = |source| StartError::Folder { path: path.to_path_buf(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let probe = path.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(failed)
}

/// Writes the ready file once there is an identity and configuration. Registration is not waited for: the application
/// may be waiting for this file before it starts.
async fn tell_ready(file: PathBuf, bound: Bound, configured: oneshot::Receiver<()>) {
    if configured.await.is_err() {
        return;
    }
    let told = json!({
        "outbound": bound.outbound.to_string(),
        "inbound": bound.inbound.map(|a| a.to_string()),
        "mapped": bound.mapped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "admin": bound.admin.to_string(),
        "admin_socket": bound.admin_socket,
        "health": bound.health.map(|a| a.to_string()),
        "upstreams": bound.upstreams.iter().map(|(n, a)| (n.clone(), a.to_string())).collect::<BTreeMap<_, _>>(),
        "dns": bound.dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "pid": std::process::id(),
        "uid": bound.uid.as_str(),
    });
    let mut beside = file.clone().into_os_string();
    beside.push(format!(".{}", std::process::id()));
    let written = std::fs::write(&beside, told.to_string()).and_then(|()| std::fs::rename(&beside, &file));
    if let Err(error) = written {
        tracing::error!(%error, file = %file.display(), "the ready file can not be written");
    }
}

const LAST_REPORT: Duration = Duration::from_secs(1);
const LAST_LINES: Duration = Duration::from_secs(1);
