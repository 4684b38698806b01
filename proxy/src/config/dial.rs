//! Connections to the control plane: TCP, then TLS, never anything else.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_certs::{ControlConnector, HandshakeError};
use outrigger_wire::rpc::{ControlClient, RpcError};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

/// A client of the control plane that can tell why its last connection failed. The gRPC library says only "transport
/// error"; whether the address was wrong or the certificate is what an operator needs to know.
#[derive(Clone)]
pub struct Control {
    address: Arc<str>,
    client: ControlClient,
    noted: Arc<Mutex<Noted>>,
}

/// What is known of the replicas.
#[derive(Default)]
struct Noted {
    /// Why the last connection could not be made.
    failure: Option<Failure>,
    /// Whom the last one was made with.
    at: Option<SocketAddr>,
    /// Who sent us elsewhere, and when.
    sent: HashMap<SocketAddr, Instant>,
}

/// Why a connection could not be made.
#[derive(Clone, Debug)]
struct Failure {
    text: String,
    /// The other end answered, and it is not the control plane we were told to expect.
    stranger: bool,
}

impl Control {
    /// A client of the control plane at `address`: host and port, or several of them with commas between, of which any will
    /// do. Connects at the first call.
    pub fn new(address: &str, tls: ControlConnector) -> Self {
        let address: Arc<str> = address.into();
        let noted = Arc::new(Mutex::new(Noted::default()));
        let (at, shared) = (Arc::clone(&address), Arc::clone(&noted));
        let client = ControlClient::new(move || {
            let (at, tls, shared) = (Arc::clone(&at), tls.clone(), Arc::clone(&shared));
            Box::pin(async move {
                let result = connect_to_any(&at, &tls, &shared).await;
                let mut noted = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok((stream, at)) => {
                        (noted.failure, noted.at) = (None, Some(at));
                        Ok(stream)
                    }
                    Err(failure) => {
                        noted.failure = Some(failure.clone());
                        Err(io::Error::other(failure.text))
                    }
                }
            })
        });
        Self { address, client, noted }
    }

    /// The calls.
    pub fn client(&self) -> &ControlClient {
        &self.client
    }

    /// Whether there may be another replica to go to: a name may have many addresses.
    pub fn knows_others(&self) -> bool {
        let mut all = self.address.split(',').map(str::trim).filter(|a| !a.is_empty());
        let one = all.next().unwrap_or_default();
        all.next().is_some() || one.parse::<SocketAddr>().is_err()
    }

    /// Leaves the replica of the moment, which has said that another one is to be asked: it is the last one to be tried
    /// again. Tells which it was.
    pub fn go_elsewhere(&self) -> Option<SocketAddr> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let at = noted.at;
        if let Some(at) = at {
            noted.sent.retain(|_, when| when.elapsed() < REMEMBERED);
            noted.sent.insert(at, Instant::now());
        }
        drop(noted);
        self.client.hang_up();
        at
    }

    /// Where it is, as the operator wrote it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `error` in words for an operator: why the connection failed, if that is what happened.
    pub fn explain(&self, error: &RpcError) -> String {
        match self.failure() {
            Some(failure) if error.is_retryable() => failure.text,
            _ => error.message.clone(),
        }
    }

    /// Whether the last connection ended because the other end is not the control plane of our mesh.
    pub fn met_a_stranger(&self) -> bool {
        self.failure().is_some_and(|f| f.stranger)
    }

    fn failure(&self) -> Option<Failure> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).failure.clone()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Tries the replicas of the control plane, each once, from a random one on: those of many sidecars that lost the same one
/// spread over the others. Who sent us elsewhere comes last.
async fn connect_to_any(
    addresses: &str,
    tls: &ControlConnector,
    noted: &Mutex<Noted>,
) -> Result<(impl AsyncRead + AsyncWrite + Send + Unpin + use<>, SocketAddr), Failure> {
    let mut last = Failure { text: format!("{addresses:?} names no control plane"), stranger: false };
    let mut all = vec![];
    for name in addresses.split(',').map(str::trim).filter(|a| !a.is_empty()) {
        match timeout(CONNECT, lookup_host(name)).await {
            Ok(Ok(found)) => all.extend(found.map(|at| (name, at))),
            Ok(Err(e)) => last = unproven(format!("can not connect to {name}: {e}")),
            Err(_) => last = unproven(format!("{name} has no address within {CONNECT:?}")),
        }
    }
    fastrand::shuffle(&mut all);
    {
        let noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        all.sort_by_key(|(_, at)| noted.sent.get(at).copied());
    }
    all.truncate(MOST_TRIED);
    for (name, at) in all {
        match connect(name, at, tls).await {
            Ok(stream) => return Ok((stream, at)),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn unproven(text: String) -> Failure {
    Failure { text, stranger: false }
}

async fn connect(
    name: &str,
    at: SocketAddr,
    tls: &ControlConnector,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Failure> {
    let stream = timeout(CONNECT, TcpStream::connect(at))
        .await
        .map_err(|_| unproven(format!("no connection to {name} within {CONNECT:?}")))?
        .map_err(|e| unproven(format!("can not connect to {name}: {e}")))?;
    let _best_effort = stream.set_nodelay(true);
    // A peer that vanished without a word is noticed even while something waits to be sent.
    let _best_effort = SockRef::from(&stream).set_tcp_user_timeout(Some(SILENCE));
    let (stream, _peer) = tls.connect(stream).await.map_err(|e| Failure {
        stranger: matches!(e, HandshakeError::PeerUnauthenticated(_) | HandshakeError::WrongIdentity { .. }),
        text: format!("the control plane at {name} is refused: {e}"),
    })?;
    Ok(stream)
}

const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(15);
/// A name with more addresses than these has others tried the next time.
const MOST_TRIED: usize = 16;
/// So long it is remembered who sent us elsewhere.
const REMEMBERED: Duration = Duration::from_secs(300);
