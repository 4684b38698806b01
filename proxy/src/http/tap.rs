//! Standing between a protocol and its connection: what is written passes on, and whoever stands there is told.
//!
//! Here is the writing half of all of them, once. What is read each of them judges for itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// What somebody in between has to say about what is written. All of it passes as it is unless said otherwise.
pub(in crate::http) trait Tap: Unpin {
    /// The connection.
    type Io: AsyncWrite + Unpin;

    /// Where it is written to.
    fn io(&self) -> &Self::Io;

    /// The same.
    fn io_mut(&mut self) -> &mut Self::Io;

    /// Whether the rest goes nowhere, and shall look written.
    fn is_deaf(&self) -> bool {
        false
    }

    /// Something is about to be written.
    fn writes(&mut self) {}

    /// What came of writing `slices`.
    fn wrote(
        &mut self,
        _cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        _slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        polled
    }

    /// What came of flushing.
    fn flushed(&mut self, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        polled
    }

    /// Nothing more will be written.
    fn closing(&mut self) {}
}

/// Makes a wrapper's writing half of its [`Tap`].
macro_rules! writes_through {
    ($wrapper:ident) => {
        impl<IO: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for $wrapper<IO> {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $crate::http::tap::write(self.get_mut(), cx, buf)
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $crate::http::tap::write_vectored(self.get_mut(), cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                $crate::http::tap::Tap::io(self).is_write_vectored()
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                $crate::http::tap::flush(self.get_mut(), cx)
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let this = self.get_mut();
                $crate::http::tap::Tap::closing(this);
                std::pin::Pin::new($crate::http::tap::Tap::io_mut(this)).poll_shutdown(cx)
            }
        }
    };
}

pub(in crate::http) use writes_through;

pub(in crate::http) fn write<T: Tap>(
    tap: &mut T,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    if tap.is_deaf() {
        return Poll::Ready(Ok(buf.len()));
    }
    tap.writes();
    let polled = Pin::new(tap.io_mut()).poll_write(cx, buf);
    tap.wrote(cx, polled, &[io::IoSlice::new(buf)])
}

pub(in crate::http) fn write_vectored<T: Tap>(
    tap: &mut T,
    cx: &mut Context<'_>,
    bufs: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if tap.is_deaf() {
        return Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()));
    }
    tap.writes();
    let polled = Pin::new(tap.io_mut()).poll_write_vectored(cx, bufs);
    tap.wrote(cx, polled, bufs)
}

pub(in crate::http) fn flush<T: Tap>(tap: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    if tap.is_deaf() {
        return Poll::Ready(Ok(()));
    }
    let polled = Pin::new(tap.io_mut()).poll_flush(cx);
    tap.flushed(polled)
}
