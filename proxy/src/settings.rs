//! What the operator says: flags, each also by environment, proven before anything is started.

mod own_address;
pub mod telemetry;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use outrigger_certs::JoinToken;
use outrigger_mesh::{
    Feature, FeatureSet, Host, IpRange, Label, Labels, PortNumber, PortRanges, ServiceName, SpiffeId,
    TrustDomain, Version, Weight,
};

use outrigger_process::log::LogFormat;

use crate::gateway::GatewaySettings;
use crate::health::{Health, Metrics, Probes};
use crate::identity::{CertificateFiles, JoinSettings, KubernetesToken, TokenSource};
use crate::live::MOST_CONNECTIONS;
use crate::overload;
use telemetry::{Telemetry, TelemetryArgs};
pub(crate) use values::duration;
use values::{dns_server, feature, gateway_port, label, port, upstream, weight, workload_api};

/// The sidecar of the Outrigger service mesh.
///
/// It stands beside one instance of a service. The application calls other services at --outbound with their name in
/// Host; calls from the mesh arrive at --inbound over mutual TLS and go on to the application at --port.
///
/// A sidecar of version v1 of "cart", whose application listens at 8080:
///
///   outrigger-proxy --service cart --version v1 --port 8080 --join-token-file cart.token
///
/// SIGTERM withdraws the instance, finishes what is in flight and exits 0. Exit code 2: the flags are wrong. 3: it can not
/// start, and says why in one line. 4: it can not, since somebody else listens at one of its addresses.
#[derive(Debug, Parser)]
#[command(name = "outrigger-proxy", version, disable_version_flag = true, verbatim_doc_comment)]
pub struct Args {
    /// The service this is an instance of. Without it and --port the sidecar is a client only.
    #[arg(long, env = "OUTRIGGER_PROXY_SERVICE", requires = "port", help_heading = "Workload")]
    service: Option<Label>,
    /// The namespace of the service and the service account.
    #[arg(long, env = "OUTRIGGER_PROXY_NAMESPACE", default_value = "default", help_heading = "Workload")]
    namespace: Label,
    /// The service account, which is the identity [default: the service's name].
    #[arg(long, env = "OUTRIGGER_PROXY_SERVICE_ACCOUNT", help_heading = "Workload")]
    service_account: Option<Label>,
    /// The version of this instance, by which traffic can be split.
    #[arg(long, env = "OUTRIGGER_PROXY_VERSION", help_heading = "Workload")]
    version: Option<Version>,
    /// The port where the application listens.
    #[arg(long, env = "OUTRIGGER_PROXY_PORT", requires = "service", value_parser = port, help_heading = "Workload")]
    port: Option<PortNumber>,
    /// The address where the application listens.
    #[arg(long, env = "OUTRIGGER_PROXY_APP_IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), help_heading = "Workload")]
    app_ip: IpAddr,
    /// Which port of the service this instance serves [default: the first].
    #[arg(long, env = "OUTRIGGER_PROXY_SERVICE_PORT", value_parser = port, help_heading = "Workload")]
    service_port: Option<PortNumber>,
    /// Where it runs.
    #[arg(long, env = "OUTRIGGER_PROXY_ZONE", help_heading = "Workload")]
    zone: Option<String>,
    /// Labels of this instance, by which routes can tell its calls from others'.
    #[arg(long = "labels", env = "OUTRIGGER_PROXY_LABELS", value_name = "NAME=VALUE", value_parser = label, value_delimiter = ',', help_heading = "Workload")]
    labels: Vec<(Arc<str>, Arc<str>)>,
    /// Its share of the traffic relative to the other instances, 1 to 65535.
    #[arg(long, env = "OUTRIGGER_PROXY_WEIGHT", default_value = "100", value_parser = weight, help_heading = "Workload")]
    weight: Weight,

    /// The control plane: HOST:PORT, or its replicas with commas between.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_CONTROL",
        default_value = "127.0.0.1:15010",
        conflicts_with = "plan",
        help_heading = "Mesh"
    )]
    control: String,
    /// The file with the join token [or the token itself in OUTRIGGER_JOIN_TOKEN]. Needed at the first start only.
    #[arg(long, env = "OUTRIGGER_PROXY_JOIN_TOKEN_FILE", help_heading = "Mesh")]
    join_token_file: Option<PathBuf>,
    /// A service-account token that Kubernetes projects for the mesh, in place of a join token. Read again at each try.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_KUBERNETES_TOKEN_FILE",
        requires = "control_roots",
        conflicts_with = "join_token_file",
        help_heading = "Mesh"
    )]
    kubernetes_token_file: Option<PathBuf>,
    /// The roots that vouch for the control plane at first contact, PEM, where no join token carries one.
    #[arg(long, env = "OUTRIGGER_PROXY_CONTROL_ROOTS", help_heading = "Mesh")]
    control_roots: Option<PathBuf>,
    /// The trust domain of the mesh.
    #[arg(long, env = "OUTRIGGER_PROXY_TRUST_DOMAIN", default_value = "mesh.local", help_heading = "Mesh")]
    trust_domain: TrustDomain,
    /// A file of compiled resources, instead of a control plane. Needs an identity from files or a Workload API.
    #[arg(long, env = "OUTRIGGER_PROXY_PLAN", help_heading = "Mesh")]
    plan: Option<PathBuf>,
    /// The certificate chain, PEM, where somebody else provides the identity.
    #[arg(long, env = "OUTRIGGER_PROXY_IDENTITY_CERT", requires_all = ["identity_key", "identity_roots"], help_heading = "Mesh")]
    identity_cert: Option<PathBuf>,
    /// The socket of a SPIFFE Workload API, as unix:PATH, where that provides the identity.
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_parser = workload_api, help_heading = "Mesh")]
    workload_api: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, env = "OUTRIGGER_PROXY_IDENTITY_KEY", requires = "identity_cert", help_heading = "Mesh")]
    identity_key: Option<PathBuf>,
    /// The roots of its trust domain, PEM.
    #[arg(long, env = "OUTRIGGER_PROXY_IDENTITY_ROOTS", requires = "identity_cert", help_heading = "Mesh")]
    identity_roots: Option<PathBuf>,
    /// Where the identity and the last good configuration are kept.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_DATA",
        default_value = "./outrigger-proxy-data",
        help_heading = "Mesh"
    )]
    data: PathBuf,
    /// Whether key and certificate are kept in --data. In memory, each start needs a new join token.
    #[arg(long, env = "OUTRIGGER_PROXY_KEY_STORAGE", value_enum, default_value_t = KeyStorage::Disk, help_heading = "Mesh")]
    key_storage: KeyStorage,
    /// For tests: obey as a sidecar of before this feature would. Repeatable.
    #[arg(long = "lack-feature", hide = true, value_parser = feature)]
    lacking: Vec<Feature>,

    /// Where the application calls other services.
    #[arg(long, env = "OUTRIGGER_PROXY_OUTBOUND", default_value = "127.0.0.1:15001", help_heading = "Ports")]
    outbound: SocketAddr,
    /// Whose connections are taken at --outbound and --upstream, on a host that others share: those of this user, by its
    /// number. May be repeated [default: everybody's who reaches them].
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_APPLICATION_UID",
        value_name = "UID",
        value_delimiter = ',',
        help_heading = "Ports"
    )]
    application_uid: Vec<u32>,
    /// Take redirected connections at --outbound and --inbound, as outrigger-init sends them there: the address to which
    /// they were going decides, and a request's Host only the route. How they arrive at --inbound: redirect or tproxy.
    #[arg(long, env = "OUTRIGGER_PROXY_TRANSPARENT", value_enum, default_value_t, help_heading = "Ports")]
    transparent: Transparent,
    /// A local port of its own for a service, on the address of --outbound. May be repeated; 0 lets the system choose.
    #[arg(long = "upstream", env = "OUTRIGGER_PROXY_UPSTREAM", value_name = "SERVICE=PORT", value_parser = upstream, value_delimiter = ',', help_heading = "Ports")]
    upstreams: Vec<(Host, u16)>,
    /// Where calls from the mesh arrive.
    #[arg(long, env = "OUTRIGGER_PROXY_INBOUND", default_value = "127.0.0.1:15006", default_value_ifs = [("transparent", "redirect", "0.0.0.0:15006"), ("transparent", "tproxy", "0.0.0.0:15006")], help_heading = "Ports")]
    inbound: SocketAddr,
    /// A further port of the application: what arrives from the mesh at LISTEN, on the address of --inbound, is for
    /// SERVICE_PORT of the service and goes to PORT. May be repeated; LISTEN 0 lets the system choose.
    #[arg(long = "inbound-map", env = "OUTRIGGER_PROXY_INBOUND_MAP", value_name = "LISTEN=[SERVICE_PORT:]PORT", value_parser = inbound_map, value_delimiter = ',', requires = "service", help_heading = "Ports")]
    inbound_map: Vec<InboundMap>,
    /// Ports of the application whose bytes nobody looks into, where nobody declares what they speak: 4000,6000-6010.
    #[arg(long, env = "OUTRIGGER_PROXY_OPAQUE_PORTS", value_name = "PORTS", help_heading = "Ports")]
    opaque_ports: Option<PortRanges>,
    /// The address at which others reach --inbound [default: its own; with --transparent the one from which connections leave].
    #[arg(long, env = "OUTRIGGER_PROXY_ADVERTISE", help_heading = "Ports")]
    advertise: Option<IpAddr>,
    /// Where operators look, on loopback.
    #[arg(long, env = "OUTRIGGER_PROXY_ADMIN", default_value = "127.0.0.1:15000", help_heading = "Ports")]
    admin: SocketAddr,
    /// The Unix socket for what changes state [default: admin.sock in --data].
    #[arg(long, env = "OUTRIGGER_PROXY_ADMIN_SOCKET", help_heading = "Ports")]
    admin_socket: Option<PathBuf>,

    /// Whether the application may end this sidecar: POST /quitquitquit at --admin. For a job, whose pod would never be done.
    #[arg(long, env = "OUTRIGGER_PROXY_ENDED_BY_APPLICATION", help_heading = "Ports")]
    ended_by_application: bool,
    /// Where everybody may ask, in plaintext, whether the sidecar and its application are well, and for metrics: /healthz,
    /// /startupz, /readyz, /metrics and what --app-probes names; for example [::]:15020 [default: nowhere].
    #[arg(long, env = "OUTRIGGER_PROXY_HEALTH", help_heading = "Ports")]
    health: Option<SocketAddr>,
    /// The kubelet's probes of the application, which are asked at --health, as JSON: the injection writes it.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_APP_PROBES",
        hide_env_values = true,
        requires = "health",
        help_heading = "Ports"
    )]
    app_probes: Option<Probes>,
    /// Where the application's own metrics are, which /metrics of --health tells, too.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_APP_METRICS",
        value_name = "PORT/PATH",
        requires = "health",
        help_heading = "Ports"
    )]
    app_metrics: Option<Metrics>,

    /// A name server for services found by name, outside the mesh or in it without sidecars [default: the system's]. May
    /// be repeated.
    #[arg(long = "dns-server", env = "OUTRIGGER_PROXY_DNS_SERVER", value_name = "IP[:PORT]", value_parser = dns_server, value_delimiter = ',', help_heading = "Names")]
    dns_servers: Vec<SocketAddr>,
    /// Where names are answered, UDP and TCP, on loopback, for example 127.0.0.1:15053 [default: nowhere]. May be
    /// repeated. What is not of the mesh is passed on to --dns-server.
    #[arg(long = "dns", env = "OUTRIGGER_PROXY_DNS", value_delimiter = ',', help_heading = "Names")]
    dns: Vec<SocketAddr>,
    /// Serve a Gateway of the namespace at the edge of the mesh, as the service account of its name, in place of an
    /// application. Its ports are opened as it is pushed.
    #[arg(long, env = "OUTRIGGER_PROXY_GATEWAY", conflicts_with = "service", help_heading = "Gateway")]
    gateway: Option<Label>,
    /// The address at which the gateway's ports are opened.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_GATEWAY_IP",
        default_value = "0.0.0.0",
        requires = "gateway",
        help_heading = "Gateway"
    )]
    gateway_ip: IpAddr,
    /// Open a port of the Gateway at another: 443=8443 needs no privileges. May be repeated; 0 lets the system choose.
    #[arg(long = "gateway-port", env = "OUTRIGGER_PROXY_GATEWAY_PORT", value_name = "PORT=LISTEN", value_parser = gateway_port, value_delimiter = ',', requires = "gateway", help_heading = "Gateway")]
    gateway_ports: Vec<(PortNumber, u16)>,
    /// The folder of its certificates: NAME.crt and NAME.key, or NAME/tls.crt and NAME/tls.key. They are read again when
    /// they change.
    #[arg(
        long,
        env = "OUTRIGGER_PROXY_GATEWAY_CERTIFICATES",
        requires = "gateway",
        help_heading = "Gateway"
    )]
    gateway_certificates: Option<PathBuf>,
    /// Proxies before the gateway, as ranges of addresses: what they say in X-Forwarded-For is believed.
    #[arg(
        long = "gateway-trusted",
        env = "OUTRIGGER_PROXY_GATEWAY_TRUSTED",
        value_name = "RANGE",
        value_delimiter = ',',
        requires = "gateway",
        help_heading = "Gateway"
    )]
    gateway_trusted: Vec<IpRange>,

    /// Worker threads [default: what the CPU limit allows, 2 at most].
    #[arg(long, env = "OUTRIGGER_PROXY_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Process")]
    workers: Option<u16>,
    /// Open connections on each side, the application's and the mesh's; whoever comes then waits.
    #[arg(long, env = "OUTRIGGER_PROXY_MAX_CONNECTIONS", default_value_t = MOST_CONNECTIONS, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Process")]
    max_connections: u64,
    /// Memory of this process near which new requests are refused: 64MiB, or none [default: the control group's limit].
    #[arg(long, env = "OUTRIGGER_PROXY_MEMORY_LIMIT", value_parser = overload::parse, help_heading = "Process")]
    memory_limit: Option<overload::Limit>,
    /// How long the end may take before what is left is cut.
    #[arg(long, env = "OUTRIGGER_PROXY_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration, help_heading = "Process")]
    drain_timeout: Duration,
    /// A file to write once it serves: JSON with every address.
    #[arg(long, env = "OUTRIGGER_PROXY_READY_FILE", help_heading = "Process")]
    ready_file: Option<PathBuf>,
    /// What to log: a level, or levels for targets (info,outrigger_proxy=debug).
    #[arg(long, env = "OUTRIGGER_PROXY_LOG", default_value = "info", help_heading = "Process")]
    log: String,
    /// How to log.
    #[arg(long, env = "OUTRIGGER_PROXY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, help_heading = "Process")]
    log_format: LogFormat,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Whether redirected connections are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transparent {
    /// None come.
    #[default]
    Off,
    /// Both directions come by address translation.
    Redirect,
    /// What arrives comes by TPROXY, which wants the capability NET_ADMIN or NET_RAW.
    Tproxy,
}

/// Where the key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyStorage {
    /// In the data folder, for its owner only.
    Disk,
    /// Nowhere.
    Memory,
}

/// What the operator said, proven.
#[derive(Debug)]
pub struct Settings {
    /// The own identity.
    pub identity: SpiffeId,
    /// Where it runs: services are called in the same zone first.
    pub zone: Option<Arc<str>>,
    /// The labels of the instance whose calls it takes.
    pub labels: Labels,
    /// The instance; `None` for a client only.
    pub workload: Option<Workload>,
    /// The control plane; `None` with a plan.
    pub control: Option<JoinSettings>,
    /// The file of compiled resources that stands for a control plane.
    pub plan: Option<PathBuf>,
    /// Certificates that somebody else provides.
    pub identity_files: Option<CertificateFiles>,
    /// The socket of a SPIFFE Workload API that provides the identity.
    pub workload_api: Option<PathBuf>,
    /// Where things are kept.
    pub data: PathBuf,
    /// Whether the key is.
    pub key_storage: KeyStorage,
    /// What of the resources it obeys: everything, but for tests that play an older sidecar.
    pub features: FeatureSet,
    /// What it serves at the edge of the mesh, in gateway mode.
    pub gateway: Option<GatewaySettings>,
    /// Where the application calls.
    pub outbound: SocketAddr,
    /// Whose calls are taken there; everybody's, where there are none.
    pub users: Vec<u32>,
    /// Whether redirected connections are taken.
    pub transparent: Transparent,
    /// Ports of the application that are opaque where nobody declares what they speak.
    pub opaque_ports: PortRanges,
    /// Services with a local port of their own.
    pub upstreams: Vec<(Host, u16)>,
    /// Where operators look.
    pub admin: SocketAddr,
    /// Whether the application may end this sidecar there.
    pub ended_by_application: bool,
    /// Where operators change.
    pub admin_socket: PathBuf,
    /// What everybody may ask, and where.
    pub health: Option<Health>,
    /// Names.
    pub dns: DnsSettings,
    /// Worker threads.
    pub workers: usize,
    /// Open connections on each side.
    pub max_connections: u64,
    /// The memory near which new requests are refused.
    pub memory_limit: Option<u64>,
    /// How long the end may take.
    pub drain_timeout: Duration,
    /// What to write once it serves.
    pub ready_file: Option<PathBuf>,
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
    /// What is told of requests.
    pub telemetry: Telemetry,
}

/// How names are looked up.
#[derive(Clone, Debug, Default)]
pub struct DnsSettings {
    /// The name servers to ask; empty for the system's.
    pub servers: Vec<SocketAddr>,
    /// Where to answer applications.
    pub listen: Vec<SocketAddr>,
}

/// The instance this sidecar stands beside.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The service.
    pub service: ServiceName,
    /// The service's port it serves; `None` means the first.
    pub service_port: Option<PortNumber>,
    /// Its version.
    pub version: Option<Version>,
    /// Where the application listens.
    pub application: SocketAddr,
    /// Where calls from the mesh arrive.
    pub inbound: SocketAddr,
    /// Further ports.
    pub mapped: Vec<WorkloadPort>,
    /// The address at which others reach that.
    pub advertise: IpAddr,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Its weight.
    pub weight: Weight,
}

impl Workload {
    /// Every port, the first first.
    pub fn ports(&self) -> impl Iterator<Item = WorkloadPort> {
        let Self { inbound: listen, service_port, application, .. } = *self;
        std::iter::once(WorkloadPort { listen, service_port, application }).chain(self.mapped.iter().copied())
    }
}

/// A port of the application, and where calls to it arrive.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadPort {
    /// Where calls from the mesh arrive.
    pub listen: SocketAddr,
    /// The service's port; `None` means the first.
    pub service_port: Option<PortNumber>,
    /// Where the application listens.
    pub application: SocketAddr,
}

/// A further port as it is written.
#[derive(Clone, Copy, Debug)]
struct InboundMap {
    listen: u16,
    service_port: PortNumber,
    port: PortNumber,
}

impl Settings {
    /// Proves what was said. The error has every mistake, a line each.
    pub fn new(args: Args, join_token: Option<&str>) -> Result<Self, String> {
        let mut mistakes = Vec::new();
        if let Some((gateway, account)) = args.gateway.as_ref().zip(args.service_account.as_ref())
            && gateway != account
        {
            mistakes.push(format!(
                "the gateway {gateway} is served by the service account of its name, not {account}"
            ));
        }
        let gateway = args.gateway.clone().map(|name| GatewaySettings {
            name: ServiceName::new(args.namespace.clone(), name),
            ip: args.gateway_ip,
            ports: args.gateway_ports.iter().copied().collect(),
            certificates: args.gateway_certificates.clone(),
            trusted: args.gateway_trusted.clone(),
        });
        let named =
            args.service_account.clone().or_else(|| args.service.clone()).or_else(|| args.gateway.clone());
        let account = named.unwrap_or_else(|| {
            mistakes.push("a client only needs --service-account (or give --service and --port)".into());
            args.namespace.clone()
        });
        if args.plan.is_some() && args.identity_cert.is_none() && args.workload_api.is_none() {
            mistakes.push(
                "--plan needs --identity-cert, or --workload-api: nobody else gives an identity".into(),
            );
        }
        if !args.admin.ip().is_loopback() {
            mistakes.push(format!("--admin {} is not on loopback", args.admin));
        }
        for at in args.dns.iter().filter(|at| !at.ip().is_loopback()) {
            mistakes.push(format!("--dns {at} is not on loopback: it would answer anybody"));
        }
        let redirected = args.transparent != Transparent::Off;
        let own = || own_address::own_address().filter(|_| redirected && args.inbound.ip().is_unspecified());
        let advertise = args.advertise.or_else(own).unwrap_or(args.inbound.ip());
        if args.service.is_some() && advertise.is_unspecified() {
            mistakes.push(format!(
                "--inbound {} has no address that others could use: say --advertise",
                args.inbound
            ));
        }
        let workload = args.service.clone().zip(args.port).map(|(service, port)| Workload {
            service: ServiceName::new(args.namespace.clone(), service),
            service_port: args.service_port,
            version: args.version.clone(),
            application: SocketAddr::new(args.app_ip, port.get()),
            inbound: args.inbound,
            mapped: args.inbound_map.iter().map(|m| mapped(*m, &args)).collect(),
            advertise,
            zone: args.zone.as_deref().map(Arc::from),
            weight: args.weight,
        });
        if let Some(workload) = &workload {
            check_mapped(workload, &mut mistakes);
            let own = [("--outbound", args.outbound), ("--inbound", args.inbound), ("--admin", args.admin)];
            for (flag, _) in own.iter().filter(|(_, address)| *address == workload.application) {
                mistakes.push(format!("the application's address {} is also {flag}", workload.application));
            }
        }
        let token = match (args.join_token_file, join_token) {
            (Some(file), _) => Some(TokenSource::File(file)),
            (None, Some(text)) => match text.parse::<JoinToken>() {
                Ok(token) => Some(TokenSource::Given(token)),
                Err(e) => {
                    mistakes.push(format!("OUTRIGGER_JOIN_TOKEN: {e}"));
                    None
                }
            },
            (None, None) => None,
        };
        let telemetry = args.telemetry.proven(&mut mistakes);
        let projected = args.kubernetes_token_file.zip(args.control_roots);
        let projected =
            projected.map(|(token, roots)| TokenSource::Kubernetes(KubernetesToken { token, roots }));
        let token = projected.or(token);
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        let identity_files = match (args.identity_cert, args.identity_key, args.identity_roots) {
            (Some(cert), Some(key), Some(roots)) => Some(CertificateFiles { cert, key, roots }),
            _ => None,
        };
        Ok(Self {
            identity: SpiffeId::new(args.trust_domain, args.namespace, account),
            zone: args.zone.as_deref().map(Arc::from),
            labels: args.labels.into_iter().collect(),
            workload,
            control: args.plan.is_none().then_some(JoinSettings { address: args.control, token }),
            plan: args.plan,
            identity_files,
            workload_api: args.workload_api,
            admin_socket: args.admin_socket.unwrap_or_else(|| args.data.join("admin.sock")),
            data: args.data,
            key_storage: args.key_storage,
            features: args.lacking.into_iter().fold(FeatureSet::all(), FeatureSet::without),
            gateway,
            outbound: args.outbound,
            users: args.application_uid,
            transparent: args.transparent,
            opaque_ports: args.opaque_ports.unwrap_or_default(),
            upstreams: args.upstreams,
            admin: args.admin,
            ended_by_application: args.ended_by_application,
            health: args.health.map(|listen| Health {
                listen,
                application: args.app_ip,
                probes: args.app_probes.unwrap_or_default(),
                metrics: args.app_metrics,
            }),
            dns: DnsSettings { servers: args.dns_servers, listen: args.dns },
            workers: args.workers.map_or_else(default_workers, usize::from),
            max_connections: args.max_connections,
            memory_limit: args.memory_limit.unwrap_or_else(overload::limit_of_group).0,
            drain_timeout: args.drain_timeout,
            ready_file: args.ready_file,
            log: args.log,
            log_format: args.log_format,
            telemetry,
        })
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(2))
}

fn inbound_map(text: &str) -> Result<InboundMap, String> {
    let (listen, to) = text.split_once('=').ok_or("write it as LISTEN=PORT or LISTEN=SERVICE_PORT:PORT")?;
    let listen = listen.parse().map_err(|_| format!("{listen:?} is not a port"))?;
    let (service_port, to) = to.split_once(':').unwrap_or((to, to));
    Ok(InboundMap { listen, service_port: port(service_port)?, port: port(to)? })
}

fn mapped(map: InboundMap, args: &Args) -> WorkloadPort {
    WorkloadPort {
        listen: SocketAddr::new(args.inbound.ip(), map.listen),
        service_port: Some(map.service_port),
        application: SocketAddr::new(args.app_ip, map.port.get()),
    }
}

/// Each port of the service and each place to listen stands for one thing.
fn check_mapped(workload: &Workload, mistakes: &mut Vec<String>) {
    let all: Vec<WorkloadPort> = workload.ports().collect();
    if all.len() > 1 && workload.service_port.is_none() {
        mistakes.push("--inbound-map needs --service-port: which of the service's ports is --port?".into());
    }
    for (at, port) in all.iter().enumerate() {
        let mut others = all[..at].iter();
        if port.listen.port() != 0 && others.any(|o| o.listen == port.listen) {
            mistakes.push(format!("--inbound-map: {} is there twice", port.listen));
        }
        let mut others = all[..at].iter();
        if let Some(number) = port.service_port.filter(|n| others.any(|o| o.service_port == Some(*n))) {
            mistakes.push(format!("--inbound-map: the service's port {number} is there twice"));
        }
        if at > 0 && port.listen == port.application {
            mistakes.push(format!("--inbound-map: {} leads to itself", port.listen));
        }
    }
}

#[cfg(test)]
mod tests;
