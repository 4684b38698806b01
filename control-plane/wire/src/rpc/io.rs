//! An accepted connection, with who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

/// An accepted connection: its bytes, its proven peer and its address.
#[derive(Debug)]
pub struct Accepted<IO, P> {
    io: IO,
    info: ConnectionInfo<P>,
    end: Option<Pin<Box<Sleep>>>,
}

impl<IO, P> Accepted<IO, P> {
    /// A connection over `io`. `peer` is who proved its identity there, if anybody did.
    pub fn new(io: IO, peer: Option<P>, remote: SocketAddr) -> Self {
        Self { io, info: ConnectionInfo { peer, remote, hangup: Hangup::default() }, end: None }
    }

    /// Ends the connection at `end`, whatever runs on it: what the peer proved holds no longer. Who it was may connect
    /// again, and prove it anew.
    #[must_use]
    pub fn until(mut self, end: Instant) -> Self {
        self.end = Some(Box::pin(tokio::time::sleep_until(end)));
        self
    }

    /// What ends it from outside.
    pub(super) fn hangup(&self) -> Hangup {
        self.info.hangup.clone()
    }

    /// Hangs up when its time is over. Asked by whoever reads: a connection is always read from.
    fn watch_end(&mut self, cx: &mut Context<'_>) {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            self.end = None;
            self.info.hangup.hang_up();
        }
    }
}

/// What a handler learns of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo<P> {
    pub(super) peer: Option<P>,
    pub(super) remote: SocketAddr,
    pub(super) hangup: Hangup,
}

/// Ends a connection from outside, whatever its state: a peer that stopped reading can not be told in any other way.
#[derive(Clone, Debug, Default)]
pub struct Hangup(Arc<HangupState>);

#[derive(Debug, Default)]
struct HangupState {
    done: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Hangup {
    /// Ends the connection.
    pub fn hang_up(&self) {
        self.0.done.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        if self.0.done.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "hung up"));
        }
        Ok(())
    }

    fn check_read(&self, cx: &Context<'_>) -> io::Result<()> {
        self.check(&self.0.reader, cx)
    }

    fn check_write(&self, cx: &Context<'_>) -> io::Result<()> {
        self.check(&self.0.writer, cx)
    }
}

impl<IO, P: Clone + Send + Sync + 'static> Connected for Accepted<IO, P> {
    type ConnectInfo = ConnectionInfo<P>;

    fn connect_info(&self) -> ConnectionInfo<P> {
        self.info.clone()
    }
}

impl<IO: AsyncRead + Unpin, P: Unpin> AsyncRead for Accepted<IO, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.watch_end(cx);
        self.info.hangup.check_read(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Accepted<IO, P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.info.hangup.check_write(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.info.hangup.check_write(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
