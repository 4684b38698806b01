//! An HTTP origin that tells what it saw and fails on demand. It speaks HTTP/1.1 and HTTP/2 with prior knowledge.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::task::Owned;

/// A running origin.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: Option<Owned>,
}

/// How an origin answers. The default echoes what it saw, with 200.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Waits so long before the head of the answer.
    pub delay: Duration,
    /// Answers this status to so many of a hundred requests, spread evenly.
    pub fail: Option<(StatusCode, u8)>,
    /// Whether and where the connection (HTTP/2: the stream) breaks.
    pub reset: Reset,
    /// The body of an answer.
    pub body: BodyOf,
    /// Headers added to every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Trailers after the body.
    pub trailers: HeaderMap,
}

/// What an answer's body is.
#[derive(Clone, Debug, Default)]
pub enum BodyOf {
    /// What was seen, as JSON: see [`Seen::to_json`].
    #[default]
    Seen,
    /// The request's own body, frame by frame as it comes, and its trailers.
    Request,
    /// These bytes.
    Exactly(Bytes),
    /// So many bytes of `x`.
    Bytes(usize),
    /// `count` chunks of `size` bytes with a pause after each.
    Chunks {
        /// How many.
        count: usize,
        /// How large each is.
        size: usize,
        /// How long it waits after each.
        pause: Duration,
    },
}

/// Where an answer breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// Nowhere.
    #[default]
    Never,
    /// Before its head.
    BeforeHead,
    /// After so many bytes of its body.
    MidBody(usize),
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its target, as it stood.
    pub target: String,
    /// Its protocol version.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body's bytes; 0 for [`BodyOf::Request`], which does not wait for it.
    pub body: usize,
    /// Its trailers, where the body was read.
    pub trailers: HeaderMap,
    /// Who connected.
    pub peer: SocketAddr,
}

impl Seen {
    /// Its header `name` as text, the first where there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// `{"origin", "method", "path", "version", "peer", "body", "headers": [[name, value], …]}`
    pub fn to_json(&self, origin: &str) -> serde_json::Value {
        let headers: Vec<_> =
            self.headers.iter().map(|(n, v)| (n.as_str(), String::from_utf8_lossy(v.as_bytes()))).collect();
        serde_json::json!({
            "origin": origin,
            "method": self.method.as_str(),
            "path": self.target,
            "version": format!("{:?}", self.version),
            "peer": self.peer.to_string(),
            "body": self.body,
            "headers": headers,
        })
    }
}

impl Origin {
    /// An origin that echoes.
    pub async fn start() -> Self {
        Self::named("origin").await
    }

    /// An origin that echoes and says `name` of itself.
    pub async fn named(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let task = Some(Owned::spawn(accept(listener, Arc::clone(&shared))));
        Self { addr, shared, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes how it answers from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// How many requests arrived.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// How many requests it is answering now.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The latest requests, the oldest first; a thousand at most.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).iter().cloned().collect()
    }

    /// Closes its port and every connection: from here on the system refuses.
    pub async fn refuse(&mut self) {
        if let Some(task) = self.task.take() {
            task.end().await;
        }
    }

    /// Listens again, at the same port.
    pub async fn listen_again(&mut self) {
        let listener = bind_again(self.addr).await;
        self.task = Some(Owned::spawn(accept(listener, Arc::clone(&self.shared))));
    }
}

/// Binds a port that was ours a moment ago.
pub(crate) async fn bind_again(addr: SocketAddr) -> TcpListener {
    for _ in 0..200 {
        match TcpListener::bind(addr).await {
            Ok(listener) => return listener,
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(e) => panic!("can not listen at {addr} again: {e}"),
        }
    }
    panic!("{addr} stays in use");
}

#[derive(Debug, Default)]
struct Shared {
    name: String,
    behaviour: Mutex<Behaviour>,
    requests: AtomicU64,
    in_flight: AtomicU64,
    connections: AtomicU64,
    seen: Mutex<VecDeque<Seen>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, peer, Arc::clone(&shared)));
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let _best_effort = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, peer, Arc::clone(&shared)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    // A client that goes away, or a reset on demand, ends in an error here; neither is news.
    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
}

type Body = BoxBody<Bytes, io::Error>;

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    shared: Arc<Shared>,
) -> Result<Response<Body>, io::Error> {
    let number = shared.requests.fetch_add(1, Ordering::SeqCst);
    let guard = InFlight::new(Arc::clone(&shared));
    let behaviour = lock(&shared.behaviour).clone();
    let (head, body) = request.into_parts();
    let mut seen = Seen {
        method: head.method,
        target: head.uri.to_string(),
        version: head.version,
        headers: head.headers,
        body: 0,
        trailers: HeaderMap::new(),
        peer,
    };
    let mut returned = None;
    if matches!(behaviour.body, BodyOf::Request) {
        returned = Some(body.map_err(io::Error::other).boxed());
    } else {
        let collected = body.collect().await.map_err(io::Error::other)?;
        seen.trailers = collected.trailers().cloned().unwrap_or_default();
        seen.body = collected.to_bytes().len();
    }
    let told = seen.to_json(&shared.name).to_string();
    remember(&shared, seen);
    if !behaviour.delay.is_zero() {
        tokio::time::sleep(behaviour.delay).await;
    }
    if behaviour.reset == Reset::BeforeHead {
        return Err(io::Error::other("reset on demand"));
    }
    let body = match behaviour.body {
        BodyOf::Request => returned.unwrap_or_else(empty),
        BodyOf::Seen => full(told.into()),
        BodyOf::Exactly(bytes) => full(bytes),
        BodyOf::Bytes(size) => full(vec![b'x'; size].into()),
        BodyOf::Chunks { count, size, pause } => chunks(count, size, pause),
    };
    let body = with_trailers(body, behaviour.trailers);
    let body = broken(body, behaviour.reset);
    let mut response = Response::new(held(body, guard));
    *response.status_mut() = status(number, behaviour.fail);
    response.headers_mut().extend(behaviour.headers);
    Ok(response)
}

fn remember(shared: &Shared, seen: Seen) {
    let mut all = lock(&shared.seen);
    if all.len() == KEPT {
        all.pop_front();
    }
    all.push_back(seen);
}

/// Spreads `share` failures evenly over every hundred requests, so that a test need not be lucky.
fn status(number: u64, fail: Option<(StatusCode, u8)>) -> StatusCode {
    let Some((status, share)) = fail else { return StatusCode::OK };
    let share = u64::from(share.min(100));
    let fails = (number + 1) * share / 100 > number * share / 100;
    if fails { status } else { StatusCode::OK }
}

fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn chunks(count: usize, size: usize, pause: Duration) -> Body {
    let frames = stream::iter(0..count).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok(Frame::data(Bytes::from(vec![b'x'; size])))
    });
    BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(frames)))))
}

fn with_trailers(body: Body, trailers: HeaderMap) -> Body {
    if trailers.is_empty() {
        return body;
    }
    body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
}

fn broken(body: Body, reset: Reset) -> Body {
    let Reset::MidBody(after) = reset else { return body };
    let mut left = after;
    let frames = body.into_data_stream().map(move |chunk| {
        let mut chunk = chunk?;
        if left == 0 {
            return Err(io::Error::other("reset on demand"));
        }
        chunk.truncate(left);
        left -= chunk.len();
        Ok(Frame::data(chunk))
    });
    let end = stream::once(async {
        // What was written must leave before the break, else the head goes down with it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::other("reset on demand"))
    });
    BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(frames.chain(end))))))
}

/// Counts the answer as in flight until its body has been sent or dropped.
fn held(body: Body, guard: InFlight) -> Body {
    body.map_frame(move |frame| {
        let _held = &guard;
        frame
    })
    .boxed()
}

struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

type Frames = Pin<Box<dyn futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send>>;

/// A boxed body must be `Sync`; the lock is never contended, as polling has the only reference.
struct SyncStream(Mutex<Frames>);

impl futures_util::Stream for SyncStream {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.get_mut().0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(cx)
    }
}

const KEPT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    #[tokio::test]
    async fn an_origin_tells_what_it_saw_over_both_protocols() {
        let origin = Origin::named("cart-v1").await;
        for mut client in [Client::h1(origin.addr()).await, Client::h2(origin.addr()).await] {
            let reply = client.get("cart", "/items?a=1").await.unwrap();
            assert_eq!(reply.status, StatusCode::OK);
            assert_eq!(reply.json()["origin"], "cart-v1");
            assert!(reply.json()["path"].as_str().unwrap().ends_with("/items?a=1"));
        }
        assert_eq!((origin.requests(), origin.connections()), (2, 2));
    }

    #[tokio::test]
    async fn a_share_of_answers_fails_evenly() {
        let origin = Origin::start().await;
        origin.behave(Behaviour { fail: Some((StatusCode::BAD_GATEWAY, 20)), ..Behaviour::default() });
        let mut client = Client::h1(origin.addr()).await;
        let mut failed = 0;
        for _ in 0..50 {
            failed += u32::from(client.get("a", "/").await.unwrap().status == StatusCode::BAD_GATEWAY);
        }
        assert_eq!(failed, 10);
    }

    #[tokio::test]
    async fn trailers_and_a_returned_body_arrive_and_a_break_is_seen() {
        let origin = Origin::start().await;
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        origin.behave(Behaviour { body: BodyOf::Request, trailers, ..Behaviour::default() });
        let mut client = Client::h2(origin.addr()).await;
        let reply = client.post("a", "/", "hello").await.unwrap();
        assert_eq!((&reply.body[..], reply.trailers["grpc-status"].as_bytes()), (&b"hello"[..], &b"0"[..]));

        let body = BodyOf::Chunks { count: 4, size: 10, pause: Duration::ZERO };
        origin.behave(Behaviour { body, reset: Reset::MidBody(15), ..Behaviour::default() });
        assert!(client.get("a", "/").await.is_err());
        assert!(Client::h1(origin.addr()).await.get("a", "/").await.is_err());
        crate::eventually("nothing is in flight", || async { origin.in_flight() == 0 }).await;
    }

    #[tokio::test]
    async fn a_refusing_origin_comes_back_at_the_same_port() {
        let mut origin = Origin::start().await;
        origin.refuse().await;
        assert!(TcpStream::connect(origin.addr()).await.is_err());
        origin.listen_again().await;
        assert!(Client::h1(origin.addr()).await.get("a", "/").await.is_ok());
    }
}
