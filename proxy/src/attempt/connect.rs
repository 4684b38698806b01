//! Making a connection: TCP, and TLS where the endpoint is in the mesh.
//!
//! One of the two files of the proxy that know of TLS.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_certs::{MeshAlpn, MeshConnector, OutsideAlpn, OutsideConnector, OutsideName, Peer};
use outrigger_mesh::{Reason, SpiffeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::attempt::eyeballs;
use crate::attempt::opaque::OpaqueStream;
use crate::attempt::place::Place;
use crate::attempt::tether::{Tether, Tethered, ends_at};
use crate::error::Error;
use crate::http::body::RequestBody;
use crate::http::edges;
use crate::http::h2_upstream::Counted;
use crate::http::strict::{Asked, HEAD_BUFFER, Limits, ResponseGuard};
use crate::http::upgrade::Handed;
use crate::listen::descriptors;
use crate::tcp::greeting::Greeting;
use crate::tcp::{cut_on_close, keep_alive};
use crate::worker::LocalExec;

/// Sends requests over one HTTP/1.1 connection, one after the other.
#[derive(Debug)]
pub struct SendH1 {
    sender: http1::SendRequest<RequestBody>,
    asked: Rc<Cell<Option<Asked>>>,
    /// Who gets the connection itself once hyper is done with it.
    heir: Rc<RefCell<Option<oneshot::Sender<Handed>>>>,
}

impl SendH1 {
    /// Waits until the connection can take a request.
    pub async fn ready(&mut self) -> hyper::Result<()> {
        self.sender.ready().await
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Asks for the connection itself, should the next answer end its HTTP.
    pub fn inherit(&self) -> oneshot::Receiver<Handed> {
        let (heir, inherits) = oneshot::channel();
        self.heir.replace(Some(heir));
        inherits
    }

    /// Sends a request. Whoever follows the answers is told what it asks: that decides where its answer ends.
    #[inline]
    pub fn try_send_request(
        &mut self,
        request: Request<RequestBody>,
        upgrade: bool,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        self.asked.set(Some(Asked::of(&request, upgrade)));
        self.sender.try_send_request(request)
    }
}

/// Sends requests over one HTTP/2 connection.
pub type SendH2 = http2::SendRequest<RequestBody>;

/// A connection of this worker to `place` over HTTP/1.1.
pub async fn http1(place: &Place, tls: Option<Tls<'_>>) -> Result<(SendH1, Option<Proven>), Error> {
    let make = async {
        let stream = tcp_to(place).await?;
        match tls {
            None => Ok((http1_over(stream, place.keep_case, &Limits::EDGE).await?, None)),
            Some(Tls::Mesh { connector, expected, tether }) => {
                let stream = Tethered::new(stream, &tether);
                let secured = connector.connect(stream, expected, MeshAlpn::Http1).await;
                let secured = secured.map_err(|e| tls_error(place.address, &e))?;
                tether.is_with(&secured.peer);
                let proven = Proven { peer: secured.peer, ends_at: ends_at(secured.until) };
                Ok((http1_over(secured.stream, place.keep_case, &Limits::MESH).await?, Some(proven)))
            }
            Some(Tls::Outside { connector, name }) => {
                let secured = connector.connect(stream, name, OutsideAlpn::Http1).await;
                let secured = secured.map_err(|e| tls_error(place.address, &e))?;
                Ok((http1_over(secured, place.keep_case, &Limits::EDGE).await?, None))
            }
        }
    };
    in_time(place.address, place.connect, make).await
}

/// A connection of this worker to `place` over HTTP/2.
pub async fn http2(place: &Place, tls: Option<Tls<'_>>) -> Result<(SendH2, Option<Proven>), Error> {
    let make = async {
        let stream = tcp_to(place).await?;
        match tls {
            None => Ok((http2_over(stream, &Limits::EDGE).await?, None)),
            Some(Tls::Mesh { connector, expected, tether }) => {
                let stream = Tethered::new(stream, &tether);
                let secured = connector.connect(stream, expected, MeshAlpn::H2).await;
                let secured = secured.map_err(|e| tls_error(place.address, &e))?;
                tether.is_with(&secured.peer);
                let proven = Proven { peer: secured.peer, ends_at: ends_at(secured.until) };
                Ok((http2_over(secured.stream, &Limits::MESH).await?, Some(proven)))
            }
            Some(Tls::Outside { connector, name }) => {
                let secured = connector.connect(stream, name, OutsideAlpn::H2).await;
                Ok((
                    http2_over(secured.map_err(|e| tls_error(place.address, &e))?, &Limits::EDGE).await?,
                    None,
                ))
            }
        }
    };
    Box::pin(in_time(place.address, place.connect, make)).await
}

/// A connection of this worker to `place` for bytes that nobody looks into. The sidecar there has said that its
/// application is connected.
pub async fn opaque(place: &Place, tls: Option<Tls<'_>>) -> Result<OpaqueStream, Error> {
    let make = async {
        let stream = tcp_to(place).await?;
        match tls {
            None => {
                cut_on_close(&stream);
                Ok(OpaqueStream::Plain(stream))
            }
            Some(Tls::Mesh { connector, expected, tether }) => {
                keep_alive(&stream);
                let stream = Tethered::new(stream, &tether);
                let secured = connector.connect(stream, expected, MeshAlpn::Tcp).await;
                let secured = secured.map_err(|e| tls_error(place.address, &e))?;
                tether.is_with(&secured.peer);
                let mut secured = secured.stream;
                Greeting::hear(&mut secured).await?;
                Ok(OpaqueStream::Secured(Box::new(secured)))
            }
            Some(Tls::Outside { connector, name }) => {
                keep_alive(&stream);
                let secured = connector.connect(stream, name, OutsideAlpn::Opaque).await;
                Ok(OpaqueStream::Secured(Box::new(secured.map_err(|e| tls_error(place.address, &e))?)))
            }
        }
    };
    in_time(place.address, place.connect, make).await
}

/// Who proved to be at the other end.
#[derive(Debug)]
pub struct Proven {
    /// The peer.
    pub peer: Peer,
    /// When the connection takes nothing new, so that it ends before a certificate does.
    pub ends_at: Instant,
}

/// What TLS needs: our side, and who may be at the other.
#[derive(Clone)]
pub enum Tls<'a> {
    /// Mutual, in the mesh.
    Mesh {
        /// What cuts the connection when the peer is not believed any more.
        tether: Rc<Tether>,
        /// Our side.
        connector: &'a MeshConnector,
        /// Who may serve there.
        expected: &'a [SpiffeId],
    },
    /// One way, to a server outside.
    Outside {
        /// Our side.
        connector: &'a OutsideConnector,
        /// What the server has to prove to be.
        name: &'a OutsideName,
    },
}

async fn in_time<T>(
    address: SocketAddr,
    limit: Duration,
    make: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, make).await.unwrap_or_else(|_| {
        Err(Error::not_sent(Reason::ConnectFailed, format!("{address} did not answer within {limit:?}")))
    })
}

/// A connection to `place`, at whichever of its addresses answers first.
async fn tcp_to(place: &Place) -> Result<TcpStream, Error> {
    eyeballs::connect(place.address, place.resolved.as_ref().and_then(|r| r.alternate.as_ref())).await
}

/// A connection to `address`. That this process is out of descriptors is not the failure of whoever is there.
pub async fn tcp(address: SocketAddr) -> Result<TcpStream, Error> {
    let failed = |e: std::io::Error| {
        if descriptors::is_exhaustion(&e) {
            return Error::refused(Reason::Overloaded, format!("no connection can be made from here: {e}"));
        }
        Error::not_sent(Reason::ConnectFailed, format!("{address}: {e}"))
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    if descriptors::is_beyond_connecting(&socket) {
        return Err(Error::refused(Reason::Overloaded, "the file descriptors of this sidecar run out"));
    }
    let stream = socket.connect(address).await.map_err(failed)?;
    let _best_effort = stream.set_nodelay(true);
    Ok(stream)
}

fn tls_error(address: SocketAddr, error: &dyn std::error::Error) -> Error {
    Error::not_sent(Reason::TlsFailed, format!("{address}: {error}"))
}

async fn http1_over<IO>(io: IO, keep_case: bool, limits: &'static Limits) -> Result<SendH1, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let asked = Rc::new(Cell::new(None));
    let io = TokioIo::new(ResponseGuard::new(io, Rc::clone(&asked), limits));
    let made =
        http1::Builder::new().max_buf_size(HEAD_BUFFER).preserve_header_case(keep_case).handshake(io).await;
    let (sender, mut connection) = made.map_err(handshake_error)?;
    let heir = Rc::new(RefCell::new(None::<oneshot::Sender<Handed>>));
    let left_to = Rc::clone(&heir);
    // Ends when the sender is dropped, which the pool owns.
    tokio::task::spawn_local(async move {
        let ended = (&mut connection).await;
        if let (Ok(()), Some(heir)) = (ended, left_to.take()) {
            let _gone = heir.send(after_http(connection.into_parts()));
        }
    });
    Ok(SendH1 { sender, asked, heir })
}

/// A connection without its HTTP. What was read behind the answer lies with hyper first, then with the guard.
fn after_http<IO>(parts: http1::Parts<TokioIo<ResponseGuard<IO>>>) -> Handed
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (io, held) = parts.io.into_inner().into_parts();
    let ahead = if held.is_empty() { parts.read_buf } else { [&parts.read_buf[..], &held].concat().into() };
    Handed { io: Box::new(io), ahead }
}

async fn http2_over<IO>(io: IO, limits: &'static Limits) -> Result<SendH2, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http2::Builder::new(LocalExec);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_list())
        .initial_stream_window_size(edges::STREAM_WINDOW)
        // Room for every stream that the pool puts on it: callers who do not read hold up nobody else.
        .initial_connection_window_size(edges::STREAM_WINDOW * edges::MAX_STREAMS)
        .max_send_buf_size(edges::MAX_SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE);
    let made = builder.handshake(TokioIo::new(Counted::new(io))).await;
    let (sender, connection) = made.map_err(handshake_error)?;
    tokio::task::spawn_local(async move {
        let _ended = connection.await;
    });
    Ok(sender)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn handshake_error(error: hyper::Error) -> Error {
    Error::not_sent(Reason::ConnectFailed, error.to_string())
}

/// A peer that vanished without a word is found out while requests wait for it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(10);
