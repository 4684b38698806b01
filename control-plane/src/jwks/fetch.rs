//! One fetch of a set of keys, with its bounds. Errors are for operators, and tell nothing of what was read.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_certs::{OutsideAlpn, OutsideConnector, OutsideName};
use outrigger_mesh::{Hostname, OutsideRoots, TokenKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::source::{Place, Source};
use super::{address, parse};

/// Fetches and reads the keys of a source. What comes back is never empty.
pub(super) async fn fetch(source: &Source) -> Result<Vec<TokenKey>, String> {
    let text = match &source.place {
        Place::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || file(&path)).await;
            read.map_err(|_| "it was not read".to_owned())??
        }
        Place::Uri { uri, roots, allow_private } => {
            let roots = match roots.as_slice() {
                [] => OutsideRoots::System,
                roots => OutsideRoots::Only(roots.to_vec()),
            };
            let asking = follow(uri, &roots, *allow_private);
            timeout(WHOLE, asking).await.map_err(|_| format!("it took longer than {WHOLE:?}"))??
        }
    };
    parse::keys(&text)
}

fn file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = vec![];
    let most = parse::MAX_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Asks, and follows redirects as long as they stay at the very same server.
async fn follow(uri: &str, roots: &OutsideRoots, allow_private: bool) -> Result<Vec<u8>, String> {
    let mut target: Uri = uri.parse().map_err(|_| "it is no URL".to_owned())?;
    for _ in 0..=MOST_REDIRECTS {
        let answer = ask(&target, roots, allow_private).await?;
        if !answer.status().is_redirection() {
            return body(answer).await;
        }
        let to = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let to: Uri = to.parse().map_err(|_| "it redirects to no URL".to_owned())?;
        let mut parts = to.into_parts();
        let same = parts.authority.is_none() && parts.scheme.is_none()
            || (parts.authority.as_ref() == target.authority() && parts.scheme.as_ref() == target.scheme());
        if !same {
            return Err("it redirects to another server, which is not followed".into());
        }
        parts.authority = target.authority().cloned();
        parts.scheme = target.scheme().cloned();
        target = Uri::from_parts(parts).map_err(|_| "it redirects to no URL".to_owned())?;
    }
    Err("it redirects too often".into())
}

async fn body(answer: Response<Incoming>) -> Result<Vec<u8>, String> {
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let all = Limited::new(answer.into_body(), parse::MAX_BYTES).collect().await;
    let all = all.map_err(|_| "its answer is too long, or was cut short".to_owned())?;
    Ok(all.to_bytes().to_vec())
}

async fn ask(target: &Uri, roots: &OutsideRoots, allow_private: bool) -> Result<Response<Incoming>, String> {
    let host = target.host().ok_or("it names no host")?;
    let tls = match target.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("it is neither https nor http".into()),
    };
    let port = target.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = connect(bare, port, allow_private).await?;
    if !tls {
        return exchange(stream, target).await;
    }
    let name = match bare.parse::<IpAddr>() {
        Ok(ip) => OutsideName::of_address(ip),
        Err(_) => Hostname::new(bare)
            .ok()
            .and_then(|name| OutsideName::of_host(&name))
            .ok_or("no certificate can be for that host")?,
    };
    let connector = OutsideConnector::new(roots).map_err(|e| e.to_string())?;
    let stream = connector.connect(stream, &name, OutsideAlpn::Http1).await.map_err(|e| e.to_string())?;
    exchange(stream, target).await
}

/// A connection to an address that was looked at: none that is resolved anew behind our back.
async fn connect(host: &str, port: u16, allow_private: bool) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let all: Vec<SocketAddr> =
        found.map_err(|e| format!("{host} is not found: {e}"))?.take(MOST_ADDRESSES).collect();
    let mut why = format!("{host} has no address");
    for at in all {
        if let Some(refused) = address::refused(at.ip(), allow_private) {
            why = format!("{} is not asked: {refused}", at.ip());
            continue;
        }
        match timeout(CONNECT, TcpStream::connect(at)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => why = format!("{at}: {e}"),
            Err(_) => why = format!("{at} does not answer"),
        }
    }
    Err(why)
}

async fn exchange<IO>(io: IO, target: &Uri) -> Result<Response<Incoming>, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| format!("HTTP: {e}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    // Ends with the answer's body, or when that is dropped: nothing is kept alive.
    tokio::spawn(async move { drop(timeout(WHOLE, connection).await) });
    let path = target.path_and_query().map_or("/", |p| p.as_str());
    let host = target.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| "its path can not be asked for".to_owned())?;
    sender.send_request(request).await.map_err(failed)
}

const WHOLE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
const MOST_ADDRESSES: usize = 8;
const MOST_REDIRECTS: usize = 3;
