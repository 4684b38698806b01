//! Which connections to places outside the mesh are this process's own.
//!
//! Where the exemption of the sidecar's user is missing or wrong, what it sends is redirected to itself, which sends it
//! again. Its own connections are therefore known by the port they come from: it is taken before the connection is made,
//! so that whoever accepts it in another thread already finds it here.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::net::{TcpSocket, TcpStream};

/// The ports that this process's own connections come from.
#[derive(Debug)]
pub struct OwnCalls(Box<[AtomicU64]>);

/// The port of one such connection, for as long as it is open.
#[derive(Debug)]
pub struct OwnCall {
    all: Arc<OwnCalls>,
    port: u16,
}

impl Default for OwnCalls {
    fn default() -> Self {
        Self((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl OwnCalls {
    /// Connects to `to`.
    pub async fn connect(self: &Arc<Self>, to: SocketAddr) -> io::Result<(TcpStream, OwnCall)> {
        let (socket, any) = if to.is_ipv4() {
            (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
        } else {
            (TcpSocket::new_v6()?, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        };
        // A port that was bound is nobody else's, not even for another destination.
        socket.bind(any)?;
        let port = socket.local_addr()?.port();
        let (word, bit) = self.place(port);
        word.fetch_or(bit, SeqCst);
        let call = OwnCall { all: Arc::clone(self), port };
        let stream = socket.connect(to).await?;
        Ok((stream, call))
    }

    /// Whether a local connection from `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        let (word, bit) = self.place(port);
        word.load(SeqCst) & bit != 0
    }

    fn place(&self, port: u16) -> (&AtomicU64, u64) {
        (&self.0[usize::from(port / 64)], 1 << (port % 64))
    }
}

impl Drop for OwnCall {
    fn drop(&mut self) {
        let (word, bit) = self.all.place(self.port);
        word.fetch_and(!bit, SeqCst);
    }
}

const WORDS: usize = 65_536 / 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_of_ones_own_is_known_while_it_is_open() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let calls = Arc::new(OwnCalls::default());
        let (stream, call) = calls.connect(listener.local_addr().unwrap()).await.unwrap();
        let (_accepted, from) = listener.accept().await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), from);
        assert!(calls.contains(from.port()));
        drop(call);
        assert!(!calls.contains(from.port()));
        // One that fails leaves nothing.
        drop(listener);
        let gone = stream.peer_addr().unwrap();
        assert!(calls.connect(gone).await.is_err());
        assert!((0..=u16::MAX).all(|port| !calls.contains(port)));
    }
}
