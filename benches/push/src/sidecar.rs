//! The sidecars: a certificate, a connection and a discovery stream each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{StreamExt, TryStreamExt};
use outrigger_certs::{ControlConnector, JoinToken, WorkloadIdentity, WorkloadKey};
use outrigger_mesh::{FeatureSet, Hostname, Resource, ResourceKind, ResourceName, Selector};
use outrigger_wire::rpc::{Attestation, ControlClient, DiscoverStream, Hello, Registration, SignRequest};
use outrigger_wire::session::{ClientSession, Delta};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Settings;
use crate::admin::Admin;
use crate::mesh::{self, Mesh, NAMESPACE};
use crate::tap::{Tap, Tapped};

/// All sidecars.
pub(crate) struct Fleet {
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) heard: tokio::sync::Mutex<mpsc::UnboundedReceiver<Heard>>,
    _tasks: JoinSet<()>,
}

/// One sidecar from outside.
#[derive(Clone)]
pub(crate) struct Sidecar {
    pub(crate) client: ControlClient,
    pub(crate) tap: Arc<Tap>,
    pub(crate) messages: Arc<AtomicU64>,
}

/// What a sidecar was sent, decoded and has acknowledged.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) sidecar: usize,
    /// When the acknowledgement was given to the connection.
    pub(crate) at: Instant,
    pub(crate) what: Vec<ResourceName>,
    /// Weights of the endpoints among it, by the number of whoever registered them.
    pub(crate) weights: Vec<(usize, u16)>,
}

impl Fleet {
    /// Gets every sidecar a certificate, connects it, registers its instance and subscribes to what it uses.
    pub(crate) async fn connect(settings: &Settings, mesh: &Mesh, admin: &Admin) -> anyhow::Result<Self> {
        let (tell, heard) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let joining = (0..settings.sidecars).map(|number| join(number, settings.push, mesh, *admin));
        let mut joined = std::pin::pin!(futures_util::stream::iter(joining).buffered(32));
        let mut sidecars = Vec::new();
        // Each speaks as soon as it has joined: one that says nothing for ten seconds is not waited for.
        while let Some(Joined { sidecar, stream, session }) = joined.try_next().await? {
            let number = sidecars.len();
            let run = Run { number, stream, session, messages: sidecar.messages.clone(), tell: tell.clone() };
            tasks.spawn(run.run());
            sidecars.push(sidecar);
        }
        Ok(Self { sidecars, heard: tokio::sync::Mutex::new(heard), _tasks: tasks })
    }

    pub(crate) fn len(&self) -> usize {
        self.sidecars.len()
    }

    /// What all of them have read, below TLS.
    pub(crate) fn bytes(&self) -> u64 {
        self.sidecars.iter().map(|sidecar| sidecar.tap.read.load(Relaxed)).sum()
    }

    /// The responses that they have got.
    pub(crate) fn messages(&self) -> u64 {
        self.sidecars.iter().map(|sidecar| sidecar.messages.load(Relaxed)).sum()
    }

    /// Waits until nobody has heard anything for so long.
    pub(crate) async fn settle(&self, quiet: Duration) {
        let mut heard = self.heard.lock().await;
        while let Ok(Some(_)) = tokio::time::timeout(quiet, heard.recv()).await {}
    }
}

struct Joined {
    sidecar: Sidecar,
    stream: DiscoverStream,
    session: ClientSession,
}

async fn join(number: usize, push: SocketAddr, mesh: &Mesh, admin: Admin) -> anyhow::Result<Joined> {
    let account = mesh::service_of(mesh.own(number));
    let token: JoinToken = admin.join_token(NAMESPACE, &account).await?.parse().context("a join token")?;
    let key = WorkloadKey::generate()?;
    let stranger = client(push, ControlConnector::pinned(token.root())?, Arc::default());
    let attestation = Some(Attestation::JoinToken(token.expose().to_string()));
    let reply = stranger.sign(SignRequest { csr_der: key.csr()?, attestation }).await?;
    let identity = Arc::new(WorkloadIdentity::from_parts(&key, &reply.chain, &reply.trust)?);
    let tap: Arc<Tap> = Arc::default();
    let client = client(push, ControlConnector::new(&identity)?, tap.clone());
    client.register(Registration { endpoint: mesh.registered(number, 100) }).await?;
    let hello = Hello {
        identity: identity.id().clone(),
        node: format!("{account}-{number}"),
        version: env!("CARGO_PKG_VERSION").into(),
        service: Some(mesh::name_of(mesh.own(number))),
        endpoint: Some(mesh.registered(number, 100).uid),
        features: FeatureSet::all(),
        elsewhere: false,
        requests: 1,
    };
    let stream = client.discover(hello).await?;
    let mut session = ClientSession::new(FeatureSet::all());
    for kind in [ResourceKind::Trust, ResourceKind::Mesh, ResourceKind::Issuer, ResourceKind::Denylist] {
        session.subscribe(Selector::All(kind));
    }
    let own =
        ResourceName::Inbound(identity.id().namespace().clone(), identity.id().service_account().clone());
    session.subscribe(Selector::Named(own));
    for used in mesh.used(number) {
        let host = Hostname::new(&format!("{}.{NAMESPACE}", mesh::service_of(used)))?;
        session.subscribe(Selector::Host(host));
        session.subscribe(Selector::Named(ResourceName::Service(mesh::name_of(used))));
        session.subscribe(Selector::EndpointsOf(mesh::name_of(used)));
    }
    session.on_connect();
    Ok(Joined { sidecar: Sidecar { client, tap, messages: Arc::default() }, stream, session })
}

fn client(to: SocketAddr, connector: ControlConnector, tap: Arc<Tap>) -> ControlClient {
    ControlClient::new(move || connect(to, connector.clone(), tap.clone()).boxed())
}

fn connect(
    to: SocketAddr,
    connector: ControlConnector,
    tap: Arc<Tap>,
) -> BoxFuture<'static, io::Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin>> {
    async move {
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        Ok(connector.connect(Tapped::new(tcp, tap)).await.map_err(io::Error::other)?.0)
    }
    .boxed()
}

/// A sidecar at work.
struct Run {
    number: usize,
    stream: DiscoverStream,
    session: ClientSession,
    messages: Arc<AtomicU64>,
    tell: mpsc::UnboundedSender<Heard>,
}

impl Run {
    /// Takes what comes until the stream ends.
    async fn run(mut self) {
        let mut going = self.say().await;
        while going {
            let Ok(Some(response)) = self.stream.next().await else { return };
            let Delta { set, ticket, .. } = self.session.on_response(response);
            self.session.answer(ticket, Vec::new());
            going = self.say().await;
            self.messages.fetch_add(1, Relaxed);
            let at = Instant::now();
            let weights = set.iter().filter_map(|(resource, ..)| weight_of(resource)).collect();
            let what = set.into_iter().map(|(resource, ..)| resource.name()).collect();
            // Nobody listens any more at the end.
            let _ = self.tell.send(Heard { sidecar: self.number, at, what, weights });
        }
    }

    async fn say(&mut self) -> bool {
        while let Some(request) = self.session.next_request() {
            if self.stream.send(request).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// The weight of an instance that a sidecar registered, with the number of that sidecar.
fn weight_of(resource: &Resource) -> Option<(usize, u16)> {
    let Resource::Endpoint(endpoint) = resource else { return None };
    let number = endpoint.uid.as_str().strip_prefix("r-")?.parse().ok()?;
    Some((number, endpoint.weight.get()))
}
