//! The bytes of a connection below TLS: counted, and held back on demand.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is known of a connection from outside.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    pub(crate) read: AtomicU64,
    /// Nothing is read any more.
    pub(crate) closed: AtomicBool,
}

/// A connection that is watched.
#[derive(Debug)]
pub(crate) struct Tapped<IO> {
    io: IO,
    tap: Arc<Tap>,
}

impl<IO> Tapped<IO> {
    pub(crate) fn new(io: IO, tap: Arc<Tap>) -> Self {
        Self { io, tap }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Tapped<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.tap.closed.load(Relaxed) {
            // As a process does that hangs: it is not woken again.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.tap.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Tapped<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
