//! The control plane's end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures_util::stream::{Empty, Stream};
use outrigger_mesh::Report;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::convert::{hello_from_pb, invalid, request_from_pb, response_to_pb, to_status};
use super::inspect;
use super::io::{Accepted, ConnectionInfo, Hangup};
use super::{
    Attestation, CALL_BYTES, ExchangeReply, ExchangeRequest, Hello, Inspected, PING_INTERVAL, PING_TIMEOUT,
    REQUEST_BYTES, RegisterReply, Registration, RpcError, RpcErrorKind, SignReply, SignRequest,
    WithdrawReply, Withdrawal,
};
use crate::codec;
use crate::pb;
use crate::pb::control_plane_server::{ControlPlane, ControlPlaneServer};
use crate::session::{DeltaRequest, DeltaResponse};

/// What the control plane does with calls. `P` is what proves a caller's identity.
pub trait ControlHandler: Send + Sync + 'static {
    /// The proven identity of a connection's other end.
    type Peer: Clone + Send + Sync + Unpin + 'static;

    /// Signs a certificate. The only call open to a caller without an identity: a join token may attest it.
    fn sign(
        &self,
        caller: Caller<Option<Self::Peer>>,
        request: SignRequest,
    ) -> impl Future<Output = Result<SignReply, RpcError>> + Send;

    /// Adds an instance, or renews its lease.
    fn register(
        &self,
        caller: Caller<Self::Peer>,
        registration: Registration,
    ) -> impl Future<Output = Result<RegisterReply, RpcError>> + Send;

    /// Takes an instance out.
    fn withdraw(
        &self,
        caller: Caller<Self::Peer>,
        withdrawal: Withdrawal,
    ) -> impl Future<Output = Result<WithdrawReply, RpcError>> + Send;

    /// Takes note of traffic.
    fn report(
        &self,
        caller: Caller<Self::Peer>,
        report: Report,
    ) -> impl Future<Output = Result<(), RpcError>> + Send;

    /// Exchanges a user's token for one of the mesh.
    fn exchange(
        &self,
        caller: Caller<Self::Peer>,
        request: ExchangeRequest,
    ) -> impl Future<Output = Result<ExchangeReply, RpcError>> + Send;

    /// Serves a discovery stream until it ends. The stream's task is aborted when the connection is gone.
    fn discover(
        &self,
        caller: Caller<Self::Peer>,
        hello: Hello,
        stream: ServerStream,
    ) -> impl Future<Output = Result<(), RpcError>> + Send;

    /// Asks a sidecar, the process called `node` of the caller's identity, for pages, until the call ends.
    fn inspect(
        &self,
        _caller: Caller<Self::Peer>,
        _node: String,
        _call: Inspected,
    ) -> impl Future<Output = Result<(), RpcError>> + Send {
        std::future::ready(Err(invalid("nobody asks here")))
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller<P> {
    /// Its proven identity.
    pub peer: P,
    /// Where it calls from.
    pub remote: SocketAddr,
}

/// Serves the connections that `incoming` brings until `shutdown`; then ends the discovery streams, lets calls finish for
/// six seconds, and returns. An error of `incoming` costs one connection.
pub async fn serve<IO, H>(
    incoming: impl Stream<Item = io::Result<Accepted<IO, H::Peer>>> + Send,
    handler: Arc<H>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RpcError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: ControlHandler,
{
    let (stopping, stop) = watch::channel(false);
    let front = Front { handler, stop: stop.clone() };
    let calls = ControlPlaneServer::new(front.clone()).max_decoding_message_size(CALL_BYTES);
    let discovery = AggregatedDiscoveryServiceServer::new(front).max_decoding_message_size(REQUEST_BYTES);
    let mut stopped = stop;
    let serving = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_pending_accept_reset_streams(Some(STREAMS_PER_CONNECTION as usize))
        .add_service(calls)
        .add_service(discovery)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the sender is gone, which is a shutdown as well.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
    tokio::pin!(serving);
    let failed = |e: tonic::transport::Error| RpcError::new(RpcErrorKind::Internal, e.to_string());
    tokio::select! {
        result = &mut serving => return result.map_err(failed),
        () = shutdown => {}
    }
    stopping.send_replace(true);
    match tokio::time::timeout(GRACE, serving).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Ok(()),
    }
}

/// How long calls may take to finish after a shutdown.
const GRACE: Duration = Duration::from_secs(6);
const STREAMS_PER_CONNECTION: u32 = 32;

struct Front<H> {
    handler: Arc<H>,
    stop: watch::Receiver<bool>,
}

impl<H> Clone for Front<H> {
    fn clone(&self) -> Self {
        Self { handler: self.handler.clone(), stop: self.stop.clone() }
    }
}

impl<H: ControlHandler> Front<H> {
    /// The caller of a request, before a byte of its body is looked at.
    fn caller<T>(request: &Request<T>) -> Result<Caller<H::Peer>, Status> {
        let Caller { peer, remote } = Self::anyone(request)?;
        let peer = peer.ok_or_else(|| {
            Status::unauthenticated("the connection has no client certificate that proves an identity")
        })?;
        Ok(Caller { peer, remote })
    }

    fn anyone<T>(request: &Request<T>) -> Result<Caller<Option<H::Peer>>, Status> {
        let info = Self::connection(request)?;
        Ok(Caller { peer: info.peer.clone(), remote: info.remote })
    }

    fn connection<T>(request: &Request<T>) -> Result<&ConnectionInfo<H::Peer>, Status> {
        let info = request.extensions().get();
        info.ok_or_else(|| Status::internal("a connection without its facts"))
    }
}

#[tonic::async_trait]
impl<H: ControlHandler> ControlPlane for Front<H> {
    type InspectStream = Responses<pb::InspectAsk>;

    async fn sign(&self, request: Request<pb::SignRequest>) -> Result<Response<pb::SignReply>, Status> {
        let caller = Self::anyone(&request)?;
        let pb::SignRequest { csr, join_token, kubernetes_token } = request.into_inner();
        let attestation = match (join_token, kubernetes_token) {
            (None, None) => None,
            (Some(token), None) => Some(Attestation::JoinToken(token)),
            (None, Some(token)) => Some(Attestation::Kubernetes(token)),
            // Whoever reads one and whoever reads the other could see two identities.
            (Some(_), Some(_)) => return Err(to_status(invalid("one attestation at a time"))),
        };
        let reply = self.handler.sign(caller, SignRequest { csr_der: csr, attestation }).await;
        let reply = reply.map_err(to_status)?;
        let trust = Some(codec::trust_to_pb(&reply.trust, Vec::new()));
        Ok(Response::new(pb::SignReply { chain: reply.chain, trust }))
    }

    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterReply>, Status> {
        let caller = Self::caller(&request)?;
        let endpoint = request.into_inner().endpoint.ok_or_else(|| to_status(invalid("no endpoint")))?;
        let endpoint = codec::endpoint_from_pb(endpoint).map_err(|f| to_status(f.into()))?;
        let reply = self.handler.register(caller, Registration { endpoint }).await.map_err(to_status)?;
        Ok(Response::new(pb::RegisterReply { lease: Some(codec::duration_to_pb(reply.lease)) }))
    }

    async fn withdraw(
        &self,
        request: Request<pb::WithdrawRequest>,
    ) -> Result<Response<pb::WithdrawReply>, Status> {
        let caller = Self::caller(&request)?;
        let withdrawal = withdrawal_from_pb(&request.into_inner()).map_err(to_status)?;
        let reply = self.handler.withdraw(caller, withdrawal).await.map_err(to_status)?;
        let WithdrawReply { subscribers, acknowledged } = reply;
        Ok(Response::new(pb::WithdrawReply { subscribers, acknowledged }))
    }

    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportReply>, Status> {
        let caller = Self::caller(&request)?;
        let report = codec::report_from_pb(request.get_ref()).map_err(|f| to_status(f.into()))?;
        self.handler.report(caller, report).await.map_err(to_status)?;
        Ok(Response::new(pb::ReportReply {}))
    }

    async fn exchange(
        &self,
        request: Request<pb::ExchangeRequest>,
    ) -> Result<Response<pb::ExchangeReply>, Status> {
        let caller = Self::caller(&request)?;
        let pb::ExchangeRequest { token, service } = request.into_inner();
        let token = Zeroizing::new(token);
        let service =
            service.parse().map_err(|e: outrigger_mesh::InvalidName| to_status(invalid(e.to_string())))?;
        let reply = self.handler.exchange(caller, ExchangeRequest { token, service }).await;
        let ExchangeReply { mut token, expires } = reply.map_err(to_status)?;
        Ok(Response::new(pb::ExchangeReply { token: std::mem::take(&mut *token), expires }))
    }

    async fn inspect(
        &self,
        request: Request<Streaming<pb::InspectAnswer>>,
    ) -> Result<Response<Self::InspectStream>, Status> {
        let caller = Self::caller(&request)?;
        let (asks, queue) = mpsc::channel(1);
        let mut stop = self.stop.clone();
        let session = inspect::serve(Arc::clone(&self.handler), caller, request.into_inner(), asks);
        let session = tokio::spawn(async move {
            tokio::select! {
                () = session => {}
                _ = stop.wait_for(|stopped| *stopped) => {}
            }
        });
        Ok(Response::new(Responses { queue, _session: Owned(session) }))
    }
}

fn withdrawal_from_pb(request: &pb::WithdrawRequest) -> Result<Withdrawal, RpcError> {
    let name = |e: outrigger_mesh::InvalidName| invalid(e.to_string());
    let wait = request.wait.ok_or_else(|| invalid("no wait"))?;
    Ok(Withdrawal {
        service: request.service.parse().map_err(name)?,
        uid: request.uid.parse().map_err(name)?,
        wait: codec::duration_from_pb(wait)?,
    })
}

#[tonic::async_trait]
impl<H: ControlHandler> AggregatedDiscoveryService for Front<H> {
    type StreamAggregatedResourcesStream = Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("use DeltaAggregatedResources"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (caller, hangup) = (Self::caller(&request)?, Self::connection(&request)?.hangup.clone());
        let (responses, queue) = mpsc::channel(1);
        let session = discover(self.clone(), caller, request.into_inner(), responses, hangup);
        Ok(Response::new(Responses { queue, _session: Owned(tokio::spawn(session)) }))
    }
}

async fn discover<H: ControlHandler>(
    front: Front<H>,
    caller: Caller<H::Peer>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    hangup: Hangup,
) {
    let mut stop = front.stop.clone();
    let ending = responses.clone();
    let session = async {
        let first = tokio::time::timeout(FIRST_REQUEST, requests.message())
            .await
            .map_err(|_| invalid("no request came"))?
            .map_err(|s| super::convert::from_status(&s))?;
        let Some(mut first) = first else {
            return Ok(());
        };
        let hello = hello_from_pb(&mut first)?;
        let stream = ServerStream { first: Some(first), requests, responses, hangup };
        front.handler.discover(caller, hello, stream).await
    };
    let end = tokio::select! {
        end = session => end,
        _ = stop.wait_for(|stopped| *stopped) => {
            Err(RpcError::new(RpcErrorKind::Unavailable, "the control plane is stopping"))
        }
    };
    if let Err(error) = end {
        // A reader that is gone or stuck does not hear it.
        let _ = tokio::time::timeout(FIRST_REQUEST, ending.send(Err(to_status(error)))).await;
    }
}

/// How long a stream may be open without its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a reader may take to accept a message.
const SLOW_READER: Duration = Duration::from_secs(10);

/// A discovery stream as its session sees it.
pub struct ServerStream {
    first: Option<DeltaDiscoveryRequest>,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    hangup: Hangup,
}

impl ServerStream {
    /// The next request; `None` when the sidecar closed the stream. May be dropped while waiting.
    pub async fn next(&mut self) -> Result<Option<DeltaRequest>, RpcError> {
        let message = match self.first.take() {
            Some(first) => Some(first),
            None => self.requests.message().await.map_err(|s| super::convert::from_status(&s))?,
        };
        message.map(request_from_pb).transpose()
    }

    /// Sends a response; its bytes. A reader that does not take it for ten seconds loses its connection: `Exhausted`.
    pub async fn send(&self, response: DeltaResponse) -> Result<usize, RpcError> {
        let message = response_to_pb(response);
        let bytes = message.encoded_len();
        match self.responses.send_timeout(Ok(message), SLOW_READER).await {
            Ok(()) => Ok(bytes),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => {
                Err(RpcError::new(RpcErrorKind::Unavailable, "the stream has ended"))
            }
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                self.hangup.hang_up();
                Err(RpcError::new(RpcErrorKind::Exhausted, "the sidecar does not take its messages"))
            }
        }
    }

    /// Ends the connection at once, for a peer that can not be reasoned with.
    pub fn hang_up(&self) {
        self.hangup.hang_up();
    }
}

impl std::fmt::Debug for ServerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerStream").finish_non_exhaustive()
    }
}

/// The responses of a stream, together with the task that makes them: the task ends when the stream does.
pub(super) struct Responses<T> {
    queue: mpsc::Receiver<Result<T, Status>>,
    _session: Owned,
}

impl<T> Stream for Responses<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(cx)
    }
}

struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}
