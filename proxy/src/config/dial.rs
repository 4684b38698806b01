//! Connections to the control plane: TCP, then TLS, never anything else.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_certs::{ControlConnector, HandshakeError};
use outrigger_wire::rpc::{ControlClient, RpcError};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client of the control plane that can tell why its last connection failed. The gRPC library says only "transport
/// error"; whether the address was wrong or the certificate is what an operator needs to know.
#[derive(Clone)]
pub struct Control {
    address: Arc<str>,
    client: ControlClient,
    failure: Arc<Mutex<Option<Failure>>>,
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
        let failure = Arc::new(Mutex::new(None));
        let (at, noted) = (Arc::clone(&address), Arc::clone(&failure));
        let client = ControlClient::new(move || {
            let (at, tls, noted) = (Arc::clone(&at), tls.clone(), Arc::clone(&noted));
            Box::pin(async move {
                let result = connect_to_any(&at, &tls).await;
                let failure = result.as_ref().err().cloned();
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = failure;
                result.map_err(|f| io::Error::other(f.text))
            })
        });
        Self { address, client, failure }
    }

    /// The calls.
    pub fn client(&self) -> &ControlClient {
        &self.client
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
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Tries the replicas of the control plane, each once, from a random one on: those of many sidecars that lost the same one
/// spread over the others.
async fn connect_to_any(
    addresses: &str,
    tls: &ControlConnector,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Failure> {
    let mut all: Vec<&str> = addresses.split(',').map(str::trim).filter(|a| !a.is_empty()).collect();
    fastrand::shuffle(&mut all);
    let mut last = Failure { text: format!("{addresses:?} names no control plane"), stranger: false };
    for address in all {
        match connect(address, tls).await {
            Ok(stream) => return Ok(stream),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

async fn connect(
    address: &str,
    tls: &ControlConnector,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Failure> {
    let fail = |text: String| Failure { text, stranger: false };
    let stream = timeout(CONNECT, TcpStream::connect(address))
        .await
        .map_err(|_| fail(format!("no connection to {address} within {CONNECT:?}")))?
        .map_err(|e| fail(format!("can not connect to {address}: {e}")))?;
    let _best_effort = stream.set_nodelay(true);
    // A peer that vanished without a word is noticed even while something waits to be sent.
    let _best_effort = SockRef::from(&stream).set_tcp_user_timeout(Some(SILENCE));
    let (stream, _peer) = tls.connect(stream).await.map_err(|e| Failure {
        stranger: matches!(e, HandshakeError::PeerUnauthenticated(_) | HandshakeError::WrongIdentity { .. }),
        text: format!("the control plane at {address} is refused: {e}"),
    })?;
    Ok(stream)
}

const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(15);
