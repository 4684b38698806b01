//! The way to the API server: HTTP/2 over the TLS of `outrigger-certs`, or HTTP/1.1 where the server knows no other.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::rt::{Read as HyperRead, ReadBufCursor, Write as HyperWrite};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use outrigger_certs::{OutsideAlpn, OutsideConnector, OutsideError, OutsideName, certificates_from_pem};
use outrigger_mesh::{Hostname, OutsideRoots};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower::service_fn;
use zeroize::Zeroizing;

use super::Address;
use super::body::{Bounded, Sort};
use super::error::{CallError, CallErrorKind};

/// How the server is reached.
pub(super) struct Way {
    address: Address,
    host: String,
    port: u16,
    authority: Authority,
    name: OutsideName,
    /// Whether the server has said that it knows no HTTP/2.
    only_http1: AtomicBool,
    token: Mutex<Option<(Instant, HeaderValue)>>,
}

const CONNECT: Duration = Duration::from_secs(5);
/// The kubelet replaces a token long before it ends.
const TOKEN_FOR: Duration = Duration::from_secs(10);
const MAX_FILE: u64 = 1 << 20;
/// A connection that is silent is asked whether it lives, so that a watch behind a dead one is not waited for.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

impl Way {
    pub(super) fn new(address: &Address) -> Result<Self, CallError> {
        let wrong = |why: String| CallError::new(CallErrorKind::Settings, &address.url, why);
        let url: Uri = address.url.parse().map_err(|_| wrong("that is no URL".into()))?;
        let (Some("https"), Some(host), "/" | "") = (url.scheme_str(), url.host(), url.path()) else {
            return Err(wrong("write https://HOST, or https://HOST:PORT".into()));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => Some(OutsideName::of_address(ip)),
            Err(_) => Hostname::new(&host).ok().and_then(|name| OutsideName::of_host(&name)),
        };
        let name = name.ok_or_else(|| wrong("no certificate can be for that host".into()))?;
        let authority = url.authority().cloned().ok_or_else(|| wrong("that is no URL".into()))?;
        let way = Self {
            host,
            port: url.port_u16().unwrap_or(443),
            authority,
            name,
            only_http1: AtomicBool::new(false),
            token: Mutex::default(),
            address: address.clone(),
        };
        way.connector().map_err(wrong)?;
        way.bearer().map_err(wrong)?;
        Ok(way)
    }

    pub(super) fn url(&self) -> &str {
        &self.address.url
    }

    pub(super) fn garbage(&self, why: &str) -> CallError {
        CallError::new(CallErrorKind::Away, self.url(), why)
    }

    pub(super) fn silent(&self, within: Duration) -> CallError {
        CallError::new(CallErrorKind::Away, self.url(), format!("no answer within {within:?}"))
    }

    pub(super) fn fault(&self, e: kube::Error) -> CallError {
        let error = |kind, detail: &dyn std::fmt::Display| CallError::new(kind, self.url(), detail);
        match e {
            kube::Error::Api(status) => {
                let kind = match status.code {
                    401 | 403 => CallErrorKind::Forbidden,
                    404 => CallErrorKind::NotFound,
                    409 => CallErrorKind::Conflict,
                    410 => CallErrorKind::Gone,
                    429 => CallErrorKind::Busy,
                    400..=499 => CallErrorKind::Refused,
                    _ => CallErrorKind::Away,
                };
                if status.code == 0 {
                    // Whoever answers so is no API server of Kubernetes: that says at least with what.
                    return error(kind, &"it refuses, and does not say why");
                }
                let said = if status.message.is_empty() { &status.reason } else { &status.message };
                error(kind, &format!("{said} ({})", status.code))
            }
            kube::Error::Service(e) => error(CallErrorKind::Away, &innermost(&*e)),
            kube::Error::SerdeError(_) => {
                error(CallErrorKind::Away, &"it answers something else than was asked")
            }
            other => error(CallErrorKind::Away, &innermost(&other)),
        }
    }

    /// A connection. With the roots as they are in the file now.
    async fn connect(&self) -> Result<Stream, ConnectError> {
        let connector = self.connector()?;
        let http2 = !self.only_http1.load(Ordering::Relaxed);
        let alpn = if http2 { OutsideAlpn::H2 } else { OutsideAlpn::Http1 };
        let done = match self.handshake(&connector, alpn).await {
            Err(Handshake::Tls(OutsideError::Alpn(_))) if http2 => {
                self.only_http1.store(true, Ordering::Relaxed);
                self.handshake(&connector, OutsideAlpn::Http1).await
            }
            done => done,
        };
        done.map_err(|e| ConnectError(e.to_string()))
    }

    async fn handshake(&self, connector: &OutsideConnector, alpn: OutsideAlpn) -> Result<Stream, Handshake> {
        let tcp = timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let tcp = tcp.map_err(|_| Handshake::Late)?.map_err(Handshake::Io)?;
        // Small questions are not to wait for one another.
        tcp.set_nodelay(true).map_err(Handshake::Io)?;
        let stream = connector.connect(tcp, &self.name, alpn).await.map_err(Handshake::Tls)?;
        Ok(Stream { io: TokioIo::new(Box::new(stream)), http2: alpn == OutsideAlpn::H2 })
    }

    fn connector(&self) -> Result<OutsideConnector, String> {
        let path = self.address.roots.display();
        let text = small_file(&self.address.roots)?;
        let roots = certificates_from_pem(&text).map_err(|e| format!("{path}: {e}"))?;
        OutsideConnector::new(&OutsideRoots::Only(roots)).map_err(|e| format!("{path}: {e}"))
    }

    fn bearer(&self) -> Result<HeaderValue, String> {
        let mut known = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bearer)) = &*known
            && at.elapsed() < TOKEN_FOR
        {
            return Ok(bearer.clone());
        }
        let path = self.address.token.display();
        let text = small_file(&self.address.token)?;
        let token = Zeroizing::new(format!("Bearer {}", text.trim()));
        if token.len() <= "Bearer ".len() {
            return Err(format!("{path} is empty"));
        }
        let mut bearer = HeaderValue::from_str(&token).map_err(|_| format!("{path} holds no token"))?;
        bearer.set_sensitive(true);
        *known = Some((Instant::now(), bearer.clone()));
        Ok(bearer)
    }

    /// The request with everything that it lacks.
    fn complete(&self, request: Request<Body>) -> Result<Request<Body>, ConnectError> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(Scheme::HTTPS).authority(self.authority.clone()).path_and_query(path);
        head.uri = uri.build().map_err(|e| ConnectError(e.to_string()))?;
        head.headers.insert(header::AUTHORIZATION, self.bearer()?);
        head.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        head.headers.insert(header::USER_AGENT, HeaderValue::from_static(super::MANAGER));
        Ok(Request::from_parts(head, body))
    }
}

/// The outermost says that a request failed; the innermost says why.
fn innermost<'a>(mut why: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(inner) = why.source() {
        why = inner;
    }
    why
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Bounded<Incoming>>;

/// What `kube` sends its requests through.
pub(super) fn service(
    way: Arc<Way>,
) -> impl tower::Service<
    Request<Body>,
    Response = Answer,
    Error = BoxError,
    Future = BoxFuture<'static, Result<Answer, BoxError>>,
> + Send
+ 'static {
    let to = Arc::clone(&way);
    let connector = service_fn(move |_: Uri| {
        let to = Arc::clone(&to);
        Box::pin(async move { to.connect().await })
    });
    let client: Client<_, Body> = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PONG)
        .build(connector);
    service_fn(move |request: Request<Body>| {
        let (client, way) = (client.clone(), Arc::clone(&way));
        let asked: BoxFuture<'static, _> = Box::pin(async move {
            let sort = Sort::of(request.uri());
            let answer = client.request(way.complete(request)?).await?;
            Ok(answer.map(|body| Bounded::new(body, sort)))
        });
        asked
    })
}

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ConnectError(String);

impl From<String> for ConnectError {
    fn from(why: String) -> Self {
        Self(why)
    }
}

#[derive(Debug, thiserror::Error)]
enum Handshake {
    #[error("no connection within {CONNECT:?}")]
    Late,
    #[error("{0}")]
    Io(std::io::Error),
    #[error("{0}")]
    Tls(OutsideError),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that tells which HTTP it speaks.
struct Stream {
    io: TokioIo<Box<dyn Io>>,
    http2: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        if self.http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl HyperRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl HyperWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn small_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE { Err(format!("{} is too large", path.display())) } else { Ok(text) }
}
