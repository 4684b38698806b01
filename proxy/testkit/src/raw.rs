//! Bytes as they are: a backend that records what it is sent, and a client that sends what it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::task::Owned;

/// A TCP backend that records every connection's bytes and answers each connection with the same ones.
#[derive(Debug)]
pub struct RawBackend {
    addr: SocketAddr,
    received: Received,
    _task: Owned,
}

type Received = Arc<Mutex<Vec<Vec<u8>>>>;

impl RawBackend {
    /// A backend that writes `answer` once the first bytes of a connection have come, and then keeps reading.
    pub async fn start(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let received = Received::default();
        let task = Owned::spawn(accept(listener, Arc::clone(&received), answer.into().into()));
        Self { addr, received, _task: task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What each connection has sent so far, in the order they came; 1 MiB each at most.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, received: Received, answer: Arc<[u8]>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        let number = {
            let mut all = received.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Vec::new());
            all.len() - 1
        };
        connections.spawn(record(stream, number, Arc::clone(&received), Arc::clone(&answer)));
    }
}

async fn record(mut stream: TcpStream, number: usize, received: Received, answer: Arc<[u8]>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut answered = false;
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        {
            let mut all = received.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = &mut all[number];
            let room = MAX_KEPT.saturating_sub(kept.len()).min(read);
            kept.extend_from_slice(&buffer[..room]);
        }
        if !answered && stream.write_all(&answer).await.is_err() {
            return;
        }
        answered = true;
    }
}

/// A client that writes bytes and reads bytes.
#[derive(Debug)]
pub struct RawClient(TcpStream);

impl RawClient {
    /// Connects to `addr`.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap_or_else(|e| panic!("connecting to {addr}: {e}"));
        let _best_effort = stream.set_nodelay(true);
        Self(stream)
    }

    /// Writes `bytes`.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).await.expect("writing");
        self
    }

    /// Reads until the peer has been silent for `silence` after its first bytes, or has closed. The flag tells whether it
    /// closed. The first bytes may take longer: a busy machine is no silence.
    pub async fn read_until_silent(&mut self, silence: Duration) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        let mut limit = PATIENCE.max(silence);
        loop {
            match tokio::time::timeout(limit, self.0.read(&mut buffer)).await {
                Err(_silent) => return (all, false),
                Ok(Err(_) | Ok(0)) => return (all, true),
                Ok(Ok(read)) => all.extend_from_slice(&buffer[..read]),
            }
            assert!(all.len() < MAX_KEPT, "the peer does not stop");
            limit = silence;
        }
    }

    /// Reads what comes from a peer that is to close, for which it has some seconds. The flag tells whether it closed.
    pub async fn read_until_closed(&mut self) -> (Vec<u8>, bool) {
        self.read_until_silent(PATIENCE).await
    }

    /// Whether no byte comes within `time`, be the connection closed or not.
    pub async fn stays_silent(&mut self, time: Duration) -> bool {
        let came = tokio::time::timeout(time, self.0.peek(&mut [0; 1])).await;
        !matches!(came, Ok(Ok(1..)))
    }
}

const MAX_KEPT: usize = 1 << 20;
/// How long is waited for first bytes and for the end.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_recorded_as_they_came() {
        let backend = RawBackend::start("pong").await;
        let mut client = RawClient::connect(backend.addr()).await;
        let (answer, closed) =
            client.write(b"ping\0\r\n").await.read_until_silent(Duration::from_millis(100)).await;
        assert_eq!((&answer[..], closed), (&b"pong"[..], false));
        assert!(client.stays_silent(Duration::from_millis(50)).await);
        assert_eq!(backend.received(), [b"ping\0\r\n".to_vec()]);
    }
}
