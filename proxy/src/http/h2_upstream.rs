//! Watches the frames of an HTTP/2 connection to an upstream and ends it when it answers more often than it was asked.
//!
//! h2 takes any number of interim answers (RFC 9110, section 15.2) before the final one: each costs a header list of room
//! until whoever waits for the answer looks, and the work of reading it. Over HTTP/1 [`crate::http::strict`] counts them for each
//! answer; here a head does not say its status, so that what is counted is heads against requests. Those of a connection
//! share what they are allowed, since one with many requests needs no more for each.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::h2_frames::{Follower, Frame, HEADERS};
use crate::http::tap::{Tap, writes_through};

/// A connection to an upstream, its heads counted.
pub(crate) struct Counted<IO> {
    io: IO,
    sent: Follower,
    received: Follower,
    heads: Heads,
}

impl<IO> Counted<IO> {
    /// Counts on `io`, a connection that has not begun yet.
    pub(crate) fn new(io: IO) -> Self {
        Self { io, sent: Follower::of_client(), received: Follower::of_server(), heads: Heads::default() }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counted<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        let Self { received, heads, .. } = this;
        received.feed(&buf.filled()[before..], |frame| heads.received(&frame));
        if heads.left < 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, FLOOD)));
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> Tap for Counted<IO> {
    type Io = IO;

    fn io(&self) -> &IO {
        &self.io
    }

    fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    fn wrote(
        &mut self,
        _cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut left = if let Poll::Ready(Ok(written)) = polled { written } else { 0 };
        let Self { sent, heads, .. } = self;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            left -= part.len();
            sent.feed(part, |frame| heads.sent(&frame));
        }
        polled
    }
}

writes_through!(Counted);

/// How many heads may still come.
#[derive(Debug, Default)]
struct Heads {
    left: i32,
    /// The highest stream that was opened: a head on it or below is of trailers.
    last: u32,
}

impl Heads {
    fn sent(&mut self, frame: &Frame) {
        if frame.kind == HEADERS && frame.stream > self.last {
            self.last = frame.stream;
            self.left = (self.left + EACH).min(MOST);
        }
    }

    fn received(&mut self, frame: &Frame) {
        if frame.kind == HEADERS {
            self.left = self.left.saturating_sub(1);
        }
    }
}

const FLOOD: &str = "the upstream sends more interim answers than anybody asked for";
/// Allowed with each request: eight interim ones, as over HTTP/1, the final one, and trailers.
const EACH: i32 = 10;
/// As many requests as may be under way, all of which may make full use of it.
const MOST: i32 = EACH * 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(stream: u32) -> Frame {
        Frame { kind: HEADERS, flags: 0, stream, length: 1, code: None }
    }

    #[test]
    fn a_request_allows_eight_interim_answers_and_many_of_them_no_more_than_those_under_way() {
        let mut heads = Heads::default();
        heads.sent(&head(1));
        heads.sent(&head(1));
        (0..10).for_each(|_| heads.received(&head(1)));
        assert_eq!(heads.left, 0, "eight, the answer and its trailers; trailers of a request earn nothing");
        heads.received(&head(1));
        assert!(heads.left < 0);

        let mut heads = Heads::default();
        (0..100_000_u32).for_each(|n| heads.sent(&head(2 * n + 1)));
        assert_eq!(heads.left, MOST);
        (0..100_000).for_each(|_| heads.received(&head(1)));
        assert!(heads.left < 0, "and it stays so");
    }
}
