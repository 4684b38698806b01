//! An origin that switches protocols when asked to, and then echoes; and a client that asks over HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::task::Owned;

/// An origin that switches to whatever it is asked for, over HTTP/1.1 and over HTTP/2 (RFC 8441). What it then gets it
/// sends back; at the end it says `bye`. A request to `/plain` is answered with 200, one to `/no` with 426, one to
/// `/wrong` with a 101 for a key that nobody sent.
#[derive(Debug)]
pub struct Switcher {
    addr: SocketAddr,
    seen: Seen,
    _task: Owned,
}

/// A request as it arrived there.
#[derive(Clone, Debug)]
pub struct SwitchSeen {
    /// Its method.
    pub method: Method,
    /// Its `:protocol`, where it was an extended CONNECT.
    pub protocol: Option<String>,
    /// Its protocol version.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
}

type Seen = Arc<Mutex<Vec<SwitchSeen>>>;

impl Switcher {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let seen = Seen::default();
        let task = Owned::spawn(accept(listener, Arc::clone(&seen)));
        Self { addr, seen, _task: task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The requests that arrived, the oldest first.
    pub fn seen(&self) -> Vec<SwitchSeen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks `host` at `addr` over HTTP/2 for `protocol`. The answer, and the stream where that is a success.
pub async fn connect_h2(
    addr: SocketAddr,
    host: &str,
    path: &str,
    protocol: &'static str,
) -> anyhow::Result<(Response<()>, Option<TokioIo<Upgraded>>)> {
    let stream = TcpStream::connect(addr).await?;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::connect(format!("http://{host}{path}"))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())?;
    request.extensions_mut().insert(Protocol::from_static(protocol));
    let mut response = sender.send_request(request).await?;
    let stream = if response.status().is_success() {
        Some(TokioIo::new(hyper::upgrade::on(&mut response).await?))
    } else {
        None
    };
    Ok((response.map(drop), stream))
}

/// The answer that proves to have read a WebSocket key.
pub fn websocket_accept(key: &str) -> String {
    let hash = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    base64::engine::general_purpose::STANDARD.encode(hash)
}

async fn accept(listener: TcpListener, seen: Seen) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let service = service_fn(move |request| std::future::ready(answer(request, &seen)));
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new()).enable_connect_protocol();
            let _ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(
    mut request: Request<Incoming>,
    seen: &Seen,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let protocol = request.extensions().get::<Protocol>().map(|p| p.as_str().to_owned());
    let all = request.headers().clone();
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(SwitchSeen {
        method: request.method().clone(),
        protocol: protocol.clone(),
        version: request.version(),
        headers: all.clone(),
    });
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
        *response.status_mut() = status;
        Ok(response)
    };
    let upgrade = all.get(header::UPGRADE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    match (request.uri().path(), &protocol, &upgrade) {
        ("/plain", ..) | (_, None, None) => return plain(StatusCode::OK, "plain"),
        ("/no", ..) => return plain(StatusCode::UPGRADE_REQUIRED, "no"),
        _ => {}
    }
    let mut response = Response::new(Empty::new().boxed());
    if let Some(upgrade) = upgrade {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, "upgrade".parse().expect("a value"));
        headers.insert(header::UPGRADE, upgrade.parse().expect("a value"));
        if let Some(key) = all.get("sec-websocket-key").and_then(|k| k.to_str().ok()) {
            let key = if request.uri().path() == "/wrong" { "another" } else { key };
            headers.insert("sec-websocket-accept", websocket_accept(key).parse().expect("a value"));
        }
    }
    response.headers_mut().insert("x-switched", "yes".parse().expect("a value"));
    let on = hyper::upgrade::on(&mut request);
    // Ends with its connection.
    tokio::spawn(async move {
        if let Ok(stream) = on.await {
            echo(TokioIo::new(stream)).await;
        }
    });
    Ok(response)
}

async fn echo(mut stream: TokioIo<Upgraded>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => {
                if stream.write_all(&buffer[..read]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
    let _told = stream.write_all(b"bye").await;
    let _ended = stream.shutdown().await;
}
