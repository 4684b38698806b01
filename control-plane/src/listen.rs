//! Connections of those who ask in HTTP/1, by the admin API or the webhook, and how much of them there may be. Streams of sidecars
//! are in `push`.
//!
//! Whoever connects is given little time to say what he wants. At the limit of connections the one that has waited
//! longest without a request makes room; when every one of them is at work the new one is told to come back. So neither
//! many silent connections nor slow ones keep an operator out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_certs::{AdminAcceptor, AdminClient, HandshakeError, NamedAcceptor};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::admin::ApiError;

/// How much there may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// What it is that listens, in the log.
    pub(crate) of: &'static str,
    /// Connections at a time.
    pub(crate) connections: usize,
    /// The whole head of a request, from when it may come: so this is how long a connection may idle, too.
    pub(crate) head: Duration,
    /// The whole body of a request.
    pub(crate) body: Duration,
    /// A connection, after which it ends as soon as no request is under way: certificates are looked at anew with the next.
    pub(crate) life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let [head, body, life] = [10, 30, 300].map(Duration::from_secs);
        Self { of: "the admin API", connections: 256, head, body, life }
    }
}

/// How a connection begins.
#[derive(Clone)]
pub(crate) enum Tls {
    /// In plaintext.
    Without,
    /// With a certificate for operators, who may have one, too.
    Admin(AdminAcceptor),
    /// With a certificate for its names.
    Named(NamedAcceptor),
}

impl From<Option<AdminAcceptor>> for Tls {
    fn from(acceptor: Option<AdminAcceptor>) -> Self {
        acceptor.map_or(Self::Without, Self::Admin)
    }
}

impl Tls {
    /// The handshake, and who proved himself in it.
    async fn accept(&self, stream: TcpStream) -> Result<(Box<dyn Io>, Option<AdminClient>), HandshakeError> {
        Ok(match self {
            Self::Without => (Box::new(stream), None),
            Self::Admin(tls) => {
                let (stream, proven) = tls.accept(stream).await?;
                (Box::new(stream), proven)
            }
            Self::Named(tls) => (Box::new(tls.accept(stream).await?), None),
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Serves `router` on `listener` until `shutdown`; requests under way are finished.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Tls,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let (mut tasks, mut open, mut next) = (JoinSet::new(), BTreeMap::<u64, Held>::new(), 0_u64);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = tasks.join_next() => {
                match ended {
                    Ok(id) => drop(open.remove(&id)),
                    // It panicked and can not say which it was: the one whose task holds nothing any more.
                    Err(_) => open.retain(|_, held| Arc::strong_count(&held.at_work) > 1),
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = stream else {
            // No descriptor is free, or the peer is gone already.
            sleep(AFTER_A_FAULT).await;
            continue;
        };
        if open.len() >= limits.connections {
            let Some(longest) = open.iter().find(|(_, held)| held.is_waiting()).map(|(id, _)| *id) else {
                refuse(stream).await;
                continue;
            };
            if let Some(held) = open.remove(&longest) {
                held.end.cancel();
            }
        }
        let (id, held) = (next, Held::default());
        next += 1;
        open.insert(id, held.clone());
        let (router, tls) = (router.clone(), tls.clone());
        tasks.spawn(async move {
            opened(stream, peer, &tls, router, limits, held).await;
            id
        });
    }
    drop(listener);
    for held in open.values() {
        held.end.cancel();
    }
    while tasks.join_next().await.is_some() {}
}

/// An open connection, as the one who accepts them sees it.
#[derive(Clone, Default)]
struct Held {
    at_work: Arc<AtomicBool>,
    end: CancellationToken,
}

impl Held {
    fn is_waiting(&self) -> bool {
        !self.at_work.load(Relaxed)
    }
}

/// Who is at the other end.
#[derive(Clone)]
struct OtherEnd {
    address: SocketAddr,
    proven: Option<AdminClient>,
}

/// A connection from its beginning. Until a handshake is over nothing of a request is read.
async fn opened(
    stream: TcpStream,
    address: SocketAddr,
    tls: &Tls,
    router: Router,
    limits: Limits,
    held: Held,
) {
    let handshake = tokio::select! {
        () = held.end.cancelled() => return,
        done = timeout(limits.head, tls.accept(stream)) => done,
    };
    match handshake {
        Ok(Ok((stream, proven))) => {
            let from = OtherEnd { address, proven };
            connection(stream, from, router, limits, held).await;
        }
        Ok(Err(reason)) => tracing::debug!(of = limits.of, from = %address, %reason, "refused a connection"),
        Err(_late) => {}
    }
}

async fn connection(stream: Box<dyn Io>, from: OtherEnd, router: Router, limits: Limits, held: Held) {
    let at_work = &held.at_work;
    let service = service_fn(|request: Request<Incoming>| {
        at_work.store(true, Relaxed);
        let (router, at_work, from) = (router.clone(), Arc::clone(at_work), from.clone());
        async move {
            let mut request = request.map(|body| Body::new(Timed::new(body, limits.body)));
            request.extensions_mut().insert(ConnectInfo(from.address));
            if let Some(client) = from.proven {
                request.extensions_mut().insert(client);
            }
            let Ok(answer) = router.oneshot(request).await;
            at_work.store(false, Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A peer that breaks the rules or goes away is its own business.
        _ended = &mut serving => return,
        () = held.end.cancelled() => {}
        () = sleep(limits.life) => {}
    }
    serving.as_mut().graceful_shutdown();
    if held.is_waiting() {
        let _ended = timeout(LAST_WORDS, serving).await;
    } else {
        let _ended = serving.await;
    }
}

/// Says that there is no room, and takes note of what the peer has said, so that it hears the answer.
async fn refuse(mut stream: TcpStream) {
    let answer = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "every connection is at work; try again");
    let body = answer.to_json().to_string();
    let said = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // So little is taken by the system at once; whoever accepts must not wait for a peer.
    let _gone = timeout(LAST_WORDS, stream.write_all(said.as_bytes())).await;
    let _what_it_wanted = stream.try_read(&mut [0; 16 * 1024]);
}

/// A body that has to be there in time.
struct Timed {
    body: Incoming,
    late: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(body: Incoming, within: Duration) -> Self {
        Self { body, late: Box::pin(sleep(within)) }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|f| f.map_err(axum::Error::new)));
        }
        self.late.as_mut().poll(cx).map(|()| Some(Err(axum::Error::new("the body did not come in time"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long a connection that was asked to end may take, and a peer to take the answer that there is no room.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long nothing is accepted after it could not be.
const AFTER_A_FAULT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::AsyncReadExt;
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    const ASK: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

    struct Server {
        at: SocketAddr,
        /// Each permit lets one request to `/slow` be answered.
        answers: Arc<Semaphore>,
        /// Has a permit for each request to `/slow` that has come.
        came: Arc<Semaphore>,
        stop: oneshot::Sender<()>,
        serving: tokio::task::JoinHandle<()>,
    }

    async fn server(limits: Limits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, answers) = (listener.local_addr().unwrap(), Arc::new(Semaphore::new(0)));
        let (gate, came) = (Arc::clone(&answers), Arc::new(Semaphore::new(0)));
        let coming = Arc::clone(&came);
        let slow = move || async move {
            coming.add_permits(1);
            let _let_through = gate.acquire().await;
            "slow"
        };
        let router = Router::new()
            .route("/", get(|| async { "here" }).post(|body: String| async { body }))
            .route("/slow", get(slow));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, Tls::Without, router, limits, async move {
            let _asked = stopped.await;
        }));
        Server { at, answers, came, stop, serving }
    }

    const SHORT: Duration = Duration::from_millis(200);

    fn limits(connections: usize) -> Limits {
        Limits { connections, ..Limits::default() }
    }

    impl Server {
        /// A connection whose request is being worked on.
        async fn slow(&self) -> TcpStream {
            let stream = saying(self.at, &ASK.replace("/ ", "/slow ")).await;
            self.came.acquire().await.unwrap().forget();
            stream
        }
    }

    async fn saying(to: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until the end of the connection, which must come.
    async fn to_the_end(stream: &mut TcpStream) -> String {
        let mut all = vec![];
        // An end, or a reset: either is one.
        let _ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.expect("an end");
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn is_served(to: SocketAddr) -> bool {
        let ask = ASK.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        to_the_end(&mut saying(to, &ask).await).await.ends_with("here")
    }

    #[tokio::test]
    async fn a_head_that_drips_is_cut_and_so_is_a_connection_that_idles() {
        let server = server(Limits { head: SHORT, ..limits(8) }).await;
        let began = Instant::now();
        let mut dripping = saying(server.at, "GET / HT").await;
        let mut idle = saying(server.at, ASK).await;
        let drip = async {
            loop {
                sleep(SHORT / 8).await;
                if dripping.write_all(b"x").await.is_err() {
                    return;
                }
            }
        };
        let (answered, _) = tokio::join!(to_the_end(&mut idle), timeout(Duration::from_secs(5), drip));
        assert!(answered.ends_with("here"), "{answered}");
        assert!(!to_the_end(&mut dripping).await.contains("200"));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert!(is_served(server.at).await);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let server = server(Limits { body: SHORT, ..limits(8) }).await;
        let ask = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf";
        let answer = to_the_end(&mut saying(server.at, ask).await).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }

    #[tokio::test]
    async fn at_the_limit_silent_connections_make_room_and_who_is_served_is_left_alone() {
        let server = server(limits(4)).await;
        let mut first = server.slow().await;
        let mut silent = vec![];
        for _ in 0..20 {
            silent.push(saying(server.at, "GET / HT").await);
        }
        assert!(is_served(server.at).await);
        assert_eq!(to_the_end(&mut silent[0]).await, "");
        server.answers.add_permits(1);
        let mut answer = vec![0; 512];
        let n = timeout(Duration::from_secs(5), first.read(&mut answer)).await.unwrap().unwrap();
        assert!(answer[..n].ends_with(b"slow"), "{}", String::from_utf8_lossy(&answer[..n]));
    }

    #[tokio::test]
    async fn when_all_are_at_work_the_next_is_told_so_and_served_later() {
        let server = server(limits(2)).await;
        let _two = [server.slow().await, server.slow().await];
        let answer = to_the_end(&mut saying(server.at, ASK).await).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("problem+json") && answer.contains("\"status\":503"), "{answer}");
        server.answers.add_permits(2);
        let served = async { while !is_served(server.at).await {} };
        timeout(Duration::from_secs(5), served).await.unwrap();
    }

    #[tokio::test]
    async fn at_the_end_requests_under_way_are_finished_and_nobody_else_is_waited_for() {
        let server = server(limits(8)).await;
        let mut slow = server.slow().await;
        let _silent = [saying(server.at, "").await, saying(server.at, "GET / HT").await];
        assert!(is_served(server.at).await, "all of them are accepted");
        server.stop.send(()).unwrap();
        while TcpStream::connect(server.at).await.is_ok() {
            tokio::task::yield_now().await;
        }
        server.answers.add_permits(1);
        assert!(to_the_end(&mut slow).await.ends_with("slow"));
        timeout(Duration::from_secs(5), server.serving).await.unwrap().unwrap();
    }
}
