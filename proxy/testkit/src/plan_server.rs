//! A control plane without a store: what a test puts in is pushed, what a test wants to know can be read.
//!
//! It speaks the real protocol over real mTLS with a real authority, but checks nothing that the real control plane
//! checks beyond identities. It runs on a thread of its own, so that [`PlanServer::kill`] ends it as a kill would:
//! nothing is finished, nothing is said.

mod handler;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream;
use outrigger_certs::{
    Authority, ControlAcceptor, JoinToken, LeafLifetime, Peer, WorkloadIdentity, WorkloadKey,
    control_plane_id,
};
use outrigger_mesh::{Endpoint, Report, Resource, ResourceName, SpiffeId, TrustDomain};
use outrigger_wire::Encoded;
use outrigger_wire::rpc::{self, Accepted, RpcError};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use self::handler::Handler;
use self::world::Shared;
pub use self::world::{PlanProxy, SigningCounts};
use crate::origin::bind_again;
use crate::resources::TRUST_DOMAIN;

/// A running plan server.
pub struct PlanServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl PlanServer {
    /// A plan server of a new mesh `mesh.local`, with nothing to push but whom to believe.
    pub async fn start() -> Self {
        let domain = TrustDomain::new(TRUST_DOMAIN).expect("a domain");
        let (authority, _) = Authority::create(&domain, SystemTime::now()).expect("an authority");
        let shared = Arc::new(Shared::new(authority));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let runtime = Some(run(listener, &shared));
        Self { addr, shared, runtime }
    }

    /// Where it listens, also while it is killed.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Puts a resource in place; answers the revision.
    pub fn set(&self, resource: impl Into<PlanResource>) -> u64 {
        self.set_all([resource.into().0])
    }

    /// Puts resources in place as one revision.
    pub fn set_all(&self, resources: impl IntoIterator<Item = Resource>) -> u64 {
        self.shared.change(|world| {
            for resource in resources {
                world.set(&resource);
            }
        })
    }

    /// Puts bytes in the place of the resource `name`, for what no compiler would make.
    pub fn set_bytes(&self, encoded: Encoded) -> u64 {
        self.shared.change(|world| world.set_encoded(encoded))
    }

    /// Takes a resource away.
    pub fn remove(&self, name: &ResourceName) -> u64 {
        self.shared.change(|world| world.remove(name))
    }

    /// A join token for `account` in `namespace`, good for one use.
    pub fn join_token(&self, namespace: &str, account: &str) -> JoinToken {
        let token = JoinToken::generate(self.shared.authority.root_sha256()).expect("a token");
        self.shared.expect_token(&token, crate::resources::identity(namespace, account));
        token
    }

    /// A key and a certificate chain for `id`, as sidecars get them.
    pub fn certificate(&self, id: &SpiffeId) -> (WorkloadKey, Vec<Vec<u8>>) {
        let key = WorkloadKey::generate().expect("a key");
        let chain = self.shared.sign(&key.csr().expect("a request"), id).expect("a certificate");
        (key, chain)
    }

    /// A complete identity for `id`.
    pub fn identity(&self, id: &SpiffeId) -> Arc<WorkloadIdentity> {
        let (key, chain) = self.certificate(id);
        let trust = self.shared.authority.trust();
        Arc::new(WorkloadIdentity::from_parts(&key, &chain, &trust).expect("an identity"))
    }

    /// The authority of the mesh.
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// How long certificates live from the next one on.
    pub fn set_leaf_lifetime(&self, lifetime: LeafLifetime) {
        self.shared.knobs().lifetime = lifetime;
    }

    /// How long registrations hold from the next one on. Nothing here ever expires them.
    pub fn set_lease(&self, lease: Duration) {
        self.shared.knobs().lease = lease;
    }

    /// Refuses to sign from here on, or no longer.
    pub fn refuse_signing(&self, error: Option<RpcError>) {
        self.shared.knobs().refuse_signing = error;
    }

    /// Refuses registrations from here on, or no longer.
    pub fn refuse_registration(&self, error: Option<RpcError>) {
        self.shared.knobs().refuse_registration = error;
    }

    /// How many certificates were signed.
    pub fn signed(&self) -> SigningCounts {
        self.shared.knobs().signed
    }

    /// The sidecars that are connected.
    pub fn proxies(&self) -> Vec<PlanProxy> {
        self.shared.proxies()
    }

    /// The sidecar that is connected as `id`.
    pub fn proxy(&self, id: &SpiffeId) -> Option<PlanProxy> {
        self.proxies().into_iter().find(|p| &p.hello.identity == id)
    }

    /// Waits until the sidecar of `id` has answered everything up to `revision`.
    pub async fn acknowledged(&self, id: &SpiffeId, revision: u64) {
        let settled = || async { self.proxy(id).is_some_and(|p| p.settled >= revision) };
        crate::eventually(&format!("{id} has acknowledged revision {revision}"), settled).await;
    }

    /// The instances that are registered.
    pub fn registered(&self) -> Vec<Endpoint> {
        self.shared.registered()
    }

    /// How many registrations and renewals came.
    pub fn registrations(&self) -> u64 {
        self.shared.knobs().registrations
    }

    /// The reports that came, with who sent each; a thousand at most.
    pub fn reports(&self) -> Vec<(SpiffeId, Report)> {
        self.shared.knobs().reports.clone()
    }

    /// Ends it as a kill would. What was put in place stays for [`PlanServer::revive`].
    pub async fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Ending a runtime blocks, and only afterwards is its port certainly closed.
            let (ended, end) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                runtime.shutdown_timeout(Duration::from_secs(5));
                let _gone = ended.send(());
            });
            let _ended = end.await;
        }
        self.shared.forget_connections();
    }

    /// Starts it again at the same port. Registrations are gone unless `keep_registrations`.
    pub async fn revive(&mut self, keep_registrations: bool) {
        if !keep_registrations {
            self.shared.change(world::World::forget_registrations);
        }
        let listener = bind_again(self.addr).await;
        self.runtime = Some(run(listener, &self.shared));
    }
}

impl Drop for PlanServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A resource of any kind.
pub struct PlanResource(Resource);

macro_rules! plan_resource {
    ($($kind:ident),*) => {$(
        impl From<outrigger_mesh::$kind> for PlanResource {
            fn from(value: outrigger_mesh::$kind) -> Self {
                Self(Resource::$kind(value))
            }
        }
    )*};
}
plan_resource!(Service, Endpoint, Gateway, Inbound, Trust, ConsumerRoutes);

/// Serves on a runtime of its own: when that ends, so does everything, at once.
fn run(listener: TcpListener, shared: &Arc<Shared>) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("plan-server")
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = listener.into_std().expect("a listener");
    let shared = Arc::clone(shared);
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        let acceptor = acceptor(&shared);
        let incoming = stream::unfold((listener, JoinSet::new()), move |(listener, handshakes)| {
            let acceptor = acceptor.clone();
            async move {
                let (accepted, handshakes) = next(&listener, handshakes, acceptor).await;
                Some((accepted, (listener, handshakes)))
            }
        });
        let handler = Arc::new(Handler(shared));
        rpc::serve(Box::pin(incoming), handler, std::future::pending()).await.expect("serving");
    });
    runtime
}

fn acceptor(shared: &Shared) -> ControlAcceptor {
    let id = control_plane_id(shared.authority.trust_domain()).expect("an identity");
    let key = WorkloadKey::generate().expect("a key");
    let mut chain =
        shared.sign_for(&key.csr().expect("a request"), &id, LeafLifetime::default()).expect("a leaf");
    // With the root, so that who knows only its hash can verify it.
    chain.push(shared.authority.root_der().to_vec());
    let trust = shared.authority.trust();
    let identity = WorkloadIdentity::from_parts(&key, &chain, &trust).expect("an identity");
    ControlAcceptor::new(&Arc::new(identity)).expect("an acceptor")
}

type Tls = Accepted<tokio_rustls::server::TlsStream<TcpStream>, Peer>;
type Handshakes = JoinSet<io::Result<Tls>>;

/// The next connection whose handshake ended; a slow one holds up nobody.
async fn next(
    listener: &TcpListener,
    mut handshakes: Handshakes,
    acceptor: ControlAcceptor,
) -> (io::Result<Tls>, Handshakes) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    let acceptor = acceptor.clone();
                    handshakes.spawn(async move {
                        let _best_effort = stream.set_nodelay(true);
                        let (tls, peer) = acceptor.accept(stream).await.map_err(io::Error::other)?;
                        Ok(Accepted::new(tls, peer, remote))
                    });
                }
                Err(e) => return (Err(e), handshakes),
            },
            Some(ended) = handshakes.join_next() => {
                return (ended.unwrap_or_else(|e| Err(io::Error::other(e))), handshakes);
            }
        }
    }
}
