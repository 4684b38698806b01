//! The listeners of the admin surface.

use std::fs;
use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use tokio::net::{TcpListener, UnixListener};

use super::connections::Connections;
use super::pages::{AdminState, text};
use super::tapped::{self, Answer, page};

/// Why the admin surface can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not a loopback address.
    #[error(
        "the admin address {0} can be reached from outside: choose one on loopback, like 127.0.0.1:15000"
    )]
    NotLoopback(SocketAddr),
    /// The system refused.
    #[error("the admin address {address}: {source}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something else is at the socket's path.
    #[error("the admin socket {path}: {why}")]
    Socket {
        /// The path.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
}

/// Opens the listener for reading.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    if !address.ip().is_loopback() {
        return Err(AdminError::NotLoopback(address));
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| AdminError::Bind { address: address.to_string(), source })
}

/// The listener for changes; its path is taken away when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Opens the listener for changes, for the owner of the process alone. A socket that nobody listens at is replaced;
/// anything else at its place is left there and is an error.
pub fn bind_socket(path: &Path) -> Result<AdminSocket, AdminError> {
    let failed = |source: io::Error| AdminError::Bind { address: path.display().to_string(), source };
    let taken = |why| AdminError::Socket { path: path.to_path_buf(), why };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(taken("there is a file that is no socket")),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(taken("another process listens there"));
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
    }
    // Made in three steps, as a socket can be connected to only from `listen` on: never with another mode.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).map_err(failed)?;
    socket.bind(&socket2::SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    socket.listen(16).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(AdminSocket { listener, path: path.to_path_buf() })
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // It is a convenience: a socket that stays is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves reading until it is dropped.
pub async fn serve(listener: TcpListener, state: Arc<AdminState>) {
    let mut connections = Connections::of("admin");
    loop {
        let stream = connections.next(|| listener.accept()).await;
        let state = Arc::clone(&state);
        connections.serve(stream, LONGEST_CONNECTION, move |request| ready(read(&state, &request)));
    }
}

fn read(state: &Arc<AdminState>, request: &Request<Incoming>) -> Answer {
    if !has_local_host(request.headers()) {
        return page(text(StatusCode::FORBIDDEN, "Host must be localhost or a loopback address\n"));
    }
    match request.uri().path() {
        "/tap" if *request.method() == Method::GET => tapped::answer(state, request.uri()),
        _ => page(state.read(request.method(), request.uri(), request.headers())),
    }
}

/// Serves changes until it is dropped.
pub async fn serve_socket(socket: AdminSocket, state: Arc<AdminState>) {
    let mut connections = Connections::of("admin socket");
    loop {
        let stream = connections.next(|| socket.listener.accept()).await;
        let state = Arc::clone(&state);
        connections.serve(stream, LONGEST_CONNECTION, move |request| {
            ready(page(state.change(request.method(), request.uri(), request.headers())))
        });
    }
}

/// A page of a browser may reach loopback under a name of its own (DNS rebinding); then Host is that name.
fn has_local_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next().and_then(|h| h.to_str().ok()), hosts.next()) {
        (Some(host), None) => is_local(host),
        _ => false,
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const LONGEST_CONNECTION: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_names_are_local() {
        for good in
            ["localhost", "LOCALHOST:15000", "127.0.0.1", "127.0.0.1:1", "[::1]:15000", "127.9.9.9:80"]
        {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "evil.test",
            "evil.test:15000",
            "localhost.evil.test",
            "10.0.0.1:1",
            "127.0.0.1.evil.test",
            "[::2]",
        ] {
            assert!(!is_local(bad), "{bad}");
        }
    }
}
