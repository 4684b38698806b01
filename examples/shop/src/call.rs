//! Calls to other services: every one goes to the same address, and the service that is meant
//! stands in Host or `:authority`. Connections are kept alive, answers and waiting are bounded.
//! There are no retries here: that is the mesh's part.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};

use crate::trace::TraceContext;

/// Where calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// All to one address.
    One(SocketAddr),
    /// To each service by its name, at this port: something between takes care of the rest.
    Names(u16),
}

/// The way out of a service.
#[derive(Clone, Debug)]
pub struct Outbound {
    way: Way,
    client: Client<HttpConnector, Full<Bytes>>,
    permits: Arc<Semaphore>,
}

/// A service of the shop that others call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Carts by user.
    Cart,
    /// What an item costs.
    Prices,
    /// What buyers say, by gRPC.
    Reviews,
    /// What goes with an item.
    Recommendations,
}

/// A call that did not bring the answer.
#[derive(Debug, thiserror::Error)]
#[error("{service}: {fault}")]
pub struct CallError {
    /// Who was called.
    pub service: Service,
    /// What happened.
    pub fault: Fault,
}

/// Why a call did not bring the answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection, or it broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It took longer than [`DEADLINE`].
    #[error("no answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    /// The answer was not a success; with the beginning of its body.
    #[error("answered {}{}{said}", status.as_u16(), if said.is_empty() { "" } else { ": " })]
    Status {
        /// What was answered.
        status: StatusCode,
        /// The beginning of the body, on one line.
        said: String,
    },
    /// The gRPC call ended with an error, or without what it must end with.
    #[error("{0}")]
    Grpc(String),
    /// The answer could not be read.
    #[error("unreadable answer: {0}")]
    Unreadable(String),
}

impl Way {
    fn authority(self, service: Service) -> String {
        match self {
            Self::One(address) => address.to_string(),
            Self::Names(port) => format!("{service}:{port}"),
        }
    }
}

impl Outbound {
    /// Calls go this way.
    pub fn new(way: Way) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_DEADLINE));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_CALLS)
            .build(connector);
        Self { way, client, permits: Arc::new(Semaphore::new(MAX_CALLS)) }
    }

    /// GETs `path` of `service`.
    pub async fn get<T: DeserializeOwned>(
        &self,
        service: Service,
        path: &str,
        trace: &TraceContext,
    ) -> Result<T, CallError> {
        self.call(service, Method::GET, path, trace, Bytes::new()).await
    }

    /// POSTs `body` to `path` of `service`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        service: Service,
        path: &str,
        trace: &TraceContext,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CallError { service, fault: Fault::Unreadable(error.to_string()) })?;
        self.call(service, Method::POST, path, trace, body.into()).await
    }

    /// A gRPC channel to `service`; it connects with the first call and again whenever it must.
    pub fn channel(&self, service: Service) -> Result<Channel, http::Error> {
        Ok(Endpoint::from(uri(&self.way.authority(service), "/")?)
            .origin(uri(service.name(), "/")?)
            .connect_timeout(CONNECT_DEADLINE)
            .concurrency_limit(MAX_CALLS)
            .connect_lazy())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        service: Service,
        method: Method,
        path: &str,
        trace: &TraceContext,
        body: Bytes,
    ) -> Result<T, CallError> {
        let attempt = async {
            let request = self.request(service, method, path, trace, body)?;
            // Never closed, so the permit is always there in the end; the deadline bounds the wait.
            let _permit = self.permits.acquire().await;
            self.answer(request).await
        };
        within_deadline(attempt).await.map_err(|fault| CallError { service, fault })
    }

    fn request(
        &self,
        service: Service,
        method: Method,
        path: &str,
        trace: &TraceContext,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Fault> {
        let uri = uri(&self.way.authority(service), path).map_err(|e| Fault::Unreachable(e.to_string()))?;
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static(service.name()));
        headers.insert(ACCEPT, JSON);
        if has_body {
            headers.insert(CONTENT_TYPE, JSON);
        }
        trace.apply(headers);
        Ok(request)
    }

    async fn answer<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T, Fault> {
        let response = self.client.request(request).await.map_err(|e| Fault::Unreachable(causes(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| Fault::Unreadable(causes(&*error)))?.to_bytes();
        if !status.is_success() {
            return Err(Fault::Status { status, said: beginning(&body) });
        }
        serde_json::from_slice(&body).map_err(|error| Fault::Unreadable(error.to_string()))
    }
}

impl Service {
    /// Its name in Host and `:authority`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cart => "cart",
            Self::Prices => "prices",
            Self::Reviews => "reviews",
            Self::Recommendations => "recommendations",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Gives `call` until [`DEADLINE`].
pub async fn within_deadline<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(DEADLINE, call).await.unwrap_or(Err(Fault::TimedOut))
}

fn uri(authority: &str, path: &str) -> Result<Uri, http::Error> {
    let path = PathAndQuery::try_from(path)?;
    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build()
}

/// An error with what caused it, on one line: hyper's own text names only the outermost.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_SAID)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How long a call may take, waiting for its turn included.
pub const DEADLINE: Duration = Duration::from_secs(3);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(30);
const MAX_CALLS: usize = 256;
const MAX_ANSWER: usize = 256 * 1024;
const MAX_SAID: usize = 240;
