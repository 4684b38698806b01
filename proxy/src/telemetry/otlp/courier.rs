//! One message of OTLP at a time to a collector, over a connection that is kept: gRPC over HTTP/2 or protobuf over HTTP/1.1,
//! in plaintext or over TLS.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_http::{HttpClient, HttpError};
use outrigger_certs::OutsideAlpn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{Collector, PATIENCE, Spoken, grpc};

/// Brings messages of one kind to a collector.
pub struct Courier {
    collector: Collector,
    signal: Signal,
    kept: Mutex<Option<Connection>>,
    /// Why the last message was not taken.
    why: Mutex<Option<String>>,
}

/// What is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics.
    Metrics,
}

/// A connection, which ends with its owner.
struct Connection {
    asks: Asks,
    _task: AbortOnDropHandle<()>,
}

enum Asks {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Courier {
    /// To `collector`. Connects when there is something to bring.
    pub fn new(collector: &Collector, signal: Signal) -> Self {
        Self { collector: collector.clone(), signal, kept: Mutex::default(), why: Mutex::default() }
    }

    /// Why the last message was not taken, if it was not.
    pub fn why(&self) -> Option<String> {
        lock(&self.why).clone()
    }

    /// Brings `message`. What was answered, with a status of HTTP whatever is spoken; an error says why there is no answer.
    pub async fn deliver(&self, message: Bytes) -> Result<Response<Bytes>, String> {
        let late = |_| Err(format!("it has not answered within {PATIENCE:?}"));
        let answered = timeout(PATIENCE, self.give(message)).await.unwrap_or_else(late);
        let (answer, why) = match answered {
            Ok((answer, why)) => (Ok(answer), why),
            Err(why) => (Err(why.clone()), Some(why)),
        };
        *lock(&self.why) = why;
        answer
    }

    /// The answer, and why it is not a good one.
    async fn give(&self, message: Bytes) -> Result<(Response<Bytes>, Option<String>), String> {
        let kept = lock(&self.kept).take();
        let ready = match kept {
            Some(kept) => kept.ready().await,
            None => None,
        };
        let mut connection = match ready {
            Some(ready) => ready,
            None => self.connect().await?,
        };
        let answer = connection.ask(self.request(message)?).await.map_err(|why| why.to_string())?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MOST_ANSWER).collect().await;
        let body = body.map_err(|_| "its answer is too long, or was cut short".to_owned())?;
        lock(&self.kept).replace(connection);
        let trailers = body.trailers().cloned().unwrap_or_default();
        let answer = Response::from_parts(head, body.to_bytes());
        Ok(match self.collector.spoken {
            Spoken::Grpc => grpc::understood(answer, &trailers),
            Spoken::Http => {
                let why = (!answer.status().is_success()).then(|| format!("it answers {}", answer.status()));
                (answer, why)
            }
        })
    }

    fn request(&self, message: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let (place, spoken) = (&self.collector.place, self.collector.spoken);
        let path = format!("{}{}", place.path(), self.signal.path(spoken));
        let scheme = if place.tls().is_some() { "https" } else { "http" };
        let (target, kind, body) = match spoken {
            Spoken::Http => (path, "application/x-protobuf", message),
            Spoken::Grpc => (
                format!("{scheme}://{}{path}", place.authority()),
                "application/grpc",
                grpc::framed(&message)?,
            ),
        };
        let mut request = Request::post(target)
            .header(header::CONTENT_TYPE, kind)
            .header(header::USER_AGENT, concat!("outrigger-proxy/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|why| why.to_string())?;
        let headers = request.headers_mut();
        match spoken {
            Spoken::Grpc => drop(headers.insert(header::TE, HeaderValue::from_static("trailers"))),
            Spoken::Http => {
                let host = HeaderValue::from_str(place.authority()).map_err(|why| why.to_string())?;
                headers.insert(header::HOST, host);
            }
        }
        merge(headers, &self.collector.headers);
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, String> {
        let (place, spoken) = (&self.collector.place, self.collector.spoken);
        let stream = dial(place.host(), place.port(spoken)).await?;
        let Some((name, tls)) = place.tls().zip(self.collector.tls.as_ref()) else {
            return spoken.connection(stream).await;
        };
        let alpn = match spoken {
            Spoken::Grpc => OutsideAlpn::H2,
            Spoken::Http => OutsideAlpn::Http1,
        };
        spoken.connection(tls.connect(stream, name, alpn).await.map_err(|why| why.to_string())?).await
    }
}

impl Spoken {
    async fn connection<IO>(self, io: IO) -> Result<Connection, String>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (failed, io) = (|why: hyper::Error| why.to_string(), TokioIo::new(io));
        let (asks, task) = match self {
            Self::Http => {
                let (asks, connection) = http1::handshake(io).await.map_err(failed)?;
                (Asks::Http1(asks), tokio::spawn(async move { drop(connection.await) }))
            }
            Self::Grpc => {
                let made = http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
                (Asks::Http2(made.0), tokio::spawn(async move { drop(made.1.await) }))
            }
        };
        Ok(Connection { asks, _task: AbortOnDropHandle::new(task) })
    }
}

impl Connection {
    /// Itself, once a request can go over it; `None` if it has ended.
    async fn ready(mut self) -> Option<Self> {
        let ready = match &mut self.asks {
            Asks::Http1(asks) => asks.ready().await,
            Asks::Http2(asks) => asks.ready().await,
        };
        ready.ok().map(|()| self)
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<hyper::body::Incoming>> {
        match &mut self.asks {
            Asks::Http1(asks) => asks.send_request(request).await,
            Asks::Http2(asks) => asks.send_request(request).await,
        }
    }
}

impl Signal {
    fn path(self, spoken: Spoken) -> &'static str {
        match (spoken, self) {
            (Spoken::Http, Self::Traces) => "/v1/traces",
            (Spoken::Http, Self::Logs) => "/v1/logs",
            (Spoken::Http, Self::Metrics) => "/v1/metrics",
            (Spoken::Grpc, Self::Traces) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            (Spoken::Grpc, Self::Logs) => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            (Spoken::Grpc, Self::Metrics) => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
        }
    }
}

/// A message that an exporter made is brought as any other: of its request only the body counts.
impl HttpClient for Courier {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> futures_util::future::BoxFuture<'async_trait, Result<Response<Bytes>, HttpError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move { self.deliver(request.into_body()).await.map_err(Into::into) })
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Courier");
        shown.field("collector", &self.collector).field("signal", &self.signal).finish_non_exhaustive()
    }
}

/// A connection to the first of its addresses that answers.
async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let found = lookup_host((host, port)).await.map_err(|why| format!("{host} is not found: {why}"))?;
    let mut why = format!("{host} has no address");
    for at in found.take(MOST_ADDRESSES) {
        match timeout(CONNECT, TcpStream::connect(at)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failed)) => why = format!("{at}: {failed}"),
            Err(_) => why = format!("{at} does not answer within {CONNECT:?}"),
        }
    }
    Err(why)
}

fn merge(headers: &mut HeaderMap, more: &HeaderMap) {
    for (name, value) in more {
        headers.append(name.clone(), value.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For how long one of several addresses is tried.
const CONNECT: Duration = Duration::from_secs(2);
const MOST_ADDRESSES: usize = 4;
const MOST_ANSWER: usize = 64 * 1024;
