//! Calls to one member of an etcd cluster.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use zeroize::Zeroizing;

use super::convert::{error_of, events_from_pb, found_from_pb, ops_from_pb, range_to_pb, txn_to_pb};
use super::{Done, EtcdError, EtcdErrorKind, Found, Keys, Range, Told, Txn};
use crate::channel;
use crate::pb::etcd as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;

/// Calls one member of a cluster. Clones share one connection, which is made at the first call, and anew whenever the
/// last one ended. Nothing is repeated here.
#[derive(Clone)]
pub struct EtcdClient {
    channel: Channel,
    session: Arc<Mutex<Option<MetadataValue<Ascii>>>>,
    within: Duration,
}

impl EtcdClient {
    /// A client over the connections that `connect` makes; every call ends `within` this time. To be made within a tokio
    /// runtime.
    pub fn new<F, IO>(within: Duration, connect: F) -> Self
    where
        F: Fn() -> BoxFuture<'static, io::Result<IO>> + Send + Sync + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let endpoint = Endpoint::from_static("http://etcd.outrigger")
            .connect_timeout(within)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        Self { channel: channel::over(&endpoint, connect), session: Arc::default(), within }
    }

    /// Logs a user in: what this client does from then on is done as that user.
    pub async fn log_in(&self, name: &str, password: &Zeroizing<String>) -> Result<(), EtcdError> {
        *self.session() = None;
        let request = pb::AuthenticateRequest { name: name.into(), password: password.to_string() };
        let mut auth = AuthClient::new(self.channel.clone());
        let reply = self.in_time(auth.authenticate(self.request(request))).await?;
        let token = MetadataValue::try_from(&reply.token)
            .map_err(|_| EtcdError::new(EtcdErrorKind::Other, "etcd's token is no text"))?;
        *self.session() = Some(token);
        Ok(())
    }

    /// What `range` asks for.
    pub async fn range(&self, range: &Range) -> Result<Found, EtcdError> {
        Ok(found_from_pb(self.in_time(self.kv().range(self.request(range_to_pb(range)))).await?))
    }

    /// Makes a transaction. Where this fails with [`EtcdErrorKind::Unavailable`] it may have been made, and may still be.
    pub async fn txn(&self, txn: Txn) -> Result<Done, EtcdError> {
        let reply = self.in_time(self.kv().txn(self.request(txn_to_pb(txn)))).await?;
        let revision = reply.header.map_or(0, |h| h.revision);
        Ok(Done { held: reply.succeeded, revision, found: ops_from_pb(reply.responses) })
    }

    /// Forgets the history before `revision`, that of everybody who uses the cluster.
    pub async fn compact(&self, revision: i64) -> Result<(), EtcdError> {
        self.in_time(self.kv().compact(self.request(pb::CompactionRequest { revision }))).await.map(drop)
    }

    /// Watches `keys` from a revision on.
    pub async fn watch(&self, keys: Keys, from: i64) -> Result<EtcdWatch, EtcdError> {
        let create = pb::WatchCreateRequest {
            key: keys.from,
            range_end: keys.end.unwrap_or_default(),
            start_revision: from,
            progress_notify: true,
        };
        let create =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        let (requests, queue) = mpsc::channel(1);
        let _ = requests.try_send(create);
        let mut client = WatchClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES);
        let answers = self.in_time(client.watch(self.request(ReceiverStream::new(queue)))).await?;
        Ok(EtcdWatch { _requests: requests, answers, ended: false })
    }

    /// A lease that ends when it is not kept alive for `ttl`.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, EtcdError> {
        let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = self.request(pb::LeaseGrantRequest { ttl: seconds, id: 0 });
        let reply = self.in_time(self.lease().lease_grant(request)).await?;
        match reply.error.as_str() {
            "" => Ok(reply.id),
            error => Err(EtcdError::new(EtcdErrorKind::Other, error)),
        }
    }

    /// Keeps a lease alive for its whole time from now.
    pub async fn keep_alive(&self, lease: i64) -> Result<(), EtcdError> {
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
        let mut client = self.lease();
        let mut answers = self.in_time(client.lease_keep_alive(self.request(requests))).await?;
        let answer = tokio::time::timeout(self.within, answers.message()).await;
        match answer.map_err(|_| self.late())?.map_err(|s| error_of(&s))? {
            Some(answer) if answer.ttl > 0 => Ok(()),
            Some(_) => Err(EtcdError::new(EtcdErrorKind::NoLease, "the lease has ended")),
            None => Err(EtcdError::new(EtcdErrorKind::Unavailable, "etcd ended the stream")),
        }
    }

    /// Ends a lease, and every key with it.
    pub async fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        let request = self.request(pb::LeaseRevokeRequest { id: lease });
        self.in_time(self.lease().lease_revoke(request)).await.map(drop)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // A member that lost the others says so instead of keeping its callers waiting.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &*self.session() {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, EtcdError> {
        match tokio::time::timeout(self.within, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(error_of(&status)),
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> EtcdError {
        let detail = format!("no answer within {:?}", self.within);
        EtcdError::new(EtcdErrorKind::Unavailable, detail)
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Option<MetadataValue<Ascii>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for EtcdClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EtcdClient")
    }
}

/// An open watch. Dropping it ends it.
#[derive(Debug)]
pub struct EtcdWatch {
    // The stream of requests must stay open: etcd ends the watch with it.
    _requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    ended: bool,
}

impl EtcdWatch {
    /// What comes next; `None` when the stream has ended. May be dropped while waiting.
    pub async fn next(&mut self) -> Result<Option<Told>, EtcdError> {
        if self.ended {
            return Ok(None);
        }
        let Some(answer) = self.answers.next().await else { return Ok(None) };
        let answer = answer.map_err(|s| error_of(&s))?;
        if answer.canceled {
            self.ended = true;
            if answer.compact_revision > 0 {
                return Ok(Some(Told::Compacted(answer.compact_revision)));
            }
            return Err(EtcdError::new(EtcdErrorKind::Unavailable, answer.cancel_reason));
        }
        let revision = answer.header.map_or(0, |h| h.revision);
        Ok(Some(match (answer.created, answer.events.is_empty()) {
            (true, _) => Told::Began,
            (false, true) => Told::Progress(revision),
            (false, false) => Told::Changed(events_from_pb(answer.events)),
        }))
    }
}

const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A page of records, or the changes that a watch missed: a thousand revisions of what etcd takes in one request would be
/// more, and then the watch begins anew.
const ANSWER_BYTES: usize = 64 << 20;
