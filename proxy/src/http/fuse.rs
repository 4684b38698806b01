//! A stream of HTTP/2 that has become a tunnel, whose breaking off is told from its end.
//!
//! hyper takes the stream's sending half into a task of its own, and tells an end where the half is dropped, or where the
//! peer resets the stream. Both would make something cut look whole. The task runs on an executor of ours
//! ([`crate::http::answering`]), so that [`Fuse`] can end it without the end of the stream being sent (h2 then resets it),
//! and sees when it ends although nobody has asked it to: the peer has reset the stream.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Between a tunnel and the task that sends for it.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Rc<Wire>);

#[derive(Debug, Default)]
struct Wire {
    /// The task is to send nothing more.
    blown: Cell<bool>,
    /// The task has ended.
    over: Cell<bool>,
}

impl Fuse {
    /// Runs the task that sends, until it ends or the fuse is blown. It is polled when the tunnel's stream is dropped.
    pub(super) async fn guard(self, task: impl Future<Output = ()>) {
        let mut task = pin!(task);
        std::future::poll_fn(|cx| if self.0.blown.get() { Poll::Ready(()) } else { task.as_mut().poll(cx) })
            .await;
        self.0.over.set(true);
    }
}

/// The caller's side of a tunnel. Dropped before [`Fused::ends`] it breaks off.
#[derive(Debug)]
pub(super) struct Fused<IO> {
    io: IO,
    fuse: Fuse,
    read: Reading,
    told: bool,
}

/// How far the reading half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// It looks like an end; the task that sends may know better and is given a turn.
    Doubted,
    Ended,
}

impl<IO> Fused<IO> {
    pub(super) fn new(io: IO, fuse: Fuse) -> Self {
        fuse.0.blown.set(false);
        Self { io, fuse, read: Reading::Open, told: false }
    }

    /// Everything has been said.
    pub(super) fn ends(mut self) {
        self.told = true;
    }
}

impl<IO> Drop for Fused<IO> {
    fn drop(&mut self) {
        if !self.told {
            self.fuse.0.blown.set(true);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Fused<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read == Reading::Open {
            let before = buf.filled().len();
            let polled = Pin::new(&mut this.io).poll_read(cx, buf);
            if !matches!(polled, Poll::Ready(Ok(()))) || buf.filled().len() > before || buf.remaining() == 0 {
                return polled;
            }
            this.read = Reading::Doubted;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let reset = this.read == Reading::Doubted && !this.told && this.fuse.0.over.get();
        this.read = Reading::Ended;
        Poll::Ready(if reset { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) })
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Fused<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Its task ends now because it was asked to.
        this.told = true;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
