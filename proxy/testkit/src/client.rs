//! Small HTTP clients over one kept connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::task::Owned;

/// A client with one connection, which it keeps.
pub struct Client {
    sender: Sender,
    connection: Arc<Owned>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its protocol version.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: HeaderMap,
}

/// The body of a request.
pub type RequestBody = BoxBody<Bytes, Infallible>;

impl Client {
    /// A client that speaks HTTP/1.1 to `addr`.
    pub async fn h1(addr: SocketAddr) -> Self {
        let (sender, connection) =
            http1::handshake(TokioIo::new(dial(addr).await)).await.expect("a handshake");
        let connection = Owned::spawn(async {
            let _ended = connection.with_upgrades().await;
        });
        Self { sender: Sender::H1(sender), connection: Arc::new(connection) }
    }

    /// A client that speaks HTTP/2 with prior knowledge to `addr`.
    pub async fn h2(addr: SocketAddr) -> Self {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(dial(addr).await))
            .await
            .expect("a handshake");
        let connection = Owned::spawn(async {
            let _ended = connection.await;
        });
        Self { sender: Sender::H2(sender), connection: Arc::new(connection) }
    }

    /// Another that uses the same connection, which only HTTP/2 can share.
    #[must_use]
    pub fn beside(&self) -> Self {
        let Sender::H2(sender) = &self.sender else { panic!("HTTP/1.1 has one request at a time") };
        Self { sender: Sender::H2(sender.clone()), connection: Arc::clone(&self.connection) }
    }

    /// GET `path` of `host`.
    pub async fn get(&mut self, host: &str, path: &str) -> anyhow::Result<Reply> {
        self.send(request(Method::GET, host, path, Bytes::new())).await
    }

    /// POST `body` to `path` of `host`.
    pub async fn post(&mut self, host: &str, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Reply> {
        self.send(request(Method::POST, host, path, body.into())).await
    }

    /// Sends `request`, whose URI is `http://host/path`, and reads the answer to its end.
    pub async fn send(&mut self, request: Request<RequestBody>) -> anyhow::Result<Reply> {
        let (head, body) = self.start(request).await?.into_parts();
        let collected = body.collect().await.context("reading the body")?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let Parts { status, version, headers, .. } = head;
        Ok(Reply { status, version, headers, body: collected.to_bytes(), trailers })
    }

    /// Sends `request` and returns once the head of the answer is there, so that its body can be read as it comes.
    pub async fn start(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> anyhow::Result<http::Response<Incoming>> {
        match &mut self.sender {
            Sender::H1(sender) => {
                // HTTP/1.1 wants a Host and an origin-form target; CONNECT keeps its authority.
                if let Some(authority) = request.uri().authority().cloned()
                    && request.method() != Method::CONNECT
                {
                    let host = authority.as_str().parse()?;
                    request.headers_mut().entry(http::header::HOST).or_insert(host);
                    let target = request.uri().path_and_query().map_or("/", |t| t.as_str()).to_owned();
                    *request.uri_mut() = Uri::try_from(target)?;
                }
                sender.ready().await.context("the connection")?;
                sender.send_request(request).await.context("the request")
            }
            Sender::H2(sender) => {
                sender.ready().await.context("the connection")?;
                sender.send_request(request).await.context("the request")
            }
        }
    }

    /// Whether the peer has ended the connection.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }
}

impl Reply {
    /// Its body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its header `name` as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// A request whose URI is `http://host/path`.
pub fn request(method: Method, host: &str, path: &str, body: Bytes) -> Request<RequestBody> {
    Request::builder()
        .method(method)
        .uri(format!("http://{host}{path}"))
        .body(Full::new(body).boxed())
        .expect("a valid request")
}

enum Sender {
    H1(http1::SendRequest<RequestBody>),
    H2(http2::SendRequest<RequestBody>),
}

async fn dial(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.unwrap_or_else(|e| panic!("connecting to {addr}: {e}"));
    let _best_effort = stream.set_nodelay(true);
    stream
}
