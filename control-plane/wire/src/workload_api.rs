//! The SPIFFE Workload API: where a sidecar gets an identity that somebody else, such as a SPIRE agent, looks after. Both
//! ends, the server for tests.
//!
//! Connections are the caller's, as with [`crate::rpc`]. What the bytes mean is judged by whoever makes an identity of
//! them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use crate::channel;
use crate::pb::workload as pb;
use crate::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::pb::workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use crate::rpc::{RpcError, RpcErrorKind};

/// What the Workload API says at one moment: everything, not what changed.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// The identities of the caller, the one to use by default first.
    pub svids: Vec<Svid>,
    /// The roots of other trust domains that are believed: certificates one after the other, DER, by the domain's name
    /// or SPIFFE id.
    pub federated: BTreeMap<String, Vec<u8>>,
}

/// An identity.
#[derive(Clone)]
pub struct Svid {
    /// Its SPIFFE id.
    pub id: String,
    /// The chain, leaf first: certificates one after the other, DER.
    pub chain: Vec<u8>,
    /// The private key, PKCS#8, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// The roots of its own trust domain: certificates one after the other, DER.
    pub bundle: Vec<u8>,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Calls a Workload API.
#[derive(Clone, Debug)]
pub struct WorkloadApi {
    channel: Channel,
}

impl WorkloadApi {
    /// A client over the connections that `connect` makes. To be made within a tokio runtime.
    pub fn new<F, IO>(connect: F) -> Self
    where
        F: Fn() -> BoxFuture<'static, io::Result<IO>> + Send + Sync + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self { channel: channel::over(&Endpoint::from_static("http://localhost"), connect) }
    }

    /// Follows the caller's identities.
    pub async fn follow(&self) -> Result<WorkloadStream, RpcError> {
        let mut client =
            SpiffeWorkloadApiClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let mut request = Request::new(pb::X509svidRequest {});
        // Proves that no browser was talked into this.
        request.metadata_mut().insert(HEADER, tonic::metadata::MetadataValue::from_static("true"));
        let stream = client.fetch_x509svid(request).await.map_err(|s| failure(&s))?;
        Ok(WorkloadStream(stream.into_inner()))
    }
}

/// What comes of following.
#[derive(Debug)]
pub struct WorkloadStream(Streaming<pb::X509svidResponse>);

impl WorkloadStream {
    /// What holds from now on; `None` when the other end has closed the stream.
    pub async fn next(&mut self) -> Result<Option<Workload>, RpcError> {
        let message = self.0.message().await.map_err(|s| failure(&s))?;
        Ok(message.map(|message| Workload {
            svids: message
                .svids
                .into_iter()
                .map(|svid| Svid {
                    id: svid.spiffe_id,
                    chain: svid.x509_svid,
                    key: Zeroizing::new(svid.x509_svid_key),
                    bundle: svid.bundle,
                })
                .collect(),
            federated: message.federated_bundles.into_iter().collect(),
        }))
    }
}

/// Plays the Workload API at `listener`: everybody is told what `now` says, and whenever it changes. For tests.
pub async fn serve_workload_api(
    listener: UnixListener,
    now: watch::Receiver<Workload>,
) -> Result<(), RpcError> {
    Server::builder()
        .add_service(SpiffeWorkloadApiServer::new(Played(now)))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(|e| RpcError::new(RpcErrorKind::Internal, e.to_string()))
}

struct Played(watch::Receiver<Workload>);

type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Played {
    fn told<B, T: 'static>(
        &self,
        request: &Request<B>,
        tell: impl Fn(Workload) -> T + Send + 'static,
    ) -> Result<Response<Told<T>>, Status> {
        if request.metadata().get(HEADER).is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("the security header is missing"));
        }
        if self.0.borrow().svids.is_empty() {
            return Err(Status::permission_denied("no identity issued"));
        }
        let told = WatchStream::new(self.0.clone()).map(move |now| Ok(tell(now)));
        Ok(Response::new(Box::pin(told)))
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Played {
    type FetchX509SVIDStream = Told<pb::X509svidResponse>;
    type FetchX509BundlesStream = Told<pb::X509BundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<pb::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.told(&request, |now| pb::X509svidResponse {
            svids: now
                .svids
                .into_iter()
                .map(|svid| pb::X509svid {
                    spiffe_id: svid.id,
                    x509_svid: svid.chain,
                    x509_svid_key: svid.key.to_vec(),
                    bundle: svid.bundle,
                    hint: String::new(),
                })
                .collect(),
            crl: Vec::new(),
            federated_bundles: now.federated.into_iter().collect(),
        })
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<pb::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.told(&request, |now| {
            let own = now.svids.into_iter().map(|svid| (domain_of(&svid.id).to_owned(), svid.bundle));
            pb::X509BundlesResponse { crl: Vec::new(), bundles: own.chain(now.federated).collect() }
        })
    }
}

/// The trust domain of an identity, as a SPIFFE id.
fn domain_of(id: &str) -> &str {
    let path = id.strip_prefix("spiffe://").and_then(|rest| rest.find('/'));
    path.map_or(id, |at| &id[.."spiffe://".len() + at])
}

fn failure(status: &Status) -> RpcError {
    let kind = match status.code() {
        tonic::Code::InvalidArgument => RpcErrorKind::Invalid,
        tonic::Code::PermissionDenied => RpcErrorKind::Denied,
        tonic::Code::Unavailable => RpcErrorKind::Unavailable,
        _ => RpcErrorKind::Internal,
    };
    RpcError::new(kind, status.message())
}

const HEADER: &str = "workload.spiffe.io";
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
