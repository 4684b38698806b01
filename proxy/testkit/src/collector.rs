//! A collector of telemetry: takes OTLP over gRPC and over HTTP at one port, and keeps the bytes of each message. It does not
//! look into them: an independent decoder does (`collector/decode.py`).

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::real;
use crate::task::Owned;

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _task: Owned,
}

/// How it treats what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Treats {
    /// It takes it.
    #[default]
    Well,
    /// It refuses it for good.
    Refuses,
    /// It says nothing, ever.
    Silent,
}

/// One message that it took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Where to it was sent: `/v1/traces`, or the method of gRPC.
    pub path: String,
    /// The headers it came with.
    pub headers: HeaderMap,
    /// The message.
    pub message: Bytes,
}

#[derive(Debug, Default)]
struct Shared {
    treats: Mutex<Treats>,
    taken: Mutex<Vec<Taken>>,
}

impl Collector {
    /// One that takes everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let task = Owned::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, _task: task }
    }

    /// Its address, as senders are told it.
    pub fn address(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From here on it treats what comes like this.
    pub fn treats(&self, how: Treats) {
        *lock(&self.shared.treats) = how;
    }

    /// What it took until now.
    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.shared.taken).clone()
    }

    /// What it took, as the Python package of OpenTelemetry's messages reads it: a list of spans and a list of log records.
    /// `None` where that package can not be had.
    pub fn decoded(&self) -> Option<Decoded> {
        let python = real::venv(&[PACKAGE])?;
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for taken in self.taken() {
            let head = format!("{} {}\n", taken.path, taken.message.len());
            file.write_all(head.as_bytes()).and_then(|()| file.write_all(&taken.message)).expect("written");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/collector/decode.py");
        let ran = real::run(Command::new(python).arg(script).arg(file.path()), Duration::from_secs(60));
        assert!(ran.ok, "{}", ran.stderr);
        let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let list = |name: &str| all[name].as_array().cloned().unwrap_or_default();
        Some(Decoded { spans: list("spans"), logs: list("logs") })
    }
}

/// What was in the messages.
#[derive(Debug)]
pub struct Decoded {
    /// Spans: `trace`, `span`, `parent`, `kind`, `name`, `start`, `end`, `status`, `attributes`, `resource`.
    pub spans: Vec<Value>,
    /// Log records: `time`, `severity`, `body`, `trace`, `attributes`, `resource`.
    pub logs: Vec<Value>,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, hyper::Error> {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let grpc = kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
    let body = request.into_body().collect().await?.to_bytes();
    let treats = *lock(&shared.treats);
    match treats {
        Treats::Silent => std::future::pending().await,
        Treats::Refuses => Ok(said(grpc, false)),
        Treats::Well => {
            // A message of gRPC comes behind a byte for compression and four for its length.
            let message = if grpc { body.slice(5.min(body.len())..) } else { body };
            lock(&shared.taken).push(Taken { path, headers, message });
            Ok(said(grpc, true))
        }
    }
}

/// An empty answer of either protocol.
fn said(grpc: bool, well: bool) -> Response<Body> {
    let mut frames = Vec::new();
    let mut response_kind = "application/x-protobuf";
    let mut status = if well { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    if grpc {
        (status, response_kind) = (StatusCode::OK, "application/grpc");
        let code = if well { "0" } else { "3" };
        if well {
            frames.push(Ok(Frame::data(Bytes::from_static(&[0; 5]))));
        }
        frames.push(Ok(Frame::trailers(HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static(code),
        )]))));
    }
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(response_kind));
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PACKAGE: &str = "opentelemetry-proto==1.45.2";
