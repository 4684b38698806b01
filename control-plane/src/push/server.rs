//! The push port: TLS, then gRPC, then the part whose matter the call is.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::{ControlAcceptor, Peer};
use outrigger_mesh::{Report, Side};
use outrigger_wire::rpc::{
    self, Accepted, Caller, ControlHandler, ExchangeReply, ExchangeRequest, Hello, Inspected, RegisterReply,
    Registration, RpcError, RpcErrorKind, ServerStream, SignReply, SignRequest, WithdrawReply, Withdrawal,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::Hub;
use super::fleet::Proof;
use super::sessions::instant;
use crate::ca::CertificateService;
use crate::exchange::TokenService;
use crate::jwks::Keeper;
use crate::rollout::Counted;
use crate::source::registration::Registrations;
use crate::telemetry::Telemetry;

/// Serves the push port until `shutdown`, then ends the discovery streams and lets calls finish.
pub async fn serve(
    listener: TcpListener,
    acceptor: ControlAcceptor,
    hub: Arc<Hub>,
    certificates: Arc<CertificateService>,
    registrations: Arc<Registrations>,
    (telemetry, counted, keeper, tokens): (Arc<Telemetry>, Arc<Counted>, Arc<Keeper>, Arc<TokenService>),
    shutdown: impl Future<Output = ()> + Send,
) {
    let (accepted, incoming) = mpsc::channel(1);
    let handler = Arc::new(Handler { hub, certificates, registrations, telemetry, counted, keeper, tokens });
    // Not a task of its own: it ends with this future, and all handshakes with it.
    let accepting = accept(listener, acceptor, accepted);
    let serving = rpc::serve(ReceiverStream::new(incoming), handler, shutdown);
    tokio::select! {
        () = accepting => {}
        result = serving => {
            if let Err(error) = result {
                tracing::error!(%error, "the push port ended");
            }
        }
    }
}

/// Which TLS library is below is the matter of `outrigger-certs`.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connection = Accepted<Box<dyn Io>, Peer>;

/// Accepts connections and brings their handshakes to an end, many at a time, but not without bound.
async fn accept(
    listener: TcpListener,
    acceptor: ControlAcceptor,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(slot) = slots.clone().acquire_owned().await {
        while handshakes.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((tcp, from)) => {
                handshakes.spawn(handshake(tcp, from, acceptor.clone(), accepted.clone(), slot));
            }
            Err(error) => {
                // Out of files, most likely: what is open must get the time to end.
                tracing::warn!(%error, "can not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn handshake(
    tcp: TcpStream,
    from: SocketAddr,
    acceptor: ControlAcceptor,
    accepted: mpsc::Sender<io::Result<Connection>>,
    _slot: OwnedSemaphorePermit,
) {
    // Small messages that wait for each other's answers; a failure only makes them slower.
    let _ = tcp.set_nodelay(true);
    match acceptor.accept(tcp).await {
        Ok((stream, peer)) => {
            let end = peer.as_ref().and_then(|peer| instant(peer.not_after()));
            let mut connection = Accepted::new(Box::new(stream) as Box<dyn Io>, peer, from);
            // It proved something until then. Whoever has a later certificate shows it in the next handshake.
            if let Some(end) = end {
                connection = connection.until(end);
            }
            // Nobody takes it any more when the server is stopping.
            let _ = accepted.send(Ok(connection)).await;
        }
        Err(reason) => tracing::warn!(%from, %reason, "refused a connection"),
    }
}

/// Handshakes under way at the same time; more wait in the listener's queue.
const MAX_HANDSHAKES: usize = 256;

struct Handler {
    hub: Arc<Hub>,
    certificates: Arc<CertificateService>,
    registrations: Arc<Registrations>,
    telemetry: Arc<Telemetry>,
    counted: Arc<Counted>,
    keeper: Arc<Keeper>,
    tokens: Arc<TokenService>,
}

impl Handler {
    /// A revoked identity is refused whatever its certificate proves.
    fn admit(&self, caller: &Caller<Peer>) -> Result<(), RpcError> {
        let id = caller.peer.id();
        if !self.hub.is_denied(id) {
            return Ok(());
        }
        tracing::warn!(%id, from = %caller.remote, "refused a call: the identity is revoked");
        Err(RpcError::new(RpcErrorKind::Denied, "this identity is revoked"))
    }
}

impl ControlHandler for Handler {
    type Peer = Peer;

    async fn sign(&self, caller: Caller<Option<Peer>>, request: SignRequest) -> Result<SignReply, RpcError> {
        self.certificates.sign(caller.peer.as_ref(), caller.remote, request).await
    }

    async fn register(
        &self,
        caller: Caller<Peer>,
        registration: Registration,
    ) -> Result<RegisterReply, RpcError> {
        self.admit(&caller)?;
        self.registrations.register(&caller.peer, caller.remote, registration).await
    }

    async fn withdraw(
        &self,
        caller: Caller<Peer>,
        withdrawal: Withdrawal,
    ) -> Result<WithdrawReply, RpcError> {
        self.admit(&caller)?;
        self.registrations.withdraw(&caller.peer, caller.remote, withdrawal).await
    }

    async fn report(&self, caller: Caller<Peer>, report: Report) -> Result<(), RpcError> {
        self.admit(&caller)?;
        self.keeper.want(&report.wanted_keys);
        let id = caller.peer.id();
        self.counted.take(&report, |service, side| match side {
            Side::Server => self.registrations.may_serve(id, service),
            Side::Client => self.hub.calls(id, service),
        });
        self.telemetry.take(&caller.peer, report, |service, side| match side {
            Side::Server => self.registrations.may_serve(id, service),
            // Of what it calls it speaks for itself alone; but no service has to be taken on trust.
            Side::Client => self.registrations.is_service(service),
        });
        Ok(())
    }

    async fn exchange(
        &self,
        caller: Caller<Peer>,
        request: ExchangeRequest,
    ) -> Result<ExchangeReply, RpcError> {
        self.admit(&caller)?;
        self.tokens.exchange(caller.peer.id(), caller.remote, &request)
    }

    async fn inspect(&self, caller: Caller<Peer>, node: String, call: Inspected) -> Result<(), RpcError> {
        self.admit(&caller)?;
        self.hub.inspect(caller.peer.id().clone(), node, call).await
    }

    async fn discover(
        &self,
        caller: Caller<Peer>,
        hello: Hello,
        stream: ServerStream,
    ) -> Result<(), RpcError> {
        self.admit(&caller)?;
        let proven = caller.peer.id();
        if &hello.identity != proven {
            let (claimed, from) = (&hello.identity, caller.remote);
            tracing::warn!(%claimed, %proven, %from, "refused a stream: it claims to be somebody else");
            let what = format!("the stream claims to be {claimed}, but the certificate is of {proven}");
            return Err(RpcError::new(RpcErrorKind::Denied, what));
        }
        let node = hello.node.clone();
        tracing::info!(node, identity = %proven, from = %caller.remote, "a sidecar has come");
        let proof =
            Proof { certificate: caller.peer.certificate_sha256(), not_after: caller.peer.not_after() };
        let end = self.hub.serve(hello, caller.remote, Some(proof), stream).await;
        match &end {
            Ok(()) => tracing::info!(node, "a sidecar has gone"),
            Err(reason) => tracing::info!(node, %reason, "a sidecar's stream has ended"),
        }
        end
    }
}
