//! The applications of the matrix: one that speaks HTTP/1.1 and HTTP/2, and one that speaks HTTP/1.0 and nothing newer.
//!
//! Both know `/small`, `/echo`, `/trailers`, `/early` (an answer before the body was read), `/hang` (none, ever) and
//! `/slow` (five pieces with pauses).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::body::{Made, fits};

/// A running application. Dropped, it ends.
pub struct Application {
    pub addr: SocketAddr,
    /// Requests that hang and have not been given up.
    pub hanging: Arc<AtomicI64>,
    task: AbortHandle,
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The pause of `/slow` between its five pieces.
pub const PAUSE: Duration = Duration::from_millis(60);
/// The bytes of a piece of `/slow`.
pub const SLOW_PIECE: u64 = 100;

impl Application {
    /// Starts one that speaks `version`.
    pub async fn start(version: Version) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hanging = Arc::new(AtomicI64::new(0));
        let counter = Arc::clone(&hanging);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let hanging = Arc::clone(&counter);
                if version == Version::HTTP_10 {
                    connections.spawn(old(stream, hanging));
                } else {
                    connections.spawn(new(stream, version, hanging));
                }
            }
        });
        Self { addr, hanging, task: task.abort_handle() }
    }
}

struct Hanging(Arc<AtomicI64>);

impl Hanging {
    fn new(count: Arc<AtomicI64>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

async fn new(stream: TcpStream, version: Version, hanging: Arc<AtomicI64>) {
    let service = service_fn(move |request| answer(request, version, Arc::clone(&hanging)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    expected: Version,
    hanging: Arc<AtomicI64>,
) -> Result<Answer, Infallible> {
    let made = |made: Made| Ok(Response::new(made.map_err(|never| match never {}).boxed_unsync()));
    if request.version() != expected {
        let mut wrong = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *wrong.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        return Ok(wrong);
    }
    match request.uri().path() {
        "/small" => made(Made::new(5).told()),
        "/echo" => Ok(Response::new(request.into_body().boxed_unsync())),
        "/trailers" => {
            let collected = request.into_body().collect().await;
            let came = collected.is_ok_and(|c| c.trailers().is_some_and(|t| t.contains_key("x-end")));
            let mut response =
                Response::new(Made::new(1_000).with_trailer().map_err(|n| match n {}).boxed_unsync());
            response.headers_mut().insert("trailer", "x-end".parse().unwrap());
            response.headers_mut().insert("x-request-trailers", came.to_string().parse().unwrap());
            Ok(response)
        }
        "/early" => {
            let mut response = Response::new(Empty::new().map_err(|n| match n {}).boxed_unsync());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            Ok(response)
        }
        "/hang" => {
            let _given_up = Hanging::new(hanging);
            std::future::pending().await
        }
        "/slow" => made(Made { piece: SLOW_PIECE, pause: PAUSE, ..Made::new(5 * SLOW_PIECE) }),
        other => panic!("no such path: {other}"),
    }
}

/// HTTP/1.0 by hand: one request a connection, an answer whose end is the connection's.
async fn old(mut stream: TcpStream, hanging: Arc<AtomicI64>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<u64>().ok());
    let ok = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n";
    let mut send = async |bytes: &[u8]| stream.write_all(bytes).await.is_ok();
    match path.as_str() {
        "/small" => {
            send(ok).await;
            send(&super::body::pattern()[..5]).await;
        }
        "/trailers" => {
            send(ok).await;
            send(&super::body::pattern()[..1_000]).await;
        }
        "/echo" => {
            // An answer whose length is not told, of a request whose length is.
            let mut left = length.expect("a request to HTTP/1.0 has a length, or no body");
            if !send(ok).await {
                return;
            }
            let (mut read, mut write) = stream.split();
            let mut buffer = vec![0; 64 * 1024];
            let mut at = 0;
            while left > 0 {
                let Ok(got @ 1..) = read.read(&mut buffer).await else { return };
                assert!(fits(&buffer[..got], at), "the request's body is not what was sent");
                at += got as u64;
                left -= got as u64;
                if write.write_all(&buffer[..got]).await.is_err() {
                    return;
                }
            }
        }
        "/early" => {
            send(b"HTTP/1.0 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n").await;
            // Closing over what is still coming would take the answer back.
            let _rest = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
        }
        "/hang" => {
            let _given_up = Hanging::new(hanging);
            let _until_it_closes = stream.read_u8().await;
            return;
        }
        "/slow" => {
            send(ok).await;
            for piece in 0..5 {
                if piece > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                let from = usize::try_from(piece * SLOW_PIECE).unwrap();
                if !send(&super::body::pattern()[from..from + 100]).await {
                    return;
                }
            }
        }
        other => panic!("no such path: {other}"),
    }
    let _ended = stream.shutdown().await;
}
