//! The sidecar's end.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use futures_util::future::{BoxFuture, FutureExt as _};
use outrigger_mesh::{EndpointUid, Report, ServiceName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use super::convert::{from_status, invalid, request_to_pb, response_from_pb};
use super::{
    Accepted, Attestation, CALL_BYTES, ExchangeReply, ExchangeRequest, Hangup, Hello, Inspection,
    PING_INTERVAL, PING_TIMEOUT, RESPONSE_BYTES, RegisterReply, Registration, RpcError, RpcErrorKind,
    SignReply, SignRequest, WithdrawReply,
};
use crate::channel;
use crate::codec;
use crate::pb;
use crate::pb::control_plane_client::ControlPlaneClient;
use crate::session::{DeltaRequest, DeltaResponse};

/// Calls the control plane. Clones share one connection, which is made at the first call, and anew whenever the last
/// one ended. Nothing is repeated here: when to try again is the caller's matter.
#[derive(Clone, Debug)]
pub struct ControlClient {
    channel: Channel,
    connection: Arc<Mutex<Option<Hangup>>>,
}

impl ControlClient {
    /// A client over the connections that `connect` makes. To be made within a tokio runtime.
    pub fn new<F, IO>(connect: F) -> Self
    where
        F: Fn() -> BoxFuture<'static, io::Result<IO>> + Send + Sync + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let endpoint = Endpoint::from_static("http://control.outrigger")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let connection = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&connection);
        let channel = channel::over(&endpoint, move || {
            let (connecting, noted) = (connect(), Arc::clone(&noted));
            async move {
                let accepted = Accepted::new(connecting.await?, None::<()>, NOBODY);
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted.hangup());
                Ok(accepted)
            }
            .boxed()
        });
        Self { channel, connection }
    }

    /// Ends the connection of the moment, with whatever runs on it. The next call makes another one.
    pub fn hang_up(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection {
            connection.hang_up();
        }
    }

    /// Has a certificate signed.
    pub async fn sign(&self, request: SignRequest) -> Result<SignReply, RpcError> {
        let (join_token, kubernetes_token) = match request.attestation {
            None => (None, None),
            Some(Attestation::JoinToken(token)) => (Some(token), None),
            Some(Attestation::Kubernetes(token)) => (None, Some(token)),
        };
        let request = pb::SignRequest { csr: request.csr_der, join_token, kubernetes_token };
        let reply = self.calls().sign(within(CALL_TIMEOUT, request)).await;
        let reply = reply.map_err(|s| from_status(&s))?.into_inner();
        let trust = reply.trust.ok_or_else(|| invalid("a certificate came without trust"))?;
        Ok(SignReply { chain: reply.chain, trust: codec::trust_from_pb(trust)? })
    }

    /// Adds an instance, or renews its lease.
    pub async fn register(&self, registration: Registration) -> Result<RegisterReply, RpcError> {
        let endpoint = codec::endpoint_to_pb(&registration.endpoint, Vec::new());
        let request = pb::RegisterRequest { endpoint: Some(endpoint) };
        let reply = self.calls().register(within(CALL_TIMEOUT, request)).await;
        let lease = reply.map_err(|s| from_status(&s))?.into_inner().lease;
        let lease = lease.ok_or_else(|| invalid("a registration came without a lease"))?;
        Ok(RegisterReply { lease: codec::duration_from_pb(lease)? })
    }

    /// Takes an instance out. Returns once all who used it have acknowledged that, or `wait` has passed.
    pub async fn withdraw(
        &self,
        service: &ServiceName,
        uid: &EndpointUid,
        wait: Duration,
    ) -> Result<WithdrawReply, RpcError> {
        let request = pb::WithdrawRequest {
            service: service.to_string(),
            uid: uid.to_string(),
            wait: Some(codec::duration_to_pb(wait)),
        };
        let reply = self.calls().withdraw(within(wait + CALL_TIMEOUT, request)).await;
        let reply = reply.map_err(|s| from_status(&s))?.into_inner();
        Ok(WithdrawReply { subscribers: reply.subscribers, acknowledged: reply.acknowledged })
    }

    /// Tells what passed since the last report.
    pub async fn report(&self, report: Report) -> Result<(), RpcError> {
        let request = within(CALL_TIMEOUT, codec::report_to_pb(&report));
        self.calls().report(request).await.map_err(|s| from_status(&s))?;
        Ok(())
    }

    /// Has a token exchanged.
    pub async fn exchange(&self, request: ExchangeRequest) -> Result<ExchangeReply, RpcError> {
        let ExchangeRequest { mut token, service } = request;
        let request =
            pb::ExchangeRequest { token: std::mem::take(&mut *token), service: service.to_string() };
        let reply = self.calls().exchange(within(CALL_TIMEOUT, request)).await;
        let pb::ExchangeReply { token, expires } = reply.map_err(|s| from_status(&s))?.into_inner();
        Ok(ExchangeReply { token: token.into(), expires })
    }

    /// Opens a discovery stream. The first request sent carries `hello`; a refusal of it comes as the stream's end.
    pub async fn discover(&self, hello: Hello) -> Result<DiscoverStream, RpcError> {
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(RESPONSE_BYTES);
        let opening = client.delta_aggregated_resources(ReceiverStream::new(queue));
        let responses = tokio::time::timeout(CALL_TIMEOUT, opening)
            .await
            .map_err(|_| RpcError::new(RpcErrorKind::Unavailable, "the control plane does not answer"))?
            .map_err(|s| from_status(&s))?
            .into_inner();
        Ok(DiscoverStream { requests, responses, hello: Mutex::new(Some(hello)) })
    }

    /// Lets the control plane ask for pages of the process called `node`.
    pub async fn inspect(&self, node: &str) -> Result<Inspection, RpcError> {
        let (answers, queue) = mpsc::channel(REQUEST_QUEUE);
        let hello = pb::InspectAnswer { node: Some(node.to_owned()), ..pb::InspectAnswer::default() };
        // There is room: nothing was sent before.
        let _ = answers.try_send(hello);
        let mut calls = self.calls();
        let opening = calls.inspect(ReceiverStream::new(queue));
        let asks = tokio::time::timeout(CALL_TIMEOUT, opening)
            .await
            .map_err(|_| RpcError::new(RpcErrorKind::Unavailable, "the control plane does not answer"))?
            .map_err(|s| from_status(&s))?
            .into_inner();
        Ok(Inspection::new(answers, asks))
    }

    fn calls(&self) -> ControlPlaneClient<Channel> {
        ControlPlaneClient::new(self.channel.clone()).max_decoding_message_size(CALL_BYTES)
    }
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_QUEUE: usize = 16;
/// Whom a connection is with is the matter of whoever made it.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// An open discovery stream. Dropping it closes it.
#[derive(Debug)]
pub struct DiscoverStream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    hello: Mutex<Option<Hello>>,
}

impl DiscoverStream {
    /// Sends a request; waits while the connection does not take it.
    pub async fn send(&self, request: DeltaRequest) -> Result<(), RpcError> {
        let hello = self.hello.lock().ok().and_then(|mut hello| hello.take());
        let message = request_to_pb(request, hello.as_ref());
        let ended = |_| RpcError::new(RpcErrorKind::Unavailable, "the discovery stream has ended");
        self.requests.send(message).await.map_err(ended)
    }

    /// The next response; `None` when the control plane closed the stream. May be dropped while waiting.
    pub async fn next(&mut self) -> Result<Option<DeltaResponse>, RpcError> {
        let message = self.responses.message().await.map_err(|s| from_status(&s))?;
        message.map(response_from_pb).transpose()
    }
}
