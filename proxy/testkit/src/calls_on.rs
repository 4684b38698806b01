//! An application that calls on: for each request it gets, it asks another service through its own sidecar.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::{Client, request as new_request};
use crate::task::Owned;

/// A running application. It listens at once, and calls on as soon as it is told where.
#[derive(Debug)]
pub struct CallsOn {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _task: Owned,
}

/// How it calls on.
#[derive(Clone, Debug)]
pub struct Onward {
    /// Its own sidecar.
    pub sidecar: SocketAddr,
    /// The service that it asks.
    pub host: &'static str,
    /// How long it thinks before.
    pub think: Duration,
    /// What it sends of the trace context.
    pub trace: Trace,
    /// What else it sends.
    pub headers: HeaderMap,
}

/// What an application sends of the trace context of the request it serves.
#[derive(Clone, Debug)]
pub enum Trace {
    /// Nothing.
    Dropped,
    /// All of it, as a telemetry library does.
    PassedOn,
    /// Something else.
    Forged(HeaderMap),
}

#[derive(Default)]
struct Shared {
    requests: AtomicU64,
    onward: Mutex<Option<Onward>>,
    latest: Mutex<HeaderMap>,
    clients: Mutex<Vec<Client>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl CallsOn {
    /// An application that answers 200 and calls nobody yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let task = Owned::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, _task: task }
    }

    /// From here on it calls on.
    pub fn calls(&self, onward: Onward) {
        *lock(&self.shared.onward) = Some(onward);
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests arrived.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The headers of the latest request.
    pub fn latest(&self) -> HeaderMap {
        lock(&self.shared.latest).clone()
    }
}

/// The trace context in `headers`.
pub fn trace_of(headers: &HeaderMap) -> HeaderMap {
    let names = ["traceparent", "tracestate"].map(HeaderName::from_static);
    names.into_iter().filter_map(|name| Some((name.clone(), headers.get(&name)?.clone()))).collect()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        let _best_effort = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
        connections.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    (*lock(&shared.latest)).clone_from(request.headers());
    let onward = lock(&shared.onward).clone();
    let Some(onward) = onward else { return Ok(Response::new(Full::default())) };
    tokio::time::sleep(onward.think).await;
    let mut call = new_request(request.method().clone(), onward.host, request.uri().path(), Bytes::new());
    call.headers_mut().extend(onward.headers);
    match onward.trace {
        Trace::Dropped => {}
        Trace::PassedOn => call.headers_mut().extend(trace_of(request.headers())),
        Trace::Forged(trace) => call.headers_mut().extend(trace),
    }
    let idle = lock(&shared.clients).pop().filter(|client| !client.is_closed());
    let mut client = match idle {
        Some(client) => client,
        None => Client::h1(onward.sidecar).await,
    };
    let mut response = Response::new(Full::default());
    match client.send(call).await {
        Ok(reply) => {
            *response.status_mut() = reply.status;
            if let Some(reason) = reply.headers.get("x-outrigger-reason") {
                response.headers_mut().insert("x-seen-reason", reason.clone());
            }
            *response.body_mut() = Full::new(reply.body);
            lock(&shared.clients).push(client);
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_GATEWAY,
    }
    Ok(response)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
