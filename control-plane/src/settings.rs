//! What the operator says on the command line or in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use outrigger_certs::{AuthorityFiles, LeafLifetime};
use outrigger_kube::api::Address;
use outrigger_mesh::{Label, TrustDomain};
use outrigger_process::log::LogFormat;

use crate::admin::A_SECOND;
use crate::ca::{Given, KubernetesSettings};
use crate::spec;
use crate::store::etcd::{EtcdAddress, EtcdSecrets};
use crate::store::kubernetes::ClusterAddress;
use crate::users::{ClientId, Grant};
use crate::webhook::WebhookSettings;

/// The control plane of the Outrigger service mesh.
///
/// Takes what people write (the admin API, used by `outrigger apply`), keeps it in one file or a shared etcd, and pushes configuration,
/// endpoints and certificates to the sidecars. Started with nothing it makes a mesh: a folder for its data, a
/// certificate authority and an empty store.
#[derive(Clone, Debug, Parser)]
#[command(name = "outrigger-control", version, after_help = EXIT_CODES)]
pub struct Settings {
    /// Folder for the store and the certificate authority; made if it is not there, readable by its owner only.
    #[arg(long, env = "OUTRIGGER_CONTROL_DATA", default_value = "./outrigger-data", value_name = "DIR")]
    pub data: PathBuf,

    /// A store that several control planes share, in place of a file in --data: etcds://HOST:PORT,HOST:PORT/PREFIX (etcd:// on this
    /// machine alone). Without a prefix it is /outrigger/ and the trust domain. Or the word `kubernetes`: the cluster that this
    /// process runs in is the store, and its Services are the mesh's. See docs/control-plane.md.
    #[arg(long, env = "OUTRIGGER_CONTROL_STORE", value_name = "URL")]
    pub store: Option<SharedStore>,

    /// Who vouches for the members of the store, PEM; else what the system trusts does.
    #[arg(long, env = "OUTRIGGER_CONTROL_STORE_CA", requires = "store", value_name = "FILE")]
    pub store_ca: Option<PathBuf>,

    /// The certificate that is shown to the store (PEM, leaf first).
    #[arg(long, env = "OUTRIGGER_CONTROL_STORE_CERT", requires = "store_key", value_name = "FILE")]
    pub store_cert: Option<PathBuf>,

    /// Its key.
    #[arg(long, env = "OUTRIGGER_CONTROL_STORE_KEY", requires = "store_cert", value_name = "FILE")]
    pub store_key: Option<PathBuf>,

    /// The user to log in to the store as.
    #[arg(long, env = "OUTRIGGER_CONTROL_STORE_USER", requires = "store_password_file", value_name = "NAME")]
    pub store_user: Option<String>,

    /// The file with the user's password, readable by this process alone (chmod 600; its group may read it, too).
    #[arg(long, env = "OUTRIGGER_CONTROL_STORE_PASSWORD_FILE", requires = "store_user", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,

    /// Where sidecars connect: configuration and certificates, TLS only. Port 0 takes a free one.
    #[arg(long, env = "OUTRIGGER_CONTROL_PUSH", default_value = "127.0.0.1:15010", value_name = "ADDRESS")]
    pub push: SocketAddr,

    /// Where the admin API listens. Beyond loopback only with --admin-auth required and TLS.
    #[arg(long, env = "OUTRIGGER_CONTROL_ADMIN", default_value = "127.0.0.1:15080", value_name = "ADDRESS")]
    pub admin: SocketAddr,

    /// Who may use the admin API: whoever reaches it on this machine, or whoever proves who he is.
    #[arg(long, env = "OUTRIGGER_CONTROL_ADMIN_AUTH", default_value = "local", value_name = "WHO")]
    pub admin_auth: AdminAuth,

    /// What the admin API shows of itself: nothing, or the control plane's own certificate, which `outrigger login` believes
    /// by the hash of the mesh's root.
    #[arg(long, env = "OUTRIGGER_CONTROL_ADMIN_TLS", default_value = "off", value_name = "WHAT")]
    pub admin_tls: AdminTls,

    /// A certificate of your own for the admin API (PEM, leaf first), read again when it changes.
    #[arg(long, env = "OUTRIGGER_CONTROL_ADMIN_TLS_CERT", requires = "admin_tls_key", value_name = "FILE")]
    pub admin_tls_cert: Option<PathBuf>,

    /// Its key.
    #[arg(long, env = "OUTRIGGER_CONTROL_ADMIN_TLS_KEY", requires = "admin_tls_cert", value_name = "FILE")]
    pub admin_tls_key: Option<PathBuf>,

    /// A name under which the admin API may be called, beside addresses. Can be given several times.
    #[arg(long, env = "OUTRIGGER_CONTROL_ADMIN_HOST", value_delimiter = ',', value_name = "NAME")]
    pub admin_host: Vec<String>,

    /// The role of a client certificate at the admin API: spiffe://mesh.local/ns/ops/sa/deploy=editor:shop for one of the
    /// mesh, cn:, dns:, email: or uri:NAME=ROLE for one of --admin-client-ca. Can be given several times.
    #[arg(long, value_parser = client, value_name = "ID=ROLE[:NAMESPACE,...]")]
    pub admin_client: Vec<(ClientId, Grant)>,

    /// An authority of your own for client certificates at the admin API (PEM), read again when it changes.
    #[arg(long, env = "OUTRIGGER_CONTROL_ADMIN_CLIENT_CA", value_name = "FILE")]
    pub admin_client_ca: Option<PathBuf>,

    /// How many requests a second one caller of the admin API may make; four times as many at once. Beyond that it is told when
    /// to come back (429).
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_ADMIN_RATE",
        default_value_t = A_SECOND,
        value_parser = clap::value_parser!(u32).range(1..),
        value_name = "REQUESTS"
    )]
    pub admin_rate: u32,

    /// The trust domain of the mesh's identities. It can not be changed later.
    #[arg(long, env = "OUTRIGGER_CONTROL_TRUST_DOMAIN", default_value = "mesh.local", value_name = "DOMAIN")]
    pub trust_domain: TrustDomain,

    /// A certificate authority of your own in place of one that is made here: the certificate that signs, PEM, and after
    /// it those between it and the root. Goes with --ca-key and --ca-roots. The files are read again when they change:
    /// another intermediate under the same root signs at once, another root step by step (docs/identity.md).
    #[arg(long, env = "OUTRIGGER_CONTROL_CA_CERT", value_name = "FILE", requires_all = ["ca_key", "ca_roots"])]
    pub ca_cert: Option<PathBuf>,

    /// The private key of the first certificate in --ca-cert: PEM, not encrypted, readable by this process alone
    /// (chmod 600; its group may read it, too).
    #[arg(long, env = "OUTRIGGER_CONTROL_CA_KEY", value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,

    /// The roots that the mesh is to believe, PEM: that of --ca-cert, and others, such as the one that is to come.
    #[arg(long, env = "OUTRIGGER_CONTROL_CA_ROOTS", value_name = "FILE", requires = "ca_cert")]
    pub ca_roots: Option<PathBuf>,

    /// Starts with the root in --ca-roots although workloads do not believe it yet and the files of the one they believe
    /// are lost: they are cut off until they join again.
    #[arg(long, env = "OUTRIGGER_CONTROL_CA_AT_ONCE", requires = "ca_cert")]
    pub ca_at_once: bool,

    /// Workloads may show a projected service-account token of Kubernetes in place of a join token: the API server at this
    /// URL is asked whose it is (TokenReview). In a pod: https://kubernetes.default.svc
    #[arg(long, env = "OUTRIGGER_CONTROL_KUBERNETES_API", value_name = "URL")]
    pub kubernetes_api: Option<String>,

    /// The control plane's own token for that, read again for each review. Its service account needs the ClusterRole
    /// system:auth-delegator.
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_KUBERNETES_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    pub kubernetes_token_file: PathBuf,

    /// Who vouches for the API server, PEM.
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_KUBERNETES_CA_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )]
    pub kubernetes_ca_file: PathBuf,

    /// The audience that the tokens of workloads must be for.
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_KUBERNETES_AUDIENCE",
        value_name = "NAME",
        default_value = "outrigger"
    )]
    pub kubernetes_audience: String,

    /// Where the API server of Kubernetes asks about pods that are being made (AdmissionReview), TLS only; for example
    /// 0.0.0.0:15017 [default: nowhere]. Needs --kubernetes-api. See docs/injection.md.
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_WEBHOOK_LISTEN",
        requires = "kubernetes_api",
        value_name = "ADDRESS"
    )]
    pub webhook_listen: Option<SocketAddr>,

    /// The name by which the API server calls the webhook, for which its certificate is. Can be given several times.
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_WEBHOOK_NAME",
        value_delimiter = ',',
        default_value = "outrigger-control.outrigger-system.svc",
        value_name = "NAME"
    )]
    pub webhook_name: Vec<String>,

    /// A certificate for the webhook, PEM, with its chain, in place of one of the mesh's authority: somebody else keeps it fresh and
    /// tells the API server whom to believe (cert-manager). Read again when it changes.
    #[arg(long, env = "OUTRIGGER_CONTROL_WEBHOOK_TLS_CERT", requires_all = ["webhook_listen", "webhook_tls_key"], value_name = "FILE")]
    pub webhook_tls_cert: Option<PathBuf>,

    /// Its private key, PEM.
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_WEBHOOK_TLS_KEY",
        requires = "webhook_tls_cert",
        value_name = "FILE"
    )]
    pub webhook_tls_key: Option<PathBuf>,

    /// The file with what is injected into pods, JSON [default: the defaults of docs/injection.md]. Read at the start.
    #[arg(long, env = "OUTRIGGER_CONTROL_INJECT_CONFIG", value_name = "FILE")]
    pub inject_config: Option<PathBuf>,

    /// The namespace of the control plane, with `--store kubernetes`: its Secrets, ConfigMaps and Leases are there.
    #[arg(
        long,
        env = "OUTRIGGER_CONTROL_KUBERNETES_NAMESPACE",
        value_name = "NAME",
        default_value = "outrigger-system"
    )]
    pub kubernetes_namespace: Label,

    /// How long an instance is believed to live without a word from its sidecar. 1s to 1h.
    #[arg(long, env = "OUTRIGGER_CONTROL_LEASE", default_value = "15s", value_parser = lease, value_name = "DURATION")]
    pub lease: Duration,

    /// How long the certificates of workloads live; they are renewed at half of it. 1h to 2160h.
    #[arg(long, env = "OUTRIGGER_CONTROL_LEAF_LIFETIME", default_value = "24h", value_parser = leaf, value_name = "DURATION")]
    pub leaf_lifetime: LeafLifetime,

    /// For tests that can not wait half an hour for a renewal.
    #[arg(long, hide = true, value_parser = leaf_for_tests)]
    pub leaf_lifetime_for_tests: Option<LeafLifetime>,

    /// Written once it serves: JSON with the bound addresses and the process id.
    #[arg(long, env = "OUTRIGGER_CONTROL_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// What is logged: a level (error, warn, info, debug, trace), or a list such as `info,outrigger_control=debug`.
    #[arg(long, env = "OUTRIGGER_CONTROL_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How it is logged.
    #[arg(long, env = "OUTRIGGER_CONTROL_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// A store that several control planes share.
#[derive(Clone, Debug)]
pub enum SharedStore {
    /// An etcd.
    Etcd(EtcdAddress),
    /// The cluster of Kubernetes that this process runs in.
    Kubernetes,
}

impl FromStr for SharedStore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "kubernetes" {
            return Ok(Self::Kubernetes);
        }
        text.parse().map(Self::Etcd).map_err(|e| format!("{e}; or write kubernetes"))
    }
}

/// Who comes in at the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AdminAuth {
    /// Everybody on this machine, who then may do everything. For loopback only.
    Local,
    /// Whoever has a token, or a client certificate that has a role. The first token is written to `admin-token` in the
    /// data folder.
    Required,
}

/// What the admin API shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AdminTls {
    /// Plain HTTP. For loopback only.
    Off,
    /// The control plane's own certificate, of the mesh's authority.
    Mesh,
}

/// Where the API server is to every pod.
const IN_A_POD: &str = "https://kubernetes.default.svc";

const EXIT_CODES: &str = "Exit codes: 0 ended when asked to; 2 bad usage; 3 could not start: a port in use, a folder \
                          that can not be written, a store or authority that is damaged. Nothing is overwritten then.";

fn client(text: &str) -> Result<(ClientId, Grant), String> {
    // A name may have the sign in it, a role may not.
    let (id, grant) = text.rsplit_once('=').ok_or("write it as spiffe://...=ROLE")?;
    Ok((id.parse()?, grant.parse()?))
}

fn duration(text: &str) -> Result<Duration, String> {
    spec::Duration::parse(text).map(spec::Duration::get)
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
    if bounds.contains(&lease) { Ok(lease) } else { Err("a lease is 1s to 1h".into()) }
}

fn leaf(text: &str) -> Result<LeafLifetime, String> {
    LeafLifetime::new(duration(text)?).ok_or_else(|| "a certificate lives 1h to 2160h (90 days)".into())
}

fn leaf_for_tests(text: &str) -> Result<LeafLifetime, String> {
    duration(text).map(LeafLifetime::for_tests)
}

impl Settings {
    /// The store that is shared, and what is shown to it.
    pub fn shared_store(&self) -> Option<(EtcdAddress, EtcdSecrets)> {
        let secrets = EtcdSecrets {
            roots: self.store_ca.clone(),
            certificate: self.store_cert.clone().zip(self.store_key.clone()),
            user: self.store_user.clone().zip(self.store_password_file.clone()),
        };
        match &self.store {
            Some(SharedStore::Etcd(address)) => Some((address.clone().of_mesh(&self.trust_domain), secrets)),
            Some(SharedStore::Kubernetes) | None => None,
        }
    }

    /// The cluster that is the store.
    pub fn cluster_store(&self) -> Option<ClusterAddress> {
        let Some(SharedStore::Kubernetes) = self.store else { return None };
        let server = Address {
            url: self.kubernetes_api.clone().unwrap_or_else(|| IN_A_POD.to_owned()),
            token: self.kubernetes_token_file.clone(),
            roots: self.kubernetes_ca_file.clone(),
        };
        Some(ClusterAddress::of(server, self.kubernetes_namespace.to_string()))
    }

    /// The authority that is given as files.
    pub fn given_authority(&self) -> Option<Given> {
        let (cert, key, roots) = (self.ca_cert.clone()?, self.ca_key.clone()?, self.ca_roots.clone()?);
        Some(Given { files: AuthorityFiles { cert, key, roots }, at_once: self.ca_at_once })
    }

    /// The cluster whose tokens attest.
    pub fn kubernetes(&self) -> Option<KubernetesSettings> {
        let of_store = matches!(self.store, Some(SharedStore::Kubernetes)).then(|| IN_A_POD.to_owned());
        Some(KubernetesSettings {
            api: self.kubernetes_api.clone().or(of_store)?,
            token: self.kubernetes_token_file.clone(),
            ca: self.kubernetes_ca_file.clone(),
            audience: self.kubernetes_audience.clone(),
        })
    }

    /// The webhook, where one is wanted.
    pub fn webhook(&self) -> Option<WebhookSettings> {
        Some(WebhookSettings {
            listen: self.webhook_listen?,
            names: self.webhook_name.clone(),
            tls: self.webhook_tls_cert.clone().zip(self.webhook_tls_key.clone()),
            config: self.inject_config.clone(),
            cluster: self.kubernetes(),
        })
    }

    /// The lifetime of leaves that is in force.
    pub fn leaf(&self) -> LeafLifetime {
        self.leaf_lifetime_for_tests.unwrap_or(self.leaf_lifetime)
    }
}
