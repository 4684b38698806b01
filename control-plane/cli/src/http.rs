//! Small, bounded HTTP calls on loopback: to the admin API and to the sidecars' own admin ports.
//!
//! One connection a call, a limit on time and on the size of the answer. Deliberately no redirects and no proxies: a
//! token goes to whom it is meant for. How a control plane elsewhere is reached is in `server`.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, ETAG, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use outrigger_certs::ShownCertificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::events::Events;
use crate::server::{Believed, Server};

/// No answer is larger: a mesh's whole configuration fits.
const LARGEST_ANSWER: usize = 64 << 20;
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) headers: HeaderMap,
    /// JSON, if any.
    pub(crate) body: Option<Vec<u8>>,
    /// The time for all of it.
    pub(crate) within: Duration,
    /// No answer is larger.
    pub(crate) largest: usize,
    /// Hears how many bytes of the answer have come.
    pub(crate) progress: Option<fn(usize)>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            headers: HeaderMap::new(),
            body: None,
            within: Duration::from_secs(10),
            largest: LARGEST_ANSWER,
            progress: None,
        }
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody listens there, or not in time.
    Connect(std::io::Error),
    /// The connection broke, or what came was not HTTP, or too much.
    Broken(String),
    /// It took too long.
    Late(Duration),
    /// Somebody is there, and did not prove to be the one who is meant.
    Unproven(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(e) => write!(f, "can not connect: {e}"),
            Self::Broken(what) => write!(f, "the answer broke off: {what}"),
            Self::Unproven(what) => write!(f, "it is not believed: {what}"),
            Self::Late(within) => write!(f, "no answer within {} s", within.as_secs()),
        }
    }
}

/// Asks once.
pub(crate) async fn ask(address: SocketAddr, ask: Ask<'_>) -> Result<Answer, NoAnswer> {
    let within = ask.within;
    let exchange = async { exchange(connect(address).await?, &address.to_string(), ask).await };
    tokio::time::timeout(within, exchange).await.unwrap_or(Err(NoAnswer::Late(within)))
}

/// Asks a control plane once.
pub(crate) async fn ask_server(
    server: &Server,
    believed: Option<&Believed>,
    shown: Option<&ShownCertificate>,
    ask: Ask<'_>,
) -> Result<Answer, NoAnswer> {
    let within = ask.within;
    let exchange = async {
        let stream = server.connect(believed, shown).await?;
        exchange(stream, &server.host_and_port(), ask).await
    };
    tokio::time::timeout(within, exchange).await.unwrap_or(Err(NoAnswer::Late(within)))
}

/// Asks a control plane for events. An answer that is none is read whole.
pub(crate) async fn open_events(
    server: &Server,
    believed: Option<&Believed>,
    shown: Option<&ShownCertificate>,
    ask: Ask<'_>,
) -> Result<Result<Events, Answer>, NoAnswer> {
    let within = ask.within;
    let opening = async {
        let stream = server.connect(believed, shown).await?;
        let broken = |e: &dyn fmt::Display| NoAnswer::Broken(e.to_string());
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let request = request(&server.host_and_port(), ask).map_err(|e| broken(&e))?;
        // Whatever ends it ends the body, too.
        let driving = tokio::spawn(async move { drop(connection.await) });
        let response = send.send_request(request).await.map_err(|e| broken(&e))?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok(Ok(Events::new(body, driving)));
        }
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|e| broken(&e))?;
        driving.abort();
        Ok(Err(Answer { status: head.status, headers: head.headers, body: body.to_bytes() }))
    };
    tokio::time::timeout(within, opening).await.unwrap_or(Err(NoAnswer::Late(within)))
}

/// Asks once over a Unix socket.
pub(crate) async fn ask_socket(path: &Path, ask: Ask<'_>) -> Result<Answer, NoAnswer> {
    let within = ask.within;
    let exchange = async {
        let stream = UnixStream::connect(path).await.map_err(NoAnswer::Connect)?;
        exchange(stream, "localhost", ask).await
    };
    tokio::time::timeout(within, exchange).await.unwrap_or(Err(NoAnswer::Late(within)))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, NoAnswer> {
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
    connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(NoAnswer::Connect)
}

async fn exchange<IO>(stream: IO, host: &str, ask: Ask<'_>) -> Result<Answer, NoAnswer>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: &dyn fmt::Display| NoAnswer::Broken(e.to_string());
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let (largest, progress) = (ask.largest, ask.progress.unwrap_or(|_| {}));
    let request = request(host, ask).map_err(|e| broken(&e))?;
    let exchange = async {
        let response = send.send_request(request).await.map_err(|e| broken(&e))?;
        let (head, body) = response.into_parts();
        let (mut body, mut read) = (Limited::new(body, largest), BytesMut::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|e| broken(&e))?.into_data() {
                read.extend_from_slice(&data);
                progress(read.len());
            }
        }
        Ok(Answer { status: head.status, headers: head.headers, body: read.freeze() })
    };
    // The connection is driven beside the exchange and ends with it: nothing is left running.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

fn request(host: &str, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder().method(ask.method).uri(ask.path);
    if let Some(headers) = request.headers_mut() {
        headers.extend(ask.headers);
    }
    request = request.header(HOST, host);
    if ask.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(Bytes::from(ask.body.unwrap_or_default())))
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives each of its answers once, in order, and tells what it was asked.
    pub(crate) async fn answers(
        answers: Vec<(u16, &'static str, String)>,
    ) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for (status, headers, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut seen = Vec::new();
                while !whole(&seen) {
                    let mut chunk = [0; 4096];
                    let n = stream.read(&mut chunk).await.unwrap();
                    assert!(n > 0, "asked half a question");
                    seen.extend_from_slice(&chunk[..n]);
                }
                asked.push(String::from_utf8(seen).unwrap());
                let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
            asked
        });
        (address, server)
    }

    fn whole(seen: &[u8]) -> bool {
        let text = String::from_utf8_lossy(seen).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length =
            head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        body.len() >= length
    }

    #[tokio::test]
    async fn asks_with_host_and_gets_status_headers_and_body() {
        let (address, server) = answers(vec![(404, "etag: \"7\"\r\n", "gone".into())]).await;
        let answer = ask(address, Ask::get("/v1/services?x=1")).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str(), answer.etag()),
            (404, "gone", Some("\"7\""))
        );
        let asked = server.await.unwrap().remove(0);
        assert!(asked.starts_with("GET /v1/services?x=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: {address}")), "{asked}");
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hurried = Ask { within: Duration::from_millis(50), ..Ask::get("/") };
        assert!(matches!(ask(address, hurried).await, Err(NoAnswer::Late(_))));
        drop(listener);
        assert!(matches!(ask(address, Ask::get("/")).await, Err(NoAnswer::Connect(_))));
    }
}
