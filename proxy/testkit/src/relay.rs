//! A way to somebody that can be cut: nothing passes then, and nobody is told.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::task::Owned;

/// Passes connections on to one address. Ends when it is dropped.
pub struct Relay {
    at: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    _task: Owned,
}

impl Relay {
    /// A relay to `to`, on a port that the system chose.
    pub async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, open) = (listener.local_addr().unwrap(), Arc::new(watch::Sender::new(true)));
        let gate = Arc::clone(&open);
        let task = Owned::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((here, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let gate = gate.subscribe();
                connections.spawn(async move {
                    // Whoever is not there is not there behind the relay either.
                    if let Ok(there) = TcpStream::connect(to).await {
                        join(here, there, gate).await;
                    }
                });
            }
        });
        Self { at, open, _task: task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.at
    }

    /// From now on nothing passes, and connections stay as they are.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Everything passes again, also what was on the way.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn join(here: TcpStream, there: TcpStream, gate: watch::Receiver<bool>) {
    let ((from, to), (back_from, back_to)) = (here.into_split(), there.into_split());
    tokio::select! {
        () = carry(from, back_to, gate.clone()) => {}
        () = carry(back_from, to, gate) => {}
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut gate: watch::Receiver<bool>,
) {
    let mut some = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut some).await {
        if gate.wait_for(|open| *open).await.is_err() || to.write_all(&some[..read]).await.is_err() {
            return;
        }
    }
}
